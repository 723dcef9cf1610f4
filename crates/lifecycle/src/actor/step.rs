//! The state machine: one input in, the next record and the commands for hosts out (`spec/scheduling.md` 3.4).

use super::allocate::{allocate, allocate_or_back_off};
use super::record::{ActorRecord, AfterStart, EnvoyKey, Phase, Place, StopWish};
use super::stop::{Cause, destroy, end_generation};
use crate::Ts;
use crate::pool::PoolError;

/// Everything that can happen to an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Somebody wants it to run: a request, or its creation.
    Wake,
    /// The time of [`ActorRecord::next_deadline`] has come (harmless when it has not).
    DeadlineReached,
    /// There may be a place for it now: a host has appeared, another actor has made room, or an endpoint has recovered.
    CapacityArrived,
    /// The API asked for sleep.
    Sleep,
    /// The API asked for a move to another host.
    Reschedule,
    /// The API asked for its destruction.
    Destroy,
    /// Its host is being emptied. Ignored for any other generation than the present one.
    Evict {
        /// The generation that was seen on the host.
        generation: u32,
    },
    /// A host has been out of touch for too long.
    HostLost {
        /// That host.
        host: EnvoyKey,
        /// The generation that it had.
        generation: u32,
    },
    /// A host speaks for a generation that the pool's endpoint was asked for.
    HostFound {
        /// That host.
        host: EnvoyKey,
        /// The generation.
        generation: u32,
    },
    /// The request to the pool's endpoint by which a generation was to be started has failed.
    OutboundFailed {
        /// The generation.
        generation: u32,
        /// What went wrong.
        error: PoolError,
    },
    /// A host acknowledged commands up to an index.
    CommandsAcked {
        /// The acknowledging host.
        host: EnvoyKey,
        /// Of which generation.
        generation: u32,
        /// The highest index.
        index: i64,
    },
    /// A host reported an event.
    Event {
        /// The reporting host.
        host: EnvoyKey,
        /// Of which generation.
        generation: u32,
        /// Its index, from 0 within the generation.
        index: i64,
        /// What happened.
        kind: EventKind,
    },
}

/// What a host reports of an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// Start finished.
    Running,
    /// The generation is over.
    Stopped {
        /// Whether it ended with an error.
        error: bool,
        /// The error's text.
        message: Option<String>,
    },
    /// It would like to sleep.
    IntentSleep,
    /// It would like to be destroyed.
    IntentStop,
    /// Its wake-up time changed; `None` clears it.
    SetAlarm(Option<Ts>),
}

/// Why a host is told to stop an actor, in wire order (`spec/scheduling.md` 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// To sleep.
    SleepIntent,
    /// It asked to be destroyed.
    StopIntent,
    /// The API destroyed it.
    Destroy,
    /// It moves.
    GoingAway,
    /// The engine gave this generation up.
    Lost,
}

/// A command to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Start the generation.
    Start,
    /// Stop the generation.
    Stop(StopReason),
}

/// A command with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandToHost {
    /// Who gets it.
    pub host: EnvoyKey,
    /// For which generation.
    pub generation: u32,
    /// Its index within the generation.
    pub index: i64,
    /// What to do.
    pub command: Command,
}

/// The time limits in force, in milliseconds (`spec/scheduling.md` 13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// From the start command to `running`.
    pub start_threshold_ms: i64,
    /// First delay of the reschedule back-off.
    pub retry_base_ms: i64,
    /// Largest exponent of the back-off.
    pub retry_max_exponent: u32,
    /// Quiet time after which the back-off starts over.
    pub retry_reset_ms: i64,
    /// How long attempts go on before the actor is left asleep.
    pub retry_give_up_ms: i64,
}

/// What a decision may depend on besides the record.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// Present time.
    pub now: Ts,
    /// The limits in force.
    pub rules: &'a Rules,
    /// From a stop command to `stopped`, in milliseconds, as it was announced to the actor's host (`decisions.md` 2).
    pub stop_threshold_ms: i64,
    /// Who would take it, should a start be decided now.
    pub capacity: Capacity<'a>,
}

impl World<'_> {
    fn has_capacity(&self) -> bool {
        match self.capacity {
            Capacity::Host(_) | Capacity::Outbound => true,
            Capacity::None(_) => false,
        }
    }
}

/// Who would take an actor.
#[derive(Debug, Clone, Copy)]
pub enum Capacity<'a> {
    /// The host that placement chose.
    Host(&'a EnvoyKey),
    /// The pool's endpoint, which may be asked now.
    Outbound,
    /// Nobody.
    None(&'a Shortage),
}

/// Why nobody takes an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortage {
    /// No eligible host in the pool.
    NoHosts,
    /// The pool runs as many actors at once as it may.
    ConcurrentActorLimit,
    /// The pool's endpoint has failed and is left alone for a while.
    PoolFailing {
        /// How it failed.
        error: PoolError,
        /// When it is worth asking again.
        retry_at: Ts,
    },
    /// This process is about to end; the next one will see to the actor.
    EngineStopping,
}

/// Why an input changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// The actor is destroyed.
    Destroyed,
    /// It speaks of another generation, or comes from a host that does not run the actor.
    Stale,
    /// An event or acknowledgement that was already processed.
    Duplicate,
    /// The actor already is, or is about to be, what the input asks for.
    AlreadyUnderWay,
    /// It makes no sense while the actor is not running.
    NotRunning,
    /// A deadline input before its time.
    NotDue,
}

/// Whether an input had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The record changed.
    Applied,
    /// Nothing changed, for this reason.
    Ignored(Ignored),
}

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The next record. Persist it, with the commands, before performing any of them.
    pub record: ActorRecord,
    /// Commands to hosts, in order.
    pub commands: Vec<CommandToHost>,
    /// Whether anything changed.
    pub outcome: Outcome,
}

/// Decides what one input does to an actor.
pub fn step(record: &ActorRecord, input: &Input, world: &World<'_>) -> Step {
    let mut next = record.clone();
    let applied = apply(&mut next, input, world);
    match applied {
        Ok(commands) => Step { record: next, commands, outcome: Outcome::Applied },
        Err(reason) => Step { record: record.clone(), commands: Vec::new(), outcome: Outcome::Ignored(reason) },
    }
}

type Applied = Result<Vec<CommandToHost>, Ignored>;

fn apply(record: &mut ActorRecord, input: &Input, world: &World<'_>) -> Applied {
    if record.is_destroyed() {
        return Err(Ignored::Destroyed);
    }
    match input {
        Input::Wake => wake(record, world),
        Input::DeadlineReached => deadline_reached(record, world),
        Input::CapacityArrived => capacity_arrived(record, world),
        Input::Sleep => sleep(record, world),
        Input::Reschedule => relocate(record, world, Connectable::Keep),
        Input::Evict { generation } if *generation != record.generation => Err(Ignored::Stale),
        Input::Evict { .. } => relocate(record, world, Connectable::Clear),
        Input::Destroy => destroy_asked(record, world),
        Input::HostLost { host, generation } if record.host() != Some(host) || *generation != record.generation => {
            Err(Ignored::Stale)
        }
        Input::HostLost { .. } => Ok(end_generation(record, &Cause::ConnectionLost, world)),
        Input::HostFound { generation, .. } | Input::OutboundFailed { generation, .. } if *generation != record.generation => {
            Err(Ignored::Stale)
        }
        Input::HostFound { host, .. } => host_found(record, host),
        Input::OutboundFailed { error, .. } => outbound_failed(record, error, world),
        Input::CommandsAcked { host, generation, index } => commands_acked(record, host, *generation, *index),
        Input::Event { host, generation, index, kind } => {
            if record.host() != Some(host) || *generation != record.generation {
                return Err(Ignored::Stale);
            }
            if *index <= record.last_event_index {
                return Err(Ignored::Duplicate);
            }
            record.last_event_index = *index;
            // Seen is seen, even when it asks for nothing new: hosts repeat events, and a repeated one must not count later.
            Ok(event(record, kind, world).unwrap_or_default())
        }
    }
}

fn wake(record: &mut ActorRecord, world: &World<'_>) -> Applied {
    match &mut record.phase {
        Phase::Sleeping => Ok(allocate_or_back_off(record, world)),
        // Never lengthens the back-off: traffic must not starve recovery.
        Phase::Reallocating { .. } if world.has_capacity() => Ok(allocate(record, world)),
        Phase::Reallocating { .. } => Err(Ignored::AlreadyUnderWay),
        Phase::Stopping { wish: StopWish::Sleep { rewake }, .. } if !*rewake => {
            *rewake = true;
            Ok(Vec::new())
        }
        Phase::Starting { then: then @ AfterStart::Sleep, .. } => {
            *then = AfterStart::Run;
            Ok(Vec::new())
        }
        Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. } => Err(Ignored::AlreadyUnderWay),
        Phase::Destroyed => Err(Ignored::Destroyed),
    }
}

fn deadline_reached(record: &mut ActorRecord, world: &World<'_>) -> Applied {
    if record.next_deadline().is_none_or(|deadline| deadline > world.now) {
        return Err(Ignored::NotDue);
    }
    match &record.phase {
        Phase::Starting { .. } | Phase::Stopping { .. } => Ok(end_generation(record, &Cause::NoResponse, world)),
        Phase::Sleeping | Phase::Reallocating { .. } => Ok(allocate_or_back_off(record, world)),
        Phase::Running { .. } => Err(Ignored::NotDue),
        Phase::Destroyed => Err(Ignored::Destroyed),
    }
}

fn capacity_arrived(record: &mut ActorRecord, world: &World<'_>) -> Applied {
    match &record.phase {
        Phase::Reallocating { .. } if world.has_capacity() => Ok(allocate(record, world)),
        Phase::Reallocating { .. } => Err(Ignored::AlreadyUnderWay),
        Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. } => Err(Ignored::AlreadyUnderWay),
        Phase::Sleeping => Err(Ignored::NotRunning),
        Phase::Destroyed => Err(Ignored::Destroyed),
    }
}

fn sleep(record: &mut ActorRecord, world: &World<'_>) -> Applied {
    match &mut record.phase {
        Phase::Running { .. } => {
            record.connectable_ts = None;
            record.sleep_ts = Some(world.now);
            Ok(stop(record, StopWish::Sleep { rewake: false }, StopReason::SleepIntent, world))
        }
        Phase::Starting { then: then @ AfterStart::Run, .. } => {
            *then = AfterStart::Sleep;
            Ok(Vec::new())
        }
        Phase::Reallocating { .. } => {
            record.phase = Phase::Sleeping;
            record.retry.first_failure_ts = 0;
            Ok(Vec::new())
        }
        Phase::Starting { .. } | Phase::Stopping { .. } => Err(Ignored::AlreadyUnderWay),
        Phase::Sleeping => Err(Ignored::NotRunning),
        Phase::Destroyed => Err(Ignored::Destroyed),
    }
}

/// Whether an actor that is told to move still takes requests until it has stopped: with the reschedule API it does,
/// with a drain it does not (`spec/scheduling.md` 3.4).
enum Connectable {
    Keep,
    Clear,
}

fn relocate(record: &mut ActorRecord, world: &World<'_>, connectable: Connectable) -> Applied {
    match &mut record.phase {
        Phase::Running { .. } => {
            match connectable {
                Connectable::Keep => {}
                Connectable::Clear => record.connectable_ts = None,
            }
            Ok(stop(record, StopWish::Move, StopReason::GoingAway, world))
        }
        Phase::Starting { then, .. } if *then < AfterStart::Move => {
            *then = AfterStart::Move;
            Ok(Vec::new())
        }
        Phase::Stopping { wish: StopWish::Sleep { .. } | StopWish::Destruction, .. } => {
            Ok(change_wish(record, StopWish::Move, world))
        }
        Phase::Starting { .. } | Phase::Stopping { wish: StopWish::Move | StopWish::Destroy, .. } => {
            Err(Ignored::AlreadyUnderWay)
        }
        Phase::Sleeping | Phase::Reallocating { .. } => Err(Ignored::NotRunning),
        Phase::Destroyed => Err(Ignored::Destroyed),
    }
}

fn destroy_asked(record: &mut ActorRecord, world: &World<'_>) -> Applied {
    match &mut record.phase {
        Phase::Running { .. } => Ok(stop(record, StopWish::Destroy, StopReason::Destroy, world)),
        Phase::Starting { then, .. } if *then < AfterStart::Destroy => {
            *then = AfterStart::Destroy;
            Ok(Vec::new())
        }
        Phase::Stopping { wish: StopWish::Sleep { .. } | StopWish::Destruction | StopWish::Move, .. } => {
            Ok(change_wish(record, StopWish::Destroy, world))
        }
        Phase::Starting { .. } | Phase::Stopping { wish: StopWish::Destroy, .. } => Err(Ignored::AlreadyUnderWay),
        Phase::Sleeping | Phase::Reallocating { .. } => {
            destroy(record, world);
            Ok(Vec::new())
        }
        Phase::Destroyed => Err(Ignored::Destroyed),
    }
}

fn host_found(record: &mut ActorRecord, found: &EnvoyKey) -> Applied {
    match &mut record.phase {
        Phase::Starting { place: place @ Place::Outbound, .. } => {
            *place = Place::Host(found.clone());
            Ok(Vec::new())
        }
        Phase::Starting { place: Place::Host(host), .. } | Phase::Running { host } | Phase::Stopping { host, .. } => {
            Err(if host == found { Ignored::Duplicate } else { Ignored::Stale })
        }
        Phase::Sleeping | Phase::Reallocating { .. } => Err(Ignored::NotRunning),
        Phase::Destroyed => Err(Ignored::Destroyed),
    }
}

/// An actor that is starting has failed. One that runs has not: its host's own connection tells better what became of it, and the
/// request's end is a reason to move at most ([`Input::Evict`]). That is not as in `spec/scheduling.md` 3.4, where a request that
/// breaks costs a running actor its unsaved state.
fn outbound_failed(record: &mut ActorRecord, error: &PoolError, world: &World<'_>) -> Applied {
    match &record.phase {
        Phase::Starting { .. } => Ok(end_generation(record, &Cause::OutboundFailed(error), world)),
        Phase::Running { .. } | Phase::Stopping { .. } => Err(Ignored::AlreadyUnderWay),
        Phase::Sleeping | Phase::Reallocating { .. } => Err(Ignored::NotRunning),
        Phase::Destroyed => Err(Ignored::Destroyed),
    }
}

fn commands_acked(record: &mut ActorRecord, host: &EnvoyKey, generation: u32, index: i64) -> Applied {
    if record.host() != Some(host) || generation != record.generation || index > record.last_command_index {
        return Err(Ignored::Stale);
    }
    if index <= record.acked_command_index {
        return Err(Ignored::Duplicate);
    }
    record.acked_command_index = index;
    Ok(Vec::new())
}

fn event(record: &mut ActorRecord, kind: &EventKind, world: &World<'_>) -> Applied {
    match kind {
        EventKind::Running => running(record, world),
        EventKind::Stopped { error: false, .. } => Ok(end_generation(record, &Cause::StoppedOk, world)),
        EventKind::Stopped { error: true, message } => {
            Ok(end_generation(record, &Cause::StoppedError { message: message.as_deref() }, world))
        }
        EventKind::IntentSleep => {
            // An intent that comes before `running` counts like a wish of the API.
            sleep(record, world)
        }
        EventKind::IntentStop => match &record.phase {
            Phase::Running { .. } => {
                record.connectable_ts = None;
                Ok(stop(record, StopWish::Destruction, StopReason::StopIntent, world))
            }
            Phase::Starting { .. } => destroy_asked(record, world),
            Phase::Stopping { .. } => Err(Ignored::AlreadyUnderWay),
            Phase::Sleeping | Phase::Reallocating { .. } => Err(Ignored::NotRunning),
            Phase::Destroyed => Err(Ignored::Destroyed),
        },
        EventKind::SetAlarm(alarm_ts) => {
            record.alarm_ts = *alarm_ts;
            record.served_alarm_ts = None;
            Ok(Vec::new())
        }
    }
}

fn running(record: &mut ActorRecord, world: &World<'_>) -> Applied {
    let Phase::Starting { place: Place::Host(host), then, .. } = &record.phase else {
        return Err(Ignored::AlreadyUnderWay);
    };
    let (host, then) = (host.clone(), *then);
    record.phase = Phase::Running { host };
    record.start_ts = record.start_ts.or(Some(world.now));
    match then {
        AfterStart::Run => {
            record.connectable_ts = Some(world.now);
            Ok(Vec::new())
        }
        AfterStart::Sleep => {
            // It is stopped before it can serve the alarm.
            record.put_alarm_back();
            sleep(record, world)
        }
        AfterStart::Move => relocate(record, world, Connectable::Clear),
        AfterStart::Destroy => destroy_asked(record, world),
    }
}

/// Tells the host to stop the running generation.
fn stop(record: &mut ActorRecord, wish: StopWish, reason: StopReason, world: &World<'_>) -> Vec<CommandToHost> {
    let Some(host) = record.host().cloned() else { return Vec::new() };
    record.last_command_index += 1;
    record.phase = Phase::Stopping { host: host.clone(), wish, deadline: world.now + world.stop_threshold_ms };
    vec![CommandToHost { host, generation: record.generation, index: record.last_command_index, command: Command::Stop(reason) }]
}

/// Changes what follows a stop that is under way; the host gets no second command, the deadline starts over.
fn change_wish(record: &mut ActorRecord, wish: StopWish, world: &World<'_>) -> Vec<CommandToHost> {
    if let Some(host) = record.host().cloned() {
        record.phase = Phase::Stopping { host, wish, deadline: world.now + world.stop_threshold_ms };
    }
    Vec::new()
}
