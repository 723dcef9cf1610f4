//! Which key-value entries travel with a start, so that its host need not ask for them (`spec/scheduling.md` 10). Pure.

use bytes::Bytes;
use protocol::envoy::{KvMetadata, PreloadedKv, PreloadedKvEntry};

use crate::limits::{KV_KEY_MAX_BYTES, PRELOAD_MANIFEST_MAX_KEYS, PRELOAD_MANIFEST_MAX_PREFIXES};

/// What the hosts of an actor name want to have at a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    keys: Vec<Bytes>,
    prefixes: Vec<PreloadPrefix>,
}

/// A prefix of keys that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreloadPrefix {
    /// The prefix.
    pub prefix: Bytes,
    /// What its entries may have together, in bytes as [`entry_bytes`] counts them; 0 leaves it out.
    pub max_bytes: u64,
    /// Whether the first of its entries are of use if there is no room for all.
    pub partial: bool,
}

/// A manifest asks for too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestTooLarge {
    /// More single keys than [`PRELOAD_MANIFEST_MAX_KEYS`].
    #[error("more than {PRELOAD_MANIFEST_MAX_KEYS} keys to preload")]
    Keys,
    /// More prefixes than [`PRELOAD_MANIFEST_MAX_PREFIXES`].
    #[error("more than {PRELOAD_MANIFEST_MAX_PREFIXES} prefixes to preload")]
    Prefixes,
    /// A key or prefix that is longer than any key can be.
    #[error("a key to preload is too long (max {KV_KEY_MAX_BYTES} bytes)")]
    KeyTooLong,
}

impl Manifest {
    /// Single keys, and prefixes in the order of their importance.
    ///
    /// # Errors
    /// [`ManifestTooLarge`].
    pub fn new(keys: Vec<Bytes>, prefixes: Vec<PreloadPrefix>) -> Result<Self, ManifestTooLarge> {
        if keys.len() > PRELOAD_MANIFEST_MAX_KEYS {
            return Err(ManifestTooLarge::Keys);
        }
        if prefixes.len() > PRELOAD_MANIFEST_MAX_PREFIXES {
            return Err(ManifestTooLarge::Prefixes);
        }
        let mut names = keys.iter().chain(prefixes.iter().map(|asked| &asked.prefix));
        if names.any(|name| name.len() > KV_KEY_MAX_BYTES) {
            return Err(ManifestTooLarge::KeyTooLong);
        }
        Ok(Self { keys, prefixes })
    }

    /// Single keys.
    pub fn keys(&self) -> &[Bytes] {
        &self.keys
    }

    /// Prefixes, the most important one first.
    pub fn prefixes(&self) -> &[PreloadPrefix] {
        &self.prefixes
    }

    /// The largest budget with which [`PreloadedKv`] has at most `room_bytes` as it is sent, whatever is stored.
    pub fn budget_within(&self, room_bytes: usize) -> u64 {
        let names = self.keys.iter().chain(self.prefixes.iter().map(|asked| &asked.prefix));
        let listed: usize = names.map(|name| name.len() + LENGTH_MAX_BYTES).sum();
        let left = room_bytes.saturating_sub(listed + LISTS_MAX_BYTES) as u64;
        // An entry counts at least its time, and is sent with three lengths besides what it counts.
        left / (ENTRY_MIN_BYTES + ENTRY_LENGTHS_MAX_BYTES) * ENTRY_MIN_BYTES
    }
}

/// The time of an entry, which it counts besides its key, its value and the name of its writer.
const ENTRY_MIN_BYTES: u64 = 8;
/// The length of a key, of a value (at most 128 KiB) or of a writer's name as it is sent.
const LENGTH_MAX_BYTES: usize = 3;
const ENTRY_LENGTHS_MAX_BYTES: u64 = 3 * LENGTH_MAX_BYTES as u64;
/// The lengths of the three lists, with a good margin.
const LISTS_MAX_BYTES: usize = 64;

/// What an entry counts of the budget, in bytes.
pub fn entry_bytes(key: &[u8], value: &[u8], writer: &[u8]) -> u64 {
    (key.len() + value.len() + writer.len()) as u64 + ENTRY_MIN_BYTES
}

/// A stored entry that may be chosen; copied only if it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// Version text of the engine that wrote it.
    pub(crate) writer: &'a [u8],
    pub(crate) update_ts: i64,
}

impl Candidate<'_> {
    fn bytes(&self) -> u64 {
        entry_bytes(self.key, self.value, self.writer)
    }

    fn to_entry(self) -> PreloadedKvEntry {
        let copy = Bytes::copy_from_slice;
        let metadata = KvMetadata { version: copy(self.writer), update_ts: self.update_ts };
        PreloadedKvEntry { key: copy(self.key), value: copy(self.value), metadata }
    }
}

/// What was chosen so far, in the order of the manifest.
pub(crate) struct Selection {
    /// Bytes of the budget that are left.
    room: u64,
    chosen: PreloadedKv,
}

impl Selection {
    pub(crate) fn new(budget: u64) -> Self {
        let chosen = PreloadedKv { entries: Vec::new(), requested_get_keys: Vec::new(), requested_prefixes: Vec::new() };
        Self { room: budget, chosen }
    }

    /// Nothing more is looked at, not even whether it is there.
    pub(crate) fn is_full(&self) -> bool {
        self.room == 0
    }

    /// A single key was looked up. If its entry does not fit, nothing is said of it, and the host asks.
    pub(crate) fn add_key(&mut self, key: &Bytes, found: Option<Candidate<'_>>) {
        if let Some(found) = found {
            let Some(room) = self.room.checked_sub(found.bytes()) else { return };
            self.room = room;
            self.chosen.entries.push(found.to_entry());
        }
        self.chosen.requested_get_keys.push(key.clone());
    }

    /// Begins with a prefix; none if it may have nothing.
    pub(crate) fn begin_prefix<'a>(&self, asked: &'a PreloadPrefix) -> Option<PrefixSelection<'a>> {
        let room = asked.max_bytes.min(self.room);
        (room > 0).then_some(PrefixSelection { asked, room, taken: 0, entries: Vec::new(), is_cut: false })
    }

    /// All entries of a prefix were seen, or one that did not fit.
    pub(crate) fn end_prefix(&mut self, run: PrefixSelection<'_>) {
        if run.is_cut && !run.asked.partial {
            return;
        }
        self.room -= run.taken;
        self.chosen.entries.extend(run.entries);
        self.chosen.requested_prefixes.push(run.asked.prefix.clone());
    }

    pub(crate) fn finish(self) -> PreloadedKv {
        self.chosen
    }
}

/// Entries of one prefix, in the order of their keys.
pub(crate) struct PrefixSelection<'a> {
    asked: &'a PreloadPrefix,
    /// Bytes that its entries may have together.
    room: u64,
    taken: u64,
    entries: Vec<PreloadedKvEntry>,
    is_cut: bool,
}

impl PrefixSelection<'_> {
    /// Takes the next entry if it fits. If it does not, no other one is wanted.
    pub(crate) fn add(&mut self, found: Candidate<'_>) -> bool {
        let taken = self.taken + found.bytes();
        if taken > self.room {
            self.is_cut = true;
            return false;
        }
        self.taken = taken;
        self.entries.push(found.to_entry());
        true
    }
}
