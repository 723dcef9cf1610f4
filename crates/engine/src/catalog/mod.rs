//! Namespaces, pool configurations and declared actor names: small, read on every request, written rarely.
//!
//! Everything but the names is held in memory and written through, so that a read always sees the latest write.

mod namespace_rules;
pub(crate) mod pool_config;
mod preload;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use protocol::id::NamespaceId;
use protocol::limits;
use serde_json::{Map, Value};
use store::{Batch, Explorer, Scan, Store};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::error::{ApiError, StartError};
use crate::random::Randomness;
use crate::records::namespace::Namespace;
use crate::records::{CorruptRow, actor_name, namespace, pool};
pub(crate) use pool_config::{PoolConfig, PoolKind};

/// The namespace that every engine has.
const DEFAULT_NAMESPACE: (&str, &str) = ("default", "Default");

/// A pool as it is known to this process.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) config: PoolConfig,
    /// Envoy protocol version last seen of its hosts.
    pub(crate) protocol_version: Option<u16>,
}

#[derive(Default)]
struct Known {
    namespaces: BTreeMap<String, Arc<Namespace>>,
    pools: BTreeMap<(NamespaceId, String), Arc<Pool>>,
}

/// The catalog; clone freely.
#[derive(Clone)]
pub(crate) struct Catalog {
    store: Store,
    known: Arc<RwLock<Known>>,
    datacenter_label: u16,
    clock: Clock,
    randomness: Randomness,
    /// Creations of namespaces and pools are rare; one at a time keeps names unique.
    writing: Arc<tokio::sync::Mutex<()>>,
    pool_changes: watch::Sender<()>,
}

impl Catalog {
    /// Reads the catalog, and makes the default namespace when there is none.
    pub(crate) async fn load(
        store: Store,
        datacenter_label: u16,
        clock: Clock,
        randomness: Randomness,
    ) -> Result<Self, StartError> {
        let mut known = Known::default();
        for namespace in read_all(&store, namespace::all(), namespace::parse).await? {
            known.namespaces.insert(namespace.name.clone(), Arc::new(namespace));
        }
        let parse_pool = |key: &[u8], value: Bytes| Ok((pool::parse_key(key)?, PoolConfig::from_stored(&value)?));
        for (key, config) in read_all(&store, pool::all(), parse_pool).await? {
            known.pools.insert(key, Arc::new(Pool { config, protocol_version: None }));
        }
        let known = Arc::new(RwLock::new(known));
        let catalog = Self {
            store,
            known,
            datacenter_label,
            clock,
            randomness,
            writing: Arc::default(),
            pool_changes: watch::Sender::new(()),
        };
        let (name, display_name) = DEFAULT_NAMESPACE;
        if catalog.namespace(name).is_none() {
            catalog.put_namespace(name, display_name).await?;
        }
        Ok(catalog)
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.known.read().namespaces.get(name).cloned()
    }

    /// The namespace with this id.
    pub(crate) fn namespace_by_id(&self, id: NamespaceId) -> Option<Arc<Namespace>> {
        self.known.read().namespaces.values().find(|namespace| namespace.namespace_id == id).cloned()
    }

    /// Changes whenever a pool is written or deleted.
    pub(crate) fn pool_changes(&self) -> watch::Receiver<()> {
        self.pool_changes.subscribe()
    }

    /// All namespaces, by name.
    pub(crate) fn namespaces(&self) -> Vec<Arc<Namespace>> {
        self.known.read().namespaces.values().cloned().collect()
    }

    pub(crate) async fn create_namespace(&self, name: &str, display_name: &str) -> Result<Arc<Namespace>, ApiError> {
        namespace_rules::check(name, display_name)?;
        let (catalog, name, display_name) = (self.clone(), name.to_owned(), display_name.to_owned());
        uncancelled(async move {
            let _one_at_a_time = catalog.writing.lock().await;
            if catalog.namespace(&name).is_some() {
                return Err(ApiError::NamespaceNameNotUnique);
            }
            Ok(catalog.put_namespace(&name, &display_name).await?)
        })
        .await
    }

    async fn put_namespace(&self, name: &str, display_name: &str) -> Result<Arc<Namespace>, store::StoreError> {
        let namespace = Arc::new(Namespace {
            namespace_id: self.randomness.id(self.datacenter_label),
            name: name.to_owned(),
            display_name: display_name.to_owned(),
            create_ts: self.clock.now(),
        });
        let mut batch = Batch::new();
        batch.put(namespace::key(namespace.namespace_id), namespace::value(&namespace));
        self.store.write(batch).await?;
        self.known.write().namespaces.insert(namespace.name.clone(), namespace.clone());
        Ok(namespace)
    }

    pub(crate) fn pool(&self, namespace: NamespaceId, name: &str) -> Option<Arc<Pool>> {
        self.known.read().pools.get(&(namespace, name.to_owned())).cloned()
    }

    /// A namespace's pools, by name.
    pub(crate) fn pools(&self, namespace: NamespaceId) -> Vec<(String, Arc<Pool>)> {
        let known = self.known.read();
        let of_namespace = known.pools.range((namespace, String::new())..);
        of_namespace
            .take_while(|((owner, _), _)| *owner == namespace)
            .map(|((_, name), pool)| (name.clone(), pool.clone()))
            .collect()
    }

    /// Writes a pool's configuration; returns whether its endpoint changed (`spec/engine-api.md` 8.5). What it does not say of
    /// history stays as it was.
    pub(crate) async fn put_pool(&self, namespace: NamespaceId, name: &str, config: PoolConfig) -> Result<bool, ApiError> {
        self.change_pool(namespace, name, move |old| config.with_history_of(old)).await
    }

    /// As [`Self::put_pool`], asked for by a host that starts: what an operator has set is kept.
    pub(crate) async fn put_pool_of_host(
        &self,
        namespace: NamespaceId,
        name: &str,
        config: PoolConfig,
    ) -> Result<bool, ApiError> {
        self.change_pool(namespace, name, move |old| config.with_wishes_of(old)).await
    }

    async fn change_pool(
        &self,
        namespace: NamespaceId,
        name: &str,
        change: impl FnOnce(Option<&PoolConfig>) -> PoolConfig + Send + 'static,
    ) -> Result<bool, ApiError> {
        let (catalog, name) = (self.clone(), name.to_owned());
        uncancelled(async move {
            let _one_at_a_time = catalog.writing.lock().await;
            let old = catalog.pool(namespace, &name);
            let old_config = old.as_ref().map(|old| &old.config);
            let config = change(old_config);
            let changed = config.endpoint_differs_from(old_config);
            let mut batch = Batch::new();
            batch.put(pool::key(namespace, &name), config.to_stored());
            catalog.store.write(batch).await?;
            let protocol_version = old.and_then(|old| old.protocol_version);
            let pool = Arc::new(Pool { config, protocol_version });
            catalog.known.write().pools.insert((namespace, name), pool);
            catalog.pool_changes.send_replace(());
            Ok(changed)
        })
        .await
    }

    pub(crate) async fn delete_pool(&self, namespace: NamespaceId, name: &str) -> Result<(), ApiError> {
        let (catalog, name) = (self.clone(), name.to_owned());
        uncancelled(async move {
            let _one_at_a_time = catalog.writing.lock().await;
            let mut batch = Batch::new();
            batch.delete(pool::key(namespace, &name));
            catalog.store.write(batch).await?;
            catalog.known.write().pools.remove(&(namespace, name));
            catalog.pool_changes.send_replace(());
            Ok(())
        })
        .await
    }

    /// Remembers the protocol version that a pool's hosts speak.
    pub(crate) fn saw_protocol_version(&self, namespace: NamespaceId, name: &str, version: u16) {
        let mut known = self.known.write();
        if let Some(pool) = known.pools.get_mut(&(namespace, name.to_owned()))
            && pool.protocol_version != Some(version)
        {
            *pool = Arc::new(Pool { config: pool.config.clone(), protocol_version: Some(version) });
        }
    }

    /// Adds actor names that a host declares, with their metadata. Text that is no JSON object counts as an empty one.
    pub(crate) async fn declare_actor_names(
        &self,
        namespace: NamespaceId,
        names: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), store::StoreError> {
        let mut batch = Batch::new();
        for (name, metadata) in names {
            // No actor can have such a name, and one of them must not cost the others.
            if name.is_empty() || name.chars().count() > limits::ACTOR_NAME_MAX_CHARS {
                continue;
            }
            let object = serde_json::from_str::<Map<String, Value>>(&metadata).unwrap_or_default();
            batch.put(actor_name::key(namespace, &name), Value::Object(object).to_string());
        }
        self.store.write(batch).await
    }

    /// Declared actor names with their metadata, in order, after `after`.
    pub(crate) async fn actor_names(
        &self,
        namespace: NamespaceId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Value)>, ApiError> {
        let (start, end) = actor_name::range_after(namespace, after);
        let scan = Scan { start, end, reverse: false, limit, max_bytes: limits::LIST_NAMES_SCAN_MAX_BYTES };
        let rows = self.store.scan(scan).await?;
        let parse = |value: &Bytes| serde_json::from_slice(value).unwrap_or(Value::Object(Map::new()));
        Ok(rows.iter().map(|(key, value)| (actor_name::name(key), parse(value))).collect())
    }
}

/// Lets a change run to its end even if the caller goes away: the store and the memory must not part.
pub(crate) async fn uncancelled<T: Send + 'static>(
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(change).await.unwrap_or(Err(ApiError::Internal))
}

/// What a range holds. Rows are read one by one, so that nothing but what is made of them is in memory.
async fn read_all<T: Send + 'static>(
    store: &Store,
    (start, end): (Bytes, Bytes),
    parse: impl Fn(&[u8], Bytes) -> Result<T, CorruptRow> + Send + 'static,
) -> Result<Vec<T>, StartError> {
    let read = move |explorer: &Explorer<'_>| {
        let mut all = Vec::new();
        for row in explorer.range(&start, &end)? {
            let (key, value) = row?;
            all.push(parse(key, Bytes::copy_from_slice(value))?);
        }
        Ok(all)
    };
    store.explore(read).await?
}
