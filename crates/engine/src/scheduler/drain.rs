//! Emptying hosts: why, and who sees to it (`spec/scheduling.md` 8).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::actor::{ActorRecord, Input};
use lifecycle::version::SeenVersion;
use parking_lot::Mutex;
use protocol::id::NamespaceId;

use super::Scheduler;
use crate::hosts::{DrainCause, DrainTurn, Host};

/// The versions that the endpoints of serverless pools are believed to run.
#[derive(Default)]
pub(super) struct SeenVersions(Mutex<BTreeMap<(NamespaceId, String), SeenVersion>>);

impl SeenVersions {
    /// Takes a reading of an endpoint's version. Whether something else is believed from here on.
    fn read(&self, namespace: NamespaceId, pool: &str, version: u32) -> bool {
        match self.0.lock().entry((namespace, pool.to_owned())) {
            Entry::Occupied(mut known) => known.get_mut().read(version),
            Entry::Vacant(vacant) => {
                vacant.insert(SeenVersion::new(version));
                true
            }
        }
    }

    /// The pool has another endpoint, or none.
    pub(super) fn forget(&self, namespace: NamespaceId, pool: &str) {
        self.0.lock().remove(&(namespace, pool.to_owned()));
    }

    fn get(&self, namespace: NamespaceId, pool: &str) -> Option<u32> {
        self.0.lock().get(&(namespace, pool.to_owned())).map(SeenVersion::version)
    }
}

impl Scheduler {
    /// A host shuts down: it gets no new actors, and those it has move at the pool's pace.
    pub(crate) fn host_stopping(&self, host: &Arc<Host>) {
        if host.set_stopping() {
            let pool = host.pool();
            self.drain(host, &pool, DrainCause::Stopping);
            // Whoever was to move to this version has nowhere better to go now.
            self.review_versions(host.namespace_id, &pool);
        }
    }

    /// The endpoint of a serverless pool says that it runs this version of the application. Actors on hosts of an older one
    /// move, if the pool wants that.
    pub(crate) fn pool_version_seen(&self, namespace: NamespaceId, pool: &str, version: u32) {
        if self.0.seen_versions.read(namespace, pool, version) {
            self.review_versions(namespace, pool);
        }
    }

    /// Begins and ends drains for the sake of a newer version, after something has changed in a pool. A host of an older
    /// version is emptied for as long as there is a newer one to move to; if that goes, there is nobody better than the older
    /// host, and its actors stay where they are.
    pub(super) fn review_versions(&self, namespace: NamespaceId, pool: &str) {
        let drains = self.0.catalog.pool(namespace, pool).is_some_and(|pool| pool.config.drain_on_version_upgrade);
        let newest = self.newest_version(namespace, pool);
        for host in self.0.hosts.connected_of(namespace, pool) {
            match newest.filter(|newest| *newest > host.version()) {
                Some(newest) if drains => self.drain(&host, pool, DrainCause::NewerVersion(newest)),
                // The configuration in force at its beginning holds for a drain.
                Some(_) => {}
                None => host.end_version_drain(),
            }
        }
    }

    /// The newest version that actors of a pool can be moved to. Where the engine asks an endpoint, only the endpoint knows.
    fn newest_version(&self, namespace: NamespaceId, pool: &str) -> Option<u32> {
        if self.0.pools.is_serverless(namespace, pool) {
            return self.0.seen_versions.get(namespace, pool);
        }
        self.0.hosts.newest_version(namespace, pool)
    }

    fn is_outdated(&self, host: &Host, pool: &str) -> bool {
        self.newest_version(host.namespace_id, pool).is_some_and(|newest| newest > host.version())
    }

    /// Moves the actors of a host elsewhere, at the pace that the pool's configuration asks for now.
    fn drain(&self, host: &Arc<Host>, pool: &str, cause: DrainCause) {
        let config = self.0.catalog.pool(host.namespace_id, pool);
        let pace = config.map_or_else(Default::default, |pool| pool.config.eviction).pace();
        if host.begin_drain(cause, pace) {
            tracing::info!(envoy_key = %host.key, ?cause, ?pace, "draining a host");
            tokio::spawn(self.clone().drive_drain(host.clone()));
        }
    }

    /// Sees to a host's drain until it is over. There is one driver per host, and it sleeps until the next eviction.
    async fn drive_drain(self, host: Arc<Host>) {
        loop {
            match host.drain_turn() {
                DrainTurn::Over => return,
                DrainTurn::Wait(None) => host.drain_changed.notified().await,
                DrainTurn::Wait(Some(until)) => {
                    let wait_ms = until.saturating_sub(self.0.clock.uptime()).max(0);
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(wait_ms as u64)) => {}
                        () = host.drain_changed.notified() => {}
                    }
                }
                DrainTurn::Due => self.evict_due(&host),
            }
        }
    }

    fn evict_due(&self, host: &Host) {
        // A newer host may have fallen silent, of which nobody is told.
        if !host.is_stopping() && !self.is_outdated(host, &host.pool()) {
            host.end_version_drain();
        }
        for (actor, generation) in host.take_evictions() {
            self.post(actor, Input::Evict { generation });
        }
    }

    /// An actor was placed on a host that is being emptied: the decision was made before, and became known only now. On an
    /// older host it may stay when there is no better place at the moment. So it may on a host of a serverless pool, which
    /// the endpoint itself has chosen: to ask it again might lead to the same host, on and on.
    pub(super) fn placed_on_draining_host(&self, host: &Host, record: &ActorRecord) {
        let identity = &record.identity;
        let is_endpoints_choice = self.0.pools.is_serverless(identity.namespace_id, &identity.pool);
        if host.is_stopping() || (!is_endpoints_choice && self.is_outdated(host, &identity.pool)) {
            host.drain_too((identity.actor_id, record.generation));
        }
    }
}
