//! A host whose actors answer every request, take every WebSocket, echo, and sleep when told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Method;
use protocol::envoy::{
    Command, CommandWrapper, GatewayId, Headers, MessageId, RequestId, ResponseStart, ToEnvoy, ToEnvoyTunnelMessage,
    ToEnvoyTunnelMessageKind, ToRivet, ToRivetTunnelMessage, ToRivetTunnelMessageKind,
};
use serde_json::json;
use testkit::client;
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run};
use testkit::eventually;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Actors that are created at the same time.
const CREATIONS: usize = 8;
/// The body of every answer.
const ANSWER: &[u8] = b"hello";
/// A host is taken and all actors start or stop in this time, on a slow engine too.
const PATIENCE: Duration = Duration::from_secs(120);
/// Before a host tries again that was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

type SocketId = (GatewayId, RequestId);

/// The host; its connection is served by a task.
pub(crate) struct Host {
    engine: SocketAddr,
    orders: mpsc::UnboundedSender<Order>,
    running: watch::Receiver<usize>,
    started: watch::Receiver<usize>,
    restored: watch::Receiver<usize>,
}

/// What the host is to do.
enum Order {
    /// Put all actors to sleep.
    SleepNow,
    /// From here on, put each actor to sleep as soon as it runs, or no longer do so.
    Naps(Option<Nap>),
}

/// How actors sleep that have just been started.
#[derive(Clone, Copy)]
pub(crate) struct Nap {
    /// With an alarm that is due so long after their creation.
    pub(crate) alarm_in: Option<Duration>,
}

impl Host {
    pub(crate) async fn join(engine: SocketAddr) -> Self {
        let envoy = timeout(PATIENCE, taken_by(engine)).await;
        let envoy = envoy.unwrap_or_else(|_| panic!("waited {PATIENCE:?} until the engine takes a host"));
        let (orders, taken_orders) = mpsc::unbounded_channel();
        let (counts_running, running) = watch::channel(0);
        let (counts_started, started) = watch::channel(0);
        let (counts_restored, restored) = watch::channel(0);
        let served = Served {
            envoy,
            naps: None,
            running: HashMap::new(),
            sockets: HashMap::new(),
            counts_running,
            counts_started,
            counts_restored,
        };
        tokio::spawn(served.run(taken_orders));
        Self { engine, orders, running, started, restored }
    }

    /// From here on, puts each actor to sleep as soon as it runs.
    pub(crate) fn let_nap(&self, nap: Nap) {
        self.orders.send(Order::Naps(Some(nap))).expect("the host's task");
    }

    /// Leaves actors awake again.
    pub(crate) fn leave_awake(&self) {
        self.orders.send(Order::Naps(None)).expect("the host's task");
    }

    /// Start commands that it has obeyed.
    pub(crate) fn started(&self) -> usize {
        *self.started.borrow()
    }

    /// Creates actors and waits until all of them run; returns their ids.
    pub(crate) async fn start_actors(&mut self, count: usize) -> Vec<String> {
        let create = async |_| {
            let wanted = json!({ "name": "echo", "runner_name_selector": "default", "crash_policy": "sleep" });
            let answer = client::call_with(self.engine, Method::POST, "/actors?namespace=default", &wanted).await;
            answer.json()["actor"]["actor_id"].as_str().expect("an actor's id").to_owned()
        };
        let ids = stream::iter(0..count).map(create).buffer_unordered(CREATIONS).collect().await;
        self.until_running(count).await;
        ids
    }

    /// Lets all actors sleep and waits until the engine says that they do.
    pub(crate) async fn put_all_to_sleep(&mut self, actors: &[String]) {
        self.orders.send(Order::SleepNow).expect("the host's task");
        self.until_asleep(actors).await;
    }

    /// Waits until the engine says that all actors sleep.
    pub(crate) async fn until_asleep(&mut self, actors: &[String]) {
        self.until_running(0).await;
        for actor in actors {
            let path = format!("/actors?namespace=default&actor_ids={actor}");
            eventually("a sleeping actor", async || {
                let shown = client::call(self.engine, Method::GET, &path).await.json();
                let actor = &shown["actors"][0];
                (actor["sleep_ts"].is_i64() && actor["connectable_ts"].is_null()).then_some(())
            })
            .await;
        }
    }

    async fn until_running(&mut self, count: usize) {
        let reached = self.running.wait_for(|running| *running == count);
        let reached =
            timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {count} running actors"));
        reached.expect("the host's task");
    }

    /// Sockets that came back with an actor that woke.
    pub(crate) fn restored(&self) -> usize {
        *self.restored.borrow()
    }
}

/// The published engine needs a moment until it knows the pool that it has just confirmed.
pub(crate) async fn taken_by(engine: SocketAddr) -> FakeEnvoy {
    loop {
        let mut envoy = FakeEnvoy::connect(engine, &EnvoyParams::new()).await.expect("the engine upgrades connections of hosts");
        if matches!(envoy.any().await, Some(ToEnvoy::Init(_))) {
            return envoy;
        }
        tokio::time::sleep(REFUSED_PAUSE).await;
    }
}

struct Served {
    envoy: FakeEnvoy,
    naps: Option<Nap>,
    running: HashMap<String, Run>,
    /// The index of each socket's next message.
    sockets: HashMap<SocketId, u16>,
    counts_running: watch::Sender<usize>,
    counts_started: watch::Sender<usize>,
    counts_restored: watch::Sender<usize>,
}

impl Served {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            tokio::select! {
                message = self.envoy.any() => match message {
                    Some(message) => self.take(message),
                    None => panic!("the engine has ended the host's connection"),
                },
                order = orders.recv() => match order {
                    Some(Order::SleepNow) => self.running.values().for_each(|run| self.envoy.wants_sleep(run)),
                    Some(Order::Naps(naps)) => self.naps = naps,
                    None => return,
                },
            }
            self.counts_running.send_replace(self.running.len());
        }
    }

    fn take(&mut self, message: ToEnvoy) {
        // The rest are acknowledgements: this host stores nothing and asks for nothing.
        if let ToEnvoy::Commands(commands) = message {
            commands.into_iter().for_each(|command| self.obey(command));
        } else if let ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage { message_id, message_kind }) = message {
            self.tunnelled(&message_id, message_kind);
        }
    }

    fn obey(&mut self, CommandWrapper { checkpoint, inner }: CommandWrapper) {
        let run = Run { actor_id: checkpoint.actor_id, generation: checkpoint.generation };
        self.envoy.acknowledge(&run, checkpoint.index);
        match inner {
            Command::StartActor(start) => {
                self.envoy.running(&run);
                for socket in &start.hibernating_requests {
                    self.open((socket.gateway_id, socket.request_id));
                }
                self.counts_restored.send_modify(|count| *count += start.hibernating_requests.len());
                self.counts_started.send_modify(|count| *count += 1);
                if let Some(Nap { alarm_in }) = self.naps {
                    if let Some(alarm_in) = alarm_in {
                        self.envoy.set_alarm(&run, Some(start.config.create_ts + alarm_in.as_millis() as i64));
                    }
                    self.envoy.wants_sleep(&run);
                }
                self.running.insert(run.actor_id.clone(), run);
            }
            Command::StopActor(_) => self.stop(&run),
        }
    }

    fn tunnelled(&mut self, id: &MessageId, kind: ToEnvoyTunnelMessageKind) {
        let socket = (id.gateway_id, id.request_id);
        match kind {
            ToEnvoyTunnelMessageKind::WebSocketOpen(_) => {
                self.sockets.insert(socket, 0);
                self.open(socket);
            }
            ToEnvoyTunnelMessageKind::WebSocketMessage { data, binary } => {
                self.reply(socket, ToRivetTunnelMessageKind::WebSocketMessageAck { index: id.message_index });
                self.reply(socket, ToRivetTunnelMessageKind::WebSocketMessage { data, binary });
            }
            ToEnvoyTunnelMessageKind::WebSocketClose { .. } => {
                self.sockets.remove(&socket);
            }
            ToEnvoyTunnelMessageKind::RequestStart(_) => self.respond(id),
            ToEnvoyTunnelMessageKind::RequestChunk(_)
            | ToEnvoyTunnelMessageKind::RequestAbort(_)
            | ToEnvoyTunnelMessageKind::RequestBodyCancel
            | ToEnvoyTunnelMessageKind::ResponseBodyWindowUpdate { .. } => panic!("nobody sends or reads bodies in parts here"),
        }
    }

    /// Answers a request with one message.
    fn respond(&self, request: &MessageId) {
        let start =
            ResponseStart { status: 200, headers: Headers::default(), body: Some(Bytes::from_static(ANSWER)), stream: false };
        let message_id = MessageId { message_index: 0, ..request.clone() };
        let message_kind = ToRivetTunnelMessageKind::ResponseStart(start);
        self.envoy.send(&ToRivet::TunnelMessage(ToRivetTunnelMessage { message_id, message_kind }));
    }

    /// Takes a new or a restored socket.
    fn open(&mut self, socket: SocketId) {
        self.reply(socket, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: true });
    }

    /// Puts an actor to sleep. Its sockets are not closed with `hibernate` first: while the actor still counts as ready, the
    /// published engine takes that for a reason to wake it again.
    fn stop(&mut self, run: &Run) {
        self.envoy.stopped(run);
        self.running.remove(&run.actor_id);
    }

    fn reply(&mut self, socket: SocketId, message_kind: ToRivetTunnelMessageKind) {
        let next_index = self.sockets.get_mut(&socket).expect("a socket that was opened");
        let message_id = MessageId { gateway_id: socket.0, request_id: socket.1, message_index: *next_index };
        *next_index = next_index.wrapping_add(1);
        self.envoy.send(&ToRivet::TunnelMessage(ToRivetTunnelMessage { message_id, message_kind }));
    }
}
