//! From the upgrade to the actor's acceptance.

use std::time::Duration;

use futures_util::SinkExt;
use gateway::GatewayError;
use protocol::envoy::{ToEnvoy, ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};
use tokio::time::{Instant, timeout};
use tokio_websockets::{CloseCode, Message};

use super::{A_MOMENT, Play, downstream_closed, running, target, told_host};
use crate::scene::{RAY, Scene, settle};

fn refusal(code: u16, reason: &str) -> ToRivetTunnelMessageKind {
    ToRivetTunnelMessageKind::WebSocketClose { code: Some(code), reason: Some(reason.to_owned()), hibernate: false }
}

#[tokio::test(start_paused = true)]
async fn the_upgrade_is_answered_with_what_was_asked_for_and_no_more() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let extensions = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
    let socket = scene.websocket_with(&target(actor), &[("origin", "https://app.test"), extensions]).await;
    assert_eq!(socket.answer["x-rivet-ray-id"], RAY);
    assert_eq!(socket.answer["access-control-allow-origin"], "https://app.test");
    assert!(!socket.answer.contains_key("sec-websocket-protocol"), "nobody offered one");
    assert!(!socket.answer.contains_key("sec-websocket-extensions"), "messages are never compressed");
    let (_, open) = host.expect_open().await;
    assert_eq!((open.path.as_str(), open.actor_generation), ("/websocket/", None));

    let offered = ("sec-websocket-protocol", "rivet, rivet_encoding.bare");
    let socket = scene.websocket_with(&target(actor), &[offered]).await;
    assert_eq!(socket.answer["sec-websocket-protocol"], "rivet");
}

#[tokio::test(start_paused = true)]
async fn an_actor_has_fifteen_seconds_to_accept() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let begun = Instant::now();
    let mut socket = scene.websocket(&target(actor)).await;
    let (request, _) = host.expect_open().await;
    socket.expect_failure(&GatewayError::WebSocketOpenTimeout).await;
    let waited = begun.elapsed();
    assert!((Duration::from_secs(15)..Duration::from_millis(15_100)).contains(&waited), "{waited:?}");
    assert_eq!(told_host(&mut host).await, (Some(1011), Some("guard.websocket_open_timeout".to_owned())));
    // It comes too late.
    host.send(&request, 0, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: false });
    drop(socket);
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn an_acceptance_in_the_last_moment_counts() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let mut socket = scene.websocket(&target(actor)).await;
    let (request, _) = host.expect_open().await;
    assert!(socket.quiet_for(Duration::from_millis(14_990)).await);
    host.send(&request, 0, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: false });
    let mut play = Play { scene, actor, host, socket, request };
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_actor_reaches_the_client_at_once_and_is_final() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let mut socket = scene.websocket(&target(actor)).await;
    let (request, _) = host.expect_open().await;
    let begun = Instant::now();
    host.send(&request, 0, refusal(4003, "auth.forbidden"));
    assert_eq!(socket.expect_close().await, (4003, "auth.forbidden".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(1));
    drop(socket);
    assert!(host.next_within(Duration::from_secs(60)).await.is_none(), "it is not asked again");
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_has_moved_is_asked_again_without_the_client_noticing() {
    let scene = Scene::new();
    let (actor, mut old) = running(&scene);
    let socket = scene.websocket(&target(actor)).await;
    let (first, _) = old.expect_open().await;
    let mut host = scene.host();
    scene.stop(actor);
    scene.run(actor, 2, &host);
    old.send(&first, 0, refusal(1011, "envoy.actor_not_found"));
    let request = host.accept(false).await;
    assert_ne!(request.id.request_id, first.id.request_id, "each attempt has an id of its own");
    let mut play = Play { scene, actor, host, socket, request };
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_the_actor_makes_up_its_mind_frees_everything() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let socket = scene.websocket(&target(actor)).await;
    host.expect_open().await;
    let left = Instant::now();
    drop(socket);
    assert_eq!(told_host(&mut host).await, downstream_closed());
    assert!(left.elapsed() < A_MOMENT);
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_the_actor_wakes_is_not_waited_for() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let socket = scene.websocket(&target(actor)).await;
    scene.directory.woken(actor, 1).await;
    assert_eq!(scene.directory.watchers(actor), 1);
    drop(socket);
    settle().await;
    assert_eq!(scene.directory.watchers(actor), 0, "nobody waits for the actor any more");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_before_it_was_accepted_hears_its_own_close() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let mut socket = scene.websocket(&target(actor)).await;
    host.expect_open().await;
    let code = CloseCode::try_from(4001).unwrap();
    socket.stream.send(Message::close(Some(code), "changed my mind")).await.unwrap();
    assert_eq!(socket.expect_close().await, (4001, "changed my mind".to_owned()));
    assert_eq!(told_host(&mut host).await, (Some(4001), Some("changed my mind".to_owned())));
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_client_says_before_it_was_accepted_is_delivered_even_if_it_closes_then() {
    let scene = Scene::new();
    let (actor, host) = running(&scene);
    let mut socket = scene.websocket(&target(actor)).await;
    for text in ["one", "two"] {
        socket.send_text(text).await;
    }
    socket.stream.send(Message::close(Some(CloseCode::NORMAL_CLOSURE), "")).await.unwrap();
    settle().await;
    let mut host = host;
    let request = host.accept(false).await;
    let mut play = Play { scene, actor, host, socket, request };
    // What the actor says now goes nowhere, and must not get in the way.
    play.say("welcome", false);
    play.hears(1, "one").await;
    play.hears(2, "two").await;
    assert_eq!(told_host(&mut play.host).await, (Some(1000), Some(String::new())));
    assert_eq!(play.socket.expect_close().await, (1000, String::new()));
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn little_is_read_of_a_client_that_was_not_accepted_yet() {
    const PIECE: usize = 16 * 1024;
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let mut socket = scene.websocket(&target(actor)).await;
    let mut taken = 0;
    while timeout(A_MOMENT, socket.stream.send(Message::binary(vec![0; PIECE]))).await.is_ok() {
        taken += 1;
        assert!(taken <= 64, "it is read without end");
    }
    // 64 KiB by the gateway, as much in the pipe, and one read or write more at each end.
    assert!((4..=12).contains(&taken), "{taken} pieces were taken");
    let request = host.accept(false).await;
    let mut play = Play { scene, actor, host, socket, request };
    play.socket.stream.flush().await.unwrap();
    for index in 1..=taken + 1 {
        assert_eq!(play.heard().await.0, index, "nothing is lost");
    }
    play.expect_alive(taken + 2).await;
}

#[tokio::test(start_paused = true)]
async fn an_open_that_the_host_may_never_have_seen_is_repeated() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let socket = scene.websocket(&target(actor)).await;
    let (first, _) = host.expect_open().await;
    scene.lose_link(actor, 1, &host);
    let mut host = scene.reconnect(&host);
    scene.run(actor, 1, &host);
    let (id, close) = host.next().await;
    assert_eq!(id.request_id, first.id.request_id);
    assert!(matches!(close, ToEnvoyTunnelMessageKind::WebSocketClose { .. }), "the first one is given up: {close:?}");
    let request = host.accept(false).await;
    let mut play = Play { scene, actor, host, socket, request };
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn an_open_that_the_host_has_seen_is_waited_for() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let socket = scene.websocket(&target(actor)).await;
    let (request, _) = host.expect_open().await;
    host.link.ping(1).unwrap();
    host.link.answered(1);
    scene.lose_link(actor, 1, &host);
    let host = scene.reconnect(&host);
    scene.run(actor, 1, &host);
    settle().await;
    host.send(&request, 0, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: false });
    let mut play = Play { scene, actor, host, socket, request };
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_nothing_cannot_hold_up_an_open_for_longer_than_one_that_is_silent() {
    let scene = Scene::new();
    let (actor, host) = running(&scene);
    // Its queue is full.
    host.link.send(ToEnvoy::Ping { ts: 1 }, protocol::limits::ENVOY_OUTBOX_MAX_BYTES).await.unwrap();
    let begun = Instant::now();
    let mut socket = scene.websocket(&target(actor)).await;
    socket.expect_failure(&GatewayError::WebSocketOpenTimeout).await;
    assert_eq!(begun.elapsed().as_secs(), 15);
    drop(socket);
    scene.expect_no_leak().await;
}
