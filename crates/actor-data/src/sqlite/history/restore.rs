//! Putting a database back to what it was (`ActorData::restore`).
//!
//! The pages that are to change go into rows of stage 0, where nobody reads them, and then one change of the ledger publishes
//! them as a new commit. What is written meanwhile only means that more pages are to be put back: those that were not put
//! into the stage already. So the second round has little to do, and the restore waits for nobody.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::id::Id;
use store::{Batch, Decision, Explorer, View};

use super::find::{self, PageSet};
use super::transfer::Outlet;
use super::{HistoryError, check_alive, keep};
use crate::ledger::{RESTORE_STAGE, Stage};
use crate::sqlite::error::SqliteError;
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
    /// refused from then on. If this fails, nothing has changed. One restore at a time for each actor.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn restore(&self, actor: Id, at: i64) -> Result<Restored, HistoryError> {
        let place = self.restores.enter(actor).ok_or(HistoryError::UnderWay)?;
        self.begin_restore(actor, at).await?;
        let restored = self.stage_and_publish(actor, at).await;
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
            self.remove_restore_rows(actor).await.map_err(upkeep_failed)?;
        }
        Ok(())
    }

    /// Does what earlier changes left behind. The newest commit stays, even if its host has not seen the answer: a restore comes
    /// between it and whatever the host does next.
    async fn settle_whole(&self, actor: Id) -> Result<(), HistoryError> {
        self.forget_undo(&actor);
        self.settle(actor).await.map_err(HistoryError::Upkeep)
    }

    async fn stage_and_publish(&self, actor: Id, at: i64) -> Result<Restored, HistoryError> {
        let mut before = None;
        for _ in 0..MAX_ROUNDS {
            self.settle_whole(actor).await?;
            let Some(staged) = self.stage_round(actor, at, before).await? else { return Ok(Restored::Same) };
            let (head, size, any) = (staged.head, staged.size, staged.any);
            let (options, clock) = (self.options.clone(), self.clock.clone());
            let publish = move |view: &View<'_>| {
                let standing = admit(view, &actor, at)?;
                if standing.ledger.head != head || standing.ledger.is_unsettled() {
                    return Ok(Decision::Skip(Published::NotYet));
                }
                publish(&actor, standing, &options, size, any, clock())
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
    size: u32,
    any: bool,
    now: i64,
) -> Result<Decision<Published>, HistoryError> {
    let retention_s = standing.retention_s();
    let mut ledger = standing.ledger;
    check_quota(options, &ledger, size, 0).map_err(|_| HistoryError::QuotaExceeded)?;
    if matches!(ledger.stage, Stage::Open(_)) {
        // Its number is taken by this commit.
        ledger.leftovers = true;
    }
    ledger.stage = if any { Stage::Published { number: RESTORE_STAGE, limit: size } } else { Stage::None };
    ledger.restore_rows = false;
    ledger.head += 1;
    let size_before = ledger.size;
    ledger.size = size;
    ledger.high_water = ledger.high_water.max(size);
    let mut batch = Batch::new();
    // The pages themselves are noted when they are moved or removed.
    keep(&mut batch, actor, &mut ledger, size_before, &[], retention_s, now)?;
    ledger.put(&mut batch, actor);
    Ok(Decision::Commit(batch, Published::As(ledger.head)))
}

fn upkeep_failed(error: SqliteError) -> HistoryError {
    HistoryError::Upkeep(error.into())
}
