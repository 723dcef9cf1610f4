//! The data folder: who owns it, and what is in it.
//!
//! | File | Content |
//! |---|---|
//! | `LOCK` | empty; locked while a process uses the folder |
//! | `FORMAT` | format of everything else, a decimal number and a line feed |
//! | `data.mdb`, `lock.mdb` | LMDB's own |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::StoreError;

/// Newest format that this version can read, and the one it writes.
const FORMAT: u32 = 1;

/// The claim on a folder; it ends when this is dropped, or with the process.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: File,
}

/// Makes the folder if there is none, claims it, and checks or writes its format mark.
pub(super) fn claim(path: &Path) -> Result<Claim, StoreError> {
    let not_writable = |source| not_writable(path, source);
    fs::create_dir_all(path).map_err(not_writable)?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join("LOCK")).map_err(not_writable)?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => StoreError::InUse { path: path.to_owned() },
        TryLockError::Error(source) => not_writable(source),
    })?;
    check_format(path)?;
    Ok(Claim { _lock: lock })
}

/// The folder cannot be written to.
pub(super) fn not_writable(path: &Path, source: io::Error) -> StoreError {
    StoreError::NotWritable { path: path.to_owned(), source: Arc::new(source) }
}

/// Makes the names of new files durable.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    // Only Unix can open a folder as a file; elsewhere the file system does this by itself.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

fn check_format(path: &Path) -> Result<(), StoreError> {
    let unknown = || StoreError::UnknownFormat { path: path.to_owned() };
    match fs::read_to_string(path.join("FORMAT")) {
        Ok(text) => match text.trim_end().parse::<u32>() {
            Ok(FORMAT) => Ok(()),
            Ok(found) if found > FORMAT => Err(StoreError::NewerFormat { path: path.to_owned(), found, known: FORMAT }),
            Ok(_) | Err(_) => Err(unknown()),
        },
        // The mark is made before the database, so a database without one is not ours.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.join("data.mdb").exists() => Err(unknown()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_format(path).map_err(|source| not_writable(path, source)),
        Err(source) => Err(not_writable(path, source)),
    }
}

fn write_format(path: &Path) -> io::Result<()> {
    // Renamed into place, so that a crash cannot leave half a mark.
    let draft = path.join("FORMAT.new");
    let mut file = File::create(&draft)?;
    writeln!(file, "{FORMAT}")?;
    file.sync_all()?;
    fs::rename(draft, path.join("FORMAT"))?;
    sync(path)
}
