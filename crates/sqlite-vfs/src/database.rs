//! What SQLite takes for its database file: the committed pages, and over them what the open transaction has written.
//!
//! SQLite writes to the file before a transaction is over when its cache is full, and undoes that from its journal when the
//! transaction is rolled back. None of it is shown to the [`Pages`]: they get one commit at the moment at which SQLite wants
//! the file to be on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::blocks::{Block, Blocks, Trouble};
use crate::error::SessionError;
use crate::pages::{DirtyPages, PAGE_BYTES, Pages, PagesError};
use crate::read_ahead::ReadAhead;

/// Pages read when a session begins. Most databases have 17 to 20 (`spec/storage.md` 16.6).
const FIRST_READ_PAGES: u32 = 32;
/// Where page 1 holds the number of pages, big-endian.
const SIZE_IN_HEADER: std::ops::Range<usize> = 28..32;
/// Where page 1 holds the page size, big-endian.
const PAGE_SIZE_IN_HEADER: std::ops::Range<usize> = 16..18;

/// The call cannot be answered; why is in [`Database::take_failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed;

/// How much of a read lies within the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    /// Behind the end: the caller fills with zeros.
    Beyond,
}

pub(crate) struct Database {
    pages: Box<dyn Pages>,
    /// In pages, as committed.
    committed_size: u32,
    /// In pages, as SQLite sees it.
    size: u32,
    /// Committed pages behind this are not seen: the file was cut off there since.
    visible: u32,
    /// Written since the last commit.
    dirty: BTreeMap<u32, Block>,
    blocks: Arc<Blocks>,
    ahead: ReadAhead,
    /// SQLite is rolling back: it writes what was there before.
    is_undoing: bool,
    /// Why a call has failed, the first if there are several.
    failure: Option<SessionError>,
    /// A commit has failed.
    was_refused: bool,
    /// Why no page is read or committed any more.
    end: Option<SessionError>,
    /// The session ends; SQLite may roll back what it likes.
    is_closing: bool,
}

impl Database {
    /// Reads the first pages.
    pub(crate) fn open(mut pages: Box<dyn Pages>, blocks: Arc<Blocks>) -> Result<Self, SessionError> {
        let wanted: Vec<u32> = (1..=FIRST_READ_PAGES).collect();
        let found = checked(pages.read(&wanted)).map_err(SessionError::Pages)?;
        let page_1 = found.iter().find(|(pgno, _)| *pgno == 1).map(|(_, page)| page);
        let size = page_1.map_or(Ok(0), |page| size_in_header(page))?;
        let mut ahead = ReadAhead::default();
        for (pgno, page) in found {
            if pgno <= size {
                ahead.keep(pgno, page);
            }
        }
        ahead.begin_run(1, FIRST_READ_PAGES.min(size.max(1)));
        Ok(Self {
            pages,
            committed_size: size,
            size,
            visible: size,
            dirty: BTreeMap::new(),
            blocks,
            ahead,
            is_undoing: false,
            failure: None,
            was_refused: false,
            end: None,
            is_closing: false,
        })
    }

    /// In bytes.
    pub(crate) fn length(&self) -> u64 {
        u64::from(self.size) * PAGE_BYTES as u64
    }

    /// Why a call has failed since this was asked for last.
    pub(crate) fn take_failure(&mut self) -> Option<SessionError> {
        self.failure.take()
    }

    /// Whether a commit has failed since this was asked for last.
    pub(crate) fn take_refusal(&mut self) -> bool {
        std::mem::take(&mut self.was_refused)
    }

    /// Why the session is of no more use.
    pub(crate) fn end(&self) -> Option<&SessionError> {
        self.end.as_ref()
    }

    /// A request is over.
    pub(crate) fn rest(&mut self) {
        self.blocks.set_must_succeed(false);
        self.ahead.rest();
    }

    /// Whether SQLite has written something that is neither committed nor undone.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.size != self.committed_size
    }

    /// Nobody knows any more what SQLite thinks the pages are.
    pub(crate) fn lose(&mut self) {
        self.end.get_or_insert(SessionError::Lost);
        self.failure.get_or_insert(SessionError::Lost);
    }

    /// From now on nothing is asked of the pages.
    pub(crate) fn close(&mut self) {
        self.is_closing = true;
    }

    /// SQLite has read the beginning of its journal, which it does to roll everything back, or has emptied it, which ends
    /// every transaction. After `ROLLBACK TO` the first savepoint a transaction goes on, so this does not mean that it is over.
    pub(crate) fn set_undoing(&mut self, is_undoing: bool) {
        self.is_undoing = is_undoing;
        if !is_undoing {
            self.blocks.set_must_succeed(false);
        }
    }

    /// Copies a part of a page: `start` is where in the page.
    pub(crate) fn read(&mut self, pgno: u32, start: usize, into: &mut [u8]) -> Result<Extent, Failed> {
        if pgno > self.size {
            return Ok(Extent::Beyond);
        }
        if let Some(block) = self.dirty.get(&pgno) {
            let read = self.blocks.read(block, start, into);
            return read.map(|()| Extent::Whole).map_err(|trouble| self.fail_for(trouble));
        }
        let range = start..start + into.len();
        if into.len() < PAGE_BYTES
            && let Some(page) = self.ahead.peek(pgno)
        {
            into.copy_from_slice(&page[range]);
            return Ok(Extent::Whole);
        }
        match self.ahead.take(pgno).map_or_else(|| self.fetch(pgno), |page| Ok(Some(page)))? {
            Some(page) => into.copy_from_slice(&page[range]),
            None => into.fill(0),
        }
        Ok(Extent::Whole)
    }

    /// Reads a committed page, and others that are likely to be needed next.
    fn fetch(&mut self, pgno: u32) -> Result<Option<Bytes>, Failed> {
        if pgno > self.visible {
            return Ok(None);
        }
        self.check_usable()?;
        let range = self.ahead.plan(pgno, self.visible);
        let is_needed = |other: &u32| *other == pgno || !(self.ahead.holds(*other) || self.dirty.contains_key(other));
        let wanted: Vec<u32> = range.filter(is_needed).collect();
        let mut answer = checked(self.pages.read(&wanted));
        if let Err(error) = &answer
            && !error.is_fence
            && wanted.len() > 1
        {
            // Perhaps it is a page that nobody has asked for which is damaged.
            answer = checked(self.pages.read(&[pgno]));
        }
        let mut found = None;
        for (other, page) in answer.map_err(|error| self.fail(error))? {
            if other == pgno {
                found = Some(page);
            } else if other <= self.size && !self.dirty.contains_key(&other) {
                self.ahead.keep(other, page);
            }
        }
        Ok(found)
    }

    /// Takes a whole page.
    pub(crate) fn write(&mut self, pgno: u32, page: &[u8]) -> Result<(), Failed> {
        if self.is_undoing && self.is_committed(pgno, page)? {
            // A rollback commits nothing, and must not need room.
            if let Some(block) = self.dirty.remove(&pgno) {
                self.blocks.give_back(block);
            }
            return Ok(());
        }
        let written = match self.dirty.get_mut(&pgno) {
            Some(block) => self.blocks.write(block, 0, page),
            None => self.blocks.put(page).map(|block| {
                self.dirty.insert(pgno, block);
            }),
        };
        written.map_err(|trouble| self.fail_for(trouble))?;
        self.ahead.take(pgno);
        self.size = self.size.max(pgno);
        Ok(())
    }

    /// Whether this is what the pages hold anyway.
    fn is_committed(&mut self, pgno: u32, page: &[u8]) -> Result<bool, Failed> {
        if pgno > self.visible || self.is_closing {
            return Ok(false);
        }
        let committed = self.ahead.take(pgno).map_or_else(|| self.fetch(pgno), |page| Ok(Some(page)))?;
        Ok(committed.is_some_and(|committed| committed == page))
    }

    /// There is no place for what the transaction needs.
    pub(crate) fn fail_for(&mut self, trouble: Trouble) -> Failed {
        self.failure.get_or_insert_with(|| match trouble {
            Trouble::NoRoom => SessionError::TransactionTooLarge { limit: self.blocks.limit() },
            Trouble::File(error) => SessionError::Pages(PagesError::put_aside(&error)),
        });
        Failed
    }

    /// Cuts the file off, or makes it longer, to a number of pages.
    pub(crate) fn truncate(&mut self, size: u32) {
        if size < self.size {
            for block in self.dirty.split_off(&size.saturating_add(1)).into_values() {
                self.blocks.give_back(block);
            }
            self.ahead.truncate(size);
            self.visible = self.visible.min(size);
        }
        self.size = size;
    }

    /// SQLite wants the file to be on disk: the moment of a commit, or the end of a rollback.
    pub(crate) fn sync(&mut self) -> Result<(), Failed> {
        if self.is_closing {
            return Ok(());
        }
        if !self.is_dirty() {
            return Ok(());
        }
        self.check_usable()?;
        let pages = DirtyPages::new(std::mem::take(&mut self.dirty), Arc::clone(&self.blocks));
        match self.pages.commit(pages, self.size) {
            Ok(()) => {
                self.committed_size = self.size;
                self.visible = self.size;
                // SQLite writes temporary tables after this, and then has committed. If it could not do so any more, the host
                // would hear of an error although its transaction is stored.
                self.blocks.set_must_succeed(true);
                Ok(())
            }
            Err(error) => {
                // The file is what it was before the transaction. SQLite throws its cache away and plays its journal back,
                // which changes nothing.
                self.was_refused = true;
                self.size = self.committed_size;
                self.visible = self.committed_size;
                Err(self.fail(error))
            }
        }
    }

    /// SQLite has committed. It may have cut the file off after that, which has to be committed too; but there is no way to
    /// fail any more, and no harm in a file that is too long: the next commit sees to it.
    pub(crate) fn committed(&mut self) {
        if self.is_dirty() && self.sync() == Err(Failed) {
            tracing::warn!(failure = ?self.failure, "a database could not be cut off after its commit");
        }
        self.blocks.set_must_succeed(false);
    }

    fn check_usable(&mut self) -> Result<(), Failed> {
        match &self.end {
            None if !self.is_closing => Ok(()),
            None => Err(Failed),
            Some(end) => {
                self.failure.get_or_insert_with(|| end.clone());
                Err(Failed)
            }
        }
    }

    fn fail(&mut self, error: PagesError) -> Failed {
        if error.is_fence {
            self.ahead.clear();
            self.end.get_or_insert(SessionError::Poisoned(error.clone()));
        }
        self.failure.get_or_insert(SessionError::Pages(error));
        Failed
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        for block in std::mem::take(&mut self.dirty).into_values() {
            self.blocks.give_back(block);
        }
    }
}

/// Pages of another length are a fault of whoever keeps them.
fn checked(answer: Result<Vec<(u32, Bytes)>, PagesError>) -> Result<Vec<(u32, Bytes)>, PagesError> {
    let pages = answer?;
    match pages.iter().find(|(_, page)| page.len() != PAGE_BYTES) {
        None => Ok(pages),
        Some((pgno, page)) => Err(PagesError::page_length(*pgno, page.len())),
    }
}

/// In pages; 0 for a database that was never written.
fn size_in_header(page_1: &[u8]) -> Result<u32, SessionError> {
    if page_1.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let number = |range: std::ops::Range<usize>| page_1[range].iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    let page_size = number(PAGE_SIZE_IN_HEADER);
    if page_size as usize != PAGE_BYTES {
        return Err(SessionError::Sql { message: format!("the database has pages of {page_size} bytes, not of {PAGE_BYTES}") });
    }
    match number(SIZE_IN_HEADER) {
        0 => Err(SessionError::Sql { message: "the first page of the database does not say how many there are".into() }),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use protocol::envoy::SqliteErrorResponse;

    use super::*;
    use crate::blocks::Room;

    /// Three pages, of which the first says that there are three; all others are zeros. Takes no commit.
    struct ThreePages;

    fn page(pgno: u32) -> Vec<u8> {
        let mut page = vec![u8::try_from(pgno).unwrap(); PAGE_BYTES];
        page[PAGE_SIZE_IN_HEADER].copy_from_slice(&[0x10, 0]);
        page[SIZE_IN_HEADER].copy_from_slice(&[0, 0, 0, 3]);
        page
    }

    impl Pages for ThreePages {
        fn read(&mut self, pgnos: &[u32]) -> Result<Vec<(u32, Bytes)>, PagesError> {
            Ok(pgnos.iter().filter(|pgno| **pgno <= 3).map(|pgno| (*pgno, page(*pgno).into())).collect())
        }

        fn commit(&mut self, _: DirtyPages, _: u32) -> Result<(), PagesError> {
            let answer = SqliteErrorResponse { group: "depot".into(), code: "quota_exceeded".into(), message: String::new() };
            Err(PagesError { answer, is_fence: false })
        }
    }

    fn database() -> (Database, Arc<Blocks>) {
        let blocks = Arc::new(Blocks::new(Room { memory_max_bytes: u64::MAX, ..Room::default() }));
        (Database::open(Box::new(ThreePages), Arc::clone(&blocks)).unwrap(), blocks)
    }

    /// None is behind the end.
    fn read(database: &mut Database, pgno: u32) -> Option<Vec<u8>> {
        let mut content = vec![7; PAGE_BYTES];
        match database.read(pgno, 0, &mut content).unwrap() {
            Extent::Whole => Some(content),
            Extent::Beyond => None,
        }
    }

    #[test]
    fn what_was_cut_off_does_not_come_back_when_the_file_grows() {
        let (mut database, _) = database();
        database.truncate(1);
        assert_eq!(read(&mut database, 2), None);
        database.write(4, &page(4)).unwrap();
        assert_eq!(read(&mut database, 3), Some(vec![0; PAGE_BYTES]));
        assert_eq!(read(&mut database, 4), Some(page(4)));
    }

    #[test]
    fn after_a_refused_commit_the_file_is_as_before() {
        let (mut database, blocks) = database();
        database.truncate(2);
        database.write(1, &page(9)).unwrap();
        database.write(5, &page(5)).unwrap();
        assert_eq!(database.length(), 5 * PAGE_BYTES as u64);
        database.sync().unwrap_err();
        assert!(matches!(database.take_failure(), Some(SessionError::Pages(_))));
        assert_eq!((database.length(), database.is_dirty(), blocks.used()), (3 * PAGE_BYTES as u64, false, 0));
        for pgno in 1..=3 {
            assert_eq!(read(&mut database, pgno), Some(page(pgno)));
        }
    }

    #[test]
    fn a_rollback_leaves_nothing_to_commit() {
        let (mut database, _) = database();
        database.write(2, &page(9)).unwrap();
        database.set_undoing(true);
        // Also of a page that was never written.
        database.write(3, &page(3)).unwrap();
        database.write(2, &page(2)).unwrap();
        assert!(!database.is_dirty());
        database.sync().unwrap();
        // A transaction may go on after it.
        database.write(2, &page(8)).unwrap();
        assert_eq!(read(&mut database, 2), Some(page(8)));
        database.sync().unwrap_err();
    }
}
