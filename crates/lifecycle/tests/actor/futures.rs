//! What must come of every state in the end, when nothing happens any more but the passing of time or what is named.

use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, EventKind, Input, Phase, Place};

use crate::invariants::is_doomed;
use crate::scene::{NOW, Room, host_found, host_lost, next_event, stopped};
use crate::walk::short_step;

/// Panics if one of the promises is not kept from this state on.
pub(crate) fn check_futures(record: &ActorRecord) {
    no_start_and_no_stop_hangs(record);
    without_an_alarm_it_comes_to_rest(record);
    destruction_comes(record);
    an_idle_actor_sleeps(record);
    an_alarm_fires(record);
}

/// Time passes, from deadline to deadline, at most so many times.
fn time_passes(record: &ActorRecord, deadlines: usize, room: Room) -> (ActorRecord, Ts) {
    let (mut record, mut now) = (record.clone(), NOW);
    for _deadline in 0..deadlines {
        let Some(deadline) = record.next_deadline() else { break };
        now = now.max(deadline);
        record = short_step(now, &record, &Input::DeadlineReached, room).record;
    }
    (record, now)
}

/// Every start ends in running, sleeping (with a reason), or destroyed; so does every stop. A wait follows where something is
/// still to be done.
fn no_start_and_no_stop_hangs(record: &ActorRecord) {
    let (rests, _) = time_passes(record, 1, Room::NoHosts);
    let at_rest = match rests.phase {
        Phase::Running { .. } | Phase::Sleeping | Phase::Reallocating { .. } | Phase::Destroyed => true,
        Phase::Starting { .. } | Phase::Stopping { .. } => false,
    };
    assert!(at_rest, "hangs: {record:#?}\nends as {rests:#?}");
    let silently = record.is_placed() && rests.phase == Phase::Sleeping && rests.error.is_none();
    assert!(!silently, "fails without a reason: {record:#?}\nends as {rests:#?}");
}

fn without_an_alarm_it_comes_to_rest(record: &ActorRecord) {
    let without_alarm = ActorRecord { alarm_ts: None, served_alarm_ts: None, ..record.clone() };
    let (rests, _) = time_passes(&without_alarm, 8, Room::NoHosts);
    assert_eq!(rests.next_deadline(), None, "never rests: {record:#?}");
}

fn destruction_comes(record: &ActorRecord) {
    for room in [Room::NoHosts, Room::On("b")] {
        let asked = short_step(NOW, record, &Input::Destroy, room).record;
        let (destroyed, _) = time_passes(&asked, 1, room);
        assert!(destroyed.is_destroyed(), "escapes destruction: {record:#?}");
    }
}

/// A host that does what it is told, and whose actor has nothing to do.
fn an_idle_actor_sleeps(record: &ActorRecord) {
    let mut idle = record.clone();
    let mut now = NOW;
    for _step in 0..12 {
        let input = match &idle.phase {
            Phase::Starting { place: Place::Outbound, .. } => host_found(&idle),
            Phase::Starting { place: Place::Host(_), .. } => next_event(&idle, EventKind::Running),
            Phase::Running { .. } if idle.alarm_ts.is_some() || idle.served_alarm_ts.is_some() => {
                next_event(&idle, EventKind::SetAlarm(None))
            }
            Phase::Running { .. } => next_event(&idle, EventKind::IntentSleep),
            Phase::Stopping { .. } => next_event(&idle, stopped()),
            Phase::Reallocating { retry_at } => {
                now = now.max(*retry_at);
                Input::DeadlineReached
            }
            Phase::Sleeping | Phase::Destroyed => return,
        };
        idle = short_step(now, &idle, &input, Room::On("b")).record;
    }
    panic!("never sleeps: {record:#?}\nends as {idle:#?}");
}

/// An alarm fires late but never vanishes: with the host silently dead, or the endpoint, whatever the actor was about.
fn an_alarm_fires(record: &ActorRecord) {
    let Some(alarm) = record.alarm_ts.or(record.served_alarm_ts) else { return };
    if is_doomed(record) {
        return;
    }
    // The loss of its host, noticed; or not noticed, so that the deadline does it.
    let lost = short_step(NOW, record, &host_lost(record), Room::NoHosts).record;
    for (mut actor, hosts_return_after) in [(lost, 6), (record.clone(), 0)] {
        if matches!(actor.phase, Phase::Running { .. }) || actor.is_destroyed() {
            // It has a timer of its own; or wanted to be destroyed.
            continue;
        }
        let mut now = NOW;
        for deadline in 0..12 {
            let room = if deadline < hosts_return_after { Room::NoHosts } else { Room::On("b") };
            now = now.max(actor.next_deadline().unwrap_or_else(|| panic!("the alarm is lost: {record:#?}\nends as {actor:#?}")));
            actor = short_step(now, &actor, &Input::DeadlineReached, room).record;
            if actor.generation > record.generation && now >= alarm || actor.is_destroyed() {
                break;
            }
        }
        let fired = actor.generation > record.generation && now >= alarm;
        assert!(fired || actor.is_destroyed(), "the alarm does not fire: {record:#?}\nends as {actor:#?}");
    }
}
