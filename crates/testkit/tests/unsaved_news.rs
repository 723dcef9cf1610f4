//! What the engine shows before it is on the disk: that an actor runs. A process that is killed in between has told clients
//! what the next process does not know (`spec/scheduling.md` 12).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use engine::config::{Config, Sources, load};
use engine::simulation::{Chance, FromEngine, HostEnd, Row, SimulatedEngine, read_row};
use gateway::{ActorView, Directory, Readiness};
use lifecycle::actor::{ActorRecord, Phase};
use protocol::envoy::{
    ActorCheckpoint, ActorState, Command, Event, EventWrapper, PROTOCOL_VERSION, ToEnvoy, ToRivet, ToRivetAckCommands,
};
use protocol::id::ActorId;
use serde_json::json;
use store::{Change, DiskFate, SimulatedDisk};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Longer than whatever is waited for in these tests.
const LONG: Duration = Duration::from_secs(3_600);
/// More than enough for whatever the engine does by itself.
const A_WHILE: Duration = Duration::from_secs(1);
/// Longer than a host may take to start an actor, and than it may be out of touch.
const BEYOND_ALL_THRESHOLDS: Duration = Duration::from_secs(120);

/// A disk that is quick, or holds everything back while it is told to.
struct Disk {
    holds_back: Arc<AtomicBool>,
}

impl DiskFate for Disk {
    fn next_commit(&mut self) -> (Duration, Duration) {
        let until_durable = if self.holds_back.load(Ordering::Relaxed) { LONG } else { Duration::from_millis(1) };
        (until_durable, Duration::ZERO)
    }

    fn committed(&mut self, _changes: &[Change]) {}
}

/// A machine with a disk, on which one engine process runs after the other.
struct Machine {
    config: Config,
    disk: SimulatedDisk,
    began: Instant,
    holds_back: Arc<AtomicBool>,
}

impl Machine {
    fn new() -> Self {
        let files = vec![("test.json".into(), json!({ "file_system": { "path": "unused" } }).to_string())];
        let config = load(&Sources { files, ..Sources::default() }).unwrap().config;
        let holds_back = Arc::new(AtomicBool::new(false));
        let disk = SimulatedDisk::new(Disk { holds_back: holds_back.clone() });
        Self { config, disk, began: Instant::now(), holds_back }
    }

    /// Starts an engine process, to which the host connects.
    async fn boot(&self) -> (SimulatedEngine, Host) {
        let time_of_day = Arc::new(AtomicI64::new(1_800_000_000_000));
        let chance = Chance { seed: 1, began: self.began, time_of_day };
        let engine = SimulatedEngine::boot(&self.config, &self.disk, chance).await.unwrap();
        engine.put_pool("default", json!({ "normal": {} })).await.unwrap();
        let query = format!("protocol_version={PROTOCOL_VERSION}&namespace=default&pool_name=default&envoy_key=host-1&version=1");
        let host = Host { end: engine.connect(&query).unwrap() };
        (engine, host)
    }

    /// An actor's record as it is on the disk.
    fn record(&self, actor: ActorId) -> ActorRecord {
        let records = self.disk.rows().into_iter().filter_map(|(key, value)| match read_row(&key, Some(&value)) {
            Some(Row::Actor(record)) => Some(*record),
            Some(Row::Holder(_) | Row::Kv(_) | Row::Other) | None => None,
        });
        records.into_iter().find(|record| record.identity.actor_id == actor).unwrap()
    }
}

/// A host's end of a connection.
struct Host {
    end: HostEnd,
}

impl Host {
    /// The next message that says something; pings are answered on the way.
    async fn next(&mut self) -> ToEnvoy {
        loop {
            let Some(FromEngine::Message(message)) = self.end.messages.recv().await else { panic!("the connection has ended") };
            if let ToEnvoy::Ping { ts } = message {
                self.send(&ToRivet::Pong { ts });
            } else if !matches!(message, ToEnvoy::Init(_)) {
                return message;
            }
        }
    }

    fn send(&self, message: &ToRivet) {
        self.end.frames.send(message.to_frame(PROTOCOL_VERSION).unwrap()).unwrap();
    }

    /// Says that a generation runs.
    fn running(&self, run: &ActorCheckpoint) {
        let inner = Event::ActorStateUpdate { state: ActorState::Running };
        let checkpoint = ActorCheckpoint { index: 0, ..run.clone() };
        self.send(&ToRivet::Events(vec![EventWrapper { checkpoint, inner }]));
    }
}

/// Waits until requests are sent to a generation over a connection.
async fn served_by(view: &mut watch::Receiver<ActorView>) -> u32 {
    let is_served = |view: &ActorView| matches!(view.readiness, Readiness::Ready { link: Some(_), .. });
    let view = timeout(A_WHILE, view.wait_for(is_served)).await.unwrap().unwrap();
    let Readiness::Ready { generation, .. } = view.readiness else { panic!("{view:?}") };
    generation
}

async fn watch_actor(engine: &SimulatedEngine, actor: ActorId) -> watch::Receiver<ActorView> {
    engine.directory().watch(actor).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_was_shown_running_before_a_kill_goes_on() {
    let machine = Machine::new();
    let (engine, mut host) = machine.boot().await;
    let body = json!({ "name": "counter", "key": null, "runner_name_selector": "default", "crash_policy": "sleep" });
    let (status, answer) = engine.call("POST", "/actors?namespace=default", &body).await;
    assert_eq!(status, 200, "{answer}");
    let ToEnvoy::Commands(commands) = host.next().await else { panic!("no command") };
    assert!(matches!(commands[0].inner, Command::StartActor(_)));
    let run = commands[0].checkpoint.clone();
    let actor: ActorId = run.actor_id.parse().unwrap();
    host.send(&ToRivet::AckCommands(ToRivetAckCommands { last_command_checkpoints: vec![run.clone()] }));
    // Long enough for what is written without haste.
    sleep(A_WHILE).await;

    machine.holds_back.store(true, Ordering::Relaxed);
    host.running(&run);
    assert_eq!(served_by(&mut watch_actor(&engine, actor).await).await, 1, "clients are served as soon as it runs");
    engine.kill();
    assert!(matches!(machine.record(actor).phase, Phase::Starting { .. }), "the disk knows nothing of that");

    machine.holds_back.store(false, Ordering::Relaxed);
    let (engine, mut host) = machine.boot().await;
    // Nobody has acknowledged this, so the host repeats it.
    host.running(&run);
    assert_eq!(served_by(&mut watch_actor(&engine, actor).await).await, 1);
    let ToEnvoy::AckEvents(acks) = host.next().await else { panic!("something else than the acknowledgement") };
    assert_eq!(acks.last_event_checkpoints, [ActorCheckpoint { index: 0, ..run }]);
    // Neither is it started again, nor told to stop.
    assert!(timeout(BEYOND_ALL_THRESHOLDS, host.next()).await.is_err());
    let record = machine.record(actor);
    assert!(record.generation == 1 && matches!(record.phase, Phase::Running { .. }), "{record:?}");
}
