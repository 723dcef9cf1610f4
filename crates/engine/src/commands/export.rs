//! `rivet-engine actor export`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

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
    let partial = PathBuf::from(partial);
    let created = match File::create_new(&partial) {
        Ok(created) => created,
        // Somebody's file, another export that runs, or what an export that was killed has left.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(CommandError::FileExists { path: partial }),
        Err(error) => return Err(ExportError::Write(error).into()),
    };
    let Exported { head, pages } = write(&store, id, created, &partial, file).inspect_err(|_| {
        // Nobody takes what is left for a database.
        let _ = fs::remove_file(&partial);
    })?;
    writeln!(out, "Wrote {pages} pages, as of commit {head}, to {}.", file.display())?;
    Ok(Done::Well)
}

fn write(store: &ReadOnly, id: ActorId, created: File, partial: &Path, file: &Path) -> Result<Exported, CommandError> {
    let mut writer = BufWriter::new(created);
    let exported = store.snapshot(|explorer| export::database(explorer, id, &mut writer))??;
    let written = writer.into_inner().map_err(io::IntoInnerError::into_error);
    written.and_then(|written| written.sync_all()).and_then(|()| fs::rename(partial, file)).map_err(ExportError::Write)?;
    Ok(exported)
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
