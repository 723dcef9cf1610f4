//! Work that changes leave behind, done in steps so that other actors need not wait for it.
//!
//! | Left behind | By | Until it is done |
//! |---|---|---|
//! | staged rows to be moved into the database | a published stage | they count before the rows of the database |
//! | rows above the size | a shrink by many pages | the size must not change |
//! | rows of stages that came to nothing | `begin`, or a commit in between | nobody reads them |
//!
//! The ledger knows of all three, so after a crash the next change of the database finds and does them.

use protocol::id::Id;
use store::{Batch, Decision, Reads, Scan, View};

use super::error::SqliteError;
use super::{put_ledger, row_range, standing_reads};
use crate::fence::Fence;
use crate::ledger::{Ledger, Stage};
use crate::{ActorData, Bytes, Damaged, Standing, page, record, segment};

/// Rows moved or removed in one transaction: some milliseconds. Few in this crate's own tests, so that they see steps.
const STEP_ROWS: u32 = if cfg!(test) { 5 } else { 256 };

/// One kind of work, as far as the ledger asks for it.
enum Work {
    Nothing,
    MoveStage,
    Trim,
    RemoveLeftovers,
}

impl ActorData {
    /// Does what earlier changes left behind. Stops when the actor is destroyed: then everything is removed anyway.
    pub(super) async fn settle(&self, actor: Id) -> Result<(), SqliteError> {
        while self.transact(standing_reads(&actor), move |view| step(view, &actor)).await? {}
        Ok(())
    }
}

/// One step of the work. Answers whether there may be more.
fn step(view: &View<'_>, actor: &Id) -> Result<Decision<bool>, SqliteError> {
    let Standing { fence, ledger } = Standing::of(view)?;
    // After the end of an actor nothing must be written where it was already removed.
    if !matches!(fence, Some(Fence::Generation(_))) {
        return Ok(Decision::Skip(false));
    }
    match next_work(&ledger) {
        Work::Nothing => Ok(Decision::Skip(false)),
        Work::MoveStage => move_stage(view, actor, ledger),
        Work::Trim => Ok(trim(actor, ledger)),
        Work::RemoveLeftovers => Ok(remove_leftovers(view, actor, ledger)),
    }
}

fn next_work(ledger: &Ledger) -> Work {
    if ledger.stage == Stage::Published {
        Work::MoveStage
    } else if ledger.high_water > ledger.size {
        Work::Trim
    } else if ledger.leftovers {
        Work::RemoveLeftovers
    } else {
        Work::Nothing
    }
}

/// Moves some pages of the published stage into the database.
fn move_stage(view: &View<'_>, actor: &Id, mut ledger: Ledger) -> Result<Decision<bool>, SqliteError> {
    let stage = ledger.stages;
    if view.range_count() == 0 {
        return Ok(read_rows([staged_range(actor, stage, stage)]));
    }
    let rows = view.range(0);
    let mut batch = Batch::new();
    for (key, row) in rows {
        let pgno = record::last_u32(key).ok_or(Damaged { record: "page" })?;
        if pgno <= ledger.size {
            batch.put(page::key(actor, pgno), Bytes::copy_from_slice(row));
        }
    }
    remove(&mut batch, rows);
    if rows.len() < STEP_ROWS as usize {
        ledger.stage = Stage::None;
        // Its segments are still there.
        ledger.leftovers = true;
        put_ledger(&mut batch, actor, &ledger);
    }
    Ok(Decision::Commit(batch, true))
}

/// Removes some rows above the size.
fn trim(actor: &Id, mut ledger: Ledger) -> Decision<bool> {
    let last = ledger.high_water;
    let first = last.saturating_sub(STEP_ROWS).max(ledger.size) + 1;
    let (start, end) = row_range(page::key(actor, first), &page::key(actor, last));
    let mut batch = Batch::new();
    batch.delete_range(start, end);
    ledger.high_water = first - 1;
    put_ledger(&mut batch, actor, &ledger);
    Decision::Commit(batch, true)
}

/// Removes some rows of all stages but an open one.
fn remove_leftovers(view: &View<'_>, actor: &Id, mut ledger: Ledger) -> Decision<bool> {
    if view.range_count() == 0 {
        let newest_dead = match ledger.stage {
            Stage::Open(_) => ledger.stages - 1,
            Stage::None | Stage::Published => ledger.stages,
        };
        return read_rows([staged_range(actor, 0, newest_dead), segment_range(actor, 0, newest_dead)]);
    }
    let mut batch = Batch::new();
    let mut done = true;
    for index in 0..view.range_count() {
        remove(&mut batch, view.range(index));
        done &= view.range(index).len() < STEP_ROWS as usize;
    }
    if done {
        ledger.leftovers = false;
        put_ledger(&mut batch, actor, &ledger);
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
