//! The transition table of `spec/scheduling.md` 3.4 and the decision table of 3.5, with the improvements of section 15: a
//! cell for every pair of state and input. (The rows of `Allocating` belong to serverless pools, which the machine does not
//! have yet.)

use lifecycle::actor::{ActorRecord, AfterStart, EventKind, Ignored, Input, Outcome, Phase, StopWish};

use crate::scene::{NOW, crashed, host, in_words, new_actor, next_event, step_at, stopped};

/// Every input that a state must have an answer for. Host `b` could take the actor; host `a` runs it.
const INPUTS: [&str; 17] = [
    "wake",
    "due",
    "capacity",
    "sleep",
    "reschedule",
    "destroy",
    "evict",
    "evict of another generation",
    "a lost",
    "b lost",
    "running",
    "stopped",
    "crashed",
    "intent sleep",
    "intent stop",
    "alarm",
    "no alarm",
];

fn input(name: &str, record: &ActorRecord) -> Input {
    match name {
        "wake" => Input::Wake,
        "due" => Input::DeadlineReached,
        "capacity" => Input::CapacityArrived,
        "sleep" => Input::Sleep,
        "reschedule" => Input::Reschedule,
        "destroy" => Input::Destroy,
        "evict" => Input::Evict { generation: record.generation },
        "evict of another generation" => Input::Evict { generation: record.generation + 1 },
        "a lost" => Input::HostLost { host: host("a") },
        "b lost" => Input::HostLost { host: host("b") },
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
    in_phase(Phase::Starting { host: host("a"), deadline: NOW, then })
}

fn stopping(wish: StopWish) -> ActorRecord {
    in_phase(Phase::Stopping { host: host("a"), wish, deadline: NOW })
}

/// Checks a state's whole row: groups of inputs with what they do, in the words of [`in_words`].
fn check_row(record: &ActorRecord, row: &[(&[&str], &str)]) {
    let mut unanswered = INPUTS.to_vec();
    for (names, expected) in row {
        for name in *names {
            let place = unanswered.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name} comes twice"));
            unanswered.remove(place);
            let stepped = step_at(NOW, record, &input(name, record), Some("b"));
            assert_eq!(in_words(record, &stepped, NOW), *expected, "{name} in {:?}", record.phase);
        }
    }
    assert!(unanswered.is_empty(), "no answer for {unanswered:?} in {:?}", record.phase);
}

const ASLEEP_UNHEARD: &str = "sleeping; sleep +0; error no response; stop 3.2 on a Lost";

#[test]
fn starting_to_run() {
    check_row(
        &starting(AfterStart::Run),
        &[
            (&["wake", "capacity"], "ignored: AlreadyUnderWay"),
            (&["due"], ASLEEP_UNHEARD),
            (&["sleep", "intent sleep"], "starting on a until +0, then sleep"),
            (&["reschedule", "evict"], "starting on a until +0, then move"),
            (&["destroy", "intent stop"], "starting on a until +0, then destroy"),
            (&["a lost"], "sleeping; sleep +0; error lost a; stop 3.2 on a Lost"),
            (&["evict of another generation", "b lost"], "ignored: Stale"),
            (&["running"], "running on a; connectable +0"),
            (&["stopped"], "destroyed; destroy +0"),
            (&["crashed"], "sleeping; sleep +0; error crashed boom"),
            (&["alarm"], "starting on a until +0; alarm +5"),
            (&["no alarm"], "starting on a until +0"),
        ],
    );
}

#[test]
fn starting_to_sleep() {
    check_row(
        &starting(AfterStart::Sleep),
        &[
            // Whoever asks for it last wins.
            (&["wake"], "starting on a until +0"),
            (&["capacity", "sleep"], "ignored: AlreadyUnderWay"),
            (&["due"], ASLEEP_UNHEARD),
            (&["reschedule", "evict"], "starting on a until +0, then move"),
            (&["destroy", "intent stop"], "starting on a until +0, then destroy"),
            (&["a lost"], "sleeping; sleep +0; error lost a; stop 3.2 on a Lost"),
            (&["evict of another generation", "b lost"], "ignored: Stale"),
            (&["running"], "stopping on a until +1800000 to sleep; sleep +0; stop 3.2 on a SleepIntent"),
            (&["stopped"], "destroyed; destroy +0"),
            (&["crashed"], "sleeping; sleep +0; error crashed boom"),
            (&["intent sleep", "no alarm"], "starting on a until +0, then sleep"),
            (&["alarm"], "starting on a until +0, then sleep; alarm +5"),
        ],
    );
}

#[test]
fn starting_to_move() {
    let moved = "starting on b until +30000; generation 4; start 4.1 on b";
    check_row(
        &starting(AfterStart::Move),
        &[
            (&["wake", "capacity", "sleep", "reschedule", "evict"], "ignored: AlreadyUnderWay"),
            (&["due", "a lost"], "starting on b until +30000; generation 4; stop 3.2 on a Lost; start 4.1 on b"),
            (&["destroy", "intent stop"], "starting on a until +0, then destroy"),
            (&["evict of another generation", "b lost"], "ignored: Stale"),
            (&["running"], "stopping on a until +1800000 to move; stop 3.2 on a GoingAway"),
            (&["stopped", "crashed"], moved),
            (&["intent sleep", "no alarm"], "starting on a until +0, then move"),
            (&["alarm"], "starting on a until +0, then move; alarm +5"),
        ],
    );
}

#[test]
fn starting_to_be_destroyed() {
    check_row(
        &starting(AfterStart::Destroy),
        &[
            (&["wake", "capacity", "sleep", "reschedule", "evict", "destroy"], "ignored: AlreadyUnderWay"),
            (&["due"], "destroyed; destroy +0; error no response; stop 3.2 on a Lost"),
            (&["a lost"], "destroyed; destroy +0; error lost a; stop 3.2 on a Lost"),
            (&["evict of another generation", "b lost"], "ignored: Stale"),
            // It never takes requests.
            (&["running"], "stopping on a until +1800000 to destroy; stop 3.2 on a Destroy"),
            (&["stopped"], "destroyed; destroy +0"),
            (&["crashed"], "destroyed; destroy +0; error crashed boom"),
            (&["intent sleep", "intent stop", "no alarm"], "starting on a until +0, then destroy"),
            (&["alarm"], "starting on a until +0, then destroy; alarm +5"),
        ],
    );
}

#[test]
fn running() {
    check_row(
        &in_phase(Phase::Running { host: host("a") }),
        &[
            (&["wake", "capacity"], "ignored: AlreadyUnderWay"),
            (&["due"], "ignored: NotDue"),
            (
                &["sleep", "intent sleep"],
                "stopping on a until +1800000 to sleep; no connectable; sleep +0; stop 3.2 on a SleepIntent",
            ),
            // The API's reschedule and destroy leave it connectable until it has stopped.
            (&["reschedule"], "stopping on a until +1800000 to move; stop 3.2 on a GoingAway"),
            (&["evict"], "stopping on a until +1800000 to move; no connectable; stop 3.2 on a GoingAway"),
            (&["destroy"], "stopping on a until +1800000 to destroy; stop 3.2 on a Destroy"),
            (&["intent stop"], "stopping on a until +1800000 to be destroyed; no connectable; stop 3.2 on a StopIntent"),
            (&["evict of another generation", "b lost"], "ignored: Stale"),
            (&["a lost"], "sleeping; no connectable; sleep +0; error lost a; stop 3.2 on a Lost"),
            (&["running", "no alarm"], "running on a"),
            (&["stopped"], "destroyed; no connectable; destroy +0"),
            (&["crashed"], "sleeping; no connectable; sleep +0; error crashed boom"),
            (&["alarm"], "running on a; alarm +5"),
        ],
    );
}

#[test]
fn stopping_to_sleep() {
    check_row(
        &stopping(StopWish::Sleep { rewake: false }),
        &[
            (&["wake"], "stopping on a until +0 to sleep and rewake"),
            (&["capacity", "sleep"], "ignored: AlreadyUnderWay"),
            (&["due"], "sleeping; sleep +0; error no response of a; stop 3.3 on a Lost"),
            (&["a lost"], "sleeping; sleep +0; error lost a; stop 3.3 on a Lost"),
            (&["reschedule", "evict"], "stopping on a until +1800000 to move"),
            (&["destroy"], "stopping on a until +1800000 to destroy"),
            (&["evict of another generation", "b lost"], "ignored: Stale"),
            (&["stopped"], "sleeping; sleep +0"),
            (&["crashed"], "sleeping; sleep +0; error crashed boom"),
            (&["running", "intent sleep", "intent stop", "no alarm"], "stopping on a until +0 to sleep"),
            (&["alarm"], "stopping on a until +0 to sleep; alarm +5"),
        ],
    );
}

#[test]
fn stopping_to_sleep_and_rewake() {
    let rewoken = "starting on b until +30000; generation 4; no sleep; start 4.1 on b";
    check_row(
        &stopping(StopWish::Sleep { rewake: true }),
        &[
            (&["wake", "capacity", "sleep"], "ignored: AlreadyUnderWay"),
            (&["due", "a lost"], "starting on b until +30000; generation 4; no sleep; stop 3.3 on a Lost; start 4.1 on b"),
            (&["reschedule", "evict"], "stopping on a until +1800000 to move"),
            (&["destroy"], "stopping on a until +1800000 to destroy"),
            (&["evict of another generation", "b lost"], "ignored: Stale"),
            (&["stopped", "crashed"], rewoken),
            (&["running", "intent sleep", "intent stop", "no alarm"], "stopping on a until +0 to sleep and rewake"),
            (&["alarm"], "stopping on a until +0 to sleep and rewake; alarm +5"),
        ],
    );
}

#[test]
fn stopping_to_be_destroyed_at_its_own_wish() {
    check_row(
        &stopping(StopWish::Destruction),
        &[
            (&["wake", "capacity", "sleep"], "ignored: AlreadyUnderWay"),
            (&["due"], "destroyed; destroy +0; error no response of a; stop 3.3 on a Lost"),
            (&["a lost"], "destroyed; destroy +0; error lost a; stop 3.3 on a Lost"),
            (&["reschedule", "evict"], "stopping on a until +1800000 to move"),
            (&["destroy"], "stopping on a until +1800000 to destroy"),
            (&["evict of another generation", "b lost"], "ignored: Stale"),
            (&["stopped"], "destroyed; destroy +0"),
            (&["crashed"], "sleeping; sleep +0; error crashed boom"),
            (&["running", "intent sleep", "intent stop", "no alarm"], "stopping on a until +0 to be destroyed"),
            (&["alarm"], "stopping on a until +0 to be destroyed; alarm +5"),
        ],
    );
}

#[test]
fn stopping_to_move() {
    check_row(
        &stopping(StopWish::Move),
        &[
            (&["wake", "capacity", "sleep", "reschedule", "evict"], "ignored: AlreadyUnderWay"),
            (&["due", "a lost"], "starting on b until +30000; generation 4; no connectable; stop 3.3 on a Lost; start 4.1 on b"),
            (&["destroy"], "stopping on a until +1800000 to destroy"),
            (&["evict of another generation", "b lost"], "ignored: Stale"),
            (&["stopped", "crashed"], "starting on b until +30000; generation 4; no connectable; start 4.1 on b"),
            (&["running", "intent sleep", "intent stop", "no alarm"], "stopping on a until +0 to move"),
            (&["alarm"], "stopping on a until +0 to move; alarm +5"),
        ],
    );
}

#[test]
fn stopping_to_destroy() {
    check_row(
        &stopping(StopWish::Destroy),
        &[
            (&["wake", "capacity", "sleep", "reschedule", "evict", "destroy"], "ignored: AlreadyUnderWay"),
            (&["due"], "destroyed; no connectable; destroy +0; error no response of a; stop 3.3 on a Lost"),
            (&["a lost"], "destroyed; no connectable; destroy +0; error lost a; stop 3.3 on a Lost"),
            (&["evict of another generation", "b lost"], "ignored: Stale"),
            (&["stopped"], "destroyed; no connectable; destroy +0"),
            (&["crashed"], "destroyed; no connectable; destroy +0; error crashed boom"),
            (&["running", "intent sleep", "intent stop", "no alarm"], "stopping on a until +0 to destroy"),
            (&["alarm"], "stopping on a until +0 to destroy; alarm +5"),
        ],
    );
}

/// Without a host, every event comes from one that does not run the actor.
const EVENTS: &[&str] = &["running", "stopped", "crashed", "intent sleep", "intent stop", "alarm", "no alarm"];

#[test]
fn sleeping() {
    check_row(
        &in_phase(Phase::Sleeping),
        &[
            (&["wake"], "starting on b until +30000; generation 4; no sleep; start 4.1 on b"),
            (&["due"], "ignored: NotDue"),
            (&["capacity", "sleep", "reschedule", "evict"], "ignored: NotRunning"),
            (&["destroy"], "destroyed; destroy +0"),
            (&["evict of another generation", "a lost", "b lost"], "ignored: Stale"),
            (EVENTS, "ignored: Stale"),
        ],
    );
}

#[test]
fn reallocating() {
    check_row(
        &in_phase(Phase::Reallocating { retry_at: NOW }),
        &[
            (&["wake", "capacity", "due"], "starting on b until +30000; generation 4; no sleep; start 4.1 on b"),
            (&["sleep"], "sleeping"),
            (&["reschedule", "evict"], "ignored: NotRunning"),
            (&["destroy"], "destroyed; destroy +0"),
            (&["evict of another generation", "a lost", "b lost"], "ignored: Stale"),
            (EVENTS, "ignored: Stale"),
        ],
    );
}

#[test]
fn destroyed() {
    check_row(&in_phase(Phase::Destroyed), &[(&INPUTS, "ignored: Destroyed")]);
}

#[test]
fn without_a_host_every_start_becomes_a_wait() {
    let waits = [
        (in_phase(Phase::Sleeping), "wake", "reallocating at +2000; sleep +0; error no envoys"),
        (in_phase(Phase::Reallocating { retry_at: NOW }), "due", "reallocating at +2000; sleep +0; error no envoys"),
        (stopping(StopWish::Sleep { rewake: true }), "crashed", "reallocating at +2000; sleep +0; error no envoys"),
        (stopping(StopWish::Move), "due", "reallocating at +2000; no connectable; sleep +0; error no envoys; stop 3.3 on a Lost"),
        (starting(AfterStart::Move), "stopped", "reallocating at +2000; sleep +0; error no envoys"),
    ];
    for (record, name, expected) in waits {
        let stepped = step_at(NOW, &record, &input(name, &record), None);
        assert_eq!(in_words(&record, &stepped, NOW), expected, "{name} in {:?}", record.phase);
    }
}

#[test]
fn a_deadline_before_its_time_changes_nothing() {
    for record in [
        starting(AfterStart::Run),
        stopping(StopWish::Move),
        in_phase(Phase::Reallocating { retry_at: NOW }),
        ActorRecord { alarm_ts: Some(NOW), ..in_phase(Phase::Sleeping) },
    ] {
        assert_eq!(record.next_deadline(), Some(NOW));
        let early = step_at(NOW - 1, &record, &Input::DeadlineReached, Some("b"));
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
        assert_eq!(step_at(NOW, &record, &input, None).outcome, outcome, "{input:?}");
    }
}

#[test]
fn an_event_without_effect_is_seen_all_the_same() {
    // An intent to sleep that came when a move was under way anyway ...
    let record = starting(AfterStart::Sleep);
    let intent = next_event(&record, EventKind::IntentSleep);
    let seen = step_at(NOW, &record, &intent, None).record;
    let woken = step_at(NOW, &seen, &Input::Wake, None).record;
    // ... does not count when the host repeats it after a reconnect.
    assert_eq!(step_at(NOW, &woken, &intent, None).outcome, Outcome::Ignored(Ignored::Duplicate));
}
