//! Running.

use super::*;

#[test]
fn on_a_host() {
    check_row(
        &is_running(),
        &[
            spec(
                &["sleep", "intent sleep"],
                "stopping on a until +1800000 to sleep; no connectable; sleep +0; stop 3.2 on a SleepIntent",
            ),
            spec(&["intent stop"], "stopping on a until +1800000 to be destroyed; no connectable; stop 3.2 on a StopIntent"),
            spec(&["evict"], "stopping on a until +1800000 to move; no connectable; stop 3.2 on a GoingAway"),
            // The API's reschedule and destroy leave it connectable until it has stopped.
            spec(&["reschedule"], "stopping on a until +1800000 to move; stop 3.2 on a GoingAway"),
            spec(&["destroy"], "stopping on a until +1800000 to destroy; stop 3.2 on a Destroy"),
            spec(&["stopped"], "destroyed; no connectable; destroy +0"),
            spec(&["crashed"], "sleeping; no connectable; sleep +0; error crashed boom"),
            spec(&["alarm"], "running on a; alarm +5"),
            spec(&["running", "no alarm"], "running on a"),
            spec(&["a lost"], "sleeping; no connectable; sleep +0; error lost a; stop 3.2 on a Lost"),
            // Its host's own connection tells whether it is still there.
            spec(&["request ended"], "ignored: AlreadyUnderWay"),
            ours(&["endpoint failed"], "ignored: AlreadyUnderWay", "lost with what it has not saved"),
            spec(&["wake", "capacity"], "ignored: AlreadyUnderWay"),
            spec(&["a found"], "ignored: Duplicate"),
            spec(&["due"], "ignored: NotDue"),
        ],
    );
}

#[test]
fn a_due_alarm_is_the_hosts_own_business() {
    // The published engine clears it when somebody happens to wake the actor; the host clears it anyway.
    let record = ActorRecord { alarm_ts: Some(NOW), ..is_running() };
    assert_eq!(record.next_deadline(), None);
    assert_eq!(step_at(NOW, &record, &Input::Wake, Room::On("b")).outcome, Outcome::Ignored(Ignored::AlreadyUnderWay));
}
