//! Limits of an actor's data, each with its unit and section of `spec/storage.md`.

use std::time::Duration;

/// Size of a SQLite page, in bytes (6.2).
pub const PAGE_BYTES: usize = 4096;
/// Pages in a shard: segments of a staged commit begin at a multiple of it (6.2, 6.7).
pub const SHARD_PAGES: u32 = 64;
/// Pages that one commit may carry (6.6).
pub const COMMIT_MAX_PAGES: usize = 320;
/// Page numbers that the pages of one segment span: five shards (6.7).
pub const SEGMENT_SPAN_PAGES: u32 = 5 * SHARD_PAGES;
/// Pages that a staged commit may carry in all: 128 MiB (6.7).
pub const STAGE_MAX_PAGES: u32 = 32_768;
/// Page numbers in one read (6.6: 8,192; 18.3: hosts may be configured to ask for this many).
pub const READ_MAX_PAGES: usize = 16_384;

/// Pages that go along with a host's read without having been asked for: as many as the SDK's own read-ahead asks for by
/// default (7.3, 16.3).
pub const READ_AHEAD_MAX_PAGES: usize = 64;

/// Length of a key, in bytes (3.4).
pub const KV_KEY_MAX_BYTES: usize = 2048;
/// Length of a value, in bytes (3.4).
pub const KV_VALUE_MAX_BYTES: usize = 128 * 1024;
/// Keys in one get, put or delete (3.4).
pub const KV_MAX_KEYS: usize = 128;
/// Keys and values of one put, in bytes (3.4).
pub const KV_PUT_MAX_BYTES: usize = 976 * 1024;
/// Entries in a list that does not say how many (3.3).
pub const KV_LIST_DEFAULT_ENTRIES: u64 = 16_384;
/// Entries as they are stored, in bytes, above which a list is refused (`decisions.md` 19).
pub const KV_LIST_MAX_BYTES: usize = 16 * 1024 * 1024;
/// What an entry costs of the storage limit besides its key and value, in bytes (12.1).
pub const KV_ENTRY_OVERHEAD_BYTES: u64 = 32;

/// Single keys that an actor name may declare to be preloaded (`spec/scheduling.md` 10 names no bound; hosts have sent five).
pub const PRELOAD_MANIFEST_MAX_KEYS: usize = 512;
/// The same for prefixes.
pub const PRELOAD_MANIFEST_MAX_PREFIXES: usize = 16;

/// What may be remembered of the newest commits of all actors, in bytes, so that one whose answer was lost can be taken
/// back (7.5).
pub const DEFAULT_MAX_UNDO_BYTES: usize = 64 * 1024 * 1024;

/// Restores and copies of databases that are made at a time. Each reads one snapshot for as long as it takes, for which
/// the store has a few places, and the file cannot use again what others free meanwhile.
pub const MAX_COPIES: usize = 4;
/// A restore or copy that has not begun after this, because of others, is refused; `copy_turn_timeout`.
pub const COPY_TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that one actor may store unless configured otherwise: 10 GiB (3.4, 12.1).
pub const DEFAULT_MAX_STORAGE_BYTES: u64 = 10 * 1024 * 1024 * 1024;
