//! What is in the way of an actor that takes no requests, in words for people and in details for programs.
//!
//! The gateway asks for it only when a wait has been in vain, so it may be put together from whatever the engine knows at that
//! moment, and costs a request nothing that finds its actor ready.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use protocol::id::ActorId;
use serde_json::{Map, Value, json};

/// What is in the way of an actor. Times are as of the moment of asking.
#[derive(Debug, Clone, PartialEq)]
pub enum Obstacle {
    /// It sleeps, and nothing has come of the wish to wake it yet.
    Asleep,
    /// Its pool has no configuration, and no host is there.
    NoPool {
        /// Name of the pool.
        pool: String,
    },
    /// No host of its pool is connected.
    NoHosts {
        /// Name of the pool.
        pool: String,
    },
    /// Hosts of its pool are connected, but all of them are about to leave.
    HostsLeaving {
        /// Name of the pool.
        pool: String,
        /// How many.
        hosts: usize,
    },
    /// Its pool runs as many actors as it may.
    PoolFull {
        /// Name of the pool.
        pool: String,
        /// The limit; `None` if that has just been lifted.
        max_concurrent_actors: Option<u64>,
    },
    /// The endpoint of its pool fails.
    PoolFailing {
        /// Name of the pool.
        pool: String,
        /// What is wrong with it.
        fault: PoolFault,
        /// Until it is tried again; `None` when that is not planned for a certain time.
        retry_in: Option<Duration>,
    },
    /// A host got the start command, and has not reported the actor running.
    Starting {
        /// Key of the host.
        host: String,
        /// Since when.
        since: Duration,
    },
    /// The endpoint of its pool was asked to start it, and no host has reported it running.
    StartingOutbound {
        /// Name of the pool.
        pool: String,
        /// Since when.
        since: Duration,
    },
    /// A host was told to stop it, and has not reported that done.
    Stopping {
        /// Key of the host.
        host: String,
        /// Since when.
        since: Duration,
    },
    /// Nothing is heard from the host that it needs.
    HostSilent {
        /// Key of the host.
        host: String,
        /// How long.
        silent_for: Duration,
        /// Whether its connection still seems to be there.
        connected: bool,
    },
    /// An attempt to start it has failed, and the next one has its time.
    BackingOff {
        /// Until then.
        retry_in: Duration,
    },
}

/// What is wrong with the endpoint of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolFault {
    /// In words that can end a sentence, for example `endpoint answered 502: Bad Gateway`.
    pub words: String,
    /// As programs see it: a pool error (`spec/scheduling.md` 1.5).
    pub details: Value,
}

/// How a generation of an actor ended, or the search for a host of its next one.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationEnd {
    /// It stopped as it should: to sleep, to move, or because it was over.
    Stopped,
    /// It ended with an error before it was running.
    StartFailed {
        /// The actor's words.
        message: Option<String>,
    },
    /// It ended with an error.
    Crashed {
        /// The actor's words.
        message: Option<String>,
    },
    /// Nobody reported it running in time.
    StartUnanswered {
        /// Key of the host that was told to start it; `None` when the endpoint of its pool was.
        host: Option<String>,
    },
    /// The host that was told to stop it did not report that done in time.
    StopUnanswered {
        /// Key of the host.
        host: String,
    },
    /// Its host was out of touch for too long.
    HostLost {
        /// Key of the host.
        host: String,
    },
    /// The endpoint of its pool did not start it.
    EndpointFailed(PoolFault),
    /// Nobody was found to run it for so long that the search was given up.
    SearchGivenUp,
}

/// A wait for an actor that has been in vain.
#[derive(Debug)]
pub struct VainWait {
    /// The actor.
    pub actor: ActorId,
    /// How long it was waited for.
    pub waited: Duration,
    /// What was in the way at the end; `None`: nothing that the engine knows of.
    pub obstacle: Option<Obstacle>,
    /// How the last of the generations ended that ended during the wait.
    pub last_end: Option<Arc<GenerationEnd>>,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asleep => f.write_str("it is asleep and being woken"),
            Self::NoPool { pool } => write!(f, "no pool {pool:?} is configured"),
            Self::NoHosts { pool } => write!(f, "no capacity, because no host of pool {pool:?} is connected"),
            Self::HostsLeaving { pool, hosts } => {
                write!(f, "no capacity, because all hosts of pool {pool:?} ({hosts}) are shutting down or being replaced")
            }
            Self::PoolFull { pool, max_concurrent_actors } => {
                write!(f, "no capacity, because pool {pool:?} runs as many actors at once as it may")?;
                max_concurrent_actors.map_or(Ok(()), |max| write!(f, ", which is {max}"))
            }
            Self::PoolFailing { pool, fault, retry_in } => {
                write!(f, "pool {pool:?} fails: {}", fault.words)?;
                retry_in.map_or(Ok(()), |retry_in| write!(f, "; next attempt in {}", spoken(retry_in)))
            }
            Self::Starting { host, since } => {
                write!(f, "host {host:?} was told to start it {} ago and has not reported it running", spoken(*since))
            }
            Self::StartingOutbound { pool, since } => {
                let since = spoken(*since);
                write!(f, "the endpoint of pool {pool:?} was asked to start it {since} ago and no host has reported it running")
            }
            Self::Stopping { host, since } => {
                write!(f, "host {host:?} was told to stop it {} ago and has not reported that done", spoken(*since))
            }
            Self::HostSilent { host, silent_for, connected } => {
                write!(f, "host {host:?} silent for {}", spoken(*silent_for))?;
                f.write_str(if *connected { ", still connected" } else { ", not connected" })
            }
            Self::BackingOff { retry_in } => write!(f, "the next attempt to start it is due in {}", spoken(*retry_in)),
        }
    }
}

impl Obstacle {
    /// Its name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::NoPool { .. } => "no_pool",
            Self::NoHosts { .. } => "no_hosts",
            Self::HostsLeaving { .. } => "hosts_leaving",
            Self::PoolFull { .. } => "pool_full",
            Self::PoolFailing { .. } => "pool_failing",
            Self::Starting { .. } | Self::StartingOutbound { .. } => "starting",
            Self::Stopping { .. } => "stopping",
            Self::HostSilent { .. } => "host_silent",
            Self::BackingOff { .. } => "backing_off",
        }
    }

    /// What programs may want to know besides [`Self::code`]. Times are in milliseconds.
    fn details(&self) -> Value {
        match self {
            Self::Asleep => json!({}),
            Self::BackingOff { retry_in } => json!({ "retry_in_ms": millis(*retry_in) }),
            Self::NoPool { pool } | Self::NoHosts { pool } => json!({ "pool": pool }),
            Self::HostsLeaving { pool, hosts } => json!({ "pool": pool, "hosts": hosts }),
            Self::PoolFull { pool, max_concurrent_actors } => {
                json!({ "pool": pool, "max_concurrent_actors": max_concurrent_actors })
            }
            Self::PoolFailing { pool, fault, retry_in } => {
                json!({ "pool": pool, "runner_pool_error": fault.details, "retry_in_ms": retry_in.map(millis) })
            }
            Self::Starting { host, since } | Self::Stopping { host, since } => {
                json!({ "envoy_key": host, "since_ms": millis(*since) })
            }
            Self::StartingOutbound { pool, since } => json!({ "pool": pool, "since_ms": millis(*since) }),
            Self::HostSilent { host, silent_for, connected } => {
                json!({ "envoy_key": host, "silent_ms": millis(*silent_for), "connected": connected })
            }
        }
    }
}

impl fmt::Display for GenerationEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_message = |f: &mut fmt::Formatter<'_>, what: &str, message: &Option<String>| match message {
            Some(message) => write!(f, "{what}: {message}"),
            None => f.write_str(what),
        };
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::StartFailed { message } => with_message(f, "start failed", message),
            Self::Crashed { message } => with_message(f, "crashed", message),
            Self::StartUnanswered { host: Some(host) } => write!(f, "host {host:?} did not report it running in time"),
            Self::StartUnanswered { host: None } => f.write_str("no host reported it running in time"),
            Self::StopUnanswered { host } => write!(f, "host {host:?} did not report it stopped in time"),
            Self::HostLost { host } => write!(f, "host {host:?} lost"),
            Self::EndpointFailed(fault) => f.write_str(&fault.words),
            Self::SearchGivenUp => f.write_str("the search for a host was given up"),
        }
    }
}

impl GenerationEnd {
    /// As programs see it.
    pub(crate) fn details(&self) -> Value {
        match self {
            Self::Stopped => json!({ "reason": "stopped" }),
            Self::StartFailed { message } => json!({ "reason": "start_failed", "message": message }),
            Self::Crashed { message } => json!({ "reason": "crashed", "message": message }),
            Self::StartUnanswered { host } => json!({ "reason": "start_unanswered", "envoy_key": host }),
            Self::StopUnanswered { host } => json!({ "reason": "stop_unanswered", "envoy_key": host }),
            Self::HostLost { host } => json!({ "reason": "host_lost", "envoy_key": host }),
            Self::EndpointFailed(fault) => json!({ "reason": "endpoint_failed", "runner_pool_error": fault.details }),
            Self::SearchGivenUp => json!({ "reason": "search_given_up" }),
        }
    }
}

/// A sentence that says how a generation ended, if one did, to stand behind others.
pub(crate) struct LastEnd<'a>(pub(crate) &'a Option<Arc<GenerationEnd>>);

impl fmt::Display for LastEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |end| write!(f, " Last end: {end}."))
    }
}

/// A sentence or two, to stand behind what has failed.
impl fmt::Display for VainWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "After {}: ", spoken(self.waited))?;
        match &self.obstacle {
            Some(obstacle) => write!(f, "{obstacle}.")?,
            None => f.write_str("nothing that the engine knows of was in the way.")?,
        }
        LastEnd(&self.last_end).fmt(f)
    }
}

impl VainWait {
    /// As programs see it. What is not known is left out.
    pub(crate) fn metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert("actor_id".into(), self.actor.to_string().into());
        metadata.insert("waited_ms".into(), millis(self.waited).into());
        metadata.insert("waiting_for".into(), self.obstacle.as_ref().map_or("unknown", Obstacle::code).into());
        if let Some(Value::Object(details)) = self.obstacle.as_ref().map(Obstacle::details) {
            metadata.extend(details.into_iter().filter(|(_name, value)| !value.is_null()));
        }
        if let Some(end) = &self.last_end {
            metadata.insert("last_end".into(), end.details());
        }
        metadata
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// A time as people say it: `450 ms`, `1.5 s`, `12 s`.
fn spoken(duration: Duration) -> String {
    match millis(duration) {
        short @ 0..1_000 => format!("{short} ms"),
        seconds @ 1_000..10_000 if seconds % 1_000 >= 100 => format!("{}.{} s", seconds / 1_000, seconds % 1_000 / 100),
        long => format!("{} s", long / 1_000),
    }
}

#[cfg(test)]
mod tests;
