//! Forgetting what is older than an actor's window, or takes too much room.
//!
//! First the ledger moves the beginning of the history on, and notes that there are rows from before it ([`begin_later`]); then
//! these go ([`remove_old`]). Both in steps, each of which is one transaction, so whoever restores finds out, and after a crash
//! the next turn goes on.
//!
//! It is done in the background after a commit that finds it due (`upkeep`), and by [`ActorData::prune_history`] for actors that
//! no longer commit. A step removes more rows than the largest commit in one message notes, and a staged commit is moved by
//! the same task; so however fast an actor writes, its past takes little more room than it may.

use protocol::id::Id;
use store::{Batch, Decision, Explorer, Reads, Scan, View};

use super::rows::{self, Commit};
use super::{HistoryError, check_alive, find};
use crate::ledger::{Kept, Ledger};
use crate::record::{PREFIX_BYTES, Subspace};
use crate::sqlite::standing_reads;
use crate::{ActorData, Bytes, Damaged, Standing};

/// Rows removed in one transaction: some milliseconds.
const STEP_ROWS: usize = if cfg!(test) { 5 } else { 512 };
/// Commits that are looked at in one transaction.
const STEP_COMMITS: usize = if cfg!(test) { 3 } else { 512 };
/// Actors that are looked at in one go.
const CHUNK_ACTORS: usize = 64;
/// How much longer than its window the past may be known, so that many commits are forgotten at once: this part of the window,
/// and no more than [`SLACK_MAX_MS`].
const SLACK_PART: i64 = 16;
/// In milliseconds.
const SLACK_MAX_MS: i64 = 60_000;

/// What is to be forgotten.
#[derive(Debug, Clone, Copy)]
struct Rule {
    now: i64,
    retention_s: u32,
    max_bytes: u64,
}

impl Rule {
    /// Of commits up to this time nothing needs to be known. A generation that keeps no history ends that of those before it.
    fn cutoff(self) -> i64 {
        if self.retention_s == 0 { i64::MAX } else { self.now.saturating_sub(window_ms(self.retention_s)) }
    }

    /// What may stay when there was too much, so that many commits are forgotten at once.
    fn bytes_to_keep(self) -> u64 {
        self.max_bytes - self.max_bytes / SLACK_PART as u64
    }
}

fn window_ms(retention_s: u32) -> i64 {
    i64::from(retention_s) * 1000
}

/// When the oldest commit of a history is to be forgotten, by its time. All in epoch milliseconds.
pub(super) fn due(oldest: i64, retention_s: u32) -> i64 {
    let window_ms = window_ms(retention_s);
    oldest.saturating_add(window_ms + (window_ms / SLACK_PART).min(SLACK_MAX_MS))
}

impl ActorData {
    /// Forgets what is older than the windows of all actors, and what takes more room than an actor may have for its data.
    /// Meant to be called now and then, for actors that do not write; a call looks at every actor that has a history. One
    /// that cannot be read costs the others nothing.
    ///
    /// # Errors
    /// [`HistoryError::Store`].
    pub async fn prune_history(&self) -> Result<(), HistoryError> {
        let mut after = None;
        loop {
            let (now, max_bytes) = ((self.clock)(), self.options.max_storage_bytes);
            let chunk = self.store.explore(move |explorer| look_at_chunk(explorer, after, now, max_bytes)).await??;
            for actor in chunk.due {
                match self.prune(actor).await {
                    Ok(()) => {}
                    Err(error @ HistoryError::Store(_)) => return Err(error),
                    Err(error) => tracing::error!(%error, %actor, "an actor's history cannot be pruned"),
                }
            }
            if chunk.last.is_none() {
                return Ok(());
            }
            after = chunk.last;
        }
    }

    /// Forgets what is due of an actor, if anything is.
    ///
    /// # Errors
    /// [`HistoryError::Damaged`], [`HistoryError::Store`].
    pub(in crate::sqlite) async fn prune_if_due(&self, actor: Id) -> Result<(), HistoryError> {
        let found = self.store.read(standing_reads(&actor)).await?;
        let standing = Standing::decode(&actor, found.keys[0].as_deref(), found.keys[1].as_deref())?;
        if self.must_prune(&standing.ledger) { self.prune(actor).await } else { Ok(()) }
    }

    async fn prune(&self, actor: Id) -> Result<(), HistoryError> {
        loop {
            let (clock, max_bytes) = (self.clock.clone(), self.options.max_storage_bytes);
            match self.transact(standing_reads(&actor), move |view| step(view, &actor, clock(), max_bytes)).await {
                Ok(true) => {}
                // One that is destroyed loses everything anyway.
                Ok(false) | Err(HistoryError::NoActor) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether something of an actor's history is to be forgotten.
    pub(in crate::sqlite) fn must_prune(&self, ledger: &Ledger) -> bool {
        let is_due = |kept: Kept| kept.is_due((self.clock)(), self.options.max_storage_bytes);
        ledger.old_notes || ledger.history.is_some_and(is_due)
    }
}

/// Some actors that have notes.
struct Chunk {
    /// Those of which something is to be forgotten.
    due: Vec<Id>,
    /// The last one that was looked at; none if there are no more.
    last: Option<Id>,
}

fn look_at_chunk(explorer: &Explorer<'_>, after: Option<Id>, now: i64, max_bytes: u64) -> Result<Chunk, HistoryError> {
    let end = [Subspace::HistoryCommit as u8 + 1];
    let mut chunk = Chunk { due: Vec::new(), last: after };
    for _ in 0..CHUNK_ACTORS {
        let start = match chunk.last {
            // No commit has this number.
            Some(actor) => rows::commit_key(&actor, u64::MAX),
            None => Bytes::from_static(&[Subspace::HistoryCommit as u8]),
        };
        let Some(row) = explorer.range(&start, &end)?.next() else {
            chunk.last = None;
            break;
        };
        let (key, value) = row?;
        let id = key.get(1..PREFIX_BYTES).and_then(|id| id.try_into().ok()).ok_or(Damaged { record: "history" })?;
        let actor = Id::from_bytes(id);
        chunk.last = Some(actor);
        match is_due(explorer, &actor, (key, value), now, max_bytes) {
            Ok(true) => chunk.due.push(actor),
            Ok(false) => {}
            Err(error @ HistoryError::Store(_)) => return Err(error),
            Err(error) => tracing::error!(%error, %actor, "an actor's history cannot be pruned"),
        }
    }
    Ok(chunk)
}

/// Whether something of an actor's history is to be forgotten, by its present window and the oldest commit that has a row.
fn is_due(
    explorer: &Explorer<'_>,
    actor: &Id,
    (key, value): (&[u8], &[u8]),
    now: i64,
    max_bytes: u64,
) -> Result<bool, HistoryError> {
    let standing = find::standing(explorer, actor)?;
    let rule = Rule { now, retention_s: standing.retention_s(), max_bytes };
    let is_old = Commit::decode(key, value)?.time <= rule.cutoff();
    let ledger = standing.ledger;
    Ok(ledger.old_notes || is_old || ledger.history.is_some_and(|kept| kept.bytes > max_bytes))
}

/// One step. Answers whether there may be more.
fn step(view: &View<'_>, actor: &Id, now: i64, max_bytes: u64) -> Result<Decision<bool>, HistoryError> {
    let standing = Standing::of(actor, view)?;
    check_alive(&standing)?;
    let rule = Rule { now, retention_s: standing.retention_s(), max_bytes };
    let ledger = standing.ledger;
    if ledger.old_notes {
        return Ok(remove_old(view, actor, ledger));
    }
    match ledger.history {
        Some(kept) => begin_later(view, actor, ledger, kept, rule),
        None => Ok(Decision::Skip(false)),
    }
}

/// Moves the beginning of the history on.
fn begin_later(view: &View<'_>, actor: &Id, mut ledger: Ledger, kept: Kept, rule: Rule) -> Result<Decision<bool>, HistoryError> {
    if view.range_count() == 0 {
        let commits = Scan::range(rows::commit_key(actor, kept.first), rows::commit_key(actor, u64::MAX));
        return Ok(read_rows([(commits, STEP_COMMITS)]));
    }
    let beginning = beginning(&ledger, kept, view.range(0), rule)?;
    if beginning == kept {
        return Ok(Decision::Skip(false));
    }
    let forgets = beginning.forgotten > kept.forgotten;
    ledger.history = Some(beginning);
    ledger.old_notes = forgets;
    let mut batch = Batch::new();
    ledger.put(&mut batch, actor);
    Ok(Decision::Commit(batch, forgets))
}

/// What is left of a history without the commits that are to be forgotten, as far as these rows, its first ones, tell.
fn beginning(ledger: &Ledger, kept: Kept, commits: &[(&[u8], &[u8])], rule: Rule) -> Result<Kept, Damaged> {
    let mut left = kept;
    for (index, (key, value)) in commits.iter().enumerate() {
        let (head, commit) = (rows::head_of(key)?, Commit::decode(key, value)?);
        let bytes = kept.noted().saturating_sub(commit.noted_before);
        left = Kept { first: head, bytes, forgotten: commit.noted_before, due: due(commit.time, rule.retention_s), ..left };
        let fits = kept.bytes <= rule.max_bytes || bytes <= rule.bytes_to_keep();
        let is_wanted = commit.time > rule.cutoff() && fits;
        // Only the commit behind it would tell how much it takes.
        let is_edge = index + 1 == STEP_COMMITS;
        // Of the newest there may be more to note.
        let is_open = head == ledger.head && ledger.is_unsettled();
        if is_wanted || is_edge || is_open {
            return Ok(left);
        }
        left.since = commit.time;
    }
    // None is left; of the next one everything can be known again.
    let next = if commits.is_empty() { left.first } else { left.first + 1 };
    Ok(Kept { first: next, bytes: 0, forgotten: kept.noted(), ..left })
}

/// Removes some rows from before the history.
fn remove_old(view: &View<'_>, actor: &Id, mut ledger: Ledger) -> Decision<bool> {
    if view.range_count() == 0 {
        let first = ledger.history.map_or(u64::MAX, |kept| kept.first);
        let pages = Scan::range(rows::page_key(actor, 0, 0), rows::page_key(actor, first, 0));
        let commits = Scan::range(rows::commit_key(actor, 0), rows::commit_key(actor, first));
        return read_rows([(pages, STEP_ROWS), (commits, STEP_ROWS)]);
    }
    let (pages, commits) = (view.range(0), view.range(1));
    let more_pages = pages.len() == STEP_ROWS;
    // Commits lead to the pages, so they go last.
    let removable = if more_pages { &[] } else { commits };
    let mut batch = Batch::new();
    for (key, _) in pages.iter().chain(removable) {
        batch.delete(Bytes::copy_from_slice(key));
    }
    if !more_pages && commits.len() < STEP_ROWS {
        ledger.old_notes = false;
        ledger.put(&mut batch, actor);
    }
    Decision::Commit(batch, true)
}

/// Asks for the rows of a step.
fn read_rows<const N: usize>(scans: [(Scan, usize); N]) -> Decision<bool> {
    let scan = |(scan, rows): (Scan, usize)| Scan { max_bytes: usize::MAX, ..scan }.limit(rows);
    Decision::ReadMore(Reads { keys: Vec::new(), ranges: scans.map(scan).into() })
}
