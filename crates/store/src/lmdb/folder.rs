//! The data folder: who owns it, and what is in it.
//!
//! | File | Content |
//! |---|---|
//! | `LOCK` | locked while a process serves the folder; the name of that process's space of process numbers |
//! | `FORMAT` | format of everything else, a decimal number and a line feed |
//! | `data.mdb`, `lock.mdb` | LMDB's own |
//! | `data.mdb.partial` | a copy that is being made, or came to nothing (`copy`); nothing else in the folder counts then |
//! | `BACKUP` | only in a backup: what `data.mdb` must be (`backup`) |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write};
use std::path::Path;
use std::sync::Arc;

use crate::StoreError;

/// The one format that this version reads and writes. In format 1 rows of actors had no checksums.
const FORMAT: u32 = 2;

/// Name of a database file that is not complete.
pub(super) const PARTIAL: &str = "data.mdb.partial";
/// Name of the file that says what a backup is.
pub(super) const BACKUP: &str = "BACKUP";

/// The claim on a folder; it ends when this is dropped, or with the process.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: File,
}

/// Makes the folder if there is none, claims it, and checks or writes its format mark.
pub(super) fn claim(path: &Path) -> Result<Claim, StoreError> {
    let not_writable = |source| not_writable(path, source);
    fs::create_dir_all(path).map_err(not_writable)?;
    let lock = lock(path)?;
    if path.join(BACKUP).exists() {
        return Err(StoreError::IsBackup { path: path.to_owned() });
    }
    if !has_format(path)? {
        write_format(path).map_err(not_writable)?;
    }
    note_number_space(&lock);
    Ok(Claim { _lock: lock })
}

/// Claims a folder into which a copy is to be made. It must exist.
pub(super) fn claim_target(path: &Path) -> Result<Claim, StoreError> {
    let lock = lock(path)?;
    Ok(Claim { _lock: lock })
}

/// Checks that a folder can be read beside whoever serves it.
///
/// LMDB tells its readers apart by their process numbers, and clears away those whose process is gone. Two containers may have
/// processes of the same number, so a reader from another one could be taken for a thread of the process that serves.
pub(super) fn check_readable(path: &Path) -> Result<(), StoreError> {
    let no_data = || StoreError::NoData { path: path.to_owned() };
    if !has_format(path)? || !path.join("data.mdb").exists() {
        return Err(no_data());
    }
    let Ok(mut lock) = File::open(path.join("LOCK")) else { return Ok(()) };
    let mut holder = String::new();
    lock.read_to_string(&mut holder).map_err(StoreError::failed)?;
    // Looked at first: even a shared lock would be in the way of a process that starts at this moment.
    let same_space = holder.is_empty() || holder == number_space();
    if !same_space && matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return Err(StoreError::OtherContainer { path: path.to_owned() });
    }
    Ok(())
}

/// Lets readers know in which space the process that serves the folder has its number.
fn note_number_space(mut lock: &File) {
    let (mut noted, ours) = (String::new(), number_space());
    if lock.read_to_string(&mut noted).is_ok() && noted == ours {
        return;
    }
    // A full disk must not keep a store from being served, and without the note readers are only not warned.
    if let Err(error) = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(ours.as_bytes())) {
        tracing::warn!(%error, "cannot write the file LOCK");
    }
}

/// The space in which this process has its number; the same text for all processes where there are no such spaces.
fn number_space() -> String {
    fs::read_link("/proc/self/ns/pid").map_or_else(|_| String::new(), |space| space.to_string_lossy().into_owned())
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let not_writable = |source| not_writable(path, source);
    let lock =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("LOCK")).map_err(not_writable)?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => StoreError::InUse { path: path.to_owned() },
        TryLockError::Error(source) => not_writable(source),
    })?;
    Ok(lock)
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

/// Whether there is a format mark. If there is one, it is the right one.
fn has_format(path: &Path) -> Result<bool, StoreError> {
    if path.join(PARTIAL).exists() {
        return Err(StoreError::Unfinished { path: path.to_owned() });
    }
    let unknown = || StoreError::UnknownFormat { path: path.to_owned() };
    match fs::read_to_string(path.join("FORMAT")) {
        Ok(text) => match text.trim_end().parse::<u32>() {
            Ok(FORMAT) => Ok(true),
            Ok(found) if found > FORMAT => Err(StoreError::NewerFormat { path: path.to_owned(), found, known: FORMAT }),
            Ok(found @ 1..FORMAT) => Err(StoreError::OlderFormat { path: path.to_owned(), found, known: FORMAT }),
            Ok(_) | Err(_) => Err(unknown()),
        },
        // The mark is made before the database, so a database without one is not ours.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.join("data.mdb").exists() => Err(unknown()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(not_writable(path, source)),
    }
}

/// Makes the format mark of what this version writes.
pub(super) fn write_format(path: &Path) -> io::Result<()> {
    // Renamed into place, so that a crash cannot leave half a mark.
    let draft = path.join("FORMAT.new");
    let mut file = File::create(&draft)?;
    writeln!(file, "{FORMAT}")?;
    file.sync_all()?;
    fs::rename(draft, path.join("FORMAT"))?;
    sync(path)
}
