//! The past of a database: what each commit has changed, as it was before, so that the database can be put back.
//!
//! A generation keeps history if its fence says so, and the ledger says since when the past is known. A commit then notes
//! its time, the size before it, and the row of each page that it overwrites or removes ([`keep`]); what is done later, in
//! steps, notes the rows that it overwrites or removes under the head of its commit (`upkeep`). So, with `h` the first commit
//! after some time, a page was at that time
//!
//! * what the earliest note from `h` on says of it,
//! * and if none does, what it is now;
//!
//! and the size was that before `h`. [`find`] reads this, [`restore`] makes it the present, [`fork`] another actor's, and
//! [`prune`] forgets what is older than the actor's window. Until a staged commit has been moved into the page rows, these
//! rows are what it found: they need no note yet. So that there is at most one such commit, and the newest, the next one waits
//! for it if history is kept.
//!
//! What is undone because its host never learnt of it ([`forget`]) was never there: it is in no past.

mod draft;
mod error;
mod find;
mod fork;
#[cfg(test)]
mod model_tests;
mod prune;
mod restore;
mod rows;
mod transfer;

use bytes::Bytes;
use protocol::id::Id;
use store::Batch;

pub use self::draft::{Amended, Draft, as_it_was};
pub use self::error::HistoryError;
pub use self::restore::Restored;
pub(crate) use self::restore::Restores;

use self::rows::Commit;
use super::standing_reads;
use super::undo::PreImage;
use crate::fence::Fence;
use crate::ledger::{Kept, Ledger};
use crate::{ActorData, Damaged, Standing, page, record};

/// What is known of the past of an actor's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Its content at any time from this one on is known, in epoch milliseconds. [`i64::MIN`]: from its beginning.
    pub since: i64,
    /// Bytes that the past takes, besides what counts against the storage limit.
    pub bytes: u64,
}

impl ActorData {
    /// What is known of the past of an actor's database; nothing if no history is kept.
    ///
    /// # Errors
    /// [`HistoryError::NoActor`], [`HistoryError::Damaged`], [`HistoryError::Store`].
    pub async fn past(&self, actor: Id) -> Result<Option<Past>, HistoryError> {
        let found = self.store.read(standing_reads(&actor)).await?;
        let standing = Standing::decode(&actor, found.keys[0].as_deref(), found.keys[1].as_deref())?;
        check_alive(&standing)?;
        Ok(standing.ledger.history.map(|kept| Past { since: kept.since, bytes: kept.bytes }))
    }
}

/// Looks at a row of this module. Answers with the head of the commit that it is of.
pub(crate) fn check_row(key: &[u8], value: &[u8]) -> Result<u64, Damaged> {
    let head = rows::head_of(key)?;
    if rows::is_commit(key) {
        Commit::decode(key, value)?;
    } else {
        page::decode(key, &Bytes::copy_from_slice(value))?;
    }
    Ok(head)
}

/// Refuses an actor that is destroyed, or never was.
fn check_alive(standing: &Standing) -> Result<(), HistoryError> {
    match standing.fence {
        Some(Fence::Generation { .. }) => Ok(()),
        Some(Fence::Destroyed) | None => Err(HistoryError::NoActor),
    }
}

/// Notes the commit that made the head of this ledger, and the pages that it overwrites at once. Without retention the past
/// ends here, and that costs nothing.
pub(super) fn keep(
    batch: &mut Batch,
    actor: &Id,
    ledger: &mut Ledger,
    size_before: u32,
    pages: &[PreImage],
    retention_s: u32,
    now: i64,
) -> Result<(), Damaged> {
    if retention_s == 0 {
        ledger.old_notes |= ledger.history.is_some();
        ledger.history = None;
        return Ok(());
    }
    let head = ledger.head;
    // Before its first commit a database was empty, whenever that was.
    let since = if head == 1 { i64::MIN } else { now };
    let mut kept = ledger.history.unwrap_or(Kept { first: head, since, newest: now, bytes: 0, forgotten: 0, due: now });
    kept.newest = kept.newest.max(now);
    if kept.bytes == 0 {
        kept.due = prune::due(kept.newest, retention_s);
    }
    let commit = Commit { time: kept.newest, size_before, noted_before: kept.noted() };
    kept.bytes += commit.put(batch, actor, head);
    ledger.history = Some(kept);
    pages.iter().try_for_each(|before| note(batch, actor, ledger, before.pgno, before.row.as_deref()))
}

/// Notes a page that the newest commit overwrites or removes, with its row in the database, if it has one. The ledger is to be
/// put afterwards.
pub(super) fn note(batch: &mut Batch, actor: &Id, ledger: &mut Ledger, pgno: u32, row: Option<&[u8]>) -> Result<(), Damaged> {
    let key = rows::page_key(actor, ledger.head, pgno);
    let value = match row {
        Some(row) => page::reseal(&page::key(actor, pgno), row, &key)?,
        None => record::seal(&key, page::ZEROS_BODY.to_vec()),
    };
    if let Some(kept) = &mut ledger.history {
        kept.bytes += (key.len() + value.len()) as u64;
    }
    batch.put(key, value);
    Ok(())
}

/// Removes what [`keep`] noted of a commit that is undone: the same pages, with the same rows.
pub(super) fn forget(batch: &mut Batch, actor: &Id, ledger: &mut Ledger, undone_head: u64, pages: &[PreImage]) {
    // Pruned meanwhile, or never noted.
    let Some(kept) = ledger.history.as_mut().filter(|kept| kept.first <= undone_head) else { return };
    let mut freed = rows::COMMIT_ROW_BYTES;
    batch.delete(rows::commit_key(actor, undone_head));
    for before in pages {
        let key = rows::page_key(actor, undone_head, before.pgno);
        let value_bytes = before.row.as_ref().map_or(page::ZEROS_BODY.len() + record::SEAL_BYTES, Bytes::len);
        freed += (key.len() + value_bytes) as u64;
        batch.delete(key);
    }
    kept.bytes = kept.bytes.saturating_sub(freed);
}
