//! WebSockets of clients through a whole engine. What needs no engine is tested in `gateway`.

use std::time::Duration;

use protocol::envoy::ToEnvoyTunnelMessageKind;
use serde_json::json;
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
