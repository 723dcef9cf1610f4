//! Which PRAGMA a host may use.

use std::ffi::CStr;

/// What becomes of a PRAGMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It asks, or changes the database.
    Harmless,
    /// It changes the connection, and so has to outlive an idle one.
    ChangesSession,
    /// Nothing happens, and this is the answer.
    Answered(&'static CStr),
    /// It fails with this text.
    Refused(&'static CStr),
}

/// PRAGMAs whose value says what to look at, or is kept in the database.
const HARMLESS: [&str; 20] = [
    "application_id",
    "auto_vacuum",
    "encoding",
    "foreign_key_check",
    "foreign_key_list",
    "incremental_vacuum",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "optimize",
    "page_size",
    "quick_check",
    "schema_version",
    "shrink_memory",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
    "wal_checkpoint",
];

/// Decides on `PRAGMA name` or `PRAGMA name = value` (`spec/storage.md` 7.1, 7.6, 16.5).
pub(crate) fn judge(name: &str, value: Option<&str>) -> Judgement {
    let Some(value) = value else { return Judgement::Harmless };
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        // It would keep what is written in memory, and the actor would never start again.
        "journal_mode" if value.eq_ignore_ascii_case("wal") => {
            Judgement::Refused(c"journal_mode=WAL is not possible for the database of an actor")
        }
        "page_size" if value.trim() != "4096" => Judgement::Refused(c"the page size of an actor's database is always 4096"),
        // A session is the only user of its file, and a journal that somebody else could find does not exist.
        "locking_mode" => Judgement::Answered(c"exclusive"),
        name if HARMLESS.contains(&name) => Judgement::Harmless,
        _ => Judgement::ChangesSession,
    }
}
