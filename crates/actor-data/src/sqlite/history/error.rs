//! Why the past of a database cannot be had.

use protocol::envoy::SqliteErrorResponse;
use store::StoreError;

use crate::Damaged;
use crate::sqlite::error::SqliteError;

/// Why the past of a database cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The actor is destroyed, or has no data.
    #[error("the actor does not exist")]
    NoActor,
    /// No history is kept.
    #[error("no history of the actor's database is kept")]
    NotKept,
    /// The history does not reach back so far.
    #[error("the history of the actor's database begins later")]
    TooEarly {
        /// When it begins, in epoch milliseconds.
        since: i64,
    },
    /// Another restore of this actor is under way.
    #[error("another restore of the actor is under way")]
    UnderWay,
    /// Too many restores and copies of other actors are under way.
    #[error("too many restores and copies are under way")]
    Busy,
    /// The actor has written for as long as somebody tried to put it back.
    #[error("the actor's database changes faster than it can be restored")]
    Outrun,
    /// The database was larger then than the actor's data may be now.
    #[error("not enough space left in storage")]
    QuotaExceeded,
    /// What earlier commits left behind cannot be done.
    #[error("{}.{}: {}", .0.group, .0.code, .0.message)]
    Upkeep(SqliteErrorResponse),
    /// A stored row cannot be read.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Work on a thread of its own did not end; only at shutdown, or after a panic.
    #[error("the work was interrupted")]
    Interrupted,
}

impl From<SqliteError> for HistoryError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Store(error) => Self::Store(error),
            SqliteError::Damaged(damaged) => Self::Damaged(damaged),
            SqliteError::Interrupted => Self::Interrupted,
            SqliteError::MissingGeneration { .. }
            | SqliteError::NotCurrent { .. }
            | SqliteError::HeadMismatch { .. }
            | SqliteError::PageZero { .. }
            | SqliteError::PageLength { .. }
            | SqliteError::PageTwice { .. }
            | SqliteError::ReadTooLarge { .. }
            | SqliteError::CommitTooLarge { .. }
            | SqliteError::StageTooLarge { .. }
            | SqliteError::StageInvalid(_)
            | SqliteError::StageNotFound { .. }
            | SqliteError::QuotaExceeded { .. } => Self::Upkeep(error.into()),
        }
    }
}

impl HistoryError {
    /// Whether the store takes nothing at the moment, of which it tells its operator once for all.
    pub(in crate::sqlite) fn is_lack_of_room(&self) -> bool {
        matches!(self, Self::Store(error) if error.may_pass())
    }
}
