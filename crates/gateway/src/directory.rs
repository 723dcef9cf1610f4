//! What the gateway asks the engine: which actor a query means, where it runs, and to wake it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use protocol::error::{Coded, Surface};
use protocol::id::ActorId;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::link::EnvoyLink;
use crate::obstacle::{GenerationEnd, Obstacle};

/// An actor named by key instead of id (`spec/gateway.md` 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorQuery {
    /// Namespace name.
    pub namespace: String,
    /// Actor name.
    pub name: String,
    /// Components of the key.
    pub key: Vec<String>,
    /// What to do when there is no such actor.
    pub method: QueryMethod,
}

/// What a query does when there is no such actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryMethod {
    /// Fail.
    Get,
    /// Create it.
    GetOrCreate {
        /// Pool for the new actor.
        pool: String,
        /// CBOR input for the new actor.
        input: Option<Bytes>,
        /// Datacenter name.
        region: Option<String>,
    },
}

/// An error of the engine on its way to a client.
#[derive(Clone)]
pub struct Refusal(Arc<dyn Coded + Send + Sync>);

impl Refusal {
    /// Wraps an error of the engine.
    pub fn new(error: impl Coded + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Refusal {}

impl Coded for Refusal {
    fn group(&self) -> &'static str {
        self.0.group()
    }
    fn code(&self) -> &'static str {
        self.0.code()
    }
    fn status(&self, surface: Surface) -> u16 {
        self.0.status(surface)
    }
    fn metadata(&self) -> Map<String, Value> {
        self.0.metadata()
    }
    fn retry_after_seconds(&self) -> Option<u64> {
        self.0.retry_after_seconds()
    }
}

/// Whether requests can be forwarded to an actor.
#[derive(Debug, Clone)]
pub enum Readiness {
    /// Not now: asleep, or waiting for a host.
    NotReady,
    /// A host has the generation, which is starting, or stopping to sleep: requests wait, except those that have asked not to
    /// (`spec/gateway.md` 11).
    Hosted {
        /// The generation.
        generation: u32,
        /// The host's connection; `None` while the host is out of touch.
        link: Option<EnvoyLink>,
    },
    /// The generation takes requests.
    Ready {
        /// The generation.
        generation: u32,
        /// The host's connection; `None` while the host is out of touch.
        link: Option<EnvoyLink>,
    },
    /// Over for good.
    Destroyed,
}

/// What the gateway may know of an actor. Each change is pushed.
#[derive(Debug, Clone)]
pub struct ActorView {
    /// Whether requests can be forwarded.
    pub readiness: Readiness,
    /// Counts, since the engine began to watch the actor, generations that ended and searches for a host that were given up:
    /// after each of them it must be woken anew.
    pub ended_generations: u64,
    /// How the last of them ended; `None` before the first.
    pub last_end: Option<Arc<GenerationEnd>>,
}

/// The engine as the gateway sees it.
pub trait Directory: Send + Sync + 'static {
    /// Finds the actor that a query means; `None` when there is none. Changes nothing. Fails when the query cannot be
    /// answered, and then creating would fail as well: no such namespace, pool or datacenter.
    fn find(&self, query: &ActorQuery) -> impl Future<Output = Result<Option<ActorId>, Refusal>> + Send;

    /// Creates the actor that a query means. If somebody else has just done that, it is theirs.
    fn create(&self, query: ActorQuery) -> impl Future<Output = Result<ActorId, Refusal>> + Send;

    /// Watches an actor; `None` when there is none with this id.
    fn watch(&self, actor: ActorId) -> impl Future<Output = Result<Option<watch::Receiver<ActorView>>, Refusal>> + Send;

    /// Asks for the actor to run. Harmless when it runs already.
    fn wake(&self, actor: ActorId);

    /// What keeps an actor from taking requests at this moment; `None` when the engine knows of nothing. Asked only by those who
    /// have waited in vain.
    fn obstacle(&self, actor: ActorId) -> Option<Obstacle>;
}
