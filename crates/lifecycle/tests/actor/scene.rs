//! What all tests share: limits, hosts, and words for inputs and results.

use lifecycle::Ts;
use lifecycle::actor::{
    ActorError, ActorRecord, AfterStart, Capacity, Command, CommandToHost, EnvoyKey, EventKind, Identity, Input, Outcome, Phase,
    Place, Rules, Shortage, Step, StopWish, World, step,
};
use lifecycle::pool::PoolError;
use protocol::id::{ActorId, NamespaceId};

pub(crate) const RULES: Rules = Rules {
    start_threshold_ms: 30_000,
    retry_base_ms: 2_000,
    retry_max_exponent: 8,
    retry_reset_ms: 600_000,
    retry_give_up_ms: 300_000,
};

pub(crate) const STOP_THRESHOLD_MS: i64 = 1_800_000;

/// The present time of most tests.
pub(crate) const NOW: Ts = 1_000_000;

/// Who would take the actor, should a start be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// A host of a normal pool.
    On(&'static str),
    /// The endpoint of a serverless pool.
    Endpoint,
    /// There is no host.
    NoHosts,
    /// The pool is full.
    Limit,
    /// The endpoint failed; it may be asked again after [`FAILING_FOR_MS`].
    Failing,
    /// The engine is about to end.
    EngineStops,
}

pub(crate) const FAILING_FOR_MS: i64 = 700;

pub(crate) fn host(name: &str) -> EnvoyKey {
    EnvoyKey::new(name)
}

/// The endpoint's answer was no start.
pub(crate) fn bad_gateway() -> PoolError {
    PoolError::HttpError { status_code: 502, body: "bad gateway".into() }
}

pub(crate) fn new_actor() -> ActorRecord {
    ActorRecord::new(Identity {
        actor_id: ActorId::from_parts([7; 16], 1),
        namespace_id: NamespaceId::from_parts([8; 16], 1),
        name: "counter".into(),
        key: None,
        pool: "default".into(),
        create_ts: 1,
    })
}

/// One step at `now`.
pub(crate) fn step_at(now: Ts, record: &ActorRecord, input: &Input, room: Room) -> Step {
    step_under(&RULES, STOP_THRESHOLD_MS, now, record, input, room)
}

/// One step under other limits.
pub(crate) fn step_under(
    rules: &Rules,
    stop_threshold_ms: i64,
    now: Ts,
    record: &ActorRecord,
    input: &Input,
    room: Room,
) -> Step {
    let shortage = match room {
        Room::On(name) => {
            let capacity = Capacity::Host(&host(name));
            return step(record, input, &World { now, rules, stop_threshold_ms, capacity });
        }
        Room::Endpoint => return step(record, input, &World { now, rules, stop_threshold_ms, capacity: Capacity::Outbound }),
        Room::NoHosts => Shortage::NoHosts,
        Room::Limit => Shortage::ConcurrentActorLimit,
        Room::Failing => Shortage::PoolFailing { error: bad_gateway(), retry_at: now + FAILING_FOR_MS },
        Room::EngineStops => Shortage::EngineStopping,
    };
    step(record, input, &World { now, rules, stop_threshold_ms, capacity: Capacity::None(&shortage) })
}

/// The next event of the actor's present generation, from its host.
pub(crate) fn next_event(record: &ActorRecord, kind: EventKind) -> Input {
    Input::Event { host: its_host(record), generation: record.generation, index: record.last_event_index + 1, kind }
}

/// The loss of the actor's host.
pub(crate) fn host_lost(record: &ActorRecord) -> Input {
    Input::HostLost { host: its_host(record), generation: record.generation }
}

/// The end of the request by which the present generation was started.
pub(crate) fn outbound_failed(record: &ActorRecord, error: PoolError) -> Input {
    Input::OutboundFailed { generation: record.generation, error }
}

/// Host `a` speaks for the present generation.
pub(crate) fn host_found(record: &ActorRecord) -> Input {
    Input::HostFound { host: host("a"), generation: record.generation }
}

/// The actor's host; `a` if it has none.
pub(crate) fn its_host(record: &ActorRecord) -> EnvoyKey {
    record.host().cloned().unwrap_or_else(|| host("a"))
}

pub(crate) fn stopped() -> EventKind {
    EventKind::Stopped { error: false, message: None }
}

pub(crate) fn crashed() -> EventKind {
    EventKind::Stopped { error: true, message: Some("boom".into()) }
}

/// What a step did, in words: the phase, every field that changed, every command. Times are relative to `now`.
pub(crate) fn in_words(before: &ActorRecord, step: &Step, now: Ts) -> String {
    if let Outcome::Ignored(reason) = step.outcome {
        return format!("ignored: {reason:?}");
    }
    let after = &step.record;
    let mut words = vec![phase_in_words(&after.phase, now)];
    if before.generation != after.generation {
        words.push(format!("generation {}", after.generation));
    }
    let times = [
        ("alarm", before.alarm_ts, after.alarm_ts),
        ("served alarm", before.served_alarm_ts, after.served_alarm_ts),
        ("start", before.start_ts, after.start_ts),
        ("connectable", before.connectable_ts, after.connectable_ts),
        ("sleep", before.sleep_ts, after.sleep_ts),
        ("destroy", before.destroy_ts, after.destroy_ts),
    ];
    for (name, old, new) in times {
        if old != new {
            words.push(new.map_or_else(|| format!("no {name}"), |new| format!("{name} {:+}", new - now)));
        }
    }
    if before.error != after.error {
        words.push(after.error.as_ref().map_or_else(|| "no error".into(), error_in_words));
    }
    words.extend(step.commands.iter().map(command_in_words));
    words.join("; ")
}

fn phase_in_words(phase: &Phase, now: Ts) -> String {
    match phase {
        Phase::Starting { place, deadline, then } => {
            let place = match place {
                Place::Host(host) => format!("on {host}"),
                Place::Outbound => "somewhere".into(),
            };
            let then = match then {
                AfterStart::Run => "",
                AfterStart::Sleep => ", then sleep",
                AfterStart::Move => ", then move",
                AfterStart::Destroy => ", then destroy",
            };
            format!("starting {place} until {:+}{then}", deadline - now)
        }
        Phase::Running { host } => format!("running on {host}"),
        Phase::Stopping { host, wish, deadline } => {
            let wish = match wish {
                StopWish::Sleep { rewake: false } => "sleep",
                StopWish::Sleep { rewake: true } => "sleep and rewake",
                StopWish::Destruction => "be destroyed",
                StopWish::Move => "move",
                StopWish::Destroy => "destroy",
            };
            format!("stopping on {host} until {:+} to {wish}", deadline - now)
        }
        Phase::Sleeping => "sleeping".into(),
        Phase::Reallocating { retry_at } => format!("reallocating at {:+}", retry_at - now),
        Phase::Destroyed => "destroyed".into(),
    }
}

pub(crate) fn error_in_words(error: &ActorError) -> String {
    match error {
        ActorError::NoEnvoys => "error no envoys".into(),
        ActorError::ConcurrentActorLimitReached => "error limit reached".into(),
        ActorError::RunnerPoolError(PoolError::HttpError { status_code, .. }) => format!("error endpoint said {status_code}"),
        ActorError::RunnerPoolError(other) => format!("error endpoint {other:?}"),
        ActorError::EnvoyNoResponse { envoy_key: None } => "error no response".into(),
        ActorError::EnvoyNoResponse { envoy_key: Some(host) } => format!("error no response of {host}"),
        ActorError::EnvoyConnectionLost { envoy_key } => format!("error lost {envoy_key}"),
        ActorError::Crashed { message } => format!("error crashed {}", message.as_deref().unwrap_or("without a word")),
    }
}

fn command_in_words(command: &CommandToHost) -> String {
    let CommandToHost { host, generation, index, command } = command;
    match command {
        Command::Start => format!("start {generation}.{index} on {host}"),
        Command::Stop(reason) => format!("stop {generation}.{index} on {host} {reason:?}"),
    }
}
