//! The SQLite page protocol (`spec/storage.md` 6).
//!
//! The life of a commit that is staged, as the ledger shows it:
//!
//! | Step | Ledger | Its rows |
//! |---|---|---|
//! | `begin` | `stages` + 1, stage open | none yet |
//! | each segment | pages and segments counted | staged, read by nobody |
//! | `finalize` | stage published, `head` + 1, `size`; `held` is the new head as long as it may be taken back (`undo`) | count before those of the database up to `limit` |
//! | upkeep, once the host knows of it | `held` 0, then no stage; `leftovers` until its segments are gone | move into the database |
//! | instead: another `begin`, a commit, or it is taken back | no stage, or the next one; `leftovers` | removed by upkeep |

mod commit;
mod dirty;
mod error;
pub(crate) mod history;
mod read;
mod read_ahead;
mod stage;
mod undo;
mod upkeep;

#[cfg(test)]
mod model_tests;

use bytes::Bytes;
use protocol::id::Id;
use store::Reads;

use self::error::SqliteError;
use crate::ledger::Ledger;
use crate::{Options, Standing, standing_keys};

pub(crate) use self::undo::Undo;
pub(crate) use self::upkeep::Upkeep;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A host, over its connection of this number; numbers grow in the order in which connections are made. It may miss the
    /// answer to a commit, so that its newest one can be taken back (7.5), and the limits of the page protocol hold for it.
    Host(u64),
    /// The engine itself, which executes an actor's SQL. It always learns what became of its commits: none is ever taken
    /// back, nor what they were put on. They may be of any size up to the storage limit.
    Engine,
}

impl Caller {
    fn is_host(self) -> bool {
        matches!(self, Self::Host(_))
    }
}

/// What a request says it builds on.
#[derive(Debug, Clone, Copy)]
struct Guard {
    caller: Caller,
    generation: u64,
    /// None: whatever it is.
    head: Option<u64>,
}

impl Guard {
    /// Every request must name its generation; `request` is its name in the error.
    fn new(request: &'static str, caller: Caller, generation: Option<u64>, head: Option<u64>) -> Result<Self, SqliteError> {
        let generation = generation.ok_or(SqliteError::MissingGeneration { request })?;
        Ok(Self { caller, generation, head })
    }

    /// For the later steps of a staged commit, whose number says what it builds on.
    fn staged(caller: Caller, generation: Option<u64>, txid: u64) -> Result<Self, SqliteError> {
        // There is no staged commit 0, as there is no head before it; then nothing can match.
        Self::new("staged commit", caller, generation, Some(txid.wrapping_sub(1)))
    }

    /// The ledger, if the request may go on (6.5). Never in words that a host takes for "this database is new".
    fn admit(self, standing: Standing) -> Result<Ledger, SqliteError> {
        if !standing.is_current(self.generation) {
            return Err(SqliteError::NotCurrent { generation: self.generation });
        }
        let actual = standing.ledger.head;
        match self.head {
            Some(expected) if expected != actual => Err(SqliteError::HeadMismatch { expected, actual }),
            Some(_) | None => Ok(standing.ledger),
        }
    }
}

/// Reads that every request begins with.
fn standing_reads(actor: &Id) -> Reads {
    Reads::keys(standing_keys(actor))
}

/// A database may not grow beyond the limit; if it is there already, it may stay or shrink (12.1).
fn check_quota(options: &Options, ledger: &Ledger, new_size: u32, payload: u64) -> Result<(), SqliteError> {
    let (before, after) = (ledger.used_bytes(), Ledger { size: new_size, ..ledger.clone() }.used_bytes());
    if after > options.max_storage_bytes && after > before {
        let remaining = options.max_storage_bytes.saturating_sub(before);
        return Err(SqliteError::QuotaExceeded { remaining, payload });
    }
    Ok(())
}

/// The range of rows with `key(first)` to `key(last)`, both included, as two bounds.
fn row_range(first: Bytes, last: &Bytes) -> (Bytes, Bytes) {
    // The smallest key above `last`.
    let end = [last.as_ref(), &[0]].concat();
    (first, end.into())
}
