//! Why a request failed, in the words of `spec/storage.md` 8.2.

use protocol::envoy::SqliteErrorResponse;

use crate::pages::PagesError;

/// Why a request failed. A transaction that was open is rolled back where SQLite does so; see
/// [`Session::in_transaction`](crate::Session::in_transaction).
///
/// The texts avoid the words by which the SDK recognises an engine that cannot execute SQL (`spec/storage.md` 8.4).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SessionError {
    /// SQLite says no, or the request is malformed. The message is that of `spec/storage.md` 8.2.
    #[error("{message}")]
    Sql {
        /// What was being done, then SQLite's text.
        message: String,
    },
    /// [`Interrupter::interrupt`](crate::Interrupter::interrupt) was called. If the statement was one that changes something,
    /// its transaction is rolled back.
    #[error("the sqlite statement was interrupted")]
    Interrupted,
    /// The rows of a result, or of the results of a batch, are more than a reply may carry. If the statement was one that
    /// changes something, its transaction is rolled back.
    #[error("the result of the sqlite statement has more than {limit} bytes")]
    ResultTooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// What a transaction changed and what SQLite keeps to undo it, temporary tables and sorts fit neither into memory nor
    /// anywhere else.
    #[error("the sqlite transaction, temporary tables and sorts need more than {limit} bytes, or than others leave of them")]
    TransactionTooLarge {
        /// The bound of the session, in bytes.
        limit: u64,
    },
    /// The results of all sessions that are not sent yet take all the memory that there is for them. If the statement was one
    /// that changes something, its transaction is rolled back.
    #[error("there is no memory for the result of the sqlite statement: too many others are waiting to be sent")]
    NoRoomForResult,
    /// The pages could not be read or committed.
    #[error(transparent)]
    Pages(PagesError),
    /// An earlier request met a fence. The session is of no more use.
    #[error("{0}")]
    Poisoned(PagesError),
    /// Something panicked, or a rollback failed. This session is of no more use; the database is as it was committed last.
    #[error("the sqlite session was lost to an internal error")]
    Lost,
}

impl SessionError {
    pub(crate) fn sql(message: impl Into<String>) -> Self {
        Self::Sql { message: message.into() }
    }

    /// The same, with what was being done before it.
    pub(crate) fn when(self, doing: &str) -> Self {
        match self {
            Self::Sql { message } => Self::Sql { message: format!("{doing}: {message}") },
            Self::Interrupted
            | Self::ResultTooLarge { .. }
            | Self::TransactionTooLarge { .. }
            | Self::NoRoomForResult
            | Self::Pages(_)
            | Self::Poisoned(_)
            | Self::Lost => self,
        }
    }
}

impl From<SessionError> for SqliteErrorResponse {
    fn from(error: SessionError) -> Self {
        let (group, code) = match error {
            SessionError::Pages(PagesError { answer, .. }) | SessionError::Poisoned(PagesError { answer, .. }) => return answer,
            SessionError::Sql { .. } | SessionError::Lost => ("core", "internal_error"),
            SessionError::Interrupted => ("sqlite", "interrupted"),
            SessionError::ResultTooLarge { .. } => ("sqlite", "result_too_large"),
            SessionError::TransactionTooLarge { .. } => ("sqlite", "transaction_too_large"),
            SessionError::NoRoomForResult => ("sqlite", "remote_overloaded"),
        };
        Self { group: group.into(), code: code.into(), message: error.to_string() }
    }
}
