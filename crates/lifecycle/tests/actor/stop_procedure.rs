//! What follows when a generation is over: the six steps of `spec/scheduling.md` 3.5, one after another.

use lifecycle::actor::{
    ActorError, ActorRecord, AfterStart, Command, EventKind, Input, Outcome, Phase, Place, StopReason, StopWish,
};

use crate::scene::{
    NOW, Room, bad_gateway, crashed, error_in_words, host, host_lost, new_actor, next_event, outbound_failed, step_at, stopped,
};

/// An actor in its third generation, on host `a`.
fn in_phase(phase: Phase) -> ActorRecord {
    let issued = if matches!(phase, Phase::Stopping { .. }) { 2 } else { 1 };
    ActorRecord {
        generation: 3,
        last_command_index: issued,
        connectable_ts: matches!(phase, Phase::Running { .. }).then_some(NOW - 10),
        phase,
        ..new_actor()
    }
}

fn starting(then: AfterStart) -> ActorRecord {
    in_phase(Phase::Starting { place: Place::Host(host("a")), deadline: NOW, then })
}

fn stopping(wish: StopWish) -> ActorRecord {
    in_phase(Phase::Stopping { host: host("a"), wish, deadline: NOW })
}

/// How a generation may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    StoppedOk,
    StoppedError,
    NoResponse,
    ConnectionLost,
    EndpointFailed,
}

const CAUSES: [Cause; 5] =
    [Cause::StoppedOk, Cause::StoppedError, Cause::NoResponse, Cause::ConnectionLost, Cause::EndpointFailed];

impl Cause {
    fn input(self, record: &ActorRecord) -> Input {
        match self {
            Self::StoppedOk => next_event(record, stopped()),
            Self::StoppedError => next_event(record, crashed()),
            Self::NoResponse => Input::DeadlineReached,
            Self::ConnectionLost => host_lost(record),
            Self::EndpointFailed => outbound_failed(record, bad_gateway()),
        }
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Destroyed,
    Asleep,
    StartedAgain,
    Waiting,
    /// It does not end this way.
    Unmoved,
}

fn next(before: &ActorRecord, cause: Cause, room: Room) -> (Next, ActorRecord) {
    let stepped = step_at(NOW, before, &cause.input(before), room);
    let next = match (&stepped.outcome, &stepped.record.phase) {
        (Outcome::Ignored(_), _) => Next::Unmoved,
        (Outcome::Applied, Phase::Destroyed) => Next::Destroyed,
        (Outcome::Applied, Phase::Sleeping) => Next::Asleep,
        (Outcome::Applied, Phase::Starting { .. }) => Next::StartedAgain,
        (Outcome::Applied, Phase::Reallocating { .. }) => Next::Waiting,
        (Outcome::Applied, Phase::Running { .. } | Phase::Stopping { .. }) => panic!("{before:?} goes on: {stepped:?}"),
    };
    (next, stepped.record)
}

/// Each state with what follows each of [`CAUSES`]. In the published engine a wish that came during the start is forgotten or
/// dropped, so that its rows for *then move* and *then destroyed* are those of *starting*; and StopIntent ends in sleep when the
/// host is lost.
fn decisions() -> [(&'static str, ActorRecord, [Next; 5]); 10] {
    use Next::{Asleep, Destroyed, StartedAgain, Unmoved};
    [
        ("starting", starting(AfterStart::Run), [Destroyed, Asleep, Asleep, Asleep, Asleep]),
        ("starting, then sleep", starting(AfterStart::Sleep), [Destroyed, Asleep, Asleep, Asleep, Asleep]),
        ("starting, then move", starting(AfterStart::Move), [StartedAgain; 5]),
        ("starting, then destroyed", starting(AfterStart::Destroy), [Destroyed; 5]),
        ("running", in_phase(Phase::Running { host: host("a") }), [Destroyed, Asleep, Unmoved, Asleep, Unmoved]),
        ("SleepIntent", stopping(StopWish::Sleep { rewake: false }), [Asleep, Asleep, Asleep, Asleep, Unmoved]),
        (
            "SleepIntent with rewake",
            stopping(StopWish::Sleep { rewake: true }),
            [StartedAgain, StartedAgain, StartedAgain, StartedAgain, Unmoved],
        ),
        ("StopIntent", stopping(StopWish::Destruction), [Destroyed, Asleep, Destroyed, Destroyed, Unmoved]),
        ("GoingAway", stopping(StopWish::Move), [StartedAgain, StartedAgain, StartedAgain, StartedAgain, Unmoved]),
        ("Destroying", stopping(StopWish::Destroy), [Destroyed, Destroyed, Destroyed, Destroyed, Unmoved]),
    ]
}

#[test]
fn step_1_the_error_says_why() {
    for (state, record, decided) in decisions() {
        let had_run = !state.starts_with("starting");
        for (cause, decision) in CAUSES.into_iter().zip(decided) {
            let expected = match cause {
                // A start that follows at once clears it again.
                _ if matches!(decision, Next::StartedAgain | Next::Unmoved) => None,
                Cause::StoppedOk => None,
                Cause::StoppedError => Some("error crashed boom"),
                Cause::NoResponse if had_run => Some("error no response of a"),
                Cause::NoResponse => Some("error no response"),
                Cause::EndpointFailed if !had_run => Some("error endpoint said 502"),
                Cause::EndpointFailed | Cause::ConnectionLost => Some("error lost a"),
            };
            let (_, after) = next(&record, cause, Room::On("b"));
            assert_eq!(after.error.as_ref().map(error_in_words).as_deref(), expected, "{state}, {cause:?}");
        }
    }
}

#[test]
fn step_1_a_crash_may_be_without_words() {
    let record = in_phase(Phase::Running { host: host("a") });
    let wordless = next_event(&record, EventKind::Stopped { error: true, message: None });
    let after = step_at(NOW, &record, &wordless, Room::NoHosts).record;
    assert_eq!(after.error, Some(ActorError::Crashed { message: None }));
    // Words that come with an end in order are no error.
    let record = stopping(StopWish::Sleep { rewake: false });
    let in_order = next_event(&record, EventKind::Stopped { error: false, message: Some("bye".into()) });
    assert_eq!(step_at(NOW, &record, &in_order, Room::NoHosts).record.error, None);
}

#[test]
fn steps_2_and_3_it_is_let_go_and_a_host_that_may_still_have_it_is_told() {
    for (state, record, decided) in decisions() {
        for (cause, decision) in CAUSES.into_iter().zip(decided) {
            if decision == Next::Unmoved {
                continue;
            }
            let stepped = step_at(NOW, &record, &cause.input(&record), Room::On("b"));
            assert_eq!(stepped.record.connectable_ts, None, "{state}, {cause:?}");
            let told: Vec<_> = stepped
                .commands
                .iter()
                .filter(|command| command.command == Command::Stop(StopReason::Lost))
                .map(|command| (&command.host, command.generation, command.index))
                .collect();
            let expected = match cause {
                Cause::StoppedOk | Cause::StoppedError => vec![],
                Cause::NoResponse | Cause::ConnectionLost | Cause::EndpointFailed => {
                    vec![(record.host().unwrap(), 3, record.last_command_index + 1)]
                }
            };
            assert_eq!(told, expected, "{state}, {cause:?}");
        }
    }
}

#[test]
fn step_4_what_comes_next_depends_on_the_state_and_the_cause() {
    for (state, record, decided) in decisions() {
        for (cause, expected) in CAUSES.into_iter().zip(decided) {
            assert_eq!(next(&record, cause, Room::On("b")).0, expected, "{state}, {cause:?}");
        }
    }
}

#[test]
fn step_5_a_due_alarm_starts_it_again_instead_of_letting_it_sleep() {
    for (state, record, decided) in decisions() {
        for (cause, decision) in CAUSES.into_iter().zip(decided) {
            let due = ActorRecord { alarm_ts: Some(NOW), ..record.clone() };
            let expected = match (decision, cause) {
                // Published: at once here too. But whoever gave no answer would give none again, for ever.
                (Next::Asleep, Cause::NoResponse) => Next::Waiting,
                (Next::Asleep, _) => Next::StartedAgain,
                (other, _) => other,
            };
            assert_eq!(next(&due, cause, Room::On("b")).0, expected, "{state}, {cause:?}");
            // One that lies ahead does not count.
            let ahead = ActorRecord { alarm_ts: Some(NOW + 1), ..record.clone() };
            assert_eq!(next(&ahead, cause, Room::On("b")).0, decision, "{state}, {cause:?}");
        }
    }
}

#[test]
fn step_6_without_room_a_start_becomes_a_wait() {
    for (state, record, decided) in decisions() {
        for (cause, decision) in CAUSES.into_iter().zip(decided) {
            let expected = if decision == Next::StartedAgain { Next::Waiting } else { decision };
            let (found, after) = next(&record, cause, Room::NoHosts);
            assert_eq!(found, expected, "{state}, {cause:?}");
            // Step 7.
            let rests = matches!(found, Next::Asleep | Next::Waiting);
            assert_eq!(after.sleep_ts, rests.then_some(NOW), "{state}, {cause:?}");
        }
    }
}

#[test]
fn a_host_that_is_not_known_cannot_be_told() {
    for (cause, error) in [(Cause::NoResponse, "error no response"), (Cause::EndpointFailed, "error endpoint said 502")] {
        let record = in_phase(Phase::Starting { place: Place::Outbound, deadline: NOW, then: AfterStart::Run });
        let stepped = step_at(NOW, &record, &cause.input(&record), Room::Endpoint);
        assert_eq!((&stepped.record.phase, stepped.commands.as_slice()), (&Phase::Sleeping, [].as_slice()), "{cause:?}");
        assert_eq!(stepped.record.error.as_ref().map(error_in_words).as_deref(), Some(error));
    }
}
