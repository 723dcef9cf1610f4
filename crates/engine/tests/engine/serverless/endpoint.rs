//! An endpoint of a serverless pool that does what a test tells it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use protocol::envoy::ServerlessStart;
use serde_json::{Value, json};
use testkit::envoy::Run;
use testkit::in_time;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A running endpoint. Dropping it closes its port and all its connections.
pub(crate) struct Endpoint {
    address: SocketAddr,
    starts: mpsc::UnboundedReceiver<StartCall>,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    starts: mpsc::UnboundedSender<StartCall>,
    /// Status and document of `/metadata`.
    metadata: Mutex<(StatusCode, Value)>,
    /// When `/metadata` was asked for.
    polls: watch::Sender<Vec<Instant>>,
    /// Where other paths lead.
    redirects: Mutex<BTreeMap<String, (StatusCode, String)>>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Endpoint {
    /// One that runs version 1 of an application with the actor `counter`.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (starts, received) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            starts,
            metadata: Mutex::new((StatusCode::OK, document(1))),
            polls: watch::Sender::new(Vec::new()),
            redirects: Mutex::default(),
        });
        let router = axum::Router::new().fallback(answer).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, starts: received, shared, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/rivet", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `/metadata` answers from now on.
    pub(crate) fn set_metadata(&self, status: u16, document: Value) {
        *self.shared.metadata.lock() = (StatusCode::from_u16(status).unwrap(), document);
    }

    /// Sends whoever asks for a path elsewhere.
    pub(crate) fn redirect(&self, path: &str, status: u16, location: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        self.shared.redirects.lock().insert(path.to_owned(), (status, location.to_owned()));
    }

    /// The next start request.
    pub(crate) async fn next_start(&mut self) -> StartCall {
        in_time("a start request", self.starts.recv()).await.unwrap()
    }

    /// The start requests that have come and were not taken yet.
    pub(crate) fn waiting_starts(&mut self) -> Vec<StartCall> {
        std::iter::from_fn(|| self.starts.try_recv().ok()).collect()
    }

    /// Waits until `/metadata` has been asked for so often, and returns the times.
    pub(crate) async fn polls(&self, count: usize) -> Vec<Instant> {
        let mut polls = self.shared.polls.subscribe();
        let seen = in_time("polls of the metadata", polls.wait_for(|polls| polls.len() >= count)).await;
        seen.unwrap().clone()
    }
}

/// The metadata of an application in some version.
pub(crate) fn document(version: u32) -> Value {
    json!({ "runtime": "rivetkit", "version": "2.3.19", "envoyProtocolVersion": 8,
        "envoy": { "kind": { "serverless": {} }, "version": version },
        "actorNames": { "counter": { "metadata": { "icon": "c" } } } })
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if let Some((status, location)) = shared.redirects.lock().get(&path) {
        return Response::builder().status(*status).header("location", location).body(Body::empty()).unwrap();
    }
    if path.ends_with("/metadata") {
        shared.polls.send_modify(|polls| polls.push(Instant::now()));
        let (status, document) = shared.metadata.lock().clone();
        return Response::builder().status(status).body(Body::from(document.to_string())).unwrap();
    }
    let (answer, answered) = oneshot::channel();
    let (head, body) = request.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let body = body.collect().await.unwrap().to_bytes();
    let call = StartCall { method: head.method.to_string(), path, headers, body, came: Instant::now(), answer };
    let _ = shared.starts.send(call);
    // A call that is dropped without an answer breaks its connection.
    answered.await.expect("an answer to the start request")
}

/// A start request that waits for its answer. Dropping it breaks its connection.
pub(crate) struct StartCall {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) came: Instant,
    answer: oneshot::Sender<Response<Body>>,
}

impl StartCall {
    /// The protocol version of the body, and what it starts.
    pub(crate) fn content(&self) -> (u16, ServerlessStart) {
        ServerlessStart::from_body(self.body.clone()).unwrap()
    }

    pub(crate) fn run(&self) -> Run {
        let checkpoint = self.content().1.checkpoint;
        Run { actor_id: checkpoint.actor_id, generation: checkpoint.generation }
    }

    /// Waits until the engine has given up waiting for the answer.
    pub(crate) async fn dropped(mut self) {
        in_time("the end of an unanswered start request", self.answer.closed()).await;
    }

    /// Answers with something that is no event stream.
    pub(crate) fn refuse(self, status: u16, content_type: &str, body: &str) {
        let response = Response::builder().status(status).header("content-type", content_type);
        let _ = self.answer.send(response.body(Body::from(body.to_owned())).unwrap());
    }

    /// Answers with an event stream, as the published host does: with a ping at once.
    pub(crate) fn accept(self) -> Stream {
        let stream = self.accept_silently();
        stream.send("event: ping\ndata:\n\n");
        stream
    }

    /// Answers with an event stream, and says nothing in it.
    pub(crate) fn accept_silently(self) -> Stream {
        let (pieces, mut received) = mpsc::unbounded_channel::<Result<Bytes, Broken>>();
        let body = futures_util::stream::poll_fn(move |context| received.poll_recv(context));
        let response = Response::builder().header("content-type", "text/event-stream; charset=utf-8");
        let _ = self.answer.send(response.body(Body::from_stream(body)).unwrap());
        Stream { pieces }
    }
}

/// The end of a body that breaks off.
#[derive(Debug, thiserror::Error)]
#[error("broken on purpose")]
pub(crate) struct Broken;

/// The event stream of one start request. Dropping it ends the body.
pub(crate) struct Stream {
    pieces: mpsc::UnboundedSender<Result<Bytes, Broken>>,
}

impl Stream {
    pub(crate) fn send(&self, text: &str) {
        // The engine may have closed the request.
        let _ = self.pieces.send(Ok(Bytes::copy_from_slice(text.as_bytes())));
    }

    /// Says that the actor has stopped, and ends.
    pub(crate) fn stopping(self) {
        self.send("event: stopping\ndata:\n\n");
    }

    /// Breaks off in the middle.
    pub(crate) fn break_off(self) {
        let _ = self.pieces.send(Err(Broken));
    }

    /// Waits until the engine has closed the request.
    pub(crate) async fn closed(&self) {
        in_time("the end of a start request", self.pieces.closed()).await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.pieces.is_closed()
    }
}
