//! Copying an actor's data, as it is or was, for another actor (`ActorData::copy`).

use protocol::id::Id;
use store::{Batch, Explorer, prefix_end};

use super::HistoryError;
use super::draft::{Amended, Draft};
use super::find::{self, PageSet};
use super::transfer::Outlet;
use crate::fence::Fence;
use crate::ledger::Ledger;
use crate::record::{self, PREFIX_BYTES, Subspace};
use crate::{ActorData, page};

impl ActorData {
    /// Copies what an actor owns to another one that nobody knows yet: its key-value entries as they are, and its database as
    /// it is, or as it was at a time (epoch milliseconds). All of it is from one moment; the copy has no past. If this fails,
    /// or the process ends, some rows of the new actor are left: [`ActorData::delete_all`] removes them. `amend` is as for
    /// [`ActorData::restore`], and it waits for the same turns.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn copy<F>(
        &self,
        from: Id,
        to: Id,
        at: Option<i64>,
        amend: impl FnOnce(Draft) -> F + Send,
    ) -> Result<(), HistoryError>
    where
        F: Future<Output = Amended> + Send,
    {
        let _turn = self.copy_turn().await?;
        let size = self.copy_rows(from, to, at).await?;
        let amended = amend(Draft { data: self.clone(), actor: to, staged: false, size }).await;
        let mut batch = Batch::new();
        if Draft::takes(size, &amended) {
            for (pgno, content) in amended {
                let key = page::key(&to, pgno);
                let row = page::encode(&key, &content);
                batch.put(key, row);
            }
        }
        Ok(self.store.write(batch).await?)
    }

    /// Returns the size of the copied database.
    async fn copy_rows(&self, from: Id, to: Id, at: Option<i64>) -> Result<u32, HistoryError> {
        self.transfer(None, move |explorer, outlet| {
            let standing = find::standing(explorer, &from)?;
            // One that has not started yet has nothing.
            if standing.fence == Some(Fence::Destroyed) {
                return Err(HistoryError::NoActor);
            }
            let source = standing.ledger;
            let first_after = at.map(|at| find::first_after(explorer, &from, &source, at)).transpose()?.flatten();
            let size = first_after.map_or(source.size, |(_, commit)| commit.size_before);
            let mut wanted = PageSet::all(size);
            let mut take = |pgno: u32, found: &[u8], row: &[u8]| {
                let key = page::key(&to, pgno);
                let row = page::reseal(found, row, &key)?;
                outlet.put(key, row)
            };
            match first_after {
                Some((head, _)) => {
                    find::take_noted(explorer, &from, head, &mut wanted, &mut take)?;
                    // What is staged is newer; the rows behind it are what was there before.
                }
                None => find::take_staged(explorer, &from, &source, &mut wanted, &mut take)?,
            }
            find::take_rows(explorer, &from, &mut wanted, &mut take)?;
            copy_entries(explorer, &from, &to, outlet)?;
            let copy = Ledger {
                // A database without commits is a new one for its host.
                head: u64::from(size > 0),
                size,
                high_water: size,
                kv_bytes: source.kv_bytes,
                kv_buckets: source.kv_buckets,
                deleting: source.deleting.clone(),
                ..Ledger::default()
            };
            outlet.append(|batch| copy.put(batch, &to))?;
            Ok(size)
        })
        .await
    }
}

/// Copies the key-value entries.
fn copy_entries(explorer: &Explorer<'_>, from: &Id, to: &Id, outlet: &mut Outlet) -> Result<(), HistoryError> {
    for subspace in [Subspace::KvEntry, Subspace::KvBucket] {
        let start = record::key(subspace, from, &[]);
        for row in explorer.range(&start, &prefix_end(&start))? {
            let (key, value) = row?;
            let copied = record::key(subspace, to, &[&key[PREFIX_BYTES..]]);
            let body = record::unseal("key-value entry", key, value)?;
            let value = record::seal(&copied, body.to_vec());
            outlet.put(copied, value)?;
        }
    }
    Ok(())
}
