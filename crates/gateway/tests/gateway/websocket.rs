//! Sockets of clients while their actor runs (`spec/gateway.md` 16, checklist 45 to 50).

mod closing;
mod drain;
mod host_loss;
mod messages;
mod opening;
mod silence;
mod unfinished;

use std::time::Duration;

use bytes::Bytes;
use protocol::envoy::{ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};
use protocol::id::ActorId;
use tokio::io::AsyncWriteExt;

use crate::scene::{Host, Request, Scene, Socket};

/// Longer than anything but a limit takes.
const A_MOMENT: Duration = Duration::from_millis(10);

/// An actor that runs as generation 1 on a host, with one socket that cannot hibernate.
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
        let (actor, mut host) = running(&scene);
        let socket = scene.websocket(&target(actor)).await;
        let request = host.accept(false).await;
        Self { scene, actor, host, socket, request }
    }

    /// The actor sends a message.
    fn say(&self, data: impl Into<Bytes>, binary: bool) {
        let data = data.into();
        self.host.send(&self.request, 1, ToRivetTunnelMessageKind::WebSocketMessage { data, binary });
    }

    /// The actor closes the socket.
    fn close(&self, code: Option<u16>, reason: Option<&str>) {
        let reason = reason.map(str::to_owned);
        self.host.send(&self.request, 0, ToRivetTunnelMessageKind::WebSocketClose { code, reason, hibernate: false });
    }

    /// The next message that the actor gets, with its index.
    async fn heard(&mut self) -> (u16, Bytes, bool) {
        match self.host.next().await {
            (id, ToEnvoyTunnelMessageKind::WebSocketMessage { data, binary }) => {
                assert_eq!(id.request_id, self.request.id.request_id);
                (id.message_index, data, binary)
            }
            other => panic!("expected a message, not {other:?}"),
        }
    }

    /// Expects the next message to be this text under this index.
    async fn hears(&mut self, index: u16, text: &str) {
        assert_eq!(self.heard().await, (index, Bytes::from(text.to_owned()), false));
    }

    /// Shows that messages get through both ways, the client's under this index.
    async fn expect_alive(&mut self, index: u16) {
        self.socket.send_text("still there?").await;
        self.hears(index, "still there?").await;
        self.say("yes", false);
        assert_eq!(self.socket.expect_text().await, "yes");
    }
}

/// An actor that runs as generation 1 on a host.
fn running(scene: &Scene) -> (ActorId, Host) {
    let actor = scene.actor(1);
    let host = scene.host();
    scene.run(actor, 1, &host);
    (actor, host)
}

fn target(actor: ActorId) -> String {
    format!("/gateway/{actor}/websocket/")
}

/// Code and reason of the close that the host gets next.
async fn told_host(host: &mut Host) -> (Option<u16>, Option<String>) {
    match host.next().await {
        (_, ToEnvoyTunnelMessageKind::WebSocketClose { code, reason }) => (code, reason),
        other => panic!("expected a close, not {other:?}"),
    }
}

/// The close that a host gets when the client has vanished or was thrown out.
fn downstream_closed() -> (Option<u16>, Option<String>) {
    (Some(1011), Some("ws.downstream_closed".to_owned()))
}

/// Writes a frame as RFC 6455 has it, with a mask that changes nothing.
async fn write_frame(socket: &mut Socket, opcode: u8, is_final: bool, payload: &[u8]) {
    let mut frame = vec![opcode | if is_final { 0x80 } else { 0 }, 0x80 | 127];
    match payload.len() {
        short @ 0..=125 => frame[1] = 0x80 | short as u8,
        medium @ 126..=65_535 => {
            frame[1] = 0x80 | 126;
            frame.extend((medium as u16).to_be_bytes());
        }
        long => frame.extend((long as u64).to_be_bytes()),
    }
    frame.extend([0; 4]);
    let stream = socket.stream.get_mut();
    stream.write_all(&frame).await.expect("an open connection");
    stream.write_all(payload).await.expect("an open connection");
}
