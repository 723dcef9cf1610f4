//! The hosts ("envoys") that this engine knows: which are connected, what runs on them, and which commands they have not
//! acknowledged.

mod host;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Clock;
use crate::random::Randomness;
use gateway::{HostId, SessionId};
use lifecycle::actor::EnvoyKey;
use lifecycle::envoy::{EnvoyRules, is_eligible};
use lifecycle::placement::{self, Candidate};
use parking_lot::RwLock;
use protocol::id::NamespaceId;

pub(crate) use host::{Connected, Host, PendingCommand};

/// Names a host across reconnects.
pub(crate) type HostKey = (NamespaceId, EnvoyKey);

/// All hosts; clone freely.
#[derive(Clone)]
pub(crate) struct Hosts {
    /// In order, so that the same draws choose the same host again.
    table: Arc<RwLock<BTreeMap<HostKey, Arc<Host>>>>,
    next_id: Arc<AtomicU64>,
    rules: EnvoyRules,
    clock: Clock,
    randomness: Randomness,
}

impl Hosts {
    pub(crate) fn new(rules: EnvoyRules, clock: Clock, randomness: Randomness) -> Self {
        Self { table: Arc::default(), next_id: Arc::new(AtomicU64::new(1)), rules, clock, randomness }
    }

    pub(crate) fn rules(&self) -> &EnvoyRules {
        &self.rules
    }

    pub(crate) fn get(&self, namespace: NamespaceId, key: &EnvoyKey) -> Option<Arc<Host>> {
        self.table.read().get(&(namespace, key.clone())).cloned()
    }

    /// The host with this key, made when it is new. A new one counts as out of touch since now.
    pub(crate) fn get_or_insert(&self, namespace: NamespaceId, key: &EnvoyKey, pool: &str) -> Arc<Host> {
        let mut table = self.table.write();
        let host = table.entry((namespace, key.clone())).or_insert_with(|| {
            let id = HostId(self.next_id.fetch_add(1, Ordering::Relaxed));
            Arc::new(Host::new(id, namespace, key.clone(), pool, self.clock.clone()))
        });
        host.clone()
    }

    /// A number for a new connection.
    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Forgets a host that is gone for good and runs nothing.
    pub(crate) fn forget_if_unused(&self, host: &Host) {
        let mut table = self.table.write();
        if host.is_unused() {
            table.remove(&(host.namespace_id, host.key.clone()));
        }
    }

    /// Every host, by namespace and key.
    pub(crate) fn all(&self) -> Vec<Arc<Host>> {
        self.table.read().values().cloned().collect()
    }

    /// The host for a new actor of a pool, or none (`spec/scheduling.md` 7).
    pub(crate) fn choose(&self, namespace: NamespaceId, pool: &str) -> Option<EnvoyKey> {
        let now = self.clock.uptime();
        let table = self.table.read();
        let mut hosts: Vec<&Arc<Host>> = Vec::new();
        let mut candidates = Vec::new();
        for host in table.values().filter(|host| host.namespace_id == namespace) {
            if let Some(candidate) = host.candidate(pool, |link| is_eligible(link, now, &self.rules)) {
                hosts.push(host);
                candidates.push(candidate);
            }
        }
        let chosen = placement::pick(&candidates, [self.randomness.number(), self.randomness.number()])?;
        hosts.get(chosen).map(|host| host.key.clone())
    }

    /// Whether a connected host of a pool has a newer version than `version`.
    pub(crate) fn has_newer_than(&self, namespace: NamespaceId, pool: &str, version: u32) -> bool {
        let table = self.table.read();
        let mut of_namespace = table.values().filter(|host| host.namespace_id == namespace);
        of_namespace.any(|host| {
            let candidate: Option<Candidate> = host.candidate(pool, |_any_link| true);
            candidate.is_some_and(|candidate| candidate.version > version)
        })
    }

    /// Connected hosts of a pool with an older version than `version`.
    pub(crate) fn older_than(&self, namespace: NamespaceId, pool: &str, version: u32) -> Vec<Arc<Host>> {
        let table = self.table.read();
        let of_pool = table.values().filter(|host| host.namespace_id == namespace);
        let older = of_pool.filter(|host| {
            let candidate: Option<Candidate> = host.candidate(pool, |_any_link| true);
            candidate.is_some_and(|candidate| candidate.version < version)
        });
        older.cloned().collect()
    }
}
