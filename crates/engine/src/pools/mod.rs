//! What is known of each pool while the engine runs: who has a place in it, who waits for one, and how its endpoint fares
//! (`spec/scheduling.md` 7, 9). The configuration is in the catalog, the hosts are in [`crate::hosts`].

mod shown;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifecycle::Ts;
use lifecycle::actor::{Capacity, EnvoyKey, Identity, Shortage};
use lifecycle::pool::{Admission, Breaker, BreakerRules, ErrorTracker, PoolError};
use parking_lot::Mutex;
use protocol::id::{ActorId, NamespaceId};

use crate::catalog::{Catalog, PoolKind};
use crate::clock::Clock;
use crate::hosts::Hosts;
pub(crate) use shown::{error_for_clients, error_json};
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
    Outbound {
        /// It is the attempt for whose outcome others wait, because the endpoint has failed before.
        is_probe: bool,
    },
    /// Nobody.
    None(Shortage),
}

impl Offer {
    /// The same, for a decision.
    pub(crate) fn capacity(&self) -> Capacity<'_> {
        match self {
            Self::Host(host) => Capacity::Host(host),
            Self::Outbound { .. } => Capacity::Outbound,
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
        let uptime = self.0.clock.uptime();
        let mut table = self.0.table.lock();
        if table.stopping {
            return Offer::None(Shortage::EngineStopping);
        }
        let pool = table.entry(actor.namespace_id, &actor.pool);
        let is_full = pool.placed.len() as u64 >= max_concurrent_actors && !pool.placed.contains(&actor.actor_id);
        if is_full {
            return Offer::None(Shortage::ConcurrentActorLimit);
        }
        match pool.breaker.admits(uptime, &self.0.rules.breaker) {
            Admission::Wait { until, error } => {
                Offer::None(Shortage::PoolFailing { error, retry_at: self.0.clock.now() + (until - uptime) })
            }
            Admission::Go => {
                pool.placed.insert(actor.actor_id);
                pool.breaker.attempted(uptime, &self.0.rules.breaker);
                Offer::Outbound { is_probe: pool.breaker.is_open() }
            }
        }
    }

    /// What was offered is not taken. `keeps_place`: the actor has a place all the same, from before. Returns who waits and
    /// should try again: whoever asked while the offer stood was turned away because of it.
    pub(crate) fn decline(&self, actor: &Identity, is_probe: bool, keeps_place: bool) -> Option<ActorId> {
        let uptime = self.0.clock.uptime();
        let mut table = self.0.table.lock();
        let pool = table.entry(actor.namespace_id, &actor.pool);
        if is_probe {
            pool.breaker.withdrawn(uptime);
        }
        let made_room = !keeps_place && pool.placed.remove(&actor.actor_id);
        let next = if made_room || is_probe { pool.waiting.first_other_than(actor.actor_id) } else { None };
        table.forget_if_idle(actor.namespace_id, &actor.pool);
        drop(table);
        self.only_if_serverless(actor, next)
    }

    /// Notes where an actor stands now, which has changed. Returns who waits for a place and should try again, because one may
    /// be free.
    pub(crate) fn settle(&self, actor: &Identity, stands: Stands) -> Option<ActorId> {
        let mut table = self.0.table.lock();
        let pool = table.entry(actor.namespace_id, &actor.pool);
        let may_be_room = match stands {
            Stands::Placed => {
                pool.placed.insert(actor.actor_id);
                // Who took a place that was passed on passes on that there may be more.
                pool.waiting.remove(actor.actor_id)
            }
            // It was turned away a while ago, and was not on the list when others were told that there is room.
            Stands::Waiting => {
                pool.placed.remove(&actor.actor_id);
                pool.waiting.insert(actor.actor_id);
                true
            }
            // Even if it has no place here: an offer that came to nothing may have taken it.
            Stands::Resting => {
                pool.placed.remove(&actor.actor_id);
                pool.waiting.remove(actor.actor_id);
                true
            }
        };
        let next = if may_be_room { pool.waiting.in_order().next() } else { None };
        table.forget_if_idle(actor.namespace_id, &actor.pool);
        drop(table);
        self.only_if_serverless(actor, next)
    }

    /// Where hosts connect by themselves, nobody makes room for anybody.
    fn only_if_serverless(&self, actor: &Identity, next: Option<ActorId>) -> Option<ActorId> {
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

    /// The endpoint has not accepted a start that was tried when the engine was `began` milliseconds old.
    pub(crate) fn start_failed(&self, namespace: NamespaceId, pool: &str, began: Ts, error: PoolError) {
        self.note_failure(namespace, pool, |state, uptime| {
            state.breaker.failed(began, uptime, error.clone(), &self.0.rules.breaker);
            state.errors.failed(error, self.0.clock.now());
        });
    }

    /// A start was admitted when the engine was `began` milliseconds old, and the request was not made for a reason that says
    /// nothing of the endpoint.
    pub(crate) fn start_not_made(&self, namespace: NamespaceId, pool: &str, began: Ts) {
        let uptime = self.0.clock.uptime();
        let mut table = self.0.table.lock();
        // One that was admitted before the endpoint failed is not the one whose outcome others wait for.
        if let Some(state) = table.get_mut(namespace, pool).filter(|state| state.breaker.trouble_since(began).is_none()) {
            state.breaker.withdrawn(uptime);
        }
    }

    /// What the endpoint was found to suffer from after a start was admitted, when the engine was `began` milliseconds old.
    pub(crate) fn trouble_since(&self, namespace: NamespaceId, pool: &str, began: Ts) -> Option<PoolError> {
        self.0.table.lock().get(namespace, pool)?.breaker.trouble_since(began).cloned()
    }

    /// Outcomes may come when the pool is not served by an endpoint any more, and would never be forgotten then. Whether it is
    /// gets asked under the lock, so that [`Self::start_over`] comes either before the question or after the note.
    fn note_failure(&self, namespace: NamespaceId, pool: &str, note: impl FnOnce(&mut Pool, Ts)) {
        let uptime = self.0.clock.uptime();
        let mut table = self.0.table.lock();
        if self.is_serverless(namespace, pool) {
            note(table.entry(namespace, pool), uptime);
        }
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
        self.note_failure(namespace, pool, |state, _uptime| state.errors.failed(error, self.0.clock.now()));
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
