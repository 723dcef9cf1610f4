//! Clients, over pipes instead of TCP.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use gateway::{ClientStream, Gateway, GatewayError, RequestInfo, accept_ray_id};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use protocol::error::Coded;
use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::RAY;
use super::directory::ScriptedDirectory;
use super::host::PATIENCE;

/// What a pipe holds before its writer waits, in bytes; about what a kernel keeps for a socket.
const PIPE_BYTES: usize = 64 * 1024;

type BoxBody = http_body_util::combinators::BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A keep-alive connection. Dropping it is a client that walks away.
pub(crate) struct Connection {
    sender: SendRequest<BoxBody>,
    _tasks: JoinSet<()>,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Status and `group.code`.
    pub(crate) fn error(&self) -> (u16, String) {
        let body = self.json();
        (self.status.as_u16(), format!("{}.{}", body["group"].as_str().unwrap(), body["code"].as_str().unwrap()))
    }
}

/// The server's end of a new connection, and the client's.
fn pipe(gateway: Gateway<ScriptedDirectory>, peer: IpAddr) -> (DuplexStream, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let serving = tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let gateway = gateway.clone();
            async move {
                let ray: Arc<str> = accept_ray_id(request.headers()).unwrap_or(RAY).into();
                let answer = gateway.handle(request, RequestInfo { ray, peer }).await;
                Ok::<_, Infallible>(answer.expect("tests ask for actors only"))
            }
        });
        let server = auto::Builder::new(TokioExecutor::new());
        let stream = TokioIo::new(ClientStream::in_memory(theirs));
        // How a connection ends is the client's to see.
        drop(server.serve_connection_with_upgrades(stream, service).await);
    });
    (ours, serving)
}

/// The client's end of a connection that a test speaks on byte by byte.
pub(super) fn raw(gateway: Gateway<ScriptedDirectory>, peer: IpAddr) -> DuplexStream {
    // The server's side is left alone: it ends when this end of the pipe does.
    let (stream, _serving) = pipe(gateway, peer);
    stream
}

impl Connection {
    pub(super) async fn open(gateway: Gateway<ScriptedDirectory>, peer: IpAddr) -> Self {
        // The server's side is left alone: it ends when the client's end of the pipe does.
        let (stream, _serving) = pipe(gateway, peer);
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        Self { sender, _tasks: tasks }
    }

    /// Sends a request; the result is its head, with the body still to be read.
    pub(crate) async fn begin<B>(&mut self, mut request: Request<B>) -> hyper::Result<Response<Incoming>>
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        request.headers_mut().entry("host").or_insert(http::HeaderValue::from_static("engine.test"));
        let request = request.map(|body| BoxBody::new(body.map_err(Into::into)));
        let answered = timeout(PATIENCE, self.sender.send_request(request)).await;
        answered.expect("an answer in time")
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.begin(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.expect("a body in time").expect("a whole body").to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }
}

/// A request with a body and headers.
pub(crate) fn request(method: Method, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).expect("a request")
}

/// A request without anything.
pub(crate) fn get(target: &str) -> Request<Full<Bytes>> {
    request(Method::GET, target, &[], "")
}

/// A client's WebSocket. Dropping it is a client whose connection breaks.
pub(crate) struct Socket {
    pub(crate) stream: WebSocketStream<DuplexStream>,
    pub(crate) answer: HeaderMap,
}

impl Socket {
    pub(super) async fn open(gateway: Gateway<ScriptedDirectory>, peer: IpAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let (stream, _serving) = pipe(gateway, peer);
        let mut client = ClientBuilder::new().uri(&format!("ws://engine.test{target}")).expect("a URI");
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            client = client.add_header(name, value.parse().expect("a header value")).expect("a header that may be set");
        }
        let (stream, answer) = client.connect_on(stream).await.expect("an upgrade");
        Self { stream, answer: answer.headers().clone() }
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text.to_owned())).await.expect("an open socket");
    }

    /// The next message. The engine's pings are answered on the way.
    pub(crate) async fn next(&mut self) -> Message {
        self.next_within(PATIENCE).await.expect("a message in time")
    }

    /// The next message, if it comes within this (virtual) time.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<Message> {
        let deadline = Instant::now() + limit;
        loop {
            let next = timeout_at(deadline, self.stream.next()).await.ok()?;
            let message = next.expect("an open socket").expect("a good frame");
            if !message.is_ping() {
                return Some(message);
            }
            // The codec has queued the pong.
            self.stream.flush().await.expect("an open socket");
        }
    }

    /// Listens for this (virtual) time, and says whether nothing came.
    pub(crate) async fn quiet_for(&mut self, time: Duration) -> bool {
        self.next_within(time).await.is_none()
    }

    /// The next message, which is text.
    pub(crate) async fn expect_text(&mut self) -> String {
        let message = self.next().await;
        message.as_text().unwrap_or_else(|| panic!("expected text, not {message:?}")).to_owned()
    }

    /// Code and reason of the close frame, which comes next.
    pub(crate) async fn expect_close(&mut self) -> (u16, String) {
        let message = self.next().await;
        let (code, reason) = message.as_close().unwrap_or_else(|| panic!("expected a close, not {message:?}"));
        (code.into(), reason.to_owned())
    }

    /// Expects the engine's own close for an error.
    pub(crate) async fn expect_failure(&mut self, error: &GatewayError) {
        let expected = format!("{}.{}#{RAY}", error.group(), error.code());
        assert_eq!(self.expect_close().await, (1011, expected));
    }
}
