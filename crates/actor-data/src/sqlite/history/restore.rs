//! Putting a database back to what it was (`ActorData::restore`).
//!
//! The pages that are to change go into rows of stage 0, where nobody reads them, and then one change of the ledger publishes
//! them as a new commit. What is written meanwhile only means that more pages are to be put back: those that were not put
//! into the stage already. So the second round has little to do, and the restore waits for nobody.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::id::Id;
use store::{Batch, Decision, Explorer, View};

use super::draft::{Amended, Draft};
use super::find::{self, PageSet};
use super::transfer::Outlet;
use super::{HistoryError, check_alive, keep};
use crate::ledger::{RESTORE_STAGE, Stage};
use crate::sqlite::{check_quota, standing_reads};
use crate::{ActorData, Options, Standing, page};

/// How often a restore looks for what was written meanwhile. Each time it is much less, unless the actor writes at full speed.
const MAX_ROUNDS: usize = 16;

/// Actors that are being restored.
#[derive(Debug, Clone, Default)]
pub(crate) struct Restores(Arc<Mutex<HashSet<Id>>>);

/// One of them, until this is dropped.
struct Place {
    restores: Restores,
    actor: Id,
}

impl Restores {
    fn enter(&self, actor: Id) -> Option<Place> {
        self.0.lock().insert(actor).then(|| Place { restores: self.clone(), actor })
    }

    /// Whether an actor is being restored.
    pub(crate) fn contains(&self, actor: &Id) -> bool {
        self.0.lock().contains(actor)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.restores.0.lock().remove(&self.actor);
    }
}

/// What came of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// Nothing was written since then.
    Same,
    /// The database is as it was, as the commit with this number.
    Changed {
        /// The new head.
        head: u64,
    },
}

/// What has been staged so far.
struct Staged {
    /// Commits up to this one have been looked at.
    head: u64,
    /// Pages that the database is to have.
    size: u32,
    /// Those of them that are as they are now.
    rest: PageSet,
    /// Whether any others are staged.
    any: bool,
}

/// What is published.
struct Content {
    size: u32,
    /// Whether any pages are staged already.
    any: bool,
    /// Rows of the stage that come before those.
    amended: Arc<[(Bytes, Bytes)]>,
}

/// How publishing went.
enum Published {
    /// As this commit.
    As(u64),
    /// Something was written meanwhile.
    NotYet,
}

impl ActorData {
    /// Makes the content that an actor's database had at a time (epoch milliseconds; all commits up to then, and no later one)
    /// its present content, as a new commit. Key-value entries stay as they are. A host that works on the database now is
    /// refused from then on. If this fails, nothing has changed; but once it has begun, a commit whose answer was lost stays.
    /// There is one restore at a time for each actor, and a few for all of them ([`crate::limits::MAX_COPIES`]).
    ///
    /// `amend` may say which pages are to be different from what they were ([`super::as_it_was`]: none); what it says of pages
    /// that the database does not have is ignored. It is asked again if somebody writes meanwhile.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn restore<F>(&self, actor: Id, at: i64, amend: impl Fn(Draft) -> F + Send + Sync) -> Result<Restored, HistoryError>
    where
        F: Future<Output = Amended> + Send,
    {
        let place = self.restores.enter(actor).ok_or(HistoryError::UnderWay)?;
        let _turn = self.copy_turn().await?;
        self.begin_restore(actor, at).await?;
        let restored = self.stage_and_publish(actor, at, amend).await;
        drop(place);
        // Moves what was published, or removes what came to nothing; if it fails, the next change of the database does it.
        if let Err(error) = self.settle_whole(actor).await {
            tracing::warn!(%error, %actor, "cannot tidy up after a restore");
        }
        restored
    }

    /// Makes room in the stage, and notes that it is used, in case that this process ends before it is published.
    async fn begin_restore(&self, actor: Id, at: i64) -> Result<(), HistoryError> {
        while !self.transact(standing_reads(&actor), move |view| begin(view, &actor, at)).await? {
            self.settle_whole(actor).await?;
            self.remove_restore_rows(actor).await?;
        }
        Ok(())
    }

    /// Does what earlier changes left behind. The newest commit stays, even if its host has not seen the answer: a restore comes
    /// between it and whatever the host does next.
    async fn settle_whole(&self, actor: Id) -> Result<(), HistoryError> {
        self.forget_undo(&actor);
        Ok(self.settle_all(actor).await?)
    }

    async fn stage_and_publish<F>(
        &self,
        actor: Id,
        at: i64,
        amend: impl Fn(Draft) -> F + Send + Sync,
    ) -> Result<Restored, HistoryError>
    where
        F: Future<Output = Amended> + Send,
    {
        let mut before = None;
        for _ in 0..MAX_ROUNDS {
            self.settle_whole(actor).await?;
            let Some(staged) = self.stage_round(actor, at, before).await? else { return Ok(Restored::Same) };
            let (head, size) = (staged.head, staged.size);
            let amended = amend(Draft { data: self.clone(), actor, staged: true, size }).await;
            let content = Content { size, any: staged.any, amended: rows_of(&actor, size, amended).into() };
            let (options, clock) = (self.options.clone(), self.clock.clone());
            let publish = move |view: &View<'_>| {
                let standing = admit(view, &actor, at)?;
                if standing.ledger.head != head || standing.ledger.is_unsettled() {
                    return Ok(Decision::Skip(Published::NotYet));
                }
                publish(&actor, standing, &options, &content, clock())
            };
            match self.transact(standing_reads(&actor), publish).await? {
                Published::As(head) => return Ok(Restored::Changed { head }),
                Published::NotYet => before = Some(staged),
            }
        }
        Err(HistoryError::Outrun)
    }

    /// Stages what the commits since the round before have changed; in the first round, since the time to go back to. Nothing
    /// if there are none.
    async fn stage_round(&self, actor: Id, at: i64, before: Option<Staged>) -> Result<Option<Staged>, HistoryError> {
        let read = move |explorer: &Explorer<'_>, outlet: &mut Outlet| {
            let ledger = find::standing(explorer, &actor)?.ledger;
            let (from, staged) = match before {
                Some(staged) => (staged.head + 1, staged),
                None => {
                    let Some((head, commit)) = find::first_after(explorer, &actor, &ledger, at)? else { return Ok(None) };
                    let size = commit.size_before;
                    (head, Staged { head, size, rest: PageSet::all(size), any: false })
                }
            };
            let Staged { size, mut rest, mut any, .. } = staged;
            find::take_noted(explorer, &actor, from, &mut rest, &mut |pgno, noted, row| {
                any = true;
                let key = page::staged_key(&actor, RESTORE_STAGE, pgno);
                let row = page::reseal(noted, row, &key)?;
                outlet.put(key, row)
            })?;
            // What the newest commit has changed is noted completely when nothing of it is left to do.
            let head = if ledger.is_unsettled() { ledger.head - 1 } else { ledger.head };
            Ok(Some(Staged { head, size, rest, any }))
        };
        self.transfer(Some(actor), read).await
    }
}

/// An actor that can be put back to some time.
fn admit(view: &View<'_>, actor: &Id, at: i64) -> Result<Standing, HistoryError> {
    let standing = Standing::of(actor, view)?;
    check_alive(&standing)?;
    // Looked at each time: meanwhile the history may have been pruned.
    find::reaching(&standing.ledger, at)?;
    Ok(standing)
}

/// Answers whether the stage is there to be used.
fn begin(view: &View<'_>, actor: &Id, at: i64) -> Result<Decision<bool>, HistoryError> {
    let mut ledger = admit(view, actor, at)?.ledger;
    if ledger.restore_rows || ledger.published() == Some(RESTORE_STAGE) {
        return Ok(Decision::Skip(false));
    }
    ledger.restore_rows = true;
    let mut batch = Batch::new();
    ledger.put(&mut batch, actor);
    Ok(Decision::Commit(batch, true))
}

/// Publishes what is staged, in an actor with nothing left to do.
fn publish(
    actor: &Id,
    standing: Standing,
    options: &Options,
    content: &Content,
    now: i64,
) -> Result<Decision<Published>, HistoryError> {
    let size = content.size;
    let retention_s = standing.retention_s();
    let mut ledger = standing.ledger;
    check_quota(options, &ledger, size, 0).map_err(|_| HistoryError::QuotaExceeded)?;
    if matches!(ledger.stage, Stage::Open(_)) {
        // Its number is taken by this commit.
        ledger.leftovers = true;
    }
    let any = content.any || !content.amended.is_empty();
    ledger.stage = if any { Stage::Published { number: RESTORE_STAGE, limit: size } } else { Stage::None };
    ledger.restore_rows = false;
    ledger.head += 1;
    let size_before = ledger.size;
    ledger.size = size;
    ledger.high_water = ledger.high_water.max(size);
    let mut batch = Batch::new();
    content.amended.iter().for_each(|(key, row)| batch.put(key.clone(), row.clone()));
    // The pages themselves are noted when they are moved or removed.
    keep(&mut batch, actor, &mut ledger, size_before, &[], retention_s, now)?;
    ledger.put(&mut batch, actor);
    Ok(Decision::Commit(batch, Published::As(ledger.head)))
}

fn rows_of(actor: &Id, size: u32, amended: Amended) -> Vec<(Bytes, Bytes)> {
    if !Draft::takes(size, &amended) {
        return Vec::new();
    }
    let row = |(pgno, content): (u32, Bytes)| {
        let key = page::staged_key(actor, RESTORE_STAGE, pgno);
        let row = page::encode(&key, &content);
        (key, row)
    };
    amended.into_iter().map(row).collect()
}
