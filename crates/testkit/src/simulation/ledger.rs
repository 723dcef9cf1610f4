//! What is durable, what hosts and clients have said, and the rules that hold between the two at every commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use engine::simulation::{Row, read_row};
use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, Phase};
use protocol::id::ActorId;
use store::{Change, DiskFate};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Chance;
use super::log::Log;
use super::settings::{LOST_THRESHOLD_MS, MAX_CONCURRENT_ACTORS, SERVERLESS};
use super::world::News;

/// One generation of an actor.
pub(super) type Run = (ActorId, u32);

/// How long ago somebody may have asked for a start that is committed now, in milliseconds.
pub(super) const ASKED_MS: u64 = 3_000;
/// How long a decision takes until it is durable, at most, in milliseconds.
pub(super) const COMMIT_MS: u64 = 1_000;
/// What may lie between a reason and the commit that follows from it, in milliseconds.
pub(super) const SLACK_MS: u64 = 50;

/// What hosts and clients have said, and what was done to them: the only reasons why anything may change.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Which host reported a generation running.
    pub(super) running: BTreeMap<Run, BTreeSet<String>>,
    /// Generations that a host has reported as stopped.
    pub(super) stopped: BTreeSet<Run>,
    /// Alarms that a generation has set.
    pub(super) alarms: BTreeMap<Run, Vec<Option<Ts>>>,
    /// Actors that a client, or they themselves, wanted destroyed.
    pub(super) unwanted: BTreeSet<ActorId>,
    /// Start requests that failed.
    pub(super) outbound_failed: BTreeSet<Run>,
    /// When a client asked for an actor last, in milliseconds of the simulation.
    pub(super) asked_for: BTreeMap<ActorId, u64>,
    /// Hosts that got the start of a generation.
    pub(super) started_on: BTreeMap<Run, BTreeSet<String>>,
    /// When a client wanted an actor moved last, in milliseconds of the simulation.
    pub(super) rescheduled: BTreeMap<ActorId, u64>,
    /// When each command was sent last, in milliseconds of the simulation.
    pub(super) sent: BTreeMap<(Run, i64), u64>,
    /// Hosts with a connection that the engine knows of, and since when.
    pub(super) in_touch: BTreeMap<String, u64>,
    /// Hosts without a connection that the engine knows of, and since when.
    pub(super) out_of_touch: BTreeMap<String, u64>,
    /// Hosts that have come back after they had been given up, and when.
    pub(super) back_too_late: BTreeMap<String, u64>,
}

/// A record and when it came to its phase.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) record: ActorRecord,
    /// In milliseconds of the simulation.
    pub(super) since_ms: u64,
}

/// The books.
pub(super) struct Ledger {
    pub(super) log: Log,
    pub(super) actors: BTreeMap<ActorId, Known>,
    holders: BTreeMap<Bytes, ActorId>,
    /// Generation and number of an actor's latest durable write.
    writes: BTreeMap<ActorId, (u32, u32)>,
    pub(super) said: Said,
    /// When actors of a host in the pool with a pace were told to move.
    pub(super) moves: BTreeMap<String, Vec<u64>>,
    began: Instant,
    time_of_day: Arc<AtomicI64>,
    /// Before the latest step of the time of day: until when it counts, and by how much it was later than now.
    stepped_back: (u64, i64),
    /// When the time of day was set last, in milliseconds of the simulation.
    pub(super) stepped_ms: Option<u64>,
    violation: Option<String>,
}

impl Ledger {
    pub(super) fn new(log: Log, time_of_day: Arc<AtomicI64>) -> Self {
        Self {
            log,
            actors: BTreeMap::new(),
            holders: BTreeMap::new(),
            writes: BTreeMap::new(),
            said: Said::default(),
            moves: BTreeMap::new(),
            began: Instant::now(),
            time_of_day,
            stepped_back: (0, 0),
            stepped_ms: None,
            violation: None,
        }
    }

    /// Milliseconds since the simulation began.
    pub(super) fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// The machine's time of day.
    pub(super) fn day(&self) -> Ts {
        self.time_of_day.load(Ordering::Relaxed) + self.now_ms() as Ts
    }

    /// The latest time of day that a decision which is durable now may have been made at.
    pub(super) fn latest_day(&self) -> Ts {
        let (until_ms, by) = self.stepped_back;
        self.day() + if self.now_ms() <= until_ms { by } else { 0 }
    }

    /// The machine's clock is set.
    pub(super) fn step_time_of_day(&mut self, by: i64) {
        self.time_of_day.fetch_add(by, Ordering::Relaxed);
        self.stepped_ms = Some(self.now_ms());
        self.stepped_back = (self.now_ms() + 1_000, (-by).max(0));
        self.note(format_args!("the clock is set by {by} ms"));
    }

    /// Writes a line into the log.
    pub(super) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        let now = self.now_ms();
        self.log.line(now, line);
    }

    /// Notes that a rule is broken. The first one counts.
    pub(super) fn violated(&mut self, rule: String) {
        self.note(format_args!("VIOLATION: {rule}"));
        self.violation.get_or_insert(rule);
    }

    /// The first rule that was broken.
    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// The generation that counts; 0 for an actor that is not durable.
    pub(super) fn generation(&self, actor: ActorId) -> u32 {
        self.actors.get(&actor).map_or(0, |known| known.record.generation)
    }

    // ---- What was said

    pub(super) fn host_said_running(&mut self, run: Run, host: &str) {
        self.said.running.entry(run).or_default().insert(host.to_owned());
    }

    pub(super) fn host_said_stopped(&mut self, run: Run) {
        self.said.stopped.insert(run);
    }

    pub(super) fn host_set_alarm(&mut self, run: Run, alarm: Option<Ts>) {
        self.said.alarms.entry(run).or_default().push(alarm);
    }

    pub(super) fn destruction_wanted(&mut self, actor: ActorId) {
        self.said.unwanted.insert(actor);
    }

    pub(super) fn outbound_failed(&mut self, run: Run) {
        self.said.outbound_failed.insert(run);
    }

    pub(super) fn asked_for(&mut self, actor: ActorId) {
        let now = self.now_ms();
        self.said.asked_for.insert(actor, now);
    }

    pub(super) fn rescheduled(&mut self, actor: ActorId) {
        let now = self.now_ms();
        self.said.rescheduled.insert(actor, now);
    }

    pub(super) fn in_touch(&mut self, host: &str) {
        let now = self.now_ms();
        self.said.in_touch.insert(host.to_owned(), now);
        if let Some(since) = self.said.out_of_touch.remove(host)
            && now + SLACK_MS >= since + LOST_THRESHOLD_MS
        {
            self.said.back_too_late.insert(host.to_owned(), now);
        }
    }

    pub(super) fn out_of_touch(&mut self, host: &str) {
        let now = self.now_ms();
        self.said.in_touch.remove(host);
        self.said.out_of_touch.insert(host.to_owned(), now);
    }

    /// The engine tells a host to start a generation. It must be durable, and it must be this host's.
    pub(super) fn start_sent(&mut self, run: Run, host: &str, through_endpoint: bool) {
        let (actor, generation) = run;
        let now = self.now_ms();
        self.said.sent.insert((run, i64::from(!through_endpoint)), now);
        let name = self.log.actor(actor);
        if self.generation(actor) < generation {
            self.violated(format!("{name}: start of g{generation} was sent before it was durable"));
        }
        let hosts = self.said.started_on.entry(run).or_default();
        hosts.insert(host.to_owned());
        if hosts.len() > 1 && !through_endpoint {
            self.violated(format!("{name}: g{generation} was started on two hosts"));
        }
    }

    /// The engine tells a host to stop a generation.
    pub(super) fn stop_sent(&mut self, run: Run, index: i64) {
        let (actor, generation) = run;
        let now = self.now_ms();
        self.said.sent.insert((run, index), now);
        let known = self.actors.get(&actor).map(|known| &known.record);
        let is_durable = known.is_some_and(|record| {
            record.generation > generation || (record.generation == generation && record.last_command_index >= index)
        });
        // A host without any right to a generation is told with an index above all others, of which no record speaks.
        if !is_durable && index != i64::MAX {
            let name = self.log.actor(actor);
            self.violated(format!("{name}: stop {index} of g{generation} was sent before it was durable"));
        }
    }

    /// A host hears that its write is done.
    pub(super) fn write_acknowledged(&mut self, run: Run, number: u32) {
        let durable = self.writes.get(&run.0).copied().unwrap_or_default();
        if durable < (run.1, number) && !self.actors.get(&run.0).is_some_and(|known| known.record.is_destroyed()) {
            let name = self.log.actor(run.0);
            self.violated(format!("{name}: write {number} of g{} was acknowledged and is not durable", run.1));
        }
    }

    /// A host hears that its write is not done. One that has the present generation, and had it for a while, has a right to it.
    pub(super) fn write_refused(&mut self, run: Run, host: &str, message: &str) {
        let has_right = self.actors.get(&run.0).is_some_and(|known| {
            let record = &known.record;
            record.generation == run.1
                && matches!(&record.phase, Phase::Running { host: present } if present.as_str() == host)
                && known.since_ms + COMMIT_MS < self.now_ms()
        });
        if has_right {
            let name = self.log.actor(run.0);
            self.violated(format!("{name}: a write of g{} was refused: {message}", run.1));
        }
    }

    /// A client hears that an actor with a key is there.
    pub(super) fn creation_acknowledged(&mut self, actor: ActorId) {
        if !self.actors.contains_key(&actor) {
            let name = self.log.actor(actor);
            self.violated(format!("{name}: its creation was acknowledged and is not durable"));
        }
    }

    // ---- What becomes durable

    fn committed(&mut self, key: &Bytes, value: Option<&Bytes>) {
        match read_row(key, value) {
            Some(Row::Actor(record)) => self.record_committed(*record),
            Some(Row::Holder(holder)) => self.holder_committed(key, holder),
            Some(Row::Kv(actor)) => self.write_committed(actor, value.map_or(&[], |value| value)),
            Some(Row::Other) => {}
            None => self.violated(format!("a row cannot be read: {key:?}")),
        }
    }

    fn record_committed(&mut self, record: ActorRecord) {
        let actor = record.identity.actor_id;
        let name = self.log.actor(actor);
        let phase = phase_in_words(&record);
        let generation = record.generation;
        self.note(format_args!("disk: {name} g{generation} {phase}"));
        let before = self.actors.get(&actor).cloned();
        if let Some(broken) = self.broken_rule(before.as_ref().map(|known| &known.record), &record) {
            self.violated(format!("{name}: {broken}"));
        }
        if let Some(broken) = before.as_ref().and_then(|known| self.too_fast(known, &record)) {
            self.violated(format!("{name}: {broken}"));
        }
        let same_phase = before.as_ref().is_some_and(|known| known.record.phase == record.phase);
        let since_ms = before.filter(|_| same_phase).map_or(self.now_ms(), |known| known.since_ms);
        let is_serverless = record.identity.pool == SERVERLESS;
        self.actors.insert(actor, Known { record, since_ms });
        let placed = self.placed_in_serverless();
        if is_serverless && placed > MAX_CONCURRENT_ACTORS {
            self.violated(format!("{name}: {placed} actors have a place in the serverless pool"));
        }
    }

    /// How many actors have a place in the serverless pool.
    pub(super) fn placed_in_serverless(&self) -> usize {
        self.actors.values().filter(|known| known.record.identity.pool == SERVERLESS && known.record.is_placed()).count()
    }

    fn holder_committed(&mut self, key: &Bytes, holder: Option<ActorId>) {
        let Some(holder) = holder else {
            self.holders.remove(key);
            return;
        };
        if let Some(other) = self.holders.insert(key.clone(), holder)
            && other != holder
        {
            let (other, holder) = (self.log.actor(other), self.log.actor(holder));
            self.violated(format!("{holder} took the key of {other}"));
        }
    }

    fn write_committed(&mut self, actor: ActorId, row: &[u8]) {
        let name = self.log.actor(actor);
        let Some((host, generation, number)) = parse_write(row) else {
            self.violated(format!("{name}: a write is not what any host has sent"));
            return;
        };
        let known = self.actors.get(&actor).map(|known| &known.record);
        let current = known.map_or(0, |record| record.generation);
        // Requests for key-value data name no generation (`spec/envoy-protocol.md` 5.4): one host with two of them, an old one
        // that does not end and the new one, cannot be told apart.
        let of_same_host = known.and_then(ActorRecord::host).is_some_and(|present| present.as_str() == host);
        let is_stale = generation != current && !of_same_host;
        if known.is_none_or(ActorRecord::is_destroyed) || is_stale {
            self.violated(format!("{name}: a write of g{generation} came through while g{current} counts"));
        }
        let latest = self.writes.entry(actor).or_default();
        *latest = (*latest).max((generation, number));
    }

    /// Live actors with a key must be its holder, and nobody else.
    pub(super) fn check_keys(&mut self) {
        let mut broken = Vec::new();
        for (actor, known) in &self.actors {
            let holds = self.holders.values().filter(|holder| *holder == actor).count();
            let should_hold = usize::from(known.record.identity.key.is_some() && !known.record.is_destroyed());
            if holds != should_hold {
                broken.push((*actor, holds, should_hold));
            }
        }
        for (actor, holds, should_hold) in broken {
            let name = self.log.actor(actor);
            self.violated(format!("{name} holds {holds} keys and should hold {should_hold}"));
        }
    }
}

/// What a host writes: marks around what is of interest, so that the row's layout does not matter.
pub(super) fn write_in_words(host: &str, generation: u32, number: u32) -> String {
    format!("write<{host}:{generation}:{number}>")
}

fn parse_write(row: &[u8]) -> Option<(String, u32, u32)> {
    let text = String::from_utf8_lossy(row);
    let (_, marked) = text.split_once("write<")?;
    let mut parts = marked.split_once('>')?.0.split(':');
    Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A phase, short.
pub(super) fn phase_in_words(record: &ActorRecord) -> String {
    match &record.phase {
        Phase::Starting { place, then, .. } => {
            format!("starting on {} then {then:?}", place.host().map_or("an endpoint", |host| host.as_str()))
        }
        Phase::Running { host } => format!("running on {host}"),
        Phase::Stopping { host, wish, .. } => format!("stopping on {host} for {wish:?}"),
        Phase::Sleeping => format!("sleeping, alarm {:?}", record.alarm_ts),
        Phase::Reallocating { .. } => "waiting for a place".into(),
        Phase::Destroyed => "destroyed".into(),
    }
}

/// The disk of the simulated machine: slow at times, and everything it writes goes through the books.
pub(super) struct Platter {
    pub(super) ledger: Arc<parking_lot::Mutex<Ledger>>,
    pub(super) chance: Chance,
    pub(super) news: mpsc::UnboundedSender<News>,
}

impl DiskFate for Platter {
    fn next_commit(&mut self) -> (Duration, Duration) {
        let until_durable = if self.chance.one_in(50) { self.chance.ms(50, 400) } else { self.chance.ms(0, 3) };
        (until_durable, self.chance.ms(0, 3))
    }

    fn committed(&mut self, changes: &[Change]) {
        let mut ledger = self.ledger.lock();
        for (key, value) in changes {
            ledger.committed(key, value.as_ref());
        }
        // The worst moment for a crash: durable, and not acted upon.
        if self.chance.one_in(150) {
            let _ = self.news.send(News::WorstMoment);
        }
    }
}
