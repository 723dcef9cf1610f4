//! Commits in several messages (`spec/storage.md` 6.7).
//!
//! `begin` opens a numbered stage in the ledger. Each segment puts its pages into rows of that stage, where nobody reads
//! them. `finalize` publishes the stage by changing the ledger alone, however many pages there are: from then on its
//! rows count before those of the database, until upkeep has moved them. No step keeps other actors waiting for long.
//! Staged pages count against the storage limit when they are published; before that, 128 MiB is the limit for a host, and
//! the storage limit for the engine itself, whose SQL may make commits of any size.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::envoy::{
    SqliteCommitFinalizeOk, SqliteCommitFinalizeRequest, SqliteCommitStageBeginOk, SqliteCommitStageBeginRequest,
    SqliteCommitStageSegmentOk, SqliteCommitStageSegmentRequest, SqliteErrorResponse,
};
use protocol::id::Id;
use store::{Batch, Decision, Reads, Scan, View};

use super::commit::{Attempt, Done, advance};
use super::dirty::{self, PackedPage};
use super::error::{SqliteError, StageFault};
use super::undo::Change;
use super::{Caller, Guard, check_quota, history, row_range, standing_reads};
use crate::ledger::{Ledger, OpenStage, Stage};
use crate::limits::{PAGE_BYTES, SEGMENT_SPAN_PAGES, SHARD_PAGES, STAGE_MAX_PAGES};
use crate::{ActorData, Options, Standing, page, segment};

impl ActorData {
    /// Opens a staged commit; one that is open comes to nothing.
    ///
    /// # Errors
    /// Those of `spec/storage.md` 6.5, and group `store` if the store fails.
    pub async fn stage_begin(
        &self,
        actor: Id,
        caller: Caller,
        request: SqliteCommitStageBeginRequest,
    ) -> Result<SqliteCommitStageBeginOk, SqliteErrorResponse> {
        let guard = Guard::new("staged commit", caller, request.expected_generation, request.expected_head_txid)?;
        let guard = self.resume(actor, guard).await?;
        let attempt = move |view: &View<'_>, _: &Options| begin(view, &actor, guard);
        let txid = self.change(actor, guard, standing_reads(&actor), attempt).await?;
        Ok(SqliteCommitStageBeginOk { txid })
    }

    /// Stores a segment of a staged commit, durably and unseen. Answers with the bytes stored.
    ///
    /// # Errors
    /// Those of `spec/storage.md` 6.5 and 6.7, and group `store` if the store fails.
    pub async fn stage_segment(
        &self,
        actor: Id,
        caller: Caller,
        request: SqliteCommitStageSegmentRequest,
    ) -> Result<SqliteCommitStageSegmentOk, SqliteErrorResponse> {
        let staged_bytes = self.try_stage_segment(actor, caller, request).await?;
        Ok(SqliteCommitStageSegmentOk { staged_bytes })
    }

    async fn try_stage_segment(
        &self,
        actor: Id,
        caller: Caller,
        request: SqliteCommitStageSegmentRequest,
    ) -> Result<u64, SqliteError> {
        let guard = Guard::staged(caller, request.expected_generation, request.txid)?;
        // A stale host must hear that it is stale, whatever else is wrong.
        let stage = self.check_guard(actor, guard).await?.stages;
        check_segment(&request)?;
        let (txid, first_pgno) = (request.txid, request.first_pgno);
        let pages = dirty::pack(request.dirty_pages, move |pgno| page::staged_key(&actor, stage, pgno)).await?;
        let options = self.options.clone();
        self.transact(standing_reads(&actor), move |view| {
            let mut ledger = guard.admit(Standing::of(&actor, view)?)?;
            let (number, used_bytes) = (ledger.stages, ledger.used_bytes());
            let open = open_stage(&mut ledger, guard, txid)?;
            if number != stage {
                // Another one was begun since the pages were packed.
                return Err(StageFault::NotOpen { txid }.into());
            }
            add_segment(open, first_pgno, pages.len())?;
            check_stage_size(open, guard, options.max_storage_bytes, used_bytes)?;
            let (batch, bytes) = segment_batch(&actor, &ledger, first_pgno, &pages);
            Ok(Decision::Commit(batch, bytes))
        })
        .await
    }

    /// Publishes a staged commit: all its pages and the new size at once, durably.
    ///
    /// # Errors
    /// Those of `spec/storage.md` 6.5 to 6.7, and group `store` if the store fails. Nothing was published then.
    pub async fn finalize(
        &self,
        actor: Id,
        caller: Caller,
        request: SqliteCommitFinalizeRequest,
    ) -> Result<SqliteCommitFinalizeOk, SqliteErrorResponse> {
        let guard = Guard::staged(caller, request.expected_generation, request.txid)?;
        let request = Arc::new(request);
        let clock = self.clock.clone();
        let attempt = move |view: &View<'_>, options: &Options| finalize(view, options, &actor, guard, &request, clock());
        let head = self.change(actor, guard, standing_reads(&actor), attempt).await?;
        Ok(SqliteCommitFinalizeOk { head_txid: Some(head) })
    }
}

fn begin(view: &View<'_>, actor: &Id, guard: Guard) -> Result<Decision<Attempt>, SqliteError> {
    let mut ledger = guard.admit(Standing::of(actor, view)?)?;
    if ledger.is_unsettled() {
        return Ok(Decision::Skip(Attempt::Unsettled { head: ledger.head }));
    }
    ledger.leftovers |= ledger.stage != Stage::None;
    ledger.stages += 1;
    // Fits: an admitted generation is one that was stored with 32 bits.
    let generation = u32::try_from(guard.generation).unwrap_or(u32::MAX);
    ledger.stage = Stage::Open(OpenStage { generation, ..OpenStage::default() });
    let mut batch = Batch::new();
    ledger.put(&mut batch, actor);
    let done = Done { txid: ledger.head + 1, ledger, change: None };
    Ok(Decision::Commit(batch, Attempt::Done(Box::new(done))))
}

/// What is wrong with a segment whatever was staged before.
fn check_segment(request: &SqliteCommitStageSegmentRequest) -> Result<(), SqliteError> {
    let first_pgno = request.first_pgno;
    if !first_pgno.is_multiple_of(SHARD_PAGES) {
        return Err(StageFault::NotAligned { first_pgno }.into());
    }
    if request.dirty_pages.is_empty() {
        return Err(StageFault::Empty.into());
    }
    dirty::check(&request.dirty_pages)?;
    let outside = |pgno: u32| pgno.checked_sub(first_pgno).is_none_or(|offset| offset >= SEGMENT_SPAN_PAGES);
    match request.dirty_pages.iter().find(|page| outside(page.pgno)) {
        Some(page) => Err(StageFault::OutOfSpan { pgno: page.pgno, first_pgno }.into()),
        None => Ok(()),
    }
}

/// The open stage that a request, already admitted, is about.
fn open_stage(ledger: &mut Ledger, guard: Guard, txid: u64) -> Result<&mut OpenStage, StageFault> {
    let Stage::Open(open) = &mut ledger.stage else {
        return Err(StageFault::NotOpen { txid });
    };
    if u64::from(open.generation) != guard.generation {
        return Err(StageFault::OtherGeneration { generation: open.generation });
    }
    Ok(open)
}

/// Counts a segment in, if it may follow those before it.
fn add_segment(open: &mut OpenStage, first_pgno: u32, pages: usize) -> Result<(), SqliteError> {
    let last = open.last_segment;
    if open.segments > 0 && u64::from(first_pgno) < u64::from(last) + u64::from(SEGMENT_SPAN_PAGES) {
        return Err(StageFault::Overlap { first_pgno, last }.into());
    }
    let all = u64::from(open.pages) + pages as u64;
    open.pages = u32::try_from(all).map_err(|_| SqliteError::StageTooLarge { pages: all })?;
    open.segments += 1;
    open.last_segment = first_pgno;
    Ok(())
}

/// Refuses a stage with too many pages: for a host by their number; the engine's own may have any that can be published.
fn check_stage_size(open: &OpenStage, guard: Guard, max_bytes: u64, used_bytes: u64) -> Result<(), SqliteError> {
    let payload = u64::from(open.pages) * PAGE_BYTES as u64;
    match guard.caller {
        Caller::Host(_) if open.pages > STAGE_MAX_PAGES => Err(SqliteError::StageTooLarge { pages: open.pages.into() }),
        Caller::Engine if payload > max_bytes.max(used_bytes) => {
            Err(SqliteError::QuotaExceeded { remaining: max_bytes.saturating_sub(used_bytes), payload })
        }
        Caller::Host(_) | Caller::Engine => Ok(()),
    }
}

/// The writes of a segment, and the bytes of its pages as they are stored.
fn segment_batch(actor: &Id, ledger: &Ledger, first_pgno: u32, pages: &[PackedPage]) -> (Batch, u64) {
    let mut batch = Batch::new();
    for packed in pages {
        batch.put(packed.key.clone(), packed.row.clone());
    }
    segment::put(&mut batch, actor, ledger.stages, first_pgno);
    ledger.put(&mut batch, actor);
    (batch, pages.iter().map(|packed| packed.row.len() as u64).sum())
}

fn finalize(
    view: &View<'_>,
    options: &Options,
    actor: &Id,
    guard: Guard,
    request: &SqliteCommitFinalizeRequest,
    now: i64,
) -> Result<Decision<Attempt>, SqliteError> {
    let standing = Standing::of(actor, view)?;
    let retention_s = standing.retention_s();
    let mut ledger = guard.admit(standing)?;
    let OpenStage { pages, segments, .. } = *open_stage(&mut ledger, guard, request.txid)?;
    // Before the claim is looked at: it may be long, and other commits wait meanwhile.
    check_count(request.segment_first_pgnos.len(), segments as usize)?;
    if view.range_count() == 0 {
        return Ok(Decision::ReadMore(segment_reads(actor, ledger.stages)));
    }
    check_claim(view, request)?;
    let size = request.new_db_size_pages;
    check_quota(options, &ledger, size, u64::from(pages) * PAGE_BYTES as u64)?;

    // Everything is settled: `begin` saw to it, and a commit since then would have closed the stage.
    let published = pages > 0;
    let change = Change { size: ledger.size, high_water: ledger.high_water, pre_images: Vec::new(), published };
    ledger.stage = if published { Stage::Published { number: ledger.stages, limit: size } } else { Stage::None };
    advance(&mut ledger, guard, size);
    if published && guard.caller.is_host() {
        ledger.held = ledger.head;
    }
    let mut batch = Batch::new();
    // The pages are noted when they are moved.
    history::keep(&mut batch, actor, &mut ledger, change.size, &[], retention_s, now)?;
    ledger.put(&mut batch, actor);
    let done = Done { txid: ledger.head, ledger, change: Some(change) };
    Ok(Decision::Commit(batch, Attempt::Done(Box::new(done))))
}

fn segment_reads(actor: &Id, stage: u64) -> Reads {
    let (start, end) = row_range(segment::key(actor, stage, 0), &segment::key(actor, stage, u32::MAX));
    Reads { keys: Vec::new(), ranges: vec![Scan { max_bytes: usize::MAX, ..Scan::range(start, end) }] }
}

fn check_count(claimed: usize, staged: usize) -> Result<(), StageFault> {
    if claimed == staged { Ok(()) } else { Err(StageFault::Count { claimed, staged }) }
}

/// The host must name exactly the segments that were staged.
fn check_claim(view: &View<'_>, request: &SqliteCommitFinalizeRequest) -> Result<(), SqliteError> {
    let staged = view.range(0).iter().map(|(key, value)| segment::decode(key, value));
    let staged: BTreeSet<u32> = staged.collect::<Result<_, _>>()?;
    let claimed: BTreeSet<u32> = request.segment_first_pgnos.iter().copied().collect();
    // A number that is named twice is missing elsewhere.
    check_count(claimed.len(), staged.len())?;
    match claimed.difference(&staged).next() {
        Some(&first_pgno) => Err(SqliteError::StageNotFound { first_pgno, txid: request.txid }),
        None => Ok(()),
    }
}
