//! Generations that an endpoint is asked for (`spec/scheduling.md` 9): handing the order over, and finding out which host it
//! led to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::Ts;
use lifecycle::actor::{EnvoyKey, Identity, Input, Phase};
use lifecycle::envoy::Link;
use lifecycle::pool::PoolError;
use parking_lot::Mutex;
use protocol::id::{ActorId, NamespaceId};
use protocol::limits;
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
    answer: Answer,
    /// Its request has ended before it.
    is_cut_short: bool,
}

/// What the request for a generation has led to.
enum Answer {
    /// Nothing yet. The first host that speaks for the generation gets it.
    Open,
    /// This host.
    Host(EnvoyKey),
    /// It was refused: whoever comes forward now is too late.
    Refused,
}

impl Outbound {
    pub(super) fn new(orders: mpsc::UnboundedSender<OutboundOrder>) -> Self {
        Self { orders, generations: Mutex::default() }
    }

    pub(super) fn order(&self, identity: Arc<Identity>, generation: u32) {
        self.generations.lock().insert(identity.actor_id, Asked { generation, answer: Answer::Open, is_cut_short: false });
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
        self.generations.lock().get(&actor).is_some_and(|asked| asked.generation == generation && !asked.is_cut_short)
    }

    /// Whether a generation waits for its host.
    fn is_open(&self, actor: ActorId, generation: u32) -> bool {
        let generations = self.generations.lock();
        let asked = generations.get(&actor).filter(|asked| asked.generation == generation);
        asked.is_some_and(|asked| matches!(asked.answer, Answer::Open))
    }

    /// The host that has a generation since it came forward for it; the record may not say so yet.
    fn claimed_by(&self, actor: ActorId, generation: u32) -> Option<EnvoyKey> {
        match &self.generations.lock().get(&actor).filter(|asked| asked.generation == generation)?.answer {
            Answer::Host(host) => Some(host.clone()),
            Answer::Open | Answer::Refused => None,
        }
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
    fn claim(&self, actor: ActorId, generation: u32, host: &EnvoyKey) -> bool {
        self.answer(actor, generation, || Answer::Host(host.clone()))
    }

    /// Takes a generation from all hosts. Whether it was open.
    fn refuse(&self, actor: ActorId, generation: u32) -> bool {
        self.answer(actor, generation, || Answer::Refused)
    }

    fn answer(&self, actor: ActorId, generation: u32, answer: impl FnOnce() -> Answer) -> bool {
        match self.generations.lock().get_mut(&actor) {
            Some(asked) if asked.generation == generation && matches!(asked.answer, Answer::Open) => {
                asked.answer = answer();
                true
            }
            Some(_) | None => false,
        }
    }
}

/// When a host that is out of touch has had its time to connect again, by the engine's uptime.
fn gone_at(link: Link) -> Option<Ts> {
    match link {
        Link::Up { .. } => None,
        Link::Down { since_ts } => Some(since_ts.saturating_add(limits::SERVERLESS_RECONNECT.as_millis() as Ts)),
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
        if may_have_it && self.0.outbound.claim(actor, generation, &host.key) {
            host.assign(actor, generation);
            self.post(actor, Input::HostFound { host: host.key.clone(), generation });
            self.outbound_accepted(identity);
        }
    }

    /// Moves actors of a serverless pool whose start requests ended with the previous engine process, or while their host was
    /// away. Nothing is known to keep the host alive, and nobody sees to the end of their lifespan.
    pub(super) fn renew_requests(&self, host: &Host, pool: &str) {
        if !self.0.pools.is_serverless(host.namespace_id, pool) {
            return;
        }
        for (actor, generation) in host.assigned() {
            // One that is stopping anyway needs no request, and is not to come back if it is going to sleep.
            if !self.0.outbound.is_held(actor, generation) && !self.is_stopping(actor) {
                self.post(actor, Input::Evict { generation });
            }
        }
    }

    fn is_stopping(&self, actor: ActorId) -> bool {
        let cell = self.0.cells.lock().get(&actor).cloned();
        let stored = cell.and_then(|cell| cell.stored());
        stored.is_some_and(|stored| matches!(stored.record.phase, Phase::Stopping { .. }))
    }

    /// The endpoint deals with a start: a host has come forward, or the request has been open for a while.
    pub(crate) fn outbound_accepted(&self, actor: &Identity) {
        for waiting in self.0.pools.start_accepted(actor.namespace_id, &actor.pool) {
            self.post(waiting, Input::CapacityArrived);
        }
    }

    /// A start request has ended before its actor. Whether that is on a host which is connected.
    pub(crate) fn outbound_cut_short(&self, actor: &Identity, generation: u32, error: PoolError) -> bool {
        let Some(host) = self.host_that_came_forward(actor, generation) else { return false };
        // First, so that a connection which ends now is noticed here or in `give_up_cut_short`.
        self.0.outbound.cut_short(actor.actor_id, generation);
        self.pool_failed(actor.namespace_id, &actor.pool, error);
        host.link().is_some()
    }

    /// Gives those actors of a host up, soon after it has lost its connection, whose request has ended as well: there was an
    /// instance of the application, and nothing is left of it (`spec/scheduling.md` 9.6). If it was only the network between
    /// that broke, the host is back before that.
    pub(super) fn give_up_cut_short(&self, host: &Arc<Host>) {
        // Hears of every connection from here on, also before it is waited for.
        let connected = host.connected.clone().notified_owned();
        let link = host.link_state();
        let Some(gone_at) = gone_at(link) else { return };
        let (scheduler, host) = (self.clone(), host.clone());
        tokio::spawn(async move {
            let wait_ms = (gone_at - scheduler.0.clock.uptime()).max(0);
            tokio::select! {
                biased;
                () = connected => return,
                () = tokio::time::sleep(Duration::from_millis(wait_ms as u64)) => {}
            }
            if host.link_state() != link {
                return;
            }
            for (actor, generation) in host.assigned() {
                if scheduler.0.outbound.is_cut_short(actor, generation) {
                    scheduler.post(actor, Input::HostLost { host: host.key.clone(), generation });
                }
            }
        });
    }

    /// A start was ordered, and the request could not be made for a reason that is not the endpoint's. `began`: when it was
    /// ordered, by the engine's uptime.
    pub(crate) fn outbound_not_asked(&self, actor: &Identity, generation: u32, began: Ts, error: PoolError) {
        self.0.pools.start_not_made(actor.namespace_id, &actor.pool, began);
        if self.0.outbound.refuse(actor.actor_id, generation) {
            self.post(actor.actor_id, Input::OutboundFailed { generation, error });
        } else {
            // A host has come forward all the same: the previous engine process had asked for it.
            self.lost_its_request(actor, generation);
        }
    }

    /// What was found to be wrong with the endpoint of an actor's pool after a start was ordered, at `began` by the engine's
    /// uptime.
    pub(crate) fn trouble_since(&self, actor: &Identity, began: Ts) -> Option<PoolError> {
        self.0.pools.trouble_since(actor.namespace_id, &actor.pool, began)
    }

    /// A start request that was ordered at `began`, by the engine's uptime, was refused, or has ended before its actor.
    pub(crate) fn outbound_failed(&self, actor: &Identity, generation: u32, began: Ts, error: PoolError) {
        if self.0.outbound.refuse(actor.actor_id, generation) {
            // However well its answer began, it has led to nothing.
            self.0.pools.start_failed(actor.namespace_id, &actor.pool, began, error.clone());
            self.post(actor.actor_id, Input::OutboundFailed { generation, error });
        } else {
            self.0.pools.failed(actor.namespace_id, &actor.pool, error);
            self.lost_its_request(actor, generation);
        }
    }

    /// No request sees to a generation any more that a host has come forward for.
    fn lost_its_request(&self, actor: &Identity, generation: u32) {
        self.0.outbound.cut_short(actor.actor_id, generation);
        let Some(host) = self.host_that_came_forward(actor, generation) else { return };
        let input = match gone_at(host.link_state()) {
            // The end of the stop has its own deadline.
            None if self.is_stopping(actor.actor_id) => return,
            // The host is there. The actor can be saved and go where a request sees to it again.
            None => Input::Evict { generation },
            // It may be back soon: `give_up_cut_short` or `renew_requests` goes on with the actor.
            Some(gone_at) if self.0.clock.uptime() < gone_at => return,
            Some(_) => Input::HostLost { host: host.key.clone(), generation },
        };
        self.post(actor.actor_id, input);
    }

    /// The host that has a generation, if one has come forward for it.
    fn host_that_came_forward(&self, actor: &Identity, generation: u32) -> Option<Arc<Host>> {
        let key = self.0.outbound.claimed_by(actor.actor_id, generation)?;
        self.0.hosts.get(actor.namespace_id, &key)
    }

    /// A pool's configuration was written or deleted: those who wait for a place in it may have one now. What was wrong with
    /// another endpoint is forgotten.
    pub(crate) fn pool_saved(&self, namespace: NamespaceId, pool: &str, endpoint_changed: bool) {
        if endpoint_changed {
            self.0.pools.start_over(namespace, pool);
            self.0.seen_versions.forget(namespace, pool);
        }
        // It may ask for what it did not want before: that hosts of an older version are emptied.
        self.review_versions(namespace, pool);
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
