//! The connection of the actor's host ends and comes back, while the actor runs on (`spec/envoy-protocol.md` 14.7).

use std::time::Duration;

use gateway::GatewayError;
use tokio::time::Instant;

use super::{A_MOMENT, Play, downstream_closed, told_host};
use crate::scene::settle;

impl Play {
    fn lose_host(&self) {
        self.scene.lose_link(self.actor, 1, &self.host);
    }

    fn host_is_back(&mut self) {
        self.host = self.scene.reconnect(&self.host);
        self.scene.run(self.actor, 1, &self.host);
    }

    /// The host answers a ping, and thereby says that it has all that was sent.
    fn host_answers_ping(&self) {
        self.host.link.ping(1).unwrap();
        self.host.link.answered(1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_outlives_it_and_what_is_said_meanwhile_arrives_in_order() {
    let mut play = Play::begin().await;
    play.expect_alive(1).await;
    play.host_answers_ping();
    play.lose_host();
    for text in ["two", "three"] {
        play.socket.send_text(text).await;
    }
    settle().await;
    play.host_is_back();
    play.socket.send_text("four").await;
    for (index, text) in [(2, "two"), (3, "three"), (4, "four")] {
        play.hears(index, text).await;
    }
    play.expect_alive(5).await;
    drop(play.socket);
    assert_eq!(told_host(&mut play.host).await, downstream_closed());
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_whose_message_may_have_been_lost_is_closed_rather_than_continued_with_a_hole() {
    let mut play = Play::begin().await;
    play.socket.send_text("arrived").await;
    settle().await;
    play.host_answers_ping();
    // Queued, and never written to the host's connection.
    play.socket.send_text("lost").await;
    settle().await;
    let lost = Instant::now();
    play.lose_host();
    play.socket.expect_failure(&GatewayError::TunnelMessageTimeout).await;
    assert!(lost.elapsed() < A_MOMENT);
    // The actor still has the socket, and learns that it is over.
    play.host_is_back();
    assert_eq!(told_host(&mut play.host).await, downstream_closed());
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_proves_only_what_was_sent_before_it() {
    let mut play = Play::begin().await;
    play.host.link.ping(1).unwrap();
    play.socket.send_text("after the ping").await;
    settle().await;
    play.host.link.answered(1);
    play.lose_host();
    play.socket.expect_failure(&GatewayError::TunnelMessageTimeout).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_lost_with_the_second_connection_counts_too() {
    let mut play = Play::begin().await;
    play.lose_host();
    play.socket.send_text("kept").await;
    settle().await;
    // It is handed to this connection, which ends before anything is heard of it.
    play.host_is_back();
    settle().await;
    play.lose_host();
    play.socket.expect_failure(&GatewayError::TunnelMessageTimeout).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_meanwhile_is_reported_when_the_host_is_back() {
    let mut play = Play::begin().await;
    play.lose_host();
    play.socket.send_text("last words").await;
    settle().await;
    drop(play.socket);
    tokio::time::sleep(Duration::from_secs(5)).await;
    play.host = play.scene.reconnect(&play.host);
    play.scene.run(play.actor, 1, &play.host);
    let (id, _) = play.host.next().await;
    assert_eq!(id.message_index, 1, "its last words come first");
    assert_eq!(told_host(&mut play.host).await, downstream_closed());
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_come_back_ends_the_socket() {
    let mut play = Play::begin().await;
    play.lose_host();
    assert!(play.socket.quiet_for(Duration::from_secs(15)).await);
    play.scene.stop(play.actor);
    assert_eq!(play.socket.expect_close().await, (1000, "actor.stopped".to_owned()));
    drop(play.socket);
    play.scene.expect_no_leak().await;
}
