//! Ordered key-value store with declared-read transactions. It knows nothing of actors.
//!
//! Everything is done with five verbs: [`Store::get`] and [`Store::scan`] read a snapshot, [`Store::explore`] reads one step
//! by step, [`Store::write`] applies a [`Batch`] atomically and durably, and [`Store::update`] reads what it declares and then
//! decides what to write, with nothing in between. Keys and values are plain bytes, keys sort bytewise.
//!
//! Drivers are a closed set: LMDB on disk, and memory for tests and simulation. They pass one conformance suite.

mod batch;
mod error;
mod explore;
mod health;
mod lmdb;
mod memory;
mod read;
#[cfg(feature = "simulation")]
mod simulated;
mod update;

use std::fmt;

use bytes::Bytes;

pub use crate::batch::Batch;
pub use crate::error::{Shortage, StoreError};
pub use crate::explore::Explorer;
pub use crate::lmdb::{
    Backup, Content, CopyError, DEFAULT_MAP_SIZE_BYTES, Durability, LmdbOptions, ReadOnly, restore as restore_backup,
    verify as verify_backup,
};
pub use crate::read::{DEFAULT_SCAN_MAX_BYTES, Found, Reads, Scan, prefix_end};
#[cfg(feature = "simulation")]
pub use crate::simulated::{Change, DiskFate, KillSwitch, SimulatedDisk};
pub use crate::update::{Decision, MAX_READ_ROUNDS, View};

/// Longest key, in bytes: what LMDB can hold with 4 KiB pages.
pub const MAX_KEY_BYTES: usize = 1982;

/// Largest [`Batch`], in bytes of keys and values. Bounds how long one caller can keep all others waiting.
pub const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;

/// A handle to a store; clones share it.
///
/// Dropping the last handle stops the store's threads after everything in its inbox is written, but does not wait for
/// them; [`Store::close`] does.
#[derive(Clone)]
pub struct Store {
    driver: Driver,
}

#[derive(Clone)]
enum Driver {
    Lmdb(lmdb::Lmdb),
    Memory(memory::Memory),
    #[cfg(feature = "simulation")]
    Simulated(simulated::Simulated),
}

impl Store {
    /// Opens, or creates, a store in a folder. Blocks while the files are opened; a missing folder is created.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process (or another `Store` of this one) has the folder open,
    /// [`StoreError::NotWritable`], [`StoreError::NewerFormat`], [`StoreError::OlderFormat`], [`StoreError::UnknownFormat`], or
    /// [`StoreError::Failed`].
    pub fn open_lmdb(options: LmdbOptions) -> Result<Self, StoreError> {
        Ok(Self { driver: Driver::Lmdb(lmdb::Lmdb::open(options)?) })
    }

    /// An empty store that is gone with its last handle.
    pub fn memory() -> Self {
        Self { driver: Driver::Memory(memory::Memory::default()) }
    }

    /// The values of `keys`, in the same order, all from one snapshot.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or [`StoreError::Failed`].
    pub async fn get(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, StoreError> {
        Ok(self.read(Reads { keys, ranges: Vec::new() }).await?.keys)
    }

    /// The entries of a range, from one snapshot.
    ///
    /// # Errors
    /// [`StoreError::ScanTooLarge`], [`StoreError::Closed`] or [`StoreError::Failed`].
    pub async fn scan(&self, scan: Scan) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut found = self.read(Reads { keys: Vec::new(), ranges: vec![scan] }).await?;
        Ok(found.ranges.pop().unwrap_or_default())
    }

    /// Several keys and ranges from one snapshot.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::scan`].
    pub async fn read(&self, reads: Reads) -> Result<Found, StoreError> {
        match &self.driver {
            Driver::Lmdb(lmdb) => lmdb.read(reads).await,
            Driver::Memory(memory) => memory.read(&reads),
            #[cfg(feature = "simulation")]
            Driver::Simulated(simulated) => simulated.read(&reads),
        }
    }

    /// Reads one snapshot step by step, where what is to be read depends on what was found, or where it is to end early.
    ///
    /// `explore` runs on one of the few threads that read for everybody: it must be quick and must not block.
    ///
    /// # Errors
    /// [`StoreError::ExplorePanicked`], [`StoreError::Closed`] or [`StoreError::Failed`].
    pub async fn explore<T, F>(&self, explore: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Explorer<'_>) -> T + Send + 'static,
    {
        match &self.driver {
            Driver::Lmdb(lmdb) => lmdb.explore(explore).await,
            Driver::Memory(memory) => memory.explore(explore),
            #[cfg(feature = "simulation")]
            Driver::Simulated(simulated) => simulated.explore(explore),
        }
    }

    /// Explores one snapshot on the calling thread, for as long as it takes; the thread must be one that may block. What others
    /// free meanwhile cannot be used again until this returns, so the file grows by what they write. A store that is closed
    /// meanwhile keeps its folder until this returns.
    ///
    /// # Errors
    /// As [`Store::explore`].
    pub fn snapshot<T>(&self, explore: impl FnOnce(&Explorer<'_>) -> T) -> Result<T, StoreError> {
        match &self.driver {
            Driver::Lmdb(lmdb) => lmdb.snapshot(explore),
            Driver::Memory(memory) => memory.snapshot(explore),
            #[cfg(feature = "simulation")]
            Driver::Simulated(simulated) => simulated.snapshot(explore),
        }
    }

    /// Applies a batch: all of it, durably, when this returns `Ok`. Waits while the inbox is full.
    ///
    /// Once polled to the point where the batch is in the inbox, it is applied even if the future is dropped.
    ///
    /// # Errors
    /// [`StoreError::KeyEmpty`], [`StoreError::KeyTooLong`] and [`StoreError::BatchTooLarge`] before anything is done;
    /// [`StoreError::Full`] and [`StoreError::ReadOnly`], after which nothing of the batch is on disk and it may be tried
    /// again; [`StoreError::Closed`], [`StoreError::Damaged`]; after [`StoreError::Failed`] it is unknown whether the batch
    /// is on disk.
    pub async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        match &self.driver {
            Driver::Lmdb(lmdb) => lmdb.write(batch).await,
            Driver::Memory(memory) => memory.write(batch),
            #[cfg(feature = "simulation")]
            Driver::Simulated(simulated) => simulated.write(batch).await,
        }
    }

    /// Hands over a batch that nobody waits for. It is written with the next group, or after 50 ms, and seen by every
    /// `write` and `update` that is called later. A crash may lose it, and only together with everything after it; so may
    /// a lack of room, without anything after it.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if the inbox is full: nothing was done, and the caller may `write` instead. Otherwise as
    /// [`Store::write`].
    pub fn write_lazy(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        match &self.driver {
            Driver::Lmdb(lmdb) => lmdb.write_lazy(batch),
            Driver::Memory(memory) => memory.write(batch),
            #[cfg(feature = "simulation")]
            Driver::Simulated(simulated) => simulated.write_lazy(batch),
        }
    }

    /// Reads what `reads` declares and lets `decide` say what to write, in one step that nothing comes between.
    /// Durable when this returns `Ok`; that holds for [`Decision::Skip`], too: what it saw is durable.
    ///
    /// `decide` runs on the thread that commits for everybody: it must be quick and must not block. It may be called
    /// again from the start (with the first `reads`) if a neighbour in the same group failed, so its answer must depend
    /// on the [`View`] alone.
    ///
    /// # Errors
    /// As [`Store::write`] and [`Store::scan`]; [`StoreError::DecidePanicked`]; [`StoreError::TooManyReads`] if `decide`
    /// asked for more reads than [`MAX_READ_ROUNDS`] times.
    pub async fn update<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&View<'_>) -> Decision<T> + Send + 'static,
    {
        match &self.driver {
            Driver::Lmdb(lmdb) => lmdb.update(reads, decide).await,
            Driver::Memory(memory) => memory.update(&reads, decide),
            #[cfg(feature = "simulation")]
            Driver::Simulated(simulated) => simulated.update(reads, decide).await,
        }
    }

    /// Why the latest write was refused, while there is reason to believe that the next one will be, too: full, read-only,
    /// or failed for good. `None`: the store takes writes.
    pub fn trouble(&self) -> Option<StoreError> {
        match &self.driver {
            Driver::Lmdb(lmdb) => lmdb.health().borrow().trouble(),
            Driver::Memory(_) => None,
            #[cfg(feature = "simulation")]
            Driver::Simulated(_) => None,
        }
    }

    /// Waits until the store has failed for good, and says why: nothing can be written any more, and perhaps nothing read.
    /// Only another process can find out what is on disk.
    pub async fn failed(&self) -> StoreError {
        match &self.driver {
            Driver::Lmdb(lmdb) => health::failed(lmdb.health()).await,
            Driver::Memory(_) => std::future::pending().await,
            #[cfg(feature = "simulation")]
            Driver::Simulated(_) => std::future::pending().await,
        }
    }

    /// Writes what is in the inbox, stops the threads and releases the folder. Everything later is answered
    /// [`StoreError::Closed`]. Closing twice is fine.
    pub async fn close(&self) {
        match &self.driver {
            Driver::Lmdb(lmdb) => lmdb.close().await,
            Driver::Memory(memory) => memory.close(),
            #[cfg(feature = "simulation")]
            Driver::Simulated(simulated) => simulated.close().await,
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.driver {
            Driver::Lmdb(_) => "Store(lmdb)",
            Driver::Memory(_) => "Store(memory)",
            #[cfg(feature = "simulation")]
            Driver::Simulated(_) => "Store(simulated)",
        })
    }
}
