//! Timestamps and errors over an actor's life (`spec/scheduling.md` 1.4 and 1.5). That they change at no other time is among
//! the rules that the walk checks at every step.

use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, EventKind, Input};

use crate::scene::{NOW, Room, crashed, error_in_words, host_lost, new_actor, next_event, step_at, stopped};

/// One thing that happens, a second after the one before.
struct Happening {
    what: &'static str,
    make: fn(&ActorRecord) -> Input,
    room: Room,
    /// All that is set then: names with seconds since the beginning, and the error.
    shows: &'static str,
}

fn happening(what: &'static str, make: fn(&ActorRecord) -> Input, room: Room, shows: &'static str) -> Happening {
    Happening { what, make, room, shows }
}

fn wake(_: &ActorRecord) -> Input {
    Input::Wake
}

fn runs(record: &ActorRecord) -> Input {
    next_event(record, EventKind::Running)
}

fn shown(record: &ActorRecord) -> String {
    let times = [
        ("start", record.start_ts),
        ("connectable", record.connectable_ts),
        ("sleep", record.sleep_ts),
        ("reschedule", record.reschedule_ts()),
        ("destroy", record.destroy_ts),
    ];
    let seconds = |ts: Ts| (ts - NOW) / 1_000;
    let mut words: Vec<String> = times.iter().filter_map(|(name, ts)| ts.map(|ts| format!("{name} {}", seconds(ts)))).collect();
    words.extend(record.error.as_ref().map(error_in_words));
    words.join(", ")
}

fn check_life(story: &[Happening]) {
    let mut record = new_actor();
    for (second, Happening { what, make, room, shows }) in (0..).zip(story) {
        record = step_at(NOW + second * 1_000, &record, &make(&record), *room).record;
        assert_eq!(shown(&record), *shows, "at {second}: {what}");
        assert_eq!(record.identity.create_ts, 1);
    }
}

#[test]
fn a_life_with_sleep_crash_and_loss() {
    let on_a = Room::On("a");
    check_life(&[
        happening("created", wake, Room::NoHosts, "sleep 0, reschedule 2, error no envoys"),
        happening("a host comes", |_| Input::CapacityArrived, on_a, ""),
        happening("runs", runs, on_a, "start 2, connectable 2"),
        // The sleep is shown from the intent on, before the actor has stopped.
        happening("wants sleep", |record| next_event(record, EventKind::IntentSleep), on_a, "start 2, sleep 3"),
        happening("stopped", |record| next_event(record, stopped()), on_a, "start 2, sleep 4"),
        happening("woken", wake, on_a, "start 2"),
        // A later run keeps the first start.
        happening("runs again", runs, on_a, "start 2, connectable 6"),
        happening("crashes", |record| next_event(record, crashed()), on_a, "start 2, sleep 7, error crashed boom"),
        // An attempt replaces the error, whatever comes of it. It is the second one that fails within ten minutes.
        happening("woken in vain", wake, Room::NoHosts, "start 2, sleep 8, reschedule 12, error no envoys"),
        happening("no longer wanted", |_| Input::Sleep, on_a, "start 2, sleep 8, error no envoys"),
        happening("woken", wake, on_a, "start 2"),
        happening("runs", runs, on_a, "start 2, connectable 11"),
        happening("its host is lost", host_lost, on_a, "start 2, sleep 12, error lost a"),
        happening("woken", wake, on_a, "start 2"),
        happening("never runs", |_| Input::Destroy, on_a, "start 2"),
        happening(
            "crashes at the start",
            |record| next_event(record, crashed()),
            on_a,
            "start 2, destroy 15, error crashed boom",
        ),
        happening("woken in vain", wake, on_a, "start 2, destroy 15, error crashed boom"),
    ]);
}

#[test]
fn what_stays_connectable_until_it_has_stopped() {
    let on_a = Room::On("a");
    check_life(&[
        happening("created", wake, on_a, ""),
        happening("runs", runs, on_a, "start 1, connectable 1"),
        happening("the API moves it", |_| Input::Reschedule, on_a, "start 1, connectable 1"),
        happening("stopped", |record| next_event(record, stopped()), on_a, "start 1"),
        happening("runs", runs, on_a, "start 1, connectable 4"),
        happening("the API destroys it", |_| Input::Destroy, on_a, "start 1, connectable 4"),
        happening("stopped", |record| next_event(record, stopped()), on_a, "start 1, destroy 6"),
    ]);
    check_life(&[
        happening("created", wake, on_a, ""),
        happening("runs", runs, on_a, "start 1, connectable 1"),
        happening("its host is drained", |record| Input::Evict { generation: record.generation }, on_a, "start 1"),
        happening(
            "stopped, and nobody else is there",
            |record| next_event(record, stopped()),
            Room::NoHosts,
            "start 1, sleep 3, reschedule 5, error no envoys",
        ),
    ]);
}

#[test]
fn a_process_that_ends_leaves_the_error_alone() {
    check_life(&[
        happening("created", wake, Room::On("a"), ""),
        happening("crashes", |record| next_event(record, crashed()), Room::On("a"), "sleep 1, error crashed boom"),
        happening("woken too late", wake, Room::EngineStops, "sleep 2, reschedule 4, error crashed boom"),
    ]);
}
