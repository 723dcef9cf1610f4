//! What happens when a generation is over (`spec/scheduling.md` 3.5).

use super::allocate::{allocate_or_back_off, wait_longer_each_time};
use super::record::{ActorError, ActorRecord, AfterStart, EnvoyKey, Phase, StopWish};
use super::step::{Command, CommandToHost, StopReason, World};
use crate::pool::PoolError;

/// How a generation ended.
pub(super) enum Cause<'a> {
    /// The actor reported that it stopped, without error.
    StoppedOk,
    /// The actor reported that it stopped with an error.
    StoppedError { message: Option<&'a str> },
    /// A deadline passed without an answer.
    NoResponse,
    /// The host's connection was lost for too long.
    ConnectionLost,
    /// The pool's endpoint could not be made to start it.
    OutboundFailed(&'a PoolError),
}

enum Decision {
    ReallocateNow,
    /// The alarm that it was started for has not been served; there was no answer, so there is no hurry either.
    ReallocateLater,
    Sleep,
    Destroy,
}

/// Ends the present generation: records the reason, tells a lost host, and decides what comes next.
pub(super) fn end_generation(record: &mut ActorRecord, cause: &Cause<'_>, world: &World<'_>) -> Vec<CommandToHost> {
    let host = record.host().cloned();
    note_error(record, cause, host.as_ref());
    let decision = decide(&record.phase, cause);
    match (cause, &decision) {
        (Cause::NoResponse | Cause::ConnectionLost | Cause::OutboundFailed(_), _) => record.put_alarm_back(),
        // It ran, so it had its chance. Trying again could go on for ever.
        (Cause::StoppedOk | Cause::StoppedError { .. }, Decision::Sleep | Decision::Destroy) => record.served_alarm_ts = None,
        // It may have been stopped before its chance came. The start that follows anyway takes the alarm along.
        (Cause::StoppedOk | Cause::StoppedError { .. }, Decision::ReallocateNow | Decision::ReallocateLater) => {
            record.put_alarm_back();
        }
    }
    let mut commands = Vec::new();
    if let (Cause::NoResponse | Cause::ConnectionLost | Cause::OutboundFailed(_), Some(host)) = (cause, host) {
        // The old copy may still be alive there: without this command a late starter would go on as a zombie.
        record.last_command_index += 1;
        commands.push(CommandToHost {
            host,
            generation: record.generation,
            index: record.last_command_index,
            command: Command::Stop(StopReason::Lost),
        });
    }
    let decision = match decision {
        Decision::Sleep if record.alarm_ts.is_some_and(|alarm| alarm <= world.now) => match cause {
            Cause::NoResponse => Decision::ReallocateLater,
            Cause::StoppedOk | Cause::StoppedError { .. } | Cause::ConnectionLost | Cause::OutboundFailed(_) => {
                Decision::ReallocateNow
            }
        },
        decision @ (Decision::Sleep | Decision::ReallocateNow | Decision::ReallocateLater | Decision::Destroy) => decision,
    };
    record.connectable_ts = None;
    match decision {
        Decision::ReallocateNow => {
            record.phase = Phase::Sleeping;
            commands.extend(allocate_or_back_off(record, world));
        }
        Decision::ReallocateLater => wait_longer_each_time(record, world),
        Decision::Sleep => {
            record.phase = Phase::Sleeping;
            record.sleep_ts = Some(world.now);
        }
        Decision::Destroy => destroy(record, world),
    }
    commands
}

/// Ends the actor for good.
pub(super) fn destroy(record: &mut ActorRecord, world: &World<'_>) {
    record.phase = Phase::Destroyed;
    record.connectable_ts = None;
    record.alarm_ts = None;
    record.served_alarm_ts = None;
    record.destroy_ts = Some(world.now);
}

/// Records why the generation ended. There is no earlier error to keep: placing the generation has cleared it
/// (`spec/scheduling.md` 1.5).
fn note_error(record: &mut ActorRecord, cause: &Cause<'_>, host: Option<&EnvoyKey>) {
    let had_run = !matches!(record.phase, Phase::Starting { .. });
    match cause {
        Cause::StoppedOk => {}
        Cause::StoppedError { message } => {
            record.error = Some(ActorError::Crashed { message: message.map(str::to_owned) });
        }
        Cause::NoResponse => {
            record.error = Some(ActorError::EnvoyNoResponse { envoy_key: host.filter(|_| had_run).cloned() });
        }
        Cause::ConnectionLost => {
            if let Some(host) = host {
                record.error = Some(ActorError::EnvoyConnectionLost { envoy_key: host.clone() });
            }
        }
        Cause::OutboundFailed(error) => record.error = Some(ActorError::RunnerPoolError((*error).clone())),
    }
}

/// The table of `spec/scheduling.md` 3.5 step 4, with its two faults mended: a wish to destroy survives a failed start
/// and a lost host.
fn decide(phase: &Phase, cause: &Cause<'_>) -> Decision {
    match phase {
        Phase::Starting { then: AfterStart::Destroy, .. } => Decision::Destroy,
        Phase::Starting { then: AfterStart::Move, .. } => Decision::ReallocateNow,
        Phase::Stopping { wish: StopWish::Sleep { rewake: true } | StopWish::Move, .. } => Decision::ReallocateNow,
        Phase::Stopping { wish: StopWish::Sleep { rewake: false }, .. } => Decision::Sleep,
        Phase::Stopping { wish: StopWish::Destroy, .. } => Decision::Destroy,
        Phase::Stopping { wish: StopWish::Destruction, .. } => match cause {
            Cause::StoppedOk | Cause::NoResponse | Cause::ConnectionLost | Cause::OutboundFailed(_) => Decision::Destroy,
            Cause::StoppedError { .. } => Decision::Sleep,
        },
        Phase::Starting { then: AfterStart::Run | AfterStart::Sleep, .. } | Phase::Running { .. } => match cause {
            Cause::StoppedOk => Decision::Destroy,
            Cause::StoppedError { .. } | Cause::NoResponse | Cause::ConnectionLost | Cause::OutboundFailed(_) => Decision::Sleep,
        },
        // Not reached: only a hosted generation can end. Staying asleep is the answer that loses nothing.
        Phase::Sleeping | Phase::Reallocating { .. } | Phase::Destroyed => Decision::Sleep,
    }
}
