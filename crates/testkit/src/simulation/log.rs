//! What happened, a line each; the same for the same seed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};

use protocol::id::ActorId;

/// Lines that are kept unless all are wanted.
const KEPT: usize = 200;

/// The log of one simulation.
#[derive(Debug)]
pub(super) struct Log {
    lines: VecDeque<String>,
    keeps_all: bool,
    count: u64,
    hash: DefaultHasher,
    names: BTreeMap<ActorId, usize>,
}

impl Log {
    pub(super) fn new(keeps_all: bool) -> Self {
        Self { lines: VecDeque::new(), keeps_all, count: 0, hash: DefaultHasher::new(), names: BTreeMap::new() }
    }

    /// Adds a line.
    pub(super) fn line(&mut self, now_ms: u64, line: fmt::Arguments<'_>) {
        let mut text =
            if self.keeps_all || self.lines.len() < KEPT { String::new() } else { self.lines.pop_front().unwrap_or_default() };
        text.clear();
        // Writing to a string cannot fail.
        let _ = write!(text, "{:>7}.{:03}  {line}", now_ms / 1000, now_ms % 1000);
        self.hash.write(text.as_bytes());
        self.count += 1;
        self.lines.push_back(text);
    }

    /// A short name for an actor.
    pub(super) fn actor(&mut self, actor: ActorId) -> String {
        let next = self.names.len() + 1;
        format!("a{}", self.names.entry(actor).or_insert(next))
    }

    /// How many lines there were, and a hash of all of them.
    pub(super) fn digest(&self) -> (u64, u64) {
        (self.count, self.hash.finish())
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
