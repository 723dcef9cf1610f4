//! Clients' sockets when an engine is killed: hosts keep theirs, and must hear that nobody is there any more.

use protocol::envoy::{ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};
use testkit::client;
use testkit::envoy::{EnvoyParams, FakeEnvoy, TunnelSocket};
use testkit::eventually;
use testkit::websocket::ClientSocket;

use crate::process::{actor, create, on, put_pool};
use crate::scene::is_set;

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
