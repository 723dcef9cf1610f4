//! Messages both ways: what passes unchanged, how large it may be, and how fast.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use gateway::{GatewayConfig, MessageRate};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_websockets::Message;

use super::{A_MOMENT, Play, downstream_closed, told_host, write_frame};
use crate::scene::Scene;

const LARGEST: usize = 33_554_432;

#[tokio::test(start_paused = true)]
async fn text_and_binary_keep_their_type_and_their_boundaries() {
    let mut play = Play::begin().await;
    for (data, binary) in [("text", false), ("", false), ("bytes", true), ("", true)] {
        let data = Bytes::from_static(data.as_bytes());
        let message = if binary { Message::binary(data.clone()) } else { Message::text(data.clone()) };
        play.socket.stream.send(message).await.unwrap();
        let (_, heard, heard_binary) = play.heard().await;
        assert_eq!((&heard, heard_binary), (&data, binary));
        play.say(data.clone(), binary);
        let message = play.socket.next().await;
        assert_eq!((message.is_binary(), Bytes::from(message.into_payload())), (binary, data));
    }
    play.say(&b"caf\xc3"[..], false);
    assert_eq!(play.socket.expect_text().await, "caf\u{fffd}", "text of an actor that is no UTF-8 is mended");
    play.say(&b"caf\xc3"[..], true);
    assert_eq!(&play.socket.next().await.as_payload()[..], b"caf\xc3");
}

#[tokio::test(start_paused = true)]
async fn a_message_in_fragments_is_one_message_and_pings_between_them_are_answered() {
    let mut play = Play::begin().await;
    write_frame(&mut play.socket, 1, false, b"frag").await;
    write_frame(&mut play.socket, 9, true, b"ping").await;
    write_frame(&mut play.socket, 0, true, b"ments").await;
    play.hears(1, "fragments").await;
    let pong = play.socket.next().await;
    assert!(pong.is_pong());
    assert_eq!(&pong.as_payload()[..], b"ping");
}

#[tokio::test(start_paused = true)]
async fn indices_wrap() {
    let mut play = Play::begin().await;
    let payload = Bytes::from_static(b"m");
    for number in 1..=65_537_u32 {
        play.socket.stream.feed(Message::binary(payload.clone())).await.unwrap();
        if number % 256 == 0 {
            play.socket.stream.flush().await.unwrap();
            for earlier in number - 255..=number {
                assert_eq!(play.heard().await.0, earlier as u16);
            }
        }
    }
    play.socket.stream.flush().await.unwrap();
    assert_eq!(play.heard().await.0, 1);
}

#[tokio::test(start_paused = true)]
async fn the_largest_message_passes_from_the_client() {
    let mut play = Play::begin().await;
    play.socket.stream.send(Message::binary(vec![7; LARGEST])).await.unwrap();
    assert_eq!(play.heard().await.1.len(), LARGEST);
    // In fragments.
    write_frame(&mut play.socket, 2, false, &vec![7; LARGEST - 1]).await;
    write_frame(&mut play.socket, 0, true, &[7]).await;
    assert_eq!(play.heard().await.1.len(), LARGEST);
    play.expect_alive(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_byte_more_ends_the_socket_before_it_is_sent() {
    let mut play = Play::begin().await;
    // The head of a frame says how long it is.
    let head = [0x82, 0x80 | 127, 0, 0, 0, 0, 0x02, 0, 0, 1, 0, 0, 0, 0];
    tokio::io::AsyncWriteExt::write_all(play.socket.stream.get_mut(), &head).await.unwrap();
    assert_eq!(play.socket.expect_close().await.0, 1009);
    assert_eq!(told_host(&mut play.host).await, downstream_closed());
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_byte_more_in_fragments_ends_it_too() {
    let mut play = Play::begin().await;
    write_frame(&mut play.socket, 2, false, &vec![7; LARGEST]).await;
    write_frame(&mut play.socket, 0, true, &[7]).await;
    let (code, reason) = play.socket.expect_close().await;
    assert_eq!((code, reason.as_str()), (1009, "message exceeds the maximum size of 33554432 bytes"));
    assert_eq!(told_host(&mut play.host).await, downstream_closed());
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn the_largest_message_of_an_actor_passes_and_a_larger_one_closes_only_that_client() {
    let mut play = Play::begin().await;
    let mut other = play.scene.websocket(&super::target(play.actor)).await;
    let to_other = play.host.accept(false).await;
    play.say(vec![7; LARGEST], true);
    assert_eq!(play.socket.next().await.as_payload().len(), LARGEST);
    play.say(vec![7; LARGEST + 1], true);
    let (code, reason) = play.socket.expect_close().await;
    assert_eq!((code, reason.as_str()), (1009, "actor WebSocket message exceeds the maximum size"));
    assert_eq!(told_host(&mut play.host).await, (Some(1000), None));
    other.send_text("unharmed").await;
    assert_eq!(play.host.next().await.0.request_id, to_other.id.request_id);
}

fn throttled(config: &mut GatewayConfig) {
    config.websocket_message_rate = Some(MessageRate { burst: 20, interval: Duration::from_millis(10) });
}

#[tokio::test(start_paused = true)]
async fn messages_beyond_the_rate_are_delayed_and_none_is_lost() {
    let mut play = Play::on(Scene::with(throttled)).await;
    let begun = Instant::now();
    for number in 1..=50 {
        play.socket.send_text(&number.to_string()).await;
    }
    for number in 1..=50 {
        play.hears(number, &number.to_string()).await;
        let due = Duration::from_millis(10) * u32::from(number.saturating_sub(20));
        let late = begun.elapsed().checked_sub(due).expect("none comes early");
        assert!(late < A_MOMENT, "message {number} comes {late:?} late");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_rate_nothing_is_delayed() {
    let mut play = Play::begin().await;
    let begun = Instant::now();
    for number in 1..=5000 {
        play.socket.send_text("tick").await;
        play.hears(number, "tick").await;
    }
    assert!(begun.elapsed() < A_MOMENT);
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_a_large_message_in_its_own_time() {
    const PIECE: usize = 16 * 1024;
    const PIECES: usize = 100;
    let mut play = Play::begin().await;
    play.say(vec![7; PIECE * PIECES], true);
    play.say("and then", false);
    // All of it takes far longer than a client may stand still.
    let stream = play.socket.stream.get_mut();
    stream.read_exact(&mut [0; 10]).await.unwrap();
    let mut piece = vec![0; PIECE];
    for _ in 0..PIECES {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.read_exact(&mut piece).await.unwrap();
    }
    assert_eq!(play.socket.expect_text().await, "and then");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up() {
    let mut play = Play::begin().await;
    let begun = Instant::now();
    play.say(vec![7; LARGEST], true);
    assert_eq!(told_host(&mut play.host).await, downstream_closed());
    let waited = begun.elapsed();
    // What the pipe takes counts for the first span; a second one without a byte is the end.
    assert!((Duration::from_secs(10)..Duration::from_millis(10_100)).contains(&waited), "{waited:?}");
    play.scene.expect_no_leak().await;
    while let Some(Ok(_)) = play.socket.stream.next().await {}
}
