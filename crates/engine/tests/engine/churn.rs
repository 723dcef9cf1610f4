//! Hosts that come and go, actors that are put to sleep, moved, destroyed and asked, all at random. What must hold: no two
//! generations of an actor live at the same time, and in the end every actor that is not destroyed answers.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use protocol::envoy::{ToEnvoy, ToEnvoyTunnelMessageKind};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use testkit::client::{self, Answer};
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::scene::{TestEngine, is_set};

const HOSTS: usize = 3;
const ACTORS: usize = 20;
const LOST_THRESHOLD: Duration = Duration::from_millis(300);

/// Which generations live where, over all hosts.
#[derive(Default)]
struct Census {
    /// Generation that lives, of each actor.
    alive: HashMap<String, u32>,
    /// Highest generation ever started, of each actor.
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

/// A host that does what it is told, loses its connection when the test says so, and gives its actors up if it stays out of
/// touch for too long, as real hosts do.
struct Host {
    address: SocketAddr,
    params: EnvoyParams,
    census: Arc<Mutex<Census>>,
    actors: HashSet<Run>,
    /// Runs whose commands were seen, so that repeated ones are recognised.
    seen: HashSet<Run>,
}

impl Host {
    async fn live(mut self, mut cuts: mpsc::Receiver<Duration>) {
        loop {
            let mut envoy = FakeEnvoy::join(self.address, &self.params).await;
            let pause = loop {
                tokio::select! {
                    message = envoy.next("anything") => self.handle(&mut envoy, message),
                    pause = cuts.recv() => break pause,
                }
            };
            let Some(pause) = pause else { return };
            envoy.cut();
            let back_at = Instant::now() + pause;
            if pause > LOST_THRESHOLD {
                sleep(LOST_THRESHOLD - Duration::from_millis(100)).await;
                let mut census = self.census.lock();
                self.actors.drain().for_each(|run| census.died(&run));
            }
            sleep_until(back_at).await;
        }
    }

    fn handle(&mut self, envoy: &mut FakeEnvoy, message: ToEnvoy) {
        match message {
            ToEnvoy::Commands(commands) => {
                for command in commands {
                    let run = Run { actor_id: command.checkpoint.actor_id, generation: command.checkpoint.generation };
                    envoy.acknowledge(&run, command.checkpoint.index);
                    match command.inner {
                        protocol::envoy::Command::StartActor(_) if self.seen.insert(run.clone()) => {
                            self.census.lock().born(&run, envoy.key());
                            self.actors.insert(run.clone());
                            envoy.event_at(&run, 0, testkit::envoy::running());
                        }
                        protocol::envoy::Command::StartActor(_) => {}
                        protocol::envoy::Command::StopActor(_) => {
                            if self.actors.remove(&run) {
                                self.census.lock().died(&run);
                            }
                            // Said again if need be: the first report may have been lost with the connection.
                            envoy.event_at(&run, 1, testkit::envoy::stopped());
                        }
                    }
                }
            }
            ToEnvoy::TunnelMessage(message) => {
                if let ToEnvoyTunnelMessageKind::RequestStart(start) = message.message_kind {
                    let request = testkit::envoy::TunnelRequest {
                        gateway_id: message.message_id.gateway_id,
                        request_id: message.message_id.request_id,
                        start,
                    };
                    let run = Run {
                        actor_id: request.start.actor_id.clone(),
                        generation: request.start.actor_generation.unwrap_or_default(),
                    };
                    if self.actors.contains(&run) {
                        envoy.respond(&request, 200, &[], "here");
                    } else {
                        envoy.respond(&request, 503, &[("x-rivet-error", "envoy.actor_generation_mismatch")], "{}");
                    }
                }
            }
            _ => {}
        }
    }
}

async fn ask(address: SocketAddr, actor: String) -> Answer {
    let id = actor.clone(); let r = tokio::time::timeout(Duration::from_secs(6), ask2(address, actor)).await; match r { Ok(r) => r, Err(_) => panic!("STUCK {id}") }
}
async fn ask2(address: SocketAddr, actor: String) -> Answer {
    client::call(address, Method::GET, &format!("/gateway/{actor}/request/x")).await
}

async fn run(seed: u64) {
    #[allow(clippy::disallowed_methods)] if std::env::var("TR").is_ok() { tracing_subscriber::fmt().with_env_filter("engine=debug,gateway=debug").with_writer(std::io::stdout).init(); }
    let mut random = StdRng::seed_from_u64(seed);
    let settings = json!({ "pegboard": {
        "envoy_lost_threshold": LOST_THRESHOLD.as_millis() as u64,
        "base_retry_timeout": 50,
        "reschedule_backoff_max_exponent": 2,
        "actor_start_threshold": 2_000,
        "actor_stop_threshold": 2_000,
    }});
    let engine = TestEngine::start(settings).await;
    let census = Arc::new(Mutex::new(Census::default()));
    let mut hosts = Vec::new();
    for _host in 0..HOSTS {
        let (cut, cuts) = mpsc::channel(8);
        let host = Host {
            address: engine.address(),
            params: EnvoyParams::new(),
            census: census.clone(),
            actors: HashSet::new(),
            seen: HashSet::new(),
        };
        tokio::spawn(host.live(cuts));
        hosts.push(cut);
    }
    let mut actors = Vec::new();
    for _actor in 0..ACTORS {
        actors.push(engine.create("counter", None).await);
    }
    let mut requests = Vec::new();
    for _step in 0..400 {
        let actor = actors[random.random_range(0..ACTORS)].clone();
        match random.random_range(0..20) {
            0 => {
                let pause = if random.random_bool(0.5) { 30 } else { 500 };
                let _ = hosts[random.random_range(0..HOSTS)].try_send(Duration::from_millis(pause));
            }
            1 if random.random_bool(0.2) => {
                let address = engine.address();
                let path = format!("/actors/{actor}?namespace=default");
                requests.push(tokio::spawn(async move { client::call(address, Method::DELETE, &path).await }));
            }
            2..5 => engine.tell(&actor, "sleep").await,
            5..8 => engine.tell(&actor, "reschedule").await,
            _ => requests.push(tokio::spawn(ask(engine.address(), actor))),
        }
        sleep(Duration::from_millis(random.random_range(0..8))).await;
    }
    for request in requests {
        let answer = match request.await { Ok(a) => a, Err(_) => { for a in &actors { let v = engine.actor(a).await; println!("{v}"); } panic!("seed {seed}") } };
        if answer.status == 200 {
            continue;
        }
        let (status, code) = answer.error();
        let expected = ["actor.not_found", "guard.tunnel_response_closed", "guard.actor_stopped_while_waiting",
            "actor.destroyed_while_waiting_for_ready", "guard.actor_wake_retries_exceeded", "envoy.actor_generation_mismatch"];
        assert!(expected.contains(&code.as_str()), "seed {seed}: {status} {code}");
    }
    // Everything settles.
    for actor in &actors {
        let shown = engine.actor(actor).await;
        let answer = ask(engine.address(), actor.clone()).await;
        let wanted = if is_set(&shown["destroy_ts"]) { 404 } else { 200 };
        assert_eq!(answer.status, wanted, "seed {seed}: {shown}, {}", answer.text());
    }
    assert_eq!(census.lock().violations, [""; 0], "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_one_generation_lives_and_answers() {
    #[allow(clippy::disallowed_methods)]
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    run(seed).await;
}
