//! What the engine remembers of one actor.

use std::fmt;
use std::sync::Arc;

use protocol::id::{ActorId, NamespaceId};

use crate::Ts;
use crate::pool::PoolError;

/// The name that a host process chose for itself; unique within a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvoyKey(Arc<str>);

impl EnvoyKey {
    /// Takes the key as the host gave it; its form is checked where hosts connect.
    pub fn new(key: &str) -> Self {
        Self(key.into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvoyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part of a record that never changes after creation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The actor.
    pub actor_id: ActorId,
    /// The namespace it belongs to.
    pub namespace_id: NamespaceId,
    /// Actor name, 1 to 64 characters.
    pub name: String,
    /// Serialised key, at most 1,024 bytes; `None` for an actor that is only found by its id.
    pub key: Option<String>,
    /// The pool whose hosts may run it.
    pub pool: String,
    /// When its creation was accepted.
    pub create_ts: Ts,
}

/// What the reschedule back-off remembers. A successful run does not reset it; time does (`spec/scheduling.md` 3.8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Retry {
    /// Failed attempts counted for the exponent.
    pub count: u32,
    /// When the latest attempt failed; 0 before the first.
    pub last_ts: Ts,
    /// When the present series of failures began; 0 while there is none.
    pub first_failure_ts: Ts,
}

/// What to do with an actor as soon as it has started, because it was asked for while it was starting.
/// A stronger wish replaces a weaker one; they are declared from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AfterStart {
    /// Nothing: run.
    Run,
    /// Put it to sleep.
    Sleep,
    /// Move it to another host.
    Move,
    /// Destroy it.
    Destroy,
}

/// Why an actor was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopWish {
    /// To sleep. With `rewake`, somebody asked for it meanwhile, so it starts again at once.
    Sleep {
        /// Start again as soon as it has stopped.
        rewake: bool,
    },
    /// It asked to be destroyed.
    Destruction,
    /// To move to another host.
    Move,
    /// The API asked for its destruction.
    Destroy,
}

/// Who is to run a generation that is starting.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// This host got the start command, or was the first to speak for a generation that an endpoint was asked for.
    Host(EnvoyKey),
    /// The pool's endpoint was asked for it. Which host it leads to is not known yet (`spec/scheduling.md` 9.1).
    Outbound,
}

impl Place {
    /// The host, if it is known.
    pub fn host(&self) -> Option<&EnvoyKey> {
        match self {
            Self::Host(host) => Some(host),
            Self::Outbound => None,
        }
    }
}

/// Where an actor stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The start was ordered; waiting for `running` or `stopped`. Handing the order over takes no phase of its own, as it
    /// happens within the process and is repeated after a restart.
    Starting {
        /// Who got the order.
        place: Place,
        /// When the host counts as unresponsive.
        deadline: Ts,
        /// What follows when it has started.
        then: AfterStart,
    },
    /// The host reported it running.
    Running {
        /// The host.
        host: EnvoyKey,
    },
    /// The stop command was issued; waiting for `stopped`.
    Stopping {
        /// The host.
        host: EnvoyKey,
        /// Why.
        wish: StopWish,
        /// When the host counts as unresponsive.
        deadline: Ts,
    },
    /// Not running, and nothing planned but the alarm, if one is set.
    Sleeping,
    /// Not running; it should be, but no host could take it.
    Reallocating {
        /// When the next attempt is due.
        retry_at: Ts,
    },
    /// Over for good.
    Destroyed,
}

/// Why the last run of an actor ended or its start failed, as clients see it (`spec/scheduling.md` 1.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ActorError {
    /// No eligible host in the pool.
    NoEnvoys,
    /// The pool runs as many actors at once as it may.
    ConcurrentActorLimitReached,
    /// The pool's endpoint could not be made to start it.
    RunnerPoolError(PoolError),
    /// A deadline passed. The host is unknown when the actor had not reached `running`.
    EnvoyNoResponse {
        /// The silent host.
        envoy_key: Option<EnvoyKey>,
    },
    /// The host's connection was lost for too long.
    EnvoyConnectionLost {
        /// The lost host.
        envoy_key: EnvoyKey,
    },
    /// The actor reported that it stopped with an error.
    Crashed {
        /// The actor's words.
        message: Option<String>,
    },
}

/// The durable record of one actor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActorRecord {
    /// What never changes.
    pub identity: Arc<Identity>,
    /// Where it stands.
    pub phase: Phase,
    /// Counts placements; the first is 1, 0 before it.
    pub generation: u32,
    /// Index of the last event seen of this generation; -1 before the first.
    pub last_event_index: i64,
    /// Index of the last command issued in this generation.
    pub last_command_index: i64,
    /// Index of the last command of this generation that the host acknowledged; below that of the start before the first.
    pub acked_command_index: i64,
    /// When a sleeping actor is to be woken.
    pub alarm_ts: Option<Ts>,
    /// The due alarm that the present generation was started with, until its host speaks of alarms itself. If the host is
    /// lost first, nobody has served the alarm, so it is set again. While it is set, `alarm_ts` is not.
    pub served_alarm_ts: Option<Ts>,
    /// First time it became running.
    pub start_ts: Option<Ts>,
    /// Since when it takes requests.
    pub connectable_ts: Option<Ts>,
    /// Since when it sleeps or waits for a host.
    pub sleep_ts: Option<Ts>,
    /// When it was destroyed.
    pub destroy_ts: Option<Ts>,
    /// Why it does not run.
    pub error: Option<ActorError>,
    /// The back-off's memory.
    pub retry: Retry,
}

impl ActorRecord {
    /// A new actor that has not been allocated yet. The caller sends it [`super::Input::Wake`] next.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity: Arc::new(identity),
            phase: Phase::Sleeping,
            generation: 0,
            last_event_index: -1,
            last_command_index: 0,
            acked_command_index: 0,
            alarm_ts: None,
            served_alarm_ts: None,
            start_ts: None,
            connectable_ts: None,
            sleep_ts: None,
            destroy_ts: None,
            error: None,
            retry: Retry::default(),
        }
    }

    /// The host that runs the present generation, as far as it is known.
    pub fn host(&self) -> Option<&EnvoyKey> {
        match &self.phase {
            Phase::Starting { place, .. } => place.host(),
            Phase::Running { host } | Phase::Stopping { host, .. } => Some(host),
            Phase::Sleeping | Phase::Reallocating { .. } | Phase::Destroyed => None,
        }
    }

    /// Whether the present generation has not ended: some host has it, or an endpoint was asked for it.
    pub fn is_placed(&self) -> bool {
        match &self.phase {
            Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. } => true,
            Phase::Sleeping | Phase::Reallocating { .. } | Phase::Destroyed => false,
        }
    }

    /// The host that takes requests for this actor now.
    pub fn connectable_host(&self) -> Option<&EnvoyKey> {
        self.connectable_ts.and(self.host())
    }

    /// When the passing of time alone changes something; [`super::Input::DeadlineReached`] is due then.
    /// `None`: never. An alarm counts only while the actor sleeps, because a running one keeps its own timer
    /// (`spec/scheduling.md` 4).
    pub fn next_deadline(&self) -> Option<Ts> {
        match &self.phase {
            Phase::Starting { deadline, .. } | Phase::Stopping { deadline, .. } => Some(*deadline),
            Phase::Sleeping => self.alarm_ts,
            Phase::Reallocating { retry_at } => Some(*retry_at),
            Phase::Running { .. } | Phase::Destroyed => None,
        }
    }

    /// When the next allocation attempt is planned, as clients see it.
    pub fn reschedule_ts(&self) -> Option<Ts> {
        match &self.phase {
            Phase::Reallocating { retry_at } => Some(*retry_at),
            Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. } | Phase::Sleeping | Phase::Destroyed => None,
        }
    }

    /// Sets the alarm again that the present generation was started with but has not served.
    pub(super) fn put_alarm_back(&mut self) {
        if let Some(unserved) = self.served_alarm_ts.take() {
            self.alarm_ts = Some(unserved);
        }
    }

    /// Whether the actor is over for good.
    pub fn is_destroyed(&self) -> bool {
        self.phase == Phase::Destroyed
    }
}
