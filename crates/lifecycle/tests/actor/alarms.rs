//! Alarms and wishes over several steps (`spec/scheduling.md` 4 and 15).

use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, EventKind, Input, Phase};

use crate::scene::{NOW, crashed, in_words, new_actor, next_event, step_at, stopped};

/// Applies inputs one after another at `now`, with host `a` at hand.
fn after(mut record: ActorRecord, now: Ts, steps: &[&dyn Fn(&ActorRecord) -> Input]) -> ActorRecord {
    for make in steps {
        record = step_at(now, &record, &make(&record), Some("a")).record;
    }
    record
}

fn wake(_: &ActorRecord) -> Input {
    Input::Wake
}

fn due(_: &ActorRecord) -> Input {
    Input::DeadlineReached
}

fn runs(record: &ActorRecord) -> Input {
    next_event(record, EventKind::Running)
}

fn wants_sleep(record: &ActorRecord) -> Input {
    next_event(record, EventKind::IntentSleep)
}

fn has_stopped(record: &ActorRecord) -> Input {
    next_event(record, stopped())
}

fn has_crashed(record: &ActorRecord) -> Input {
    next_event(record, crashed())
}

fn host_is_lost(_: &ActorRecord) -> Input {
    Input::HostLost { host: crate::scene::host("a") }
}

fn alarm_at(ts: Option<Ts>) -> impl Fn(&ActorRecord) -> Input {
    move |record| next_event(record, EventKind::SetAlarm(ts))
}

const SOON: Ts = NOW + 500;

/// An actor that sleeps, to be woken at [`SOON`].
fn sleeper() -> ActorRecord {
    after(new_actor(), NOW, &[&wake, &runs, &alarm_at(Some(SOON)), &wants_sleep, &has_stopped])
}

#[test]
fn an_alarm_wakes_and_is_taken_once() {
    let record = sleeper();
    assert_eq!(record.next_deadline(), Some(SOON));
    let woken = step_at(SOON, &record, &Input::DeadlineReached, Some("a"));
    assert_eq!(
        in_words(&record, &woken, SOON),
        "starting on a until +30000; generation 2; no alarm; served alarm +0; no sleep; start 2.1 on a"
    );
    let asleep_again = after(woken.record, SOON, &[&runs, &wants_sleep, &has_stopped]);
    assert_eq!((asleep_again.phase.clone(), asleep_again.next_deadline()), (Phase::Sleeping, None));
}

#[test]
fn an_alarm_survives_a_run_in_between_without_being_set_again() {
    let record = after(sleeper(), NOW + 100, &[&wake, &runs, &wants_sleep, &has_stopped]);
    assert_eq!((record.generation, record.next_deadline()), (2, Some(SOON)));
}

#[test]
fn a_cleared_alarm_does_not_fire() {
    let record = after(sleeper(), NOW + 100, &[&wake, &runs, &alarm_at(None), &wants_sleep, &has_stopped]);
    assert_eq!(record.next_deadline(), None);
}

#[test]
fn an_alarm_that_is_due_when_the_actor_stops_starts_it_again() {
    for ending in [&has_stopped as &dyn Fn(&ActorRecord) -> Input, &has_crashed, &host_is_lost] {
        // Set while it stops: that counts too.
        let record = after(new_actor(), NOW, &[&wake, &runs, &wants_sleep, &alarm_at(Some(NOW - 1)), ending]);
        assert!(matches!(record.phase, Phase::Starting { .. }), "{record:?}");
        assert_eq!(record.generation, 2);
    }
}

#[test]
fn a_crash_leaves_a_future_alarm() {
    let record = after(new_actor(), NOW, &[&wake, &runs, &alarm_at(Some(SOON)), &has_crashed]);
    assert_eq!((record.phase.clone(), record.next_deadline()), (Phase::Sleeping, Some(SOON)));
}

#[test]
fn a_due_alarm_without_a_host_stays_until_there_is_one() {
    let mut record = sleeper();
    let mut now = SOON;
    for _attempt in 0..20 {
        record = step_at(now, &record, &Input::DeadlineReached, None).record;
        assert_eq!(record.alarm_ts, Some(SOON));
        now = record.next_deadline().unwrap();
    }
    let started = step_at(now, &record, &Input::CapacityArrived, Some("a"));
    assert_eq!((started.commands.len(), started.record.alarm_ts), (1, None));
}

#[test]
fn an_alarm_whose_start_was_lost_with_the_host_is_served_elsewhere() {
    let starting = step_at(SOON, &sleeper(), &Input::DeadlineReached, Some("a")).record;
    let running = after(starting.clone(), SOON, &[&runs]);
    for unserved in [starting, running] {
        let moved = step_at(SOON + 9, &unserved, &host_is_lost(&unserved), Some("b"));
        assert_eq!(moved.record.host().map(|host| host.as_str()), Some("b"), "{unserved:?}");
        // Nor does it get lost while there is no other host.
        let waiting = step_at(SOON + 9, &unserved, &host_is_lost(&unserved), None).record;
        assert_eq!((waiting.alarm_ts, waiting.reschedule_ts()), (Some(SOON), Some(SOON + 2_009)));
    }
}

#[test]
fn an_alarm_is_spent_when_the_host_has_had_its_chance() {
    let starting = step_at(SOON, &sleeper(), &Input::DeadlineReached, Some("a")).record;
    // It set another alarm, or none, and is lost later.
    let spoken = after(starting.clone(), SOON, &[&runs, &alarm_at(None), &host_is_lost]);
    assert_eq!((spoken.phase.clone(), spoken.next_deadline()), (Phase::Sleeping, None));
    // It crashes, or hangs, at each start: once more would be for ever more.
    let crashed = after(starting.clone(), SOON, &[&has_crashed]);
    assert_eq!((crashed.phase.clone(), crashed.next_deadline()), (Phase::Sleeping, None));
    let hung = after(starting, SOON + 30_000, &[&due]);
    assert_eq!((hung.phase.clone(), hung.next_deadline()), (Phase::Sleeping, None));
}

#[test]
fn a_wish_to_sleep_during_the_start_does_not_swallow_the_alarm_of_that_start() {
    let starting = step_at(SOON, &sleeper(), &Input::DeadlineReached, Some("a")).record;
    let record = after(starting, SOON, &[&|_| Input::Sleep, &runs, &has_stopped]);
    assert_eq!((record.generation, matches!(record.phase, Phase::Starting { .. })), (3, true));
}
