//! What every single step must keep to, whatever the record and the input.

use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, AfterStart, Command, EventKind, Ignored, Input, Outcome, Phase, Step, StopReason, StopWish};

use crate::scene::{host, next_event, step_at, stopped};

/// Panics, naming both states, if the step breaks a rule.
pub(crate) fn check(before: &ActorRecord, input: &Input, now: Ts, step: &Step) {
    let broken = broken_rule(before, input, now, step);
    assert_eq!(broken, None, "at {now}: {input:?} made\n{before:#?}\ninto\n{step:#?}");
}

fn broken_rule(before: &ActorRecord, input: &Input, now: Ts, step: &Step) -> Option<&'static str> {
    let after = &step.record;
    let rules = [
        ("what is ignored changes nothing", keeps_what_is_ignored(before, step)),
        ("a destroyed record never changes", !before.is_destroyed() || step.outcome == Outcome::Ignored(Ignored::Destroyed)),
        ("identity and creation stay", before.identity == after.identity),
        ("a generation begins with its start command, and only so", generation_begins_with_start(before, step)),
        ("commands of a generation count on from the start command's 1", commands_count_on(before, step)),
        ("one generation lives at most", one_generation_lives(before, input, step)),
        ("only a hosted actor is connectable", after.connectable_ts.is_none() || after.host().is_some()),
        ("a starting actor is not connectable", after.connectable_ts.is_none() || !matches!(after.phase, Phase::Starting { .. })),
        ("a hosted actor has no error", after.host().is_none() || after.error.is_none()),
        ("an actor that should not or cannot run shows since when", shows_since_when(after)),
        ("the first start stays", before.start_ts.is_none() || before.start_ts == after.start_ts),
        ("a deadline that was handled is over", deadline_is_over(input, now, after)),
        ("a due alarm stays until a host takes it", due_alarm_stays(before, input, now, after)),
        ("an alarm taken by a start stays until it is served", taken_alarm_stays(before, input, after)),
        ("waking never lengthens the wait", waking_never_delays(before, input, after)),
        ("a wish to destroy stays", !is_doomed(before) || is_doomed(after)),
        ("asking for destruction is enough", *input != Input::Destroy || is_doomed(after)),
        ("no acknowledgement without command", after.acked_command_index <= after.last_command_index),
    ];
    rules.into_iter().find(|(_, holds)| !holds).map(|(rule, _)| rule)
}

fn keeps_what_is_ignored(before: &ActorRecord, step: &Step) -> bool {
    match step.outcome {
        Outcome::Ignored(_) => step.record == *before && step.commands.is_empty(),
        Outcome::Applied => step.record != *before,
    }
}

fn generation_begins_with_start(before: &ActorRecord, step: &Step) -> bool {
    let after = &step.record;
    let starts: Vec<_> = step.commands.iter().filter(|command| command.command == Command::Start).collect();
    match starts.as_slice() {
        [] => after.generation == before.generation,
        [start] => {
            after.generation == before.generation + 1
                && (start.generation, start.index) == (after.generation, 1)
                && after.host() == Some(&start.host)
                && (after.last_event_index, after.acked_command_index) == (-1, 0)
                && matches!(after.phase, Phase::Starting { then: AfterStart::Run, .. })
        }
        [_, _, ..] => false,
    }
}

fn commands_count_on(before: &ActorRecord, step: &Step) -> bool {
    let mut last = (before.generation, before.last_command_index);
    for command in &step.commands {
        let expected = match command.command {
            Command::Start => (last.0 + 1, 1),
            // A stop of the index 0 or 1 would be ignored by hosts.
            Command::Stop(_) if last.1 < 1 => return false,
            Command::Stop(_) => (last.0, last.1 + 1),
        };
        if (command.generation, command.index) != expected {
            return false;
        }
        last = expected;
    }
    last == (step.record.generation, step.record.last_command_index)
}

/// A new generation may begin only when the old one has said that it is over, or its host has been told to end it.
fn one_generation_lives(before: &ActorRecord, input: &Input, step: &Step) -> bool {
    let Some(old_host) = before.host() else { return true };
    if step.record.host() == Some(old_host) && step.record.generation == before.generation {
        return true;
    }
    let said_so = matches!(input, Input::Event { kind: EventKind::Stopped { .. }, .. });
    let told = step.commands.first().is_some_and(|first| {
        first.host == *old_host && first.generation == before.generation && first.command == Command::Stop(StopReason::Lost)
    });
    said_so != told
}

fn shows_since_when(record: &ActorRecord) -> bool {
    let new = record.generation == 0;
    !matches!(record.phase, Phase::Sleeping | Phase::Reallocating { .. }) || record.sleep_ts.is_some() || new
}

fn deadline_is_over(input: &Input, now: Ts, after: &ActorRecord) -> bool {
    *input != Input::DeadlineReached || after.next_deadline().is_none_or(|deadline| deadline > now)
}

fn sets_alarm(input: &Input) -> bool {
    matches!(input, Input::Event { kind: EventKind::SetAlarm(_), .. })
}

fn due_alarm_stays(before: &ActorRecord, input: &Input, now: Ts, after: &ActorRecord) -> bool {
    let due = before.alarm_ts.is_some_and(|alarm| alarm <= now);
    let taken = after.generation > before.generation && after.served_alarm_ts == before.alarm_ts;
    !due || after.alarm_ts == before.alarm_ts || taken || after.is_destroyed() || sets_alarm(input)
}

fn taken_alarm_stays(before: &ActorRecord, input: &Input, after: &ActorRecord) -> bool {
    let Some(taken) = before.served_alarm_ts else {
        return after.served_alarm_ts.is_none() || after.generation > before.generation;
    };
    let host_had_its_chance = sets_alarm(input)
        || *input == Input::DeadlineReached
        || matches!(input, Input::Event { kind: EventKind::Stopped { .. }, .. });
    before.alarm_ts.is_none()
        && (host_had_its_chance || after.is_destroyed() || after.served_alarm_ts == Some(taken) || after.alarm_ts == Some(taken))
}

fn waking_never_delays(before: &ActorRecord, input: &Input, after: &ActorRecord) -> bool {
    let (Some(old), Some(new)) = (before.reschedule_ts(), after.reschedule_ts()) else { return true };
    !matches!(input, Input::Wake | Input::CapacityArrived) || old == new
}

fn is_doomed(record: &ActorRecord) -> bool {
    matches!(
        record.phase,
        Phase::Destroyed | Phase::Starting { then: AfterStart::Destroy, .. } | Phase::Stopping { wish: StopWish::Destroy, .. }
    )
}

/// Panics unless everything that speaks of another generation, another host or the past is ignored.
pub(crate) fn check_strangers_are_ignored(record: &ActorRecord, now: Ts) {
    let kinds = [EventKind::Running, stopped(), EventKind::IntentSleep, EventKind::IntentStop, EventKind::SetAlarm(Some(now))];
    let mut strangers = vec![Input::HostLost { host: host("stranger") }, Input::Evict { generation: record.generation + 1 }];
    for kind in kinds {
        let Input::Event { host: its_host, generation, index, kind } = next_event(record, kind) else { unreachable!() };
        let event = |host, generation, index| Input::Event { host, generation, index, kind: kind.clone() };
        strangers.push(event(host("stranger"), generation, index));
        strangers.push(event(its_host.clone(), generation + 1, index));
        strangers.push(event(its_host.clone(), generation, index - 1));
        if let Some(past) = generation.checked_sub(1) {
            strangers.push(event(its_host, past, i64::MAX));
        }
    }
    for stranger in strangers {
        let step = step_at(now, record, &stranger, Some("b"));
        assert!(matches!(step.outcome, Outcome::Ignored(_)), "{stranger:?} in {record:#?}");
        check(record, &stranger, now, &step);
    }
}
