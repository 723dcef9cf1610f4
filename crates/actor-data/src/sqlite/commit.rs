//! Commits in one message (`spec/storage.md` 6.6).

use protocol::envoy::{SqliteCommitOk, SqliteCommitRequest, SqliteErrorResponse};
use protocol::id::Id;
use store::{Batch, Decision, View};

use super::dirty::{self, PackedPage};
use super::error::SqliteError;
use super::{Guard, check_quota, put_ledger, row_range, standing_reads};
use crate::ledger::{Ledger, Stage};
use crate::limits::{COMMIT_MAX_PAGES, PAGE_BYTES};
use crate::{ActorData, Options, Standing, page};

/// Rows that a commit that shrinks the database removes by itself. More are removed afterwards, in steps.
const INLINE_TRIM_ROWS: u32 = if cfg!(test) { 5 } else { 256 };

/// How an attempt to change the database went.
pub(super) enum Attempt {
    Done {
        /// Number of the commit that was made or begun.
        txid: u64,
        /// There is work left, which nobody sees.
        upkeep: bool,
    },
    /// Work left from an earlier change must be done first.
    Unsettled,
}

impl ActorData {
    /// Writes pages and a new size as one commit, durably. Pages above the new size are dropped.
    ///
    /// # Errors
    /// Those of `spec/storage.md` 6.5 and 6.6, and group `store` if the store fails. Nothing was written then.
    pub async fn commit(&self, actor: Id, request: SqliteCommitRequest) -> Result<SqliteCommitOk, SqliteErrorResponse> {
        let head = self.try_commit(actor, request).await?;
        Ok(SqliteCommitOk { head_txid: Some(head) })
    }

    async fn try_commit(&self, actor: Id, request: SqliteCommitRequest) -> Result<u64, SqliteError> {
        let guard = Guard::new("commit", request.expected_generation, request.expected_head_txid)?;
        if let Err(fault) = check(&request) {
            // A stale host must hear that it is stale, whatever else is wrong.
            self.check_guard(actor, guard).await?;
            return Err(fault);
        }
        let size = request.db_size_pages;
        let pages = dirty::pack(request.dirty_pages).await?;
        self.settled(actor, move |view, options| attempt(view, options, &actor, guard, &pages, size)).await
    }

    /// Makes an attempt to change the database, and does what must be done before and after it. Returns the number of
    /// the commit.
    pub(super) async fn settled<F>(&self, actor: Id, attempt: F) -> Result<u64, SqliteError>
    where
        F: FnMut(&View<'_>, &Options) -> Result<Decision<Attempt>, SqliteError> + Clone + Send + 'static,
    {
        let (txid, upkeep) = self.until_done(actor, attempt).await?;
        if upkeep && let Err(error) = self.settle(actor).await {
            // The change itself is done; what is left waits for the next one.
            tracing::warn!(%error, %actor, "cannot tidy up after a commit");
        }
        Ok(txid)
    }

    /// The number of the commit, and whether it left work behind.
    pub(super) async fn until_done<F>(&self, actor: Id, attempt: F) -> Result<(u64, bool), SqliteError>
    where
        F: FnMut(&View<'_>, &Options) -> Result<Decision<Attempt>, SqliteError> + Clone + Send + 'static,
    {
        loop {
            let (options, mut attempt) = (self.options.clone(), attempt.clone());
            match self.transact(standing_reads(&actor), move |view| attempt(view, &options)).await? {
                Attempt::Done { txid, upkeep } => return Ok((txid, upkeep)),
                Attempt::Unsettled => self.settle(actor).await?,
            }
        }
    }

    /// Only the fence and head of a request.
    pub(super) async fn check_guard(&self, actor: Id, guard: Guard) -> Result<(), SqliteError> {
        let found = self.store.read(standing_reads(&actor)).await?;
        let standing = Standing::decode(found.keys[0].as_deref(), found.keys[1].as_deref())?;
        guard.admit(standing).map(drop)
    }
}

fn check(request: &SqliteCommitRequest) -> Result<(), SqliteError> {
    let pages = request.dirty_pages.len();
    if pages > COMMIT_MAX_PAGES {
        return Err(SqliteError::CommitTooLarge { pages });
    }
    dirty::check(&request.dirty_pages)
}

pub(super) fn attempt(
    view: &View<'_>,
    options: &Options,
    actor: &Id,
    guard: Guard,
    pages: &[PackedPage],
    size: u32,
) -> Result<Decision<Attempt>, SqliteError> {
    let mut ledger = guard.admit(Standing::of(view)?)?;
    check_quota(options, &ledger, size, (pages.len() * PAGE_BYTES) as u64)?;
    if size != ledger.size && ledger.is_unsettled() {
        return Ok(Decision::Skip(Attempt::Unsettled));
    }

    let mut batch = Batch::new();
    for packed in pages.iter().filter(|packed| packed.pgno <= size) {
        batch.put(page::key(actor, packed.pgno), packed.row.clone());
        if ledger.stage == Stage::Published {
            batch.delete(page::staged_key(actor, ledger.stages, packed.pgno));
        }
    }
    if matches!(ledger.stage, Stage::Open(_)) {
        // Its number is taken by this commit now.
        ledger.stage = Stage::None;
        ledger.leftovers = true;
    }
    ledger.head += 1;
    resize(&mut batch, actor, &mut ledger, size);
    put_ledger(&mut batch, actor, &ledger);
    let upkeep = ledger.leftovers || ledger.is_unsettled();
    Ok(Decision::Commit(batch, Attempt::Done { txid: ledger.head, upkeep }))
}

/// Sets the size, and removes the rows above it if they are few.
pub(super) fn resize(batch: &mut Batch, actor: &Id, ledger: &mut Ledger, size: u32) {
    ledger.size = size;
    ledger.high_water = ledger.high_water.max(size);
    let above = ledger.high_water - size;
    if (1..=INLINE_TRIM_ROWS).contains(&above) {
        let (start, end) = row_range(page::key(actor, size + 1), &page::key(actor, ledger.high_water));
        batch.delete_range(start, end);
        ledger.high_water = size;
    }
}
