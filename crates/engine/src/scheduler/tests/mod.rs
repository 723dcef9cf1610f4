//! The scheduler in virtual time, on a disk whose commits take as long as a test wants: what happens during a commit, after a
//! restart, and when nothing can be stored.

mod commit;
mod places;
mod requests;
mod restart;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use gateway::{EnvoyLink, Outbox};
use lifecycle::actor::{ActorRecord, EnvoyKey, EventKind, Input};
use lifecycle::pool::PoolError;
use protocol::envoy::{GatewayId, PROTOCOL_VERSION};
use protocol::id::ActorId;
use serde_json::{Value, json};
use store::{Change, DiskFate, KillSwitch, SimulatedDisk};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::{Created, NewActor, OutboundOrder, Scheduler};
use crate::catalog::PoolConfig;
use crate::catalog::pool_config::PoolRules;
use crate::clock::Clock;
use crate::config::Config;
use crate::control_plane::{ControlPlane, Surroundings, assemble};
use crate::hosts::{Connected, Host};
use crate::random::Randomness;
use crate::records::actor;
use crate::records::namespace::Namespace;

const POOL: &str = "p";
/// Longer than what follows from anything at once, shorter than all limits.
const A_MOMENT: Duration = Duration::from_millis(100);
/// The limits in force are the default ones.
const LOST: Duration = protocol::limits::ENVOY_LOST_THRESHOLD;
const START: Duration = protocol::limits::ACTOR_START_THRESHOLD;

/// How the disk is.
#[derive(Default)]
struct Mood {
    commit_ms: AtomicU64,
    is_full: AtomicBool,
}

struct Fate(Arc<Mood>);

impl DiskFate for Fate {
    fn next_commit(&mut self) -> (Duration, Duration) {
        (Duration::from_millis(self.0.commit_ms.load(Ordering::Relaxed)), Duration::ZERO)
    }

    fn committed(&mut self, _changes: &[Change]) {}

    fn is_full(&mut self) -> bool {
        self.0.is_full.load(Ordering::Relaxed)
    }
}

/// An engine process without sockets.
struct Scene {
    plane: ControlPlane,
    mood: Arc<Mood>,
    disk: SimulatedDisk,
    process: KillSwitch,
    timers: AbortHandle,
    began: Instant,
    time_of_day: Arc<AtomicI64>,
}

/// A host and its connection.
struct TestHost {
    host: Arc<Host>,
    link: EnvoyLink,
    _outbox: Outbox,
}

impl Scene {
    /// Without a pool.
    async fn start() -> Self {
        let mood = Arc::new(Mood::default());
        let disk = SimulatedDisk::new(Fate(mood.clone()));
        Self::boot(mood, disk, Instant::now(), Arc::new(AtomicI64::new(1_700_000_000_000))).await
    }

    async fn boot(mood: Arc<Mood>, disk: SimulatedDisk, began: Instant, time_of_day: Arc<AtomicI64>) -> Self {
        let config = Config::default();
        let (store, process) = disk.open();
        let (alive, _) = mpsc::channel(1);
        let around = Surroundings {
            store,
            clock: Clock::simulated(began, time_of_day.clone()),
            randomness: Randomness::system(),
            gateway_id: GatewayId([1; 4]),
            topology: config.topology.clone(),
            shutdown: watch::channel(false).1,
            alive,
        };
        let plane = assemble(&config, around).await.unwrap();
        let timers = tokio::spawn(plane.scheduler.clone().run_timers()).abort_handle();
        Self { plane, mood, disk, process, timers, began, time_of_day }
    }

    /// Kills the engine, and starts another one on the same disk a while later.
    async fn restart_after(self, pause: Duration) -> Self {
        self.process.kill();
        self.timers.abort();
        sleep(pause).await;
        Self::boot(self.mood, self.disk, self.began, self.time_of_day).await
    }

    fn scheduler(&self) -> &Scheduler {
        &self.plane.scheduler
    }

    fn namespace(&self) -> Arc<Namespace> {
        self.plane.envoys.catalog.namespace("default").unwrap()
    }

    async fn put_pool(&self, config: Value) {
        let rules = PoolRules { default_drain_grace_s: 1, max_drain_grace_ms: 600_000 };
        let config = PoolConfig::from_request(serde_json::from_value(config).unwrap(), rules).unwrap();
        let namespace = self.namespace().namespace_id;
        self.plane.envoys.catalog.put_pool(namespace, POOL, config).await.unwrap();
        self.scheduler().pool_saved(namespace, POOL, false);
    }

    /// The pool's hosts connect by themselves.
    async fn normal_pool(&self) {
        self.put_pool(json!({ "normal": {} })).await;
    }

    /// The pool's hosts are asked for.
    async fn serverless_pool(&self, max_concurrent_actors: u64) {
        let serverless = json!({
            "url": "http://localhost:1/", "request_lifespan": 900, "max_concurrent_actors": max_concurrent_actors,
        });
        self.put_pool(json!({ "serverless": serverless })).await;
    }

    fn creation(&self, key: Option<&str>) -> impl Future<Output = ActorId> + use<> {
        let new = NewActor {
            namespace: self.namespace(),
            name: "counter".to_owned(),
            key: key.map(str::to_owned),
            pool: POOL.to_owned(),
            input: None,
        };
        let scheduler = self.scheduler().clone();
        async move {
            match scheduler.create(new).await.unwrap() {
                Created::New(stored) => stored.record.identity.actor_id,
                Created::Existing(actor) => actor,
            }
        }
    }

    /// Creates an actor without a key.
    async fn create(&self) -> ActorId {
        self.creation(None).await
    }

    fn connect(&self, key: &str) -> TestHost {
        let hosts = &self.plane.hosts;
        let host = hosts.get_or_insert(self.namespace().namespace_id, &EnvoyKey::new(key), POOL);
        let (link, outbox) = EnvoyLink::new(host.id, hosts.next_session(), PROTOCOL_VERSION);
        let connected = Connected { pool: POOL.to_owned(), version: 1, stop_threshold_ms: 30_000, link: link.clone() };
        self.scheduler().host_connected(&host, connected);
        TestHost { host, link, _outbox: outbox }
    }

    /// The host's connection breaks.
    fn cut(&self, host: &TestHost) {
        self.scheduler().host_disconnected(&host.host, &host.link);
    }

    /// The host says that it shuts down, and closes its connection.
    fn leave(&self, host: &TestHost) {
        self.scheduler().host_stopping(&host.host);
        host.host.took_leave(host.link.session());
        self.cut(host);
    }

    fn post(&self, actor: ActorId, input: Input) {
        self.scheduler().post(actor, input);
    }

    /// A host reports an event of an actor.
    fn event(&self, host: &TestHost, actor: ActorId, generation: u32, index: i64, kind: EventKind) {
        self.scheduler().claim(&host.host, actor, generation);
        self.post(actor, Input::Event { host: host.host.key.clone(), generation, index, kind });
    }

    /// Creates an actor on a connected host and lets it run.
    async fn running(&self, host: &TestHost) -> ActorId {
        let actor = self.create().await;
        self.event(host, actor, 1, 0, EventKind::Running);
        sleep(A_MOMENT).await;
        actor
    }

    /// The endpoint refuses the first generation of an actor. When this is over, one attempt may go ahead of all others.
    async fn fail_start(&self, actor: ActorId) {
        let identity = self.record(actor).await.identity;
        let refused = PoolError::HttpError { status_code: 500, body: String::new() };
        self.scheduler().outbound_failed(&identity, 1, self.scheduler().0.clock.uptime(), refused);
        sleep(Duration::from_millis(150)).await;
    }

    /// What is on the disk.
    async fn record(&self, actor: ActorId) -> ActorRecord {
        let rows = self.scheduler().0.store.get(vec![actor::key(actor)]).await.unwrap();
        actor::parse(actor, rows[0].clone().unwrap()).unwrap().record
    }

    /// Generations that the endpoint was asked for since this was called last.
    fn starts(&mut self) -> Vec<(ActorId, u32)> {
        let mut starts = Vec::new();
        while let Ok(order) = self.plane.orders.try_recv() {
            match order {
                OutboundOrder::Start { identity, generation } => starts.push((identity.actor_id, generation)),
                OutboundOrder::Over { .. } => {}
            }
        }
        starts
    }
}

fn crashed() -> EventKind {
    EventKind::Stopped { error: true, message: None }
}
