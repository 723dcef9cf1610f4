//! Reading the metadata of every serverless pool again and again (`spec/scheduling.md` 9.2).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use lifecycle::pool::PollPace;
use protocol::id::NamespaceId;
use tokio::task::{AbortHandle, JoinSet};

use super::{Endpoints, Metadata};
use crate::catalog::PoolKind;
use crate::catalog::pool_config::Serverless;

/// Pools that began at the same time, with the engine, are not asked in step.
const JITTER_MS: u64 = 500;

type PoolId = (NamespaceId, String);

struct Poller {
    endpoint: Serverless,
    task: AbortHandle,
}

/// Runs one poller for each serverless pool, and ends with its own task.
pub(crate) async fn run(endpoints: Endpoints) {
    let mut changes = endpoints.0.catalog.pool_changes();
    let mut tasks = JoinSet::new();
    let mut pollers: BTreeMap<PoolId, Poller> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let wanted = serverless_pools(&endpoints);
        pollers.retain(|id, poller| {
            let is_wanted = wanted.get(id).is_some_and(|endpoint| *endpoint == poller.endpoint);
            if !is_wanted {
                poller.task.abort();
            }
            is_wanted
        });
        for (id, endpoint) in wanted {
            if let Entry::Vacant(vacant) = pollers.entry(id) {
                let task = tasks.spawn(poll(endpoints.clone(), vacant.key().clone(), endpoint.clone()));
                vacant.insert(Poller { endpoint, task });
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            // Takes those off that were ended.
            Some(_ended) = tasks.join_next() => {}
        }
    }
}

fn serverless_pools(endpoints: &Endpoints) -> BTreeMap<PoolId, Serverless> {
    let mut found = BTreeMap::new();
    for namespace in endpoints.0.catalog.namespaces() {
        for (name, pool) in endpoints.0.catalog.pools(namespace.namespace_id) {
            match &pool.config.kind {
                PoolKind::Serverless(endpoint) => {
                    found.insert((namespace.namespace_id, name), endpoint.clone());
                }
                PoolKind::Normal => {}
            }
        }
    }
    found
}

async fn poll(endpoints: Endpoints, (namespace, pool): PoolId, endpoint: Serverless) {
    let rules = endpoints.0.poll_rules;
    let wish_ms = endpoint.metadata_poll_interval.map(|wish| i64::try_from(wish).unwrap_or(i64::MAX));
    let mut pace = PollPace::default();
    let mut declared: Option<Metadata> = None;
    loop {
        let jitter_ms = endpoints.0.randomness.number() % JITTER_MS;
        tokio::time::sleep(Duration::from_millis(jitter_ms)).await;
        let read = endpoints.metadata(&endpoint.url, &endpoint.headers).await;
        let succeeded = read.is_ok();
        match read {
            Ok(metadata) => {
                // Written only when there is news: it is a commit.
                if declared.as_ref().is_none_or(|before| before.actor_names != metadata.actor_names) {
                    endpoints.declare(namespace, &metadata).await;
                }
                endpoints.take_versions(namespace, &pool, &endpoint, &metadata);
                declared = Some(metadata);
            }
            Err(error) => tracing::warn!(pool, error = %error.to_json(), "a pool's metadata cannot be read"),
        }
        pace = pace.after(succeeded, endpoints.0.clock.uptime(), &rules);
        let wait_ms = pace.next_in_ms(succeeded, wish_ms, &rules);
        tokio::time::sleep(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0))).await;
    }
}
