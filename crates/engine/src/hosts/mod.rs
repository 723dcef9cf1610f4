//! The hosts ("envoys") that this engine knows: which are connected, what runs on them, and which commands they have not
//! acknowledged.

mod draining;
mod host;
mod table;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::clock::Clock;
use crate::random::Randomness;
use gateway::{EnvoyLink, HostId, SessionId};
use lifecycle::actor::EnvoyKey;
use lifecycle::envoy::{EnvoyRules, is_eligible};
use lifecycle::placement;
use parking_lot::RwLock;
use protocol::id::NamespaceId;

pub(crate) use draining::{DrainCause, DrainTurn};
pub(crate) use host::{Connected, Host, PendingCommand};
use table::Table;

/// Names a host across reconnects.
pub(crate) type HostKey = (NamespaceId, EnvoyKey);

/// All hosts; clone freely.
#[derive(Clone)]
pub(crate) struct Hosts {
    table: Arc<RwLock<Table>>,
    next_id: Arc<AtomicU64>,
    last_create_ts: Arc<AtomicI64>,
    rules: EnvoyRules,
    clock: Clock,
    randomness: Randomness,
}

impl Hosts {
    pub(crate) fn new(rules: EnvoyRules, clock: Clock, randomness: Randomness) -> Self {
        let next_id = Arc::new(AtomicU64::new(1));
        Self { table: Arc::default(), next_id, last_create_ts: Arc::default(), rules, clock, randomness }
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
        if let Some(host) = table.get(&(namespace, key.clone())) {
            return host.clone();
        }
        let id = HostId(self.next_id.fetch_add(1, Ordering::Relaxed));
        // Lists are paged by it, so no two are alike. The table's lock keeps others out.
        let create_ts = self.clock.now().max(self.last_create_ts.load(Ordering::Relaxed) + 1);
        self.last_create_ts.store(create_ts, Ordering::Relaxed);
        let host = Arc::new(Host::new(id, namespace, key.clone(), pool, create_ts, self.clock.clone()));
        table.insert(host.clone());
        host
    }

    /// Registers a connection of a host; returns the one it replaces.
    pub(crate) fn connect(&self, host: &Arc<Host>, connected: Connected) -> Option<EnvoyLink> {
        self.table.write().connect(host, connected)
    }

    /// Notes the end of a connection. False: it had been replaced before.
    pub(crate) fn disconnect(&self, host: &Host, session: SessionId) -> bool {
        self.table.write().disconnect(host, session)
    }

    /// A number for a new connection.
    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Forgets a host that is gone for good and runs nothing.
    pub(crate) fn forget_if_unused(&self, host: &Host) {
        self.table.write().remove_if_unused(host);
    }

    /// Every host, by namespace and key.
    pub(crate) fn all(&self) -> Vec<Arc<Host>> {
        self.table.read().all().cloned().collect()
    }

    /// Hosts of a pool that are connected, whether or not they take actors.
    pub(crate) fn connected_of(&self, namespace: NamespaceId, pool: &str) -> Vec<Arc<Host>> {
        self.table.read().connected(namespace, pool).cloned().collect()
    }

    /// The host for a new actor of a pool, or none (`spec/scheduling.md` 7).
    pub(crate) fn choose(&self, namespace: NamespaceId, pool: &str) -> Option<EnvoyKey> {
        let now = self.clock.uptime();
        let table = self.table.read();
        let mut hosts: Vec<&Arc<Host>> = Vec::new();
        let mut candidates = Vec::new();
        for host in table.connected(namespace, pool) {
            if let Some(candidate) = host.candidate(|link| is_eligible(link, now, &self.rules)) {
                hosts.push(host);
                candidates.push(candidate);
            }
        }
        let chosen = placement::pick(&candidates, [self.randomness.number(), self.randomness.number()])?;
        hosts.get(chosen).map(|host| host.key.clone())
    }

    /// The newest version among the hosts of a pool that take actors.
    pub(crate) fn newest_version(&self, namespace: NamespaceId, pool: &str) -> Option<u32> {
        let now = self.clock.uptime();
        let table = self.table.read();
        let accepts = |link| is_eligible(link, now, &self.rules);
        let candidates = table.connected(namespace, pool).filter_map(|host| host.candidate(accepts));
        candidates.map(|candidate| candidate.version).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_hosts_are_made_at_the_same_time() {
        let rules = EnvoyRules { ping_timeout_ms: 1, lost_threshold_ms: 1, eligible_threshold_ms: 1 };
        let hosts = Hosts::new(rules, Clock::system(), Randomness::system());
        let namespace = NamespaceId::from_parts([1; 16], 1);
        let make = |number: usize| hosts.get_or_insert(namespace, &EnvoyKey::new(&format!("host-{number}")), "default");
        let made: Vec<_> = (0..100).map(|number| make(number).info().create_ts).collect();
        assert!(made.is_sorted_by(|earlier, later| earlier < later), "{made:?}");
        assert_eq!(make(0).info().create_ts, made[0], "the first registration of a key counts");
    }
}
