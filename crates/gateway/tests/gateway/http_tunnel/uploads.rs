//! Bodies of requests.

use http_body_util::Full;

use super::*;

const LIMIT: usize = limits::HTTP_REQUEST_BODY_MAX_BYTES as usize;

#[tokio::test(start_paused = true)]
async fn a_small_body_travels_inside_the_start() {
    let mut stage = Stage::new();
    for (method, body, expected) in [
        (Method::POST, "", (None, false, true)),
        (Method::POST, "abc", (Some(&b"abc"[..]), false, true)),
        // Hosts refuse bodies of these.
        (Method::GET, "abc", (None, false, true)),
        (Method::HEAD, "abc", (None, false, true)),
    ] {
        let asked = stage.ask(request(method.clone(), &stage.path(), &[], body)).await;
        let (request, start) = stage.host.expect_request().await;
        assert_eq!(framing(&start), expected, "{method} {body:?}");
        assert_eq!((request.id.message_index, start.actor_generation), (0, Some(1)));
        stage.host.answer(&request, 200, "ok");
        assert_eq!(asked.answer().await.status, 200);
    }
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_length_is_streamed_however_small() {
    let mut stage = Stage::new();
    let (pieces, body) = Dictated::new();
    let (request, asked) = stage.upload(body).await;
    pieces.send("a".into()).unwrap();
    drop(pieces);
    let mut got = Vec::new();
    let mut index = 0;
    loop {
        let (id, chunk) = stage.expect_chunk().await;
        index += 1;
        assert_eq!(id.message_index, index);
        got.extend_from_slice(&chunk.body);
        if chunk.finish {
            break;
        }
    }
    assert_eq!(got, b"a");
    stage.host.answer(&request, 200, "ok");
    assert_eq!(asked.answer().await.text(), "ok");
    stage.expect_the_end().await;
}

/// Plays an actor that consumes whatever comes. Returns the sum of it, and the size of the largest piece.
async fn consume_all(stage: &mut Stage, request: &Request) -> (usize, usize) {
    let (mut sum, mut largest, mut updates) = (0, 0, 0);
    loop {
        let (id, chunk) = stage.expect_chunk().await;
        assert_eq!(usize::from(id.message_index), usize::from(updates) + 1, "indices follow each other");
        sum += chunk.body.len();
        largest = largest.max(chunk.body.len());
        if chunk.finish {
            return (sum, largest);
        }
        stage.consume(request, updates, sum);
        updates += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_the_limit_passes() {
    let mut stage = Stage::new();
    let (request, asked) = stage.upload(Full::new(Bytes::from(vec![7; LIMIT]))).await;
    let (sum, largest) = consume_all(&mut stage, &request).await;
    assert_eq!((sum, largest), (LIMIT, CHUNK));
    stage.host.refuse(&request, "envoy.fetch_failed");
    assert_eq!(asked.answer().await.status, 503);
    assert_eq!(stage.ingress(), LIMIT);
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_announces_one_byte_more_never_reaches_the_actor() {
    let mut stage = Stage::new();
    let body = Full::new(Bytes::from(vec![7; LIMIT + 1]));
    let asked = stage.ask(http::Request::post(stage.path()).body(body).unwrap()).await;
    let answer = asked.answer().await;
    assert_eq!(answer.error(), (413, "guard.invalid_request_body".to_owned()));
    assert_eq!(answer.json()["metadata"]["reason"], "request body exceeded the 20971520-byte limit");
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_turns_out_one_byte_longer_is_aborted() {
    let mut stage = Stage::new();
    let (pieces, body) = Dictated::new();
    let (request, asked) = stage.upload(body).await;
    for _ in 0..LIMIT / CHUNK {
        pieces.send(vec![7; CHUNK].into()).unwrap();
    }
    pieces.send("!".into()).unwrap();
    let mut sum = 0;
    let mut updates = 0;
    let abort = loop {
        match stage.host.next().await {
            (_, ToActor::RequestChunk(chunk)) => {
                assert!(!chunk.finish);
                sum += chunk.body.len();
                stage.consume(&request, updates, sum);
                updates += 1;
            }
            (_, ToActor::RequestAbort(abort)) => break abort,
            other => panic!("{other:?}"),
        }
    };
    assert!(sum <= LIMIT, "{sum}");
    let detail = "request body exceeded the 20971520-byte limit";
    assert_eq!((abort.reason.kind, abort.reason.detail.as_deref()), (Kind::Cancelled, Some(detail)));
    assert_eq!(asked.answer().await.error(), (413, "guard.invalid_request_body".to_owned()));
    drop(pieces);
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn without_credit_the_client_is_held_back() {
    let mut stage = Stage::new();
    let (request, asked) = stage.upload(Full::new(Bytes::from(vec![7; 3 * WINDOW]))).await;
    let mut sum = 0;
    while sum < WINDOW {
        sum += stage.expect_chunk().await.1.body.len();
    }
    assert_eq!(sum, WINDOW, "never more than a window is outstanding");
    assert!(stage.host.next_within(Duration::from_secs(60)).await.is_none());
    // What was read of the rest is what one read of the connection brings, whatever the client has.
    assert!(stage.ingress() < WINDOW + WINDOW / 2, "{}", stage.ingress());
    // Exactly what is consumed may be sent again.
    stage.consume(&request, 0, 1000);
    assert_eq!(stage.expect_chunk().await.1.body.len(), 1000);
    assert!(stage.host.next_within(Duration::from_secs(60)).await.is_none());
    asked.leave().await;
}

#[tokio::test(start_paused = true)]
async fn pieces_that_come_together_travel_together() {
    let mut stage = Stage::new();
    let (pieces, body) = Dictated::new();
    let (request, asked) = stage.upload(body).await;
    for _ in 0..1000 {
        pieces.send("0123456789".into()).unwrap();
    }
    drop(pieces);
    let (mut sum, mut chunks) = (0, 0);
    loop {
        let (_, chunk) = stage.expect_chunk().await;
        chunks += 1;
        sum += chunk.body.len();
        if chunk.finish {
            break;
        }
    }
    assert_eq!(sum, 10_000);
    assert!(chunks <= 10, "{chunks} messages for 1,000 small pieces");
    stage.host.answer(&request, 200, "ok");
    assert_eq!(asked.answer().await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_comes_alone_travels_at_once() {
    let mut stage = Stage::new();
    let (pieces, body) = Dictated::new();
    let (_request, _asked) = stage.upload(body).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        pieces.send("x".into()).unwrap();
        let before = tokio::time::Instant::now();
        assert_eq!(stage.expect_chunk().await.1.body, "x");
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn reports_that_go_back_or_ahead_end_the_request() {
    for (first, second) in [(Some(10), 9), (None, 101)] {
        let mut stage = Stage::new();
        let (pieces, body) = Dictated::new();
        let (request, asked) = stage.upload(body).await;
        pieces.send(vec![0; 100].into()).unwrap();
        assert_eq!(stage.expect_chunk().await.1.body.len(), 100);
        if let Some(first) = first {
            stage.consume(&request, 0, first);
        }
        stage.consume(&request, u16::from(first.is_some()), second);
        stage.expect_abort(Kind::InternalError, "invalid request body window update").await;
        assert_eq!(asked.answer().await.error(), (500, "core.internal_error".to_owned()));
        drop(pieces);
        stage.expect_the_end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_wants_no_more_gets_no_more() {
    let mut stage = Stage::new();
    let (pieces, body) = Dictated::new();
    let (request, asked) = stage.upload(body).await;
    pieces.send("x".into()).unwrap();
    stage.expect_chunk().await;
    stage.host.send(&request, 0, FromActor::RequestBodyCancel);
    pieces.send("y".into()).unwrap();
    assert!(stage.host.next_within(Duration::from_secs(60)).await.is_none());
    let answer = protocol::envoy::ResponseStart {
        status: 200,
        headers: crate::scene::headers(&[]),
        body: Some("enough".into()),
        stream: false,
    };
    stage.host.send(&request, 1, FromActor::ResponseStart(answer));
    assert_eq!(asked.answer().await.text(), "enough");
    drop(pieces);
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_cancels_what_is_left_of_the_upload() {
    let mut stage = Stage::new();
    let (pieces, body) = Dictated::new();
    let (request, asked) = stage.upload(body).await;
    pieces.send("x".into()).unwrap();
    stage.expect_chunk().await;
    stage.host.answer(&request, 200, "early");
    let (id, kind) = stage.host.next().await;
    assert!(matches!((id.message_index, &kind), (2, ToActor::RequestBodyCancel)), "{id:?} {kind:?}");
    assert_eq!(asked.answer().await.text(), "early");
    drop(pieces);
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_given_up() {
    let mut stage = Stage::new();
    let (pieces, body) = Dictated::new();
    let (_request, asked) = stage.upload(body).await;
    tokio::time::sleep(Duration::from_secs(299)).await;
    pieces.send("x".into()).unwrap();
    stage.expect_chunk().await;
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert!(stage.host.next_within(A_MOMENT).await.is_none(), "the time runs from the last piece");
    let (_, kind) = stage.host.next_within(Duration::from_secs(2)).await.expect("an abort");
    assert!(matches!(kind, ToActor::RequestAbort(_)), "{kind:?}");
    assert_eq!(asked.answer().await.error(), (504, "guard.gateway_response_start_timeout".to_owned()));
    drop(pieces);

    // One that is to travel inside the start never gets there.
    let (unsent, body) = Dictated::new();
    let post = http::Request::post(stage.path()).header("content-length", "3").body(body).unwrap();
    let asked = stage.ask(post).await;
    assert_eq!(asked.answer().await.error(), (504, "guard.request_timeout".to_owned()));
    drop(unsent);
    stage.expect_the_end().await;
}
