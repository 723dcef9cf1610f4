//! Sockets that end while their actor sleeps.

use std::time::Duration;

use gateway::GatewayError;
use protocol::envoy::{ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};
use tokio_websockets::{CloseCode, Message};

use super::{A_MOMENT, Play, gone};
use crate::scene::{Scene, settle};
use futures_util::SinkExt;

impl Play {
    /// The client closes its socket and sees its close answered at once, whoever sleeps.
    pub(super) async fn client_closes(&mut self) {
        let code = CloseCode::try_from(4001).unwrap();
        self.socket.stream.send(Message::close(Some(code), "bye")).await.unwrap();
        let asked = tokio::time::Instant::now();
        assert_eq!(self.socket.expect_close().await, (4001, "bye".to_owned()));
        assert!(asked.elapsed() < A_MOMENT);
    }
}

/// What an actor hears of [`Play::client_closes`].
pub(super) fn closed(index: u16) -> (u16, Option<u16>, Option<String>) {
    (index, Some(4001), Some("bye".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_is_answered_at_once_and_the_actor_is_woken_to_hear_it() {
    let mut play = Play::begin().await;
    play.expect_alive(1).await;
    play.scene.stop(play.actor);
    settle().await;
    play.client_closes().await;
    play.scene.directory.woken(play.actor, 1).await;
    assert_eq!(play.scene.tunnels.hibernating_requests(play.actor).len(), 1, "the start must restore it");
    play.wake(2);
    assert_eq!(play.expect_close().await, closed(2), "that close and nothing else: no open before it");
    play.expect_silence().await;
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_wakes_the_actor_to_hear_it() {
    let play = Play::asleep().await;
    drop(play.socket);
    play.scene.directory.woken(play.actor, 1).await;
    let mut host = play.scene.host();
    play.scene.place(play.actor, 2, &host);
    host.send(&play.request, 0, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate: true });
    play.scene.run(play.actor, 2, &host);
    let (id, kind) = host.next().await;
    let ToEnvoyTunnelMessageKind::WebSocketClose { code, reason } = kind else { panic!("{kind:?}") };
    assert_eq!((id.message_index, code, reason), gone(1));
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_client_said_before_it_left_is_delivered_before_the_leave() {
    let mut play = Play::asleep().await;
    play.socket.send_text("m1").await;
    play.socket.send_text("m2").await;
    play.client_closes().await;
    play.scene.directory.woken(play.actor, 1).await;
    play.wake(2);
    play.expect(&[(1, "m1"), (2, "m2")]).await;
    assert_eq!(play.expect_close().await, closed(3));
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn the_actor_wakes_by_itself_while_the_client_leaves() {
    let mut play = Play::asleep().await;
    let host = play.scene.host();
    play.scene.place(play.actor, 2, &host);
    play.host = host;
    play.client_closes().await;
    play.restore();
    // The woken actor speaks before it hears that nobody listens.
    play.say("good morning");
    play.scene.run(play.actor, 2, &play.host);
    assert_eq!(play.expect_close().await, closed(1));
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_crashes_between_restoring_and_hearing_of_the_close_is_followed_by_one_that_hears_it() {
    let mut play = Play::asleep().await;
    play.client_closes().await;
    play.host = play.scene.host();
    play.scene.place(play.actor, 2, &play.host);
    play.restore();
    settle().await;
    play.scene.stop(play.actor);
    play.wake(3);
    assert_eq!(play.expect_close().await, closed(1));
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_cannot_be_woken_for_a_leave_is_given_up_after_90_seconds() {
    let mut play = Play::asleep().await;
    play.client_closes().await;
    tokio::time::sleep(Duration::from_secs(89)).await;
    assert_eq!(play.scene.tunnels.open_count(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    play.scene.expect_no_leak().await;
    // A host that restores the socket after all hears that it is over.
    play.host = play.scene.host();
    play.restore();
    assert_eq!(play.expect_close().await, gone(0));
}

#[tokio::test(start_paused = true)]
async fn the_socket_of_a_destroyed_actor_is_closed_and_its_url_is_not_asked_again() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    scene.directory.give_key(&["k"], actor);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let query = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=k";
    let mut socket = scene.websocket(&format!("/gateway/room/websocket/?{query}")).await;
    let _request = host.accept(true).await;
    let mut another = scene.websocket(&format!("/gateway/room/websocket/?{query}")).await;
    let _request = host.accept(true).await;
    let asked = scene.directory.resolved().len();
    scene.stop(actor);
    settle().await;
    // One socket waits in silence, the other one wants its actor to wake.
    another.send_text("m1").await;
    scene.directory.woken(actor, 1).await;
    scene.destroy(actor);
    socket.expect_failure(&GatewayError::ActorNotFound).await;
    another.expect_failure(&GatewayError::ActorNotFound).await;
    assert_eq!(scene.directory.resolved().len(), asked, "the actor is pinned: none is created in its place");
    drop((socket, another));
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn the_actor_closes_a_restored_socket() {
    let mut play = Play::asleep().await;
    play.socket.send_text("m1").await;
    play.host = play.scene.host();
    play.scene.place(play.actor, 2, &play.host);
    let close = ToRivetTunnelMessageKind::WebSocketClose { code: Some(4002), reason: Some("no".into()), hibernate: false };
    play.host.send(&play.request, 0, close);
    assert_eq!(play.socket.expect_close().await, (4002, "no".to_owned()));
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_cannot_hibernate_is_closed_by_an_announced_sleep() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let mut socket = scene.websocket(&format!("/gateway/{actor}/websocket/")).await;
    let request = host.accept(false).await;
    let close = ToRivetTunnelMessageKind::WebSocketClose { code: Some(4002), reason: Some("nap".into()), hibernate: true };
    host.send(&request, 0, close);
    assert_eq!(socket.expect_close().await, (4002, "nap".to_owned()));
    assert_eq!(scene.directory.wakes(actor), 0);
    drop(socket);
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_comes_up_while_its_client_is_being_closed_is_told_all() {
    let mut play = Play::asleep().await;
    play.socket.send_text("hello?").await;
    // Nobody starts it for 90 s. Then the client is told, and has a second to answer.
    tokio::time::sleep(Duration::from_millis(90_500)).await;
    play.wake(2);
    play.expect(&[(1, "hello?")]).await;
    assert_eq!(play.expect_close().await, gone(2));
    drop(play.socket);
    play.scene.expect_no_leak().await;
}
