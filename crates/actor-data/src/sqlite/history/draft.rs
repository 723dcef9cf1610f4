//! A database that is about to become an actor's present.

use std::future::{Ready, ready};

use bytes::Bytes;
use protocol::id::Id;

use super::HistoryError;
use crate::ledger::RESTORE_STAGE;
use crate::limits::PAGE_BYTES;
use crate::{ActorData, page};

/// Pages that may be different from what they were.
const MAX_AMENDED: usize = 64;

/// A database that is about to become an actor's present, for whoever must change something in it before.
pub struct Draft {
    pub(super) data: ActorData,
    pub(super) actor: Id,
    /// Its pages are those in the stage of a restore, and behind them those of the actor.
    pub(super) staged: bool,
    pub(super) size: u32,
}

/// Pages that are to be different from what they were: their numbers, and their new content.
pub type Amended = Vec<(u32, Bytes)>;

/// For [`ActorData::restore`] and [`ActorData::copy`]: everything is to be as it was.
pub fn as_it_was(_: Draft) -> Ready<Amended> {
    ready(Vec::new())
}

impl Draft {
    /// Pages of the database.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The content of pages. If somebody writes to the database meanwhile they may not fit each other; what is made of them is
    /// thrown away then.
    ///
    /// # Errors
    /// [`HistoryError::Damaged`], [`HistoryError::Store`].
    pub async fn read(&self, pgnos: &[u32]) -> Result<Vec<(u32, Bytes)>, HistoryError> {
        let of_page = |pgno: &u32| [page::key(&self.actor, *pgno), page::staged_key(&self.actor, RESTORE_STAGE, *pgno)];
        let keys: Vec<Bytes> = pgnos.iter().flat_map(of_page).collect();
        let rows = self.data.store.get(keys.clone()).await?;
        let mut pages = Vec::with_capacity(pgnos.len());
        for ((pgno, keys), rows) in pgnos.iter().zip(keys.as_chunks::<2>().0).zip(rows.as_chunks::<2>().0) {
            let content = match (&rows[1], &rows[0]) {
                (Some(staged), _) if self.staged => page::decode(&keys[1], staged)?,
                (_, Some(row)) => page::decode(&keys[0], row)?,
                (_, None) => page::zeros(),
            };
            pages.push((*pgno, content));
        }
        Ok(pages)
    }

    /// Whether these pages can be in the database.
    pub(super) fn takes(size: u32, amended: &Amended) -> bool {
        let fits = |(pgno, content): &(u32, Bytes)| (1..=size).contains(pgno) && content.len() == PAGE_BYTES;
        amended.len() <= MAX_AMENDED && amended.iter().all(fits)
    }
}
