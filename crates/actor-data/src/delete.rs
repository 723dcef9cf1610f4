//! Removing everything of an actor (`spec/storage.md` 3.6, 6.8).

use std::hint::black_box;

use bytes::Bytes;
use protocol::id::Id;
use store::{Batch, Explorer, StoreError, prefix_end};

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
        while let Some(next) = self.end_of_step(start.clone(), end.clone(), step).await? {
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
        Ok(())
    }

    /// The bound above the first `rows` rows of a range. `None`: it is empty.
    async fn end_of_step(&self, start: Bytes, end: Bytes, rows: usize) -> Result<Option<Bytes>, StoreError> {
        // Done by the threads that read, which thereby get from the disk what the committer needs to remove the rows: nobody
        // may wait for that. Of a large value it needs the beginning.
        let explore = move |explorer: &Explorer<'_>| {
            let mut next = None;
            for row in explorer.range(&start, &end)?.take(rows) {
                let (key, value) = row?;
                black_box(value.first());
                next = Some(Bytes::from([key, &[0]].concat()));
            }
            Ok(next)
        };
        self.store.explore(explore).await?
    }
}
