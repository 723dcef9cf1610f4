//! Giving an actor a place to run, and what follows when there is none (`spec/scheduling.md` 7, 3.8).

use super::record::{ActorError, ActorRecord, AfterStart, Phase, Place};
use super::step::{Capacity, Command, CommandToHost, EventKind, Input, Shortage, World};
use crate::Ts;

/// Index of the start command of each generation in a pool whose hosts connect by themselves (`spec/scheduling.md` 3.2).
const START_COMMAND_INDEX: i64 = 1;
/// The same where an endpoint is asked: the order travels in the request, not over the host's connection.
const OUTBOUND_START_INDEX: i64 = 0;

/// Whether an input can lead to a start of an actor, so that it matters what [`World::capacity`] is. A place need not be held
/// for one that cannot.
pub fn may_start(record: &ActorRecord, input: &Input, now: Ts) -> bool {
    let has_no_place = matches!(record.phase, Phase::Sleeping | Phase::Reallocating { .. });
    match input {
        Input::Wake => has_no_place,
        Input::CapacityArrived => matches!(record.phase, Phase::Reallocating { .. }),
        Input::DeadlineReached => record.next_deadline().is_some_and(|deadline| deadline <= now),
        Input::HostLost { host, generation } => record.host() == Some(host) && record.generation == *generation,
        Input::OutboundFailed { generation, .. } => {
            record.generation == *generation && matches!(record.phase, Phase::Starting { .. })
        }
        Input::Event { host, generation, index, kind: EventKind::Stopped { .. } } => {
            record.host() == Some(host) && record.generation == *generation && *index > record.last_event_index
        }
        Input::Sleep
        | Input::Reschedule
        | Input::Destroy
        | Input::Evict { .. }
        | Input::HostFound { .. }
        | Input::CommandsAcked { .. }
        | Input::Event { .. } => false,
    }
}

/// Places the next generation, or plans another attempt.
pub(super) fn allocate_or_back_off(record: &mut ActorRecord, world: &World<'_>) -> Vec<CommandToHost> {
    match world.capacity {
        Capacity::Host(_) | Capacity::Outbound => allocate(record, world),
        Capacity::None(shortage) => {
            back_off(record, shortage, world);
            Vec::new()
        }
    }
}

/// Places the next generation where there is capacity for it. Does nothing where there is none.
pub(super) fn allocate(record: &mut ActorRecord, world: &World<'_>) -> Vec<CommandToHost> {
    let (place, index) = match world.capacity {
        Capacity::Host(host) => (Place::Host(host.clone()), START_COMMAND_INDEX),
        Capacity::Outbound => (Place::Outbound, OUTBOUND_START_INDEX),
        Capacity::None(_) => return Vec::new(),
    };
    // The alarm is taken only now that somebody takes the actor: one that is due while nobody does must fire late rather
    // than vanish.
    record.served_alarm_ts = record.alarm_ts.take_if(|alarm| *alarm <= world.now);
    record.generation += 1;
    record.last_event_index = -1;
    record.last_command_index = index;
    record.acked_command_index = index - 1;
    record.error = None;
    record.sleep_ts = None;
    record.connectable_ts = None;
    record.retry.first_failure_ts = 0;
    let start = place.host().map(|host| CommandToHost {
        host: host.clone(),
        generation: record.generation,
        index,
        command: Command::Start,
    });
    record.phase = Phase::Starting { place, deadline: world.now + world.rules.start_threshold_ms, then: AfterStart::Run };
    start.into_iter().collect()
}

/// Notes why there is no place, and plans the next attempt or gives up.
fn back_off(record: &mut ActorRecord, shortage: &Shortage, world: &World<'_>) {
    record.connectable_ts = None;
    match shortage {
        Shortage::NoHosts => record.error = Some(ActorError::NoEnvoys),
        Shortage::ConcurrentActorLimit => record.error = Some(ActorError::ConcurrentActorLimitReached),
        Shortage::PoolFailing { error, .. } => record.error = Some(ActorError::RunnerPoolError(error.clone())),
        // Nothing is wrong with the actor; the next process goes on with it.
        Shortage::EngineStopping => {}
    }
    match shortage {
        Shortage::NoHosts | Shortage::ConcurrentActorLimit | Shortage::EngineStopping => wait_longer_each_time(record, world),
        // The pool sets the pace for all of its actors.
        Shortage::PoolFailing { retry_at, .. } => {
            note_failure(record, world.now);
            wait_until(record, (*retry_at).max(world.now + 1), world);
        }
    }
}

/// Waits for a multiple of two of the first delay (`spec/scheduling.md` 3.8).
pub(super) fn wait_longer_each_time(record: &mut ActorRecord, world: &World<'_>) {
    let (now, rules) = (world.now, world.rules);
    note_failure(record, now);
    let retry = &mut record.retry;
    if retry.last_ts < now - rules.retry_reset_ms {
        retry.count = 0;
    }
    let exponent = retry.count.min(rules.retry_max_exponent).min(30);
    retry.count = retry.count.saturating_add(1);
    retry.last_ts = now;
    // At least a millisecond, so that a base of zero is a fast pace and not a busy loop.
    let delay_ms = rules.retry_base_ms.saturating_mul(1 << exponent).max(1);
    wait_until(record, now.saturating_add(delay_ms), world);
}

fn note_failure(record: &mut ActorRecord, now: Ts) {
    if record.retry.first_failure_ts == 0 {
        record.retry.first_failure_ts = now;
    }
}

/// Plans the next attempt, unless attempts have gone on for too long.
fn wait_until(record: &mut ActorRecord, retry_at: Ts, world: &World<'_>) {
    let now = world.now;
    let waited_too_long = now - record.retry.first_failure_ts >= world.rules.retry_give_up_ms;
    let alarm_is_due = record.alarm_ts.is_some_and(|alarm| alarm <= now);
    record.sleep_ts = Some(now);
    // A due alarm must not be lost, so with one pending the attempts go on at the slowest pace.
    record.phase = if waited_too_long && !alarm_is_due {
        record.retry.first_failure_ts = 0;
        Phase::Sleeping
    } else {
        Phase::Reallocating { retry_at }
    };
}
