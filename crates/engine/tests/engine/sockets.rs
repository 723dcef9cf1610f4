//! Clients' sockets when their actor stops, and when an engine is killed: hosts keep theirs, and must hear that nobody is
//! there any more.

use std::time::Duration;

use protocol::envoy::{ToEnvoy, ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};
use serde_json::json;
use testkit::client;
use testkit::envoy::{EnvoyParams, FakeEnvoy, TunnelSocket};
use testkit::eventually;
use testkit::websocket::ClientSocket;

use crate::process::{actor, create, on, put_pool};
use crate::scene::{TestEngine, is_set};

/// Far longer than a message takes that is on its way.
const A_MOMENT: Duration = Duration::from_millis(100);

/// The host is told that the client of a socket is gone.
async fn expect_gone(envoy: &mut FakeEnvoy, socket: &TunnelSocket) {
    let (_any_index, kind) = envoy.expect_on(socket, "the end of a socket").await;
    let ToEnvoyTunnelMessageKind::WebSocketClose { code, reason } = kind else { panic!("{kind:?}") };
    assert_eq!((code, reason.as_deref()), (Some(1011), Some("ws.downstream_closed")));
}

#[tokio::test]
async fn after_a_kill_running_actors_hear_at_once_and_sleeping_ones_when_they_start() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = on(folder.path());
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    let awake = create(address, Some("awake")).await;
    envoy.start_actor().await;
    let asleep = create(address, Some("asleep")).await;
    let run = envoy.start_actor().await;
    let mut sockets = Vec::new();
    let mut clients = Vec::new();
    for actor in [&awake, &asleep] {
        clients.push(ClientSocket::open(address, &format!("/gateway/{actor}/websocket/")).await);
        sockets.push(envoy.accept_socket(true).await);
    }
    envoy.wants_sleep(&run);
    envoy.expect_stop(&run).await;
    envoy.stopped(&run);
    let is_asleep = |shown: &serde_json::Value| is_set(&shown["sleep_ts"]) && shown["connectable_ts"].is_null();
    eventually("a sleeping actor", async || Some(actor(address, &asleep).await).filter(is_asleep)).await;
    // What is written lazily is on the disk when something durable that comes later is.
    create(address, Some("later")).await;
    process.kill();

    let (_process, address) = on(folder.path());
    let params = envoy.params().clone();
    let mut envoy = FakeEnvoy::join(address, &params).await;
    expect_gone(&mut envoy, &sockets[0]).await;
    // The sleeper's host restores what it is told to, says so, and only then can its code be told.
    let wake = client::empty(http::Method::GET, &format!("/gateway/{asleep}/request/"));
    let _request = tokio::spawn(client::send(address, wake));
    let (run, start) = loop {
        let (run, start) = envoy.expect_start().await;
        if run.actor_id == asleep {
            break (run, start);
        }
    };
    assert_eq!(start.hibernating_requests, [sockets[1].listed()]);
    envoy.say(&sockets[1], ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: true });
    expect_gone(&mut envoy, &sockets[1]).await;
    envoy.running(&run);
}

#[tokio::test]
async fn an_actor_that_has_been_told_to_stop_gets_no_more_messages() {
    let engine = TestEngine::start(json!({})).await;
    let address = engine.address();
    let mut envoy = engine.host().await;
    let actor = create(address, None).await;
    let run = envoy.start_actor().await;
    let mut client = ClientSocket::open(address, &format!("/gateway/{actor}/websocket/")).await;
    let socket = envoy.accept_socket(true).await;
    envoy.wants_sleep(&run);
    envoy.expect_stop(&run).await;
    for text in ["one", "two"] {
        client.send_text(text).await;
    }
    envoy.say_text(&socket, "the last word");
    assert_eq!(client.expect_text().await, "the last word");
    envoy.stopped(&run);
    let (run, start) = envoy.expect_start().await;
    assert_eq!((run.generation, start.hibernating_requests), (2, vec![socket.listed()]));
    envoy.say(&socket, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: true });
    envoy.running(&run);
    // Nothing has come for this socket since its open: a message to the first generation would be found here first.
    for (index, text) in [(1, "one"), (2, "two")] {
        let (got, kind) = envoy.expect_on(&socket, "a message that was held back").await;
        let ToEnvoyTunnelMessageKind::WebSocketMessage { data, binary: false } = kind else { panic!("{kind:?}") };
        assert_eq!((got, std::str::from_utf8(&data)), (index, Ok(text)));
    }
    envoy.say(&socket, ToRivetTunnelMessageKind::WebSocketMessageAck { index: 2 });
    envoy.expect_none(A_MOMENT, "a repetition", |message| matches!(message, ToEnvoy::TunnelMessage(_))).await;
}
