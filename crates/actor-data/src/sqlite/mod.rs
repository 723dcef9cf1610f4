//! The SQLite page protocol (`spec/storage.md` 6).

mod commit;
mod dirty;
mod error;
pub(crate) mod history;
mod read;
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

/// What a request says it builds on.
#[derive(Debug, Clone, Copy)]
struct Guard {
    /// Number of the host's connection; none if the engine itself asks.
    session: Option<u64>,
    generation: u64,
    /// None: whatever it is.
    head: Option<u64>,
}

impl Guard {
    /// Every request must name its generation; `request` is its name in the error.
    fn new(request: &'static str, session: Option<u64>, generation: Option<u64>, head: Option<u64>) -> Result<Self, SqliteError> {
        let generation = generation.ok_or(SqliteError::MissingGeneration { request })?;
        Ok(Self { session, generation, head })
    }

    /// For the later steps of a staged commit, whose number says what it builds on.
    fn staged(session: Option<u64>, generation: Option<u64>, txid: u64) -> Result<Self, SqliteError> {
        // There is no staged commit 0, as there is no head before it; then nothing can match.
        Self::new("staged commit", session, generation, Some(txid.wrapping_sub(1)))
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
