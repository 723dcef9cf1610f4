//! A store that is only read, also while another process serves it.

use std::path::Path;

use super::backup::Backup;
use super::folder;
use super::table::{Seen, Table};
use crate::{Explorer, StoreError, explore};

/// A data folder, or a backup of one, opened for reading.
///
/// A data folder may be served by another process meanwhile. As long as a [`ReadOnly::snapshot`] lasts, that process's file
/// cannot use again what it frees, so it grows by what is written.
pub struct ReadOnly {
    pub(super) table: Table,
    backup: Option<Backup>,
}

impl ReadOnly {
    /// Opens a data folder or a backup. Nothing in it is changed, except that LMDB notes who reads a data folder.
    ///
    /// # Errors
    /// [`StoreError::NoData`], [`StoreError::Unfinished`], [`StoreError::NewerFormat`], [`StoreError::UnknownFormat`],
    /// [`StoreError::OtherContainer`], [`StoreError::NotWritable`] or [`StoreError::Failed`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        folder::check_readable(path)?;
        let backup = Backup::of(path)?;
        Ok(Self { table: Table::open_to_read(path, backup.is_none())?, backup })
    }

    /// What the backup says of itself; `None` for a data folder.
    pub fn backup(&self) -> Option<&Backup> {
        self.backup.as_ref()
    }

    /// Explores one state of the store, for as long as it takes, on this thread.
    ///
    /// # Errors
    /// [`StoreError::ExplorePanicked`] or [`StoreError::Failed`].
    pub fn snapshot<T>(&self, explore: impl FnOnce(&Explorer<'_>) -> T) -> Result<T, StoreError> {
        snapshot(&self.table, explore)
    }
}

/// Explores one state of a table.
pub(super) fn snapshot<T>(table: &Table, explore: impl FnOnce(&Explorer<'_>) -> T) -> Result<T, StoreError> {
    let entries = table.entries()?;
    let transaction = table.begin_read()?;
    explore::run(explore, &Explorer::new(&Seen { entries: &entries, transaction: &transaction }))
}
