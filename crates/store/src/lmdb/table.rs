//! The one LMDB database, and what can be done within its transactions.

use std::io;
use std::iter;
use std::path::Path;

use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};

use super::folder::{self, Claim};
use super::readers::READER_THREADS;
use super::{Durability, LmdbOptions};
use crate::batch::Write;
use crate::read::{self, Entry, Snapshot, key_range};
use crate::{Batch, MAX_KEY_BYTES, Scan, StoreError};

/// LMDB maps whole pages; this is a multiple of every page size in use, in bytes.
const MAP_STEP_BYTES: u64 = 64 * 1024;
/// Places in LMDB's table of readers besides our own threads: for an administrator's tools.
const FOREIGN_READERS: u32 = 16;

/// An open database. LMDB is closed and the folder released when this is dropped.
pub(super) struct Table {
    // Fields are dropped in this order: the folder is released last.
    env: Env<WithoutTls>,
    _claim: Claim,
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
        env_options.max_readers(READER_THREADS + FOREIGN_READERS);
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

        let table = Self { env, _claim: claim };
        // Each thread opens the entries for itself; what can fail there should fail here.
        table.entries()?;
        Ok(table)
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
        self.env.read_txn().map_err(failure)
    }

    pub(super) fn begin_write(&self) -> Result<RwTxn<'_>, StoreError> {
        self.env.write_txn().map_err(failure)
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
pub(super) fn apply(entries: &Entries<'_>, transaction: &mut RwTxn<'_>, batch: &Batch) -> Result<(), StoreError> {
    for write in batch.writes() {
        match write {
            Write::Put { key, value } => entries.put(transaction, key, value).map_err(failure)?,
            Write::Delete { key } => {
                entries.delete(transaction, key).map_err(failure)?;
            }
            Write::DeleteRange { start, end } => {
                if let Some(range) = key_range(start, end) {
                    entries.delete_range(transaction, &range).map_err(failure)?;
                }
            }
        }
    }
    Ok(())
}

/// Our error for LMDB's.
pub(super) fn failure(error: heed::Error) -> StoreError {
    let full = match &error {
        heed::Error::Mdb(cause) => *cause == MdbError::MapFull,
        heed::Error::Io(cause) => matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
        heed::Error::Encoding(_) | heed::Error::Decoding(_) | heed::Error::EnvAlreadyOpened => false,
    };
    if full { StoreError::Full } else { StoreError::failed(error) }
}

fn open_failure(path: &Path, error: heed::Error) -> StoreError {
    match error {
        heed::Error::Io(cause) if cause.kind() == io::ErrorKind::PermissionDenied => folder::not_writable(path, cause),
        heed::Error::Io(_)
        | heed::Error::Mdb(_)
        | heed::Error::Encoding(_)
        | heed::Error::Decoding(_)
        | heed::Error::EnvAlreadyOpened => failure(error),
    }
}
