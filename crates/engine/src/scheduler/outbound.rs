//! Generations that an endpoint is asked for (`spec/scheduling.md` 9): handing the order over, and finding out which host it
//! led to.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifecycle::Ts;
use lifecycle::actor::{Identity, Input, Phase};
use lifecycle::pool::PoolError;
use parking_lot::Mutex;
use protocol::id::{ActorId, NamespaceId};
use tokio::sync::mpsc;

use super::Scheduler;
use crate::hosts::Host;

/// What is to be done about a start request. There are at most as many orders as actors have a place in serverless pools.
#[derive(Debug, Clone)]
pub(crate) enum OutboundOrder {
    /// Ask the endpoint of the actor's pool for a generation.
    Start {
        /// The actor.
        identity: Arc<Identity>,
        /// The generation.
        generation: u32,
    },
    /// The generation is over: its request has nothing to wait for any more.
    Over {
        /// The actor.
        actor: ActorId,
        /// The generation.
        generation: u32,
    },
}

/// Generations that were asked for and are not over.
pub(super) struct Outbound {
    orders: mpsc::UnboundedSender<OutboundOrder>,
    generations: Mutex<BTreeMap<ActorId, Asked>>,
}

struct Asked {
    generation: u32,
    /// No host has spoken for it yet.
    is_open: bool,
    /// Its request has ended before it.
    is_cut_short: bool,
}

impl Outbound {
    pub(super) fn new(orders: mpsc::UnboundedSender<OutboundOrder>) -> Self {
        Self { orders, generations: Mutex::default() }
    }

    pub(super) fn order(&self, identity: Arc<Identity>, generation: u32) {
        self.generations.lock().insert(identity.actor_id, Asked { generation, is_open: true, is_cut_short: false });
        // Nobody takes orders any more when the engine is about to end; the next process repeats them.
        let _ = self.orders.send(OutboundOrder::Start { identity, generation });
    }

    pub(super) fn over(&self, actor: ActorId, generation: u32) {
        let mut generations = self.generations.lock();
        if generations.get(&actor).is_some_and(|asked| asked.generation == generation) {
            generations.remove(&actor);
            let _ = self.orders.send(OutboundOrder::Over { actor, generation });
        }
    }

    /// Whether there is a request for a generation, so that somebody sees to its end.
    fn is_held(&self, actor: ActorId, generation: u32) -> bool {
        self.generations.lock().get(&actor).is_some_and(|asked| asked.generation == generation)
    }

    /// Whether a generation waits for its host.
    fn is_open(&self, actor: ActorId, generation: u32) -> bool {
        self.generations.lock().get(&actor).is_some_and(|asked| asked.is_open && asked.generation == generation)
    }

    /// Notes that the request of a generation has ended.
    fn cut_short(&self, actor: ActorId, generation: u32) {
        if let Some(asked) = self.generations.lock().get_mut(&actor).filter(|asked| asked.generation == generation) {
            asked.is_cut_short = true;
        }
    }

    /// Whether the request of a generation has ended before it.
    fn is_cut_short(&self, actor: ActorId, generation: u32) -> bool {
        self.generations.lock().get(&actor).is_some_and(|asked| asked.is_cut_short && asked.generation == generation)
    }

    /// Takes a generation for a host. Whether it was open.
    fn claim(&self, actor: ActorId, generation: u32) -> bool {
        let mut generations = self.generations.lock();
        match generations.get_mut(&actor) {
            Some(asked) if asked.is_open && asked.generation == generation => {
                asked.is_open = false;
                true
            }
            Some(_) | None => false,
        }
    }
}

impl Scheduler {
    /// A host speaks for a generation. If an endpoint of the host's pool was asked for it and no host has come forward yet, it
    /// is this host's from now on. Nothing happens otherwise.
    pub(crate) fn claim(&self, host: &Host, actor: ActorId, generation: u32) {
        if host.generation_of(actor) == Some(generation) || !self.0.outbound.is_open(actor, generation) {
            return;
        }
        let cell = self.0.cells.lock().get(&actor).cloned();
        let Some(stored) = cell.and_then(|cell| cell.stored()) else { return };
        let identity = &stored.record.identity;
        // A host of another pool may know the actor's id, but has no right to it.
        let may_have_it = identity.namespace_id == host.namespace_id && host.pool() == identity.pool;
        if may_have_it && self.0.outbound.claim(actor, generation) {
            host.assign(actor, generation);
            self.post(actor, Input::HostFound { host: host.key.clone(), generation });
            self.outbound_accepted(identity);
        }
    }

    /// Moves actors of a serverless pool whose start requests ended with the previous engine process. Nothing is known to
    /// keep their host alive, and nobody sees to the end of their lifespan.
    pub(super) fn renew_requests(&self, host: &Host, pool: &str) {
        if !self.0.pools.is_serverless(host.namespace_id, pool) {
            return;
        }
        for (actor, generation) in host.assigned() {
            if !self.0.outbound.is_held(actor, generation) {
                self.post(actor, Input::Evict { generation });
            }
        }
    }

    /// The endpoint deals with a start: a host has come forward, or the request has been open for a while.
    pub(crate) fn outbound_accepted(&self, actor: &Identity) {
        for waiting in self.0.pools.start_accepted(actor.namespace_id, &actor.pool) {
            self.post(waiting, Input::CapacityArrived);
        }
    }

    /// A start request has ended before its actor. Whether that is on a host which is still connected.
    pub(crate) fn outbound_cut_short(&self, actor: &Identity, generation: u32, error: PoolError) -> bool {
        let Some((host, _)) = self.host_that_came_forward(actor, generation) else { return false };
        // First, so that a connection which ends now is noticed here or in `give_up_cut_short`.
        self.0.outbound.cut_short(actor.actor_id, generation);
        self.pool_failed(actor.namespace_id, &actor.pool, error);
        host.link().is_some()
    }

    /// Gives those actors of a host up whose request has ended as well as the host's connection: there was an instance of the
    /// application, and nothing is left of it (`spec/scheduling.md` 9.6).
    pub(super) fn give_up_cut_short(&self, host: &Host) {
        for (actor, generation) in host.assigned() {
            if self.0.outbound.is_cut_short(actor, generation) {
                self.post(actor, Input::HostLost { host: host.key.clone(), generation });
            }
        }
    }

    /// A start request that was tried at `began` was refused, or has ended before its actor.
    pub(crate) fn outbound_failed(&self, actor: &Identity, generation: u32, began: Ts, error: PoolError) {
        let input = match self.host_that_came_forward(actor, generation) {
            // However well its answer began, it has led to nothing.
            None => {
                self.0.pools.start_failed(actor.namespace_id, &actor.pool, began, error.clone());
                Input::OutboundFailed { generation, error }
            }
            Some((host, is_stopping)) => {
                self.0.pools.failed(actor.namespace_id, &actor.pool, error);
                match host.link() {
                    // The end of the stop has its own deadline.
                    Some(_) if is_stopping => return,
                    // The host is there. The actor can be saved and go where a request sees to it again.
                    Some(_) => Input::Evict { generation },
                    None => Input::HostLost { host: host.key.clone(), generation },
                }
            }
        };
        self.post(actor.actor_id, input);
    }

    /// The host that has a generation, if one has come forward for it, and whether it was told to stop it.
    fn host_that_came_forward(&self, actor: &Identity, generation: u32) -> Option<(Arc<Host>, bool)> {
        if self.0.outbound.is_open(actor.actor_id, generation) {
            return None;
        }
        let cell = self.0.cells.lock().get(&actor.actor_id).cloned()?;
        let stored = cell.stored()?;
        let host = self.0.hosts.get(actor.namespace_id, stored.record.host()?)?;
        Some((host, matches!(stored.record.phase, Phase::Stopping { .. })))
    }

    /// A pool's configuration was written or deleted: those who wait for a place in it may have one now. What was wrong with
    /// another endpoint is forgotten.
    pub(crate) fn pool_saved(&self, namespace: NamespaceId, pool: &str, endpoint_changed: bool) {
        if endpoint_changed {
            self.0.pools.start_over(namespace, pool);
        }
        for waiting in self.0.pools.waiting(namespace, pool) {
            self.post(waiting, Input::CapacityArrived);
        }
    }

    /// Something is wrong with a pool, whatever it means for its actors.
    pub(crate) fn pool_failed(&self, namespace: NamespaceId, pool: &str, error: PoolError) {
        self.0.pools.failed(namespace, pool, error);
    }

    /// The error that a pool shows now.
    pub(crate) fn pool_error(&self, namespace: NamespaceId, pool: &str) -> Option<PoolError> {
        self.0.pools.error(namespace, pool)
    }

    /// Asks no endpoint for anything any more: this process ends, and the next one goes on.
    pub(crate) fn stop_asking_endpoints(&self) {
        self.0.pools.stop();
    }

    /// How many actors have a place in a serverless pool.
    #[cfg(feature = "simulation")]
    pub(crate) fn places(&self, namespace: NamespaceId, pool: &str) -> usize {
        self.0.pools.places(namespace, pool)
    }
}
