//! `rivet-engine actor export`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use actor_data::export::{self, ExportError, Exported};
use protocol::id::ActorId;
use store::ReadOnly;

use super::{CommandError, Done};

/// Writes the database of an actor to a file that does not exist.
pub(super) fn run(data: &Path, actor: &str, file: &Path, out: &mut dyn Write) -> Result<Done, CommandError> {
    let id: ActorId = actor.parse().map_err(|source| CommandError::NoActorId { text: actor.to_owned(), source })?;
    if file.exists() {
        return Err(CommandError::FileExists { path: file.to_owned() });
    }
    let store = ReadOnly::open(data)?;
    // Under another name until it is complete.
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let exported = store.snapshot(|explorer| {
        let mut writer = BufWriter::new(File::create(&partial)?);
        let exported = export::database(explorer, id, &mut writer)?;
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&partial, file)?;
        Ok::<_, ExportError>(exported)
    })?;
    let Exported { head, pages } = exported.inspect_err(|_| {
        // It may not be there at all.
        let _ = fs::remove_file(&partial);
    })?;
    writeln!(out, "Wrote {pages} pages, as of commit {head}, to {}.", file.display())?;
    Ok(Done::Well)
}

/// A stable name of why an export came to nothing.
pub(super) fn code(error: &ExportError) -> String {
    match error {
        ExportError::NoActor { .. } => "actor.not_found".into(),
        ExportError::Destroyed { .. } => "actor.destroyed".into(),
        ExportError::NoDatabase { .. } => "actor.no_database".into(),
        ExportError::DamagedPage { .. } | ExportError::Damaged { .. } => "store.damaged".into(),
        ExportError::Write(_) => "export.not_writable".into(),
        ExportError::Store(error) => format!("store.{}", error.code()),
    }
}
