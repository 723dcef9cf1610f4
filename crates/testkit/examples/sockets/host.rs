//! A host whose actors take every WebSocket, echo, and sleep when told.

use std::collections::HashMap;
use std::net::SocketAddr;

use futures_util::{StreamExt, stream};
use http::Method;
use protocol::envoy::{
    Command, GatewayId, MessageId, RequestId, ToEnvoy, ToEnvoyTunnelMessage, ToEnvoyTunnelMessageKind, ToRivet,
    ToRivetTunnelMessage, ToRivetTunnelMessageKind,
};
use serde_json::json;
use testkit::client;
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run};
use testkit::eventually;
use tokio::sync::{mpsc, watch};

/// Actors that are created at the same time.
const CREATIONS: usize = 8;

type SocketId = (GatewayId, RequestId);

/// The host; its connection is served by a task.
pub(crate) struct Host {
    orders: mpsc::UnboundedSender<Sleep>,
    running: watch::Receiver<usize>,
    restored: watch::Receiver<usize>,
}

/// All actors shall sleep.
struct Sleep;

impl Host {
    pub(crate) async fn join(address: SocketAddr) -> Self {
        let envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
        let (orders, taken_orders) = mpsc::unbounded_channel();
        let (counts_running, running) = watch::channel(0);
        let (counts_restored, restored) = watch::channel(0);
        let served = Served { envoy, running: HashMap::new(), sockets: HashMap::new(), counts_running, counts_restored };
        tokio::spawn(served.run(taken_orders));
        Self { orders, running, restored }
    }

    /// Creates actors and waits until all of them run; returns their ids.
    pub(crate) async fn start_actors(&mut self, address: SocketAddr, count: usize) -> Vec<String> {
        let create = async |_| {
            let wanted = json!({ "name": "echo", "runner_name_selector": "default", "crash_policy": "sleep" });
            let answer = client::call_with(address, Method::POST, "/actors?namespace=default", &wanted).await;
            answer.json()["actor"]["actor_id"].as_str().expect("an actor's id").to_owned()
        };
        let ids = stream::iter(0..count).map(create).buffer_unordered(CREATIONS).collect().await;
        self.running.wait_for(|running| *running == count).await.expect("the host's task");
        ids
    }

    /// Lets all actors sleep and waits until the engine says that they do.
    pub(crate) async fn put_all_to_sleep(&mut self, address: SocketAddr, actors: &[String]) {
        self.orders.send(Sleep).expect("the host's task");
        self.running.wait_for(|running| *running == 0).await.expect("the host's task");
        for actor in actors {
            let path = format!("/actors?namespace=default&actor_ids={actor}");
            eventually("a sleeping actor", async || {
                let shown = client::call(address, Method::GET, &path).await.json();
                let actor = &shown["actors"][0];
                (actor["sleep_ts"].is_i64() && actor["connectable_ts"].is_null()).then_some(())
            })
            .await;
        }
    }

    /// Sockets that came back with an actor that woke.
    pub(crate) fn restored(&self) -> usize {
        *self.restored.borrow()
    }
}

/// A socket of an actor.
struct Socket {
    actor: String,
    next_index: u16,
}

struct Served {
    envoy: FakeEnvoy,
    running: HashMap<String, Run>,
    sockets: HashMap<SocketId, Socket>,
    counts_running: watch::Sender<usize>,
    counts_restored: watch::Sender<usize>,
}

impl Served {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Sleep>) {
        loop {
            tokio::select! {
                message = self.envoy.any() => match message {
                    Some(message) => self.take(message),
                    None => panic!("the engine has ended the host's connection"),
                },
                order = orders.recv() => match order {
                    Some(Sleep) => self.running.values().for_each(|run| self.envoy.wants_sleep(run)),
                    None => return,
                },
            }
            self.counts_running.send_replace(self.running.len());
        }
    }

    fn take(&mut self, message: ToEnvoy) {
        match message {
            ToEnvoy::Commands(commands) => {
                for command in commands {
                    let checkpoint = command.checkpoint;
                    let run = Run { actor_id: checkpoint.actor_id, generation: checkpoint.generation };
                    self.envoy.acknowledge(&run, checkpoint.index);
                    match command.inner {
                        Command::StartActor(start) => {
                            self.envoy.running(&run);
                            for socket in &start.hibernating_requests {
                                self.open((socket.gateway_id, socket.request_id));
                            }
                            self.counts_restored.send_modify(|count| *count += start.hibernating_requests.len());
                            self.running.insert(run.actor_id.clone(), run);
                        }
                        Command::StopActor(_) => self.stop(&run),
                    }
                }
            }
            ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage { message_id, message_kind }) => {
                self.tunnelled(&message_id, message_kind);
            }
            ToEnvoy::Init(_) | ToEnvoy::AckEvents(_) | ToEnvoy::Ping { .. } => {}
            other => panic!("this host stores nothing and asks for nothing, but got {other:?}"),
        }
    }

    fn tunnelled(&mut self, id: &MessageId, kind: ToEnvoyTunnelMessageKind) {
        let socket = (id.gateway_id, id.request_id);
        match kind {
            ToEnvoyTunnelMessageKind::WebSocketOpen(open) => {
                self.sockets.insert(socket, Socket { actor: open.actor_id, next_index: 0 });
                self.open(socket);
            }
            ToEnvoyTunnelMessageKind::WebSocketMessage { data, binary } => {
                self.reply(socket, ToRivetTunnelMessageKind::WebSocketMessageAck { index: id.message_index });
                self.reply(socket, ToRivetTunnelMessageKind::WebSocketMessage { data, binary });
            }
            ToEnvoyTunnelMessageKind::WebSocketClose { .. } => {
                self.sockets.remove(&socket);
            }
            other => panic!("nobody sends HTTP requests here, but this came: {other:?}"),
        }
    }

    /// Takes a new or a restored socket.
    fn open(&mut self, socket: SocketId) {
        self.reply(socket, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: true });
    }

    /// Puts an actor to sleep with its sockets.
    fn stop(&mut self, run: &Run) {
        let sockets: Vec<SocketId> =
            self.sockets.iter().filter(|(_, socket)| socket.actor == run.actor_id).map(|(id, _)| *id).collect();
        for socket in sockets {
            self.reply(socket, ToRivetTunnelMessageKind::WebSocketClose { code: None, reason: None, hibernate: true });
        }
        self.envoy.stopped(run);
        self.running.remove(&run.actor_id);
    }

    fn reply(&mut self, socket: SocketId, message_kind: ToRivetTunnelMessageKind) {
        let Some(known) = self.sockets.get_mut(&socket) else { panic!("a message for an unknown socket") };
        let message_id = MessageId { gateway_id: socket.0, request_id: socket.1, message_index: known.next_index };
        known.next_index = known.next_index.wrapping_add(1);
        self.envoy.send(&ToRivet::TunnelMessage(ToRivetTunnelMessage { message_id, message_kind }));
    }
}
