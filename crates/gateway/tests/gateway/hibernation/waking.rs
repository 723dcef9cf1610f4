//! Going to sleep and waking.

use std::time::Duration;

use gateway::{GatewayError, Obstacle, PoolFault};
use protocol::envoy::ToRivetTunnelMessageKind;

use super::{A_MOMENT, Play, gone};
use crate::scene::{RAY, Scene, assert_took, ready_timeout, settle};
use futures_util::SinkExt;
use tokio_websockets::Message;

#[tokio::test(start_paused = true)]
async fn a_burst_to_a_sleeping_actor_comes_once_each_and_in_order() {
    let mut play = Play::begin().await;
    play.socket.send_text("m1").await;
    play.expect(&[(1, "m1")]).await;
    play.ack(1);
    play.scene.stop(play.actor);
    settle().await;
    assert_eq!(play.wakes(), 0, "nothing waits for the actor");
    for text in ["m2", "m3", "m4", "m5", "m6"] {
        play.socket.send_text(text).await;
    }
    play.scene.directory.woken(play.actor, 1).await;
    play.wake(2);
    // No second open: the socket goes on with the next index.
    play.expect(&[(2, "m2"), (3, "m3"), (4, "m4"), (5, "m5"), (6, "m6")]).await;
    play.ack(6);
    play.expect_alive(7).await;
    assert_eq!(play.wakes(), 1);
    play.scene.stop(play.actor);
    play.wake(3);
    play.expect_silence().await;
    play.expect_alive(8).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_actor_has_not_acknowledged_is_sent_again_under_its_index_when_the_socket_is_restored() {
    let mut play = Play::begin().await;
    for text in ["m1", "m2", "m3"] {
        play.socket.send_text(text).await;
    }
    play.expect(&[(1, "m1"), (2, "m2"), (3, "m3")]).await;
    play.ack(1);
    play.scene.stop(play.actor);
    play.scene.directory.woken(play.actor, 1).await;
    play.socket.send_text("m4").await;
    let host = play.scene.host();
    play.scene.place(play.actor, 2, &host);
    play.scene.run(play.actor, 2, &host);
    play.host = host;
    // A host has no route for the socket before it has restored it, and would see a gap later.
    play.expect_silence().await;
    play.restore();
    play.expect(&[(2, "m2"), (3, "m3"), (4, "m4")]).await;
    play.ack(4);
    play.expect_alive(5).await;
}

#[tokio::test(start_paused = true)]
async fn an_announced_sleep_waits_for_the_end_of_the_generation() {
    let mut play = Play::begin().await;
    play.announce_sleep();
    settle().await;
    play.socket.send_text("too late for generation 1").await;
    play.expect_silence().await;
    play.say("late words of generation 1");
    assert_eq!(play.socket.expect_text().await, "late words of generation 1");
    play.scene.stop(play.actor);
    play.scene.directory.woken(play.actor, 1).await;
    play.wake_on(2, play.scene.reconnect(&play.host));
    play.expect(&[(1, "too late for generation 1")]).await;
}

#[tokio::test(start_paused = true)]
async fn the_actor_wakes_by_itself_and_speaks() {
    let mut play = Play::asleep().await;
    play.wake(2);
    play.say("good morning");
    assert_eq!(play.socket.expect_text().await, "good morning");
    assert_eq!(play.wakes(), 0);
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_wakes_nobody() {
    let mut play = Play::asleep().await;
    play.socket.stream.send(Message::ping("are you there")).await.unwrap();
    let pong = play.socket.next().await;
    assert!(pong.is_pong() && pong.as_payload().as_ref() == b"are you there");
    settle().await;
    assert_eq!(play.wakes(), 0);
    play.wake(2);
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_open_means_nothing_while_the_actor_is_awake() {
    let mut play = Play::begin().await;
    play.restore();
    play.restore();
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn late_news_of_an_ended_generation_do_not_disturb_the_next_one() {
    let mut play = Play::asleep().await;
    play.wake(2);
    play.expect_alive(1).await;
    play.scene.tunnels.generation_ended(play.actor, 1);
    settle().await;
    play.expect_alive(2).await;
    assert_eq!(play.wakes(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_the_host_that_has_the_actor_can_restore_its_sockets() {
    let mut play = Play::asleep().await;
    play.socket.send_text("m1").await;
    play.scene.directory.woken(play.actor, 1).await;
    let stranger = play.scene.host();
    let host = play.scene.host();
    play.scene.place(play.actor, 2, &host);
    stranger.send(&play.request, 0, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: true });
    play.say("and the old host is out of it");
    play.restore();
    play.scene.run(play.actor, 2, &host);
    play.host = host;
    play.expect_silence().await;
    play.restore();
    play.expect(&[(1, "m1")]).await;
    play.say("from the right one");
    assert_eq!(play.socket.expect_text().await, "from the right one");
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_ends_while_it_wakes_is_followed_by_another_one() {
    let mut play = Play::asleep().await;
    play.socket.send_text("m1").await;
    play.scene.directory.woken(play.actor, 1).await;
    // It restores the socket, but crashes before it runs.
    play.host = play.scene.host();
    play.scene.place(play.actor, 2, &play.host);
    play.restore();
    play.scene.stop(play.actor);
    play.scene.directory.woken(play.actor, 2).await;
    // It runs, but crashes before it restores the socket.
    play.host = play.scene.host();
    play.scene.run(play.actor, 3, &play.host);
    settle().await;
    play.expect_silence().await;
    play.scene.stop(play.actor);
    play.scene.directory.woken(play.actor, 3).await;
    play.wake(4);
    play.expect(&[(1, "m1")]).await;
    play.ack(1);
    play.expect_alive(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_the_woken_actor_does_not_know_is_closed() {
    let mut play = Play::asleep().await;
    play.socket.send_text("m1").await;
    play.host = play.scene.host();
    play.scene.run(play.actor, 2, &play.host);
    play.socket.expect_failure(&GatewayError::WebSocketGarbageCollected).await;
    assert_eq!(play.expect_close().await, gone(2));
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_does_not_wake_costs_the_client_its_socket_after_90_seconds() {
    let mut play = Play::asleep().await;
    play.socket.send_text("m1").await;
    let asked = tokio::time::Instant::now();
    play.socket.expect_failure(&ready_timeout(play.actor)).await;
    let waited = asked.elapsed();
    assert!((Duration::from_secs(90)..Duration::from_secs(91)).contains(&waited), "{waited:?}");
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_fails_costs_only_those_clients_their_sockets_who_want_something() {
    let mut play = Play::asleep().await;
    let fault = PoolFault { words: "endpoint answered 502".to_owned(), details: serde_json::Value::Null };
    let failing = Obstacle::PoolFailing { pool: "p".to_owned(), fault, retry_in: None };
    play.scene.directory.block(play.actor, Some(failing));
    assert!(play.socket.quiet_for(Duration::from_secs(60)).await);
    play.socket.send_text("m1").await;
    let asked = tokio::time::Instant::now();
    assert_eq!(play.socket.expect_close().await, (1011, format!("guard.actor_runner_failed#{RAY}")));
    assert_took(asked, Duration::from_secs(1));
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_wakes_just_in_time_gets_the_message() {
    let mut play = Play::asleep().await;
    play.socket.send_text("m1").await;
    assert!(play.socket.quiet_for(Duration::from_secs(89)).await);
    play.wake(2);
    play.expect(&[(1, "m1")]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_an_actor_that_sleeps_for_hours() {
    let mut play = Play::asleep().await;
    assert!(play.socket.quiet_for(Duration::from_secs(6 * 3600)).await);
    assert_eq!(play.wakes(), 0);
    play.wake(2);
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_start_lists_exactly_the_sockets_that_can_be_restored() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let target = format!("/gateway/{actor}/websocket/");
    let mut sockets = Vec::new();
    let mut requests = Vec::new();
    for can_hibernate in [true, false, true, true] {
        sockets.push(scene.websocket(&target).await);
        requests.push(host.accept(can_hibernate).await);
    }
    let listed = || {
        let mut listed: Vec<_> = scene.tunnels.hibernating_requests(actor).iter().map(|request| request.request_id).collect();
        listed.sort();
        listed
    };
    let expected = |numbers: &[usize]| {
        let mut expected: Vec<_> = numbers.iter().map(|number| requests[*number].id.request_id).collect();
        expected.sort();
        expected
    };
    settle().await;
    assert_eq!(listed(), expected(&[0, 2, 3]));
    scene.stop(actor);
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(listed(), expected(&[0, 2, 3]), "they wait for the actor");
    host.send(&requests[2], 0, ToRivetTunnelMessageKind::WebSocketClose { code: Some(1000), reason: None, hibernate: false });
    settle().await;
    assert_eq!(listed(), expected(&[0, 3]));
    assert!(scene.tunnels.hibernating_requests(crate::scene::actor_id(2)).is_empty());
}
