//! Forgetting what is older than an actor's window (`ActorData::prune_history`).
//!
//! First the ledger moves the beginning of the history on; then the rows from before it go, in steps. So whoever restores
//! finds out, and rows that a crash has left go with the next turn.

use protocol::id::Id;
use store::{Batch, Decision, Explorer, Reads, Scan, View};

use super::rows::{self, Commit};
use super::{HistoryError, check_alive, find};
use crate::ledger::Kept;
use crate::record::{PREFIX_BYTES, Subspace};
use crate::sqlite::{row_range, standing_reads};
use crate::{ActorData, Bytes, Damaged, Standing};

/// Rows removed in one transaction: some milliseconds.
const STEP_ROWS: usize = if cfg!(test) { 5 } else { 256 };
/// Actors that are looked at in one go.
const CHUNK_ACTORS: usize = 64;

/// Where the history of an actor is to begin.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    first: u64,
    since: i64,
    /// Bytes of the rows before it.
    bytes: u64,
    /// Head of the database when this was found out.
    head: u64,
}

impl ActorData {
    /// Forgets what is older than the windows of all actors, and what takes more room than an actor may have for its data.
    /// Meant to be called now and then; a call looks at every actor that has a history. One that cannot be read costs the
    /// others nothing.
    ///
    /// # Errors
    /// [`HistoryError::Store`].
    pub async fn prune_history(&self) -> Result<(), HistoryError> {
        let mut after = None;
        loop {
            let actors = self.store.explore(move |explorer| with_history(explorer, after)).await??;
            let Some(last) = actors.last().copied() else { return Ok(()) };
            for actor in actors {
                match self.prune(actor).await {
                    // One that is destroyed loses everything anyway.
                    Ok(()) | Err(HistoryError::NoActor) => {}
                    Err(error @ HistoryError::Store(_)) => return Err(error),
                    Err(error) => tracing::error!(%error, %actor, "an actor's history cannot be pruned"),
                }
            }
            after = Some(last);
        }
    }

    /// Forgets what is older than the window of an actor.
    pub(super) async fn prune(&self, actor: Id) -> Result<(), HistoryError> {
        let (now, max_bytes, store) = ((self.clock)(), self.options.max_storage_bytes, self.store.clone());
        let look = move || {
            store.snapshot(|explorer| {
                let beginning = beginning(explorer, &actor, now, max_bytes)?;
                Ok::<_, HistoryError>((beginning, has_remains(explorer, &actor)?))
            })?
        };
        let (beginning, has_remains) = tokio::task::spawn_blocking(look).await.map_err(|_| HistoryError::Interrupted)??;
        if let Some(beginning) = beginning {
            self.transact(standing_reads(&actor), move |view| begin_at(view, &actor, beginning)).await?;
        } else if !has_remains {
            return Ok(());
        }
        while self.transact(standing_reads(&actor), move |view| remove_step(view, &actor)).await? {}
        Ok(())
    }
}

/// The next actors that have notes of commits.
fn with_history(explorer: &Explorer<'_>, after: Option<Id>) -> Result<Vec<Id>, HistoryError> {
    let end = [Subspace::HistoryCommit as u8 + 1];
    let mut start = match after {
        Some(actor) => rows::commit_key(&actor, u64::MAX),
        None => Bytes::from_static(&[Subspace::HistoryCommit as u8]),
    };
    let mut found = Vec::new();
    while found.len() < CHUNK_ACTORS {
        let Some(row) = explorer.range(&start, &end)?.next() else { break };
        let (key, _) = row?;
        let id = key.get(1..PREFIX_BYTES).and_then(|id| id.try_into().ok()).ok_or(Damaged { record: "history" })?;
        let actor = Id::from_bytes(id);
        found.push(actor);
        // No commit has this number.
        start = rows::commit_key(&actor, u64::MAX);
    }
    Ok(found)
}

/// Where the history is to begin, if not where it begins now.
fn beginning(explorer: &Explorer<'_>, actor: &Id, now: i64, max_bytes: u64) -> Result<Option<Beginning>, HistoryError> {
    let standing = find::standing(explorer, actor)?;
    let (retention_s, ledger) = (standing.retention_s(), standing.ledger);
    let Some(kept) = ledger.history else { return Ok(None) };
    // A generation that keeps none ends the history of those before it.
    let cutoff = if retention_s == 0 { i64::MAX } else { now.saturating_sub(i64::from(retention_s) * 1000) };
    let mut beginning = Beginning { first: kept.first, since: kept.since, bytes: 0, head: ledger.head };
    let (start, end) = (rows::commit_key(actor, kept.first), rows::commit_key(actor, u64::MAX));
    for row in explorer.range(&start, &end)? {
        let (key, value) = row?;
        let (head, commit) = (rows::head_of(key)?, Commit::decode(key, value)?);
        let is_wanted = commit.time > cutoff && kept.bytes.saturating_sub(beginning.bytes) <= max_bytes;
        // Of the newest there may be more to note.
        if is_wanted || (head == ledger.head && ledger.is_unsettled()) {
            break;
        }
        beginning.bytes += rows::COMMIT_ROW_BYTES + page_bytes(explorer, actor, head)?;
        beginning = Beginning { first: head + 1, since: commit.time, ..beginning };
    }
    Ok((beginning.first > kept.first).then_some(beginning))
}

/// Whether there are notes from before the history, which are of no use.
fn has_remains(explorer: &Explorer<'_>, actor: &Id) -> Result<bool, HistoryError> {
    let first = find::standing(explorer, actor)?.ledger.history.map_or(u64::MAX, |kept| kept.first);
    let row = explorer.range(&rows::commit_key(actor, 0), &rows::commit_key(actor, first))?.next();
    Ok(row.transpose()?.is_some())
}

/// Bytes of the pages that a commit has noted.
fn page_bytes(explorer: &Explorer<'_>, actor: &Id, head: u64) -> Result<u64, HistoryError> {
    let (start, end) = row_range(rows::page_key(actor, head, 0), &rows::page_key(actor, head, u32::MAX));
    let mut bytes = 0;
    for row in explorer.range(&start, &end)? {
        let (key, value) = row?;
        bytes += (key.len() + value.len()) as u64;
    }
    Ok(bytes)
}

/// Moves the beginning of the history on.
fn begin_at(view: &View<'_>, actor: &Id, beginning: Beginning) -> Result<Decision<()>, HistoryError> {
    let standing = Standing::of(actor, view)?;
    check_alive(&standing)?;
    let mut ledger = standing.ledger;
    let Beginning { first, since, bytes, head } = beginning;
    // The newest commit may have been undone meanwhile, and then another one is the newest.
    let is_known = first <= head || head == ledger.head;
    let Some(kept) = ledger.history.filter(|kept| kept.first < first && is_known) else { return Ok(Decision::Skip(())) };
    ledger.history = Some(Kept { first, since, bytes: kept.bytes.saturating_sub(bytes), ..kept });
    let mut batch = Batch::new();
    ledger.put(&mut batch, actor);
    Ok(Decision::Commit(batch, ()))
}

/// Removes some rows from before the history. Answers whether there may be more.
fn remove_step(view: &View<'_>, actor: &Id) -> Result<Decision<bool>, HistoryError> {
    let standing = Standing::of(actor, view)?;
    check_alive(&standing)?;
    let first = standing.ledger.history.map_or(u64::MAX, |kept| kept.first);
    if view.range_count() == 0 {
        let scan = |start: Bytes, end: Bytes| Scan { max_bytes: usize::MAX, ..Scan::range(start, end) }.limit(STEP_ROWS);
        let pages = scan(rows::page_key(actor, 0, 0), rows::page_key(actor, first, 0));
        let commits = scan(rows::commit_key(actor, 0), rows::commit_key(actor, first));
        return Ok(Decision::ReadMore(Reads { keys: Vec::new(), ranges: vec![pages, commits] }));
    }
    let (pages, commits) = (view.range(0), view.range(1));
    let more_pages = pages.len() == STEP_ROWS;
    // Commits lead to the pages, so they go last.
    let removable = if more_pages { &[] } else { commits };
    let mut batch = Batch::new();
    for (key, _) in pages.iter().chain(removable) {
        batch.delete(Bytes::copy_from_slice(key));
    }
    if batch.is_empty() {
        return Ok(Decision::Skip(false));
    }
    Ok(Decision::Commit(batch, more_pages || commits.len() == STEP_ROWS))
}
