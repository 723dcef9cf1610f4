//! Reading step by step: what is read next depends on what was found.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::StoreError;
use crate::read::{Entries, Snapshot};

/// One state of the store. Nothing is copied: whoever keeps something copies it, before others are kept waiting.
pub struct Explorer<'a> {
    snapshot: &'a dyn Snapshot<'a>,
}

impl<'a> Explorer<'a> {
    pub(crate) fn new(snapshot: &'a dyn Snapshot<'a>) -> Self {
        Self { snapshot }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>, StoreError> {
        self.snapshot.get(key)
    }

    /// Keys and values from `start` (inclusive) to `end` (exclusive) in key order. Each is read when it is asked for.
    ///
    /// # Errors
    /// [`StoreError::Failed`], also of each entry.
    pub fn range(&self, start: &[u8], end: &[u8]) -> Result<Entries<'a>, StoreError> {
        self.snapshot.range(start, end)
    }
}

/// Calls `explore`, which belongs to somebody else and must not take the thread along if it panics.
pub(crate) fn run<T>(explore: impl FnOnce(&Explorer<'_>) -> T, explorer: &Explorer<'_>) -> Result<T, StoreError> {
    // Unwind safe: after a panic nobody uses the closure or the answer any more, and a snapshot is only read.
    catch_unwind(AssertUnwindSafe(|| explore(explorer))).map_err(|_| StoreError::ExplorePanicked)
}
