//! Turns with the data of actors, over all connections of a host.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::id::ActorId;
use tokio::sync::OwnedMutexGuard;

/// Whose turn it is with the data of each actor. Requests of one connection come one after the other anyway; this makes the
/// first one over a new connection wait for the one that may still be under way for the old connection. Else that one could
/// change what the host has already been told (`spec/storage.md` 7.5).
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<ActorId, Arc<tokio::sync::Mutex<()>>>>);

/// A turn, until it is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    actor: ActorId,
    _held: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits for one's turn: as long as the one request takes that is under way.
    pub(crate) async fn take(self: &Arc<Self>, actor: ActorId) -> Turn {
        let turn = self.0.lock().entry(actor).or_default().clone();
        Turn { turns: self.clone(), actor, _held: turn.lock_owned().await }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock();
        // One is in the table and one is held; nobody gets another one while the table is locked.
        if turns.get(&self.actor).is_some_and(|turn| Arc::strong_count(turn) == 2) {
            turns.remove(&self.actor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_after_the_other_and_nothing_is_left() {
        let turns = Arc::new(Turns::default());
        let (one, other) = (ActorId::from_bytes([1; 18]), ActorId::from_bytes([2; 18]));
        let first = turns.take(one).await;
        let mut second = Box::pin(turns.take(one));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(turns.take(other).await);
        drop(first);
        drop(second.await);
        assert!(turns.0.lock().is_empty());
    }
}
