//! What is known of each pool while the engine runs: who has a place in it, who waits for one, and how its endpoint fares
//! (`spec/scheduling.md` 7, 9). The configuration is in the catalog, the hosts are in [`crate::hosts`].

mod shown;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifecycle::actor::{Capacity, EnvoyKey, Identity, Shortage};
use lifecycle::pool::{Admission, Breaker, BreakerRules, ErrorTracker, PoolError};
use parking_lot::Mutex;
use protocol::id::{ActorId, NamespaceId};

use crate::catalog::{Catalog, PoolKind};
use crate::clock::Clock;
use crate::hosts::Hosts;
pub(crate) use shown::{error_in_words, error_json};
use waiting::Waiting;

/// The limits in force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolRules {
    pub(crate) breaker: BreakerRules,
    /// Good outcomes in a row after which a pool's error is no longer shown.
    pub(crate) successes_to_clear_error: u32,
}

/// All pools; clone freely.
#[derive(Clone)]
pub(crate) struct Pools(Arc<Shared>);

struct Shared {
    catalog: Catalog,
    hosts: Hosts,
    clock: Clock,
    rules: PoolRules,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// By namespace and name. A pool is here as long as it has something to remember.
    pools: BTreeMap<NamespaceId, BTreeMap<String, Pool>>,
    /// No endpoint is asked any more.
    stopping: bool,
}

#[derive(Default)]
struct Pool {
    /// Actors that have a place, or were just offered one.
    placed: BTreeSet<ActorId>,
    waiting: Waiting,
    breaker: Breaker,
    errors: ErrorTracker,
}

impl Pool {
    fn has_nothing_to_remember(&self) -> bool {
        self.placed.is_empty() && self.waiting.is_empty() && !self.breaker.is_open() && self.errors.active().is_none()
    }
}

/// Who would take an actor now.
#[derive(Debug)]
pub(crate) enum Offer {
    /// This host.
    Host(EnvoyKey),
    /// The pool's endpoint. A place is held for the actor until [`Pools::settle`] or [`Pools::decline`].
    Outbound,
    /// Nobody.
    None(Shortage),
}

impl Offer {
    /// The same, for a decision.
    pub(crate) fn capacity(&self) -> Capacity<'_> {
        match self {
            Self::Host(host) => Capacity::Host(host),
            Self::Outbound => Capacity::Outbound,
            Self::None(shortage) => Capacity::None(shortage),
        }
    }
}

impl Pools {
    pub(crate) fn new(catalog: Catalog, hosts: Hosts, clock: Clock, rules: PoolRules) -> Self {
        Self(Arc::new(Shared { catalog, hosts, clock, rules, table: Mutex::default() }))
    }

    /// Looks for a place for an actor.
    pub(crate) fn offer(&self, actor: &Identity) -> Offer {
        let pool = self.0.catalog.pool(actor.namespace_id, &actor.pool);
        match pool.as_ref().map(|pool| &pool.config.kind) {
            Some(PoolKind::Serverless(options)) => self.offer_outbound(actor, options.max_concurrent_actors),
            // Hosts of a pool whose configuration was deleted are as good as before.
            Some(PoolKind::Normal) | None => match self.0.hosts.choose(actor.namespace_id, &actor.pool) {
                Some(host) => Offer::Host(host),
                None => Offer::None(Shortage::NoHosts),
            },
        }
    }

    fn offer_outbound(&self, actor: &Identity, max_concurrent_actors: u64) -> Offer {
        let now = self.0.clock.now();
        let mut table = self.0.table.lock();
        if table.stopping {
            return Offer::None(Shortage::EngineStopping);
        }
        let pool = table.entry(actor.namespace_id, &actor.pool);
        let is_full = pool.placed.len() as u64 >= max_concurrent_actors && !pool.placed.contains(&actor.actor_id);
        if is_full {
            return Offer::None(Shortage::ConcurrentActorLimit);
        }
        match pool.breaker.admits(now) {
            Admission::Wait { until } => {
                let error = pool.errors.active().map_or(PoolError::InternalError, |(error, _)| error.clone());
                Offer::None(Shortage::PoolFailing { error, retry_at: until })
            }
            Admission::Go => {
                pool.placed.insert(actor.actor_id);
                pool.breaker.attempted(now, &self.0.rules.breaker);
                Offer::Outbound
            }
        }
    }

    /// An offered place is not taken. `keeps_place`: the actor has one all the same, from before.
    pub(crate) fn decline(&self, actor: &Identity, keeps_place: bool) {
        let now = self.0.clock.now();
        let mut table = self.0.table.lock();
        let pool = table.entry(actor.namespace_id, &actor.pool);
        pool.breaker.withdrawn(now);
        if !keeps_place {
            pool.placed.remove(&actor.actor_id);
        }
        table.forget_if_idle(actor.namespace_id, &actor.pool);
    }

    /// Notes where an actor stands now. Returns who waits for a place and should try again, because one may be free.
    pub(crate) fn settle(&self, actor: &Identity, stands: Stands) -> Option<ActorId> {
        let mut table = self.0.table.lock();
        let pool = table.entry(actor.namespace_id, &actor.pool);
        let made_room = match stands {
            Stands::Placed => {
                pool.placed.insert(actor.actor_id);
                pool.waiting.remove(actor.actor_id)
            }
            Stands::Waiting => {
                pool.waiting.insert(actor.actor_id);
                pool.placed.remove(&actor.actor_id)
            }
            Stands::Resting => pool.waiting.remove(actor.actor_id) | pool.placed.remove(&actor.actor_id),
        };
        let next = if made_room { pool.waiting.first_other_than(actor.actor_id) } else { None };
        table.forget_if_idle(actor.namespace_id, &actor.pool);
        drop(table);
        // Where hosts connect by themselves, nobody makes room for anybody.
        next.filter(|_| self.is_serverless(actor.namespace_id, &actor.pool))
    }

    /// Actors that wait for a place in a pool, those first that have waited longest.
    pub(crate) fn waiting(&self, namespace: NamespaceId, pool: &str) -> Vec<ActorId> {
        let table = self.0.table.lock();
        table.get(namespace, pool).map(|pool| pool.waiting.in_order().collect()).unwrap_or_default()
    }

    /// The endpoint has accepted a start. Returns those who waited for its recovery.
    pub(crate) fn start_accepted(&self, namespace: NamespaceId, pool: &str) -> Vec<ActorId> {
        let mut table = self.0.table.lock();
        let state = table.entry(namespace, pool);
        let waiting = if state.breaker.succeeded() { state.waiting.in_order().collect() } else { Vec::new() };
        table.forget_if_idle(namespace, pool);
        waiting
    }

    /// The endpoint has not accepted a start that was tried at `began`.
    pub(crate) fn start_failed(&self, namespace: NamespaceId, pool: &str, began: lifecycle::Ts, error: PoolError) {
        let now = self.0.clock.now();
        let mut table = self.0.table.lock();
        let state = table.entry(namespace, pool);
        state.breaker.failed(began, now, &self.0.rules.breaker);
        state.errors.failed(error, now);
    }

    /// Forgets what went wrong: the pool has another endpoint.
    pub(crate) fn start_over(&self, namespace: NamespaceId, pool: &str) {
        let mut table = self.0.table.lock();
        let Some(state) = table.get_mut(namespace, pool) else { return };
        (state.breaker, state.errors) = (Breaker::default(), ErrorTracker::default());
        table.forget_if_idle(namespace, pool);
    }

    /// Something is wrong with the pool, whatever it means for single starts.
    pub(crate) fn failed(&self, namespace: NamespaceId, pool: &str, error: PoolError) {
        let now = self.0.clock.now();
        self.0.table.lock().entry(namespace, pool).errors.failed(error, now);
    }

    /// A host of the pool has connected, or an actor runs on one.
    pub(crate) fn succeeded(&self, namespace: NamespaceId, pool: &str) {
        let mut table = self.0.table.lock();
        // Most pools have no error to forget.
        let Some(state) = table.get_mut(namespace, pool).filter(|state| state.errors.active().is_some()) else { return };
        state.errors.succeeded(self.0.rules.successes_to_clear_error);
        table.forget_if_idle(namespace, pool);
    }

    /// The error that the pool shows now.
    pub(crate) fn error(&self, namespace: NamespaceId, pool: &str) -> Option<PoolError> {
        let table = self.0.table.lock();
        table.get(namespace, pool)?.errors.active().map(|(error, _)| error.clone())
    }

    /// How many actors have a place.
    #[cfg(feature = "simulation")]
    pub(crate) fn places(&self, namespace: NamespaceId, pool: &str) -> usize {
        self.0.table.lock().get(namespace, pool).map_or(0, |pool| pool.placed.len())
    }

    /// Asks no endpoint any more: this process ends.
    pub(crate) fn stop(&self) {
        self.0.table.lock().stopping = true;
    }

    pub(crate) fn is_serverless(&self, namespace: NamespaceId, pool: &str) -> bool {
        self.0.catalog.pool(namespace, pool).is_some_and(|pool| matches!(pool.config.kind, PoolKind::Serverless(_)))
    }
}

/// Where an actor stands, as far as its pool is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// A generation of it has a place.
    Placed,
    /// It should run and has no place.
    Waiting,
    /// Asleep or destroyed.
    Resting,
}

impl Table {
    fn get(&self, namespace: NamespaceId, pool: &str) -> Option<&Pool> {
        self.pools.get(&namespace)?.get(pool)
    }

    fn get_mut(&mut self, namespace: NamespaceId, pool: &str) -> Option<&mut Pool> {
        self.pools.get_mut(&namespace)?.get_mut(pool)
    }

    fn entry(&mut self, namespace: NamespaceId, pool: &str) -> &mut Pool {
        self.pools.entry(namespace).or_default().entry(pool.to_owned()).or_default()
    }

    /// Names of pools come from outside, so none is remembered for nothing.
    fn forget_if_idle(&mut self, namespace: NamespaceId, pool: &str) {
        let Some(of_namespace) = self.pools.get_mut(&namespace) else { return };
        if of_namespace.get(pool).is_some_and(Pool::has_nothing_to_remember) {
            of_namespace.remove(pool);
        }
        if of_namespace.is_empty() {
            self.pools.remove(&namespace);
        }
    }
}
