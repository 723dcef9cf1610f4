//! Hosts that come and go, an engine that is killed and started again, actors that are put to sleep, moved, destroyed and asked, all at random.
//! What must hold: no two generations of an actor live at the same time, every request has an answer, and in the end every
//! actor that was not destroyed answers.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::Full;
use parking_lot::Mutex;
use protocol::envoy::{Command, CommandWrapper, ToEnvoy, ToEnvoyTunnelMessage, ToEnvoyTunnelMessageKind};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::client::{self, Answer, Broken};
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run, TunnelRequest, crashed, running, stopped};
use testkit::eventually;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::process::{self, Process};
use crate::scene::is_set;

const HOSTS: usize = 3;
const ACTORS: usize = 20;
const STEPS: usize = 300;
/// After this the engine gives up the actors of a host that is out of touch.
const LOST_THRESHOLD: Duration = Duration::from_millis(300);
/// After this the host gives them up, which must not be later.
const HOST_GIVES_UP: Duration = Duration::from_millis(200);

/// Which generations live, over all hosts.
#[derive(Default)]
struct Census {
    alive: HashMap<String, u32>,
    highest: HashMap<String, u32>,
    violations: Vec<String>,
}

impl Census {
    fn born(&mut self, run: &Run, host: &str) {
        if let Some(other) = self.alive.insert(run.actor_id.clone(), run.generation) {
            self.violations.push(format!("{run:?} starts on {host} while generation {other} lives"));
        }
        let highest = self.highest.entry(run.actor_id.clone()).or_insert(0);
        if run.generation <= *highest {
            self.violations.push(format!("{run:?} starts on {host} after generation {highest}"));
        }
        *highest = run.generation;
    }

    fn died(&mut self, run: &Run) {
        if self.alive.get(&run.actor_id) == Some(&run.generation) {
            self.alive.remove(&run.actor_id);
        }
    }
}

/// Where the engine listens at present.
type Address = Arc<Mutex<SocketAddr>>;

/// A host that does what it is told. It loses its connection when the test says so, and gives its actors up when it stays
/// out of touch for too long, as real hosts do.
struct Host {
    address: Address,
    params: EnvoyParams,
    census: Arc<Mutex<Census>>,
    actors: HashSet<Run>,
    /// Every run that was ever started here. A host repeats what it has to say of them after each reconnect.
    seen: HashSet<Run>,
}

impl Host {
    async fn live(mut self, mut cuts: mpsc::Receiver<Duration>) {
        let mut lost_touch = Instant::now();
        loop {
            let address = *self.address.lock();
            if let Ok(mut envoy) = FakeEnvoy::connect(address, &self.params).await {
                self.seen.iter().for_each(|run| self.report(&envoy, run));
                let pause = loop {
                    tokio::select! {
                        message = envoy.any() => match message {
                            Some(message) => self.handle(&mut envoy, message),
                            None => break Duration::from_millis(10),
                        },
                        pause = cuts.recv() => match pause {
                            Some(pause) => break pause,
                            None => return,
                        },
                    }
                };
                envoy.cut();
                lost_touch = Instant::now();
                self.stay_away(lost_touch + pause, lost_touch).await;
            } else {
                self.stay_away(Instant::now() + Duration::from_millis(10), lost_touch).await;
            }
        }
    }

    async fn stay_away(&mut self, until: Instant, lost_touch: Instant) {
        let gives_up_at = lost_touch + HOST_GIVES_UP;
        if until > gives_up_at {
            sleep_until(gives_up_at).await;
            let mut census = self.census.lock();
            self.actors.drain().for_each(|run| census.died(&run));
        }
        sleep_until(until).await;
    }

    fn handle(&mut self, envoy: &mut FakeEnvoy, message: ToEnvoy) {
        if let ToEnvoy::Commands(commands) = message {
            commands.into_iter().for_each(|command| self.obey(envoy, command));
        } else if let ToEnvoy::TunnelMessage(message) = message {
            self.answer(envoy, message);
        }
    }

    fn obey(&mut self, envoy: &FakeEnvoy, command: CommandWrapper) {
        let CommandWrapper { checkpoint, inner } = command;
        let run = Run { actor_id: checkpoint.actor_id, generation: checkpoint.generation };
        envoy.acknowledge(&run, checkpoint.index);
        match inner {
            Command::StartActor(_) => {
                if self.seen.insert(run.clone()) {
                    self.census.lock().born(&run, envoy.key());
                    self.actors.insert(run.clone());
                    self.report(envoy, &run);
                }
            }
            Command::StopActor(_) => {
                if self.actors.remove(&run) {
                    self.census.lock().died(&run);
                    envoy.event_at(&run, 1, stopped());
                }
            }
        }
    }

    /// Says all there is to say of a run.
    fn report(&self, envoy: &FakeEnvoy, run: &Run) {
        envoy.event_at(run, 0, running());
        if !self.actors.contains(run) {
            envoy.event_at(run, 1, crashed("lost"));
        }
    }

    fn answer(&self, envoy: &mut FakeEnvoy, message: ToEnvoyTunnelMessage) {
        let ToEnvoyTunnelMessageKind::RequestStart(start) = message.message_kind else { return };
        let (gateway_id, request_id) = (message.message_id.gateway_id, message.message_id.request_id);
        let run = Run { actor_id: start.actor_id.clone(), generation: start.actor_generation.unwrap_or_default() };
        let request = TunnelRequest { gateway_id, request_id, start };
        if self.actors.contains(&run) {
            envoy.respond(&request, 200, &[], "here");
        } else {
            envoy.respond(&request, 503, &[("x-rivet-error", "envoy.actor_generation_mismatch")], "{}");
        }
    }
}

/// Makes a call in the background.
fn call(address: SocketAddr, method: Method, path: &str, body: Option<Value>) -> JoinHandle<Result<Answer, Broken>> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let body = body.map_or_else(Full::default, |body| Full::from(body.to_string()));
    tokio::spawn(client::try_send(address, request.body(body).unwrap()))
}

async fn ask(address: SocketAddr, actor: &str) -> Answer {
    call(address, Method::GET, &format!("/gateway/{actor}/request/x"), None).await.unwrap().unwrap()
}

/// What a request may be told while hosts and actors come and go.
const EXCUSES: [&str; 5] = [
    "actor.not_found",
    "actor.destroyed_while_waiting_for_ready",
    "guard.actor_stopped_while_waiting",
    "guard.actor_wake_retries_exceeded",
    "guard.tunnel_response_closed",
];

/// Something happens to an actor.
fn disturb(random: &mut StdRng, address: SocketAddr, actor: &str) -> JoinHandle<Result<Answer, Broken>> {
    let told = |what: &str| call(address, Method::POST, &format!("/actors/{actor}/{what}?namespace=default"), Some(json!({})));
    match random.random_range(0..100) {
        0 => call(address, Method::DELETE, &format!("/actors/{actor}?namespace=default"), None),
        1..16 => told("sleep"),
        16..32 => told("reschedule"),
        _ => call(address, Method::GET, &format!("/gateway/{actor}/request/x"), None),
    }
}

fn start_engine(folder: &TempDir) -> (Process, SocketAddr) {
    let lost_threshold = LOST_THRESHOLD.as_millis().to_string();
    Process::start_and_listen(&[
        ("RIVET__FILE_SYSTEM__PATH", folder.path().to_str().unwrap()),
        ("RIVET__PEGBOARD__ENVOY_LOST_THRESHOLD", &lost_threshold),
        ("RIVET__PEGBOARD__BASE_RETRY_TIMEOUT", "50"),
        ("RIVET__PEGBOARD__RESCHEDULE_BACKOFF_MAX_EXPONENT", "2"),
        ("RIVET__PEGBOARD__ACTOR_START_THRESHOLD", "2000"),
        ("RIVET__PEGBOARD__ACTOR_STOP_THRESHOLD", "2000"),
    ])
}

/// Three hundred random things. Another seed is another story; each must end well.
async fn churn(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, listens) = start_engine(&folder);
    process::put_pool(listens).await;
    let address: Address = Arc::new(Mutex::new(listens));
    let census = Arc::new(Mutex::new(Census::default()));
    let mut hosts = Vec::new();
    for _host in 0..HOSTS {
        let (cut, cuts) = mpsc::channel(8);
        let (address, census) = (address.clone(), census.clone());
        let host = Host { address, params: EnvoyParams::new(), census, actors: HashSet::new(), seen: HashSet::new() };
        tokio::spawn(host.live(cuts));
        hosts.push(cut);
    }
    let mut actors = Vec::new();
    for _actor in 0..ACTORS {
        actors.push(process::create(listens, None).await);
    }

    let mut calls = Vec::new();
    for step in 1..=STEPS {
        if random.random_range(0..20) == 0 {
            let pause = if random.random_bool(0.5) { 30 } else { 500 };
            // A host that has more cuts waiting than it can serve has enough.
            let _ = hosts[random.random_range(0..HOSTS)].try_send(Duration::from_millis(pause));
        }
        let listens = *address.lock();
        let actor = &actors[random.random_range(0..ACTORS)];
        calls.push(disturb(&mut random, listens, actor));
        if step % (STEPS / 3) == 0 {
            engine.kill();
            let (next, listens) = start_engine(&folder);
            engine = next;
            *address.lock() = listens;
        }
        sleep(Duration::from_millis(random.random_range(0..8))).await;
    }
    for call in calls {
        // A broken connection has the engine's death as its excuse.
        let Ok(answer) = call.await.unwrap() else { continue };
        let excused = answer.status == 200 || EXCUSES.contains(&answer.error().1.as_str());
        assert!(excused, "seed {seed}: {answer:?}");
    }
    let listens = *address.lock();
    for actor in &actors {
        // Hosts may have a last cut before them.
        eventually("every actor's answer", async || {
            let answer = ask(listens, actor).await;
            let shown = process::actor(listens, actor).await;
            let wanted = if is_set(&shown["destroy_ts"]) { 404 } else { 200 };
            (answer.status == wanted).then_some(())
        })
        .await;
    }
    assert_eq!(census.lock().violations, [""; 0], "seed {seed}");
    drop(engine);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_one_generation_lives_and_answers() {
    churn(1).await;
}
