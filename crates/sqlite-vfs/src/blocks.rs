//! Where an open transaction keeps what it has written and what undoes it: blocks in memory, and when that is used up, in a
//! file without a name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// Size of a block, in bytes: that of a page.
pub(crate) const BLOCK_BYTES: usize = crate::pages::PAGE_BYTES;

/// Memory for the open transactions of many sessions together. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    used: AtomicU64,
    limit: u64,
}

impl MemoryBudget {
    /// `limit` is in bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Budget { used: AtomicU64::new(0), limit }))
    }

    /// Memory in use, in bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    fn take_block(&self) -> bool {
        let more = |used: u64| used.checked_add(BLOCK_BYTES as u64).filter(|used| *used <= self.0.limit);
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back_block(&self) {
        self.0.used.fetch_sub(BLOCK_BYTES as u64, Ordering::Relaxed);
    }
}

/// Without a bound.
impl Default for MemoryBudget {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

/// A block cannot be written or read.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Memory is used up, and there is no folder for more.
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
    limit: u64,
    budget: MemoryBudget,
    folder: Option<PathBuf>,
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
    /// Up to `limit` bytes in memory as far as the budget has them, the rest in `folder`.
    pub(crate) fn new(limit: u64, budget: MemoryBudget, folder: Option<PathBuf>) -> Self {
        Self { used: AtomicU64::new(0), limit, budget, folder, aside: Mutex::default() }
    }

    /// What this session may have in memory, in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// What it has there, in bytes.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A new block with this content.
    pub(crate) fn put(&self, content: &[u8]) -> Result<Block, Trouble> {
        if self.take_memory() {
            return Ok(Block::Memory(content.to_vec()));
        }
        let folder = self.folder.as_deref().ok_or(Trouble::NoRoom)?;
        let mut aside = self.aside.lock();
        if aside.file.is_none() {
            aside.file = Some(tempfile::tempfile_in(folder).map_err(Trouble::File)?);
        }
        let place = aside.free.last().copied().unwrap_or(aside.length);
        write_at(&aside, content, offset(place))?;
        if aside.free.pop().is_none() {
            aside.length += 1;
        }
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
                    *aside = Aside::default();
                }
            }
        }
    }

    /// Only the session's thread takes and gives back, so a load and a store suffice; they are atomic because a session moves
    /// between threads.
    fn take_memory(&self) -> bool {
        let used = self.used().saturating_add(BLOCK_BYTES as u64);
        let has_room = used <= self.limit && self.budget.take_block();
        if has_room {
            self.used.store(used, Ordering::Relaxed);
        }
        has_room
    }

    fn give_memory_back(&self) {
        self.used.store(self.used().saturating_sub(BLOCK_BYTES as u64), Ordering::Relaxed);
        self.budget.give_back_block();
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
