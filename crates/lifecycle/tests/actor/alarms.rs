//! Alarms and wishes over several steps (`spec/scheduling.md` 4 and 15).

use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, EventKind, Input, Phase};

use crate::scene::{
    FAILING_FOR_MS, NOW, Room, bad_gateway, crashed, host_found, host_lost, in_words, new_actor, next_event, outbound_failed,
    step_at, stopped,
};

/// Applies inputs one after another at `now`, with host `a` at hand.
fn after(mut record: ActorRecord, now: Ts, steps: &[&dyn Fn(&ActorRecord) -> Input]) -> ActorRecord {
    for make in steps {
        record = step_at(now, &record, &make(&record), Room::On("a")).record;
    }
    record
}

fn wake(_: &ActorRecord) -> Input {
    Input::Wake
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
    let woken = step_at(SOON, &record, &Input::DeadlineReached, Room::On("a"));
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
    for ending in [&has_stopped as &dyn Fn(&ActorRecord) -> Input, &has_crashed, &host_lost] {
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
        record = step_at(now, &record, &Input::DeadlineReached, Room::NoHosts).record;
        assert_eq!(record.alarm_ts, Some(SOON));
        now = record.next_deadline().unwrap();
    }
    let started = step_at(now, &record, &Input::CapacityArrived, Room::On("a"));
    assert_eq!((started.commands.len(), started.record.alarm_ts), (1, None));
}

#[test]
fn an_alarm_whose_start_was_lost_with_the_host_is_served_elsewhere() {
    let starting = step_at(SOON, &sleeper(), &Input::DeadlineReached, Room::On("a")).record;
    let running = after(starting.clone(), SOON, &[&runs]);
    for unserved in [starting, running] {
        let moved = step_at(SOON + 9, &unserved, &host_lost(&unserved), Room::On("b"));
        assert_eq!(moved.record.host().map(|host| host.as_str()), Some("b"), "{unserved:?}");
        // Nor does it get lost while there is no other host.
        let waiting = step_at(SOON + 9, &unserved, &host_lost(&unserved), Room::NoHosts).record;
        assert_eq!((waiting.alarm_ts, waiting.reschedule_ts()), (Some(SOON), Some(SOON + 2_009)));
    }
}

#[test]
fn an_alarm_is_spent_when_the_host_has_had_its_chance() {
    let starting = step_at(SOON, &sleeper(), &Input::DeadlineReached, Room::On("a")).record;
    // It set another alarm, or none, and is lost later.
    let spoken = after(starting.clone(), SOON, &[&runs, &alarm_at(None), &host_lost]);
    assert_eq!((spoken.phase.clone(), spoken.next_deadline()), (Phase::Sleeping, None));
    // It crashes at the start: once more would be for ever more.
    let crashed = after(starting, SOON, &[&has_crashed]);
    assert_eq!((crashed.phase.clone(), crashed.next_deadline()), (Phase::Sleeping, None));
}

#[test]
fn an_alarm_outlives_hosts_that_are_silently_dead() {
    // The start's deadline passes before anybody notices that the host is gone. That may happen again, so there is no hurry.
    let mut record = step_at(SOON, &sleeper(), &Input::DeadlineReached, Room::On("a")).record;
    let mut pauses = Vec::new();
    for _host in 0..5 {
        let silent_since = record.next_deadline().unwrap();
        record = step_at(silent_since, &record, &Input::DeadlineReached, Room::On("a")).record;
        assert_eq!((record.alarm_ts, record.served_alarm_ts), (Some(SOON), None));
        let again_at = record.reschedule_ts().unwrap();
        pauses.push(again_at - silent_since);
        record = step_at(again_at, &record, &Input::DeadlineReached, Room::On("a")).record;
    }
    assert_eq!(pauses, [2_000, 4_000, 8_000, 16_000, 32_000]);
    assert_eq!((record.generation, record.served_alarm_ts), (7, Some(SOON)));
}

#[test]
fn an_alarm_outlives_an_endpoint_that_fails() {
    let asked = step_at(SOON, &sleeper(), &Input::DeadlineReached, Room::Endpoint).record;
    assert_eq!(asked.served_alarm_ts, Some(SOON));
    // The pool keeps the pace.
    let waiting = step_at(SOON + 5, &asked, &outbound_failed(&asked, bad_gateway()), Room::Failing).record;
    assert_eq!((waiting.alarm_ts, waiting.reschedule_ts()), (Some(SOON), Some(SOON + 5 + FAILING_FOR_MS)));
    // Nor is it lost with a host that came forward and went.
    let asked = step_at(SOON + 800, &waiting, &Input::DeadlineReached, Room::Endpoint).record;
    let running = after(asked, SOON + 800, &[&host_found, &runs]);
    let asked_again = step_at(SOON + 900, &running, &host_lost(&running), Room::Endpoint).record;
    assert_eq!((asked_again.generation, asked_again.served_alarm_ts), (4, Some(SOON)));
}

#[test]
fn a_move_before_the_alarm_was_served_takes_it_along() {
    let starting = step_at(SOON, &sleeper(), &Input::DeadlineReached, Room::On("a")).record;
    let drained = |record: &ActorRecord| Input::Evict { generation: record.generation };
    let while_starting = after(starting.clone(), SOON, &[&drained, &runs]);
    let while_running = after(starting.clone(), SOON, &[&runs, &drained]);
    let never_ran = after(starting, SOON, &[&drained]);
    for moving in [while_starting, while_running, never_ran] {
        for ending in [&has_stopped as &dyn Fn(&ActorRecord) -> Input, &has_crashed] {
            let moved = step_at(SOON, &moving, &ending(&moving), Room::On("b")).record;
            assert_eq!((moved.generation, moved.served_alarm_ts), (3, Some(SOON)), "{moving:?}");
            // With nobody to take it, it would be given up in the end, and the alarm with it.
            let waiting = step_at(SOON, &moving, &ending(&moving), Room::NoHosts).record;
            assert_eq!(waiting.alarm_ts, Some(SOON), "{moving:?}");
        }
    }
}

#[test]
fn a_wish_to_sleep_during_the_start_does_not_swallow_the_alarm_of_that_start() {
    let starting = step_at(SOON, &sleeper(), &Input::DeadlineReached, Room::On("a")).record;
    let record = after(starting, SOON, &[&|_| Input::Sleep, &runs, &has_stopped]);
    assert_eq!((record.generation, matches!(record.phase, Phase::Starting { .. })), (3, true));
}
