//! Hosts of protocol versions 6 and 7, which know neither streams nor credit (`spec/gateway.md` 14.3).

use gateway::WaitingLimits;
use http_body_util::Full;

use super::*;

impl Stage {
    fn old(version: u16) -> Self {
        let scene = Scene::new();
        let host = scene.host_of_version(version);
        Self::hosted(scene, host)
    }
}

#[tokio::test(start_paused = true)]
async fn the_exchange_is_two_messages() {
    for version in [6, 7] {
        let mut stage = Stage::old(version);
        let (pieces, body) = Dictated::new();
        let asked = stage.ask(http::Request::post(stage.path()).body(body).unwrap()).await;
        for _ in 0..32 {
            pieces.send(vec![7; CHUNK].into()).unwrap();
        }
        assert!(stage.host.next_within(Duration::from_secs(1)).await.is_none(), "the body is not complete");
        drop(pieces);
        let (request, start) = stage.host.expect_request().await;
        assert_eq!((start.stream, start.response_stream), (false, false));
        assert_eq!(start.body.map(|body| body.len()), Some(32 * CHUNK));
        stage.host.answer_with(&request, 200, &[], &"x".repeat(3 * WINDOW));
        assert_eq!(asked.answer().await.body.len(), 3 * WINDOW);
        stage.expect_the_end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_has_none() {
    let mut stage = Stage::old(7);
    let (request, asked) = {
        let asked = stage.ask(request(Method::POST, &stage.path(), &[], "")).await;
        let (request, start) = stage.host.expect_request().await;
        assert_eq!(framing(&start), (None, false, false));
        (request, asked)
    };
    stage.host.answer(&request, 200, "ok");
    assert_eq!(asked.answer().await.text(), "ok");
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_above_the_limit_never_reaches_the_actor() {
    let mut stage = Stage::old(7);
    let (pieces, body) = Dictated::new();
    let asked = stage.ask(http::Request::post(stage.path()).body(body).unwrap()).await;
    pieces.send(vec![7; limits::HTTP_REQUEST_BODY_MAX_BYTES as usize].into()).unwrap();
    pieces.send("!".into()).unwrap();
    let got = asked.answer().await;
    assert_eq!(got.error(), (413, "guard.invalid_request_body".to_owned()));
    assert_eq!(got.json()["metadata"]["reason"], "length limit exceeded");
    drop(pieces);
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn bodies_that_wait_for_their_end_share_a_bound() {
    let waiting = WaitingLimits { for_actors_max_bytes: WINDOW as u64, for_clients_max_bytes: u64::MAX };
    let scene = Scene::with_waiting(waiting, |_| {});
    let host = scene.host_of_version(7);
    let mut stage = Stage::hosted(scene, host);
    let body = |bytes: usize| Full::new(Bytes::from(vec![7; bytes]));
    let post = |stage: &Stage, bytes| http::Request::post(stage.path()).body(body(bytes)).unwrap();
    let first = stage.ask(post(&stage, WINDOW)).await;
    let (request, _start) = stage.host.expect_request().await;
    let second = stage.ask(post(&stage, WINDOW / 2)).await;
    assert_eq!(second.answer().await.error(), (503, "guard.service_unavailable".to_owned()));
    stage.host.answer(&request, 200, "ok");
    assert_eq!(first.answer().await.text(), "ok");
    let third = stage.ask(post(&stage, WINDOW / 2)).await;
    let (request, _start) = stage.host.expect_request().await;
    stage.host.answer(&request, 200, "ok");
    assert_eq!(third.answer().await.text(), "ok");
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn they_are_told_of_an_end_but_not_of_a_body() {
    let mut stage = Stage::old(7);
    let (_request, asked) = stage.get().await;
    asked.leave().await;
    stage.expect_abort(Kind::Cancelled, "client disconnected before the HTTP response started").await;
    stage.expect_the_end().await;
}
