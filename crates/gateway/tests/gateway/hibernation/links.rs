//! Hosts whose connection ends at one moment or another, and hosts that believe in sockets which do not exist.

use protocol::envoy::{GatewayId, MessageId, RequestId, ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};

use super::{A_MOMENT, Play, gone};
use crate::scene::{GATEWAY, Request, Scene, settle};

#[tokio::test(start_paused = true)]
async fn awake_messages_wait_for_the_host_to_reconnect() {
    let mut play = Play::begin().await;
    play.socket.send_text("m1").await;
    play.expect(&[(1, "m1")]).await;
    play.scene.lose_link(play.actor, 1, &play.host);
    play.socket.send_text("m2").await;
    settle().await;
    play.host = play.scene.reconnect(&play.host);
    play.scene.run(play.actor, 1, &play.host);
    // The first one may have been lost with the connection; a host that has it drops the second copy by its index.
    play.expect(&[(1, "m1"), (2, "m2")]).await;
    play.ack(2);
    play.expect_alive(3).await;
}

#[tokio::test(start_paused = true)]
async fn asleep_the_old_hosts_connection_does_not_matter() {
    let mut play = Play::asleep().await;
    play.scene.tunnels.link_lost(&play.host.link);
    settle().await;
    assert_eq!(play.wakes(), 0);
    play.wake(2);
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn lost_between_restoring_and_running() {
    let mut play = Play::asleep().await;
    play.socket.send_text("m1").await;
    play.host = play.scene.host();
    play.scene.place(play.actor, 2, &play.host);
    play.restore();
    play.scene.lose_link(play.actor, 2, &play.host);
    settle().await;
    play.host = play.scene.reconnect(&play.host);
    play.scene.run(play.actor, 2, &play.host);
    play.expect(&[(1, "m1")]).await;
}

#[tokio::test(start_paused = true)]
async fn lost_while_the_socket_is_to_be_restored() {
    let mut play = Play::asleep().await;
    play.socket.send_text("m1").await;
    play.host = play.scene.host();
    play.scene.run(play.actor, 2, &play.host);
    settle().await;
    play.scene.lose_link(play.actor, 2, &play.host);
    // Longer than a host may take to restore a socket while it is there.
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    play.host = play.scene.reconnect(&play.host);
    play.scene.run(play.actor, 2, &play.host);
    play.expect_silence().await;
    play.restore();
    play.expect(&[(1, "m1")]).await;
}

#[tokio::test(start_paused = true)]
async fn lost_for_good_the_socket_hibernates() {
    let mut play = Play::begin().await;
    play.socket.send_text("m1").await;
    play.expect(&[(1, "m1")]).await;
    play.scene.lose_link(play.actor, 1, &play.host);
    play.socket.send_text("m2").await;
    settle().await;
    play.scene.stop(play.actor);
    play.scene.directory.woken(play.actor, 1).await;
    play.wake(2);
    play.expect(&[(1, "m1"), (2, "m2")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_tells_its_own_requests_only() {
    let scene = Scene::new();
    let (here, there) = (scene.actor(1), scene.actor(2));
    let (mut host, mut other) = (scene.host(), scene.host());
    scene.run(here, 1, &host);
    scene.run(there, 1, &other);
    let mut socket = scene.websocket(&format!("/gateway/{here}/websocket/")).await;
    let request = host.accept(false).await;
    let _unharmed = scene.websocket(&format!("/gateway/{there}/websocket/")).await;
    other.accept(false).await;
    scene.lose_link(there, 1, &other);
    settle().await;
    socket.send_text("m1").await;
    let (id, kind) = host.next().await;
    assert_eq!((id.request_id, id.message_index), (request.id.request_id, 1));
    assert!(matches!(kind, ToEnvoyTunnelMessageKind::WebSocketMessage { .. }), "{kind:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_believes_in_a_socket_that_does_not_exist_is_told() {
    let scene = Scene::new();
    let mut host = scene.host();
    let socket = |gateway_id| Request { id: MessageId { gateway_id, request_id: RequestId(*b"gone"), message_index: 9 } };
    let (ours, theirs) = (socket(GATEWAY), socket(GatewayId(*b"dead")));
    let message = || ToRivetTunnelMessageKind::WebSocketMessage { data: "x".into(), binary: false };
    let open = || ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: true };
    for (request, kind) in [(&theirs, open()), (&theirs, message()), (&ours, open())] {
        host.send(request, 0, kind);
        let (id, kind) = host.next().await;
        assert_eq!((id.gateway_id, id.request_id), (request.id.gateway_id, request.id.request_id));
        let ToEnvoyTunnelMessageKind::WebSocketClose { code, reason } = kind else { panic!("{kind:?}") };
        assert_eq!((id.message_index, code, reason), gone(0));
    }
    // Words on their way to a client that has just left, of which the host is being told.
    host.send(&ours, 0, message());
    host.send(&theirs, 0, ToRivetTunnelMessageKind::WebSocketMessageAck { index: 1 });
    assert!(host.next_within(A_MOMENT).await.is_none());
}
