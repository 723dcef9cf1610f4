//! Random histories against a host that obeys the rules of the SDK (`spec/envoy-protocol.md` 14.2 and 14.6): it drops what it
//! knows already, and a gap is the end of a socket. Whatever happens to the actor and its hosts, each message of the client
//! is taken once and in order, the client hears everything that was said, and nothing is left behind.

use std::ops::Range;

use futures_util::SinkExt;
use gateway::{Readiness, SocketId};
use proptest::prelude::*;
use protocol::envoy::{MessageId, ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};
use protocol::id::ActorId;
use tokio_websockets::{CloseCode, Message};

use super::A_MOMENT;
use crate::scene::{Host, Request, Scene, Socket, settle};

/// What happens next; what makes no sense at that moment is skipped.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The client sends a message.
    Send,
    /// The host takes so many frames.
    Take(usize),
    /// The actor stores how far it has come, and acknowledges it.
    Acknowledge,
    /// The actor says something.
    Say,
    /// The actor announces its sleep.
    Announce,
    /// The actor sleeps, having stored how far it has come.
    Sleep,
    /// The actor crashes and forgets what it has not acknowledged.
    Crash,
    /// A host gets the next generation.
    Place,
    /// It restores the socket.
    Restore,
    /// It reports running.
    Run,
    /// Its connection ends; what it has not taken is lost.
    LoseLink,
    /// It connects anew.
    Reconnect,
}

fn steps(length: Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Send),
        4 => (1..4_usize).prop_map(Step::Take),
        2 => Just(Step::Acknowledge),
        2 => Just(Step::Say),
        1 => Just(Step::Announce),
        2 => Just(Step::Sleep),
        2 => Just(Step::Crash),
        4 => Just(Step::Place),
        4 => Just(Step::Restore),
        4 => Just(Step::Run),
        2 => Just(Step::LoseLink),
        3 => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, length)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asleep,
    Starting,
    Running,
    /// Running, but its sleep is announced: it takes nothing more.
    Leaving,
}

struct Model {
    scene: Scene,
    actor: ActorId,
    host: Host,
    socket: Socket,
    request: Request,
    generation: u32,
    phase: Phase,
    link_up: bool,
    /// The present generation has a route for the socket.
    restored: bool,
    /// The host could not say that yet.
    owes_open: bool,
    sent: u16,
    /// The messages that the actor has taken are those up to here: more would be a gap, less a repetition.
    taken: u16,
    acknowledged: u16,
    said: Vec<String>,
    /// The client has left.
    left: bool,
    /// The engine has told a host of it that took the actor afterwards.
    told_again: bool,
    /// More has gone wrong after that.
    late_is_fine: bool,
    /// The actor has heard of it.
    closed: bool,
}

impl Model {
    async fn begin() -> Self {
        let scene = Scene::new();
        let actor = scene.actor(1);
        let mut host = scene.host();
        scene.run(actor, 1, &host);
        let socket = scene.websocket(&format!("/gateway/{actor}/websocket/")).await;
        let request = host.accept(true).await;
        Self {
            scene,
            actor,
            host,
            socket,
            request,
            generation: 1,
            phase: Phase::Running,
            link_up: true,
            restored: true,
            owes_open: false,
            sent: 0,
            taken: 0,
            acknowledged: 0,
            said: Vec::new(),
            left: false,
            told_again: false,
            late_is_fine: false,
            closed: false,
        }
    }

    fn tell(&self, kind: ToRivetTunnelMessageKind) {
        self.host.send(&self.request, 0, kind);
    }

    /// Whether the actor's code can act on the socket.
    fn is_served(&self) -> bool {
        self.restored && self.link_up && self.phase != Phase::Leaving
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Send if !self.left => {
                self.sent += 1;
                self.socket.send_text(&self.sent.to_string()).await;
            }
            Step::Take(frames) => self.take(frames).await,
            Step::Acknowledge if self.is_served() => {
                self.acknowledged = self.taken;
                self.tell(ToRivetTunnelMessageKind::WebSocketMessageAck { index: self.taken });
            }
            Step::Say if self.is_served() => {
                let text = format!("word {}", self.said.len());
                self.tell(ToRivetTunnelMessageKind::WebSocketMessage { data: text.clone().into(), binary: false });
                self.said.push(text);
            }
            Step::Announce if self.is_served() && self.phase == Phase::Running => {
                self.phase = Phase::Leaving;
                self.tell(ToRivetTunnelMessageKind::WebSocketClose { code: None, reason: None, hibernate: true });
            }
            Step::Sleep if matches!(self.phase, Phase::Running | Phase::Leaving) => self.end(),
            Step::Crash if self.phase != Phase::Asleep => {
                self.taken = self.acknowledged;
                self.end();
            }
            Step::Place if self.phase == Phase::Asleep => {
                self.generation += 1;
                self.host = self.scene.host();
                self.link_up = true;
                self.phase = Phase::Starting;
                // The engine lists what is open, and what is over without a host that was told. An actor that finds a socket
                // missing takes it for closed.
                self.closed |= self.is_told();
                self.scene.place(self.actor, self.generation, &self.host);
            }
            Step::Restore if self.phase != Phase::Asleep && !self.restored => {
                self.restored = true;
                self.owes_open = true;
                self.say_restored();
            }
            Step::Run if self.phase == Phase::Starting && self.link_up => {
                self.phase = Phase::Running;
                // The engine tells the host of sockets that are over, and again at each reconnect.
                self.told_again |= self.is_over();
                self.closed |= self.told_again && self.restored;
                self.scene.run(self.actor, self.generation, &self.host);
            }
            Step::LoseLink if self.phase != Phase::Asleep && self.link_up => {
                self.link_up = false;
                self.show();
                self.scene.tunnels.link_lost(&self.host.link);
            }
            Step::Reconnect if self.phase != Phase::Asleep && !self.link_up => {
                self.link_up = true;
                self.host = self.scene.reconnect(&self.host);
                self.closed |= (self.is_told() || self.told_again) && self.restored;
                self.show();
                self.say_restored();
            }
            Step::Send
            | Step::Acknowledge
            | Step::Say
            | Step::Announce
            | Step::Sleep
            | Step::Crash
            | Step::Place
            | Step::Restore
            | Step::Run
            | Step::LoseLink
            | Step::Reconnect => {}
        }
        settle().await;
    }

    fn socket_id(&self) -> SocketId {
        let MessageId { gateway_id, request_id, .. } = self.request.id;
        SocketId { gateway_id, request_id }
    }

    fn is_over(&self) -> bool {
        !self.scene.journal.open().contains(&self.socket_id())
    }

    fn is_told(&self) -> bool {
        self.scene.journal.is_told(self.socket_id())
    }

    fn end(&mut self) {
        self.phase = Phase::Asleep;
        self.restored = false;
        self.owes_open = false;
        self.scene.stop(self.actor);
    }

    /// Shows the state of the link in the actor's view.
    fn show(&self) {
        let (generation, link) = (self.generation, self.link_up.then(|| self.host.link.clone()));
        let readiness = match self.phase {
            Phase::Starting => Readiness::Hosted { generation, link },
            Phase::Running | Phase::Leaving => Readiness::Ready { generation, link },
            Phase::Asleep => Readiness::NotReady,
        };
        self.scene.directory.change(self.actor, |view| view.readiness = readiness);
    }

    fn say_restored(&mut self) {
        if self.owes_open && self.link_up {
            self.owes_open = false;
            self.tell(ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: true });
        }
    }

    /// The host reads frames, as the SDK does.
    async fn take(&mut self, frames: usize) {
        for _ in 0..frames {
            if !self.link_up || self.phase == Phase::Asleep || self.closed {
                return;
            }
            let Some((id, kind)) = self.host.next_within(A_MOMENT).await else { return };
            if self.phase == Phase::Leaving {
                // It has closed the route already.
                continue;
            }
            assert!(self.restored, "{kind:?} for a socket that is not restored yet");
            let index = id.message_index;
            match &kind {
                ToEnvoyTunnelMessageKind::WebSocketMessage { data, .. } if index > self.taken => {
                    assert_eq!(index, self.taken + 1, "a gap");
                    assert_eq!(&data[..], index.to_string().as_bytes());
                    self.taken = index;
                }
                ToEnvoyTunnelMessageKind::WebSocketMessage { .. } => {}
                ToEnvoyTunnelMessageKind::WebSocketClose { code, reason } => {
                    assert!(self.left, "closed {code:?} {reason:?} under a client that is there");
                    let told = (*code, reason.as_deref());
                    if told == (Some(4001), Some("bye")) {
                        assert_eq!((index, self.taken), (self.sent + 1, self.sent), "it comes behind all that was said");
                    } else {
                        // It hears of it late, and only that.
                        assert!(self.late_is_fine, "closed {code:?} {reason:?}");
                        assert_eq!(told, (Some(1011), Some("ws.downstream_closed")));
                    }
                    self.closed = true;
                }
                ToEnvoyTunnelMessageKind::WebSocketOpen(_)
                | ToEnvoyTunnelMessageKind::RequestStart(_)
                | ToEnvoyTunnelMessageKind::RequestChunk(_)
                | ToEnvoyTunnelMessageKind::RequestAbort(_)
                | ToEnvoyTunnelMessageKind::RequestBodyCancel
                | ToEnvoyTunnelMessageKind::ResponseBodyWindowUpdate { .. } => panic!("{kind:?} on an open socket"),
            }
        }
    }

    /// Everything becomes well in the end.
    async fn recover(&mut self) {
        if self.phase == Phase::Leaving {
            self.step(Step::Sleep).await;
        }
        for step in [Step::Place, Step::Reconnect, Step::Restore, Step::Run] {
            self.step(step).await;
        }
        self.take(usize::MAX).await;
    }

    /// The client has heard everything, closes, and is answered at once.
    async fn leave(&mut self) {
        for expected in &self.said {
            assert_eq!(self.socket.expect_text().await, *expected);
        }
        let code = CloseCode::try_from(4001).unwrap();
        self.socket.stream.send(Message::close(Some(code), "bye")).await.unwrap();
        assert_eq!(self.socket.expect_close().await, (4001, "bye".to_owned()));
        self.left = true;
    }
}

async fn stay(steps: Vec<Step>) {
    let mut model = Model::begin().await;
    for step in steps {
        model.step(step).await;
    }
    model.recover().await;
    assert_eq!(model.taken, model.sent, "everything arrives");
    model.step(Step::Acknowledge).await;
    assert_eq!(model.scene.tunnels.waiting_for_actors_bytes(), 0);
    model.leave().await;
    model.recover().await;
    assert!(model.closed, "the actor hears of the leave");
    model.scene.expect_no_leak().await;
}

async fn leave(before: Vec<Step>, after: Vec<Step>) {
    let mut model = Model::begin().await;
    for step in before {
        model.step(step).await;
    }
    model.leave().await;
    for step in after {
        if model.closed {
            break;
        }
        model.late_is_fine = true;
        model.step(step).await;
    }
    model.recover().await;
    assert!(model.closed, "the actor hears of the leave");
    model.scene.expect_no_leak().await;
}

fn run(history: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(history);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn each_message_is_taken_once_and_in_order_whatever_happens(steps in steps(1..80)) {
        run(stay(steps));
    }

    #[test]
    fn an_actor_hears_that_its_client_has_left_whatever_happens(before in steps(0..30), after in steps(0..20)) {
        run(leave(before, after));
    }
}
