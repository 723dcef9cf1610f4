//! Sessions over pages in memory.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod commits;
mod differential;
mod semantics;
mod stack;
mod support;
mod temporary;
mod torture;
