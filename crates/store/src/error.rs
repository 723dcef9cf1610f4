//! Why a store operation failed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_READ_ROUNDS};

/// Why a store operation failed. Cheap to clone, because one cause may concern a whole group of operations.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Keys have at least one byte.
    #[error("a store key is empty")]
    KeyEmpty,
    /// Keys have at most [`MAX_KEY_BYTES`] bytes.
    #[error("a store key has {bytes} bytes, the limit is {MAX_KEY_BYTES}")]
    KeyTooLong {
        /// Length of the key.
        bytes: usize,
    },
    /// Batches have at most [`MAX_BATCH_BYTES`] bytes.
    #[error("a store batch has {bytes} bytes, the limit is {MAX_BATCH_BYTES}")]
    BatchTooLarge {
        /// Size of the batch.
        bytes: usize,
    },
    /// The entries of a scan have more bytes than it allows.
    #[error("a store scan found more than {max_bytes} bytes")]
    ScanTooLarge {
        /// The scan's own limit.
        max_bytes: usize,
    },
    /// An update asked for more reads again and again.
    #[error("a store update asked for more reads {MAX_READ_ROUNDS} times")]
    TooManyReads,
    /// The function that decides what an update writes panicked. Nothing was written.
    #[error("a store update panicked")]
    DecidePanicked,
    /// The function that explores the store panicked.
    #[error("a store exploration panicked")]
    ExplorePanicked,
    /// The inbox is full, and the caller did not want to wait.
    #[error("the store has too much to do")]
    Busy,
    /// No room left in the map or on the disk. Nothing was written.
    #[error("the store is full")]
    Full,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Another process has the folder open.
    #[error("the data folder {} is in use by another process", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be written to.
    #[error("the data folder {} is not writable: {source}", path.display())]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// A newer version of this program wrote the folder.
    #[error("the data folder {} has format {found}, this version knows formats up to {known}", path.display())]
    NewerFormat {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that can be read.
        known: u32,
    },
    /// The folder holds a database, but not of this program, or its format mark is damaged.
    #[error("the data folder {} has no valid format mark", path.display())]
    UnknownFormat {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system or the database failed. After a failed commit the store refuses all writes, because it is
    /// unknown what reached the disk.
    #[error("the store failed: {source}")]
    Failed {
        /// The cause.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Stable name for clients, logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyEmpty => "key_empty",
            Self::KeyTooLong { .. } => "key_too_long",
            Self::BatchTooLarge { .. } => "batch_too_large",
            Self::ScanTooLarge { .. } => "scan_too_large",
            Self::TooManyReads => "too_many_reads",
            Self::DecidePanicked => "decide_panicked",
            Self::ExplorePanicked => "explore_panicked",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Closed => "closed",
            Self::InUse { .. } => "in_use",
            Self::NotWritable { .. } => "not_writable",
            Self::NewerFormat { .. } => "newer_format",
            Self::UnknownFormat { .. } => "unknown_format",
            Self::Failed { .. } => "failed",
        }
    }

    /// Wraps a cause for which there is no variant of its own.
    pub(crate) fn failed(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed { source: Arc::new(source) }
    }
}
