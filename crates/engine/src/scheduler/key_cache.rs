//! Remembers which actor holds a key, so that a request by key costs no look-up in the store.

use std::collections::HashMap;

use parking_lot::Mutex;
use protocol::id::{ActorId, NamespaceId};

/// Entries in each of the two halves.
const HALF_CAPACITY: usize = 32_768;

type Key = (NamespaceId, String, String);

/// Two halves: when the young one is full it becomes the old one, and the old one is dropped. What is used stays.
#[derive(Default)]
pub(super) struct KeyCache {
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    young: HashMap<Key, ActorId>,
    old: HashMap<Key, ActorId>,
    /// Counts removals. A holder that was read from the store before one may be the one that was removed.
    epoch: u64,
}

impl KeyCache {
    pub(super) fn get(&self, namespace: NamespaceId, name: &str, key: &str) -> Option<ActorId> {
        let wanted = (namespace, name.to_owned(), key.to_owned());
        let mut halves = self.halves.lock();
        if let Some(actor) = halves.young.get(&wanted) {
            return Some(*actor);
        }
        let actor = halves.old.remove(&wanted)?;
        halves.insert(wanted, actor);
        Some(actor)
    }

    /// To be taken before the store is asked, for [`Self::insert`].
    pub(super) fn epoch(&self) -> u64 {
        self.halves.lock().epoch
    }

    /// Remembers a holder, unless something was removed since `epoch`: the answer may be out of date then.
    pub(super) fn insert(&self, epoch: u64, namespace: NamespaceId, name: &str, key: &str, actor: ActorId) {
        let mut halves = self.halves.lock();
        if halves.epoch == epoch {
            halves.insert((namespace, name.to_owned(), key.to_owned()), actor);
        }
    }

    pub(super) fn remove(&self, namespace: NamespaceId, name: &str, key: &str) {
        let key = (namespace, name.to_owned(), key.to_owned());
        let mut halves = self.halves.lock();
        halves.epoch += 1;
        halves.young.remove(&key);
        halves.old.remove(&key);
    }
}

impl Halves {
    fn insert(&mut self, key: Key, actor: ActorId) {
        if self.young.len() >= HALF_CAPACITY {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, actor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_bounded_and_keeps_what_is_used() {
        let cache = KeyCache::default();
        let namespace = NamespaceId::from_parts([0; 16], 1);
        let actor = ActorId::from_parts([1; 16], 1);
        cache.insert(0, namespace, "n", "used", actor);
        for key in 0..4 * HALF_CAPACITY {
            cache.insert(0, namespace, "n", &key.to_string(), actor);
            if key % 1000 == 0 {
                assert_eq!(cache.get(namespace, "n", "used"), Some(actor));
            }
        }
        let halves = cache.halves.lock();
        assert!(halves.young.len() + halves.old.len() <= 2 * HALF_CAPACITY);
        drop(halves);
        cache.remove(namespace, "n", "used");
        assert_eq!(cache.get(namespace, "n", "used"), None);
        cache.insert(0, namespace, "n", "used", actor);
        assert_eq!(cache.get(namespace, "n", "used"), None, "read before the removal");
    }
}
