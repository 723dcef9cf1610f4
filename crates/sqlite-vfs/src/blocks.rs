//! Where a session keeps what its open transaction has written and what undoes it, its temporary tables and its sorts: blocks
//! in memory, and when that is used up, in a file without a name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// Size of a block, in bytes: that of a page.
pub(crate) const BLOCK_BYTES: usize = crate::pages::PAGE_BYTES;

/// Bytes, of memory or of a disk, that many sessions share. Clones are the same budget.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shares>);

#[derive(Debug)]
struct Shares {
    used: AtomicU64,
    limit: u64,
}

impl Budget {
    /// `limit` is in bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Shares { used: AtomicU64::new(0), limit }))
    }

    /// What is in use, in bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Takes nothing if there is not as much.
    fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.0.limit);
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Takes it even if there is not as much.
    fn take_anyway(&self, bytes: u64) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Without a bound.
impl Default for Budget {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

/// What something takes from a [`Budget`], until it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: u64,
}

impl Charge {
    /// Nothing yet.
    pub(crate) fn of(budget: &Budget) -> Self {
        Self { budget: budget.clone(), bytes: 0 }
    }

    /// Takes more, in bytes; nothing if the budget does not have it.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let has_room = self.budget.take(bytes as u64);
        if has_room {
            self.bytes += bytes as u64;
        }
        has_room
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// Where blocks may be, and how many.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Of this session in memory, in bytes.
    pub(crate) memory_max_bytes: u64,
    /// Of several sessions there.
    pub(crate) memory: Budget,
    /// Where the file is, if there may be one.
    pub(crate) folder: Option<PathBuf>,
    /// Of this session in the file, in bytes.
    pub(crate) file_max_bytes: u64,
    /// Of several sessions in their files.
    pub(crate) files: Budget,
}

/// A block cannot be written or read.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Memory is used up, and the file too, or there may be none.
    NoRoom,
    /// The file with what was put aside.
    File(io::Error),
}

/// A block of [`BLOCK_BYTES`]. It is given back to its [`Blocks`], not dropped.
#[derive(Debug)]
pub(crate) enum Block {
    Memory(Vec<u8>),
    /// Its place in the file, counted in blocks.
    Aside(u64),
}

/// The blocks of one session.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Memory in use, in bytes.
    used: AtomicU64,
    /// What is written now must be written: it goes into memory if there is no other room.
    must_succeed: AtomicBool,
    room: Room,
    aside: Mutex<Aside>,
}

/// The file. There is none as long as nothing is in it.
#[derive(Debug, Default)]
struct Aside {
    file: Option<File>,
    /// In blocks.
    length: u64,
    free: Vec<u64>,
}

impl Blocks {
    /// In memory as far as there is room, then in the file.
    pub(crate) fn new(room: Room) -> Self {
        Self { used: AtomicU64::new(0), must_succeed: AtomicBool::new(false), room, aside: Mutex::default() }
    }

    /// What this session may have in all, in bytes; others may leave less.
    pub(crate) fn limit(&self) -> u64 {
        let in_file = if self.room.folder.is_some() { self.room.file_max_bytes } else { 0 };
        self.room.memory_max_bytes.saturating_add(in_file)
    }

    /// What it has in memory, in bytes.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// From now on, or until now, a block finds its place in memory even if the bounds are reached. Only for what is small: that
    /// is what SQLite has in its cache of temporary tables.
    pub(crate) fn set_must_succeed(&self, must_succeed: bool) {
        self.must_succeed.store(must_succeed, Ordering::Relaxed);
    }

    /// A new block with this content.
    pub(crate) fn put(&self, content: &[u8]) -> Result<Block, Trouble> {
        if self.take_memory() {
            return Ok(Block::Memory(content.to_vec()));
        }
        match self.put_aside(content) {
            Err(_) if self.must_succeed.load(Ordering::Relaxed) => {
                self.used.store(self.used().saturating_add(BLOCK_BYTES as u64), Ordering::Relaxed);
                self.room.memory.take_anyway(BLOCK_BYTES as u64);
                Ok(Block::Memory(content.to_vec()))
            }
            placed => placed,
        }
    }

    fn put_aside(&self, content: &[u8]) -> Result<Block, Trouble> {
        let folder = self.room.folder.as_deref().ok_or(Trouble::NoRoom)?;
        let mut aside = self.aside.lock();
        if aside.file.is_none() {
            aside.file = Some(tempfile::tempfile_in(folder).map_err(Trouble::File)?);
        }
        if let Some(place) = aside.free.last().copied() {
            write_at(&aside, content, offset(place))?;
            aside.free.pop();
            return Ok(Block::Aside(place));
        }
        let place = aside.length;
        // The file never becomes shorter before it goes, so its length is what it takes.
        if offset(place) + BLOCK_BYTES as u64 > self.room.file_max_bytes || !self.room.files.take(BLOCK_BYTES as u64) {
            return Err(Trouble::NoRoom);
        }
        write_at(&aside, content, offset(place)).inspect_err(|_| self.room.files.give_back(BLOCK_BYTES as u64))?;
        aside.length += 1;
        Ok(Block::Aside(place))
    }

    /// Fills `into` from a place in the block on.
    pub(crate) fn read(&self, block: &Block, start: usize, into: &mut [u8]) -> Result<(), Trouble> {
        match block {
            Block::Memory(content) => {
                into.copy_from_slice(&content[start..start + into.len()]);
                Ok(())
            }
            Block::Aside(place) => match &self.aside.lock().file {
                Some(file) => file.read_exact_at(into, offset(*place) + start as u64).map_err(Trouble::File),
                None => Err(Trouble::File(io::ErrorKind::NotFound.into())),
            },
        }
    }

    /// Changes a part of a block.
    pub(crate) fn write(&self, block: &mut Block, start: usize, content: &[u8]) -> Result<(), Trouble> {
        match block {
            Block::Memory(old) => {
                old[start..start + content.len()].copy_from_slice(content);
                Ok(())
            }
            Block::Aside(place) => write_at(&self.aside.lock(), content, offset(*place) + start as u64),
        }
    }

    /// The content of a block that is given back.
    pub(crate) fn take(&self, block: Block) -> Result<Bytes, Trouble> {
        match block {
            Block::Memory(content) => {
                self.give_memory_back();
                Ok(content.into())
            }
            Block::Aside(_) => {
                let mut content = vec![0; BLOCK_BYTES];
                let outcome = self.read(&block, 0, &mut content);
                self.give_back(block);
                outcome.map(|()| content.into())
            }
        }
    }

    pub(crate) fn give_back(&self, block: Block) {
        match block {
            Block::Memory(_) => self.give_memory_back(),
            Block::Aside(place) => {
                let mut aside = self.aside.lock();
                aside.free.push(place);
                if aside.free.len() as u64 == aside.length {
                    self.room.files.give_back(offset(aside.length));
                    *aside = Aside::default();
                }
            }
        }
    }

    /// Only the session's thread takes and gives back, so a load and a store suffice; they are atomic because a session moves
    /// between threads.
    fn take_memory(&self) -> bool {
        let used = self.used().saturating_add(BLOCK_BYTES as u64);
        let has_room = used <= self.room.memory_max_bytes && self.room.memory.take(BLOCK_BYTES as u64);
        if has_room {
            self.used.store(used, Ordering::Relaxed);
        }
        has_room
    }

    fn give_memory_back(&self) {
        self.used.store(self.used().saturating_sub(BLOCK_BYTES as u64), Ordering::Relaxed);
        self.room.memory.give_back(BLOCK_BYTES as u64);
    }
}

fn offset(place: u64) -> u64 {
    place * BLOCK_BYTES as u64
}

fn write_at(aside: &Aside, content: &[u8], offset: u64) -> Result<(), Trouble> {
    match &aside.file {
        Some(file) => file.write_all_at(content, offset).map_err(Trouble::File),
        None => Err(Trouble::File(io::ErrorKind::NotFound.into())),
    }
}
