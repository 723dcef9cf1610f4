//! How much an engine carries in a second.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tokio_websockets::Message;

use crate::caller::Caller;
use crate::host::Host;
use crate::process::EngineProcess;
use crate::sockets::{self, MESSAGE, Socket};

/// Messages that a client has sent and not yet seen again.
const IN_FLIGHT: usize = 16;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(5);

/// What counts: times in the measured span.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    from: Instant,
    to: Instant,
}

impl Span {
    fn after_warm_up() -> Self {
        let from = Instant::now() + WARM_UP;
        Self { from, to: from + MEASURED }
    }

    /// How long something took that has just ended, if that counts.
    pub(crate) fn took(&self, since: Instant) -> Option<Duration> {
        let now = Instant::now();
        (self.from..self.to).contains(&now).then(|| now - since)
    }

    pub(crate) fn is_over(&self) -> bool {
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
    let open = async |actor| (Caller::connect(engine.address()).await, format!("/gateway/{actor}/request/hello"));
    let opened = join_all(actors.into_iter().map(open)).await;
    measure(engine, "requests", opened, call_until).await;
}

/// Lets all clients work at the same time, and prints what they did in the measured span.
pub(crate) async fn measure<C, W>(engine: &EngineProcess, what: &str, clients: Vec<C>, work: impl Fn(C, Span) -> W)
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
    let took = join_all(tasks).await.into_iter().flat_map(|done| done.expect("a client")).collect();
    Figures { took, lasted: MEASURED, processor_time }.print(what, count);
}

/// What was measured.
pub(crate) struct Figures {
    /// By each operation.
    pub(crate) took: Vec<Duration>,
    /// Time in which all of them were done.
    pub(crate) lasted: Duration,
    /// Of the engine, meanwhile.
    pub(crate) processor_time: Duration,
}

impl Figures {
    pub(crate) fn print(mut self, what: &str, clients: usize) {
        self.took.sort_unstable();
        let count = self.took.len();
        let ms = |share: usize| self.took.get(count * share / 100).map(|took| took.as_secs_f64() * 1e3);
        let line = json!({
            "measured": what,
            "clients": clients,
            "count": count,
            "per_second": count as f64 / self.lasted.as_secs_f64(),
            "p50_ms": ms(50),
            "p99_ms": ms(99),
            "engine_us_each": self.processor_time.as_secs_f64() * 1e6 / count as f64,
        });
        println!("{line}");
    }
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

/// Calls one path until the span is over; how long each call took.
async fn call_until((mut caller, path): (Caller, String), span: Span) -> Vec<Duration> {
    let mut took = Vec::new();
    while !span.is_over() {
        let since = Instant::now();
        caller.get(&path).await;
        took.extend(span.took(since));
    }
    took
}
