//! Removing everything of an actor (`spec/storage.md` 3.6, 6.8).

use bytes::Bytes;
use protocol::id::Id;
use store::{Batch, Scan, StoreError, prefix_end};

use crate::record::{self, DATA_SUBSPACES, Subspace};
use crate::{ActorData, fence};

/// Rows removed in one transaction: some milliseconds.
const STEP_ROWS: usize = 256;

impl ActorData {
    /// Removes all data of a destroyed actor, and in the end its fence. Refuses all requests for the actor from its
    /// beginning on, if [`fence::mark_destroyed`] did not do so before. Takes time in proportion to the data, in steps;
    /// if it is interrupted, call it again.
    ///
    /// # Errors
    /// If the store fails; then some data may be left.
    pub async fn delete_all(&self, actor: Id) -> Result<(), StoreError> {
        self.undo.forget(&actor);
        let mut batch = Batch::new();
        fence::mark_destroyed(&mut batch, &actor);
        self.store.write(batch).await?;
        for subspace in DATA_SUBSPACES {
            self.delete_subspace(&actor, subspace).await?;
        }
        let mut batch = Batch::new();
        batch.delete(fence::key(&actor));
        self.store.write(batch).await
    }

    async fn delete_subspace(&self, actor: &Id, subspace: Subspace) -> Result<(), StoreError> {
        let mut start = record::key(subspace, actor, &[]);
        let end = prefix_end(&start);
        let mut step = STEP_ROWS;
        loop {
            // Read on the threads for reading: rows not in memory must not hold up the committer.
            let scan = Scan { max_bytes: usize::MAX, ..Scan::range(start.clone(), end.clone()) };
            let rows = self.store.scan(scan.limit(step)).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            let next = Bytes::from([last.as_ref(), &[0]].concat());
            let mut batch = Batch::new();
            batch.delete_range(start.clone(), next.clone());
            match self.store.write(batch).await {
                Ok(()) => {
                    start = next;
                    step = (step * 2).min(STEP_ROWS);
                }
                // The store needs some room even to make some: a little less for fewer rows.
                Err(error) if error.may_pass() && step > 1 => step = (step / 4).max(1),
                Err(error) => return Err(error),
            }
        }
    }
}
