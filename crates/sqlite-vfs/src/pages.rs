//! What a session needs of whoever keeps the pages.

use std::collections::{BTreeMap, btree_map};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use protocol::envoy::SqliteErrorResponse;

use crate::blocks::{Block, Blocks, Trouble};

/// Size of a SQLite page, in bytes (`spec/storage.md` 6.2).
pub const PAGE_BYTES: usize = 4096;

/// One actor's database as numbered pages, read and changed by one session only.
///
/// All calls come from the thread that runs the session's statement, and may block. Pages are numbered from 1. The number of
/// pages is what page 1 says of it (bytes 28 to 31), as with the local VFS of the SDK (`spec/storage.md` 7.1).
pub trait Pages: Send + 'static {
    /// The latest content of the given pages, in any order. What is left out reads as zeros: a hole, a page behind the end, or
    /// page 1 of a database that was never written.
    ///
    /// # Errors
    /// The statement fails with that error; after a fence the session is of no more use.
    fn read(&mut self, pgnos: &[u32]) -> Result<Vec<(u32, Bytes)>, PagesError>;

    /// Makes these pages, and a database of `size` pages, the new content: all of it or nothing, and durable on return.
    ///
    /// # Errors
    /// Nothing was changed. The session's transaction is rolled back and its statement fails with that error.
    fn commit(&mut self, pages: DirtyPages, size: u32) -> Result<(), PagesError>;
}

/// The pages of a commit, in ascending order, each of [`PAGE_BYTES`] and at most once. May be none, if only the size changes.
///
/// What a large transaction has put aside is read back as it is asked for: memory holds what the receiver keeps.
#[derive(Debug)]
pub struct DirtyPages {
    pages: btree_map::IntoIter<u32, Block>,
    blocks: Arc<Blocks>,
}

impl DirtyPages {
    pub(crate) fn new(pages: BTreeMap<u32, Block>, blocks: Arc<Blocks>) -> Self {
        Self { pages: pages.into_iter(), blocks }
    }
}

impl Iterator for DirtyPages {
    /// Fails if what was put aside cannot be read back.
    type Item = Result<(u32, Bytes), PagesError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (pgno, block) = self.pages.next()?;
        let content = self.blocks.take(block).map_err(|trouble| match trouble {
            Trouble::File(error) => PagesError::put_aside(&error),
            Trouble::NoRoom => PagesError::put_aside(&io::ErrorKind::StorageFull.into()),
        });
        Some(content.map(|content| (pgno, content)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.pages.size_hint()
    }
}

impl ExactSizeIterator for DirtyPages {}

impl Drop for DirtyPages {
    fn drop(&mut self) {
        for (_, block) in self.pages.by_ref() {
            self.blocks.give_back(block);
        }
    }
}

/// Why pages could not be read or committed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .answer.message)]
pub struct PagesError {
    /// What the host is told.
    pub answer: SqliteErrorResponse,
    /// Whether this session may never touch these pages again: somebody else owns them now, or changed them.
    pub is_fence: bool,
}

impl PagesError {
    /// A page of a wrong length.
    pub(crate) fn page_length(pgno: u32, bytes: usize) -> Self {
        let message = format!("page {pgno} has {bytes} bytes, expected {PAGE_BYTES}");
        Self { answer: SqliteErrorResponse { group: "store".into(), code: "damaged".into(), message }, is_fence: false }
    }

    /// The file into which large transactions put what does not fit into memory fails.
    pub(crate) fn put_aside(error: &io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::StorageFull { "full" } else { "failed" };
        let message = format!("a sqlite transaction could not be put aside: {error}");
        Self { answer: SqliteErrorResponse { group: "store".into(), code: code.into(), message }, is_fence: false }
    }
}
