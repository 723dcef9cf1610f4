//! Driver on disk.
//!
//! One thread commits, a few read. The committer takes everything that waits in its inbox into one LMDB transaction:
//! however many callers wait, there is one sync to disk ("group commit"). Reads copy what they find, so no snapshot
//! outlives a request and LMDB can reuse its pages at once.

mod backup;
mod committer;
mod condition;
mod folder;
mod growth;
mod read_only;
mod readers;
mod table;

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, unbounded};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot, watch};

pub use self::backup::{Backup, Content, CopyError, restore, verify};
pub use self::read_only::ReadOnly;

use self::committer::{Message, Operation, Work};
use self::readers::Readers;
use self::table::Table;
use crate::health::Health;
use crate::{Batch, Decision, Explorer, Found, MAX_BATCH_BYTES, Reads, StoreError, View, update};

/// Default of [`LmdbOptions::map_size_bytes`]: 1 TiB of addresses. Neither memory nor disk is taken before it is used.
pub const DEFAULT_MAP_SIZE_BYTES: u64 = 1 << 40;

/// Bytes that may wait in the inbox; callers wait above it. Any single batch fits.
const INBOX_MAX_BYTES: usize = MAX_BATCH_BYTES;
/// What an operation costs in the inbox besides its keys and values, in bytes. So at most 16,384 operations wait.
const OPERATION_BYTES: usize = 4096;

/// How to open a store on disk.
#[derive(Debug, Clone)]
pub struct LmdbOptions {
    /// The data folder.
    pub path: PathBuf,
    /// Most bytes that the store can ever hold, rounded up to whole pages.
    pub map_size_bytes: u64,
    /// When a write counts as durable.
    pub durability: Durability,
}

impl LmdbOptions {
    /// A folder with all defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), map_size_bytes: DEFAULT_MAP_SIZE_BYTES, durability: Durability::default() }
    }
}

/// When a write counts as durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on the disk. Survives the loss of power.
    #[default]
    Fsync,
    /// Once the operating system has it. Survives the loss of the process; the loss of the machine may damage the whole
    /// store.
    Os,
}

#[derive(Clone)]
pub(crate) struct Lmdb {
    inbox: Sender<Message>,
    /// Room in the inbox and in the group being committed, in bytes.
    room: Arc<Semaphore>,
    readers: Readers,
    /// Held by the committer and by snapshots.
    table: Weak<Table>,
    health: Arc<watch::Sender<Health>>,
    /// Of the committer, which is the last thread to end; taken by whoever closes the store.
    committer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Lmdb {
    pub(crate) fn open(options: LmdbOptions) -> Result<Self, StoreError> {
        let table = Arc::new(Table::open(&options)?);
        let (inbox, messages) = unbounded();
        let (readers, threads) = Readers::start(&table)?;
        let shared = Arc::downgrade(&table);
        let committer = thread::Builder::new().name("store-committer".into());
        let health = Arc::<watch::Sender<Health>>::default();
        let told = health.clone();
        let committer = committer.spawn(move || {
            committer::run(&table, messages, told);
            join(threads);
            // Closed only here, when nobody reads any more.
            drop(table);
        });
        let committer = Arc::new(Mutex::new(Some(committer.map_err(StoreError::failed)?)));
        Ok(Self { inbox, room: Arc::new(Semaphore::new(INBOX_MAX_BYTES)), readers, table: shared, health, committer })
    }

    /// Whether writes are possible.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(crate) async fn read(&self, reads: Reads) -> Result<Found, StoreError> {
        self.readers.read(reads).await
    }

    pub(crate) async fn explore<T, F>(&self, explore: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Explorer<'_>) -> T + Send + 'static,
    {
        self.readers.explore(explore).await
    }

    pub(crate) fn snapshot<T>(&self, explore: impl FnOnce(&Explorer<'_>) -> T) -> Result<T, StoreError> {
        let table = self.table.upgrade().ok_or(StoreError::Closed)?;
        read_only::snapshot(&table, explore)
    }

    pub(crate) async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let room = self.wait_for_room(batch.size_bytes()).await?;
        let (reply, outcome) = oneshot::channel();
        self.send(Work::Write { batch, reply: Some(reply) }, room)?;
        outcome.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(crate) fn write_lazy(&self, batch: Batch) -> Result<(), StoreError> {
        let room = self.room.clone().try_acquire_many_owned(permits(batch.size_bytes()));
        let room = room.map_err(|error| match error {
            TryAcquireError::NoPermits => StoreError::Busy,
            TryAcquireError::Closed => StoreError::Closed,
        })?;
        self.send(Work::Write { batch, reply: None }, room)
    }

    pub(crate) async fn update<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&View<'_>) -> Decision<T> + Send + 'static,
    {
        let room = self.wait_for_room(0).await?;
        let (job, answer) = update::job(reads, decide);
        self.send(Work::Update(job), room)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(crate) async fn close(&self) {
        // From here on nothing enters, and who waits for room is sent away.
        self.room.close();
        self.readers.close();
        // Fails only if the committer is gone already.
        let _ = self.inbox.send(Message::Close);
        let committer = self.committer.lock().take();
        if tokio::task::spawn_blocking(move || join(committer)).await.is_err() {
            tracing::error!("the store could not wait for its threads");
        }
    }

    async fn wait_for_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        self.room.clone().acquire_many_owned(permits(bytes)).await.map_err(|_| StoreError::Closed)
    }

    fn send(&self, work: Work, room: OwnedSemaphorePermit) -> Result<(), StoreError> {
        self.inbox.send(Message::Operation(Operation { work, _room: room })).map_err(|_| StoreError::Closed)
    }
}

/// Waits until threads have ended.
fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the store panicked");
        }
    }
}

/// Permits that an operation of `bytes` takes: never more than there are, so that it is let in sooner or later.
fn permits(bytes: usize) -> u32 {
    u32::try_from((bytes + OPERATION_BYTES).min(INBOX_MAX_BYTES)).unwrap_or(u32::MAX)
}
