//! The pace of allocation attempts (`spec/scheduling.md` 3.8 and 15).

use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, EventKind, Ignored, Input, Outcome, Phase, Rules};

use crate::scene::{
    FAILING_FOR_MS, NOW, RULES, Room, STOP_THRESHOLD_MS, bad_gateway, crashed, new_actor, next_event, outbound_failed, step_at,
    step_under,
};

#[test]
fn the_pace_slows_down_and_ends_in_sleep() {
    let mut record = step_at(NOW, &new_actor(), &Input::Wake, Room::NoHosts).record;
    let mut attempts = Vec::new();
    while let Some(retry_at) = record.reschedule_ts() {
        attempts.push((retry_at - NOW) / 1000);
        record = step_at(retry_at, &record, &Input::DeadlineReached, Room::NoHosts).record;
    }
    // Given up at the first attempt that fails five minutes or more after the first failure.
    assert_eq!(attempts, [2, 6, 14, 30, 62, 126, 254, 510]);
    assert_eq!((record.phase.clone(), record.generation, record.next_deadline()), (Phase::Sleeping, 0, None));
    // Somebody who asks starts a new series.
    let asked: Ts = NOW + 600_000;
    let record = step_at(asked, &record, &Input::Wake, Room::NoHosts).record;
    assert!(record.reschedule_ts().is_some_and(|retry_at| retry_at > asked));
}

#[test]
fn traffic_does_not_lengthen_the_wait() {
    let record = step_at(NOW, &new_actor(), &Input::Wake, Room::NoHosts).record;
    for millis in 0..1_000 {
        let asked = step_at(NOW + millis, &record, &Input::Wake, Room::NoHosts);
        assert_eq!(asked.outcome, Outcome::Ignored(Ignored::AlreadyUnderWay));
    }
    let started = step_at(NOW + 1_000, &record, &Input::Wake, Room::On("a"));
    assert_eq!((started.commands.len(), started.record.reschedule_ts()), (1, None));
}

#[test]
fn a_quiet_time_brings_the_first_pace_back() {
    let fails = |at: Ts, record: &ActorRecord| {
        let waiting = step_at(at, record, &Input::Wake, Room::NoHosts).record;
        let pace = waiting.reschedule_ts().unwrap() - at;
        (step_at(at, &waiting, &Input::Sleep, Room::NoHosts).record, pace)
    };
    let (record, first) = fails(NOW, &new_actor());
    let (record, second) = fails(NOW + 1, &record);
    let (record, at_the_edge) = fails(NOW + 1 + 600_000, &record);
    let (_, after_it) = fails(NOW + 1 + 600_000 + 600_001, &record);
    assert_eq!([first, second, at_the_edge, after_it], [2_000, 4_000, 8_000, 2_000]);
}

#[test]
fn a_run_in_between_gives_the_next_series_its_full_time() {
    let waiting = step_at(NOW, &new_actor(), &Input::Wake, Room::NoHosts).record;
    let starting = step_at(NOW + 1_000, &waiting, &Input::CapacityArrived, Room::On("a")).record;
    let running = step_at(NOW + 1_000, &starting, &next_event(&starting, EventKind::Running), Room::NoHosts).record;
    let later: Ts = NOW + 400_000;
    let asleep = step_at(later, &running, &next_event(&running, crashed()), Room::NoHosts).record;
    let waiting = step_at(later, &asleep, &Input::Wake, Room::NoHosts).record;
    assert!(matches!(waiting.phase, Phase::Reallocating { .. }), "given up at once: {waiting:?}");
}

#[test]
fn a_base_of_zero_is_no_busy_loop() {
    let rules = Rules { retry_base_ms: 0, ..RULES };
    let waiting = step_under(&rules, STOP_THRESHOLD_MS, NOW, &new_actor(), &Input::Wake, Room::NoHosts).record;
    assert_eq!(waiting.reschedule_ts(), Some(NOW + 1));
}

#[test]
fn a_full_pool_is_waited_for_like_a_host_and_a_failing_one_at_its_own_pace() {
    let full = step_at(NOW, &new_actor(), &Input::Wake, Room::Limit).record;
    assert_eq!(full.reschedule_ts(), Some(NOW + 2_000));
    let failing = step_at(NOW, &new_actor(), &Input::Wake, Room::Failing).record;
    assert_eq!(failing.reschedule_ts(), Some(NOW + FAILING_FOR_MS));
    // The pool's pace does not count for the next wait for a host.
    let retry_at = NOW + FAILING_FOR_MS;
    let without_host = step_at(retry_at, &failing, &Input::DeadlineReached, Room::NoHosts).record;
    assert_eq!(without_host.reschedule_ts(), Some(retry_at + 2_000));
}

#[test]
fn waits_of_all_kinds_end_after_five_minutes_together() {
    let mut record = step_at(NOW, &new_actor(), &Input::Wake, Room::NoHosts).record;
    let rooms = [Room::Failing, Room::Limit, Room::Failing, Room::NoHosts, Room::EngineStops];
    let mut now = NOW;
    for room in rooms.into_iter().cycle() {
        let Some(retry_at) = record.reschedule_ts() else { break };
        assert!(now < NOW + RULES.retry_give_up_ms, "an attempt after {} ms", now - NOW);
        now = retry_at;
        record = step_at(now, &record, &Input::DeadlineReached, room).record;
    }
    assert!(now >= NOW + RULES.retry_give_up_ms, "given up after {} ms", now - NOW);
    assert_eq!((record.phase.clone(), record.next_deadline()), (Phase::Sleeping, None));
}

#[test]
fn a_refused_start_is_not_repeated_by_itself() {
    let asked = step_at(NOW, &new_actor(), &Input::Wake, Room::Endpoint).record;
    let refused = step_at(NOW + 10, &asked, &outbound_failed(&asked, bad_gateway()), Room::Endpoint).record;
    assert_eq!((refused.phase.clone(), refused.next_deadline()), (Phase::Sleeping, None));
    // Whoever asks meanwhile waits for the pool.
    let woken = step_at(NOW + 20, &refused, &Input::Wake, Room::Failing).record;
    assert_eq!(woken.reschedule_ts(), Some(NOW + 20 + FAILING_FOR_MS));
    let again = step_at(NOW + 720, &woken, &Input::CapacityArrived, Room::Endpoint).record;
    assert_eq!((again.generation, again.error.clone()), (2, None));
}
