//! Copying many rows: a thread of its own reads one snapshot, and what it finds is written in steps.

use protocol::id::Id;
use store::{Batch, Decision, Explorer};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::{HistoryError, check_alive};
use crate::limits::COPY_TURN_TIMEOUT;
use crate::sqlite::standing_reads;
use crate::{ActorData, Bytes, Standing};

/// Rows written in one transaction: some milliseconds.
const STEP_ROWS: usize = if cfg!(test) { 5 } else { 256 };
/// Bytes that a step of large rows may have.
const STEP_BYTES: usize = 1024 * 1024;
/// Steps that may wait to be written.
const STEPS_AHEAD: usize = 4;

/// Where the reading thread puts rows.
pub(super) struct Outlet {
    steps: mpsc::Sender<Batch>,
    step: Batch,
    rows: usize,
}

impl Outlet {
    /// Hands a row over. Waits while too many wait to be written.
    pub(super) fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), HistoryError> {
        self.append(|step| step.put(key, value))
    }

    /// The same of a row that adds itself to a batch.
    pub(super) fn append(&mut self, add: impl FnOnce(&mut Batch)) -> Result<(), HistoryError> {
        add(&mut self.step);
        self.rows += 1;
        if self.rows < STEP_ROWS && self.step.size_bytes() < STEP_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), HistoryError> {
        self.rows = 0;
        let step = std::mem::take(&mut self.step);
        // The writer has gone because a write failed, and says why.
        self.steps.blocking_send(step).map_err(|_| HistoryError::Interrupted)
    }
}

impl ActorData {
    /// Waits until it is this restore's or copy's turn, which lasts until the permit is dropped.
    pub(super) async fn copy_turn(&self) -> Result<OwnedSemaphorePermit, HistoryError> {
        match timeout(COPY_TURN_TIMEOUT, self.copies.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            // It is never closed.
            Ok(Err(_)) => Err(HistoryError::Interrupted),
            Err(_) => Err(HistoryError::Busy),
        }
    }

    /// Lets `read` find rows in one snapshot, and writes them as it goes. `restored`: they are staged by a restore of this
    /// actor, and written only as long as the ledger says so; where everything was removed nothing must be written any more.
    pub(super) async fn transfer<T, F>(&self, restored: Option<Id>, read: F) -> Result<T, HistoryError>
    where
        T: Send + 'static,
        F: FnOnce(&Explorer<'_>, &mut Outlet) -> Result<T, HistoryError> + Send + 'static,
    {
        let (steps, mut written) = mpsc::channel(STEPS_AHEAD);
        let store = self.store.clone();
        let reading = tokio::task::spawn_blocking(move || {
            store.snapshot(|explorer| {
                let mut outlet = Outlet { steps, step: Batch::new(), rows: 0 };
                let found = read(explorer, &mut outlet)?;
                if outlet.rows > 0 {
                    outlet.flush()?;
                }
                Ok(found)
            })?
        });
        while let Some(step) = written.recv().await {
            match restored {
                Some(actor) => self.write_staged(actor, step).await?,
                None => self.store.write(step).await?,
            }
        }
        reading.await.map_err(|_| HistoryError::Interrupted)?
    }

    async fn write_staged(&self, actor: Id, step: Batch) -> Result<(), HistoryError> {
        self.transact(standing_reads(&actor), move |view| {
            let standing = Standing::of(&actor, view)?;
            check_alive(&standing)?;
            if !standing.ledger.restore_rows {
                return Err(HistoryError::Interrupted);
            }
            Ok(Decision::Commit(step.clone(), ()))
        })
        .await
    }
}
