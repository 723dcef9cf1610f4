//! Requests through the gateway: answers, streams and failures (`spec/envoy-protocol.md` 13, checklist 29 to 42).

use std::time::Duration;

use http::{Method, Request};
use protocol::envoy::{HttpStreamAbortReasonKind, ToEnvoyTunnelMessageKind as ToActor, ToRivetTunnelMessageKind as FromActor};
use serde_json::{Value, json};
use testkit::client::{self, Answer, Broken, Exchange, begin};
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run, TunnelRequest};
use testkit::eventually;
use testkit::websocket::ClientSocket;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::scene::{TestEngine, escape, is_set};

const A_WHILE: Duration = Duration::from_millis(100);

/// An engine, a host, and an actor that takes requests.
struct Scene {
    engine: TestEngine,
    envoy: FakeEnvoy,
    run: Run,
}

impl Scene {
    async fn new(settings: Value) -> Self {
        Self::with_host(settings, &EnvoyParams::new()).await
    }

    async fn with_host(settings: Value, params: &EnvoyParams) -> Self {
        let engine = TestEngine::start(settings).await;
        let mut envoy = engine.host_with(params).await;
        let actor = engine.create("counter", None).await;
        let run = envoy.start_actor().await;
        engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
        Self { engine, envoy, run }
    }

    /// Sends a request without a body.
    fn get(&self) -> JoinHandle<Answer> {
        self.engine.request(&self.run.actor_id)
    }

    /// Sends a request and waits for the head of its answer only.
    fn begin(&self) -> JoinHandle<Result<Exchange, Broken>> {
        let request = client::empty(Method::GET, &format!("/gateway/{}/request/stream", self.run.actor_id));
        tokio::spawn(begin(self.engine.address(), request))
    }

    /// A request that arrived, with the client that waits for its answer.
    async fn waiting(&mut self) -> (TunnelRequest, JoinHandle<Result<Exchange, Broken>>) {
        let client = self.begin();
        (self.envoy.expect_request().await, client)
    }

    /// A streamed answer that has begun.
    async fn streaming(&mut self) -> (TunnelRequest, Exchange) {
        let (request, client) = self.waiting().await;
        self.envoy.begin_response(&request, 200, &[("content-type", "text/event-stream")]);
        (request, client.await.unwrap().unwrap())
    }

    async fn expect_abort(&mut self, request: &TunnelRequest) -> HttpStreamAbortReasonKind {
        loop {
            let (_, kind) = self.envoy.expect_message(request, "an abort").await;
            if let ToActor::RequestAbort(abort) = kind {
                let named = (abort.actor_id.as_deref(), abort.actor_generation);
                assert_eq!(named, (Some(self.run.actor_id.as_str()), Some(self.run.generation)));
                return abort.reason.kind;
            }
        }
    }

    /// Shows that the connection and the actor are still in order.
    async fn assert_alive(&mut self) {
        let answer = self.get();
        let request = self.envoy.expect_request().await;
        self.envoy.respond(&request, 200, &[], "alive");
        assert_eq!(answer.await.unwrap().text(), "alive");
    }
}

#[tokio::test]
async fn a_request_and_its_answer_arrive_as_they_were_sent() {
    let mut scene = Scene::new(json!({})).await;
    let path = format!("/gateway/{}/request/a%2Fb?x=1&y=%20", scene.run.actor_id);
    let request = Request::builder().method(Method::DELETE).uri(path).header("X-Thing", "1");
    let request = request.body(http_body_util::Full::default()).unwrap();
    let answer = tokio::spawn(client::send(scene.engine.address(), request));
    let request = scene.envoy.expect_request().await;
    let start = &request.start;
    assert_eq!((start.actor_id.as_str(), start.actor_generation), (scene.run.actor_id.as_str(), Some(1)));
    assert_eq!((start.method.as_str(), start.path.as_str()), ("DELETE", "/request/a%2Fb?x=1&y=%20"));
    assert_eq!((start.body.as_ref(), start.stream, start.response_stream), (None, false, true));
    assert_eq!(start.headers.get("x-thing").map(String::as_str), Some("1"));
    let ray = start.headers.get("x-rivet-ray-id").unwrap().clone();
    scene.envoy.respond(&request, 418, &[("x-answer", "42"), ("content-length", "9999")], "short and stout");
    let answer = answer.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("x-answer"), answer.text().as_str()), (418, "42", "short and stout"));
    assert_eq!(answer.header("x-rivet-ray-id"), ray);
    // Nothing follows a complete answer.
    scene.envoy.expect_no_message(&request, A_WHILE).await;
}

#[tokio::test]
async fn an_actor_can_be_addressed_by_its_key() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let path = "/gateway/counter/request/x?rvt-namespace=default&rvt-method=getOrCreate&rvt-key=a,b&rvt-pool=default&q=1";
    let answer = tokio::spawn(client::send(engine.address(), client::empty(Method::GET, path)));
    let (run, start) = envoy.expect_start().await;
    assert_eq!((start.config.name.as_str(), start.config.key.as_deref()), ("counter", Some("a/b")));
    envoy.running(&run);
    let request = envoy.expect_request().await;
    assert_eq!(request.start.path, "/request/x?q=1");
    envoy.respond(&request, 200, &[], "made");
    assert_eq!(answer.await.unwrap().text(), "made");

    let get = |key: &str| format!("/gateway/counter/request/x?rvt-namespace=default&rvt-method=get&rvt-key={}", escape(key));
    assert_eq!(engine.get(&get("nobody")).await.error(), (404, "actor.not_found".to_owned()));
    let answer = tokio::spawn(client::send(engine.address(), client::empty(Method::GET, &get("a,b"))));
    let request = envoy.expect_request().await;
    assert_eq!(request.start.actor_id, run.actor_id);
    envoy.respond(&request, 200, &[], "found");
    assert_eq!(answer.await.unwrap().text(), "found");
}

#[tokio::test]
async fn a_stream_reaches_the_client_piece_by_piece() {
    let mut scene = Scene::new(json!({})).await;
    let (request, mut answer) = scene.streaming().await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    for piece in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        scene.envoy.response_chunk(&request, piece, false);
        let sent = Instant::now();
        assert_eq!(answer.chunk().await.unwrap().unwrap(), piece);
        assert!(sent.elapsed() < A_WHILE, "{:?}", sent.elapsed());
    }
    scene.envoy.response_chunk(&request, "", true);
    assert!(answer.chunk().await.is_none());
    // The end is the end: no credit, no abort.
    scene.envoy.expect_no_message(&request, A_WHILE).await;
    scene.assert_alive().await;
}

#[tokio::test]
async fn a_client_that_walks_away_is_reported() {
    let mut scene = Scene::new(json!({})).await;
    let (request, client) = scene.waiting().await;
    client.abort();
    assert_eq!(scene.expect_abort(&request).await, HttpStreamAbortReasonKind::Cancelled);
    // Its answer is for nobody.
    scene.envoy.respond(&request, 200, &[], "too late");

    let (request, answer) = scene.streaming().await;
    scene.envoy.response_chunk(&request, "some", false);
    drop(answer);
    assert_eq!(scene.expect_abort(&request).await, HttpStreamAbortReasonKind::Cancelled);
    scene.assert_alive().await;
}

#[tokio::test]
async fn an_abort_counts_at_any_index_and_what_is_unknown_is_ignored() {
    let mut scene = Scene::new(json!({})).await;
    let answer = scene.get();
    let request = scene.envoy.expect_request().await;
    // The host's connection layer counts from 0 whatever was said before.
    scene.envoy.reply_at(&request, 0, FromActor::RequestBodyWindowUpdate { consumed_bytes: 0 });
    let reason = protocol::envoy::HttpStreamAbortReason::default();
    scene.envoy.reply_at(&request, 0, FromActor::ResponseAbort(protocol::envoy::ResponseAbort { reason }));
    assert_eq!(answer.await.unwrap().status, 503);
    // More of that request, and of one that never was.
    scene.envoy.reply_at(&request, 1, FromActor::RequestBodyCancel);
    let stranger = TunnelRequest { request_id: protocol::envoy::RequestId([1, 2, 3, 4]), ..request };
    scene.envoy.respond(&stranger, 200, &[], "to nobody");
    scene.assert_alive().await;
}

#[tokio::test]
async fn a_whole_answer_is_limited_at_its_edge() {
    let mut scene = Scene::new(json!({ "pegboard": { "envoy_max_response_payload_size": 1_000 } })).await;
    for (size, status) in [(1_000, 200), (1_001, 502)] {
        let answer = scene.get();
        let request = scene.envoy.expect_request().await;
        scene.envoy.respond(&request, 200, &[], vec![b'x'; size]);
        assert_eq!(answer.await.unwrap().status, status, "{size} bytes");
    }
    // A stream has no limit.
    let (request, answer) = scene.streaming().await;
    for _piece in 0..3 {
        scene.envoy.response_chunk(&request, vec![b'x'; 900], false);
    }
    scene.envoy.response_chunk(&request, "", true);
    assert_eq!(answer.finish().await.unwrap().body.len(), 2_700);
}

#[tokio::test]
async fn a_request_that_no_actor_saw_is_tried_again() {
    let mut scene = Scene::new(json!({})).await;
    for error in ["envoy.actor_not_found", "envoy.actor_generation_mismatch"] {
        let answer = scene.get();
        let request = scene.envoy.expect_request().await;
        scene.envoy.respond(&request, 503, &[("x-rivet-error", error)], "{}");
        let again = scene.envoy.expect_request().await;
        assert_ne!(again.request_id, request.request_id);
        scene.envoy.respond(&again, 200, &[], "second time");
        assert_eq!(answer.await.unwrap().text(), "second time", "{error}");
    }
    // Other answers of the connection layer are passed on.
    let answer = scene.get();
    let request = scene.envoy.expect_request().await;
    scene.envoy.respond(&request, 500, &[("x-rivet-error", "envoy.fetch_failed")], "{}");
    assert_eq!(answer.await.unwrap().header("x-rivet-error"), "envoy.fetch_failed");
}

#[tokio::test]
async fn requests_in_flight_end_with_their_connection() {
    let mut scene = Scene::new(json!({})).await;
    let (_, mut streaming) = scene.streaming().await;
    let waiting = scene.get();
    scene.envoy.expect_request().await;
    let Scene { engine: _engine, envoy, run: _ } = scene;
    let cut_at = Instant::now();
    envoy.cut();
    assert_eq!(waiting.await.unwrap().error(), (503, "guard.tunnel_response_closed".to_owned()));
    assert!(streaming.chunk().await.is_some_and(|end| end.is_err()), "a clean end of a lost stream");
    assert!(cut_at.elapsed() < Duration::from_secs(1), "{:?}", cut_at.elapsed());
}

#[tokio::test]
async fn an_actor_that_stops_ends_its_requests() {
    let mut scene = Scene::new(json!({})).await;
    let (streamed, mut streaming) = scene.streaming().await;
    let waiting = scene.get();
    scene.envoy.expect_request().await;
    // An answer that was on its way is delivered.
    let late = scene.get();
    let late_request = scene.envoy.expect_request().await;
    let run = scene.run.clone();
    scene.envoy.crashed(&run, "boom");
    scene.envoy.respond(&late_request, 200, &[], "just in time");
    assert_eq!(late.await.unwrap().text(), "just in time");
    let answer = waiting.await.unwrap();
    assert_eq!(answer.error(), (503, "guard.actor_stopped_while_waiting".to_owned()));
    assert_eq!(answer.json()["metadata"]["actor_id"], run.actor_id);
    assert_eq!(scene.expect_abort(&streamed).await, HttpStreamAbortReasonKind::Cancelled);
    assert!(streaming.chunk().await.is_some_and(|end| end.is_err()), "a clean end of a stopped stream");
}

/// An actor may take its time to stop, and until then it goes on with what it has (`spec/gateway.md` 26, 38).
#[tokio::test]
async fn what_is_under_way_ends_well_while_the_actor_stops() {
    for destroyed in [false, true] {
        let mut scene = Scene::new(json!({})).await;
        let run = scene.run.clone();
        let (streamed, mut stream) = scene.streaming().await;
        let whole = scene.get();
        let request = scene.envoy.expect_request().await;
        let path = format!("/gateway/{}/websocket/", run.actor_id);
        let mut socket = ClientSocket::open(scene.engine.address(), &path).await;
        let on_host = scene.envoy.accept_socket(false).await;

        let deleted = destroyed.then(|| scene.engine.destroy_soon(&run.actor_id));
        if !destroyed {
            scene.envoy.wants_sleep(&run);
        }
        scene.envoy.expect_stop(&run).await;
        scene.envoy.respond(&request, 200, &[], "whole");
        assert_eq!(whole.await.unwrap().text(), "whole");
        scene.envoy.response_chunk(&streamed, "one ", false);
        assert_eq!(stream.chunk().await.unwrap().unwrap(), "one ");
        socket.send_text("still there?").await;
        scene.envoy.expect_on(&on_host, "a message").await;
        scene.envoy.say_text(&on_host, "yes");
        assert_eq!(socket.expect_text().await, "yes");
        scene.envoy.response_chunk(&streamed, "two", true);
        assert_eq!(stream.finish().await.unwrap().text(), "two");

        scene.envoy.stopped(&run);
        assert_eq!(socket.expect_close().await, (1000, "actor.stopped".to_owned()), "destroyed: {destroyed}");
        if let Some(deleted) = deleted {
            assert_eq!(deleted.await.unwrap().status, 200);
        }
    }
}

#[tokio::test]
async fn an_actor_must_begin_to_answer_in_time() {
    let mut scene = Scene::new(json!({ "pegboard": { "gateway_response_start_timeout_ms": 100 } })).await;
    let answer = scene.get();
    let request = scene.envoy.expect_request().await;
    assert_eq!(scene.expect_abort(&request).await, HttpStreamAbortReasonKind::InternalError);
    let answer = answer.await.unwrap();
    assert_eq!(answer.error(), (504, "guard.gateway_response_start_timeout".to_owned()));
    assert_eq!(answer.json()["metadata"], json!({ "phase": "response_start", "timeout_ms": 100 }));
}

#[tokio::test]
async fn silence_within_a_stream_is_limited_if_configured() {
    let mut scene = Scene::new(json!({ "pegboard": { "gateway_response_chunk_idle_timeout_ms": 200 } })).await;
    let (request, mut answer) = scene.streaming().await;
    assert_eq!(scene.expect_abort(&request).await, HttpStreamAbortReasonKind::InternalError);
    assert!(answer.chunk().await.is_some_and(|end| end.is_err()), "a clean end of a silent stream");
}

#[tokio::test]
async fn waiting_for_an_actor_ends() {
    let engine = TestEngine::start(json!({ "guard": { "actor_ready_timeout_ms": 200 } })).await;
    let actor = engine.create("counter", None).await;
    let answer = engine.request(&actor).await.unwrap();
    assert_eq!(answer.error(), (503, "guard.actor_ready_timeout".to_owned()));
    let mut metadata = answer.json()["metadata"].take();
    let waited_ms = metadata["waited_ms"].take();
    assert!(waited_ms.as_u64().is_some_and(|waited| waited >= 200), "{waited_ms}");
    let expected = json!({ "actor_id": actor, "waited_ms": null, "waiting_for": "no_hosts", "pool": "default" });
    assert_eq!(metadata, expected);
    let unknown = actor.replace(&actor[4..8], "zzzz");
    for id in [unknown.as_str(), "nonsense"] {
        assert_eq!(engine.request(id).await.unwrap().error(), (404, "actor.not_found".to_owned()), "{id}");
    }
}

#[tokio::test]
async fn an_actor_that_never_gets_ready_is_woken_nine_times() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let (run, _) = envoy.expect_start().await;
    envoy.crashed(&run, "boom");
    engine.asleep(&actor).await;
    let answer = engine.request(&actor);
    for _wake in 0..9 {
        let (run, _) = envoy.expect_start().await;
        envoy.crashed(&run, "boom");
    }
    let answer = answer.await.unwrap();
    assert_eq!(answer.error(), (503, "guard.actor_wake_retries_exceeded".to_owned()));
    let expected = json!({
        "actor_id": actor, "reason": "actor_stopped_before_ready", "wake_retries": 8,
        "last_end": { "reason": "start_failed", "message": "boom" },
    });
    assert_eq!(answer.json()["metadata"], expected);
}

#[tokio::test]
async fn an_actor_that_is_destroyed_meanwhile_is_named_as_the_reason() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let (run, _) = envoy.expect_start().await;
    let answer = engine.request(&actor);
    let arrived = async || (engine.metric("rivet_guard_proxy_request_pending").await == 1).then_some(());
    eventually("the request", arrived).await;
    envoy.stopped(&run);
    assert_eq!(answer.await.unwrap().error(), (400, "actor.destroyed_while_waiting_for_ready".to_owned()));
}

#[tokio::test]
async fn older_hosts_get_whole_requests() {
    for version in [6, 7] {
        let params = EnvoyParams::new().with("protocol_version", version);
        let mut scene = Scene::with_host(json!({}), &params).await;
        let path = format!("/gateway/{}/request/upload", scene.run.actor_id);
        let body = vec![b'u'; 3 * 1_048_576];
        let request = Request::builder().method(Method::POST).uri(&path).body(http_body_util::Full::from(body.clone())).unwrap();
        let answer = tokio::spawn(client::send(scene.engine.address(), request));
        let request = scene.envoy.expect_request().await;
        assert!(!request.start.stream && request.start.body.as_deref() == Some(body.as_slice()), "not inline");
        scene.envoy.respond(&request, 200, &[], "taken");
        assert_eq!(answer.await.unwrap().text(), "taken");

        let (request, client) = scene.waiting().await;
        client.abort();
        let (_, kind) = scene.envoy.expect_message(&request, "an abort").await;
        let ToActor::RequestAbort(abort) = kind else { panic!("{kind:?}") };
        assert_eq!((abort.actor_id, abort.reason.kind), (None, HttpStreamAbortReasonKind::Unknown));
        scene.assert_alive().await;
    }
}
