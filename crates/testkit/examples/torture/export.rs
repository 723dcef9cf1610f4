//! The database of an actor as a plain file, as a crash has left it, in the eyes of SQLite itself.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use testkit::process::EngineProcess;

use crate::ledger::{Checked, Violation};

/// Exports the database of an actor while no engine runs, and looks whether it is sound.
pub(crate) fn check(engine: &EngineProcess, actor_id: &str) -> Checked {
    let file = engine.data().with_file_name("exported.sqlite");
    let exported = engine.run(&["actor", "export", actor_id, file.to_str().expect("a path in UTF-8")]);
    if !exported.status.success() {
        let why = String::from_utf8_lossy(&exported.stderr).into_owned();
        return Err(Violation(format!("the database of actor {actor_id} cannot be exported: {why}")));
    }
    let found = soundness(&file).unwrap_or_else(|error| error.to_string());
    std::fs::remove_file(&file).expect("a file that can be removed");
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(Violation(format!("the exported database of actor {actor_id} is not sound: {found}"))),
    }
}

/// What SQLite says of all pages, indexes and constraints of a database.
fn soundness(file: &Path) -> rusqlite::Result<String> {
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    database.query_row("PRAGMA integrity_check", [], |row| row.get(0))
}
