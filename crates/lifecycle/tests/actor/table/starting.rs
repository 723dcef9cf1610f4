//! Starting, and Allocating, which is a part of it.

use super::*;

const FORGOTTEN: &str = "ignored and forgotten";
const DESTROY_DROPPED: &str = "sleeps: the wish to destroy is dropped";
const UNKNOWN_TO_ALL: &str = "accepted from any host of any pool";

#[test]
fn to_run() {
    check_row(
        &starting(AfterStart::Run),
        &[
            spec(&["wake", "capacity"], "ignored: AlreadyUnderWay"),
            spec(&["running"], "running on a; connectable +0"),
            spec(&["stopped"], "destroyed; destroy +0"),
            spec(&["crashed"], "sleeping; sleep +0; error crashed boom"),
            spec(&["destroy"], "starting on a until +0, then destroy"),
            ours(&["sleep", "intent sleep"], "starting on a until +0, then sleep", FORGOTTEN),
            ours(&["reschedule", "evict"], "starting on a until +0, then move", FORGOTTEN),
            ours(&["intent stop"], "starting on a until +0, then destroy", FORGOTTEN),
            spec(&["alarm"], "starting on a until +0; alarm +5"),
            spec(&["no alarm"], "starting on a until +0"),
            spec(&["due"], "sleeping; sleep +0; error no response; stop 3.2 on a Lost"),
            spec(&["a lost"], "sleeping; sleep +0; error lost a; stop 3.2 on a Lost"),
            ours(&["endpoint failed"], "sleeping; sleep +0; error endpoint said 502; stop 3.2 on a Lost", "no error is shown"),
            ours(
                &["request ended"],
                "sleeping; sleep +0; error endpoint StreamEndedEarly; stop 3.2 on a Lost",
                "waits for the start threshold",
            ),
            spec(&["a found"], "ignored: Duplicate"),
        ],
    );
}

#[test]
fn then_to_sleep() {
    check_row(
        &starting(AfterStart::Sleep),
        &[
            ours(&["wake"], "starting on a until +0", FORGOTTEN),
            spec(&["capacity", "sleep"], "ignored: AlreadyUnderWay"),
            ours(
                &["running"],
                "stopping on a until +1800000 to sleep; sleep +0; stop 3.2 on a SleepIntent",
                "runs, as the wish was forgotten",
            ),
            spec(&["stopped"], "destroyed; destroy +0"),
            spec(&["crashed"], "sleeping; sleep +0; error crashed boom"),
            spec(&["destroy"], "starting on a until +0, then destroy"),
            ours(&["reschedule", "evict"], "starting on a until +0, then move", FORGOTTEN),
            ours(&["intent stop"], "starting on a until +0, then destroy", FORGOTTEN),
            spec(&["intent sleep", "no alarm"], "starting on a until +0, then sleep"),
            spec(&["alarm"], "starting on a until +0, then sleep; alarm +5"),
            spec(&["due"], "sleeping; sleep +0; error no response; stop 3.2 on a Lost"),
            spec(&["a lost"], "sleeping; sleep +0; error lost a; stop 3.2 on a Lost"),
            ours(&["endpoint failed"], "sleeping; sleep +0; error endpoint said 502; stop 3.2 on a Lost", "no error is shown"),
            ours(
                &["request ended"],
                "sleeping; sleep +0; error endpoint StreamEndedEarly; stop 3.2 on a Lost",
                "waits for the start threshold",
            ),
            spec(&["a found"], "ignored: Duplicate"),
        ],
    );
}

#[test]
fn then_to_move() {
    const WISH_FORGOTTEN: &str = "as if nothing had been asked for";
    check_row(
        &starting(AfterStart::Move),
        &[
            spec(&["wake", "capacity", "sleep", "reschedule", "evict"], "ignored: AlreadyUnderWay"),
            ours(&["running"], "stopping on a until +1800000 to move; stop 3.2 on a GoingAway", WISH_FORGOTTEN),
            ours(&["stopped", "crashed"], "starting on b until +30000; generation 4; start 4.1 on b", WISH_FORGOTTEN),
            spec(&["destroy"], "starting on a until +0, then destroy"),
            ours(&["intent stop"], "starting on a until +0, then destroy", FORGOTTEN),
            spec(&["intent sleep", "no alarm"], "starting on a until +0, then move"),
            spec(&["alarm"], "starting on a until +0, then move; alarm +5"),
            ours(
                &["due", "a lost", "endpoint failed", "request ended"],
                "starting on b until +30000; generation 4; stop 3.2 on a Lost; start 4.1 on b",
                WISH_FORGOTTEN,
            ),
            spec(&["a found"], "ignored: Duplicate"),
        ],
    );
}

#[test]
fn then_to_be_destroyed() {
    check_row(
        &starting(AfterStart::Destroy),
        &[
            spec(&["wake", "capacity", "sleep", "reschedule", "evict", "destroy"], "ignored: AlreadyUnderWay"),
            // It never takes requests.
            spec(&["running"], "stopping on a until +1800000 to destroy; stop 3.2 on a Destroy"),
            spec(&["stopped"], "destroyed; destroy +0"),
            ours(&["crashed"], "destroyed; destroy +0; error crashed boom", DESTROY_DROPPED),
            spec(&["intent sleep", "intent stop", "no alarm"], "starting on a until +0, then destroy"),
            spec(&["alarm"], "starting on a until +0, then destroy; alarm +5"),
            ours(&["due"], "destroyed; destroy +0; error no response; stop 3.2 on a Lost", DESTROY_DROPPED),
            ours(&["a lost"], "destroyed; destroy +0; error lost a; stop 3.2 on a Lost", DESTROY_DROPPED),
            ours(&["endpoint failed"], "destroyed; destroy +0; error endpoint said 502; stop 3.2 on a Lost", DESTROY_DROPPED),
            ours(
                &["request ended"],
                "destroyed; destroy +0; error endpoint StreamEndedEarly; stop 3.2 on a Lost",
                DESTROY_DROPPED,
            ),
            spec(&["a found"], "ignored: Duplicate"),
        ],
    );
}

#[test]
fn somewhere_to_run() {
    check_row(
        &starting_somewhere(AfterStart::Run),
        &[
            spec(&["wake", "capacity"], "ignored: AlreadyUnderWay"),
            spec(&["destroy"], "starting somewhere until +0, then destroy"),
            ours(&["sleep"], "starting somewhere until +0, then sleep", FORGOTTEN),
            ours(&["reschedule", "evict"], "starting somewhere until +0, then move", FORGOTTEN),
            // The first host of the pool that names the generation has it.
            ours(&["a found"], "starting on a until +0", UNKNOWN_TO_ALL),
            ours(&EVENTS, "ignored: Stale", UNKNOWN_TO_ALL),
            spec(&["a lost"], "ignored: Stale"),
            spec(&["due"], "sleeping; sleep +0; error no response"),
            ours(&["endpoint failed"], "sleeping; sleep +0; error endpoint said 502", "no error is shown"),
            ours(&["request ended"], "sleeping; sleep +0; error endpoint StreamEndedEarly", "waits for the start threshold"),
        ],
    );
}

#[test]
fn somewhere_then_to_sleep_move_or_be_destroyed() {
    let wishes = [
        (AfterStart::Sleep, "then sleep", "sleeping; sleep +0; error endpoint said 502"),
        (AfterStart::Move, "then move", "starting on b until +30000; generation 4; start 4.1 on b"),
        (AfterStart::Destroy, "then destroy", "destroyed; destroy +0; error endpoint said 502"),
    ];
    for (then, in_short, after_failure) in wishes {
        let record = starting_somewhere(then);
        let words = |name| in_words(&record, &step_at(NOW, &record, &input(name, &record), Room::On("b")), NOW);
        assert_eq!(words("a found"), format!("starting on a until +0, {in_short}"));
        assert_eq!(words("endpoint failed"), after_failure);
        check_strangers(&record);
    }
}

#[test]
fn a_generation_that_was_asked_for_counts_its_commands_from_0() {
    let record = starting_somewhere(AfterStart::Run);
    let found = step_at(NOW, &record, &host_found(&record), Room::NoHosts).record;
    let acknowledged = Input::CommandsAcked { host: host("a"), generation: 3, index: 0 };
    let found = step_at(NOW, &found, &acknowledged, Room::NoHosts).record;
    assert_eq!((found.last_command_index, found.acked_command_index), (0, 0));
    let running = step_at(NOW, &found, &next_event(&found, EventKind::Running), Room::NoHosts).record;
    let told = step_at(NOW, &running, &Input::Sleep, Room::NoHosts);
    let words = "stopping on a until +1800000 to sleep; no connectable; sleep +0; stop 3.1 on a SleepIntent";
    assert_eq!(in_words(&running, &told, NOW), words);
}
