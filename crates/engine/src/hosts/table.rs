//! Which hosts there are, and which of them are connected to which pool.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::{EnvoyLink, SessionId};
use lifecycle::actor::EnvoyKey;
use protocol::id::NamespaceId;

use super::HostKey;
use super::host::{Connected, Host};

/// A pool that starts actors by request has as many hosts as it has requests open. So who looks for a host of a pool looks
/// at those of that pool alone, and at no host that has gone.
#[derive(Default)]
pub(super) struct Table {
    /// In order, so that lists are.
    all: BTreeMap<HostKey, Arc<Host>>,
    /// Those with a connection, by the pool that they named with it. In order, so that the same draws choose the same host
    /// again.
    connected: BTreeMap<NamespaceId, BTreeMap<String, BTreeMap<EnvoyKey, Arc<Host>>>>,
}

impl Table {
    pub(super) fn get(&self, key: &HostKey) -> Option<&Arc<Host>> {
        self.all.get(key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.all.values()
    }

    pub(super) fn insert(&mut self, host: Arc<Host>) {
        self.all.insert((host.namespace_id, host.key.clone()), host);
    }

    /// Forgets a host that is not connected and runs nothing.
    pub(super) fn remove_if_unused(&mut self, host: &Host) {
        if host.is_unused() {
            self.all.remove(&(host.namespace_id, host.key.clone()));
        }
    }

    /// The connected hosts of a pool.
    pub(super) fn connected(&self, namespace: NamespaceId, pool: &str) -> impl Iterator<Item = &Arc<Host>> {
        let of_pool = self.connected.get(&namespace).and_then(|pools| pools.get(pool));
        of_pool.into_iter().flat_map(BTreeMap::values)
    }

    /// Registers a connection; returns the one it replaces, which may have been another pool's.
    pub(super) fn connect(&mut self, host: &Arc<Host>, connected: Connected) -> Option<EnvoyLink> {
        self.leave(host);
        let pools = self.connected.entry(host.namespace_id).or_default();
        pools.entry(connected.pool.clone()).or_default().insert(host.key.clone(), host.clone());
        host.connect(connected)
    }

    /// Notes the end of a connection. False: it had been replaced before.
    pub(super) fn disconnect(&mut self, host: &Host, session: SessionId) -> bool {
        let was_current = host.disconnect(session);
        if was_current {
            self.leave(host);
        }
        was_current
    }

    /// Names of pools come from outside, so none is remembered for nothing.
    fn leave(&mut self, host: &Host) {
        let pool = host.pool();
        let Some(pools) = self.connected.get_mut(&host.namespace_id) else { return };
        let Some(hosts) = pools.get_mut(&pool) else { return };
        hosts.remove(&host.key);
        if hosts.is_empty() {
            pools.remove(&pool);
        }
        if pools.is_empty() {
            self.connected.remove(&host.namespace_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway::HostId;

    use super::*;
    use crate::clock::Clock;

    fn namespace() -> NamespaceId {
        NamespaceId::from_parts([1; 16], 1)
    }

    fn host(table: &mut Table) -> Arc<Host> {
        let host = Arc::new(Host::new(HostId(1), namespace(), EnvoyKey::new("host"), "red", 0, Clock::system()));
        table.insert(host.clone());
        host
    }

    fn connection(session: u64, pool: &str) -> Connected {
        let (link, _outbox) = EnvoyLink::new(HostId(1), SessionId(session), 8);
        Connected { pool: pool.to_owned(), version: 1, stop_threshold_ms: 1, link }
    }

    fn is_connected(table: &Table, pool: &str) -> bool {
        table.connected(namespace(), pool).count() == 1
    }

    #[test]
    fn a_host_is_found_in_the_pool_that_it_named_last() {
        let mut table = Table::default();
        let host = host(&mut table);
        assert!(!is_connected(&table, "red"), "it has never connected");
        table.connect(&host, connection(1, "red"));
        assert!(is_connected(&table, "red"));
        let replaced = table.connect(&host, connection(2, "blue")).map(|link| link.session());
        assert_eq!(replaced, Some(SessionId(1)));
        assert!(!is_connected(&table, "red") && is_connected(&table, "blue"));
        assert!(!table.disconnect(&host, SessionId(1)), "replaced before");
        assert!(is_connected(&table, "blue"));
        assert!(table.disconnect(&host, SessionId(2)));
        assert!(table.connected.is_empty(), "nothing is left of its pools");
        assert!(table.all().count() == 1 && table.get(&(namespace(), host.key.clone())).is_some());
        table.remove_if_unused(&host);
        assert_eq!(table.all().count(), 0);
    }
}
