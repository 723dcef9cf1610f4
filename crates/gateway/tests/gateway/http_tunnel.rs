//! HTTP through the tunnel (`spec/gateway.md` 14, checklist 25 to 41).

mod answers;
mod faults;
mod leaving;
mod model;
mod old_hosts;
mod rest;
mod streams;
mod uploads;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gateway::GatewayConfig;
use gateway::metrics::Traffic;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use protocol::envoy::{
    BodyChunk, HttpStreamAbortReasonKind as Kind, MessageId, RequestStart, ToEnvoyTunnelMessageKind as ToActor,
    ToRivetTunnelMessageKind as FromActor,
};
use protocol::id::ActorId;
use protocol::limits;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::scene::{Answer, Connection, Host, Request, Scene, request};

const WINDOW: usize = limits::HTTP_BODY_WINDOW_BYTES as usize;
const CHUNK: usize = limits::HTTP_BODY_CHUNK_MAX_BYTES;
/// Longer than anything but a limit takes.
const A_MOMENT: Duration = Duration::from_millis(10);

/// An actor that runs as generation 1 on a host.
struct Stage {
    scene: Scene,
    actor: ActorId,
    host: Host,
}

impl Stage {
    fn new() -> Self {
        Self::on(Scene::new())
    }

    fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::on(Scene::with(change))
    }

    fn on(scene: Scene) -> Self {
        let host = scene.host();
        Self::hosted(scene, host)
    }

    fn hosted(scene: Scene, host: Host) -> Self {
        let actor = scene.actor(1);
        scene.run(actor, 1, &host);
        Self { scene, actor, host }
    }

    fn path(&self) -> String {
        format!("/gateway/{}/x", self.actor)
    }

    /// Begins a request on a connection of its own.
    async fn ask<B>(&self, request: http::Request<B>) -> Asked
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut client = self.scene.connect().await;
        Asked(tokio::spawn(async move {
            let answered = client.begin(request).await;
            (client, answered)
        }))
    }

    /// Begins a request without a body, which the host gets.
    async fn get(&mut self) -> (Request, Asked) {
        let asked = self.ask(request(Method::GET, &self.path(), &[], "")).await;
        let (request, _start) = self.host.expect_request().await;
        (request, asked)
    }

    /// Begins an upload, whose start the host gets.
    async fn upload<B>(&mut self, body: B) -> (Request, Asked)
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let post = http::Request::post(self.path()).body(body).expect("a request");
        let asked = self.ask(post).await;
        let (request, start) = self.host.expect_request().await;
        assert_eq!((start.stream, start.body), (true, None));
        (request, asked)
    }

    /// Begins a request whose answer streams.
    async fn stream(&mut self, headers: &[(&str, &str)]) -> (Request, Connection, Incoming) {
        let (request, asked) = self.get().await;
        self.host.start_stream(&request, 200, headers);
        let (client, answer) = asked.head().await;
        (request, client, answer.into_body())
    }

    /// Credit for an upload: so many bytes were consumed in total.
    fn consume(&self, request: &Request, index: u16, consumed_bytes: usize) {
        let consumed_bytes = consumed_bytes as u64;
        self.host.send(request, index, FromActor::RequestBodyWindowUpdate { consumed_bytes });
    }

    /// The next frame, which is a piece of an upload.
    async fn expect_chunk(&mut self) -> (MessageId, BodyChunk) {
        match self.host.next().await {
            (id, ToActor::RequestChunk(chunk)) => (id, chunk),
            other => panic!("expected a chunk, not {other:?}"),
        }
    }

    /// The next frame, which aborts the request and names who may answer it.
    async fn expect_abort(&mut self, kind: Kind, detail: &str) {
        match self.host.next_within(A_MOMENT).await {
            Some((_, ToActor::RequestAbort(abort))) => {
                assert_eq!((abort.reason.kind, abort.reason.detail.as_deref()), (kind, Some(detail)));
                assert_eq!((abort.actor_id, abort.actor_generation), (Some(self.actor.to_string()), Some(1)));
            }
            other => panic!("expected an abort, not {other:?}"),
        }
    }

    /// Nothing more is said to the host, and nothing is left of any request.
    async fn expect_the_end(&mut self) {
        let more = self.host.next_within(Duration::from_secs(60)).await;
        assert!(more.is_none(), "{more:?}");
        assert_eq!(self.scene.gateway.metrics().tasks.get(), 0);
        self.scene.expect_no_leak().await;
    }

    /// Bytes that the gateway has read from clients.
    fn ingress(&self) -> usize {
        self.scene.gateway.metrics().body_bytes.get(Traffic::Ingress).get() as usize
    }

    /// Bytes that the gateway has handed to clients.
    fn egress(&self) -> usize {
        self.scene.gateway.metrics().body_bytes.get(Traffic::Egress).get() as usize
    }
}

/// A request that a client waits for. Dropping the result, or aborting it, is a client that walks away.
struct Asked(JoinHandle<(Connection, hyper::Result<Response<Incoming>>)>);

impl Asked {
    /// The head of the answer. The body ends when the connection is dropped.
    async fn head(self) -> (Connection, Response<Incoming>) {
        let (client, answered) = in_time(self.0).await.expect("a client");
        (client, answered.expect("an answer"))
    }

    /// The whole answer.
    async fn answer(self) -> Answer {
        let (_client, response) = self.head().await;
        let (head, body) = response.into_parts();
        let body = in_time(body.collect()).await.expect("a whole body").to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// The client walks away.
    async fn leave(self) {
        self.0.abort();
        assert!(self.0.await.is_err_and(|error| error.is_cancelled()), "the client is still waiting");
    }
}

/// Waits in virtual time, longer than any limit of the gateway: what would hang fails.
async fn in_time<T>(waits: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(100_000), waits).await.expect("in time")
}

/// The next piece of a body.
async fn next_piece(body: &mut Incoming) -> Bytes {
    let frame = in_time(body.frame()).await.expect("more of the body").expect("an uncut body");
    frame.into_data().expect("data")
}

/// The rest of a body, which is cut and never ends cleanly; returns what came before.
async fn until_cut(body: &mut Incoming) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match in_time(body.frame()).await {
            Some(Ok(frame)) => all.extend_from_slice(&frame.into_data().expect("data")),
            Some(Err(_)) => return all,
            None => panic!("a clean end after {} bytes", all.len()),
        }
    }
}

/// A body that a test sends piece by piece, without announcing its length.
struct Dictated(mpsc::UnboundedReceiver<Bytes>);

impl Dictated {
    fn new() -> (mpsc::UnboundedSender<Bytes>, Self) {
        let (sender, pieces) = mpsc::unbounded_channel();
        (sender, Self(pieces))
    }
}

impl http_body::Body for Dictated {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// What the host of a request is told of its body at the start.
fn framing(start: &RequestStart) -> (Option<&[u8]>, bool, bool) {
    (start.body.as_deref(), start.stream, start.response_stream)
}
