//! How much an engine carries in a second.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_websockets::Message;

use crate::host::Host;
use crate::process::EngineProcess;
use crate::sockets::{self, MESSAGE, Socket};

/// Messages that a client has sent and not yet seen again.
const IN_FLIGHT: usize = 16;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(5);

/// What counts: times in the measured span.
#[derive(Clone, Copy)]
struct Span {
    from: Instant,
    to: Instant,
}

impl Span {
    fn after_warm_up() -> Self {
        let from = Instant::now() + WARM_UP;
        Self { from, to: from + MEASURED }
    }

    /// How long something took that has just ended, if that counts.
    fn took(&self, since: Instant) -> Option<Duration> {
        let now = Instant::now();
        (self.from..self.to).contains(&now).then(|| now - since)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.to
    }
}

/// Echoes over so many sockets, each of an actor of its own.
pub(crate) async fn messages(engine: &EngineProcess, count: usize) {
    let mut host = Host::join(engine.address()).await;
    let actors = host.start_actors(count).await;
    let opened = join_all(actors.iter().map(|actor| sockets::open(engine.address(), actor))).await;
    measure(engine, "messages", opened, echo_until).await;
}

/// Requests over so many connections, each to an actor of its own, one after the other on each.
pub(crate) async fn requests(engine: &EngineProcess, count: usize) {
    let mut host = Host::join(engine.address()).await;
    let actors = host.start_actors(count).await;
    let opened = join_all(actors.into_iter().map(|actor| Caller::connect(engine.address(), actor))).await;
    measure(engine, "requests", opened, Caller::call_until).await;
}

/// Lets all clients work at the same time, and prints what they did in the measured span.
async fn measure<C, W>(engine: &EngineProcess, what: &str, clients: Vec<C>, work: impl Fn(C, Span) -> W)
where
    W: Future<Output = Vec<Duration>> + Send + 'static,
{
    let count = clients.len();
    let span = Span::after_warm_up();
    let tasks: Vec<_> = clients.into_iter().map(|client| tokio::spawn(work(client, span))).collect();
    sleep_until(span.from).await;
    let before = engine.processor_time();
    sleep_until(span.to).await;
    let processor_time = engine.processor_time() - before;
    let mut took: Vec<Duration> = join_all(tasks).await.into_iter().flat_map(|done| done.expect("a client")).collect();
    took.sort_unstable();
    let ms = |share: usize| took.get(took.len() * share / 100).map(|took| took.as_secs_f64() * 1e3);
    let line = json!({
        "measured": what,
        "clients": count,
        "per_second": took.len() as f64 / MEASURED.as_secs_f64(),
        "p50_ms": ms(50),
        "p99_ms": ms(99),
        "engine_us_each": processor_time.as_secs_f64() * 1e6 / took.len() as f64,
    });
    println!("{line}");
}

/// Keeps [`IN_FLIGHT`] messages on their way; how long each took.
async fn echo_until(mut socket: Socket, span: Span) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut sent = std::collections::VecDeque::new();
    while !span.is_over() {
        while sent.len() < IN_FLIGHT {
            socket.send(Message::text(MESSAGE)).await.expect("an open socket");
            sent.push_back(Instant::now());
        }
        let echo = socket.next().await.expect("an open socket").expect("a message");
        assert_eq!(echo.as_text(), Some(MESSAGE));
        let since = sent.pop_front().expect("no echo comes twice");
        took.extend(span.took(since));
    }
    took
}

/// A client that keeps its connection.
struct Caller {
    sender: SendRequest<Empty<Bytes>>,
    host: String,
    path: String,
}

impl Caller {
    async fn connect(address: SocketAddr, actor: String) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        // Its errors reach the requests too.
        tokio::spawn(async move { drop(connection.await) });
        Self { sender, host: address.to_string(), path: format!("/gateway/{actor}/request/hello") }
    }

    async fn call_until(mut self, span: Span) -> Vec<Duration> {
        let mut took = Vec::new();
        while !span.is_over() {
            let since = Instant::now();
            let request = Request::get(&self.path).header(HOST, &self.host).body(Empty::new()).expect("a request");
            self.sender.ready().await.expect("an open connection");
            let response = self.sender.send_request(request).await.expect("a response");
            assert_eq!(response.status(), StatusCode::OK);
            response.into_body().collect().await.expect("a body");
            took.extend(span.took(since));
        }
        took
    }
}
