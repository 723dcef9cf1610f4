//! Answers that come in one message, and the heads of all.

use super::*;

const LIMIT: usize = limits::ENVOY_RESPONSE_PAYLOAD_MAX_BYTES as usize;

fn whole(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> FromActor {
    let headers = crate::scene::headers(headers);
    FromActor::ResponseStart(protocol::envoy::ResponseStart { status, headers, body: Some(body.into()), stream: false })
}

/// A request with this method, and what the client gets of an answer in one message.
async fn answer(stage: &mut Stage, method: Method, start: FromActor) -> Answer {
    let asked = stage.ask(request(method, &stage.path(), &[], "")).await;
    let (request, _start) = stage.host.expect_request().await;
    stage.host.send(&request, 0, start);
    asked.answer().await
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_body_have_none_whatever_the_actor_sends() {
    let mut stage = Stage::new();
    let (get, head) = (Method::GET, Method::HEAD);
    let five = [("content-length", "5")];
    for (method, status, headers, body, length) in [
        (&head, 200, &five[..], "hello", "5"),
        (&head, 200, &[][..], "hello", ""),
        (&get, 204, &five[..], "hello", ""),
        (&get, 205, &five[..], "hello", "0"),
        // Allowed here, too, but the HTTP library takes it off.
        (&get, 304, &five[..], "hello", ""),
        (&get, 418, &[][..], "", "0"),
        (&get, 599, &five[..], "", "0"),
    ] {
        let got = answer(&mut stage, method.clone(), whole(status, headers, body)).await;
        assert_eq!((got.status.as_u16(), got.text(), got.header("content-length")), (status, "", length), "{method} {status}");
    }
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_without_a_body_is_ended() {
    let mut stage = Stage::new();
    for (method, status, headers) in [
        (Method::HEAD, 200, &[][..]),
        (Method::GET, 204, &[]),
        (Method::GET, 304, &[]),
        (Method::GET, 200, &[("content-length", "0")]),
    ] {
        let asked = stage.ask(request(method.clone(), &stage.path(), &[], "")).await;
        let (request, _start) = stage.host.expect_request().await;
        stage.host.start_stream(&request, status, headers);
        let got = asked.answer().await;
        assert_eq!((got.status.as_u16(), got.text()), (status, ""), "{method}");
        stage.expect_abort(Kind::Cancelled, "the response has no body").await;
        stage.host.chunk(&request, 1, "late", true);
    }
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn the_length_is_that_of_the_body() {
    let mut stage = Stage::new();
    for announced in ["3", "9", "many", "5, 5"] {
        let got = answer(&mut stage, Method::GET, whole(200, &[("content-length", announced)], "hello")).await;
        assert_eq!((got.header("content-length"), got.text()), ("5", "hello"), "{announced}");
    }
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn an_unstreamed_answer_has_a_limit() {
    let mut stage = Stage::new();
    let got = answer(&mut stage, Method::GET, whole(200, &[], vec![7; LIMIT])).await;
    assert_eq!((got.status.as_u16(), got.body.len()), (200, LIMIT));
    // It just fits into what may wait. The host has said everything, so there is nothing to abort.
    let got = answer(&mut stage, Method::GET, whole(200, &[], vec![7; LIMIT + 1])).await;
    assert_eq!(got.error(), (502, "guard.invalid_response_body".to_owned()));
    assert_eq!(got.json()["metadata"], serde_json::json!({ "reason": "length limit exceeded" }));
    assert!(stage.host.next_within(A_MOMENT).await.is_none());
    // Not even that: the gateway drops it unseen.
    let got = answer(&mut stage, Method::GET, whole(200, &[], vec![7; 2 * LIMIT])).await;
    assert_eq!(got.error(), (502, "guard.invalid_response_body".to_owned()));
    stage.expect_abort(Kind::InternalError, "the answer is larger than may wait for its client").await;
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http_answer_becomes_an_error() {
    let mut stage = Stage::new();
    for (status, headers, error) in [
        (99, &[][..], (500, "core.internal_error")),
        (1000, &[], (500, "core.internal_error")),
        (200, &[("bad name", "x")], (500, "core.internal_error")),
        (200, &[("x", "line\nbreak")], (500, "core.internal_error")),
        (101, &[], (502, "guard.invalid_response_body")),
    ] {
        let got = answer(&mut stage, Method::GET, whole(status, headers, "")).await;
        assert_eq!(got.error(), (error.0, error.1.to_owned()), "{status}");
        let asked = stage.ask(request(Method::GET, &stage.path(), &[], "")).await;
        let (request, _start) = stage.host.expect_request().await;
        stage.host.start_stream(&request, status, headers);
        assert_eq!(asked.answer().await.error(), (error.0, error.1.to_owned()), "{status}, streamed");
        let (_, kind) = stage.host.next_within(A_MOMENT).await.expect("an abort");
        assert!(matches!(&kind, ToActor::RequestAbort(abort) if abort.reason.kind == Kind::InternalError), "{kind:?}");
    }
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_say_that_answers_have_no_limit() {
    let scene = Scene::with(|config| config.response_payload_max_bytes = u64::MAX);
    let mut stage = Stage::on(scene);
    let got = answer(&mut stage, Method::GET, whole(200, &[], vec![7; LIMIT + 1])).await;
    assert_eq!((got.status.as_u16(), got.body.len()), (200, LIMIT + 1));
    stage.expect_the_end().await;
}
