//! Messages of which only a part has come: what they may take, and for how long.

use std::time::Duration;

use futures_util::StreamExt;
use gateway::{GatewayError, WaitingLimits};
use protocol::limits;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::{A_MOMENT, Play, downstream_closed, running, target, told_host, write_frame};
use crate::scene::{RAY, Scene, Socket, settle};

const LARGEST: usize = limits::WEBSOCKET_MESSAGE_MAX_BYTES as usize;
/// What a socket may hold anyway, in bytes.
const FREE: usize = limits::WAITING_FREE_BYTES as usize;
/// What all sockets of these tests may hold beyond that, in bytes.
const BUDGET: usize = 100_000;

fn scene_with_a_small_budget() -> Scene {
    let waiting = WaitingLimits { for_actors_max_bytes: BUDGET as u64, for_clients_max_bytes: u64::MAX };
    Scene::with_waiting(waiting, |_| {})
}

/// Begins a message of so many bytes in one frame.
async fn begin_frame(socket: &mut Socket, bytes: usize) {
    let mut head = vec![0x82, 0x80 | 127];
    head.extend((bytes as u64).to_be_bytes());
    head.extend([0; 4]);
    socket.stream.get_mut().write_all(&head).await.expect("an open connection");
}

async fn write(socket: &mut Socket, bytes: usize) {
    socket.stream.get_mut().write_all(&vec![7; bytes]).await.expect("an open connection");
}

#[tokio::test(start_paused = true)]
async fn unfinished_messages_of_all_clients_have_one_limit() {
    let scene = scene_with_a_small_budget();
    let (actor, mut host) = running(&scene);
    let mut in_one_frame = scene.websocket(&target(actor)).await;
    host.accept(false).await;
    let mut in_fragments = scene.websocket(&target(actor)).await;
    host.accept(true).await;
    begin_frame(&mut in_one_frame, LARGEST).await;
    write(&mut in_one_frame, FREE + BUDGET / 2).await;
    for piece in 0..(FREE + BUDGET / 2) / 1000 {
        write_frame(&mut in_fragments, if piece == 0 { 2 } else { 0 }, false, &[7; 1000]).await;
    }
    settle().await;
    let held = scene.tunnels.waiting_for_actors_bytes();
    assert!(held > (2 * FREE + BUDGET) as u64 - 1000, "{held}");

    // Nothing is left for a third one, beyond what everybody has.
    let mut third = scene.websocket(&target(actor)).await;
    host.accept(false).await;
    begin_frame(&mut third, LARGEST).await;
    write(&mut third, FREE + 2000).await;
    third.expect_failure(&GatewayError::WebSocketPendingLimitReached).await;
    assert_eq!(told_host(&mut host).await, downstream_closed());

    // The others may go on when somebody has given something back.
    drop(in_one_frame);
    assert_eq!(told_host(&mut host).await, downstream_closed());
    write_frame(&mut in_fragments, 0, true, &[7; BUDGET / 4]).await;
    let (_, heard) = host.next().await;
    let protocol::envoy::ToEnvoyTunnelMessageKind::WebSocketMessage { data, .. } = heard else { panic!("{heard:?}") };
    assert!(data.len() > FREE + BUDGET / 2);
    drop((in_fragments, third));
    assert_eq!(told_host(&mut host).await, downstream_closed());
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn complete_messages_are_not_counted_however_many_they_are() {
    let mut play = Play::on(scene_with_a_small_budget()).await;
    for index in 1..=20 {
        write_frame(&mut play.socket, 2, true, &vec![7; FREE + BUDGET / 2]).await;
        assert_eq!(play.heard().await.0, index);
    }
    settle().await;
    assert_eq!(play.scene.tunnels.waiting_for_actors_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_for_a_busy_host_stays_counted() {
    let mut play = Play::begin().await;
    // The host's queue has room for one of them.
    write_frame(&mut play.socket, 2, true, &vec![7; LARGEST]).await;
    write_frame(&mut play.socket, 2, true, &vec![7; LARGEST]).await;
    settle().await;
    let held = play.scene.tunnels.waiting_for_actors_bytes();
    assert!(held >= (LARGEST - FREE) as u64, "{held}");
    for index in 1..=2 {
        assert_eq!(play.heard().await.0, index);
    }
    settle().await;
    assert_eq!(play.scene.tunnels.waiting_for_actors_bytes(), 0);
    play.expect_alive(3).await;
}

/// Sends a byte now and then, in a message for which much memory is held, and returns when it is cut off.
async fn trickle(play: &mut Play, byte: &[u8]) -> Duration {
    settle().await;
    let begun = Instant::now();
    loop {
        if let Some((_, told)) = play.host.next_within(Duration::from_secs(1)).await {
            assert!(matches!(told, protocol::envoy::ToEnvoyTunnelMessageKind::WebSocketClose { .. }), "{told:?}");
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(600), "nobody minds");
        play.socket.stream.get_mut().write_all(byte).await.unwrap();
    }
}

/// At the first look the client has just sent something, at the second it is asked.
const CUT_AFTER: Duration =
    limits::WEBSOCKET_PING_INTERVAL.saturating_mul(2).saturating_add(limits::WEBSOCKET_PING_TIMEOUT).saturating_add(A_MOMENT);

#[tokio::test(start_paused = true)]
async fn a_large_message_must_go_on() {
    let mut play = Play::begin().await;
    begin_frame(&mut play.socket, LARGEST).await;
    write(&mut play.socket, LARGEST - 1000).await;
    let cut_after = trickle(&mut play, &[7]).await;
    assert!(cut_after >= limits::WEBSOCKET_PING_TIMEOUT && cut_after <= CUT_AFTER, "{cut_after:?}");
    let ping = play.socket.stream.next().await.unwrap().unwrap();
    assert!(ping.is_ping(), "{ping:?}");
    assert_eq!(play.socket.expect_close().await, (1011, format!("guard.websocket_ping_timeout#{RAY}")));
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn pongs_are_no_progress_of_a_large_message() {
    let mut play = Play::begin().await;
    write_frame(&mut play.socket, 2, false, &vec![7; LARGEST - 1000]).await;
    // A pong whose payload is longer than the progress that a message must make in that time.
    let pong: Vec<u8> = [0x8a, 0x80 | 125, 0, 0, 0, 0].into_iter().chain([7; 125]).collect();
    let cut_after = trickle(&mut play, &pong.repeat(100)).await;
    assert!(cut_after <= CUT_AFTER, "{cut_after:?}");
}

#[tokio::test(start_paused = true)]
async fn the_beginning_of_a_message_does_not_keep_the_memory_of_the_one_before_it() {
    let mut play = Play::begin().await;
    // Both are read together, so that there is no moment between them.
    let mut frames = vec![0x82, 0x80 | 127];
    frames.extend((4 * FREE as u64).to_be_bytes());
    frames.extend([0; 4]);
    frames.extend(vec![7; 4 * FREE]);
    frames.push(0x82);
    play.socket.stream.get_mut().write_all(&frames).await.unwrap();
    assert_eq!(play.heard().await.0, 1);
    let cut_after = trickle(&mut play, &[0x80 | 126, 0xff, 0xff, 0, 0, 0, 0]).await;
    assert!(cut_after <= CUT_AFTER, "{cut_after:?}");
}

#[tokio::test(start_paused = true)]
async fn the_largest_message_may_come_over_the_slowest_line() {
    const PIECE: usize = 16 * 1024;
    let mut play = Play::begin().await;
    begin_frame(&mut play.socket, LARGEST).await;
    for _piece in 0..LARGEST / PIECE {
        // About 1 KiB/s, in fits and starts.
        tokio::time::sleep(Duration::from_secs(15)).await;
        write(&mut play.socket, PIECE).await;
    }
    assert_eq!(play.heard().await.1.len(), LARGEST);
    play.expect_alive(2).await;
}
