//! The SQLite database of an actor as a plain file, from one snapshot.

use std::io::{self, Write};
use std::iter::Peekable;

use protocol::id::Id;
use store::{Explorer, StoreError, prefix_end};

use crate::fence::{self, Fence};
use crate::ledger::{self, Ledger, Stage};
use crate::record::{self, Subspace};
use crate::{Bytes, Damaged, page};

/// Why a database cannot be written to a file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No actor of this id has started, or it is destroyed and its data is removed.
    #[error("there is no actor {actor} with data in the store")]
    NoActor {
        /// The id.
        actor: Id,
    },
    /// It is destroyed, and its data is being removed.
    #[error("the actor {actor} is destroyed")]
    Destroyed {
        /// The id.
        actor: Id,
    },
    /// It never wrote to its database.
    #[error("the actor {actor} has no database yet")]
    NoDatabase {
        /// The id.
        actor: Id,
    },
    /// A page cannot be read.
    #[error("page {pgno} of the actor {actor} is damaged")]
    DamagedPage {
        /// The id.
        actor: Id,
        /// Number of the page.
        pgno: u32,
    },
    /// What says how large the database is cannot be read.
    #[error("{damaged}: that of the actor {actor}")]
    Damaged {
        /// The id.
        actor: Id,
        /// What.
        damaged: Damaged,
    },
    /// The file cannot be written.
    #[error("cannot write the file: {0}")]
    Write(#[from] io::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A database that was written to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Number of the newest commit in it.
    pub head: u64,
    /// Pages in it, of 4,096 bytes each.
    pub pages: u32,
}

/// Writes the pages of an actor's database in order, as SQLite has them in its file. Needs memory for one page.
///
/// # Errors
/// [`ExportError`]; a part may have been written then.
pub fn database(explorer: &Explorer<'_>, actor: Id, file: &mut dyn Write) -> Result<Exported, ExportError> {
    let ledger = ledger(explorer, &actor)?;
    let mut rows = Rows::of(explorer, record::key(Subspace::Page, &actor, &[]))?;
    // Until they have moved, the pages of a published stage count before those of the database.
    let (mut newest, limit) = match ledger.stage {
        Stage::Published { number, limit } => {
            (Rows::of(explorer, record::key(Subspace::StagedPage, &actor, &[&number.to_be_bytes()]))?, limit)
        }
        Stage::None | Stage::Open(_) => (Rows::none(), 0),
    };
    for pgno in 1..=ledger.size {
        let row = rows.take(pgno)?;
        let newer = if pgno <= limit { newest.take(pgno)? } else { None };
        let page = match newer.or(row) {
            Some((key, value)) => page::decode(key, &Bytes::copy_from_slice(value))
                .map_err(|Damaged { .. }| ExportError::DamagedPage { actor, pgno })?,
            None => page::zeros(),
        };
        file.write_all(&page)?;
    }
    Ok(Exported { head: ledger.head, pages: ledger.size })
}

fn ledger(explorer: &Explorer<'_>, actor: &Id) -> Result<Ledger, ExportError> {
    let actor = *actor;
    let damaged = |damaged| ExportError::Damaged { actor, damaged };
    let fence = explorer.get(&fence::key(&actor))?.ok_or(ExportError::NoActor { actor })?;
    if Fence::decode(&actor, fence).map_err(damaged)? == Fence::Destroyed {
        return Err(ExportError::Destroyed { actor });
    }
    let ledger = explorer.get(&ledger::key(&actor))?.map(|value| Ledger::decode(&actor, value)).transpose().map_err(damaged)?;
    ledger.filter(|ledger| ledger.size > 0).ok_or(ExportError::NoDatabase { actor })
}

type Row<'a> = (&'a [u8], &'a [u8]);

/// Rows of pages in ascending order of their numbers, with which their keys end.
struct Rows<'a>(Peekable<Box<dyn Iterator<Item = Result<Row<'a>, StoreError>> + 'a>>);

impl<'a> Rows<'a> {
    fn of(explorer: &Explorer<'a>, prefix: Bytes) -> Result<Self, StoreError> {
        Ok(Self(explorer.range(&prefix, &prefix_end(&prefix))?.peekable()))
    }

    fn none() -> Self {
        let nothing: Box<dyn Iterator<Item = Result<Row<'a>, StoreError>> + 'a> = Box::new(std::iter::empty());
        Self(nothing.peekable())
    }

    /// The row of a page. Asked for in ascending order.
    fn take(&mut self, pgno: u32) -> Result<Option<Row<'a>>, StoreError> {
        let number = |row: &Result<Row<'a>, StoreError>| row.as_ref().ok().and_then(|(key, _)| record::last_u32(key));
        // There is no page 0, but damage may have made a row for it.
        while self.0.next_if(|row| number(row).is_some_and(|number| number < pgno)).is_some() {}
        self.0.next_if(|row| number(row).is_none_or(|number| number == pgno)).transpose()
    }
}
