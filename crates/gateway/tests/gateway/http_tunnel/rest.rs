//! Answers that come before the request has been sent (`spec/gateway.md` 14.2, checklist 25 and 36).

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const UPLOAD: usize = 4 * WINDOW;

/// A client that looks at no answer before it has sent everything.
async fn send_all_then_read(mut client: DuplexStream, head: String) -> String {
    client.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..UPLOAD / CHUNK {
        client.write_all(&[7; CHUNK]).await.expect("the connection stays open until all is sent");
    }
    let mut got = vec![0; 512];
    let mut answer = Vec::new();
    while !answer.ends_with(b"THE END") && !answer.ends_with(b"0\r\n\r\n") {
        let read = client.read(&mut got).await.unwrap();
        assert!(read > 0, "cut after {} bytes", answer.len());
        answer.extend_from_slice(&got[..read]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_an_early_answer_although_it_sends_everything_first() {
    let mut stage = Stage::new();
    let head = format!("POST {} HTTP/1.1\r\nhost: e\r\ncontent-length: {UPLOAD}\r\n\r\n", stage.path());
    let client = tokio::spawn(send_all_then_read(stage.scene.connect_raw(), head));
    let (request, _start) = stage.host.expect_request().await;
    stage.host.answer(&request, 200, &format!("{}THE END", "x".repeat(300_000)));
    let got = in_time(client).await.unwrap();
    assert!(got.starts_with("HTTP/1.1 200") && got.len() > 300_000, "{}", got.len());
    while let Some((_, kind)) = stage.host.next_within(A_MOMENT).await {
        assert!(matches!(kind, ToActor::RequestChunk(_) | ToActor::RequestBodyCancel), "{kind:?}");
    }
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_an_early_stream_although_it_sends_everything_first() {
    let mut stage = Stage::new();
    let head = format!("POST {} HTTP/1.1\r\nhost: e\r\ncontent-length: {UPLOAD}\r\n\r\n", stage.path());
    let client = tokio::spawn(send_all_then_read(stage.scene.connect_raw(), head));
    let (request, _start) = stage.host.expect_request().await;
    stage.host.start_stream(&request, 200, &[]);
    for index in 1..=8 {
        stage.host.chunk(&request, index, vec![b'x'; CHUNK], false);
        // Longer than the client may be silent after an answer.
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    stage.host.chunk(&request, 9, "", true);
    let got = in_time(client).await.unwrap();
    assert!(got.len() > 8 * CHUNK, "{}", got.len());
    while let Some((_, kind)) = stage.host.next_within(A_MOMENT).await {
        let expected =
            matches!(kind, ToActor::RequestChunk(_) | ToActor::RequestBodyCancel | ToActor::ResponseBodyWindowUpdate { .. });
        assert!(expected, "{kind:?}");
    }
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_neither_sends_nor_leaves_is_not_waited_for() {
    let mut stage = Stage::new();
    let mut client = stage.scene.connect_raw();
    let head = format!("POST {} HTTP/1.1\r\nhost: e\r\ncontent-length: {UPLOAD}\r\n\r\nbegun", stage.path());
    client.write_all(head.as_bytes()).await.unwrap();
    let (request, _start) = stage.host.expect_request().await;
    stage.host.answer(&request, 200, "early");
    let answered_at = tokio::time::Instant::now();
    let mut got = String::new();
    in_time(client.read_to_string(&mut got)).await.unwrap();
    assert!(got.ends_with("early"), "{got}");
    assert_eq!(answered_at.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_stops_sending_is_cut_off() {
    let mut stage = Stage::new();
    let mut client = stage.scene.connect_raw();
    let head = format!("POST {} HTTP/1.1\r\nhost: e\r\ntransfer-encoding: chunked\r\n\r\n", stage.path());
    client.write_all(head.as_bytes()).await.unwrap();
    let (request, _start) = stage.host.expect_request().await;
    stage.host.answer(&request, 200, "early");
    let answered_at = tokio::time::Instant::now();
    while in_time(client.write_all(b"1\r\nx\r\n")).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(answered_at.elapsed().as_secs(), 31, "it was sent to once more, in vain");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_first_is_refused_before_it_sends() {
    let stage = Stage::new();
    let mut client = stage.scene.connect_raw();
    let head = format!("POST {} HTTP/1.1\r\nhost: e\r\nexpect: 100-continue\r\ncontent-length: 20971521\r\n\r\n", stage.path());
    client.write_all(head.as_bytes()).await.unwrap();
    let mut got = String::new();
    in_time(client.read_to_string(&mut got)).await.unwrap();
    assert!(got.starts_with("HTTP/1.1 413"), "{got}");
    assert!(got.contains("guard.invalid_request_body") && !got.contains("100 Continue"), "{got}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_first_may_send_what_is_allowed() {
    let mut stage = Stage::new();
    let mut client = stage.scene.connect_raw();
    let head = format!("POST {} HTTP/1.1\r\nhost: e\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n", stage.path());
    client.write_all(head.as_bytes()).await.unwrap();
    let mut permission = [0; 25];
    in_time(client.read_exact(&mut permission)).await.unwrap();
    assert_eq!(&permission, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hello").await.unwrap();
    let (request, start) = stage.host.expect_request().await;
    assert_eq!(start.body.as_deref(), Some(&b"hello"[..]));
    stage.host.answer(&request, 200, "ok");
}
