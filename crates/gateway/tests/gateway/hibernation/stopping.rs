//! What a client does while its actor is being stopped. Hosts drop some of what arrives in that time and keep the rest for the
//! next generation; so nothing may be sent then that is not sent again.

use std::time::Duration;

use super::Play;
use super::closing::closed;
use crate::scene::settle;

impl Play {
    /// The generation gets its stop command.
    async fn tell_to_stop(&self, generation: u32) {
        settle().await;
        self.scene.tunnels.generation_stopping(self.actor, generation);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_held_back_for_the_next_generation() {
    let mut play = Play::begin().await;
    play.socket.send_text("before the stop").await;
    play.expect(&[(1, "before the stop")]).await;
    play.tell_to_stop(1).await;
    play.socket.send_text("one").await;
    play.socket.send_text("two").await;
    play.expect_silence().await;
    // What the old generation still says counts.
    play.ack(1);
    play.say("goodbye");
    assert_eq!(play.socket.expect_text().await, "goodbye");
    play.scene.stop(play.actor);
    play.scene.directory.woken(play.actor, 1).await;
    play.wake_on(2, play.scene.reconnect(&play.host));
    play.expect(&[(2, "one"), (3, "two")]).await;
    play.ack(3);
    play.expect_alive(4).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_comes_behind_what_was_held_back() {
    let mut play = Play::begin().await;
    play.tell_to_stop(1).await;
    play.socket.send_text("last words").await;
    play.client_closes().await;
    play.expect_silence().await;
    play.scene.stop(play.actor);
    play.scene.directory.woken(play.actor, 1).await;
    play.wake_on(2, play.scene.reconnect(&play.host));
    play.expect(&[(1, "last words")]).await;
    assert_eq!(play.expect_close().await, closed(2));
    play.ack(1);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_close_alone_wakes_the_next_generation_to_be_told() {
    let mut play = Play::begin().await;
    play.tell_to_stop(1).await;
    play.client_closes().await;
    play.expect_silence().await;
    play.scene.stop(play.actor);
    play.scene.directory.woken(play.actor, 1).await;
    play.wake(2);
    assert_eq!(play.expect_close().await, closed(1));
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_stops_owes_no_acknowledgement() {
    let mut play = Play::begin().await;
    play.socket.send_text("unanswered").await;
    play.expect(&[(1, "unanswered")]).await;
    assert!(play.socket.quiet_for(Duration::from_secs(29)).await);
    play.tell_to_stop(1).await;
    assert!(play.socket.quiet_for(Duration::from_secs(31)).await);
    play.scene.stop(play.actor);
    play.wake_on(2, play.scene.reconnect(&play.host));
    play.expect(&[(1, "unanswered")]).await;
    play.ack(1);
    play.expect_alive(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_an_older_generation_holds_nothing_back() {
    let mut play = Play::asleep().await;
    play.wake(2);
    settle().await;
    play.tell_to_stop(1).await;
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_wake_begins_with_the_end_of_the_stop() {
    let mut play = Play::begin().await;
    play.tell_to_stop(1).await;
    play.socket.send_text("wake up").await;
    assert!(play.socket.quiet_for(Duration::from_secs(29)).await);
    play.scene.stop(play.actor);
    assert!(play.socket.quiet_for(Duration::from_secs(89)).await);
    play.wake_on(2, play.scene.reconnect(&play.host));
    play.expect(&[(1, "wake up")]).await;
    play.ack(1);
    play.expect_alive(2).await;
}
