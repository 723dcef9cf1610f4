//! The thread that writes: group commit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvError, TryRecvError, after, at, never, select};
use heed::RwTxn;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::condition::{Condition, PanicAlarm, now};
use super::growth::Growth;
use super::table::{Entries, Seen, Table, apply, apply_nothing};
use crate::health::Health;
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
    Broken(heed::Error),
}

/// Body of the thread.
pub(super) fn run(table: &Table, inbox: Receiver<Message>, health: Arc<watch::Sender<Health>>) {
    let _alarm = PanicAlarm(health.clone());
    let mut condition = Condition::new(health);
    let entries = match table.entries() {
        Ok(entries) => entries,
        Err(error) => return condition.failed(&error),
    };
    let mut committer = Committer { table, entries, inbox, condition, growth: Growth::default() };
    let mut waiting = VecDeque::new();
    let mut open = true;
    while open {
        open = committer.gather(&mut waiting);
        committer.commit_all(waiting.split_off(0));
    }
}

struct Committer<'a> {
    table: &'a Table,
    entries: Entries<'a>,
    inbox: Receiver<Message>,
    condition: Condition,
    growth: Growth,
}

impl<'a> Committer<'a> {
    /// Waits until there is something to commit, and takes what else is there. False if nothing will come after it.
    fn gather(&mut self, waiting: &mut VecDeque<Operation>) -> bool {
        let mut lazy_is_due = never();
        loop {
            let next_try = self.condition.next_try().map_or_else(never, at);
            let message = select! {
                recv(self.inbox) -> message => message,
                recv(lazy_is_due) -> _ => break,
                recv(next_try) -> _ => {
                    self.try_to_write();
                    continue;
                }
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

    /// Commits operations in groups, and answers them.
    fn commit_all(&mut self, mut waiting: VecDeque<Operation>) {
        while !waiting.is_empty() {
            self.commit_group(&mut waiting);
        }
    }

    /// Commits a group from the front of the queue, and answers it.
    fn commit_group(&mut self, waiting: &mut VecDeque<Operation>) {
        if let Some(error) = self.condition.failure() {
            for operation in waiting.drain(..) {
                operation.complete(Err(error.clone()));
            }
            return;
        }
        let mut group = Vec::new();
        match self.try_group(waiting, &mut group) {
            Ok(()) => {
                for (operation, outcome) in group {
                    if let Err(error) = &outcome {
                        self.look_into(error);
                    }
                    operation.complete(outcome);
                }
            }
            Err(_) if group.len() > 1 && self.condition.failure().is_none() => {
                // Somebody in the group cannot be served, and the others should not suffer: each half by itself.
                let mut first: VecDeque<_> = group.into_iter().map(|(operation, _)| operation).collect();
                let second = first.split_off(first.len() / 2);
                self.commit_all(first);
                self.commit_all(second);
            }
            Err(error) => {
                self.look_into(&error);
                for (operation, _) in group {
                    operation.complete(Err(error.clone()));
                }
            }
        }
    }

    /// Runs operations in one transaction until there are enough, and commits it. `group` gets the operations taken
    /// from the queue. Their outcomes hold if this returns `Ok`; otherwise nothing at all was written.
    fn try_group(&mut self, waiting: &mut VecDeque<Operation>, group: &mut Vec<(Operation, Outcome)>) -> Result<(), StoreError> {
        let mut transaction = self.begin()?;
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
                    let error = self.table.write_failure(error);
                    group.push((operation, Err(error.clone())));
                    return Err(error);
                }
            }
        }
        if written > 0 { self.commit(transaction) } else { Ok(()) }
    }

    fn begin(&mut self) -> Result<RwTxn<'a>, StoreError> {
        self.table.begin_write().inspect_err(|error| self.condition.failed(error))
    }

    fn commit(&mut self, transaction: RwTxn<'_>) -> Result<(), StoreError> {
        let Err(error) = transaction.commit() else {
            self.growth.look(self.table);
            self.condition.succeeded(now());
            return Ok(());
        };
        let error = self.table.write_failure(error);
        if error.may_pass() && self.table.is_usable() {
            return Err(error);
        }
        // Also for lack of room: if LMDB does not go on, it is unknown what reached the disk.
        let error = if error.may_pass() { StoreError::failed(error) } else { error };
        self.condition.failed(&error);
        Err(error)
    }

    /// Draws conclusions from the error of a single operation.
    fn look_into(&mut self, error: &StoreError) {
        if error.may_pass() {
            self.condition.refused(error, now());
        } else if error.is_fault() {
            // Does it concern the operation alone, or everybody?
            self.try_to_write();
        }
    }

    /// Finds out whether writing works, with a transaction that changes nothing.
    fn try_to_write(&mut self) {
        if self.condition.failure().is_some() {
            return;
        }
        let Ok(mut transaction) = self.begin() else { return };
        let tried = match apply_nothing(&self.entries, &mut transaction) {
            Ok(()) => self.commit(transaction),
            Err(error) => Err(self.table.write_failure(error)),
        };
        match tried {
            Ok(()) => {}
            Err(error) if error.may_pass() => self.condition.refused(&error, now()),
            Err(error) if self.condition.failure().is_none() => self.condition.failed(&error),
            // The commit has said so.
            Err(_) => {}
        }
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
                // That there is no room is known already, and there may be many.
                if let Err(error) = outcome
                    && !error.may_pass()
                {
                    tracing::warn!(%error, "a batch that nobody waits for was not written");
                }
            }
            Work::Update(job) => job.complete(outcome),
        }
    }
}
