//! The pace of allocation attempts (`spec/scheduling.md` 3.8 and 15).

use lifecycle::Ts;
use lifecycle::actor::{EventKind, Ignored, Input, Outcome, Phase, Rules, World, step};

use crate::scene::{NOW, RULES, crashed, new_actor, next_event, step_at};

#[test]
fn the_pace_slows_down_and_ends_in_sleep() {
    let mut record = step_at(NOW, &new_actor(), &Input::Wake, None).record;
    let mut attempts = Vec::new();
    while let Some(retry_at) = record.reschedule_ts() {
        attempts.push((retry_at - NOW) / 1000);
        record = step_at(retry_at, &record, &Input::DeadlineReached, None).record;
    }
    // Given up at the first attempt that fails five minutes or more after the first failure.
    assert_eq!(attempts, [2, 6, 14, 30, 62, 126, 254, 510]);
    assert_eq!((record.phase.clone(), record.generation, record.next_deadline()), (Phase::Sleeping, 0, None));
    // Somebody who asks starts a new series.
    let asked: Ts = NOW + 600_000;
    let record = step_at(asked, &record, &Input::Wake, None).record;
    assert!(record.reschedule_ts().is_some_and(|retry_at| retry_at > asked));
}

#[test]
fn traffic_does_not_lengthen_the_wait() {
    let record = step_at(NOW, &new_actor(), &Input::Wake, None).record;
    for millis in 0..1_000 {
        let asked = step_at(NOW + millis, &record, &Input::Wake, None);
        assert_eq!(asked.outcome, Outcome::Ignored(Ignored::AlreadyUnderWay));
    }
    let started = step_at(NOW + 1_000, &record, &Input::Wake, Some("a"));
    assert_eq!((started.commands.len(), started.record.reschedule_ts()), (1, None));
}

#[test]
fn a_quiet_time_brings_the_first_pace_back() {
    let fails = |at: Ts, record: &lifecycle::actor::ActorRecord| {
        let waiting = step_at(at, record, &Input::Wake, None).record;
        let pace = waiting.reschedule_ts().unwrap() - at;
        (step_at(at, &waiting, &Input::Sleep, None).record, pace)
    };
    let (record, first) = fails(NOW, &new_actor());
    let (record, second) = fails(NOW + 1, &record);
    let (record, at_the_edge) = fails(NOW + 1 + 600_000, &record);
    let (_, after_it) = fails(NOW + 1 + 600_000 + 600_001, &record);
    assert_eq!([first, second, at_the_edge, after_it], [2_000, 4_000, 8_000, 2_000]);
}

#[test]
fn a_run_in_between_gives_the_next_series_its_full_time() {
    let waiting = step_at(NOW, &new_actor(), &Input::Wake, None).record;
    let starting = step_at(NOW + 1_000, &waiting, &Input::CapacityArrived, Some("a")).record;
    let running = step_at(NOW + 1_000, &starting, &next_event(&starting, EventKind::Running), None).record;
    let later: Ts = NOW + 400_000;
    let asleep = step_at(later, &running, &next_event(&running, crashed()), None).record;
    let waiting = step_at(later, &asleep, &Input::Wake, None).record;
    assert!(matches!(waiting.phase, Phase::Reallocating { .. }), "given up at once: {waiting:?}");
}

#[test]
fn a_base_of_zero_is_no_busy_loop() {
    let rules = Rules { retry_base_ms: 0, ..RULES };
    let world = World { now: NOW, rules: &rules, candidate: None };
    let waiting = step(&new_actor(), &Input::Wake, &world).record;
    assert_eq!(waiting.reschedule_ts(), Some(NOW + 1));
}
