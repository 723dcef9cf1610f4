//! Giving an actor a host, and what follows when there is none.

use super::record::{ActorError, ActorRecord, AfterStart, Phase};
use super::step::{Command, CommandToHost, World};

/// Index of the start command of each generation (`spec/scheduling.md` 3.2, normal pools).
const START_COMMAND_INDEX: i64 = 1;

/// Places the next generation on the candidate host, or plans another attempt.
pub(super) fn allocate_or_back_off(record: &mut ActorRecord, world: &World<'_>) -> Vec<CommandToHost> {
    match allocate(record, world) {
        Some(start) => vec![start],
        None => {
            back_off(record, world);
            Vec::new()
        }
    }
}

/// Places the next generation on the candidate host. `None`, and the error recorded, when there is no candidate.
pub(super) fn allocate(record: &mut ActorRecord, world: &World<'_>) -> Option<CommandToHost> {
    let Some(host) = world.candidate else {
        record.error = Some(ActorError::NoEnvoys);
        return None;
    };
    // The alarm is taken only now that a host takes the actor: one that is due while no host exists must fire late rather
    // than vanish.
    record.served_alarm_ts = record.alarm_ts.take_if(|alarm| *alarm <= world.now);
    record.generation += 1;
    record.last_event_index = -1;
    record.last_command_index = START_COMMAND_INDEX;
    record.acked_command_index = 0;
    record.error = None;
    record.sleep_ts = None;
    record.connectable_ts = None;
    record.retry.first_failure_ts = 0;
    record.phase =
        Phase::Starting { host: host.clone(), deadline: world.now + world.rules.start_threshold_ms, then: AfterStart::Run };
    Some(CommandToHost { host: host.clone(), generation: record.generation, index: START_COMMAND_INDEX, command: Command::Start })
}

/// Plans the next allocation attempt, or gives up (`spec/scheduling.md` 3.8).
fn back_off(record: &mut ActorRecord, world: &World<'_>) {
    let (now, rules) = (world.now, world.rules);
    let retry = &mut record.retry;
    if retry.first_failure_ts == 0 {
        retry.first_failure_ts = now;
    }
    if retry.last_ts < now - rules.retry_reset_ms {
        retry.count = 0;
    }
    let exponent = retry.count.min(rules.retry_max_exponent).min(30);
    retry.count = retry.count.saturating_add(1);
    retry.last_ts = now;
    let waited_too_long = now - retry.first_failure_ts >= rules.retry_give_up_ms;
    let alarm_is_due = record.alarm_ts.is_some_and(|alarm| alarm <= now);

    record.connectable_ts = None;
    record.sleep_ts = Some(now);
    // A due alarm must not be lost, so with one pending the attempts go on at the slowest pace.
    record.phase = if waited_too_long && !alarm_is_due {
        record.retry.first_failure_ts = 0;
        Phase::Sleeping
    } else {
        // At least a millisecond, so that a base of zero is a fast pace and not a busy loop.
        let delay_ms = rules.retry_base_ms.saturating_mul(1 << exponent).max(1);
        Phase::Reallocating { retry_at: now.saturating_add(delay_ms) }
    };
}
