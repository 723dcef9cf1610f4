//! Copies of a whole store: into a backup, and back.
//!
//! A copy is made as `data.mdb.partial` and gets its name as the very last step, when all else is on the disk. So a folder
//! with a `data.mdb` is complete, and one that an interrupted copy left behind is refused by everybody but the next copy.
//!
//! A backup is copied row by row, in key order, into transactions of its own. So it has no gaps, each of its pages is full, and
//! what can be read of it has been read once. Each transaction is synced before the next one is begun: a heap of unwritten
//! pages would make the syncs of the process that serves wait.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use heed::{MdbError, PutFlags};

use super::folder::{self, BACKUP, Claim, PARTIAL};
use super::read_only::ReadOnly;
use super::table::{DATA_FILE, Table, failure};
use crate::StoreError;

/// Bytes of rows that are copied in one transaction, and of files in one write. Measured: larger steps make the syncs of a process
/// that serves wait longer, and smaller ones make the copy take longer.
const STEP_BYTES: usize = 1024 * 1024;

/// What may be in a folder into which a copy is made: what an earlier copy that was interrupted left, and what a file system
/// keeps in the root of a volume.
const MAY_BE_THERE: [&str; 7] = ["LOCK", "lock.mdb", "FORMAT", "FORMAT.new", BACKUP, PARTIAL, "lost+found"];

/// What a backup is, from its file `BACKUP`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// When it was begun, in milliseconds since the Unix epoch. It has everything that was durable then.
    pub made_at_ms: i64,
    /// Rows in it.
    pub rows: u64,
    /// Length of its `data.mdb`, in bytes.
    pub bytes: u64,
    /// CRC-32 of its `data.mdb`.
    pub crc32: u32,
}

/// Why a backup or a restore came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What is to be copied cannot be read.
    #[error("cannot read what is to be copied: {0}")]
    Source(StoreError),
    /// The folder to which the copy is to go cannot be used. Somebody may be making a copy there.
    #[error("cannot write the copy: {0}")]
    Target(StoreError),
    /// The folder to which the copy is to go is not empty.
    #[error("the folder {} is not empty: it has {entry:?}", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// Something in it.
        entry: String,
    },
    /// There is no room for the copy.
    #[error("there is no room for the copy in {}", path.display())]
    NoRoom {
        /// The folder.
        path: PathBuf,
    },
    /// The copy cannot be written.
    #[error("cannot write the copy in {}: {source}", path.display())]
    Write {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Rows that are to be copied are not in order: the file is damaged.
    #[error("the store is damaged: its rows are not in order, behind row {row}")]
    OutOfOrder {
        /// Rows before the first wrong one.
        row: u64,
    },
    /// The folder to restore from is no backup.
    #[error("the folder {} is no backup", path.display())]
    NotABackup {
        /// The folder.
        path: PathBuf,
    },
    /// The backup is not what it was when it was made.
    #[error("the backup {} is damaged: its data.mdb has {found}, and had {expected} when it was made", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// Length and checksum, as they were.
        expected: Content,
        /// Length and checksum, as they are.
        found: Content,
    },
}

/// What identifies the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Its length, in bytes.
    pub bytes: u64,
    /// Its checksum.
    pub crc32: u32,
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes and the checksum {:08x}", self.bytes, self.crc32)
    }
}

impl CopyError {
    /// A stable name of the failure, `group.code`, for scripts.
    pub fn code(&self) -> String {
        match self {
            Self::Source(error) => format!("store.{}", error.code()),
            Self::Target(error) => format!("copy.{}", error.code()),
            Self::NotEmpty { .. } => "copy.not_empty".into(),
            Self::NoRoom { .. } => "copy.no_room".into(),
            Self::Write { .. } => "copy.not_writable".into(),
            Self::OutOfOrder { .. } => "store.damaged".into(),
            Self::NotABackup { .. } => "copy.not_a_backup".into(),
            Self::Damaged { .. } => "copy.damaged".into(),
        }
    }

    fn write(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
        if full.contains(&source.kind()) { Self::NoRoom { path } } else { Self::Write { path, source } }
    }
}

impl Backup {
    /// What the folder says, if it is a backup.
    pub(super) fn of(path: &Path) -> Result<Option<Self>, StoreError> {
        match fs::read_to_string(path.join(BACKUP)) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| StoreError::UnknownFormat { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::failed(error)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        Some(Self {
            made_at_ms: field("made_at_ms")?.parse().ok()?,
            rows: field("rows")?.parse().ok()?,
            bytes: field("bytes")?.parse().ok()?,
            crc32: u32::from_str_radix(field("crc32")?, 16).ok()?,
        })
    }

    fn text(&self) -> String {
        let Self { made_at_ms, rows, bytes, crc32 } = self;
        format!("made_at_ms {made_at_ms}\nrows {rows}\nbytes {bytes}\ncrc32 {crc32:08x}\n")
    }

    fn check(&self, path: &Path, found: Content) -> Result<(), CopyError> {
        let expected = Content { bytes: self.bytes, crc32: self.crc32 };
        if found == expected { Ok(()) } else { Err(CopyError::Damaged { path: path.to_owned(), expected, found }) }
    }
}

impl ReadOnly {
    /// Copies one state of the store into a folder that does not exist or is empty, durably. The process that serves the store
    /// goes on meanwhile. `now_ms` is the time in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`CopyError`]; then the folder is as empty as before.
    pub fn back_up(&self, folder: &Path, now_ms: i64) -> Result<Backup, CopyError> {
        let target = Target::prepare(folder)?;
        let rows = copy_rows(&self.table, &target)?;
        let content = read_through(&target.partial(), |_| Ok(())).map_err(|source| CopyError::write(folder, source))?;
        let backup = Backup { made_at_ms: now_ms, rows, bytes: content.bytes, crc32: content.crc32 };
        target.finish(Some(&backup))?;
        Ok(backup)
    }
}

/// Checks that a backup is byte by byte what it was when it was made. To be called before anybody opens it: reading a damaged
/// database may end the process.
///
/// # Errors
/// [`CopyError`].
pub fn verify(backup: &Path) -> Result<(), CopyError> {
    let made = what_was_made(backup)?;
    let cannot_read = |source| CopyError::Source(StoreError::failed(source));
    let found = read_through(&backup.join(DATA_FILE), |_| Ok(())).map_err(cannot_read)?;
    made.check(backup, found)
}

/// Copies a backup into a data folder that does not exist or is empty, durably.
///
/// # Errors
/// [`CopyError`]; then the folder is as empty as before.
pub fn restore(backup: &Path, folder: &Path) -> Result<Backup, CopyError> {
    let made = what_was_made(backup)?;
    let target = Target::prepare(folder)?;
    let copy = |source| CopyError::write(folder, source);
    let mut file = File::create(target.partial()).map_err(copy)?;
    let found = read_through(&backup.join(DATA_FILE), |part| {
        file.write_all(part)?;
        file.sync_data()
    });
    let found = found.map_err(copy)?;
    file.sync_all().map_err(copy)?;
    made.check(backup, found)?;
    target.finish(None)?;
    Ok(made)
}

/// What a backup says of itself.
fn what_was_made(backup: &Path) -> Result<Backup, CopyError> {
    folder::check_readable(backup).map_err(CopyError::Source)?;
    let made = Backup::of(backup).map_err(CopyError::Source)?;
    made.ok_or_else(|| CopyError::NotABackup { path: backup.to_owned() })
}

/// Length and checksum of a file, whose parts `each` gets in order.
fn read_through(path: &Path, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<Content> {
    let mut file = File::open(path)?;
    let mut part = vec![0; STEP_BYTES];
    let (mut bytes, mut hasher) = (0, crc32fast::Hasher::new());
    loop {
        let length = file.read(&mut part)?;
        if length == 0 {
            return Ok(Content { bytes, crc32: hasher.finalize() });
        }
        hasher.update(&part[..length]);
        bytes += length as u64;
        each(&part[..length])?;
    }
}

/// Copies all rows of one state into a new file, and returns how many there are.
fn copy_rows(source: &Table, target: &Target<'_>) -> Result<u64, CopyError> {
    let file = Table::create_file(&target.partial()).map_err(|error| target.failed(error))?;
    let to = file.entries().map_err(|error| target.failed(error))?;
    let from = source.entries().map_err(CopyError::Source)?;
    let snapshot = source.begin_read().map_err(CopyError::Source)?;
    let mut rows = from.iter(&snapshot).map_err(|error| CopyError::Source(failure(error)))?;
    let mut copied = 0;
    loop {
        let mut transaction = file.begin_write().map_err(|error| target.failed(error))?;
        let before = copied;
        let mut bytes = 0;
        while bytes < STEP_BYTES {
            let Some(row) = rows.next() else { break };
            let (key, value) = row.map_err(|error| CopyError::Source(failure(error)))?;
            to.put_with_flags(&mut transaction, PutFlags::APPEND, key, value).map_err(|error| {
                // LMDB appends nothing but what is greater than all before it.
                let in_order = !matches!(error, heed::Error::Mdb(MdbError::KeyExist));
                if in_order { target.failed(file.write_failure(error)) } else { CopyError::OutOfOrder { row: copied } }
            })?;
            copied += 1;
            bytes += key.len() + value.len();
        }
        transaction.commit().map_err(|error| target.failed(file.write_failure(error)))?;
        if copied == before {
            return Ok(copied);
        }
    }
}

/// A folder into which a copy is being made. What is in it is removed when this is dropped unfinished.
struct Target<'a> {
    folder: &'a Path,
    /// Whether it was not there before.
    made: bool,
    finished: bool,
    _claim: Claim,
}

impl<'a> Target<'a> {
    /// Claims a folder that does not exist or is empty.
    fn prepare(folder: &'a Path) -> Result<Self, CopyError> {
        let made = !folder.exists();
        let fault = |source| CopyError::write(folder, source);
        fs::create_dir_all(folder).map_err(fault)?;
        // Looked at before anything is written: it may be somebody's folder of something else.
        check_empty(folder)?;
        let claim = folder::claim_target(folder).map_err(CopyError::Target)?;
        // Somebody may have finished a copy since then.
        check_empty(folder)?;
        let target = Self { folder, made, finished: false, _claim: claim };
        match fs::remove_file(target.partial()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault(error)),
            Ok(()) | Err(_) => Ok(target),
        }
    }

    fn partial(&self) -> PathBuf {
        self.folder.join(PARTIAL)
    }

    /// Why the copy could not be written.
    fn failed(&self, error: StoreError) -> CopyError {
        let full = matches!(error, StoreError::Full(_));
        if full { CopyError::NoRoom { path: self.folder.to_owned() } } else { CopyError::Target(error) }
    }

    /// Makes the folder one that counts, with what is in the partial file.
    fn finish(mut self, backup: Option<&Backup>) -> Result<(), CopyError> {
        self.try_finish(backup).map_err(|source| CopyError::write(self.folder, source))?;
        self.finished = true;
        Ok(())
    }

    fn try_finish(&self, backup: Option<&Backup>) -> io::Result<()> {
        folder::write_format(self.folder)?;
        if let Some(backup) = backup {
            let mut file = File::create(self.folder.join(BACKUP))?;
            file.write_all(backup.text().as_bytes())?;
            file.sync_all()?;
        }
        folder::sync(self.folder)?;
        fs::rename(self.partial(), self.folder.join(DATA_FILE))?;
        folder::sync(self.folder)?;
        // The folder's own name is new, too.
        self.folder.canonicalize()?.parent().map_or(Ok(()), folder::sync)
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // What cannot be removed is refused by everybody but the next copy.
        for name in [PARTIAL, "FORMAT", BACKUP, "LOCK"] {
            let _ = fs::remove_file(self.folder.join(name));
        }
        if self.made {
            let _ = fs::remove_dir(self.folder);
        }
    }
}

fn check_empty(folder: &Path) -> Result<(), CopyError> {
    for entry in fs::read_dir(folder).map_err(|source| CopyError::write(folder, source))? {
        let entry = entry.map_err(|source| CopyError::write(folder, source))?.file_name();
        if !MAY_BE_THERE.iter().any(|name| entry == *name) {
            return Err(CopyError::NotEmpty { path: folder.to_owned(), entry: entry.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backup_says_of_itself_is_read_back() {
        let backup = Backup { made_at_ms: 1_795_225_270_314, rows: 7, bytes: 8192, crc32: 0x00ab_cdef };
        assert_eq!(Backup::parse(&backup.text()), Some(backup));
        for text in ["", "made_at_ms 1\nrows 2\nbytes 3\n", "made_at_ms 1\nrows 2\nbytes 3\ncrc32 xyz\n"] {
            assert_eq!(Backup::parse(text), None, "{text:?}");
        }
    }
}
