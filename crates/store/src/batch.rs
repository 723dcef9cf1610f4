//! What is to be written.

use bytes::Bytes;

use crate::{MAX_BATCH_BYTES, MAX_KEY_BYTES, StoreError};

/// Writes that take effect together, in the order in which they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    writes: Vec<Write>,
    bytes: usize,
}

/// One step of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
    DeleteRange { start: Bytes, end: Bytes },
}

impl Batch {
    /// Nothing to write yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.writes.push(Write::Put { key, value });
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        let key = key.into();
        self.bytes += key.len();
        self.writes.push(Write::Delete { key });
    }

    /// Removes the keys from `start` (inclusive) to `end` (exclusive). The time this takes grows with their number, and
    /// everybody else waits: bound it.
    pub fn delete_range(&mut self, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        let (start, end) = (start.into(), end.into());
        self.bytes += start.len() + end.len();
        self.writes.push(Write::DeleteRange { start, end });
    }

    /// Adds everything of `other` behind what is here.
    pub fn append(&mut self, other: Batch) {
        self.bytes += other.bytes;
        self.writes.extend(other.writes);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of all keys and values; at most [`MAX_BATCH_BYTES`] can be written at once.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Finds what no driver could write, before any driver sees it: a bad batch must not disturb its neighbours.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.bytes > MAX_BATCH_BYTES {
            return Err(StoreError::BatchTooLarge { bytes: self.bytes });
        }
        for write in &self.writes {
            match write {
                Write::Put { key, .. } | Write::Delete { key } => check_key(key)?,
                Write::DeleteRange { .. } => {}
            }
        }
        Ok(())
    }
}

fn check_key(key: &Bytes) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::KeyEmpty);
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(StoreError::KeyTooLong { bytes: key.len() });
    }
    Ok(())
}
