//! Clients that say nothing: those that are there stay, the others are found out.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use protocol::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tokio_websockets::Message;

use super::{Play, downstream_closed, running, target, told_host, write_frame};
use crate::scene::{RAY, Scene};

/// A silent client is looked at in this interval; it is pinged at the second look, and then has its time to answer.
const FOUND_OUT_AFTER: Duration =
    limits::WEBSOCKET_PING_INTERVAL.saturating_mul(2).saturating_add(limits::WEBSOCKET_PING_TIMEOUT);
const A_LONG_TIME: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn an_idle_client_that_answers_pings_stays() {
    let mut play = Play::begin().await;
    assert!(play.socket.quiet_for(A_LONG_TIME).await);
    play.expect_alive(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_a_ping_is_closed_in_time() {
    let mut play = Play::begin().await;
    let silent = Instant::now();
    assert_eq!(told_host(&mut play.host).await, downstream_closed());
    let waited = silent.elapsed();
    assert!(waited >= limits::WEBSOCKET_PING_TIMEOUT && waited <= FOUND_OUT_AFTER, "{waited:?}");
    // A client that is there after all finds out why.
    let ping = play.socket.stream.next().await.unwrap().unwrap();
    assert!(ping.is_ping(), "{ping:?}");
    assert_eq!(play.socket.expect_close().await, (1011, format!("guard.websocket_ping_timeout#{RAY}")));
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

/// Reads a ping off the connection, so that no codec answers it.
async fn take_ping(play: &mut Play) {
    let mut ping = [0; 2];
    play.socket.stream.get_mut().read_exact(&mut ping).await.unwrap();
    assert_eq!(ping, [0x89, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_client_has_all_its_time_to_answer_and_no_more() {
    let mut play = Play::begin().await;
    take_ping(&mut play).await;
    tokio::time::sleep(limits::WEBSOCKET_PING_TIMEOUT - Duration::from_millis(100)).await;
    write_frame(&mut play.socket, 10, true, b"").await;
    take_ping(&mut play).await;
    let pinged = Instant::now();
    assert_eq!(told_host(&mut play.host).await, downstream_closed());
    assert_eq!(pinged.elapsed(), limits::WEBSOCKET_PING_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn messages_of_the_actor_are_no_sign_of_the_client() {
    let mut play = Play::begin().await;
    let silent = Instant::now();
    let told = loop {
        play.say("tick", false);
        if let Some((_, told)) = play.host.next_within(Duration::from_secs(1)).await {
            break told;
        }
    };
    assert!(matches!(told, protocol::envoy::ToEnvoyTunnelMessageKind::WebSocketClose { .. }), "{told:?}");
    assert!(silent.elapsed() <= FOUND_OUT_AFTER + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_large_message_that_takes_minutes_is_a_sign_of_the_client() {
    const PIECE: usize = 1024;
    const PIECES: usize = 180;
    let mut play = Play::begin().await;
    let mut head = vec![0x82, 0x80 | 127];
    head.extend(((PIECE * PIECES) as u64).to_be_bytes());
    head.extend([0; 4]);
    let stream = play.socket.stream.get_mut();
    stream.write_all(&head).await.unwrap();
    // No pong can be sent in the middle of a frame.
    for _ in 0..PIECES {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.write_all(&[0; PIECE]).await.unwrap();
    }
    assert_eq!(play.heard().await.1.len(), PIECE * PIECES);
    play.expect_alive(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_waits_for_a_sleeping_actor_is_pinged_without_waking_it() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let mut socket = scene.websocket(&target(actor)).await;
    host.accept(true).await;
    scene.stop(actor);
    assert!(socket.quiet_for(A_LONG_TIME).await);
    assert_eq!(scene.directory.wakes(actor), 0);
    assert_eq!(scene.tunnels.open_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn pings_of_the_client_are_answered_while_the_actor_sleeps_or_has_not_accepted() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let mut socket = scene.websocket(&target(actor)).await;
    socket.stream.send(Message::ping("early")).await.unwrap();
    assert_eq!(&socket.next().await.as_payload()[..], b"early");
    host.accept(true).await;
    scene.stop(actor);
    socket.stream.send(Message::ping("late")).await.unwrap();
    let pong = socket.next().await;
    assert!(pong.is_pong());
    assert_eq!(&pong.as_payload()[..], b"late");
    assert_eq!(scene.directory.wakes(actor), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_pieces_come_minutes_apart_is_whole() {
    let mut play = Play::begin().await;
    for (opcode, is_final, piece) in [(1, false, "long"), (0, false, " "), (0, true, "pauses")] {
        write_frame(&mut play.socket, opcode, is_final, piece.as_bytes()).await;
        assert!(play.socket.quiet_for(Duration::from_secs(300)).await);
    }
    play.hears(1, "long pauses").await;
    // A frame's head, cut in two.
    play.socket.stream.get_mut().write_all(&[0x81]).await.unwrap();
    assert!(play.socket.quiet_for(limits::WEBSOCKET_PING_INTERVAL).await);
    play.socket.stream.get_mut().write_all(&[0x82, 0, 0, 0, 0, b'o', b'k']).await.unwrap();
    play.hears(2, "ok").await;
    play.expect_alive(3).await;
}
