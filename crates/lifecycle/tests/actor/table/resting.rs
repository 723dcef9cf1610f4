//! Sleeping, Reallocating and Destroyed: no host has the actor. And how it gets one.

use super::*;
use crate::scene::error_in_words;

#[test]
fn sleeping_without_an_alarm() {
    check_row(
        &sleeping(),
        &[
            spec(&["wake"], "starting on b until +30000; generation 4; no sleep; start 4.1 on b"),
            spec(&["destroy"], "destroyed; destroy +0"),
            spec(&["due"], "ignored: NotDue"),
            spec(
                &["capacity", "sleep", "reschedule", "evict", "a found", "endpoint failed", "request ended"],
                "ignored: NotRunning",
            ),
            spec(&["a lost"], "ignored: Stale"),
            spec(&EVENTS, "ignored: Stale"),
        ],
    );
}

#[test]
fn sleeping_with_an_alarm() {
    let alarm = |ts| ActorRecord { alarm_ts: Some(ts), ..sleeping() };
    let words = |record: &ActorRecord, name| in_words(record, &step_at(NOW, record, &input(name, record), Room::On("b")), NOW);
    let woken = "starting on b until +30000; generation 4; no sleep; start 4.1 on b";
    let woken_by_alarm = "starting on b until +30000; generation 4; no alarm; served alarm -1; no sleep; start 4.1 on b";
    // One that lies ahead stays, whoever wakes the actor earlier.
    assert_eq!(words(&alarm(NOW + 1), "wake"), woken);
    assert_eq!(words(&alarm(NOW + 1), "due"), "ignored: NotDue");
    assert_eq!(words(&alarm(NOW - 1), "wake"), woken_by_alarm);
    assert_eq!(words(&alarm(NOW - 1), "due"), woken_by_alarm);
    assert_eq!(words(&alarm(NOW - 1), "destroy"), "destroyed; no alarm; destroy +0");
}

#[test]
fn waiting_for_a_place() {
    check_row(
        &reallocating(),
        &[
            spec(&["due"], "starting on b until +30000; generation 4; no sleep; start 4.1 on b"),
            ours(
                &["wake"],
                "starting on b until +30000; generation 4; no sleep; start 4.1 on b",
                "lengthens the wait without an attempt",
            ),
            ours(
                &["capacity"],
                "starting on b until +30000; generation 4; no sleep; start 4.1 on b",
                "a new host is not noticed before the next attempt",
            ),
            spec(&["sleep"], "sleeping"),
            spec(&["destroy"], "destroyed; destroy +0"),
            spec(&["reschedule", "evict", "a found", "endpoint failed", "request ended"], "ignored: NotRunning"),
            spec(&["a lost"], "ignored: Stale"),
            spec(&EVENTS, "ignored: Stale"),
        ],
    );
}

#[test]
fn destroyed() {
    check_row(&in_phase(Phase::Destroyed), &[spec(&INPUTS, "ignored: Destroyed")]);
}

/// Every way to a start, and what it says besides the place.
fn ways_to_a_start() -> [(ActorRecord, &'static str, &'static str); 6] {
    [
        (sleeping(), "wake", ""),
        (ActorRecord { alarm_ts: Some(NOW), ..sleeping() }, "due", ""),
        (reallocating(), "due", ""),
        (stopping(StopWish::Sleep { rewake: true }), "stopped", ""),
        (stopping(StopWish::Move), "due", "; stop 3.3 on a Lost"),
        (starting(AfterStart::Move), "a lost", "; stop 3.2 on a Lost"),
    ]
}

#[test]
fn a_start_goes_where_there_is_room() {
    for (record, name, _) in ways_to_a_start() {
        let at = |room| step_at(NOW, &record, &input(name, &record), room);
        let on_host = at(Room::On("b"));
        assert_eq!(on_host.record.host(), Some(&host("b")), "{name} in {:?}", record.phase);
        assert_eq!((on_host.record.last_command_index, on_host.record.acked_command_index), (1, 0));
        let asked_for = at(Room::Endpoint);
        let place = Phase::Starting { place: Place::Outbound, deadline: NOW + 30_000, then: AfterStart::Run };
        assert_eq!(asked_for.record.phase, place, "{name} in {:?}", record.phase);
        assert_eq!((asked_for.record.last_command_index, asked_for.record.acked_command_index), (0, -1));
        for started in [on_host.record, asked_for.record] {
            assert_eq!((started.generation, started.last_event_index, started.error, started.sleep_ts), (4, -1, None, None));
        }
    }
}

#[test]
fn without_room_every_start_becomes_a_wait() {
    let shortages = [
        (Room::NoHosts, 2_000, "error no envoys"),
        (Room::Limit, 2_000, "error limit reached"),
        (Room::Failing, 700, "error endpoint said 502"),
    ];
    for (record, name, told) in ways_to_a_start() {
        for (room, delay_ms, error) in shortages {
            let stepped = step_at(NOW, &record, &input(name, &record), room);
            let what = format!("{name} in {:?} with {room:?}", record.phase);
            assert_eq!(stepped.record.reschedule_ts(), Some(NOW + delay_ms), "{what}");
            assert_eq!(stepped.record.error.as_ref().map(error_in_words).as_deref(), Some(error), "{what}");
            assert_eq!((stepped.record.sleep_ts, stepped.record.connectable_ts), (Some(NOW), None), "{what}");
            assert_eq!(stepped.record.generation, 3, "a failed attempt costs no generation: {what}");
            assert!(in_words(&record, &stepped, NOW).ends_with(told), "{what}");
        }
    }
}
