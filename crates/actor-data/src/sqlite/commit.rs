//! Commits in one message (`spec/storage.md` 6.6).

use std::sync::Arc;

use protocol::envoy::{SqliteCommitOk, SqliteCommitRequest, SqliteDirtyPage, SqliteErrorResponse};
use protocol::id::Id;
use store::{Batch, Decision, Reads, View};

use super::dirty::{self, PackedPage};
use super::error::SqliteError;
use super::undo::{Change, PreImage};
use super::{Caller, Guard, check_quota, history, standing_reads};
use crate::ledger::{Ledger, Stage};
use crate::limits::{COMMIT_MAX_PAGES, PAGE_BYTES};
use crate::{ActorData, Damaged, Options, STANDING_KEYS, Standing, page, standing_keys};

/// How an attempt to change the database went.
pub(super) enum Attempt {
    Done(Box<Done>),
    /// Work left from an earlier change must be done first. The host knows of the commits up to this head.
    Unsettled {
        head: u64,
    },
}

/// A change that was made.
pub(super) struct Done {
    /// Number of the commit that was made or begun.
    pub(super) txid: u64,
    /// The ledger as it is now.
    pub(super) ledger: Ledger,
    /// What was before; none if nothing has changed that anybody can read.
    pub(super) change: Option<Change>,
}

impl ActorData {
    /// Writes pages and a new size as one commit, durably. Pages above the new size are dropped.
    ///
    /// # Errors
    /// Those of `spec/storage.md` 6.5 and 6.6, and group `store` if the store fails. Nothing was written then.
    pub async fn commit(
        &self,
        actor: Id,
        caller: Caller,
        request: SqliteCommitRequest,
    ) -> Result<SqliteCommitOk, SqliteErrorResponse> {
        let head = self.try_commit(actor, caller, request).await?;
        Ok(SqliteCommitOk { head_txid: Some(head) })
    }

    async fn try_commit(&self, actor: Id, caller: Caller, request: SqliteCommitRequest) -> Result<u64, SqliteError> {
        let guard = Guard::new("commit", caller, request.expected_generation, request.expected_head_txid)?;
        let guard = self.resume(actor, guard).await?;
        if let Err(fault) = check(&request.dirty_pages) {
            // A stale host must hear that it is stale, whatever else is wrong.
            self.check_guard(actor, guard).await?;
            return Err(fault);
        }
        self.commit_checked(actor, guard, request.dirty_pages, request.db_size_pages).await
    }

    /// Commits pages that are not too many, and were checked.
    pub(super) async fn commit_checked(
        &self,
        actor: Id,
        guard: Guard,
        pages: Vec<SqliteDirtyPage>,
        size: u32,
    ) -> Result<u64, SqliteError> {
        let pages: Arc<[PackedPage]> = dirty::pack(pages, move |pgno| page::key(&actor, pgno)).await?.into();
        let page_keys = pages.iter().map(|packed| packed.key.clone());
        let reads = Reads::keys(standing_keys(&actor).into_iter().chain(page_keys));
        let clock = self.clock.clone();
        self.change(actor, guard, reads, move |view, options| attempt(view, options, &actor, guard, &pages, size, clock())).await
    }

    /// Makes an attempt to change the database, after what is in its way was done. Returns the number of the commit.
    pub(super) async fn change<F>(&self, actor: Id, guard: Guard, reads: Reads, attempt: F) -> Result<u64, SqliteError>
    where
        F: FnMut(&View<'_>, &Options) -> Result<Decision<Attempt>, SqliteError> + Clone + Send + 'static,
    {
        loop {
            let (options, mut attempt) = (self.options.clone(), attempt.clone());
            match self.transact(reads.clone(), move |view| attempt(view, &options)).await? {
                Attempt::Done(done) => {
                    let Done { txid, ledger, change } = *done;
                    if let Some(change) = change {
                        self.note_commit(actor, guard, txid, change);
                    }
                    self.tidy(actor, guard.generation, &ledger);
                    return Ok(txid);
                }
                Attempt::Unsettled { head } => {
                    self.undo.release(&actor);
                    self.settle_to(actor, head).await?;
                }
            }
        }
    }

    /// Checks only the fence and head of a request.
    pub(super) async fn check_guard(&self, actor: Id, guard: Guard) -> Result<Ledger, SqliteError> {
        guard.admit(self.standing(actor).await?)
    }

    pub(super) async fn standing(&self, actor: Id) -> Result<Standing, SqliteError> {
        let found = self.store.read(standing_reads(&actor)).await?;
        Ok(Standing::decode(&actor, found.keys[0].as_deref(), found.keys[1].as_deref())?)
    }
}

fn check(pages: &[SqliteDirtyPage]) -> Result<(), SqliteError> {
    if pages.len() > COMMIT_MAX_PAGES {
        return Err(SqliteError::CommitTooLarge { pages: pages.len() });
    }
    dirty::check(pages)
}

/// Its view has the standing, then the row of each page; if a stage is published, in a second round also their staged rows.
pub(super) fn attempt(
    view: &View<'_>,
    options: &Options,
    actor: &Id,
    guard: Guard,
    pages: &[PackedPage],
    size: u32,
    now: i64,
) -> Result<Decision<Attempt>, SqliteError> {
    let standing = Standing::of(actor, view)?;
    let retention_s = standing.retention_s();
    let mut ledger = guard.admit(standing)?;
    check_quota(options, &ledger, size, (pages.len() * PAGE_BYTES) as u64)?;
    // What a commit with history finds must be complete, so that the next one can note it.
    if ledger.must_settle_before(size) || (retention_s > 0 && ledger.is_unsettled()) {
        return Ok(Decision::Skip(Attempt::Unsettled { head: ledger.head }));
    }
    let staged_key = |number: u64, packed: &PackedPage| page::staged_key(actor, number, packed.pgno);
    if let Some(number) = ledger.published()
        && !pages.is_empty()
        && view.key_count() == STANDING_KEYS + pages.len()
    {
        return Ok(Decision::ReadMore(Reads::keys(pages.iter().map(|packed| staged_key(number, packed)))));
    }

    let needs_them = guard.caller.is_host() || retention_s > 0;
    let pre_images = if needs_them { pre_images(view, actor, &ledger, pages, size)? } else { Vec::new() };
    let mut batch = Batch::new();
    for packed in pages.iter().filter(|packed| packed.pgno <= size) {
        batch.put(packed.key.clone(), packed.row.clone());
        if let Some(number) = ledger.published() {
            batch.delete(staged_key(number, packed));
        }
    }
    let change = Change { size: ledger.size, high_water: ledger.high_water, pre_images, published: false };
    if matches!(ledger.stage, Stage::Open(_)) {
        // Its number is taken by this commit now.
        ledger.stage = Stage::None;
        ledger.leftovers = true;
    }
    advance(&mut ledger, guard, size);
    history::keep(&mut batch, actor, &mut ledger, change.size, &change.pre_images, retention_s, now)?;
    ledger.put(&mut batch, actor);
    let done = Done { txid: ledger.head, ledger, change: Some(change) };
    Ok(Decision::Commit(batch, Attempt::Done(Box::new(done))))
}

/// The pages that a commit is about to write, as they are now.
fn pre_images(view: &View<'_>, actor: &Id, ledger: &Ledger, pages: &[PackedPage], size: u32) -> Result<Vec<PreImage>, Damaged> {
    let mut pre_images = Vec::with_capacity(pages.len());
    for (index, packed) in pages.iter().enumerate().filter(|(_, packed)| packed.pgno <= size) {
        let in_database = view.get(STANDING_KEYS + index);
        let staged = if ledger.counts_staged(packed.pgno) { view.get(STANDING_KEYS + pages.len() + index) } else { None };
        let row = match staged.zip(ledger.published()) {
            Some((row, number)) => {
                let staged_key = page::staged_key(actor, number, packed.pgno);
                Some(page::reseal(&staged_key, row, &packed.key)?)
            }
            None => in_database.map(bytes::Bytes::copy_from_slice),
        };
        pre_images.push(PreImage { pgno: packed.pgno, row });
    }
    Ok(pre_images)
}

/// Counts a commit that sets the size. Rows above it stay until the host knows of the commit.
pub(super) fn advance(ledger: &mut Ledger, guard: Guard, size: u32) {
    ledger.head += 1;
    if guard.caller.is_host() && size < ledger.size {
        ledger.held = ledger.head;
    }
    ledger.size = size;
    ledger.high_water = ledger.high_water.max(size);
}
