//! Alarms that are hours ahead, in virtual time. The engine keeps those of the next minutes in memory and finds the others on
//! disk when their time comes (`spec/scheduling.md` 4, checklist 24 and 25).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use engine::config::{Config, Sources, load};
use engine::simulation::{Chance, FromEngine, HostEnd, SimulatedEngine};
use parking_lot::Mutex;
use protocol::envoy::{
    ActorCheckpoint, ActorIntent, ActorState, Command, CommandWrapper, Event, EventWrapper, PROTOCOL_VERSION, StopCode, ToEnvoy,
    ToRivet, ToRivetAckCommands,
};
use serde_json::json;
use store::{Change, DiskFate, SimulatedDisk};
use tokio::time::{Instant, sleep_until};

/// The time of day when the test begins; any would do.
const FIRST_DAY: i64 = 1_800_000_000_000;
const MINUTE_MS: i64 = 60_000;
/// How late an alarm may be.
const TOLERANCE_MS: i64 = 100;

/// A disk that is fast and has no secrets.
struct Disk;

impl DiskFate for Disk {
    fn next_commit(&mut self) -> (Duration, Duration) {
        (Duration::from_millis(1), Duration::ZERO)
    }

    fn committed(&mut self, _changes: &[Change]) {}
}

/// What an actor says of alarms in its first run, in minutes from the beginning, and when it is woken.
struct Story {
    name: &'static str,
    alarms: &'static [Option<i64>],
    woken_at: Option<i64>,
}

/// The engine is killed after 30 minutes and starts again at once.
const STORIES: [Story; 8] = [
    Story { name: "within what is in memory", alarms: &[Some(9)], woken_at: Some(9) },
    Story { name: "beyond it", alarms: &[Some(13)], woken_at: Some(13) },
    Story { name: "after the engine's death", alarms: &[Some(31)], woken_at: Some(31) },
    Story { name: "hours later", alarms: &[Some(200)], woken_at: Some(200) },
    Story { name: "later than first said", alarms: &[Some(5), Some(100)], woken_at: Some(100) },
    Story { name: "earlier than first said", alarms: &[Some(100), Some(12)], woken_at: Some(12) },
    Story { name: "never, as it was cleared", alarms: &[Some(40), None], woken_at: None },
    Story { name: "far beyond the test", alarms: &[Some(1_000_000)], woken_at: None },
];

/// When each actor was woken, in milliseconds from the beginning.
type Wakes = Arc<Mutex<BTreeMap<String, Vec<i64>>>>;

/// A host whose actors go to sleep as soon as they have said what they have to say.
struct Host {
    end: HostEnd,
    began: Instant,
    wakes: Wakes,
    /// Next event index of each run.
    indices: HashMap<(String, u32), i64>,
}

impl Host {
    async fn live(mut self) {
        while let Some(FromEngine::Message(message)) = self.end.messages.recv().await {
            if let ToEnvoy::Ping { ts } = message {
                self.send(&ToRivet::Pong { ts });
            } else if let ToEnvoy::Commands(commands) = message {
                commands.into_iter().for_each(|command| self.obey(command));
            }
        }
    }

    fn obey(&mut self, command: CommandWrapper) {
        let CommandWrapper { checkpoint, inner } = command;
        self.send(&ToRivet::AckCommands(ToRivetAckCommands { last_command_checkpoints: vec![checkpoint.clone()] }));
        let Command::StartActor(start) = inner else {
            self.say(&checkpoint, Event::ActorStateUpdate { state: ActorState::Stopped { code: StopCode::Ok, message: None } });
            return;
        };
        self.say(&checkpoint, Event::ActorStateUpdate { state: ActorState::Running });
        let name = start.config.name;
        if checkpoint.generation == 1 {
            let story = STORIES.iter().find(|story| story.name == name).unwrap();
            for alarm in story.alarms {
                let alarm_ts = alarm.map(|minutes| FIRST_DAY + minutes * MINUTE_MS);
                self.say(&checkpoint, Event::ActorSetAlarm { alarm_ts });
            }
        } else {
            let woken_at = i64::try_from(self.began.elapsed().as_millis()).unwrap();
            self.wakes.lock().entry(name).or_default().push(woken_at);
            self.say(&checkpoint, Event::ActorSetAlarm { alarm_ts: None });
        }
        self.say(&checkpoint, Event::ActorIntent { intent: ActorIntent::Sleep });
    }

    fn say(&mut self, of: &ActorCheckpoint, inner: Event) {
        let next = self.indices.entry((of.actor_id.clone(), of.generation)).or_insert(0);
        let checkpoint = ActorCheckpoint { index: *next, ..of.clone() };
        *next += 1;
        self.send(&ToRivet::Events(vec![EventWrapper { checkpoint, inner }]));
    }

    fn send(&self, message: &ToRivet) {
        // The engine that is killed hears nothing any more.
        let _ = self.end.frames.send(message.to_frame(PROTOCOL_VERSION).unwrap());
    }
}

/// An engine process, and a host that is connected to it.
async fn boot(config: &Config, disk: &SimulatedDisk, began: Instant, wakes: &Wakes) -> SimulatedEngine {
    let chance = Chance { seed: 1, began, time_of_day: Arc::new(AtomicI64::new(FIRST_DAY)) };
    let engine = SimulatedEngine::boot(config, disk, chance).await.unwrap();
    engine.put_pool("default", json!({ "normal": {} })).await.unwrap();
    let query = format!("protocol_version={PROTOCOL_VERSION}&namespace=default&pool_name=default&envoy_key=host-1&version=1");
    let end = engine.connect(&query).unwrap();
    tokio::spawn(Host { end, began, wakes: wakes.clone(), indices: HashMap::new() }.live());
    engine
}

#[tokio::test(start_paused = true)]
async fn alarms_hours_ahead_wake_in_time() {
    let files = vec![("test.json".into(), json!({ "file_system": { "path": "unused" } }).to_string())];
    let config = load(&Sources { files, ..Sources::default() }).unwrap().config;
    let (disk, began, wakes) = (SimulatedDisk::new(Disk), Instant::now(), Wakes::default());
    let engine = boot(&config, &disk, began, &wakes).await;
    for Story { name, .. } in STORIES {
        let body = json!({ "name": name, "key": null, "runner_name_selector": "default", "crash_policy": "sleep" });
        let (status, answer) = engine.call("POST", "/actors?namespace=default", &body).await;
        assert_eq!(status, 200, "{answer}");
    }
    sleep_until(began + Duration::from_secs(30 * 60)).await;
    engine.kill();
    let engine = boot(&config, &disk, began, &wakes).await;
    sleep_until(began + Duration::from_secs(240 * 60)).await;
    engine.kill();

    let wakes = wakes.lock();
    for Story { name, woken_at, .. } in STORIES {
        let late_by: Vec<i64> = wakes
            .get(name)
            .map(|times| times.iter().map(|woken| woken - woken_at.unwrap_or_default() * MINUTE_MS).collect())
            .unwrap_or_default();
        assert_eq!(late_by.len(), usize::from(woken_at.is_some()), "{name}: {late_by:?}");
        assert!(late_by.iter().all(|late_ms| (0..=TOLERANCE_MS).contains(late_ms)), "{name}: {late_by:?}");
    }
}
