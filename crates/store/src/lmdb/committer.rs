//! The thread that writes: group commit.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvError, TryRecvError, after, never, select};
use heed::RwTxn;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::table::{Entries, Seen, Table, apply, failure};
use crate::update::UpdateJob;
use crate::{Batch, StoreError};

/// How long a batch that nobody waits for may stay in memory.
const LAZY_DELAY: Duration = Duration::from_millis(50);
/// Operations that go into one commit.
const GROUP_MAX_OPERATIONS: usize = 1024;
/// Bytes written above which a group is committed without taking more into it: bounds how long the first one waits.
const GROUP_MAX_BYTES: usize = 16 * 1024 * 1024;

pub(super) enum Message {
    Operation(Operation),
    /// Commit what came before, then stop.
    Close,
}

pub(super) struct Operation {
    pub(super) work: Work,
    /// Given back when the operation is done.
    pub(super) _room: OwnedSemaphorePermit,
}

pub(super) enum Work {
    Write {
        batch: Batch,
        /// None if nobody waits.
        reply: Option<oneshot::Sender<Result<(), StoreError>>>,
    },
    Update(Box<dyn UpdateJob>),
}

/// How an operation of a group went.
type Outcome = Result<(), StoreError>;

/// Why an operation did not get through.
enum RunError {
    /// It was refused before it wrote anything.
    Refused(StoreError),
    /// The transaction is lost, and with it what the whole group did in it.
    Broken(StoreError),
}

/// Body of the thread.
pub(super) fn run(table: &Table, inbox: Receiver<Message>) {
    let entries = match table.entries() {
        Ok(entries) => entries,
        Err(error) => return tracing::error!(%error, "the store committer cannot start"),
    };
    let mut committer = Committer { table, entries, inbox, failed: None };
    let mut waiting = VecDeque::new();
    let mut open = true;
    while open {
        open = committer.gather(&mut waiting);
        while !waiting.is_empty() {
            committer.commit_group(&mut waiting);
        }
    }
}

struct Committer<'a> {
    table: &'a Table,
    entries: Entries<'a>,
    inbox: Receiver<Message>,
    /// Why nothing is written any more.
    failed: Option<StoreError>,
}

impl Committer<'_> {
    /// Waits until there is something to commit, and takes what else is there. False if nothing will come after it.
    fn gather(&self, waiting: &mut VecDeque<Operation>) -> bool {
        let mut lazy_is_due = never();
        loop {
            let message = select! {
                recv(self.inbox) -> message => message,
                recv(lazy_is_due) -> _ => break,
            };
            match message {
                Ok(Message::Operation(operation)) => {
                    let first = waiting.is_empty();
                    let lazy = operation.is_lazy();
                    waiting.push_back(operation);
                    match (lazy, first) {
                        (true, true) => lazy_is_due = after(LAZY_DELAY),
                        (true, false) => {}
                        (false, _) => break,
                    }
                }
                Ok(Message::Close) | Err(RecvError) => return false,
            }
        }
        while waiting.len() < GROUP_MAX_OPERATIONS {
            match self.inbox.try_recv() {
                Ok(Message::Operation(operation)) => waiting.push_back(operation),
                Err(TryRecvError::Empty) => break,
                Ok(Message::Close) | Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    /// Commits a group from the front of the queue, and answers it.
    fn commit_group(&mut self, waiting: &mut VecDeque<Operation>) {
        if let Some(error) = &self.failed {
            for operation in waiting.drain(..) {
                operation.complete(Err(error.clone()));
            }
            return;
        }
        let mut group = Vec::new();
        match self.try_group(waiting, &mut group) {
            Ok(()) => {
                for (operation, outcome) in group {
                    operation.complete(outcome);
                }
            }
            Err(_) if group.len() > 1 && self.failed.is_none() => {
                // Somebody in the group cannot be served, and the others should not suffer: one by one.
                let mut alone = VecDeque::with_capacity(1);
                for (operation, _) in group {
                    alone.push_back(operation);
                    self.commit_group(&mut alone);
                }
            }
            Err(error) => {
                for (operation, _) in group {
                    operation.complete(Err(error.clone()));
                }
            }
        }
    }

    /// Runs operations in one transaction until there are enough, and commits it. `group` gets the operations taken
    /// from the queue. Their outcomes hold if this returns `Ok`; otherwise nothing at all was written.
    fn try_group(&mut self, waiting: &mut VecDeque<Operation>, group: &mut Vec<(Operation, Outcome)>) -> Result<(), StoreError> {
        let mut transaction = self.table.begin_write().inspect_err(|error| self.failed = Some(error.clone()))?;
        let mut written = 0;
        while written < GROUP_MAX_BYTES {
            let Some(mut operation) = waiting.pop_front() else { break };
            match operation.run(&self.entries, &mut transaction) {
                Ok(bytes) => {
                    written += bytes;
                    group.push((operation, Ok(())));
                }
                Err(RunError::Refused(error)) => group.push((operation, Err(error))),
                Err(RunError::Broken(error)) => {
                    group.push((operation, Err(error.clone())));
                    return Err(error);
                }
            }
        }
        if written > 0 { self.commit(transaction) } else { Ok(()) }
    }

    fn commit(&mut self, transaction: RwTxn<'_>) -> Result<(), StoreError> {
        transaction.commit().map_err(failure).inspect_err(|error| {
            if !matches!(error, StoreError::Full) {
                tracing::error!(%error, "a commit failed, the store takes no more writes");
                self.failed = Some(error.clone());
            }
        })
    }
}

impl Operation {
    fn is_lazy(&self) -> bool {
        matches!(self.work, Work::Write { reply: None, .. })
    }

    /// Does its part in the transaction. Returns how many bytes it wrote.
    fn run(&mut self, entries: &Entries<'_>, transaction: &mut RwTxn<'_>) -> Result<usize, RunError> {
        let decided;
        let batch = match &mut self.work {
            Work::Write { batch, .. } => &*batch,
            Work::Update(job) => {
                decided = job.run(&Seen { entries, transaction }).map_err(RunError::Refused)?;
                &decided
            }
        };
        apply(entries, transaction, batch).map_err(RunError::Broken)?;
        Ok(batch.size_bytes())
    }

    fn complete(self, outcome: Outcome) {
        match self.work {
            Work::Write { reply: Some(reply), .. } => {
                // The caller may have stopped waiting.
                let _ = reply.send(outcome);
            }
            Work::Write { reply: None, .. } => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "a batch that nobody waits for was not written");
                }
            }
            Work::Update(job) => job.complete(outcome),
        }
    }
}
