//! Driver for simulations: the memory driver behind a disk that takes its time and outlives the process that uses it.
//!
//! It keeps the promises of the real one and no more: what is acknowledged is durable; what is durable may not be
//! acknowledged yet; what nobody waits for may be lost, together with everything after it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::batch::Write;
use crate::memory::Memory;
use crate::update::{self, UpdateJob};
use crate::{Batch, Decision, Driver, Explorer, Found, Reads, Shortage, Store, StoreError, View};

/// How long a batch that nobody waits for may stay in memory, as with the real driver.
const LAZY_DELAY: Duration = Duration::from_millis(50);

/// One row that was written; no value: deleted. Deletions of ranges are not reported.
pub type Change = (Bytes, Option<Bytes>);

/// What a simulation decides about a disk.
pub trait DiskFate: Send {
    /// How long the next group takes until it is durable, and how long it then takes until its writers hear of it.
    fn next_commit(&mut self) -> (Duration, Duration);

    /// A group has just become durable.
    fn committed(&mut self, changes: &[Change]);

    /// Whether there is no room for the next group. Usually there is.
    fn is_full(&mut self) -> bool {
        false
    }
}

/// What is durable; outlives the [`Store`]s that are opened on it, of which at most one should live at a time.
#[derive(Clone)]
pub struct SimulatedDisk {
    durable: Memory,
    fate: Arc<Mutex<Box<dyn DiskFate>>>,
}

/// The process's handle to a disk.
#[derive(Clone)]
pub(crate) struct Simulated(Arc<Process>);

struct Process {
    durable: Memory,
    inbox: mpsc::UnboundedSender<Operation>,
    /// Cleared by a crash.
    alive: Arc<AtomicBool>,
}

enum Operation {
    Write(Batch, Option<oneshot::Sender<Result<(), StoreError>>>),
    Update(Box<dyn UpdateJob>),
    Close(oneshot::Sender<()>),
}

/// Ends the process that uses a store.
pub struct KillSwitch {
    alive: Arc<AtomicBool>,
    committer: tokio::task::AbortHandle,
}

impl KillSwitch {
    /// From now on nothing is written, and every call fails: what was waiting is lost.
    pub fn kill(&self) {
        self.alive.store(false, Ordering::Relaxed);
        self.committer.abort();
    }
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(fate: impl DiskFate + 'static) -> Self {
        Self { durable: Memory::default(), fate: Arc::new(Mutex::new(Box::new(fate))) }
    }

    /// Opens a store on what is durable. To be called in the runtime in which the store is used.
    pub fn open(&self) -> (Store, KillSwitch) {
        let (inbox, operations) = mpsc::unbounded_channel();
        let alive = Arc::new(AtomicBool::new(true));
        let committer = tokio::spawn(commit_groups(self.clone(), operations)).abort_handle();
        let process = Process { durable: self.durable.clone(), inbox, alive: alive.clone() };
        (Store { driver: Driver::Simulated(Simulated(Arc::new(process))) }, KillSwitch { alive, committer })
    }

    /// Everything that is durable, in key order.
    pub fn rows(&self) -> Vec<(Bytes, Bytes)> {
        self.durable.rows()
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedDisk")
    }
}

impl fmt::Debug for KillSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KillSwitch")
    }
}

/// Body of the task that writes, one group after another.
async fn commit_groups(disk: SimulatedDisk, mut inbox: mpsc::UnboundedReceiver<Operation>) {
    while let Some(first) = inbox.recv().await {
        let mut group = vec![first];
        let due = tokio::time::Instant::now() + LAZY_DELAY;
        while group.iter().all(Operation::is_lazy) {
            match tokio::time::timeout_at(due, inbox.recv()).await {
                Ok(Some(operation)) => group.push(operation),
                Ok(None) | Err(_) => break,
            }
        }
        let (until_durable, until_heard) = disk.fate.lock().next_commit();
        tokio::time::sleep(until_durable).await;
        while let Ok(operation) = inbox.try_recv() {
            group.push(operation);
        }
        let outcomes = apply(&disk, &mut group);
        tokio::time::sleep(until_heard).await;
        for (operation, outcome) in group.into_iter().zip(outcomes) {
            operation.complete(outcome);
        }
    }
}

/// Writes a group and reports it.
fn apply(disk: &SimulatedDisk, group: &mut [Operation]) -> Vec<Result<(), StoreError>> {
    let mut changes = Vec::new();
    let is_full = disk.fate.lock().is_full();
    let outcomes = group.iter_mut().map(|operation| {
        let batch = match operation {
            Operation::Write(_, _) | Operation::Update(_) if is_full => return Err(StoreError::Full(Shortage::Disk)),
            Operation::Write(batch, _) => std::mem::take(batch),
            Operation::Update(job) => disk.durable.run(job.as_mut())?,
            Operation::Close(_) => return Ok(()),
        };
        changes.extend(batch.writes().iter().filter_map(|write| match write {
            Write::Put { key, value } => Some((key.clone(), Some(value.clone()))),
            Write::Delete { key } => Some((key.clone(), None)),
            Write::DeleteRange { .. } => None,
        }));
        disk.durable.write(batch)
    });
    let outcomes = outcomes.collect();
    if !changes.is_empty() {
        disk.fate.lock().committed(&changes);
    }
    outcomes
}

impl Operation {
    fn is_lazy(&self) -> bool {
        matches!(self, Self::Write(_, None))
    }

    fn complete(self, outcome: Result<(), StoreError>) {
        // Whoever does not wait any more needs no answer.
        match self {
            Self::Write(_, Some(reply)) => drop(reply.send(outcome)),
            Self::Write(_, None) => {}
            Self::Update(job) => job.complete(outcome),
            Self::Close(done) => drop(done.send(())),
        }
    }
}

impl Simulated {
    fn check(&self) -> Result<(), StoreError> {
        if self.0.alive.load(Ordering::Relaxed) { Ok(()) } else { Err(StoreError::Closed) }
    }

    pub(crate) fn read(&self, reads: &Reads) -> Result<Found, StoreError> {
        self.check()?;
        self.0.durable.read(reads)
    }

    pub(crate) fn explore<T>(&self, explore: impl FnOnce(&Explorer<'_>) -> T) -> Result<T, StoreError> {
        self.check()?;
        self.0.durable.explore(explore)
    }

    pub(crate) fn snapshot<T>(&self, explore: impl FnOnce(&Explorer<'_>) -> T) -> Result<T, StoreError> {
        self.check()?;
        self.0.durable.snapshot(explore)
    }

    pub(crate) async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.check()?;
        let (reply, answer) = oneshot::channel();
        self.0.inbox.send(Operation::Write(batch, Some(reply))).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(crate) fn write_lazy(&self, batch: Batch) -> Result<(), StoreError> {
        self.check()?;
        self.0.inbox.send(Operation::Write(batch, None)).map_err(|_| StoreError::Closed)
    }

    pub(crate) async fn update<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&View<'_>) -> Decision<T> + Send + 'static,
    {
        self.check()?;
        let (job, answer) = update::job(reads, decide);
        self.0.inbox.send(Operation::Update(job)).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.inbox.send(Operation::Close(done)).is_ok() {
            // An error means that it is closed already.
            let _ = closed.await;
        }
        self.0.alive.store(false, Ordering::Relaxed);
    }
}
