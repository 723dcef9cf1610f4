//! Why a statement was not executed, or failed.

use std::time::Duration;

use protocol::envoy::SqliteErrorResponse;
use sqlite_vfs::SessionError;

/// Words by which hosts know that an engine executes no SQL at all (`spec/storage.md` 8.4), and what they are told instead
/// when SQLite, or the name of somebody's table, has them.
const MISLEADING: [(&str, &str); 2] = [("unavailable", "un-available"), ("unsupported", "un-supported")];
/// The code that ends a host's instance (`spec/storage.md` 8.4).
const FENCE_CODE: &str = "head_fence_mismatch";

/// Why a statement was not executed, or failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum SqlError {
    /// The namespace is not that of the host.
    #[error("actor does not exist")]
    OtherNamespace,
    /// The host has another generation of the actor, or none; or there is a later one.
    #[error("actor generation {generation} is not current")]
    NotCurrent { generation: u64 },
    #[error("sqlite statement did not end within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// As many statements run as may, of all hosts or of this one.
    #[error("sqlite statement found no free thread within {} ms", .0.as_millis())]
    NoThread(Duration),
    /// As many databases are open as may be, all of them at work or in a transaction.
    #[error("sqlite statement could not open its database within {} ms: too many others are at work", .0.as_millis())]
    NoPlace(Duration),
    /// A statement of an earlier connection does not come to its end.
    #[error("sqlite statement waited {} ms for one of an earlier connection", .0.as_millis())]
    NotFree(Duration),
    /// The connection or the generation has ended meanwhile.
    #[error("sqlite statement was interrupted, because its actor is no longer here")]
    Over,
    /// The thread has ended before the statement.
    #[error("sqlite statement was interrupted by a fault of the engine")]
    Panicked,
    /// A transaction was open in a session that is gone.
    #[error("the sqlite transaction was lost to an internal error")]
    TransactionLost,
    /// Nobody went on with a transaction for so long.
    #[error("the sqlite transaction was rolled back, because there was no statement for {} ms", .0.as_millis())]
    TransactionExpired(Duration),
    /// An earlier statement has shown that the database is not what the instance believes it to be.
    #[error("{}", .0.message)]
    Poisoned(SqliteErrorResponse),
    /// It was executed, and failed.
    #[error(transparent)]
    Failed(#[from] SessionError),
}

/// Whether an error of the actor's data says that the instance must end.
pub(super) fn is_fence(error: &SqliteErrorResponse) -> bool {
    error.code == FENCE_CODE
}

impl From<SqlError> for SqliteErrorResponse {
    fn from(error: SqlError) -> Self {
        let message = error.to_string();
        let named = |group: &str, code: &str| Self { group: group.to_owned(), code: code.to_owned(), message };
        match error {
            SqlError::OtherNamespace | SqlError::Panicked => named("core", "internal_error"),
            SqlError::NotCurrent { .. } | SqlError::TransactionLost | SqlError::TransactionExpired(_) => {
                named("depot", FENCE_CODE)
            }
            SqlError::Timeout(_) => named("sqlite", "statement_timeout"),
            SqlError::NoThread(_) => named("sqlite", "remote_overloaded"),
            SqlError::NoPlace(_) => named("sqlite", "remote_sessions_exhausted"),
            SqlError::NotFree(_) => named("sqlite", "remote_session_busy"),
            SqlError::Over => named("sqlite", "closed"),
            SqlError::Poisoned(answer) => answer,
            SqlError::Failed(error) => error.into(),
        }
    }
}

/// The same text without the words that would mean something else to a host whose SQL is executed here.
pub(super) fn not_misleading(mut message: String) -> String {
    for (word, other) in MISLEADING {
        if message.contains(word) {
            message = message.replace(word, other);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_makes_a_host_believe_that_there_is_no_remote_sql() {
        let said = |text: &str| not_misleading(text.to_owned());
        assert_eq!(said("no such table: unavailable_rooms"), "no such table: un-available_rooms");
        assert_eq!(said("unsupported frame specification"), "un-supported frame specification");
        assert_eq!(said("no such table: rooms"), "no such table: rooms");
    }
}
