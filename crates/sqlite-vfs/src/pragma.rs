//! Which PRAGMA a host may use.

use std::ffi::CStr;

/// What becomes of a PRAGMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It asks, or changes the database.
    Harmless,
    /// It changes the connection, and so is lost with it.
    ChangesSession,
    /// Nothing happens.
    Ignored,
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

/// PRAGMAs by which one actor would take memory or threads from all others.
const IGNORED: [&str; 10] = [
    "cache_size",
    "cache_spill",
    "default_cache_size",
    "hard_heap_limit",
    "journal_size_limit",
    "mmap_size",
    "soft_heap_limit",
    "temp_store",
    "temp_store_directory",
    "threads",
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
        // There is one journal, whatever it is called; in SQLite's memory it would have no bound.
        "journal_mode" => Judgement::Answered(c"delete"),
        "page_size" if value.trim() != "4096" => Judgement::Refused(c"the page size of an actor's database is always 4096"),
        // A session is the only user of its file, and a journal that somebody else could find does not exist.
        "locking_mode" => Judgement::Answered(c"exclusive"),
        name if IGNORED.contains(&name) => Judgement::Ignored,
        name if HARMLESS.contains(&name) => Judgement::Harmless,
        _ => Judgement::ChangesSession,
    }
}
