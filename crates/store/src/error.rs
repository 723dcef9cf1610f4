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
    /// No room left. Nothing was written.
    #[error("the store is full: {0}")]
    Full(Shortage),
    /// The system does not let anything be written. Nothing was.
    #[error("the store cannot be written to: {source}")]
    ReadOnly {
        /// What the operating system said.
        source: Arc<io::Error>,
    },
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
    #[error("the data folder {} has format {found}, written by a newer version; this version reads format {known} only", path.display())]
    NewerFormat {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that can be read.
        known: u32,
    },
    /// An older version of this program wrote the folder.
    #[error("the data folder {} has format {found}, written by an older version; this version reads format {known} only", path.display())]
    OlderFormat {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that can be read.
        known: u32,
    },
    /// The folder holds a database, but not of this program, or its format mark is damaged.
    #[error("the data folder {} has no valid format mark", path.display())]
    UnknownFormat {
        /// The folder.
        path: PathBuf,
    },
    /// There is nothing to read.
    #[error("there is no store in the folder {}", path.display())]
    NoData {
        /// The folder.
        path: PathBuf,
    },
    /// A backup or a restore was interrupted, or is under way.
    #[error("the folder {} holds a copy that was never finished: make it again, or remove the folder", path.display())]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is a backup, which must stay as it is.
    #[error("the folder {} is a backup: restore it into another folder, and serve that", path.display())]
    IsBackup {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is served by a process of another container, which a reader from here would disturb.
    #[error("the data folder {} is in use by a process of another container: run the command inside of that container", path.display())]
    OtherContainer {
        /// The folder.
        path: PathBuf,
    },
    /// The database's file is not what was written to it. Whoever needs the damaged part gets this; if that is
    /// everybody, the store refuses all writes.
    #[error("the store is damaged: {source}")]
    Damaged {
        /// What was found.
        source: Arc<dyn std::error::Error + Send + Sync>,
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
            Self::Full(_) => "full",
            Self::ReadOnly { .. } => "read_only",
            Self::Closed => "closed",
            Self::InUse { .. } => "in_use",
            Self::NotWritable { .. } => "not_writable",
            Self::NewerFormat { .. } => "newer_format",
            Self::OlderFormat { .. } => "older_format",
            Self::UnknownFormat { .. } => "unknown_format",
            Self::NoData { .. } => "no_data",
            Self::Unfinished { .. } => "unfinished",
            Self::IsBackup { .. } => "is_backup",
            Self::OtherContainer { .. } => "other_container",
            Self::Damaged { .. } => "damaged",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether the same may succeed later, because nothing is wrong with it: there is no room at the moment, or nothing may be
    /// written at the moment. Nothing was written.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Busy | Self::Full(_) | Self::ReadOnly { .. })
    }

    /// Whether something is wrong with the store, and not with what was asked of it.
    pub(crate) fn is_fault(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Failed { .. })
    }

    /// Wraps a cause for which there is no variant of its own.
    pub(crate) fn failed(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed { source: Arc::new(source) }
    }
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The store has reached the size that was set for it.
    #[error("it has reached its largest size")]
    Store,
    /// The disk is full.
    #[error("no space left on its disk")]
    Disk,
    /// What the user of the process may use of the disk.
    #[error("the disk quota of its user is used up")]
    Quota,
    /// Its file has reached the largest size that the system or the file system allows.
    #[error("its file has reached the largest size that the system allows")]
    FileSize,
}
