//! Hosts that come and go, an engine that restarts, actors that are put to sleep, moved, destroyed and asked, all at random.
//! What must hold: no two generations of an actor live at the same time, every request has an answer, and in the end every
//! actor that was not destroyed answers.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use protocol::envoy::{Command, CommandWrapper, ToEnvoy, ToEnvoyTunnelMessage, ToEnvoyTunnelMessageKind};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use testkit::client::{self, Answer, Broken};
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run, TunnelRequest, running, stopped};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::scene::{TestEngine, is_set};

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
    /// Every run that was ever started here, so that repeated commands are recognised.
    seen: HashSet<Run>,
}

impl Host {
    async fn live(mut self, mut cuts: mpsc::Receiver<Duration>) {
        let mut lost_touch = Instant::now();
        loop {
            let address = *self.address.lock();
            if let Ok(mut envoy) = FakeEnvoy::connect(address, &self.params).await {
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
                }
                envoy.event_at(&run, 0, running());
            }
            Command::StopActor(_) => {
                if self.actors.remove(&run) {
                    self.census.lock().died(&run);
                }
                // Said again if need be: the first report may have been lost with the connection.
                envoy.event_at(&run, 1, stopped());
            }
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

fn call(address: SocketAddr, method: Method, path: &str) -> JoinHandle<Result<Answer, Broken>> {
    let about = format!("{method} {path}");
    let request = client::empty(method, path);
    tokio::spawn(async move { match tokio::time::timeout(Duration::from_secs(6), client::try_send(address, request)).await { Ok(a) => a, Err(_) => panic!("STUCK {about}") } })
}

/// What a request may be told while hosts and actors come and go.
const EXCUSES: [&str; 5] = [
    "actor.not_found",
    "actor.destroyed_while_waiting_for_ready",
    "guard.actor_stopped_while_waiting",
    "guard.actor_wake_retries_exceeded",
    "guard.tunnel_response_closed",
];

async fn churn(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut engine = TestEngine::start(json!({ "pegboard": {
        "envoy_lost_threshold": LOST_THRESHOLD.as_millis() as u64,
        "base_retry_timeout": 50,
        "reschedule_backoff_max_exponent": 2,
        "actor_start_threshold": 2_000,
        "actor_stop_threshold": 2_000,
    }}))
    .await;
    let address: Address = Arc::new(Mutex::new(engine.address()));
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
        actors.push(engine.create("counter", None).await);
    }

    let mut calls = Vec::new();
    for step in 0..STEPS {
        let actor = &actors[random.random_range(0..ACTORS)];
        match random.random_range(0..20) {
            0 => {
                let pause = if random.random_bool(0.5) { 30 } else { 500 };
                // A host that has more cuts waiting than it can serve has enough.
                let _ = hosts[random.random_range(0..HOSTS)].try_send(Duration::from_millis(pause));
            }
            1 if random.random_bool(0.2) => {
                calls.push(call(engine.address(), Method::DELETE, &format!("/actors/{actor}?namespace=default")));
            }
            2..5 => engine.tell(actor, "sleep").await,
            5..8 => engine.tell(actor, "reschedule").await,
            _ => calls.push(call(engine.address(), Method::GET, &format!("/gateway/{actor}/request/x"))),
        }
        if step % (STEPS / 2) == STEPS / 4 {
            engine = engine.restart().await;
            *address.lock() = engine.address();
        }
        sleep(Duration::from_millis(random.random_range(0..8))).await;
    }
    for call in calls {
        // A broken connection is the restart's excuse.
        let Ok(answer) = call.await.unwrap() else { continue };
        let excused = answer.status == 200 || EXCUSES.contains(&answer.error().1.as_str());
        assert!(excused, "seed {seed}: {answer:?}");
    }
    for actor in &actors {
        let shown = engine.actor(actor).await;
        let answer = match tokio::time::timeout(Duration::from_secs(5), engine.request(actor)).await {
            Ok(a) => a.unwrap(),
            Err(_) => {
                println!("STUCK {actor} {}", engine.actor(actor).await);
                panic!()
            }
        };
        let wanted = if is_set(&shown["destroy_ts"]) { 404 } else { 200 };
        assert_eq!(answer.status, wanted, "seed {seed}: {shown}, {}", answer.text());
    }
    assert_eq!(census.lock().violations, [""; 0], "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_one_generation_lives_and_answers() {
    #[allow(clippy::disallowed_methods)]
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    #[allow(clippy::disallowed_methods)]
    if std::env::var("TR").is_ok() {
        tracing_subscriber::fmt().with_env_filter("engine=debug,gateway=debug").with_writer(std::io::stdout).init();
    }
    churn(seed).await;
}
