//! The one LMDB database, and what can be done within its transactions.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::iter;
use std::path::Path;
use std::sync::Arc;

use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};

use super::folder::{self, Claim};
use super::readers::READER_THREADS;
use super::{DEFAULT_MAP_SIZE_BYTES, Durability, LmdbOptions};
use crate::batch::Write;
use crate::read::{self, Entry, Snapshot, key_range};
use crate::{Batch, MAX_KEY_BYTES, Scan, Shortage, StoreError};

/// LMDB maps whole pages; this is a multiple of every page size in use, in bytes.
const MAP_STEP_BYTES: u64 = 64 * 1024;
/// Places in LMDB's table of readers besides our own threads: for an administrator's tools.
const FOREIGN_READERS: u32 = 16;
/// Places for what this process reads for minutes: copies of actors, of which `actor_data` makes a few at a time. So they take
/// none of the places of the threads that read for everybody.
const SNAPSHOT_READERS: u32 = 16;
/// The table has one size for all processes.
const MAX_READERS: u32 = READER_THREADS + SNAPSHOT_READERS + FOREIGN_READERS;

/// LMDB's file with all data, in the data folder.
pub(super) const DATA_FILE: &str = "data.mdb";
/// What the system says when a device fails, and LMDB when the system wrote less than it was given. The same number on every
/// Unix; it has no [`io::ErrorKind`] of its own.
const EIO: i32 = 5;

/// An open database. LMDB is closed and the folder released when this is dropped.
pub(super) struct Table {
    // Fields are dropped in this order: the folder is released last.
    env: Env<WithoutTls>,
    /// None if it is only read, or is no folder of its own.
    _claim: Option<Claim>,
}

/// All entries live in LMDB's unnamed database: a named one would cost another page in each commit.
pub(super) type Entries<'env> = Database<'env, Raw, Raw>;

impl Table {
    pub(super) fn open(options: &LmdbOptions) -> Result<Self, StoreError> {
        let path = &options.path;
        let claim = folder::claim(path)?;

        let map_size = options.map_size_bytes.max(1).next_multiple_of(MAP_STEP_BYTES);
        // Otherwise LMDB ties a place in its table of readers to each thread that reads, and gives it back when that thread ends,
        // also one that ended reading long ago, and also at the very moment when the table goes.
        let mut env_options = EnvOpenOptions::new().read_txn_without_tls();
        env_options.map_size(usize::try_from(map_size).unwrap_or(usize::MAX));
        env_options.max_readers(MAX_READERS);
        if options.durability == Durability::Os {
            #[expect(unsafe_code, reason = "leaving the sync out is what the operator asked for")]
            // SAFETY: the flag endangers the file when the machine fails, not this process.
            unsafe {
                env_options.flags(EnvFlags::NO_SYNC);
            }
        }
        #[expect(unsafe_code, reason = "a memory map is only sound if nobody else changes the file")]
        // SAFETY: `claim` keeps every other process of this program out, and `heed` refuses a second map in this one.
        let env = unsafe { env_options.open(path) }.map_err(|error| open_failure(path, error))?;
        assert!(env.max_key_size() >= MAX_KEY_BYTES, "LMDB must be built with the feature `longer-keys`");
        folder::sync(path).map_err(StoreError::failed)?;

        let table = Self { env, _claim: Some(claim) };
        // Each thread opens the entries for itself; what can fail there should fail here.
        table.entries()?;
        Ok(table)
    }

    /// Opens a database for reading. If it is `shared`, another process may be writing to it.
    pub(super) fn open_to_read(path: &Path, shared: bool) -> Result<Self, StoreError> {
        let mut env_options = EnvOpenOptions::new().read_txn_without_tls();
        // The map is as large as its writer's: that is what LMDB does if nothing is said.
        env_options.max_readers(MAX_READERS);
        let flags = if shared { EnvFlags::READ_ONLY } else { EnvFlags::READ_ONLY | EnvFlags::NO_LOCK };
        #[expect(unsafe_code, reason = "reading a memory map that another process changes is only sound under LMDB's own lock")]
        // SAFETY: a shared file is read under LMDB's lock, whose table of readers keeps its writer from changing pages that are
        // being read; `folder::check_readable` excludes processes that this table cannot tell apart. Without that lock only
        // backups are read, which nobody changes: they are made under another name, and `folder::claim` refuses them.
        let env = unsafe { env_options.flags(flags).open(path) }.map_err(|error| open_failure(path, error))?;
        let table = Self { env, _claim: None };
        table.forget_dead_readers()?;
        table.entries()?;
        Ok(table)
    }

    /// Opens a new database that is a single file, for one thread that fills it.
    pub(super) fn create_file(path: &Path) -> Result<Self, StoreError> {
        let mut env_options = EnvOpenOptions::new().read_txn_without_tls();
        env_options.map_size(usize::try_from(DEFAULT_MAP_SIZE_BYTES).unwrap_or(usize::MAX));
        #[expect(unsafe_code, reason = "a file of this process alone needs no lock")]
        // SAFETY: the folder is claimed, and no other part of this program opens a file of this name.
        let env = unsafe { env_options.flags(EnvFlags::NO_SUB_DIR | EnvFlags::NO_LOCK).open(path) };
        Ok(Self { env: env.map_err(|error| open_failure(path, error))?, _claim: None })
    }

    /// Gives back what processes that were killed while they read keep from being used again.
    pub(super) fn forget_dead_readers(&self) -> Result<usize, StoreError> {
        self.env.clear_stale_readers().map_err(failure)
    }

    /// Number of the last page of the file that is in use: the file grows with it, and never shrinks.
    pub(super) fn last_page(&self) -> usize {
        self.env.info().last_page_number
    }

    /// The handle to the entries, needed in every transaction.
    pub(super) fn entries(&self) -> Result<Entries<'_>, StoreError> {
        let opened = self.env.open_databases_and_commit(self.begin_read()?, |opener, transaction| {
            let entries = opener.open_database(transaction, None)?;
            // LMDB makes the unnamed database together with the file.
            let entries = entries.ok_or(heed::Error::Mdb(MdbError::NotFound))?;
            Ok::<_, heed::Error>(CommitOrAbort::<Entries<'_>, Entries<'_>>::Commit(entries))
        });
        match opened.map_err(failure)? {
            CommitOrAbort::Commit(entries) | CommitOrAbort::Abort(entries) => Ok(entries),
        }
    }

    pub(super) fn begin_read(&self) -> Result<RoTxn<'_, WithoutTls>, StoreError> {
        match self.env.read_txn() {
            // Places of processes that were killed are taken until somebody looks.
            Err(heed::Error::Mdb(MdbError::ReadersFull)) => {
                self.forget_dead_readers()?;
                self.env.read_txn().map_err(failure)
            }
            begun => begun.map_err(failure),
        }
    }

    pub(super) fn begin_write(&self) -> Result<RwTxn<'_>, StoreError> {
        self.env.write_txn().map_err(failure)
    }

    /// Our error for LMDB's, after a write. LMDB writes pages that nobody refers to yet, syncs, and then one page that refers
    /// to them. As long as it fails before that one, nothing has changed, and it can go on.
    pub(super) fn write_failure(&self, error: heed::Error) -> StoreError {
        if let heed::Error::Io(cause) = &error
            && cause.raw_os_error() == Some(EIO)
            && let Err(shortage) = self.try_to_grow()
        {
            return failure(heed::Error::Io(shortage));
        }
        failure(error)
    }

    /// Whether LMDB could still begin a transaction. It does not if it failed at the one page. That all places of readers are
    /// taken says nothing about that.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self.env.read_txn(), Ok(_) | Err(heed::Error::Mdb(MdbError::ReadersFull)))
    }

    /// Tells a failing device from a full one, at the end of the file: a write that the system cut short has filled it up to
    /// there. To be called by the thread that writes.
    fn try_to_grow(&self) -> io::Result<()> {
        let path = self.env.path();
        let path = if path.is_dir() { path.join(DATA_FILE) } else { path.to_owned() };
        let mut file = OpenOptions::new().append(true).open(path)?;
        let end = file.metadata()?.len();
        let page = [0; 4096];
        let written = file.write(&page)?;
        file.set_len(end)?;
        if written == page.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

/// What a transaction sees.
pub(super) struct Seen<'a> {
    pub(super) entries: &'a Entries<'a>,
    pub(super) transaction: &'a RoTxn<'a>,
}

impl<'a> Snapshot<'a> for Seen<'a> {
    fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>, StoreError> {
        // LMDB refuses to look for a key that cannot exist.
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Ok(None);
        }
        self.entries.get(self.transaction, key).map_err(failure)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<Entry<'a>>, StoreError> {
        let Some(range) = scan.bounds() else { return Ok(Vec::new()) };
        if scan.reverse {
            let entries = self.entries.rev_range(self.transaction, &range).map_err(failure)?;
            scan.collect(entries.map(|entry| entry.map_err(failure)))
        } else {
            let entries = self.entries.range(self.transaction, &range).map_err(failure)?;
            scan.collect(entries.map(|entry| entry.map_err(failure)))
        }
    }

    fn range(&self, start: &[u8], end: &[u8]) -> Result<read::Entries<'a>, StoreError> {
        let Some(range) = key_range(start, end) else { return Ok(Box::new(iter::empty())) };
        let entries = self.entries.range(self.transaction, &range).map_err(failure)?;
        Ok(Box::new(entries.map(|entry| entry.map_err(failure))))
    }
}

/// Applies a batch that was checked. After an error the transaction must be abandoned.
pub(super) fn apply(entries: &Entries<'_>, transaction: &mut RwTxn<'_>, batch: &Batch) -> Result<(), heed::Error> {
    for write in batch.writes() {
        match write {
            Write::Put { key, value } => entries.put(transaction, key, value)?,
            Write::Delete { key } => {
                entries.delete(transaction, key)?;
            }
            Write::DeleteRange { start, end } => {
                if let Some(range) = key_range(start, end) {
                    entries.delete_range(transaction, &range)?;
                }
            }
        }
    }
    Ok(())
}

/// Writes something that changes nothing, to see whether that is possible.
pub(super) fn apply_nothing(entries: &Entries<'_>, transaction: &mut RwTxn<'_>) -> Result<(), heed::Error> {
    let key: &[u8] = &[0];
    match entries.get(transaction, key)?.map(<[u8]>::to_vec) {
        Some(value) => entries.put(transaction, key, &value),
        None => {
            entries.put(transaction, key, &[])?;
            entries.delete(transaction, key).map(drop)
        }
    }
}

/// Our error for LMDB's.
pub(super) fn failure(error: heed::Error) -> StoreError {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => StoreError::Full(Shortage::Store),
        heed::Error::Mdb(MdbError::Corrupted | MdbError::PageNotFound | MdbError::CursorFull) => {
            StoreError::Damaged { source: Arc::new(error) }
        }
        heed::Error::Io(cause) => io_failure(cause),
        heed::Error::Mdb(_) | heed::Error::Encoding(_) | heed::Error::Decoding(_) | heed::Error::EnvAlreadyOpened => {
            StoreError::failed(error)
        }
    }
}

fn io_failure(cause: io::Error) -> StoreError {
    let shortages = [
        (io::ErrorKind::StorageFull, Shortage::Disk),
        (io::ErrorKind::QuotaExceeded, Shortage::Quota),
        (io::ErrorKind::FileTooLarge, Shortage::FileSize),
    ];
    if let Some((_, shortage)) = shortages.into_iter().find(|(kind, _)| *kind == cause.kind()) {
        StoreError::Full(shortage)
    } else if matches!(cause.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) {
        StoreError::ReadOnly { source: Arc::new(cause) }
    } else {
        StoreError::failed(cause)
    }
}

fn open_failure(path: &Path, error: heed::Error) -> StoreError {
    match error {
        heed::Error::Io(cause) if matches!(cause.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            folder::not_writable(path, cause)
        }
        heed::Error::Io(_)
        | heed::Error::Mdb(_)
        | heed::Error::Encoding(_)
        | heed::Error::Decoding(_)
        | heed::Error::EnvAlreadyOpened => failure(error),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_database_with_many_readers_is_usable() {
        let folder = tempfile::tempdir().unwrap();
        let table = Table::open(&LmdbOptions { durability: Durability::Os, ..LmdbOptions::new(folder.path()) }).unwrap();
        let mut readers = Vec::new();
        let refused = loop {
            match table.begin_read() {
                Ok(reader) => readers.push(reader),
                Err(refused) => break refused,
            }
        };
        assert_eq!((refused.code(), readers.len()), ("failed", MAX_READERS as usize));
        assert!(table.is_usable());
        table.begin_write().unwrap().commit().unwrap();
    }

    #[test]
    fn what_the_system_says_has_a_name() {
        let named = |errno: Errno| failure(heed::Error::Io(io::Error::from_raw_os_error(errno.raw_os_error())));
        for (errno, text) in [
            (Errno::NOSPC, "the store is full: no space left on its disk"),
            (Errno::DQUOT, "the store is full: the disk quota of its user is used up"),
            (Errno::FBIG, "the store is full: its file has reached the largest size that the system allows"),
        ] {
            assert_eq!(named(errno).to_string(), text);
        }
        for errno in [Errno::ROFS, Errno::PERM, Errno::ACCESS] {
            let error = named(errno);
            assert_eq!((error.code(), error.may_pass()), ("read_only", true));
        }
        for errno in [Errno::IO, Errno::NODEV, Errno::STALE] {
            let error = named(errno);
            assert_eq!((error.code(), error.may_pass()), ("failed", false));
        }
        assert_eq!(Errno::IO.raw_os_error(), EIO);
        assert_eq!(failure(heed::Error::Mdb(MdbError::MapFull)).code(), "full");
        assert_eq!(failure(heed::Error::Mdb(MdbError::Corrupted)).code(), "damaged");
        assert_eq!(failure(heed::Error::Mdb(MdbError::Panic)).code(), "failed");
    }
}
