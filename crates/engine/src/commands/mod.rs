//! What `rivet-engine` does with a data folder besides serving it: backup, restore, check, export; and what it asks of an engine
//! that runs (`remote`).
//!
//! All of the former reads the files, so none of it needs an engine that runs, and all but the restore work beside one: each sees one
//! state of the store, with everything that was durable when it began.

mod backup;
mod check;
mod export;
mod remote;

use std::io::{self, Write};
use std::path::PathBuf;

use actor_data::export::ExportError;
use protocol::id::ParseIdError;
use store::{CopyError, StoreError};

pub use self::remote::{RemoteError, ask};
use crate::config::{Config, DataTask, Database};

/// How a command went that could be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// As it should.
    Well,
    /// It found damage, and said which; or another process of the command has said why it came to nothing.
    Badly,
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The data is not in a folder.
    #[error("`postgres` is set, but storage in PostgreSQL is not available in this version of the engine")]
    NoFolder,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backup or restore came to nothing.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The backup is as it was made, but it was made of damaged data.
    #[error("there is damage in the backup; `--even-if-damaged` restores it nevertheless")]
    DamagedBackup,
    /// What is given as an actor's id is none.
    #[error("{text:?} is no actor id: {source}")]
    NoActorId {
        /// As given.
        text: String,
        /// Why.
        source: ParseIdError,
    },
    /// The database cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The file for the export is there already.
    #[error("{} exists already", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// What the command has to say cannot be written.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// A stable name of the failure, `group.code`, for scripts.
    pub fn code(&self) -> String {
        match self {
            Self::NoFolder => "config.not_implemented".into(),
            Self::Store(error) => format!("store.{}", error.code()),
            Self::Copy(error) => error.code(),
            Self::DamagedBackup => "copy.damage_inside".into(),
            Self::NoActorId { .. } => "actor.invalid_id".into(),
            Self::Export(error) => export::code(error),
            Self::FileExists { .. } => "export.file_exists".into(),
            Self::Output(_) => "output.not_writable".into(),
        }
    }
}

/// Carries out a command and tells `out` about it.
///
/// # Errors
/// [`CommandError`].
pub fn run(config: &Config, task: DataTask, out: &mut dyn Write) -> Result<Done, CommandError> {
    let data = match config.database() {
        Database::Embedded(path) => path,
        Database::Postgres(_) => return Err(CommandError::NoFolder),
    };
    match task {
        DataTask::Backup { folder } => backup::back_up(data, &folder, out),
        DataTask::Restore { folder, even_if_damaged } => backup::restore(&folder, data, even_if_damaged, out),
        DataTask::Check { folder, here, json } => {
            let folder = folder.as_deref().unwrap_or(data);
            if here { check::run(folder, json, out) } else { check::run_apart(folder, json, out) }
        }
        DataTask::Export { actor, file } => export::run(data, &actor, &file, out),
    }
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{amount:.1} {}", UNITS[unit]) }
}
