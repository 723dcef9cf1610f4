//! Hosts that are silent, die, or break the protocol.

use protocol::envoy::{HttpStreamAbortReason, ResponseAbort, ResponseStart, ToEnvoy};

use super::*;
use crate::scene::get;

const GAP: &str = "gateway detected response stream message index gap";

fn abort(kind: Kind) -> FromActor {
    FromActor::ResponseAbort(ResponseAbort { reason: HttpStreamAbortReason { kind, detail: Some("because".into()) } })
}

#[tokio::test(start_paused = true)]
async fn a_silent_actor_is_given_up_and_never_asked_twice() {
    let mut stage = Stage::new();
    let asked_at = tokio::time::Instant::now();
    let (request, asked) = stage.get().await;
    let got = asked.answer().await;
    assert_eq!(asked_at.elapsed().as_secs(), 300);
    assert_eq!(got.error(), (504, "guard.gateway_response_start_timeout".to_owned()));
    assert_eq!(got.json()["metadata"]["timeout_ms"], 300_000);
    stage.expect_abort(Kind::InternalError, "response start timed out").await;
    stage.host.answer(&request, 200, "late");
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_the_last_second_counts() {
    let mut stage = Stage::new();
    let (request, asked) = stage.get().await;
    tokio::time::sleep(Duration::from_secs(299)).await;
    stage.host.answer(&request, 200, "in time");
    assert_eq!(asked.answer().await.text(), "in time");
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_nothing_is_given_up() {
    let stage = Stage::new();
    stage.host.link.send(ToEnvoy::Ping { ts: 0 }, limits::ENVOY_OUTBOX_MAX_BYTES).await.unwrap();
    let asked_at = tokio::time::Instant::now();
    let asked = stage.ask(request(Method::POST, &stage.path(), &[], "x")).await;
    assert_eq!(asked.answer().await.error(), (504, "guard.gateway_response_start_timeout".to_owned()));
    assert_eq!(asked_at.elapsed().as_secs(), 300);
    stage.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_before_the_answer_is_an_internal_error() {
    let mut stage = Stage::new();
    let (request, asked) = stage.get().await;
    stage.host.send(&request, 1, FromActor::RequestBodyCancel);
    stage.expect_abort(Kind::InternalError, GAP).await;
    assert_eq!(asked.answer().await.error(), (500, "core.internal_error".to_owned()));
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_or_a_repetition_in_the_answer_cuts_it() {
    for index in [1, 3] {
        let mut stage = Stage::new();
        let (request, _client, mut body) = stage.stream(&[]).await;
        stage.host.chunk(&request, 1, "x", false);
        assert_eq!(next_piece(&mut body).await, "x");
        stage.host.chunk(&request, index, "y", false);
        assert_eq!(until_cut(&mut body).await, b"");
        stage.expect_abort(Kind::InternalError, GAP).await;
        stage.expect_the_end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_piece_before_the_head_is_an_internal_error() {
    let mut stage = Stage::new();
    let (request, asked) = stage.get().await;
    stage.host.chunk(&request, 0, "x", false);
    let detail = "gateway received a response body message before response headers";
    stage.expect_abort(Kind::InternalError, detail).await;
    assert_eq!(asked.answer().await.error(), (500, "core.internal_error".to_owned()));
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_head_cuts_the_answer() {
    let mut stage = Stage::new();
    let (request, _client, mut body) = stage.stream(&[]).await;
    let start = ResponseStart { status: 200, headers: crate::scene::headers(&[]), body: None, stream: true };
    stage.host.send(&request, 1, FromActor::ResponseStart(start));
    assert_eq!(until_cut(&mut body).await, b"");
    stage.expect_abort(Kind::InternalError, "gateway received a second response start").await;
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_a_websocket_is_an_internal_error() {
    let mut stage = Stage::new();
    let (request, asked) = stage.get().await;
    stage.host.send(&request, 0, FromActor::WebSocketMessageAck { index: 0 });
    stage.expect_abort(Kind::InternalError, "gateway received a WebSocket message for an HTTP request").await;
    assert_eq!(asked.answer().await.error(), (500, "core.internal_error".to_owned()));
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_the_request_whatever_its_index() {
    for kind in [Kind::Unknown, Kind::Cancelled, Kind::HandlerError, Kind::InternalError] {
        let mut stage = Stage::new();
        let (request, asked) = stage.get().await;
        stage.host.send(&request, 7, abort(kind));
        let got = asked.answer().await;
        assert_eq!(got.error(), (503, "guard.tunnel_request_aborted".to_owned()));
        assert_eq!(got.json()["metadata"]["phase"], "waiting_for_response_start");

        let (request, _client, mut body) = stage.stream(&[]).await;
        stage.host.chunk(&request, 1, "x", false);
        stage.host.send(&request, 0, abort(kind));
        assert_eq!(until_cut(&mut body).await, b"x");
        // The host needs not be told what it has said.
        stage.expect_the_end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_hosts_connection_layer_is_passed_on_with_index_zero_at_any_time() {
    let mut stage = Stage::new();
    let (pieces, body) = Dictated::new();
    let (request, asked) = stage.upload(body).await;
    pieces.send("x".into()).unwrap();
    stage.expect_chunk().await;
    stage.consume(&request, 0, 1);
    stage.host.refuse(&request, "envoy.actor_not_found");
    let got = asked.answer().await;
    assert_eq!((got.status.as_u16(), got.header("x-rivet-error")), (503, "envoy.actor_not_found"));
    // A byte of the body is gone, so nobody can send the request again; but the host may forget the rest.
    let (_, kind) = stage.host.next_within(A_MOMENT).await.expect("the end of the body");
    assert!(matches!(kind, ToActor::RequestBodyCancel), "{kind:?}");
    drop(pieces);
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_ends_its_requests_at_once() {
    let mut stage = Stage::new();
    let (_request, asked) = stage.get().await;
    let (_request, _client, mut body) = stage.stream(&[]).await;
    let lost_at = tokio::time::Instant::now();
    stage.scene.lose_link(stage.actor, 1, &stage.host);
    let got = asked.answer().await;
    assert_eq!(got.error(), (503, "guard.tunnel_response_closed".to_owned()));
    assert_eq!(until_cut(&mut body).await, b"");
    assert_eq!(lost_at.elapsed(), Duration::ZERO);
    stage.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_go_on_over_a_new_connection_of_its_host() {
    let mut stage = Stage::new();
    let (request, asked) = stage.get().await;
    let host = stage.scene.reconnect(&stage.host);
    host.answer(&request, 200, "from another connection");
    assert!(stage.host.next_within(Duration::from_secs(1)).await.is_none());
    stage.scene.lose_link(stage.actor, 1, &stage.host);
    assert_eq!(asked.answer().await.error(), (503, "guard.tunnel_response_closed".to_owned()));
    stage.scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_on_its_way_to_sleep_answers_what_it_has() {
    let mut stage = Stage::new();
    let (request, asked) = stage.get().await;
    let (streamed, _client, mut body) = stage.stream(&[]).await;
    stage.scene.place(stage.actor, 1, &stage.host);
    let late = stage.ask(get(&stage.path())).await;
    assert!(stage.host.next_within(Duration::from_secs(25)).await.is_none(), "nothing new is given to it, nothing is aborted");
    stage.host.answer(&request, 200, "whole");
    assert_eq!(asked.answer().await.text(), "whole");
    stage.host.chunk(&streamed, 1, "x", true);
    assert_eq!(next_piece(&mut body).await, "x");
    assert!(in_time(body.frame()).await.is_none(), "a clean end");
    stage.scene.stop(stage.actor);
    stage.scene.run(stage.actor, 2, &stage.host);
    let (request, start) = stage.host.expect_request().await;
    assert_eq!(start.actor_generation, Some(2));
    stage.host.answer(&request, 200, "by the next generation");
    assert_eq!(late.answer().await.text(), "by the next generation");
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_actor_ends_its_requests() {
    let mut stage = Stage::new();
    let (_request, asked) = stage.get().await;
    let (request, _client, mut body) = stage.stream(&[]).await;
    stage.scene.stop(stage.actor);
    // What was on its way still arrives.
    stage.host.chunk(&request, 1, "x", false);
    assert_eq!(next_piece(&mut body).await, "x");
    let got = asked.answer().await;
    assert_eq!(got.error(), (503, "guard.actor_stopped_while_waiting".to_owned()));
    assert_eq!(got.json()["metadata"]["actor_id"], stage.actor.to_string());
    assert_eq!(until_cut(&mut body).await, b"");
    let mut details = Vec::new();
    while let Some((_, kind)) = stage.host.next_within(A_MOMENT).await {
        let ToActor::RequestAbort(abort) = kind else { panic!("{kind:?}") };
        assert_eq!(abort.reason.kind, Kind::Cancelled);
        details.push(abort.reason.detail.unwrap());
    }
    details.sort();
    assert_eq!(details, ["actor stopped before the HTTP response started", "actor stopped during the response"]);
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_with_the_end_of_the_actor_counts() {
    let mut stage = Stage::new();
    let (request, asked) = stage.get().await;
    stage.scene.stop(stage.actor);
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.host.answer(&request, 200, "just in time");
    assert_eq!(asked.answer().await.text(), "just in time");
    stage.expect_the_end().await;
}
