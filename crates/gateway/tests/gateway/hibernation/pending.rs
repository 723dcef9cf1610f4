//! Messages that wait for the actor: limits, acknowledgements, time.

use std::time::Duration;

use gateway::{GatewayError, WaitingLimits};
use protocol::envoy::ToEnvoyTunnelMessageKind;
use protocol::limits;
use tokio::time::Instant;
use tokio_websockets::Message;

use super::{Play, gone};
use crate::scene::{Scene, settle};
use futures_util::SinkExt;

impl Play {
    async fn send(&mut self, bytes: usize) {
        self.socket.stream.send(Message::binary(vec![7; bytes])).await.expect("an open socket");
    }

    /// The index of the next message at the host.
    async fn received(&mut self) -> u16 {
        let (id, kind) = self.host.next().await;
        assert!(matches!(kind, ToEnvoyTunnelMessageKind::WebSocketMessage { binary: true, .. }), "{kind:?}");
        id.message_index
    }
}

fn holding(bytes: u64) -> Scene {
    Scene::with(|config| config.hibernation_pending_max_bytes = bytes)
}

#[tokio::test(start_paused = true)]
async fn bytes_at_the_limit_pass_and_one_more_closes_the_socket() {
    let mut play = Play::on(holding(1000)).await;
    play.send(400).await;
    play.send(600).await;
    assert_eq!((play.received().await, play.received().await), (1, 2));
    play.ack(1);
    settle().await;
    play.send(400).await;
    assert_eq!(play.received().await, 3, "acknowledged bytes do not count");
    play.send(1).await;
    play.socket.expect_failure(&GatewayError::WebSocketPendingLimitReached).await;
    assert_eq!(play.expect_close().await.1, Some(1011));
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_the_product_is_128_mib() {
    let mut play = Play::begin().await;
    let whole = limits::HIBERNATION_PENDING_MAX_BYTES as usize;
    assert_eq!(whole, 134_217_728);
    for _ in 0..8 {
        play.send(whole / 8).await;
        play.received().await;
    }
    play.send(1).await;
    play.socket.expect_failure(&GatewayError::WebSocketPendingLimitReached).await;
}

#[tokio::test(start_paused = true)]
async fn bytes_are_limited_while_the_actor_sleeps_too() {
    let mut play = Play::on(holding(1000)).await;
    play.scene.stop(play.actor);
    play.send(1000).await;
    settle().await;
    play.send(1).await;
    play.socket.expect_failure(&GatewayError::WebSocketPendingLimitReached).await;
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn any_number_of_acknowledged_bytes_pass() {
    let mut play = Play::on(holding(1024 * 1024)).await;
    for _ in 0..64 {
        play.send(1024 * 1024).await;
        let index = play.received().await;
        play.ack(index);
        settle().await;
    }
    assert_eq!(play.scene.tunnels.waiting_for_actors_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn messages_at_the_limit_pass_and_one_more_closes_the_socket() {
    let mut play = Play::begin().await;
    for expected in 1..=65_535 {
        play.send(0).await;
        assert_eq!(play.received().await, expected);
    }
    // Half of them are acknowledged, and the indices go on behind their largest one.
    play.ack(40_000);
    settle().await;
    for expected in 0..40_000 {
        play.send(0).await;
        assert_eq!(play.received().await, expected);
    }
    play.send(0).await;
    play.socket.expect_failure(&GatewayError::WebSocketPendingLimitReached).await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_over_the_largest_index() {
    let mut play = Play::begin().await;
    for _ in 0..65_534 {
        play.send(0).await;
        let index = play.received().await;
        play.ack(index);
    }
    for text in ["65535", "0", "1"] {
        play.socket.send_text(text).await;
    }
    play.expect(&[(65_535, "65535"), (0, "0"), (1, "1")]).await;
    play.ack(65_535);
    play.scene.stop(play.actor);
    play.wake(2);
    play.expect(&[(0, "0"), (1, "1")]).await;
    play.ack(1);
    play.expect_alive(2).await;
}

#[tokio::test(start_paused = true)]
async fn an_awake_actor_has_30_seconds_to_acknowledge() {
    let mut play = Play::begin().await;
    let sent = Instant::now();
    play.socket.send_text("m1").await;
    play.expect(&[(1, "m1")]).await;
    assert!(play.socket.quiet_for(Duration::from_secs(29)).await);
    play.socket.send_text("m2").await;
    play.expect(&[(2, "m2")]).await;
    play.ack(1);
    assert!(play.socket.quiet_for(Duration::from_secs(29)).await, "each message has its own time");
    play.socket.expect_failure(&GatewayError::WebSocketGarbageCollected).await;
    let waited = sent.elapsed() - Duration::from_secs(29);
    assert!((Duration::from_secs(30)..Duration::from_secs(46)).contains(&waited), "{waited:?}");
    assert_eq!(play.expect_close().await, gone(3));
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_or_unreachable_actor_need_not_acknowledge() {
    let mut play = Play::begin().await;
    play.socket.send_text("m1").await;
    play.expect(&[(1, "m1")]).await;
    assert!(play.socket.quiet_for(Duration::from_secs(25)).await);
    play.scene.stop(play.actor);
    assert!(play.socket.quiet_for(Duration::from_secs(60)).await);
    play.wake(2);
    play.expect(&[(1, "m1")]).await;
    assert!(play.socket.quiet_for(Duration::from_secs(25)).await, "its time starts anew");
    play.scene.lose_link(play.actor, 2, &play.host);
    assert!(play.socket.quiet_for(Duration::from_secs(60)).await);
    play.host = play.scene.reconnect(&play.host);
    play.scene.run(play.actor, 2, &play.host);
    play.expect(&[(1, "m1")]).await;
    play.ack(1);
    assert!(play.socket.quiet_for(Duration::from_secs(60)).await);
    play.expect_alive(2).await;
}

#[tokio::test(start_paused = true)]
async fn all_sockets_together_have_a_limit_that_spares_the_modest() {
    let waiting = WaitingLimits { for_actors_max_bytes: 100_000, for_clients_max_bytes: 0 };
    let scene = Scene::with_waiting(waiting, |_| {});
    let mut greedy = Play::on(scene).await;
    greedy.send(limits::WAITING_FREE_BYTES as usize + 90_000).await;
    greedy.received().await;
    let mut modest = greedy.scene.websocket(&format!("/gateway/{}/websocket/", greedy.actor)).await;
    greedy.host.accept(true).await;
    modest.stream.send(Message::binary(vec![7; 60_000])).await.unwrap();
    greedy.received().await;
    assert!(greedy.scene.tunnels.waiting_for_actors_bytes() > limits::WAITING_FREE_BYTES + 150_000);
    greedy.send(20_000).await;
    greedy.socket.expect_failure(&GatewayError::WebSocketPendingLimitReached).await;
    assert!(modest.quiet_for(Duration::from_secs(1)).await);
}
