//! Sockets that outlive the sleep of their actor (`spec/gateway.md` 17, checklist 52 to 59).

mod closing;
mod links;
mod model;
mod pending;
mod stopping;
mod waking;

use std::time::Duration;

use protocol::envoy::{ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};
use protocol::id::ActorId;

use crate::scene::{Host, Request, Scene, Socket, settle};

/// Longer than anything but a limit takes.
const A_MOMENT: Duration = Duration::from_millis(10);

/// An actor that runs as generation 1 on a host, with one hibernatable socket.
struct Play {
    scene: Scene,
    actor: ActorId,
    host: Host,
    socket: Socket,
    request: Request,
}

impl Play {
    async fn begin() -> Self {
        Self::on(Scene::new()).await
    }

    async fn on(scene: Scene) -> Self {
        let actor = scene.actor(1);
        let mut host = scene.host();
        scene.run(actor, 1, &host);
        let socket = scene.websocket(&format!("/gateway/{actor}/websocket/")).await;
        let request = host.accept(true).await;
        Self { scene, actor, host, socket, request }
    }

    /// The same, with the actor asleep.
    async fn asleep() -> Self {
        let play = Self::begin().await;
        play.scene.stop(play.actor);
        settle().await;
        play
    }

    /// A host takes the sleeping actor, restores its socket and runs it.
    fn wake_on(&mut self, generation: u32, host: Host) {
        self.host = host;
        self.scene.place(self.actor, generation, &self.host);
        self.restore();
        self.scene.run(self.actor, generation, &self.host);
    }

    /// A new host does.
    fn wake(&mut self, generation: u32) {
        self.wake_on(generation, self.scene.host());
    }

    /// The host says that it has taken the socket back.
    fn restore(&self) {
        self.host.send(&self.request, 0, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: true });
    }

    fn ack(&self, index: u16) {
        self.host.send(&self.request, 0, ToRivetTunnelMessageKind::WebSocketMessageAck { index });
    }

    fn say(&self, text: &str) {
        let data = text.to_owned().into();
        self.host.send(&self.request, 0, ToRivetTunnelMessageKind::WebSocketMessage { data, binary: false });
    }

    /// The actor announces its sleep, while it still runs.
    fn announce_sleep(&self) {
        let close = ToRivetTunnelMessageKind::WebSocketClose { code: None, reason: None, hibernate: true };
        self.host.send(&self.request, 0, close);
    }

    /// The host gets these messages next, under these indices.
    async fn expect(&mut self, expected: &[(u16, &str)]) {
        for (index, text) in expected {
            let (id, kind) = self.host.next().await;
            let ToEnvoyTunnelMessageKind::WebSocketMessage { data, binary: false } = kind else {
                panic!("expected message {index} ({text}), not {kind:?}");
            };
            assert_eq!((id.request_id, id.message_index), (self.request.id.request_id, *index));
            assert_eq!(std::str::from_utf8(&data).unwrap(), *text);
        }
    }

    /// The host gets nothing.
    async fn expect_silence(&mut self) {
        let frame = self.host.next_within(A_MOMENT).await;
        assert!(frame.is_none(), "the host got {frame:?}");
    }

    /// The host is told that the socket is closed; index, code and reason.
    async fn expect_close(&mut self) -> (u16, Option<u16>, Option<String>) {
        let (id, kind) = self.host.next().await;
        assert_eq!(id.request_id, self.request.id.request_id);
        let ToEnvoyTunnelMessageKind::WebSocketClose { code, reason } = kind else { panic!("expected a close, not {kind:?}") };
        (id.message_index, code, reason)
    }

    fn wakes(&self) -> usize {
        self.scene.directory.wakes(self.actor)
    }

    /// The socket works: one message each way.
    async fn expect_alive(&mut self, index: u16) {
        self.socket.send_text("still there").await;
        self.expect(&[(index, "still there")]).await;
        self.ack(index);
        self.say("yes");
        assert_eq!(self.socket.expect_text().await, "yes");
    }
}

/// How a host is told that a client has gone without a word.
fn gone(index: u16) -> (u16, Option<u16>, Option<String>) {
    (index, Some(1011), Some("ws.downstream_closed".to_owned()))
}
