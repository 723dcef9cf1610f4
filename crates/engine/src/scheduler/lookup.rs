//! Finding actors for the management API.

use std::sync::Arc;

use lifecycle::Ts;
use lifecycle::actor::Phase;
use protocol::id::{ActorId, NamespaceId};
use protocol::limits;
use store::Scan;

use super::Scheduler;
use crate::error::ApiError;
use crate::hosts::Host;
use crate::records::actor::{self, StoredActor};
use crate::records::actor_index;

/// A list by name.
pub(crate) struct ListQuery<'a> {
    pub(crate) namespace: NamespaceId,
    pub(crate) name: &'a str,
    /// Only actors with this key.
    pub(crate) key: Option<&'a str>,
    pub(crate) include_destroyed: bool,
    /// Created strictly before this time.
    pub(crate) before: Option<Ts>,
    pub(crate) limit: usize,
}

impl Scheduler {
    /// The actors with these ids that exist, in the same order, `None` for the others. What is in memory is not read again,
    /// and may be ahead of the store: see [`super::persist::Change::Running`].
    pub(crate) async fn actors(&self, ids: &[ActorId]) -> Result<Vec<Option<Arc<StoredActor>>>, ApiError> {
        let mut actors = self.resident(ids);
        let missing: Vec<usize> = (0..ids.len()).filter(|position| actors[*position].is_none()).collect();
        if missing.is_empty() {
            return Ok(actors);
        }
        let values = self.0.store.get(missing.iter().map(|position| actor::key(ids[*position])).collect()).await?;
        for (position, value) in missing.into_iter().zip(values) {
            if let Some(value) = value {
                actors[position] = Some(Arc::new(actor::parse(ids[position], value)?));
            }
        }
        Ok(actors)
    }

    /// Those of these actors that are in memory.
    fn resident(&self, ids: &[ActorId]) -> Vec<Option<Arc<StoredActor>>> {
        let cells = self.0.cells.lock();
        ids.iter().map(|id| cells.get(id)?.stored()).collect()
    }

    /// One actor of a namespace.
    pub(crate) async fn actor(&self, namespace: NamespaceId, id: ActorId) -> Result<Arc<StoredActor>, ApiError> {
        let found = self.actors(&[id]).await?.pop().flatten();
        found.filter(|stored| stored.record.identity.namespace_id == namespace).ok_or(ApiError::ActorNotFound)
    }

    /// The actor that holds a key now.
    pub(crate) async fn holder_of_key(&self, namespace: NamespaceId, name: &str, key: &str) -> Result<Option<ActorId>, ApiError> {
        if let Some(actor) = self.0.keys.get(namespace, name, key) {
            return Ok(Some(actor));
        }
        // No actor has a key or name that is longer than allowed, and the store takes no longer row keys either.
        if key.len() > limits::ACTOR_KEY_MAX_BYTES || name.chars().count() > limits::ACTOR_NAME_MAX_CHARS {
            return Ok(None);
        }
        let epoch = self.0.keys.epoch();
        let holder = self.0.store.get(vec![actor_index::by_key(namespace, name, key)]).await?.pop().flatten();
        let Some(holder) = holder else { return Ok(None) };
        let actor = actor_index::holder(&holder)?;
        self.0.keys.insert(epoch, namespace, name, key, actor);
        Ok(Some(actor))
    }

    /// Forgets who holds a key, so that the store is asked again: its holder turned out to be destroyed.
    pub(crate) fn forget_holder(&self, namespace: NamespaceId, name: &str, key: &str) {
        self.0.keys.remove(namespace, name, key);
    }

    /// How many actors of a host have reported that they run, and have not been given up or moved since
    /// (`spec/scheduling.md` 1.3). Looks at each of them: for lists.
    pub(crate) fn slots(&self, host: &Host) -> usize {
        let has_run = |(actor, _generation): &(ActorId, u32)| {
            let cell = self.0.cells.lock().get(actor).cloned();
            let stored = cell.and_then(|cell| cell.stored());
            stored.is_some_and(|stored| !matches!(stored.record.phase, Phase::Starting { .. }))
        };
        host.assigned().iter().filter(|actor| has_run(actor)).count()
    }

    /// Actors of a name, newest first.
    pub(crate) async fn list(&self, query: ListQuery<'_>) -> Result<Vec<Arc<StoredActor>>, ApiError> {
        let (start, mut end) = actor_index::listed(query.namespace, query.name, query.include_destroyed, query.before);
        let mut found = Vec::new();
        while found.len() < query.limit {
            let limit = query.limit - found.len();
            let scan =
                Scan { start: start.clone(), end: end.clone(), reverse: true, limit, max_bytes: limits::LIST_SCAN_MAX_BYTES };
            let rows = self.0.store.scan(scan).await?;
            let Some((last, _)) = rows.last() else { break };
            end = last.clone();
            let ids = rows.iter().map(|(key, _)| actor_index::actor_at_end(key)).collect::<Result<Vec<_>, _>>()?;
            let wanted =
                |stored: &Arc<StoredActor>| query.key.is_none_or(|key| stored.record.identity.key.as_deref() == Some(key));
            found.extend(self.actors(&ids).await?.into_iter().flatten().filter(wanted));
        }
        Ok(found)
    }
}
