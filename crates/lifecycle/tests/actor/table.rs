//! The transition table of `spec/scheduling.md` 3.4: for every state a row, and in it an answer to every input.
//!
//! The states of the specification are those of [`Phase`]: SleepIntent, StopIntent, GoingAway and Destroying are `Stopping` with
//! a wish; Allocating is `Starting` without a known host (it takes no time here). Each row's entries name the inputs and what
//! they do, in the words of [`in_words`]. An entry made with [`ours`] differs from the published engine on purpose, and says what
//! that one does.

mod resting;
mod running;
mod starting;
mod stopping;

use lifecycle::actor::{ActorRecord, AfterStart, EventKind, Ignored, Input, Outcome, Phase, Place, StopWish};
use lifecycle::pool::PoolError;

use crate::scene::{
    NOW, Room, bad_gateway, crashed, host, host_found, host_lost, in_words, new_actor, next_event, outbound_failed, step_at,
    stopped,
};

/// Every input that a state must have an answer for. Host `a` has the actor, if any; host `b` could take it.
const INPUTS: [&str; 18] = [
    "wake",
    "due",
    "capacity",
    "sleep",
    "reschedule",
    "destroy",
    "evict",
    "a lost",
    "a found",
    "endpoint failed",
    "request ended",
    "running",
    "stopped",
    "crashed",
    "intent sleep",
    "intent stop",
    "alarm",
    "no alarm",
];

/// What hosts report.
const EVENTS: [&str; 7] = ["running", "stopped", "crashed", "intent sleep", "intent stop", "alarm", "no alarm"];

fn input(name: &str, record: &ActorRecord) -> Input {
    match name {
        "wake" => Input::Wake,
        "due" => Input::DeadlineReached,
        "capacity" => Input::CapacityArrived,
        "sleep" => Input::Sleep,
        "reschedule" => Input::Reschedule,
        "destroy" => Input::Destroy,
        "evict" => Input::Evict { generation: record.generation },
        "a lost" => host_lost(record),
        "a found" => host_found(record),
        "endpoint failed" => outbound_failed(record, bad_gateway()),
        "request ended" => outbound_failed(record, PoolError::StreamEndedEarly),
        "running" => next_event(record, EventKind::Running),
        "stopped" => next_event(record, stopped()),
        "crashed" => next_event(record, crashed()),
        "intent sleep" => next_event(record, EventKind::IntentSleep),
        "intent stop" => next_event(record, EventKind::IntentStop),
        "alarm" => next_event(record, EventKind::SetAlarm(Some(NOW + 5))),
        "no alarm" => next_event(record, EventKind::SetAlarm(None)),
        other => panic!("no such input: {other}"),
    }
}

/// An actor in its third generation, with every deadline just due.
fn in_phase(phase: Phase) -> ActorRecord {
    let mut record = new_actor();
    record.generation = 3;
    record.last_event_index = 4;
    record.last_command_index = if matches!(phase, Phase::Stopping { .. }) { 2 } else { 1 };
    record.start_ts = Some(NOW - 900);
    // The timestamps are those that the way into the phase has left.
    match &phase {
        Phase::Starting { .. } | Phase::Destroyed | Phase::Stopping { wish: StopWish::Destruction, .. } => {}
        Phase::Running { .. } | Phase::Stopping { wish: StopWish::Move | StopWish::Destroy, .. } => {
            record.connectable_ts = Some(NOW - 800);
        }
        Phase::Stopping { wish: StopWish::Sleep { .. }, .. } | Phase::Sleeping | Phase::Reallocating { .. } => {
            record.sleep_ts = Some(NOW - 700);
        }
    }
    record.phase = phase;
    record
}

fn starting(then: AfterStart) -> ActorRecord {
    in_phase(Phase::Starting { place: Place::Host(host("a")), deadline: NOW, then })
}

/// A generation that an endpoint was asked for: its commands count from 0, and no event has come yet.
fn starting_somewhere(then: AfterStart) -> ActorRecord {
    let record = in_phase(Phase::Starting { place: Place::Outbound, deadline: NOW, then });
    ActorRecord { last_event_index: -1, last_command_index: 0, acked_command_index: -1, ..record }
}

fn is_running() -> ActorRecord {
    in_phase(Phase::Running { host: host("a") })
}

fn stopping(wish: StopWish) -> ActorRecord {
    in_phase(Phase::Stopping { host: host("a"), wish, deadline: NOW })
}

fn sleeping() -> ActorRecord {
    in_phase(Phase::Sleeping)
}

fn reallocating() -> ActorRecord {
    in_phase(Phase::Reallocating { retry_at: NOW })
}

/// Some inputs of a row, and what they do.
struct Entry {
    inputs: &'static [&'static str],
    does: &'static str,
    /// What the published engine does instead.
    instead_of: Option<&'static str>,
}

/// What the specification asks for.
const fn spec(inputs: &'static [&'static str], does: &'static str) -> Entry {
    Entry { inputs, does, instead_of: None }
}

/// What is done differently (`spec/scheduling.md` 15).
const fn ours(inputs: &'static [&'static str], does: &'static str, instead_of: &'static str) -> Entry {
    Entry { inputs, does, instead_of: Some(instead_of) }
}

/// Checks a state's whole row.
fn check_row(record: &ActorRecord, row: &[Entry]) {
    let mut unanswered = INPUTS.to_vec();
    for Entry { inputs, does, instead_of } in row {
        for name in *inputs {
            let place = unanswered.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name} comes twice"));
            unanswered.remove(place);
            let stepped = step_at(NOW, record, &input(name, record), Room::On("b"));
            let by_design = instead_of.map(|theirs| format!(" (published: {theirs})")).unwrap_or_default();
            assert_eq!(in_words(record, &stepped, NOW), *does, "{name} in {:?}{by_design}", record.phase);
        }
    }
    assert!(unanswered.is_empty(), "no answer for {unanswered:?} in {:?}", record.phase);
    check_strangers(record);
}

/// The last row of the table, for this state: what comes from another host or speaks of another generation is ignored.
fn check_strangers(record: &ActorRecord) {
    let (before, after) = (record.generation - 1, record.generation + 1);
    let lost = |name, generation| Input::HostLost { host: host(name), generation };
    let found = |generation| Input::HostFound { host: host("a"), generation };
    let failed = |generation| Input::OutboundFailed { generation, error: bad_gateway() };
    let event = |name, generation, kind| Input::Event { host: host(name), generation, index: i64::MAX, kind };
    let strangers = [
        Input::Evict { generation: before },
        Input::Evict { generation: after },
        lost("a", before),
        lost("a", after),
        lost("b", record.generation),
        found(before),
        found(after),
        failed(before),
        failed(after),
        event("a", before, stopped()),
        event("a", after, EventKind::Running),
        event("b", record.generation, EventKind::Running),
        event("b", record.generation, crashed()),
    ];
    let expected = if record.is_destroyed() { Ignored::Destroyed } else { Ignored::Stale };
    for stranger in strangers {
        let outcome = step_at(NOW, record, &stranger, Room::On("b")).outcome;
        assert_eq!(outcome, Outcome::Ignored(expected), "{stranger:?} in {:?}", record.phase);
    }
}

#[test]
fn a_deadline_before_its_time_changes_nothing() {
    for record in [
        starting(AfterStart::Run),
        starting_somewhere(AfterStart::Run),
        stopping(StopWish::Move),
        reallocating(),
        ActorRecord { alarm_ts: Some(NOW), ..sleeping() },
    ] {
        assert_eq!(record.next_deadline(), Some(NOW));
        let early = step_at(NOW - 1, &record, &Input::DeadlineReached, Room::On("b"));
        assert_eq!(early.outcome, Outcome::Ignored(Ignored::NotDue), "{:?}", record.phase);
    }
}

#[test]
fn acknowledgements_count_up_to_what_was_sent() {
    let record = stopping(StopWish::Move);
    let ack = |host_name: &str, generation: u32, index: i64| Input::CommandsAcked { host: host(host_name), generation, index };
    let outcomes = [
        (ack("a", 3, 0), Outcome::Ignored(Ignored::Duplicate)),
        (ack("a", 3, 1), Outcome::Applied),
        (ack("a", 3, 2), Outcome::Applied),
        (ack("a", 3, 3), Outcome::Ignored(Ignored::Stale)),
        (ack("a", 2, 1), Outcome::Ignored(Ignored::Stale)),
        (ack("b", 3, 1), Outcome::Ignored(Ignored::Stale)),
        (ack("a", 3, i64::MIN), Outcome::Ignored(Ignored::Duplicate)),
    ];
    for (input, outcome) in outcomes {
        assert_eq!(step_at(NOW, &record, &input, Room::NoHosts).outcome, outcome, "{input:?}");
    }
}

#[test]
fn an_event_without_effect_is_seen_all_the_same() {
    // An intent to sleep that came when that was wished anyway ...
    let record = starting(AfterStart::Sleep);
    let intent = next_event(&record, EventKind::IntentSleep);
    let seen = step_at(NOW, &record, &intent, Room::NoHosts).record;
    let woken = step_at(NOW, &seen, &Input::Wake, Room::NoHosts).record;
    // ... does not count when the host repeats it after a reconnect.
    assert_eq!(step_at(NOW, &woken, &intent, Room::NoHosts).outcome, Outcome::Ignored(Ignored::Duplicate));
}
