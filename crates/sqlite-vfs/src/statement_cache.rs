//! Prepared statements that are likely to be run again: an SDK repeats its own verbatim (`spec/storage.md` 16.5).

use crate::statement::Statement;

/// Statements kept, of one session.
const MAX_STATEMENTS: usize = 64;
/// Longest statement kept, in bytes.
const MAX_SQL_BYTES: usize = 16 * 1024;

/// The most recently used statements by their text. What depends on the moment of preparation, such as a PRAGMA or a changed
/// schema, SQLite prepares again by itself.
#[derive(Default)]
pub(crate) struct StatementCache {
    /// The latest is the last.
    kept: Vec<(Box<str>, Statement)>,
}

impl StatementCache {
    /// Whether a statement of this text would be kept.
    pub(crate) fn wants(sql: &str) -> bool {
        sql.len() <= MAX_SQL_BYTES
    }

    pub(crate) fn take(&mut self, sql: &str) -> Option<Statement> {
        let place = self.kept.iter().rposition(|(text, _)| **text == *sql)?;
        Some(self.kept.remove(place).1)
    }

    /// Keeps a statement that was reset.
    pub(crate) fn keep(&mut self, sql: &str, statement: Statement) {
        if !Self::wants(sql) {
            return;
        }
        if self.kept.len() == MAX_STATEMENTS {
            self.kept.remove(0);
        }
        self.kept.push((sql.into(), statement));
    }

    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }
}
