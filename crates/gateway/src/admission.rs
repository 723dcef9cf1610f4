//! How much of an actor, and of the engine, one client may ask for: requests in a window of time, and requests at once
//! (`spec/gateway.md` 10.3, `decisions.md` 1).
//!
//! A request takes its [`Slot`] after it is known which actor it means, and before anything is created, woken or waited
//! for: what is refused costs a look-up at most. A slot is given back by being dropped, so whatever a client holds open keeps
//! it: the body of a response, a WebSocket.
//!
//! * `table`: who has used how much. Pure.

mod table;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use ipnet::IpNet;
use parking_lot::Mutex;
use protocol::id::ActorId;
use tokio::time::Instant;

use crate::client_address::ClientAddress;
use crate::directory::ActorQuery;
pub(crate) use table::Excess;
use table::{Key, Subject, Table};

/// What clients may do, and who counts as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// Limits of one client address, whatever actors it talks to.
    pub per_client: ClientLimits,
    /// Limits of one client address at one actor.
    pub per_actor: ClientLimits,
    /// Spares clients on this machine the limits per actor.
    pub exempt_loopback: bool,
    /// Peers whose `x-forwarded-for` says who the client is.
    pub trusted_proxies: Vec<IpNet>,
    /// Pairs of client address and actor without open requests that are remembered at most. Those with open requests come
    /// on top: each of them has a connection, which takes far more room.
    pub remembered_max: usize,
    /// How long such a pair is remembered. Less than the window of a rate limit makes that limit forgetful.
    pub remembered_for: Duration,
}

/// Limits of one client; `None` means unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Most requests in a fixed window that begins with the first of them.
    pub rate: Option<RateLimit>,
    /// Most requests and WebSockets at once.
    pub max_in_flight: Option<u64>,
}

impl ClientLimits {
    fn limit_anything(&self) -> bool {
        self.rate.is_some() || self.max_in_flight.is_some()
    }
}

/// A number of requests in a window of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Most requests in one window.
    pub requests: u64,
    /// Length of the window.
    pub period: Duration,
}

/// What has been admitted and refused, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AdmissionCounts {
    /// Requests and WebSockets of limited clients that are open now.
    pub in_flight: u64,
    /// Requests and WebSockets refused with `guard.rate_limit` since the start.
    pub refused_by_rate: u64,
    /// Requests and WebSockets refused with `guard.max_in_flight` since the start.
    pub refused_by_in_flight: u64,
}

/// The limits and what is used of them.
pub(crate) struct Admission {
    config: AdmissionConfig,
    table: Mutex<Table>,
    /// Stands in for keys that nobody has: a client cannot make two of them look the same, and memory does not depend on how
    /// long they are.
    key_hash: RandomState,
    in_flight: AtomicU64,
    refused_by_rate: AtomicU64,
    refused_by_in_flight: AtomicU64,
}

impl Admission {
    pub(crate) fn new(config: AdmissionConfig) -> Arc<Self> {
        let table = Table::new(config.remembered_max, config.remembered_for, Instant::now());
        Arc::new(Self {
            config,
            table: Mutex::new(table),
            key_hash: RandomState::new(),
            in_flight: AtomicU64::new(0),
            refused_by_rate: AtomicU64::new(0),
            refused_by_in_flight: AtomicU64::new(0),
        })
    }

    /// Who has sent a request.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        ClientAddress::of(peer, headers, &self.config.trusted_proxies)
    }

    /// The first check, before the actor is known. Costs nothing when no limit holds for this client.
    ///
    /// # Errors
    /// The client has exceeded a limit that holds for all its requests together.
    pub(crate) fn enter(self: &Arc<Self>, client: ClientAddress) -> Result<Slot, Excess> {
        let per_client = self.config.per_client.limit_anything();
        let per_actor = self.config.per_actor.limit_anything() && !(client.is_local && self.config.exempt_loopback);
        if !per_client && !per_actor {
            return Ok(Slot::default());
        }
        if per_client {
            self.take(Key { subject: Subject::Anything, ip: client.ip }, &self.config.per_client)?;
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let admission = self.clone();
        Ok(Slot { held: Some(Held { admission, ip: client.ip, per_client, per_actor, at: None }) })
    }

    pub(crate) fn counts(&self) -> AdmissionCounts {
        AdmissionCounts {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            refused_by_rate: self.refused_by_rate.load(Ordering::Relaxed),
            refused_by_in_flight: self.refused_by_in_flight.load(Ordering::Relaxed),
        }
    }

    fn take(&self, key: Key, limits: &ClientLimits) -> Result<(), Excess> {
        let now = Instant::now();
        let taken = self.table.lock().admit(key, limits, now);
        match taken {
            Ok(()) => {}
            Err(Excess::Rate { .. }) => {
                self.refused_by_rate.fetch_add(1, Ordering::Relaxed);
            }
            Err(Excess::InFlight { .. }) => {
                self.refused_by_in_flight.fetch_add(1, Ordering::Relaxed);
            }
        }
        taken
    }
}

/// A place among a client's open requests; dropping it gives it back. The default one belongs to a client without limits.
#[derive(Default)]
pub(crate) struct Slot {
    held: Option<Held>,
}

struct Held {
    admission: Arc<Admission>,
    ip: IpAddr,
    /// Counts towards the limits of the client as a whole.
    per_client: bool,
    /// The limits per actor hold for this client.
    per_actor: bool,
    /// What it counts towards by them, as soon as that is known.
    at: Option<Subject>,
}

impl Slot {
    /// The second check, of a request for an actor that exists or whose id the client has named.
    ///
    /// # Errors
    /// The client has exceeded a limit at this actor.
    pub(crate) fn at_actor(&mut self, actor: ActorId) -> Result<(), Excess> {
        self.at(|_| Subject::Actor(actor))
    }

    /// The second check, of a request that would create its actor.
    ///
    /// # Errors
    /// The client has exceeded a limit at this key.
    pub(crate) fn at_key(&mut self, query: &ActorQuery) -> Result<(), Excess> {
        self.at(|admission| Subject::Nobody(admission.key_hash.hash_one((&query.namespace, &query.name, &query.key))))
    }

    fn at(&mut self, subject: impl FnOnce(&Admission) -> Subject) -> Result<(), Excess> {
        let Some(held) = self.held.as_mut().filter(|held| held.per_actor) else { return Ok(()) };
        let subject = subject(&held.admission);
        match held.admission.take(Key { subject, ip: held.ip }, &held.admission.config.per_actor) {
            Ok(()) => held.at = Some(subject),
            Err(excess) => {
                // What is refused is not open.
                self.held = None;
                return Err(excess);
            }
        }
        Ok(())
    }

    /// The actor exists now: from here on the request is one of those at the actor. It has been admitted, so nothing is
    /// checked again; requests that find it while others still wait for its creation can therefore make a client exceed
    /// its limits at a new actor, for that moment and at most by as much again.
    pub(crate) fn created(&mut self, actor: ActorId) {
        let Some(Held { admission, ip, at: Some(at), .. }) = &mut self.held else { return };
        let (from, to) = (Key { subject: *at, ip: *ip }, Key { subject: Subject::Actor(actor), ip: *ip });
        *at = to.subject;
        let now = Instant::now();
        admission.table.lock().transfer(from, to, &admission.config.per_actor, now);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.admission.in_flight.fetch_sub(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut table = self.admission.table.lock();
        let everything = self.per_client.then_some(Subject::Anything);
        for subject in everything.into_iter().chain(self.at) {
            table.release(Key { subject, ip: self.ip }, now);
        }
    }
}
