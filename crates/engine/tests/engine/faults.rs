//! What clients and hosts see when the network between them and the engine fails at any point (`spec/envoy-protocol.md`
//! 13.7 and 14.7). Nothing hangs, nothing that was cut looks whole, and nothing stays open.

use std::collections::HashSet;

use bytes::Bytes;
use http::Method;
use protocol::envoy::{HttpStreamAbortReasonKind, ToEnvoy, ToEnvoyTunnelMessageKind};
use serde_json::json;
use testkit::client::{self, Answer, begin, call, empty};
use testkit::envoy::{EnvoyParams, FakeEnvoy, TunnelRequest};
use testkit::eventually;
use testkit::in_time;
use testkit::proxy::{Direction, Fault, FaultyProxy, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::metrics::HELD;
use crate::scene::{TestEngine, is_set, metric_in};

pub(crate) type MakeFault = fn(u64) -> Fault;

pub(crate) const CUTS: [MakeFault; 2] = [|after_bytes| Fault::Cut { after_bytes }, |after_bytes| Fault::Reset { after_bytes }];

const TCP_CONNECTIONS: &str = "rivet_guard_tcp_connection_pending";
const TASKS: &str = "rivet_tokio_active_task_count";

/// An engine; a proxy on either side of it; a host with one running actor.
pub(crate) struct Scene {
    pub(crate) engine: TestEngine,
    pub(crate) to_host: FaultyProxy,
    pub(crate) to_client: FaultyProxy,
    pub(crate) envoy: FakeEnvoy,
    pub(crate) actor: String,
    /// Tasks of the process, proxies and scripted host included, while nothing happens.
    tasks_at_rest: i64,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        // One ping for each connection, so that bytes can be counted.
        let settings = json!({ "pegboard": { "envoy_update_ping_interval": 600_000, "envoy_ping_timeout": 900_000 } });
        let engine = TestEngine::start(settings).await;
        let to_host = FaultyProxy::start(engine.address()).await.unwrap();
        let to_client = FaultyProxy::start(engine.address()).await.unwrap();
        let mut envoy = FakeEnvoy::join(to_host.address(), &EnvoyParams::new()).await;
        let actor = engine.create("counter", None).await;
        envoy.start_actor().await;
        engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
        envoy.expect_ping().await;
        let mut scene = Self { engine, to_host, to_client, envoy, actor, tasks_at_rest: 0 };
        scene.calm().await;
        scene.nothing_is_open().await;
        scene.tasks_at_rest = eventually("clients to be gone", async || {
            let scrape = scene.engine.scrape(None).await.text();
            (metric_in(&scrape, TCP_CONNECTIONS) == 1).then(|| metric_in(&scrape, TASKS))
        })
        .await;
        scene
    }

    /// Waits until an event is acknowledged, which happens a little later and so perhaps in the middle of what a test
    /// counts; and until everything before has arrived.
    pub(crate) async fn calm(&mut self) {
        self.envoy.expect("an acknowledgement", |message| matches!(message, ToEnvoy::AckEvents(_)).then_some(())).await;
        self.exchange().await;
    }

    fn path(&self, page: &str) -> String {
        format!("/gateway/{}/request/{page}", self.actor)
    }

    /// Begins a request through the proxy of the clients.
    fn request(&self) -> JoinHandle<Answer> {
        let request = empty(Method::GET, &self.path("hello"));
        tokio::spawn(client::send(self.to_client.address(), request))
    }

    /// A request that is answered. When it is over, nothing else is on its way to or from the host, because frames keep
    /// their order.
    pub(crate) async fn exchange(&mut self) {
        let answer = self.request();
        let request = self.envoy.expect_request().await;
        self.envoy.respond(&request, 200, &[], "hello");
        assert_eq!(answer.await.unwrap().text(), "hello");
    }

    /// Bytes that have gone over the host's present connection, each way.
    pub(crate) fn host_bytes(&self) -> (u64, u64) {
        let link = self.to_host.open().pop().expect("the host's connection");
        (link.up_bytes, link.down_bytes)
    }

    /// What an exchange takes on the host's connection, each way.
    async fn exchange_bytes(&mut self) -> (u64, u64) {
        let before = self.host_bytes();
        self.exchange().await;
        let after = self.host_bytes();
        (after.0 - before.0, after.1 - before.1)
    }

    /// The host comes back after its connection was lost.
    pub(crate) async fn rejoin(&mut self) {
        self.envoy.expect_close().await;
        let params = self.envoy.params().clone();
        self.envoy = FakeEnvoy::join(self.to_host.address(), &params).await;
        self.envoy.expect_ping().await;
    }

    /// The host has lost its connection in the middle of an exchange: it comes back and answers what it is asked, until
    /// the client has an answer.
    async fn recover(&mut self, mut answer: JoinHandle<Answer>) -> Answer {
        self.rejoin().await;
        loop {
            tokio::select! {
                answer = &mut answer => return answer.unwrap(),
                request = self.envoy.expect_request() => self.envoy.respond(&request, 200, &[], "hello"),
            }
        }
    }

    /// Waits until the engine holds nothing of any request.
    pub(crate) async fn nothing_is_open(&self) {
        nothing_is_open(&self.engine).await;
    }

    /// Waits until all is as it was at the beginning: one connection, the host's, and no task more.
    pub(crate) async fn nothing_is_left(&self) {
        self.nothing_is_open().await;
        let as_before = async || {
            let scrape = self.engine.scrape(None).await.text();
            let now = (metric_in(&scrape, TCP_CONNECTIONS), metric_in(&scrape, TASKS));
            (now == (1, self.tasks_at_rest)).then_some(())
        };
        eventually("connections and tasks of clients and lost hosts to be gone", as_before).await;
    }
}

async fn nothing_is_open(engine: &TestEngine) {
    let at_rest = async || {
        let scrape = engine.scrape(None).await.text();
        HELD.iter().all(|name| metric_in(&scrape, name) == 0).then_some(())
    };
    eventually("all gauges at rest", at_rest).await;
}

/// The error of a request whose host was lost before it had answered.
fn is_lost(answer: &Answer) -> bool {
    answer.status == 503 && answer.error() == (503, "guard.tunnel_response_closed".to_owned())
}

#[tokio::test]
async fn a_host_that_is_cut_off_anywhere_in_a_request_leaves_an_answer() {
    let mut scene = Scene::new().await;
    let (_, length) = scene.exchange_bytes().await;
    for fault in CUTS {
        for after_bytes in 0..=length {
            scene.to_host.set(Scope::Open, Direction::Down, fault(after_bytes));
            let answer = scene.request();
            let answer = scene.recover(answer).await;
            // Cut before its first byte, it has not begun: it may have waited for the host.
            let excused = after_bytes == 0 && answer.text() == "hello";
            assert!(excused || is_lost(&answer), "{}: {answer:?}", fault(after_bytes));
            scene.nothing_is_open().await;
            scene.exchange().await;
        }
    }
    scene.nothing_is_left().await;
}

#[tokio::test]
async fn a_host_that_is_cut_off_anywhere_in_its_answer_has_answered_or_not() {
    let mut scene = Scene::new().await;
    let (length, _) = scene.exchange_bytes().await;
    for fault in CUTS {
        for after_bytes in 0..=length {
            let answer = scene.request();
            let request = scene.envoy.expect_request().await;
            scene.to_host.set(Scope::Open, Direction::Up, fault(after_bytes));
            scene.envoy.respond(&request, 200, &[], "hello");
            let answer = answer.await.unwrap();
            let whole = after_bytes == length;
            assert!(if whole { answer.text() == "hello" } else { is_lost(&answer) }, "{}: {answer:?}", fault(after_bytes));
            scene.nothing_is_open().await;
            scene.rejoin().await;
            scene.exchange().await;
        }
    }
    scene.nothing_is_left().await;
}

#[tokio::test]
async fn a_stream_that_was_cut_never_looks_whole() {
    let mut scene = Scene::new().await;
    let mut last_chunk_bytes = None;
    for after_bytes in 0.. {
        let request = empty(Method::GET, &scene.path("stream"));
        let client = tokio::spawn(begin(scene.to_client.address(), request));
        let request = scene.envoy.expect_request().await;
        scene.envoy.begin_response(&request, 200, &[]);
        scene.envoy.response_chunk(&request, "first ", false);
        let mut exchange = client.await.unwrap().unwrap();
        assert_eq!(exchange.chunk().await.unwrap().unwrap(), "first ");
        let before = scene.host_bytes().0;
        let Some(length) = last_chunk_bytes else {
            scene.envoy.response_chunk(&request, "last", true);
            assert_eq!(exchange.finish().await.unwrap().text(), "last");
            last_chunk_bytes = Some(scene.host_bytes().0 - before);
            continue;
        };
        if after_bytes > length {
            break;
        }
        scene.to_host.set(Scope::Open, Direction::Up, Fault::Cut { after_bytes });
        scene.envoy.response_chunk(&request, "last", true);
        let finished = exchange.finish().await;
        assert_eq!(finished.is_ok(), after_bytes == length, "{after_bytes} of {length}: {finished:?}");
        scene.nothing_is_open().await;
        scene.rejoin().await;
    }
    scene.nothing_is_left().await;
}

#[tokio::test]
async fn a_request_that_was_cut_never_reaches_the_host() {
    let mut scene = Scene::new().await;
    let head = format!("POST {} HTTP/1.1\r\nhost: engine\r\ncontent-length: 10\r\n\r\n", scene.path("cut"));
    let request = format!("{head}0123456789");
    for fault in CUTS {
        for after_bytes in 0..request.len() as u64 {
            scene.to_client.set(Scope::Next, Direction::Up, fault(after_bytes));
            let mut socket = TcpStream::connect(scene.to_client.address()).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let _ended = in_time("the end of the client's connection", socket.read_to_end(&mut rest)).await;
            scene.nothing_is_open().await;
        }
    }
    // The next request that the host sees is a whole one.
    scene.exchange().await;
    scene.nothing_is_left().await;
}

#[tokio::test]
async fn a_client_that_is_cut_off_while_it_waits_is_reported() {
    let mut scene = Scene::new().await;
    for fault in CUTS {
        let answer = tokio::spawn(client::try_send(scene.to_client.address(), empty(Method::GET, &scene.path("wait"))));
        let request = scene.envoy.expect_request().await;
        scene.to_client.set_both(Scope::Open, fault(0));
        assert!(answer.await.unwrap().is_err());
        aborted(&mut scene.envoy, &request).await;
        scene.nothing_is_open().await;
    }
    scene.exchange().await;
    scene.nothing_is_left().await;
}

async fn aborted(envoy: &mut FakeEnvoy, request: &TunnelRequest) {
    let (_, kind) = envoy.expect_message(request, "an abort").await;
    let ToEnvoyTunnelMessageKind::RequestAbort(abort) = kind else { panic!("{kind:?}") };
    assert_eq!(abort.reason.kind, HttpStreamAbortReasonKind::Cancelled);
}

#[tokio::test]
async fn a_client_that_vanished_without_a_word_gets_its_answer_sent_into_the_void() {
    let mut scene = Scene::new().await;
    let client = tokio::spawn(client::try_send(scene.to_client.address(), empty(Method::GET, &scene.path("void"))));
    let request = scene.envoy.expect_request().await;
    scene.to_client.set_both(Scope::Open, Fault::HalfOpen);
    client.abort();
    scene.envoy.respond(&request, 200, &[], Bytes::from(vec![b'x'; 4 * 1024 * 1024]));
    scene.nothing_is_open().await;
    scene.to_client.set_both(Scope::Open, Fault::Reset { after_bytes: 0 });
    scene.exchange().await;
    scene.nothing_is_left().await;
}

#[tokio::test]
async fn a_client_that_is_reset_while_it_does_not_read_frees_its_stream() {
    let mut scene = Scene::new().await;
    let client = tokio::spawn(begin(scene.to_client.address(), empty(Method::GET, &scene.path("stream"))));
    let request = scene.envoy.expect_request().await;
    scene.envoy.begin_response(&request, 200, &[]);
    scene.envoy.response_chunk(&request, "first", false);
    let exchange = client.await.unwrap().unwrap();
    scene.to_client.set(Scope::Open, Direction::Down, Fault::Stall);
    for _chunk in 0..10 {
        scene.envoy.response_chunk(&request, vec![b'x'; 64 * 1024], false);
    }
    scene.to_client.set_both(Scope::Open, Fault::Reset { after_bytes: 0 });
    aborted(&mut scene.envoy, &request).await;
    drop(exchange);
    scene.nothing_is_left().await;
}

#[tokio::test]
async fn a_host_that_falls_silent_is_found_out() {
    let settings = json!({ "pegboard": {
        "envoy_update_ping_interval": 100, "envoy_ping_timeout": 400, "envoy_lost_threshold": 500,
    } });
    let engine = TestEngine::start(settings).await;
    let to_host = FaultyProxy::start(engine.address()).await.unwrap();
    let mut envoy = FakeEnvoy::join(to_host.address(), &EnvoyParams::new()).await;
    let actor = engine.create("counter", None).await;
    envoy.start_actor().await;
    engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
    let waiting = engine.request(&actor);
    envoy.expect_request().await;
    to_host.set(Scope::Open, Direction::Up, Fault::HalfOpen);
    // The request is not kept for as long as an answer may take, but only until the host counts as gone.
    let answer = waiting.await.unwrap();
    assert!(is_lost(&answer), "{answer:?}");
    assert_eq!(envoy.expect_close().await.code_and_cause(), (1011, "ws.timed_out"));
    // Another host takes over.
    let mut other = engine.host().await;
    let answer = engine.request(&actor);
    other.start_actor().await;
    let request = other.expect_request().await;
    other.respond(&request, 200, &[], "elsewhere");
    assert_eq!(answer.await.unwrap().text(), "elsewhere");
    nothing_is_open(&engine).await;
}

#[tokio::test]
async fn requests_that_overtake_each_other_get_their_own_answers() {
    let scene = Scene::new().await;
    let Scene { engine, to_client, mut envoy, actor, .. } = scene;
    let at_most = std::time::Duration::from_millis(20);
    to_client.set_both(Scope::All, Fault::Overtaken { at_most });
    let clients: Vec<_> = (0..20)
        .map(|number| {
            let (address, path) = (to_client.address(), format!("/gateway/{actor}/request/{number}"));
            tokio::spawn(async move { call(address, Method::GET, &path).await.text() == format!("/request/{number}") })
        })
        .collect();
    let mut seen = HashSet::new();
    for _client in 0..clients.len() {
        let request = envoy.expect_request().await;
        let path = request.start.path.clone();
        assert!(seen.insert(path.clone()), "{path} came twice");
        envoy.respond(&request, 200, &[], path);
    }
    for own_answer in clients {
        assert!(own_answer.await.unwrap());
    }
    assert!(to_client.overtaken() > 0);
    nothing_is_open(&engine).await;
}
