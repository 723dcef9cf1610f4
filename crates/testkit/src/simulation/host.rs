//! A host process as the published SDK behaves (`spec/envoy-protocol.md` 7 to 9, `spec/scheduling.md` 16), with actors of
//! changing moods.

use std::collections::BTreeMap;

use lifecycle::Ts;
use protocol::envoy::{
    ActorCheckpoint, ActorIntent, ActorState, Command, CommandWrapper, Event, EventWrapper, KvRequestData, KvResponseData,
    StopActorReason, StopCode, ToEnvoy, ToRivet, ToRivetAckCommands, ToRivetKvRequest,
};
use protocol::id::ActorId;

use super::Chance;
use super::ledger::{Ledger, Run, write_in_words};

/// Something that happens to a host by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostTimer {
    /// A start is finished, well or badly.
    Booted { run: Run, well: bool },
    /// An actor does something.
    Acts(Run),
    /// An actor's alarm is due while it runs.
    Alarm(Run, Ts),
    /// A stop is finished, well or badly.
    Stopped { run: Run, well: bool },
    /// The engine has been out of reach for too long; counts if the number is that of the present absence.
    Lost(u64),
}

/// What follows from something that happened to a host.
#[derive(Debug)]
pub(super) enum Effect {
    /// Goes out if there is a connection, and is lost otherwise.
    Send(ToRivet),
    /// In so many milliseconds.
    After(u64, HostTimer),
    /// Everything is done that a shutdown has to wait for.
    Leave,
}

/// How well actors behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// They crash, hang and destroy themselves.
    Wild,
    /// They work and sleep.
    Calm,
}

/// What surrounds a host while something happens to it.
pub(super) struct Around<'a> {
    pub(super) ledger: &'a mut Ledger,
    pub(super) chance: &'a mut Chance,
    pub(super) mood: Mood,
    /// The alarm that each actor remembers, in its own storage.
    pub(super) alarms: &'a mut BTreeMap<ActorId, Ts>,
}

/// A host process.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) pool: &'static str,
    pub(super) version: u32,
    /// It shuts down as soon as the engine has moved its actors.
    pub(super) stopping: bool,
    instances: BTreeMap<Run, Instance>,
    /// Highest command seen of each generation.
    seen: BTreeMap<Run, i64>,
    /// Events that the engine has not acknowledged.
    events: Vec<EventWrapper>,
    writes: BTreeMap<u32, (Run, u32)>,
    next_request: u32,
    /// Counts times without a connection; none while there is one.
    absence: Option<u64>,
    absences: u64,
}

#[derive(Debug)]
struct Instance {
    state: State,
    next_event: i64,
    writes: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Starting; with a stop that waits for the end of the start.
    Booting {
        stop_waits: bool,
    },
    Running,
    Stopping,
}

impl Host {
    pub(super) fn new(name: String, pool: &'static str, version: u32) -> Self {
        Self {
            name,
            pool,
            version,
            stopping: false,
            instances: BTreeMap::new(),
            seen: BTreeMap::new(),
            events: Vec::new(),
            writes: BTreeMap::new(),
            next_request: 0,
            absence: Some(0),
            absences: 0,
        }
    }

    /// The query with which it connects.
    pub(super) fn query(&self) -> String {
        let Self { name, pool, version, .. } = self;
        format!("protocol_version=8&namespace=default&pool_name={pool}&envoy_key={name}&version={version}")
    }

    /// The generations that it has, in whatever state.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> {
        self.instances.keys().copied()
    }

    pub(super) fn is_running(&self, run: Run) -> bool {
        self.instances.get(&run).is_some_and(|instance| instance.state == State::Running)
    }

    /// It has noticed the end of its connection.
    pub(super) fn connection_lost(&mut self, lost_threshold_ms: u64) -> Vec<Effect> {
        if self.absence.is_some() {
            return Vec::new();
        }
        self.absences += 1;
        self.absence = Some(self.absences);
        vec![Effect::After(lost_threshold_ms, HostTimer::Lost(self.absences))]
    }

    /// It shuts down in order.
    pub(super) fn shut_down(&mut self) -> Vec<Effect> {
        self.stopping = true;
        let mut effects = vec![Effect::Send(ToRivet::Stopping)];
        effects.extend(self.leave_if_done());
        effects
    }

    fn leave_if_done(&self) -> Option<Effect> {
        (self.stopping && self.instances.is_empty()).then_some(Effect::Leave)
    }

    /// A message has come.
    pub(super) fn receive(&mut self, message: ToEnvoy, around: &mut Around<'_>) -> Vec<Effect> {
        match message {
            ToEnvoy::Init(_) => {
                self.absence = None;
                if self.events.is_empty() { Vec::new() } else { vec![Effect::Send(ToRivet::Events(self.events.clone()))] }
            }
            ToEnvoy::Commands(commands) => self.commands(commands, around),
            ToEnvoy::AckEvents(acks) => {
                for ActorCheckpoint { actor_id, generation, index } in acks.last_event_checkpoints {
                    self.events.retain(|event| {
                        let place = &event.checkpoint;
                        place.actor_id != actor_id || place.generation != generation || place.index > index
                    });
                }
                Vec::new()
            }
            ToEnvoy::Ping { ts } => vec![Effect::Send(ToRivet::Pong { ts })],
            ToEnvoy::KvResponse { request_id, data } => {
                let Some((run, number)) = self.writes.remove(&request_id) else { return Vec::new() };
                match data {
                    // The SDK keeps its state in pages, and ends an instance whose commit is refused.
                    KvResponseData::Error { message } => {
                        around.ledger.write_refused(run, &self.name, &message);
                        if self.is_running(run) {
                            return self.stopped(run, false, "fenced", around);
                        }
                    }
                    KvResponseData::Put => around.ledger.write_acknowledged(run, number),
                    other @ (KvResponseData::Get { .. }
                    | KvResponseData::List { .. }
                    | KvResponseData::Delete
                    | KvResponseData::Drop) => {
                        around.ledger.violated(format!("a write of {} was answered with {other:?}", self.name));
                    }
                }
                Vec::new()
            }
            // Neither clients' traffic nor pages are simulated.
            ToEnvoy::TunnelMessage(_)
            | ToEnvoy::SqliteGetPages { .. }
            | ToEnvoy::SqliteCommit { .. }
            | ToEnvoy::SqliteCommitStageBegin { .. }
            | ToEnvoy::SqliteCommitStageSegment { .. }
            | ToEnvoy::SqliteCommitFinalize { .. }
            | ToEnvoy::SqliteExec { .. }
            | ToEnvoy::SqliteExecute { .. }
            | ToEnvoy::SqliteExecuteBatch { .. } => Vec::new(),
        }
    }

    /// Executes commands, those seen before excepted, and acknowledges all of them.
    pub(super) fn commands(&mut self, commands: Vec<CommandWrapper>, around: &mut Around<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut acks: BTreeMap<Run, i64> = BTreeMap::new();
        for CommandWrapper { checkpoint, inner } in commands {
            let Ok(actor) = checkpoint.actor_id.parse::<ActorId>() else { continue };
            let run = (actor, checkpoint.generation);
            let highest = acks.entry(run).or_insert(checkpoint.index);
            *highest = (*highest).max(checkpoint.index);
            let is_start = matches!(inner, Command::StartActor(_));
            // A start may have the index 0, a stop never.
            let last_seen = self.seen.get(&run).copied().unwrap_or(if is_start { -1 } else { 0 });
            if checkpoint.index <= last_seen {
                continue;
            }
            self.seen.insert(run, checkpoint.index);
            match inner {
                Command::StartActor(_) => effects.push(self.start(run, around)),
                Command::StopActor(stop) => effects.extend(self.stop(run, stop.reason, around)),
            }
        }
        let last_command_checkpoints = acks.into_iter().map(|(run, index)| checkpoint(run, index)).collect();
        effects.push(Effect::Send(ToRivet::AckCommands(ToRivetAckCommands { last_command_checkpoints })));
        effects
    }

    fn start(&mut self, run: Run, around: &mut Around<'_>) -> Effect {
        let instance = Instance { state: State::Booting { stop_waits: false }, next_event: 0, writes: 0 };
        self.instances.insert(run, instance);
        let wild = around.mood == Mood::Wild;
        let well = !(wild && around.chance.one_in(30));
        // Some take longer than the engine waits.
        let takes_ms = if wild && around.chance.one_in(40) { 6_000 } else { around.chance.between(2, 200) };
        Effect::After(takes_ms, HostTimer::Booted { run, well })
    }

    fn stop(&mut self, run: Run, reason: StopActorReason, around: &mut Around<'_>) -> Option<Effect> {
        let instance = self.instances.get_mut(&run)?;
        match &mut instance.state {
            State::Booting { stop_waits } => {
                *stop_waits = true;
                None
            }
            State::Running => {
                instance.state = State::Stopping;
                let wild = around.mood == Mood::Wild && reason != StopActorReason::Lost;
                let well = !(wild && around.chance.one_in(30));
                let takes_ms = if wild && around.chance.one_in(40) { 7_000 } else { around.chance.between(1, 300) };
                Some(Effect::After(takes_ms, HostTimer::Stopped { run, well }))
            }
            State::Stopping => None,
        }
    }

    /// A time has come.
    pub(super) fn timer(&mut self, timer: HostTimer, around: &mut Around<'_>) -> Vec<Effect> {
        match timer {
            HostTimer::Booted { run, well } => self.booted(run, well, around),
            HostTimer::Acts(run) => self.acts(run, around),
            HostTimer::Alarm(run, at) => {
                if !self.is_running(run) || around.alarms.get(&run.0) != Some(&at) {
                    return Vec::new();
                }
                around.alarms.remove(&run.0);
                vec![self.set_alarm(run, None, around)]
            }
            HostTimer::Stopped { run, well } => {
                let is_stopping = self.instances.get(&run).is_some_and(|instance| instance.state == State::Stopping);
                if is_stopping { self.stopped(run, well, "", around) } else { Vec::new() }
            }
            HostTimer::Lost(absence) => {
                if self.absence != Some(absence) {
                    return Vec::new();
                }
                let runs: Vec<Run> = self.runs().collect();
                runs.into_iter().flat_map(|run| self.stopped(run, false, "actor lost due to timeout", around)).collect()
            }
        }
    }

    fn booted(&mut self, run: Run, well: bool, around: &mut Around<'_>) -> Vec<Effect> {
        let Some(instance) = self.instances.get_mut(&run) else { return Vec::new() };
        let State::Booting { stop_waits } = instance.state else { return Vec::new() };
        if !well {
            return self.stopped(run, false, "no start", around);
        }
        instance.state = State::Running;
        around.ledger.host_said_running(run, &self.name);
        let mut effects = vec![self.say(run, Event::ActorStateUpdate { state: ActorState::Running })];
        if stop_waits {
            effects.extend(self.stop(run, StopActorReason::GoingAway, around));
            return effects;
        }
        if let Some(at) = around.alarms.get(&run.0).copied() {
            let in_ms = (at - around.ledger.day()).max(0) as u64;
            effects.push(Effect::After(in_ms, HostTimer::Alarm(run, at)));
        }
        effects.push(Effect::After(around.chance.between(20, 1_000), HostTimer::Acts(run)));
        effects
    }

    fn acts(&mut self, run: Run, around: &mut Around<'_>) -> Vec<Effect> {
        if !self.is_running(run) {
            return Vec::new();
        }
        let mut effects = vec![Effect::After(around.chance.between(50, 2_000), HostTimer::Acts(run))];
        let wild = around.mood == Mood::Wild;
        match around.chance.below(100) {
            0..50 => effects.extend(self.write(run)),
            50..62 if wild => {
                let in_ms = around.chance.between(200, 15_000);
                let at = around.ledger.day() + in_ms as Ts;
                around.alarms.insert(run.0, at);
                effects.push(self.set_alarm(run, Some(at), around));
                effects.push(Effect::After(in_ms, HostTimer::Alarm(run, at)));
            }
            62..66 if wild => {
                around.alarms.remove(&run.0);
                effects.push(self.set_alarm(run, None, around));
            }
            66..76 => effects.push(self.say(run, Event::ActorIntent { intent: ActorIntent::Sleep })),
            76..79 if wild => effects = self.stopped(run, false, "crash", around),
            79 if wild => {
                around.ledger.destruction_wanted(run.0);
                effects.push(self.say(run, Event::ActorIntent { intent: ActorIntent::Stop }));
            }
            80 if wild => {
                around.ledger.destruction_wanted(run.0);
                effects = self.stopped(run, true, "", around);
            }
            _ => {}
        }
        effects
    }

    fn set_alarm(&mut self, run: Run, alarm_ts: Option<Ts>, around: &mut Around<'_>) -> Effect {
        around.ledger.host_set_alarm(run, alarm_ts);
        self.say(run, Event::ActorSetAlarm { alarm_ts })
    }

    fn write(&mut self, run: Run) -> Option<Effect> {
        let instance = self.instances.get_mut(&run)?;
        instance.writes += 1;
        let number = instance.writes;
        let request_id = self.next_request;
        self.next_request += 1;
        self.writes.insert(request_id, (run, number));
        let put = KvRequestData::Put { keys: vec!["k".into()], values: vec![write_in_words(&self.name, run.1, number).into()] };
        Some(Effect::Send(ToRivet::KvRequest(ToRivetKvRequest { actor_id: run.0.to_string(), request_id, data: put })))
    }

    fn stopped(&mut self, run: Run, well: bool, message: &str, around: &mut Around<'_>) -> Vec<Effect> {
        around.ledger.host_said_stopped(run);
        let code = if well { StopCode::Ok } else { StopCode::Error };
        let message = (!well).then(|| message.to_owned());
        let mut effects = vec![self.say(run, Event::ActorStateUpdate { state: ActorState::Stopped { code, message } })];
        self.instances.remove(&run);
        effects.extend(self.leave_if_done());
        effects
    }

    /// An event is kept until it is acknowledged, so it does not matter whether it can be sent now.
    fn say(&mut self, run: Run, event: Event) -> Effect {
        let index = self.instances.get_mut(&run).map_or(0, |instance| {
            instance.next_event += 1;
            instance.next_event - 1
        });
        let event = EventWrapper { checkpoint: checkpoint(run, index), inner: event };
        self.events.push(event.clone());
        Effect::Send(ToRivet::Events(vec![event]))
    }
}

fn checkpoint((actor, generation): Run, index: i64) -> ActorCheckpoint {
    ActorCheckpoint { actor_id: actor.to_string(), generation, index }
}
