//! Answers that come piece by piece.

use gateway::WaitingLimits;
use http_body_util::BodyExt;
use protocol::envoy::ResponseStart;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What a waiting chunk takes besides its payload, roughly; it counts as memory and not towards the window.
const HELD_BESIDES: usize = 256;

/// The next frame, which gives credit.
async fn expect_credit(stage: &mut Stage) -> (u16, usize) {
    match stage.host.next_within(A_MOMENT).await {
        Some((id, ToActor::ResponseBodyWindowUpdate { consumed_bytes })) => (id.message_index, consumed_bytes as usize),
        other => panic!("expected credit, not {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn events_arrive_when_they_happen() {
    let mut stage = Stage::new();
    let asked_at = tokio::time::Instant::now();
    let (request, _client, mut body) = stage.stream(&[("content-type", "text/event-stream")]).await;
    assert_eq!(asked_at.elapsed(), Duration::ZERO, "the head does not wait for the body");
    for (index, event) in [(1, "data: 1\n\n"), (2, "data: 2\n\n")] {
        stage.host.chunk(&request, index, event, false);
        let sent_at = tokio::time::Instant::now();
        assert_eq!(next_piece(&mut body).await, event);
        assert_eq!(sent_at.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    stage.host.chunk(&request, 3, "", true);
    assert!(in_time(body.frame()).await.is_none(), "a clean end");
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn the_head_may_bring_the_first_piece() {
    let mut stage = Stage::new();
    let (request, asked) = stage.get().await;
    let first = vec![1; 200_000];
    let start = ResponseStart { status: 200, headers: crate::scene::headers(&[]), body: Some(first.into()), stream: true };
    stage.host.send(&request, 0, FromActor::ResponseStart(start));
    // Pieces above 64 KiB are taken as long as the window holds. What the head brought counts for credit.
    stage.host.chunk(&request, 1, vec![2; 200_000], true);
    let got = asked.answer().await;
    assert_eq!((got.body.len(), got.body[199_999], got.body[200_000]), (400_000, 1, 2));
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_no_limit_and_credit_keeps_up_with_it() {
    let mut stage = Stage::new();
    let (request, client, mut body) = stage.stream(&[]).await;
    let chunk = Bytes::from(vec![7; CHUNK]);
    let total = 26 * WINDOW;
    let reading = tokio::spawn(async move {
        let mut read = 0;
        while let Some(frame) = in_time(body.frame()).await {
            read += frame.expect("an uncut body").into_data().expect("data").len();
        }
        drop(client);
        read
    });
    let (mut sent, mut credited, mut index) = (0, 0, 0);
    while sent < total {
        while sent - credited >= WINDOW {
            let (update, consumed) = expect_credit(&mut stage).await;
            index += 1;
            assert_eq!(update, index, "indices follow each other");
            assert!(consumed > credited && consumed <= sent, "{credited} {consumed} {sent}");
            credited = consumed;
        }
        sent += CHUNK;
        stage.host.chunk(&request, (sent / CHUNK) as u16, chunk.clone(), sent == total);
    }
    assert_eq!(in_time(reading).await.unwrap(), total);
    while let Some((_, kind)) = stage.host.next_within(A_MOMENT).await {
        assert!(matches!(kind, ToActor::ResponseBodyWindowUpdate { .. }), "{kind:?}");
    }
    assert_eq!(stage.egress(), total);
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn indices_go_around() {
    let mut stage = Stage::new();
    let (request, _client, mut body) = stage.stream(&[]).await;
    let reading = tokio::spawn(async move {
        let mut read = 0;
        while let Some(frame) = in_time(body.frame()).await {
            read += frame.expect("an uncut body").into_data().expect("data").len();
        }
        read
    });
    for index in 1..70_000_u32 {
        stage.host.chunk(&request, index as u16, "x", false);
        if index % 1000 == 0 {
            crate::scene::settle().await;
        }
    }
    stage.host.chunk(&request, 70_000_u32 as u16, "", true);
    assert_eq!(in_time(reading).await.unwrap(), 69_999);
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_back_the_actor_and_takes_no_memory() {
    let mut stage = Stage::new();
    let (request, _client, mut body) = stage.stream(&[]).await;
    let (mut sent, mut credited, mut index) = (0, 0, 0_u16);
    // Sends until no credit comes any more.
    loop {
        while sent - credited < WINDOW {
            index += 1;
            sent += CHUNK;
            stage.host.chunk(&request, index, vec![7; CHUNK], false);
        }
        match stage.host.next_within(Duration::from_secs(300)).await {
            Some((_, ToActor::ResponseBodyWindowUpdate { consumed_bytes })) => credited = consumed_bytes as usize,
            Some(other) => panic!("{other:?}"),
            None => break,
        }
    }
    assert!(sent <= 2 * WINDOW, "{sent} bytes were taken although nobody reads them");
    let waiting = stage.scene.tunnels.waiting_for_clients_bytes() as usize;
    assert!(waiting <= WINDOW + WINDOW / CHUNK * HELD_BESIDES, "{waiting}");
    // And nothing was lost.
    stage.host.chunk(&request, index + 1, "", true);
    let mut read = 0;
    while let Some(frame) = in_time(body.frame()).await {
        read += frame.expect("an uncut body").into_data().expect("data").len();
    }
    assert_eq!((read, stage.egress()), (sent, sent));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_ignores_the_window_is_cut() {
    let mut stage = Stage::new();
    let (request, _client, mut body) = stage.stream(&[]).await;
    for index in 1..=64 {
        stage.host.chunk(&request, index, vec![7; CHUNK], false);
    }
    crate::scene::settle().await;
    let waiting = stage.scene.tunnels.waiting_for_clients_bytes() as usize;
    assert!(waiting <= WINDOW + CHUNK + (WINDOW / CHUNK + 1) * HELD_BESIDES, "{waiting}");
    let cut_after = until_cut(&mut body).await.len();
    assert!(cut_after <= WINDOW + CHUNK, "{cut_after}");
    let told = loop {
        match stage.host.next_within(A_MOMENT).await.expect("an abort") {
            (_, ToActor::ResponseBodyWindowUpdate { .. }) => {}
            (_, kind) => break kind,
        }
    };
    let ToActor::RequestAbort(abort) = told else { panic!("{told:?}") };
    let detail = "actor response producer outpaced downstream delivery and filled the gateway buffer";
    assert_eq!((abort.reason.kind, abort.reason.detail.as_deref()), (Kind::InternalError, Some(detail)));
    stage.expect_the_end().await;
}

/// A window of tiny chunks takes far more memory than it has bytes.
#[tokio::test(start_paused = true)]
async fn tiny_chunks_are_bounded_by_the_memory_they_take() {
    const CHUNKS: u32 = 200_000;
    for (budget, is_cut) in [(10_000_000, true), (limits::WAITING_FOR_CLIENTS_MAX_BYTES, false)] {
        let waiting = WaitingLimits { for_actors_max_bytes: limits::WAITING_FOR_ACTORS_MAX_BYTES, for_clients_max_bytes: budget };
        let mut stage = Stage::on(Scene::with_waiting(waiting, |_| {}));
        let (request, client, mut body) = stage.stream(&[]).await;
        let mut most_waiting = 0;
        for index in 1..=CHUNKS {
            stage.host.chunk(&request, index as u16, "x", index == CHUNKS);
            if index % 1_000 == 0 {
                crate::scene::settle().await;
            }
            most_waiting = most_waiting.max(stage.scene.tunnels.waiting_for_clients_bytes());
        }
        if is_cut {
            assert!(most_waiting > budget && most_waiting <= budget + limits::WAITING_FREE_BYTES, "{most_waiting}");
            assert!(until_cut(&mut body).await.len() < CHUNKS as usize);
        } else {
            // The host was within its window all the time, and this is what its chunks really hold.
            assert!(most_waiting > u64::from(CHUNKS / 4) * HELD_BESIDES as u64, "{most_waiting}");
            let mut read = 0;
            while let Some(frame) = in_time(body.frame()).await {
                read += frame.expect("an uncut body").into_data().expect("data").len();
            }
            assert_eq!(read, CHUNKS as usize);
        }
        drop(client);
        stage.scene.expect_no_leak().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_as_long_as_announced() {
    let mut stage = Stage::new();
    // The last piece need not say that it is the last.
    for pieces in
        [&[("hello", true)][..], &[("he", false), ("llo", false), ("", true)], &[("hello", false), ("", false), ("", true)]]
    {
        let (request, _client, body) = stage.stream(&[("content-length", "5")]).await;
        for (index, (piece, finish)) in (1..).zip(pieces) {
            stage.host.chunk(&request, index, *piece, *finish);
        }
        assert_eq!(in_time(body.collect()).await.expect("a whole body").to_bytes(), "hello");
    }
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_announced_is_cut() {
    let detail = "the response body is not as long as its content-length";
    for (pieces, is_told) in [
        (&[("hell", true)][..], false),
        (&[("hell", false), ("", true)], false),
        (&[("hello!", false)], true),
        (&[("hello", false), ("!", false)], true),
        (&[("hello", false), ("!", true)], false),
    ] {
        let mut stage = Stage::new();
        let (request, _client, mut body) = stage.stream(&[("content-length", "5")]).await;
        for (index, (piece, finish)) in (1..).zip(pieces) {
            stage.host.chunk(&request, index, *piece, *finish);
        }
        let got = until_cut(&mut body).await;
        assert!(got.len() < 5, "the client must not take {got:?} for all");
        if is_told {
            stage.expect_abort(Kind::InternalError, detail).await;
        }
        stage.expect_the_end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unusable_length_is_left_out() {
    let mut stage = Stage::new();
    for announced in ["5, 5", "five", "-5"] {
        let (request, asked) = stage.get().await;
        stage.host.start_stream(&request, 200, &[("content-length", announced)]);
        stage.host.chunk(&request, 1, "hello", true);
        let got = asked.answer().await;
        let framing = (got.header("content-length"), got.header("transfer-encoding"));
        assert_eq!((framing, got.text()), (("", "chunked"), "hello"), "{announced}");
    }
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn silence_between_chunks_has_a_limit() {
    let mut stage = Stage::new();
    let (request, _client, mut body) = stage.stream(&[]).await;
    for index in 1..=3 {
        tokio::time::sleep(Duration::from_secs(29)).await;
        // An empty one is a sign of life, too.
        stage.host.chunk(&request, index, if index == 2 { "" } else { "x" }, false);
    }
    assert_eq!(next_piece(&mut body).await, "x");
    assert_eq!(next_piece(&mut body).await, "x");
    let silent_since = tokio::time::Instant::now();
    assert_eq!(until_cut(&mut body).await, b"");
    assert_eq!(silent_since.elapsed().as_secs(), 30);
    stage.expect_abort(Kind::InternalError, "response chunk idle timeout").await;
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_allow_any_silence() {
    let mut stage = Stage::with(|config| config.response_chunk_idle_timeout = None);
    let (request, _client, mut body) = stage.stream(&[]).await;
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    stage.host.chunk(&request, 1, "x", true);
    assert_eq!(next_piece(&mut body).await, "x");
    assert!(in_time(body.frame()).await.is_none(), "a clean end");
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_0_gets_a_stream_until_the_connection_closes() {
    let mut stage = Stage::new();
    let mut client = stage.scene.connect_raw();
    client.write_all(format!("GET {} HTTP/1.0\r\n\r\n", stage.path()).as_bytes()).await.unwrap();
    let (request, _start) = stage.host.expect_request().await;
    stage.host.start_stream(&request, 200, &[]);
    stage.host.chunk(&request, 1, "hello ", false);
    stage.host.chunk(&request, 2, "world", true);
    let mut got = String::new();
    in_time(client.read_to_string(&mut got)).await.unwrap();
    let (head, body) = got.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200") && !head.contains("chunked"), "{head}");
    assert_eq!(body, "hello world");
    stage.expect_the_end().await;
}
