//! WebSockets of clients through a whole engine. What needs no engine is tested in `gateway`.

use std::time::Duration;

use bytes::Bytes;
use protocol::envoy::{
    GatewayId, MessageId, PROTOCOL_VERSION, RequestId, ToEnvoyTunnelMessageKind, ToRivet, ToRivetTunnelMessage,
    ToRivetTunnelMessageKind,
};
use protocol::limits;
use serde_json::json;
use testkit::envoy::{FakeEnvoy, TunnelSocket};
use testkit::eventually;
use testkit::websocket::ClientSocket;
use tokio::time::Instant;

use crate::scene::TestEngine;

#[tokio::test]
async fn a_plain_socket_outlives_the_connection_of_its_host_when_the_host_has_all_messages() {
    let engine = TestEngine::start(json!({ "pegboard": { "envoy_update_ping_interval": 30 } })).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    envoy.start_actor().await;
    let mut socket = ClientSocket::open(engine.address(), &format!("/gateway/{actor}/websocket/")).await;
    let on_host = envoy.accept_socket(false).await;
    socket.send_text("one").await;
    envoy.expect_on(&on_host, "a message").await;
    // The host answers a ping that was sent after the message; and then the client hears something that was sent after that.
    envoy.expect_another_ping().await;
    envoy.say_text(&on_host, "heard");
    assert_eq!(socket.expect_text().await, "heard");
    let params = envoy.params().clone();
    envoy.cut();
    eventually("a host that is no longer listed", async || engine.listed_hosts().await.is_empty().then_some(())).await;
    socket.send_text("two").await;
    let mut envoy = engine.host_with(&params).await;
    let (index, message) = envoy.expect_on(&on_host, "the message sent meanwhile").await;
    let ToEnvoyTunnelMessageKind::WebSocketMessage { data, .. } = message else { panic!("{message:?}") };
    assert_eq!((index, &data[..]), (2, &b"two"[..]));
    envoy.say_text(&on_host, "still here");
    assert_eq!(socket.expect_text().await, "still here");
}

#[tokio::test]
async fn an_operator_can_limit_how_fast_a_client_talks() {
    const INTERVAL: Duration = Duration::from_millis(20);
    let rate = json!({ "gateway_websocket_rate_limit_requests": 2, "gateway_websocket_rate_limit_drip_rate_ms": 20 });
    let engine = TestEngine::start(json!({ "pegboard": rate })).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    envoy.start_actor().await;
    let mut socket = ClientSocket::open(engine.address(), &format!("/gateway/{actor}/websocket/")).await;
    let on_host = envoy.accept_socket(false).await;
    let begun = Instant::now();
    for _ in 0..6 {
        socket.send_text("again").await;
    }
    for expected in 1..=6 {
        assert_eq!(envoy.expect_on(&on_host, "a message").await.0, expected);
    }
    assert!(begun.elapsed() >= 4 * INTERVAL, "the first two come at once, and the others one by one");
}

/// An actor with two sockets, which are open, on an engine with one host.
struct TwoSockets {
    envoy: FakeEnvoy,
    socket: ClientSocket,
    on_host: TunnelSocket,
    other: ClientSocket,
    other_on_host: TunnelSocket,
    _engine: TestEngine,
}

impl TwoSockets {
    async fn open() -> Self {
        let engine = TestEngine::start(json!({})).await;
        let mut envoy = engine.host().await;
        let actor = engine.create("counter", None).await;
        envoy.start_actor().await;
        let path = format!("/gateway/{actor}/websocket/");
        let socket = ClientSocket::open(engine.address(), &path).await;
        let on_host = envoy.accept_socket(false).await;
        let other = ClientSocket::open(engine.address(), &path).await;
        let other_on_host = envoy.accept_socket(false).await;
        Self { envoy, socket, on_host, other, other_on_host, _engine: engine }
    }

    fn say(&self, data: Bytes) {
        self.envoy.say(&self.on_host, ToRivetTunnelMessageKind::WebSocketMessage { data, binary: true });
    }

    /// The client of the first socket is told what was wrong. Host and other socket have not noticed.
    async fn only_this_client_is_closed(mut self, expected_code: u16, expected_cause: &str) {
        let (code, reason) = self.socket.expect_close().await;
        assert_eq!((code, reason.split('#').next()), (expected_code, Some(expected_cause)));
        self.other.send_text("unharmed?").await;
        self.envoy.expect_on(&self.other_on_host, "a message").await;
        self.envoy.say_text(&self.other_on_host, "unharmed");
        assert_eq!(self.other.expect_text().await, "unharmed");
    }
}

#[tokio::test]
async fn a_message_of_an_actor_that_is_too_large_harms_only_its_client() {
    let sockets = TwoSockets::open().await;
    sockets.say(vec![7; limits::WEBSOCKET_MESSAGE_MAX_BYTES as usize + 1].into());
    sockets.only_this_client_is_closed(1009, "actor WebSocket message exceeds the maximum size").await;
}

#[tokio::test]
async fn a_frame_of_a_host_has_a_limit() {
    /// What a frame needs beside the data of its message, when that is of about this size.
    fn overhead() -> usize {
        let message_id = MessageId { gateway_id: GatewayId([0; 4]), request_id: RequestId([0; 4]), message_index: 0 };
        let data = Bytes::from(vec![7; limits::ENVOY_FRAME_MAX_BYTES]);
        let message_kind = ToRivetTunnelMessageKind::WebSocketMessage { data, binary: true };
        let frame = ToRivet::TunnelMessage(ToRivetTunnelMessage { message_id, message_kind }).to_frame(PROTOCOL_VERSION);
        frame.unwrap().len() - limits::ENVOY_FRAME_MAX_BYTES
    }
    let largest = limits::ENVOY_FRAME_MAX_BYTES - overhead();
    let sockets = TwoSockets::open().await;
    sockets.say(vec![7; largest].into());
    // It passes, but is more than may wait for a client at all.
    sockets.only_this_client_is_closed(1011, "guard.websocket_pending_limit_reached").await;

    let mut sockets = TwoSockets::open().await;
    sockets.say(vec![7; largest + 1].into());
    assert_eq!(sockets.envoy.expect_close().await.code_and_cause(), (1011, "core.internal_error"));
}

/// An engine inside another program may be dropped without ceremony.
#[tokio::test]
async fn sockets_do_not_outlive_their_engine() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    envoy.start_actor().await;
    let mut socket = ClientSocket::open(engine.address(), &format!("/gateway/{actor}/websocket/")).await;
    envoy.accept_socket(false).await;
    drop(engine);
    let (code, reason) = socket.expect_close().await;
    assert!(code == 1011 && reason.starts_with("ws.going_away#"), "{code} {reason}");
}
