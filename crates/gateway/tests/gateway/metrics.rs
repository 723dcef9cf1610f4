//! Counters move exactly as things happen, and gauges return to zero however a request ends (`spec/gateway.md` 22).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use gateway::metrics::{Counter, Gauge, Histogram, Labels, Metrics, RequestKind, RequestResult, Series};
use http::Method;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use protocol::envoy::{
    HttpStreamAbortReason, HttpStreamAbortReasonKind as Kind, ResponseStart, ToEnvoyTunnelMessageKind as ToActor,
    ToRivetTunnelMessageKind as FromActor,
};
use protocol::id::ActorId;
use protocol::limits;
use tokio_websockets::{CloseCode, Message};

use crate::scene::{Connection, Host, Request, Scene, get, headers, request, settle};

/// Longer than anything that the gateway does after a client or a host has gone: the close handshake, the rest of an upload.
const EVERYTHING_IS_OVER: Duration = Duration::from_secs(5);

/// A scene with a running actor.
struct Stage {
    scene: Scene,
    actor: ActorId,
    host: Host,
}

impl Stage {
    fn new() -> Self {
        let scene = Scene::new();
        let actor = scene.actor(1);
        let host = scene.host();
        scene.run(actor, 1, &host);
        Self { scene, actor, host }
    }

    fn path(&self) -> String {
        format!("/gateway/{}/x", self.actor)
    }

    fn metrics(&self) -> &Metrics {
        self.scene.gateway.metrics()
    }

    /// A request that the host has, with the client that waits for its answer.
    async fn waiting(&mut self) -> (Request, tokio::task::JoinHandle<(Connection, http::Response<hyper::body::Incoming>)>) {
        let mut client = self.scene.connect().await;
        let request = get(&self.path());
        let answered = tokio::spawn(async move {
            let head = client.begin(request).await.expect("the head of an answer");
            (client, head)
        });
        let (request, _start) = self.host.expect_request().await;
        (request, answered)
    }

    /// Expects that these counters have moved since the beginning and no others, and that nothing is held any more.
    async fn expect(&self, expected: &[(&str, u64)]) {
        tokio::time::sleep(EVERYTHING_IS_OVER).await;
        assert_eq!(moved(self.metrics()), values(expected));
        assert_eq!(held(self.metrics()), Values::new());
        assert_eq!(self.scene.gateway.admission_counts().in_flight, 0);
        self.scene.expect_no_leak().await;
    }
}

type Values = BTreeMap<String, u64>;

/// All counters that are not zero; of a histogram, how often it was fed.
fn moved(metrics: &Metrics) -> Values {
    let mut all = Values::new();
    counters(&mut all, "retries", &metrics.retries);
    counters(&mut all, "body_bytes", &metrics.body_bytes);
    counters(&mut all, "window_exhausted", &metrics.window_exhausted);
    counters(&mut all, "stream_aborts", &metrics.stream_aborts);
    counters(&mut all, "websocket_messages", &metrics.websocket_messages);
    counters(&mut all, "websocket_bytes", &metrics.websocket_bytes);
    counters(&mut all, "websocket_closes", &metrics.websocket_closes);
    counters(&mut all, "hibernation_sleeps", &metrics.hibernation_sleeps);
    counters(&mut all, "hibernation_wakes", &metrics.hibernation_wakes);
    histograms(&mut all, "requests", &metrics.requests);
    histograms(&mut all, "response_start", &metrics.response_start);
    histograms(&mut all, "websocket_open", &metrics.websocket_open);
    histograms(&mut all, "ready_wait", &metrics.ready_wait);
    histograms(&mut all, "window_stall", &metrics.window_stall);
    all
}

/// All gauges that are not zero.
fn held(metrics: &Metrics) -> Values {
    let mut all = Values::new();
    gauges(&mut all, "http_requests_open", &metrics.http_requests_open);
    gauges(&mut all, "websockets_open", &metrics.websockets_open);
    gauges(&mut all, "tasks", &metrics.tasks);
    all
}

fn values(pairs: &[(&str, u64)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn counters(all: &mut Values, name: &str, series: &impl Series<Counter>) {
    visit(all, name, series, Counter::get);
}

fn gauges(all: &mut Values, name: &str, series: &impl Series<Gauge>) {
    visit(all, name, series, Gauge::get);
}

fn histograms(all: &mut Values, name: &str, series: &impl Series<Histogram>) {
    visit(all, name, series, Histogram::count);
}

fn visit<M>(all: &mut Values, name: &str, series: &impl Series<M>, read: impl Fn(&M) -> u64) {
    let mut note = |labels: &Labels, metric: &M| {
        let path: Vec<&str> = [name].into_iter().chain(labels.iter().map(|(_, value)| *value)).collect();
        all.extend(Some((path.join("/"), read(metric))).filter(|(_, value)| *value > 0));
        Ok::<(), std::convert::Infallible>(())
    };
    let Ok(()) = series.visit(&mut Vec::new(), &mut note);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_answered() {
    let mut stage = Stage::new();
    let mut client = stage.scene.connect().await;
    let target = stage.path();
    let asked = tokio::spawn(async move { client.send(request(Method::POST, &target, &[], "abc")).await });
    let (request, _start) = stage.host.expect_request().await;
    assert_eq!(held(stage.metrics()), values(&[("http_requests_open", 1)]));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    stage.host.answer(&request, 404, "hello");
    asked.await.unwrap();
    stage
        .expect(&[
            ("body_bytes/egress", 5),
            ("body_bytes/ingress", 3),
            ("ready_wait/ready", 1),
            ("requests/http/success", 1),
            ("response_start", 1),
        ])
        .await;
    let took = stage.metrics().requests.get(RequestKind::Http).get(RequestResult::Success).distribution();
    assert!((1.5..1.6).contains(&took.sum_seconds), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_for_nobody() {
    let stage = Stage::new();
    let unknown = crate::scene::actor_id(9);
    let mut client = stage.scene.connect().await;
    let answer = client.send(get(&format!("/gateway/{unknown}/x"))).await;
    assert_eq!(answer.error(), (404, "actor.not_found".to_owned()));
    let body = answer.body.len() as u64;
    stage.expect(&[("body_bytes/egress", body), ("requests/http/pre_dispatch_failure", 1)]).await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_never_gets_ready() {
    let stage = Stage::new();
    let sleeping = stage.scene.actor(2);
    let mut client = stage.scene.connect().await;
    let answer = client.send(get(&format!("/gateway/{sleeping}/x"))).await;
    assert_eq!(answer.error(), (503, "guard.actor_ready_timeout".to_owned()));
    let body = answer.body.len() as u64;
    let expected = [("body_bytes/egress", body), ("ready_wait/timeout", 1), ("requests/http/actor_ready_timeout", 1)];
    stage.expect(&expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_to_its_end() {
    let mut stage = Stage::new();
    let (request, answered) = stage.waiting().await;
    stage.host.start_stream(&request, 200, &[]);
    let (client, head) = answered.await.unwrap();
    stage.host.chunk(&request, 1, vec![0; 30_000], false);
    stage.host.chunk(&request, 2, vec![0; 12], true);
    let body = head.into_body().collect().await.expect("a whole body").to_bytes();
    assert_eq!(body.len(), 30_012);
    drop(client);
    stage
        .expect(&[("body_bytes/egress", 30_012), ("ready_wait/ready", 1), ("requests/http/success", 1), ("response_start", 1)])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_actor_aborts() {
    let mut stage = Stage::new();
    let (request, answered) = stage.waiting().await;
    stage.host.start_stream(&request, 200, &[]);
    stage.host.chunk(&request, 1, "0123456789", false);
    let (_client, head) = answered.await.unwrap();
    let mut body = head.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 10);
    let reason = HttpStreamAbortReason { kind: Kind::HandlerError, detail: None };
    stage.host.send(&request, 2, FromActor::ResponseAbort(protocol::envoy::ResponseAbort { reason }));
    assert!(body.frame().await.unwrap().is_err(), "a cut stream never ends cleanly");
    stage
        .expect(&[
            ("body_bytes/egress", 10),
            ("ready_wait/ready", 1),
            ("requests/http/envoy_error", 1),
            ("response_start", 1),
            ("stream_aborts/response/actor/handler_error", 1),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent() {
    let mut stage = Stage::new();
    let (request, answered) = stage.waiting().await;
    stage.host.start_stream(&request, 200, &[]);
    let (_client, head) = answered.await.unwrap();
    assert!(head.into_body().frame().await.unwrap().is_err());
    stage
        .expect(&[
            ("ready_wait/ready", 1),
            ("requests/http/request_timeout", 1),
            ("response_start", 1),
            ("stream_aborts/response/gateway/internal_error", 1),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_the_middle_of_an_upload() {
    let mut stage = Stage::new();
    let (mut upload, body) = Channel::<Bytes>::new(1);
    let mut client = stage.scene.connect().await;
    let post = http::Request::post(stage.path()).body(body).unwrap();
    let asked = tokio::spawn(async move {
        let head = client.begin(post).await.expect("an answer");
        (client, head.into_body().collect().await.expect("a whole body"))
    });
    upload.send_data(Bytes::from_static(b"abc")).await.unwrap();
    let (request, _start) = stage.host.expect_request().await;
    assert_eq!(expect_chunk(&mut stage.host).await, (3, false));
    stage.host.answer(&request, 200, "hello");
    let (client, _body) = asked.await.unwrap();
    // The rest of the upload is thrown away for a while.
    upload.send_data(Bytes::from_static(b"defg")).await.unwrap();
    assert_eq!(held(stage.metrics()), values(&[("tasks", 1)]));
    tokio::time::sleep(EVERYTHING_IS_OVER).await;
    assert_eq!(held(stage.metrics()), Values::new());
    drop(client);
    stage
        .expect(&[
            ("body_bytes/egress", 5),
            ("body_bytes/ingress", 7),
            ("ready_wait/ready", 1),
            ("requests/http/success", 1),
            ("response_start", 1),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_in_the_middle_of_an_upload() {
    let mut stage = Stage::new();
    let (mut upload, body) = Channel::<Bytes>::new(1);
    let mut client = stage.scene.connect().await;
    let post = http::Request::post(stage.path()).body(body).unwrap();
    let asked = tokio::spawn(async move { client.begin(post).await });
    upload.send_data(Bytes::from_static(b"abc")).await.unwrap();
    stage.host.expect_request().await;
    assert_eq!(expect_chunk(&mut stage.host).await, (3, false));
    asked.abort();
    assert!(asked.await.is_err_and(|error| error.is_cancelled()));
    stage
        .expect(&[
            ("body_bytes/ingress", 3),
            ("ready_wait/ready", 1),
            ("requests/http/client_disconnect", 1),
            ("stream_aborts/request/client/cancelled", 1),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_before_the_answer() {
    let mut stage = Stage::new();
    let (_request, answered) = stage.waiting().await;
    answered.abort();
    assert!(answered.await.is_err_and(|error| error.is_cancelled()));
    stage
        .expect(&[("ready_wait/ready", 1), ("requests/http/client_disconnect", 1), ("stream_aborts/request/client/cancelled", 1)])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_a_stream() {
    let mut stage = Stage::new();
    let (request, answered) = stage.waiting().await;
    stage.host.start_stream(&request, 200, &[]);
    stage.host.chunk(&request, 1, "0123456789", false);
    let (client, head) = answered.await.unwrap();
    let mut body = head.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 10);
    assert_eq!(held(stage.metrics()), values(&[("http_requests_open", 1)]));
    drop((client, body));
    stage
        .expect(&[
            ("body_bytes/egress", 10),
            ("ready_wait/ready", 1),
            ("requests/http/client_disconnect", 1),
            ("response_start", 1),
            ("stream_aborts/response/client/cancelled", 1),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_lost() {
    let mut stage = Stage::new();
    let (_first, unanswered) = stage.waiting().await;
    let (second, answered) = stage.waiting().await;
    stage.host.start_stream(&second, 200, &[]);
    stage.host.chunk(&second, 1, "0123456789", false);
    let (_client, streamed) = answered.await.unwrap();
    let mut body = streamed.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 10);
    stage.scene.lose_link(stage.actor, 1, &stage.host);
    assert!(body.frame().await.unwrap().is_err());
    let (_client, refused) = unanswered.await.unwrap();
    let refusal = refused.into_body().collect().await.unwrap().to_bytes().len() as u64;
    stage
        .expect(&[
            ("body_bytes/egress", 10 + refusal),
            ("ready_wait/ready", 2),
            ("requests/http/envoy_error", 2),
            ("response_start", 1),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_host_hands_back() {
    let mut stage = Stage::new();
    let (request, answered) = stage.waiting().await;
    let elsewhere = [("x-rivet-error", "envoy.actor_not_found")];
    let refusal = ResponseStart { status: 503, headers: headers(&elsewhere), body: Some(Bytes::new()), stream: false };
    stage.host.send(&request, 0, FromActor::ResponseStart(refusal));
    let (again, _start) = stage.host.expect_request().await;
    stage.host.answer(&again, 200, "hello");
    let (_client, head) = answered.await.unwrap();
    head.into_body().collect().await.unwrap();
    stage
        .expect(&[
            ("body_bytes/egress", 5),
            ("ready_wait/ready", 2),
            ("requests/http/success", 1),
            ("response_start", 1),
            ("retries/http", 1),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stands_still() {
    let mut stage = Stage::new();
    let window = limits::HTTP_BODY_WINDOW_BYTES;
    let body = Full::new(Bytes::from(vec![0; window as usize + 1]));
    let mut client = stage.scene.connect().await;
    let post = http::Request::post(stage.path()).body(body).unwrap();
    let asked = tokio::spawn(async move { client.begin(post).await.expect("an answer") });
    let (request, _start) = stage.host.expect_request().await;
    let mut taken = 0;
    while taken < window {
        taken += expect_chunk(&mut stage.host).await.0;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.host.send(&request, 0, FromActor::RequestBodyWindowUpdate { consumed_bytes: window });
    assert_eq!(expect_chunk(&mut stage.host).await, (1, true));
    let answer = ResponseStart { status: 200, headers: headers(&[]), body: Some(Bytes::new()), stream: false };
    stage.host.send(&request, 1, FromActor::ResponseStart(answer));
    asked.await.unwrap();
    stage
        .expect(&[
            ("body_bytes/ingress", window + 1),
            ("ready_wait/ready", 1),
            ("requests/http/success", 1),
            ("response_start", 1),
            ("window_exhausted", 1),
            ("window_stall", 1),
        ])
        .await;
    assert_eq!(stage.metrics().window_stall.distribution().sum_seconds, 3.0);
}

/// Size of the next chunk of a request, and whether it is the last one.
async fn expect_chunk(host: &mut Host) -> (u64, bool) {
    match host.next().await {
        (_, ToActor::RequestChunk(chunk)) => (chunk.body.len() as u64, chunk.finish),
        other => panic!("expected a chunk, not {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_websocket_that_its_client_closes() {
    let mut stage = Stage::new();
    let mut socket = stage.scene.websocket(&stage.path()).await;
    settle().await;
    assert_eq!(held(stage.metrics()), values(&[("websockets_open/opening", 1), ("tasks", 1)]));
    let request = stage.host.accept(false).await;
    socket.send_text("hello").await;
    let (_, kind) = stage.host.next().await;
    assert!(matches!(kind, ToActor::WebSocketMessage { .. }), "{kind:?}");
    assert_eq!(held(stage.metrics()), values(&[("websockets_open/awake", 1), ("tasks", 1)]));
    stage.host.send(&request, 1, FromActor::WebSocketMessage { data: "hi".into(), binary: false });
    assert_eq!(socket.expect_text().await, "hi");
    socket.stream.send(Message::close(Some(CloseCode::NORMAL_CLOSURE), "")).await.unwrap();
    assert_eq!(socket.expect_close().await.0, 1000);
    drop(socket);
    stage
        .expect(&[
            ("ready_wait/ready", 1),
            ("requests/websocket/success", 1),
            ("websocket_bytes/egress", 2),
            ("websocket_bytes/ingress", 5),
            ("websocket_closes/awake/client", 1),
            ("websocket_messages/egress", 1),
            ("websocket_messages/ingress", 1),
            ("websocket_open", 1),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_that_hibernates_and_is_left() {
    let mut stage = Stage::new();
    let mut socket = stage.scene.websocket(&stage.path()).await;
    let request = stage.host.accept(true).await;
    settle().await;
    stage.scene.stop(stage.actor);
    settle().await;
    assert_eq!(held(stage.metrics()), values(&[("websockets_open/hibernating", 1), ("tasks", 1)]));
    socket.send_text("hello").await;
    stage.scene.directory.woken(stage.actor, 1).await;
    assert!(stage.scene.tunnels.waiting_for_actors_bytes() >= 5);
    stage.scene.run(stage.actor, 2, &stage.host);
    stage.host.send(&request, 1, FromActor::WebSocketOpen { can_hibernate: true });
    let (id, kind) = stage.host.next().await;
    assert!(matches!(kind, ToActor::WebSocketMessage { .. }), "{kind:?}");
    assert_eq!(held(stage.metrics()), values(&[("websockets_open/awake", 1), ("tasks", 1)]));
    stage.host.send(&request, 2, FromActor::WebSocketMessageAck { index: id.message_index });
    drop(socket);
    let (_, kind) = stage.host.next().await;
    assert!(matches!(kind, ToActor::WebSocketClose { .. }), "{kind:?}");
    stage
        .expect(&[
            ("hibernation_sleeps", 1),
            ("hibernation_wakes", 1),
            ("ready_wait/ready", 2),
            ("requests/websocket/client_disconnect", 1),
            ("websocket_bytes/ingress", 5),
            ("websocket_closes/awake/client_gone", 1),
            ("websocket_messages/ingress", 1),
            ("websocket_open", 1),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_hibernating_websocket_whose_actor_is_destroyed() {
    let mut stage = Stage::new();
    let mut socket = stage.scene.websocket(&stage.path()).await;
    stage.host.accept(true).await;
    settle().await;
    stage.scene.stop(stage.actor);
    settle().await;
    stage.scene.destroy(stage.actor);
    assert_eq!(socket.expect_close().await.0, 1011);
    stage
        .expect(&[
            ("hibernation_sleeps", 1),
            ("ready_wait/ready", 1),
            ("requests/websocket/envoy_error", 1),
            ("websocket_closes/hibernating/actor_not_found", 1),
            ("websocket_open", 1),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_that_the_actor_refuses() {
    let mut stage = Stage::new();
    let mut socket = stage.scene.websocket(&stage.path()).await;
    let (request, _open) = stage.host.expect_open().await;
    let refusal = FromActor::WebSocketClose { code: Some(4001), reason: Some("no".into()), hibernate: false };
    stage.host.send(&request, 0, refusal);
    assert_eq!(socket.expect_close().await, (4001, "no".to_owned()));
    stage.expect(&[("ready_wait/ready", 1), ("requests/websocket/success", 1), ("websocket_closes/opening/actor", 1)]).await;
}
