//! SQLite over pages that somebody else keeps: the engine's executor of remote SQL (`spec/storage.md` 8, 16.5).
//!
//! A [`Session`] is one SQLite connection. Its database is read page by page from a [`Pages`], and each transaction that
//! changes something is one [`Pages::commit`]. Everything else, that is journals, temporary tables and sorts,
//! is in memory, or in a file without a name as far as there is too much of it; both have bounds.

mod blocks;
mod connection;
mod database;
mod error;
mod interrupt;
mod pages;
mod pragma;
mod read_ahead;
mod result;
mod scratch;
mod session;
mod statement;
mod statement_cache;
mod vfs;

pub use crate::blocks::{Budget, Charge};
pub use crate::connection::{heap_used, set_heap_limit};
pub use crate::error::SessionError;
pub use crate::interrupt::Interrupter;
pub use crate::pages::{DirtyPages, PAGE_BYTES, Pages, PagesError};
pub use crate::session::{Session, SessionOptions};

/// Stack, in bytes, that a thread needs which calls a [`Session`]. SQLite compiles triggers that call each other, and views within
/// views, by recursion, and does not ask how much stack is left.
pub const STACK_BYTES: usize = 2 * 1024 * 1024;
