//! Work that changes leave behind, done in steps and in the background, so that nobody waits for it.
//!
//! | Left behind | By | Until it is done |
//! |---|---|---|
//! | staged rows to be moved into the database | a published stage | they count before the rows of the database; the size must not go down, and no stage can begin |
//! | rows above the size | a change that shrinks the database | the size must not go up |
//! | rows of stages that came to nothing | `begin`, a commit in between, a stage that was taken back | nobody reads them |
//! | rows of a restore that came to nothing | an error, or the end of the process | nobody reads them |
//! | notes of the past that are too old or too many | commits with history | nobody needs them (`history::prune`) |
//!
//! The ledger knows of all of them, so after a crash the next request finds and does them. The first two destroy what is
//! needed to take a commit back (`undo`); so they wait until its host has shown that it knows of it: each step of the
//! work is told up to which head that is so, and the ledger says for which head it must be.

use std::collections::HashMap;

use parking_lot::Mutex;
use protocol::id::Id;
use store::{Batch, Decision, Reads, Scan, View};

use super::error::SqliteError;
use super::{history, row_range, standing_reads};
use crate::fence::Fence;
use crate::ledger::{Ledger, RESTORE_STAGE, Stage};
use crate::{ActorData, Bytes, Damaged, STANDING_KEYS, Standing, page, record, segment};

/// Rows moved or removed in one transaction: some milliseconds. Few in this crate's own tests, so that they see steps.
const STEP_ROWS: u32 = if cfg!(test) { 5 } else { 256 };

/// The first stage of a host.
const FIRST_STAGE: u64 = RESTORE_STAGE + 1;

/// The work that goes on in the background: for each actor one task, and the head up to which its commits stay.
#[derive(Debug, Default)]
pub(crate) struct Upkeep(Mutex<HashMap<Id, u64>>);

/// One kind of work, as far as the ledger asks for it.
enum Work {
    Nothing,
    MoveStage { stage: u64 },
    Trim,
    RemoveLeftovers,
    RemoveRestoreRows,
}

impl Upkeep {
    /// Whether a task must be started for an actor whose commits up to a head stay. If there is one, it goes on to there.
    fn add(&self, actor: Id, kept_head: u64) -> bool {
        let mut running = self.0.lock();
        match running.get_mut(&actor) {
            Some(head) => {
                *head = kept_head.max(*head);
                false
            }
            None => running.insert(actor, kept_head).is_none(),
        }
    }

    /// The work up to a head is done. Says whether there is more, up to another one; otherwise the task must end.
    fn done(&self, actor: &Id, kept_head: u64) -> Option<u64> {
        let mut running = self.0.lock();
        let head = running.get(actor).copied().filter(|head| *head > kept_head);
        if head.is_none() {
            running.remove(actor);
        }
        head
    }
}

impl ActorData {
    /// Does now what earlier changes of an actor's database left behind, but for what may still be needed to take back the
    /// last one. It is done in the background anyway; this is for whoever wants to see the rows as they will be.
    ///
    /// # Errors
    /// If the store fails, or a row is damaged; the work can be gone on with later.
    pub async fn settle(&self, actor: Id) -> Result<(), protocol::envoy::SqliteErrorResponse> {
        Ok(self.settle_all(actor).await?)
    }

    pub(super) async fn settle_all(&self, actor: Id) -> Result<(), SqliteError> {
        let standing = self.standing(actor).await?;
        if let Some(Fence::Generation { number, .. }) = standing.fence
            && let Some(kept_head) = self.kept_head(&actor, number, &standing.ledger)
        {
            self.settle_to(actor, kept_head).await?;
        }
        Ok(())
    }

    /// Starts what an admitted request has found to be done, if it may be done by now.
    pub(super) fn tidy(&self, actor: Id, generation: u64, ledger: &Ledger) {
        let prunes = self.must_prune(ledger);
        if !ledger.needs_upkeep() && !prunes {
            return;
        }
        let kept_head = match self.kept_head(&actor, generation, ledger) {
            Some(kept_head) => kept_head,
            // Nothing is moved or removed that the newest commit may still need, but the past can be forgotten.
            None if prunes => 0,
            None => return,
        };
        if self.upkeep.add(actor, kept_head) {
            tokio::spawn(self.clone().keep_up(actor, kept_head));
        }
    }

    /// Does what earlier changes left behind, whose commits up to this head stay. Stops when the actor is destroyed: then
    /// everything is removed anyway.
    pub(super) async fn settle_to(&self, actor: Id, kept_head: u64) -> Result<(), SqliteError> {
        loop {
            let restores = self.restores.clone();
            let step = move |view: &View<'_>| step(view, &actor, kept_head, restores.contains(&actor));
            if !self.transact(standing_reads(&actor), step).await? {
                return Ok(());
            }
        }
    }

    /// Removes what an earlier restore has staged and not published. For the restore that comes next.
    pub(super) async fn remove_restore_rows(&self, actor: Id) -> Result<(), SqliteError> {
        let step = move |view: &View<'_>| {
            let Standing { fence, ledger } = Standing::of(&actor, view)?;
            let is_alive = matches!(fence, Some(Fence::Generation { .. }));
            if !is_alive || !ledger.restore_rows || ledger.published() == Some(RESTORE_STAGE) {
                return Ok::<_, SqliteError>(Decision::Skip(false));
            }
            Ok(remove_restore_rows(view, &actor, ledger))
        };
        while self.transact(standing_reads(&actor), step).await? {}
        Ok(())
    }

    async fn keep_up(self, actor: Id, kept_head: u64) {
        let mut next = Some(kept_head);
        while let Some(kept_head) = next {
            if let Err(error) = self.settle_to(actor, kept_head).await
                && !error.is_lack_of_room()
            {
                // The changes themselves are done; what is left waits for the next request.
                tracing::warn!(%error, %actor, "cannot tidy up after a commit");
            }
            if let Err(error) = self.prune_if_due(actor).await
                && !error.is_lack_of_room()
            {
                tracing::warn!(%error, %actor, "cannot forget the past of a database; tried again later");
            }
            next = self.upkeep.done(&actor, kept_head);
        }
    }

    /// The head up to which commits stay; none if the newest one may have to be taken back and needs what would be removed.
    pub(super) fn kept_head(&self, actor: &Id, generation: u64, ledger: &Ledger) -> Option<u64> {
        let is_held = ledger.held == ledger.head && self.undo.holds(actor, generation, ledger.head);
        (!is_held).then_some(ledger.head)
    }
}

/// One step of the work. Answers whether there may be more. `is_restored`: a restore of the actor is under way, and the rows
/// that it stages are of use.
pub(super) fn step(view: &View<'_>, actor: &Id, kept_head: u64, is_restored: bool) -> Result<Decision<bool>, SqliteError> {
    let Standing { fence, ledger } = Standing::of(actor, view)?;
    // After the end of an actor nothing must be written where it was already removed.
    if !matches!(fence, Some(Fence::Generation { .. })) || ledger.held > kept_head {
        return Ok(Decision::Skip(false));
    }
    match next_work(&ledger, is_restored) {
        Work::Nothing => Ok(Decision::Skip(false)),
        Work::MoveStage { stage } => move_stage(view, actor, ledger, stage),
        Work::Trim => trim(view, actor, ledger),
        Work::RemoveLeftovers => Ok(remove_leftovers(view, actor, ledger)),
        Work::RemoveRestoreRows => Ok(remove_restore_rows(view, actor, ledger)),
    }
}

fn next_work(ledger: &Ledger, is_restored: bool) -> Work {
    if let Some(stage) = ledger.published() {
        Work::MoveStage { stage }
    } else if ledger.high_water > ledger.size {
        Work::Trim
    } else if ledger.leftovers {
        Work::RemoveLeftovers
    } else if ledger.restore_rows && !is_restored {
        Work::RemoveRestoreRows
    } else {
        Work::Nothing
    }
}

/// Moves some pages of the published stage into the database.
fn move_stage(view: &View<'_>, actor: &Id, mut ledger: Ledger, stage: u64) -> Result<Decision<bool>, SqliteError> {
    if view.range_count() == 0 {
        return Ok(read_rows([staged_range(actor, stage, stage)]));
    }
    let rows = view.range(0);
    let mut moved = Vec::with_capacity(rows.len());
    for (key, row) in rows {
        let pgno = record::last_u32(key).ok_or(Damaged { record: "page" })?;
        if ledger.counts_staged(pgno) {
            moved.push((pgno, page::key(actor, pgno), *key, *row));
        }
    }
    let notes = ledger.notes();
    if notes && !moved.is_empty() && view.key_count() == STANDING_KEYS {
        return Ok(Decision::ReadMore(Reads::keys(moved.iter().map(|(_, page_key, ..)| page_key.clone()))));
    }
    let mut batch = Batch::new();
    for (index, (pgno, page_key, staged_key, row)) in moved.into_iter().enumerate() {
        if notes {
            history::note(&mut batch, actor, &mut ledger, pgno, view.get(STANDING_KEYS + index))?;
        }
        let row = page::reseal(staged_key, row, &page_key)?;
        batch.put(page_key, row);
    }
    remove(&mut batch, rows);
    let done = rows.len() < STEP_ROWS as usize;
    if done {
        ledger.stage = Stage::None;
        // Its segments are still there.
        ledger.leftovers = true;
    }
    // From the first step on the stage cannot be taken back.
    let was_held = std::mem::take(&mut ledger.held) > 0;
    if done || notes || was_held {
        ledger.put(&mut batch, actor);
    }
    Ok(Decision::Commit(batch, true))
}

/// Removes some rows above the size.
fn trim(view: &View<'_>, actor: &Id, mut ledger: Ledger) -> Result<Decision<bool>, SqliteError> {
    let last = ledger.high_water;
    let first = last.saturating_sub(STEP_ROWS).max(ledger.size) + 1;
    let (start, end) = row_range(page::key(actor, first), &page::key(actor, last));
    let mut batch = Batch::new();
    if ledger.notes() {
        if view.range_count() == 0 {
            return Ok(read_rows([(start, end)]));
        }
        for (key, row) in view.range(0) {
            let pgno = record::last_u32(key).ok_or(Damaged { record: "page" })?;
            history::note(&mut batch, actor, &mut ledger, pgno, Some(row))?;
        }
    }
    batch.delete_range(start, end);
    ledger.high_water = first - 1;
    // From the first step on the shrinking cannot be taken back.
    ledger.held = 0;
    ledger.put(&mut batch, actor);
    Ok(Decision::Commit(batch, true))
}

/// Removes some rows of a restore that came to nothing.
fn remove_restore_rows(view: &View<'_>, actor: &Id, mut ledger: Ledger) -> Decision<bool> {
    if view.range_count() == 0 {
        return read_rows([staged_range(actor, RESTORE_STAGE, RESTORE_STAGE)]);
    }
    let rows = view.range(0);
    let mut batch = Batch::new();
    remove(&mut batch, rows);
    let done = rows.len() < STEP_ROWS as usize;
    if done {
        ledger.restore_rows = false;
        ledger.put(&mut batch, actor);
    }
    Decision::Commit(batch, !done)
}

/// Removes some rows of all stages but an open one.
fn remove_leftovers(view: &View<'_>, actor: &Id, mut ledger: Ledger) -> Decision<bool> {
    if view.range_count() == 0 {
        let newest_dead = match ledger.stage {
            Stage::Open(_) => ledger.stages - 1,
            Stage::None | Stage::Published { .. } => ledger.stages,
        };
        return read_rows([staged_range(actor, FIRST_STAGE, newest_dead), segment_range(actor, FIRST_STAGE, newest_dead)]);
    }
    let mut batch = Batch::new();
    let mut done = true;
    for index in 0..view.range_count() {
        remove(&mut batch, view.range(index));
        done &= view.range(index).len() < STEP_ROWS as usize;
    }
    if done {
        ledger.leftovers = false;
        ledger.put(&mut batch, actor);
    }
    Decision::Commit(batch, !done)
}

/// Staged pages of some stages, first and last included.
fn staged_range(actor: &Id, first: u64, last: u64) -> (Bytes, Bytes) {
    row_range(page::staged_key(actor, first, 0), &page::staged_key(actor, last, u32::MAX))
}

/// Segments of some stages, first and last included.
fn segment_range(actor: &Id, first: u64, last: u64) -> (Bytes, Bytes) {
    row_range(segment::key(actor, first, 0), &segment::key(actor, last, u32::MAX))
}

/// Asks for the rows of a step.
fn read_rows<const N: usize>(ranges: [(Bytes, Bytes); N]) -> Decision<bool> {
    let scan = |(start, end)| Scan { max_bytes: usize::MAX, ..Scan::range(start, end) }.limit(STEP_ROWS as usize);
    Decision::ReadMore(Reads { keys: Vec::new(), ranges: ranges.map(scan).into() })
}

/// Removes all of these rows, which follow each other.
fn remove(batch: &mut Batch, rows: &[(&[u8], &[u8])]) {
    if let [(first, _), ..] = rows
        && let [.., (last, _)] = rows
    {
        let (start, end) = row_range(Bytes::copy_from_slice(first), &Bytes::copy_from_slice(last));
        batch.delete_range(start, end);
    }
}
