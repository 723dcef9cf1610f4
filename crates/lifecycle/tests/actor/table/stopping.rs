//! SleepIntent, StopIntent, GoingAway and Destroying: a stop command is out.

use super::*;

/// A stop that is under way whatever else the host or the endpoint says.
const UNMOVED: &[&str] = &["running", "intent sleep", "intent stop", "no alarm"];
const LOST_STOP_INTENT: &str = "sleeps: a destruction at the actor's own wish is dropped with its host";

#[test]
fn to_sleep() {
    check_row(
        &stopping(StopWish::Sleep { rewake: false }),
        &[
            spec(&["wake"], "stopping on a until +0 to sleep and rewake"),
            spec(&["reschedule", "evict"], "stopping on a until +1800000 to move"),
            spec(&["destroy"], "stopping on a until +1800000 to destroy"),
            spec(&["stopped"], "sleeping; sleep +0"),
            spec(&["crashed"], "sleeping; sleep +0; error crashed boom"),
            spec(UNMOVED, "stopping on a until +0 to sleep"),
            spec(&["alarm"], "stopping on a until +0 to sleep; alarm +5"),
            spec(&["due"], "sleeping; sleep +0; error no response of a; stop 3.3 on a Lost"),
            spec(&["a lost"], "sleeping; sleep +0; error lost a; stop 3.3 on a Lost"),
            spec(&["capacity", "sleep", "endpoint failed", "request ended"], "ignored: AlreadyUnderWay"),
            spec(&["a found"], "ignored: Duplicate"),
        ],
    );
}

#[test]
fn to_sleep_and_rewake() {
    check_row(
        &stopping(StopWish::Sleep { rewake: true }),
        &[
            spec(&["reschedule", "evict"], "stopping on a until +1800000 to move"),
            spec(&["destroy"], "stopping on a until +1800000 to destroy"),
            spec(&["stopped", "crashed"], "starting on b until +30000; generation 4; no sleep; start 4.1 on b"),
            spec(UNMOVED, "stopping on a until +0 to sleep and rewake"),
            spec(&["alarm"], "stopping on a until +0 to sleep and rewake; alarm +5"),
            spec(&["due", "a lost"], "starting on b until +30000; generation 4; no sleep; stop 3.3 on a Lost; start 4.1 on b"),
            spec(&["wake", "capacity", "sleep", "endpoint failed", "request ended"], "ignored: AlreadyUnderWay"),
            spec(&["a found"], "ignored: Duplicate"),
        ],
    );
}

#[test]
fn to_be_destroyed_at_its_own_wish() {
    check_row(
        &stopping(StopWish::Destruction),
        &[
            spec(&["reschedule", "evict"], "stopping on a until +1800000 to move"),
            spec(&["destroy"], "stopping on a until +1800000 to destroy"),
            spec(&["stopped"], "destroyed; destroy +0"),
            spec(&["crashed"], "sleeping; sleep +0; error crashed boom"),
            spec(UNMOVED, "stopping on a until +0 to be destroyed"),
            spec(&["alarm"], "stopping on a until +0 to be destroyed; alarm +5"),
            ours(&["due"], "destroyed; destroy +0; error no response of a; stop 3.3 on a Lost", LOST_STOP_INTENT),
            ours(&["a lost"], "destroyed; destroy +0; error lost a; stop 3.3 on a Lost", LOST_STOP_INTENT),
            spec(&["wake", "capacity", "sleep", "endpoint failed", "request ended"], "ignored: AlreadyUnderWay"),
            spec(&["a found"], "ignored: Duplicate"),
        ],
    );
}

#[test]
fn to_move() {
    check_row(
        &stopping(StopWish::Move),
        &[
            spec(&["destroy"], "stopping on a until +1800000 to destroy"),
            spec(&["stopped", "crashed"], "starting on b until +30000; generation 4; no connectable; start 4.1 on b"),
            spec(UNMOVED, "stopping on a until +0 to move"),
            spec(&["alarm"], "stopping on a until +0 to move; alarm +5"),
            spec(
                &["due", "a lost"],
                "starting on b until +30000; generation 4; no connectable; stop 3.3 on a Lost; start 4.1 on b",
            ),
            spec(
                &["wake", "capacity", "sleep", "reschedule", "evict", "endpoint failed", "request ended"],
                "ignored: AlreadyUnderWay",
            ),
            spec(&["a found"], "ignored: Duplicate"),
        ],
    );
}

#[test]
fn to_destroy() {
    check_row(
        &stopping(StopWish::Destroy),
        &[
            spec(&["stopped"], "destroyed; no connectable; destroy +0"),
            spec(&["crashed"], "destroyed; no connectable; destroy +0; error crashed boom"),
            spec(UNMOVED, "stopping on a until +0 to destroy"),
            spec(&["alarm"], "stopping on a until +0 to destroy; alarm +5"),
            spec(&["due"], "destroyed; no connectable; destroy +0; error no response of a; stop 3.3 on a Lost"),
            spec(&["a lost"], "destroyed; no connectable; destroy +0; error lost a; stop 3.3 on a Lost"),
            spec(
                &["wake", "capacity", "sleep", "reschedule", "evict", "destroy", "endpoint failed", "request ended"],
                "ignored: AlreadyUnderWay",
            ),
            spec(&["a found"], "ignored: Duplicate"),
        ],
    );
}
