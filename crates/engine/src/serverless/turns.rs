//! Whose turn it is to ask an endpoint: a bound on the requests that wait for answers at once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use protocol::id::NamespaceId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type PoolKey = (NamespaceId, String);

/// Turns, in the order in which they were asked for within a pool.
pub(super) struct Turns {
    of_pool_max: usize,
    all: Arc<Semaphore>,
    of_pools: Mutex<HashMap<PoolKey, Weak<Semaphore>>>,
}

/// A turn, until it is dropped.
pub(super) struct Turn {
    _of_pool: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// So many at once, and so many of one pool.
    pub(super) fn new(max: usize, of_pool_max: usize) -> Self {
        Self { of_pool_max, all: Arc::new(Semaphore::new(max)), of_pools: Mutex::default() }
    }

    /// Waits for a turn; the caller sets a deadline. Dropping this gives the place in the queue up.
    pub(super) async fn take(&self, namespace: NamespaceId, pool: &str) -> Turn {
        // The pool's first: who waits for another of the same pool must not keep those of other pools waiting. Neither is ever
        // closed, so there always is a turn at some point.
        let of_pool = self.of_pool((namespace, pool.to_owned())).acquire_owned().await.ok();
        let of_all = self.all.clone().acquire_owned().await.ok();
        Turn { _of_pool: of_pool, _of_all: of_all }
    }

    fn of_pool(&self, key: PoolKey) -> Arc<Semaphore> {
        let mut of_pools = self.of_pools.lock();
        if let Some(known) = of_pools.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        // Names of pools come from outside, so none is remembered for nothing.
        of_pools.retain(|_, turns| turns.strong_count() > 0);
        let new = Arc::new(Semaphore::new(self.of_pool_max));
        of_pools.insert(key, Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn turns_come_in_order_and_no_pool_has_them_all() {
        let namespace = NamespaceId::from_parts([1; 16], 1);
        let turns = Turns::new(3, 2);
        let at_once = |pool: &str| turns.take(namespace, pool).now_or_never();
        let (first, second) = (at_once("a"), at_once("a"));
        assert!(first.is_some() && second.is_some());
        let mut third = pin!(turns.take(namespace, "a"));
        assert!((&mut third).now_or_never().is_none(), "the pool has as many as it may");
        let other = at_once("b");
        assert!(other.is_some(), "another pool has its own");
        assert!(at_once("c").is_none(), "no more are left");
        drop(first);
        assert!(at_once("a").is_none(), "somebody came first");
        assert!((&mut third).now_or_never().is_some());
        drop((second, other));
        assert!(at_once("d").is_some());
        assert_eq!(turns.of_pools.lock().len(), 1, "idle pools are forgotten");
    }
}
