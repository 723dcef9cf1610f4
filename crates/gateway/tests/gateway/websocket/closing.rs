//! How sockets end, and what each side is told: the table of `spec/gateway.md` 16.3, row by row.

use futures_util::SinkExt;
use tokio::io::AsyncWriteExt;
use tokio_websockets::{CloseCode, Message};

use super::{Play, downstream_closed, told_host, write_frame};

#[tokio::test(start_paused = true)]
async fn the_close_of_a_client_is_echoed_and_passed_on() {
    let mut play = Play::begin().await;
    play.socket.send_text("last words").await;
    let code = CloseCode::try_from(4321).unwrap();
    play.socket.stream.send(Message::close(Some(code), "cli reason")).await.unwrap();
    assert_eq!(play.socket.expect_close().await, (4321, "cli reason".to_owned()));
    play.hears(1, "last words").await;
    assert_eq!(told_host(&mut play.host).await, (Some(4321), Some("cli reason".to_owned())));
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_close_without_a_code_is_echoed_empty_and_is_a_normal_one_for_the_actor() {
    let mut play = Play::begin().await;
    write_frame(&mut play.socket, 8, true, b"").await;
    let echo = play.socket.next().await;
    assert!(echo.is_close() && echo.as_payload().is_empty(), "{echo:?}");
    assert_eq!(told_host(&mut play.host).await, (Some(1000), None));
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_is_reported() {
    let mut play = Play::begin().await;
    drop(play.socket);
    assert_eq!(told_host(&mut play.host).await, downstream_closed());
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn the_close_of_an_actor_comes_after_its_messages_with_code_and_reason() {
    let mut play = Play::begin().await;
    play.say("last words", false);
    play.close(Some(4001), Some("why"));
    assert_eq!(play.socket.expect_text().await, "last words");
    assert_eq!(play.socket.expect_close().await, (4001, "why".to_owned()));
    assert_eq!(told_host(&mut play.host).await, (Some(1000), None));
    drop(play.socket);
    play.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn closes_of_actors_are_made_legal() {
    let long = "é".repeat(100);
    let cut = "é".repeat(61);
    for (code, reason, expected) in [
        (None, None, (1000, "ws.closed")),
        (None, Some("lost without a code"), (1000, "ws.closed")),
        (Some(1000), None, (1000, "")),
        (Some(1012), Some("restart"), (1012, "restart")),
        (Some(1005), Some("no such code"), (1011, "no such code")),
        (Some(999), None, (1011, "")),
        (Some(5000), None, (1011, "")),
        (Some(3000), Some(long.as_str()), (3000, cut.as_str())),
    ] {
        let mut play = Play::begin().await;
        play.close(code, reason);
        assert_eq!(play.socket.expect_close().await, (expected.0, expected.1.to_owned()), "{code:?}");
        assert_eq!(told_host(&mut play.host).await, (Some(1000), None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_goes_on_while_its_actor_is_on_its_way_to_sleep() {
    let mut play = Play::begin().await;
    play.scene.place(play.actor, 1, &play.host);
    assert!(play.socket.quiet_for(std::time::Duration::from_secs(60)).await);
    play.expect_alive(1).await;
    play.scene.stop(play.actor);
    assert_eq!(play.socket.expect_close().await, (1000, "actor.stopped".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_stops_closes_its_sockets() {
    for destroyed in [false, true] {
        let mut play = Play::begin().await;
        if destroyed {
            play.scene.destroy(play.actor);
        } else {
            play.scene.stop(play.actor);
        }
        assert_eq!(play.socket.expect_close().await, (1000, "actor.stopped".to_owned()));
        assert_eq!(told_host(&mut play.host).await, (Some(1000), None));
        drop(play.socket);
        play.scene.expect_no_leak().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_cannot_hibernate_is_closed_when_its_actor_wants_it_to() {
    let mut play = Play::begin().await;
    let close = protocol::envoy::ToRivetTunnelMessageKind::WebSocketClose {
        code: Some(1000),
        reason: Some("asleep".to_owned()),
        hibernate: true,
    };
    play.host.send(&play.request, 0, close);
    assert_eq!(play.socket.expect_close().await, (1000, "asleep".to_owned()));
    assert_eq!(told_host(&mut play.host).await, (Some(1000), None));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_the_protocol_is_told_how() {
    let unmasked = [0x81, 1, b'x'];
    let unknown_opcode = [0x83, 0x80, 0, 0, 0, 0];
    let compressed = [0xc1, 0x80, 0, 0, 0, 0];
    let no_utf8 = [0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28];
    let frames: [(&[u8], u16); 4] = [(&unmasked, 1002), (&unknown_opcode, 1002), (&compressed, 1002), (&no_utf8, 1007)];
    for (frame, code) in frames {
        let mut play = Play::begin().await;
        play.socket.stream.get_mut().write_all(frame).await.unwrap();
        assert_eq!(play.socket.expect_close().await.0, code, "{frame:02x?}");
        assert_eq!(told_host(&mut play.host).await, downstream_closed());
        drop(play.socket);
        play.scene.expect_no_leak().await;
    }
}
