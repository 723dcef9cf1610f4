//! Driver in memory, for tests and simulation. Everything happens at once, in the caller's thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::batch::Write;
use crate::read::{key_range, read_all};
use crate::{Batch, Decision, Explorer, Found, Reads, StoreError, View, explore, update};

/// The map; none once closed.
#[derive(Clone)]
pub(crate) struct Memory {
    entries: Arc<Mutex<Option<BTreeMap<Bytes, Bytes>>>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { entries: Arc::new(Mutex::new(Some(BTreeMap::new()))) }
    }
}

impl Memory {
    pub(crate) fn read(&self, reads: &Reads) -> Result<Found, StoreError> {
        let entries = self.entries.lock();
        read_all(reads, &entries.as_ref().ok_or(StoreError::Closed)?)
    }

    pub(crate) fn explore<T>(&self, explore: impl FnOnce(&Explorer<'_>) -> T) -> Result<T, StoreError> {
        let entries = self.entries.lock();
        explore::run(explore, &Explorer::new(&entries.as_ref().ok_or(StoreError::Closed)?))
    }

    pub(crate) fn snapshot<T>(&self, explore: impl FnOnce(&Explorer<'_>) -> T) -> Result<T, StoreError> {
        // A copy, because others go on: the values are shared.
        let entries = self.entries.lock().clone().ok_or(StoreError::Closed)?;
        explore::run(explore, &Explorer::new(&&entries))
    }

    pub(crate) fn write(&self, batch: Batch) -> Result<(), StoreError> {
        apply(self.entries.lock().as_mut().ok_or(StoreError::Closed)?, &batch);
        Ok(())
    }

    pub(crate) fn update<T>(&self, reads: &Reads, mut decide: impl FnMut(&View<'_>) -> Decision<T>) -> Result<T, StoreError> {
        let mut entries = self.entries.lock();
        let entries = entries.as_mut().ok_or(StoreError::Closed)?;
        let (batch, answer) = update::decide(reads, &mut decide, &&*entries)?;
        apply(entries, &batch);
        Ok(answer)
    }

    /// Lets an update decide, without writing anything.
    #[cfg(feature = "simulation")]
    pub(crate) fn run(&self, job: &mut dyn crate::update::UpdateJob) -> Result<Batch, StoreError> {
        job.run(&self.entries.lock().as_ref().ok_or(StoreError::Closed)?)
    }

    /// Everything, in key order.
    #[cfg(feature = "simulation")]
    pub(crate) fn rows(&self) -> Vec<(Bytes, Bytes)> {
        let entries = self.entries.lock();
        entries.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(crate) fn close(&self) {
        *self.entries.lock() = None;
    }
}

fn apply(entries: &mut BTreeMap<Bytes, Bytes>, batch: &Batch) {
    for write in batch.writes() {
        match write {
            Write::Put { key, value } => {
                entries.insert(key.clone(), value.clone());
            }
            Write::Delete { key } => {
                entries.remove(key);
            }
            Write::DeleteRange { start, end } => {
                let Some(range) = key_range(start, end) else { continue };
                let keys: Vec<Bytes> = entries.range::<[u8], _>(range).map(|(key, _)| key.clone()).collect();
                for key in keys {
                    entries.remove(&key);
                }
            }
        }
    }
}
