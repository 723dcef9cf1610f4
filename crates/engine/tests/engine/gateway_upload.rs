//! Request bodies on their way to an actor (`spec/envoy-protocol.md` 13.2 and 13.3, checklist 30, 31 and 38).

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use http_body_util::channel::Sender;
use protocol::envoy::{BodyChunk, HttpStreamAbortReasonKind, ToEnvoyTunnelMessageKind as ToActor};
use serde_json::{Value, json};
use testkit::client::{self, Answer, Broken, Exchange, begin, streamed_body};
use testkit::envoy::{FakeEnvoy, Run, TunnelRequest};
use tokio::task::JoinHandle;

use crate::scene::{TestEngine, is_set};

const CHUNK: usize = 65_536;
const WINDOW: usize = 1_048_576;

struct Scene {
    engine: TestEngine,
    envoy: FakeEnvoy,
    run: Run,
}

impl Scene {
    async fn new(settings: Value) -> Self {
        let engine = TestEngine::start(settings).await;
        let mut envoy = engine.host().await;
        let actor = engine.create("counter", None).await;
        let run = envoy.start_actor().await;
        engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
        Self { engine, envoy, run }
    }

    fn builder(&self) -> http::request::Builder {
        Request::builder().method(Method::POST).uri(format!("/gateway/{}/request/upload", self.run.actor_id))
    }

    /// Sends a body of known length.
    fn post(&self, body: impl Into<Bytes>) -> JoinHandle<Answer> {
        let request = self.builder().body(Full::from(body.into())).unwrap();
        tokio::spawn(client::send(self.engine.address(), request))
    }

    /// Begins a body of unknown length.
    fn post_streamed(&self) -> (Sender<Bytes, Broken>, JoinHandle<Result<Exchange, Broken>>) {
        let (sender, body) = streamed_body();
        let request = self.builder().body(body).unwrap();
        (sender, tokio::spawn(begin(self.engine.address(), request)))
    }

    /// Takes chunks until the last, or until as many bytes have come. Checks sizes and indices on the way.
    async fn take_chunks(&mut self, request: &TunnelRequest, upload: &mut Upload, bytes: usize) {
        while !upload.finished && upload.body.len() < bytes {
            let (index, kind) = self.envoy.expect_message(request, "a chunk").await;
            let ToActor::RequestChunk(BodyChunk { body, finish }) = kind else { panic!("{kind:?}") };
            assert!(body.len() <= CHUNK, "a chunk of {} bytes", body.len());
            assert_eq!(index, upload.next_index);
            upload.next_index += 1;
            upload.body.extend_from_slice(&body);
            upload.finished = finish;
        }
    }

    async fn finish(&mut self, request: &TunnelRequest, answer: JoinHandle<Answer>) {
        self.envoy.respond(request, 200, &[], "taken");
        assert_eq!(answer.await.unwrap().text(), "taken");
    }
}

/// What has come of a body.
struct Upload {
    body: Vec<u8>,
    next_index: u16,
    finished: bool,
}

impl Upload {
    fn new() -> Self {
        Self { body: Vec::new(), next_index: 1, finished: false }
    }
}

/// Bytes that differ from their neighbours, so that order shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position / 251 + position) as u8).collect()
}

#[tokio::test]
async fn a_larger_body_is_streamed_in_order() {
    let mut scene = Scene::new(json!({})).await;
    for size in [CHUNK + 1, 5 * CHUNK + 17] {
        let body = pattern(size);
        let answer = scene.post(body.clone());
        let request = scene.envoy.expect_request().await;
        assert_eq!((request.start.stream, request.start.body.as_ref()), (true, None));
        let mut upload = Upload::new();
        scene.take_chunks(&request, &mut upload, usize::MAX).await;
        assert!(upload.body == body, "{size} bytes differ");
        scene.finish(&request, answer).await;
    }
}

#[tokio::test]
async fn an_early_answer_ends_the_upload() {
    let mut scene = Scene::new(json!({})).await;
    let answer = scene.post(pattern(3 * WINDOW));
    let request = scene.envoy.expect_request().await;
    let mut upload = Upload::new();
    scene.take_chunks(&request, &mut upload, WINDOW).await;
    scene.envoy.respond(&request, 400, &[], "enough");
    let (index, kind) = scene.envoy.expect_message(&request, "the end of the upload").await;
    assert!(matches!(kind, ToActor::RequestBodyCancel), "{kind:?}");
    assert_eq!(index, upload.next_index);
    let answer = answer.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (400, "enough"));
}

#[tokio::test]
async fn the_body_limit_holds_at_its_edge() {
    let mut scene = Scene::new(json!({ "guard": { "http_max_request_body_size": 100_000 } })).await;
    // Exactly the limit, announced and not.
    let answer = scene.post(pattern(100_000));
    let request = scene.envoy.expect_request().await;
    scene.take_chunks(&request, &mut Upload::new(), usize::MAX).await;
    scene.finish(&request, answer).await;

    // One byte more, announced: the actor never hears of it.
    let answer = scene.post(pattern(100_001)).await.unwrap();
    assert_eq!(answer.error(), (413, "guard.invalid_request_body".to_owned()));
    assert_eq!(answer.json()["metadata"], json!({ "reason": "request body exceeded the 100000-byte limit" }));

    // And not announced.
    let (mut sender, client) = scene.post_streamed();
    sender.send_data(pattern(100_000).into()).await.unwrap();
    let request = scene.envoy.expect_request().await;
    scene.take_chunks(&request, &mut Upload::new(), 100_000).await;
    sender.send_data("!".into()).await.unwrap();
    let (_, kind) = scene.envoy.expect_message(&request, "an abort").await;
    let ToActor::RequestAbort(abort) = kind else { panic!("{kind:?}") };
    assert_eq!(abort.reason.kind, HttpStreamAbortReasonKind::Cancelled);
    assert_eq!(abort.reason.detail.as_deref(), Some("request body exceeded the 100000-byte limit"));
    let answer = client.await.unwrap().unwrap().finish().await.unwrap();
    assert_eq!(answer.error(), (413, "guard.invalid_request_body".to_owned()));
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_is_reported() {
    let mut scene = Scene::new(json!({})).await;
    let (mut sender, client) = scene.post_streamed();
    sender.send_data("half of it".into()).await.unwrap();
    let request = scene.envoy.expect_request().await;
    scene.take_chunks(&request, &mut Upload::new(), 10).await;
    sender.abort("the client has changed its mind".into());
    assert!(client.await.unwrap().is_err());
    let (_, kind) = scene.envoy.expect_message(&request, "an abort").await;
    let ToActor::RequestAbort(abort) = kind else { panic!("{kind:?}") };
    assert_eq!(abort.reason.kind, HttpStreamAbortReasonKind::Cancelled);
}
