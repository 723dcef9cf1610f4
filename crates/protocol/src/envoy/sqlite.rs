//! The SQLite page protocol (`spec/envoy-protocol.md` 5.6 and 11, `spec/storage.md` 6).
//!
//! In all requests `expected_generation` is the actor's generation, and `expected_head_txid` an optional fence: the
//! transaction that must be the newest one.

use bytes::Bytes;

use super::wire::wire_structs;

/// Answer to any SQLite request: on the wire a union, 0 = the `…Ok` struct, 1 = the error.
pub type SqliteResult<T> = Result<T, SqliteErrorResponse>;

wire_structs! {
    /// Why a SQLite request failed.
    struct SqliteErrorResponse {
        /// First half of the error's name, for example `depot`.
        group: String,
        /// Second half, for example `head_fence_mismatch`.
        code: String,
        /// Text for people.
        message: String,
    }

    /// A page to be written.
    struct SqliteDirtyPage {
        /// Page number, from 1.
        pgno: u32,
        /// The page, 4,096 bytes.
        bytes: Bytes,
    }

    /// A page that was read.
    struct SqliteFetchedPage {
        /// Page number, from 1.
        pgno: u32,
        /// The page; none beyond the end of the database.
        bytes: Option<Bytes>,
    }

    /// Read pages.
    struct SqliteGetPagesRequest {
        /// Text form of the actor id.
        actor_id: String,
        /// At most 8,192 page numbers.
        pgnos: Vec<u32>,
        /// Generation of the actor.
        expected_generation: Option<u64>,
        /// Fence.
        expected_head_txid: Option<u64>,
    }

    /// Pages read.
    struct SqliteGetPagesOk {
        /// The pages asked for, possibly more.
        pages: Vec<SqliteFetchedPage>,
        /// Newest transaction.
        head_txid: Option<u64>,
    }

    /// Write pages in one transaction.
    struct SqliteCommitRequest {
        /// Text form of the actor id.
        actor_id: String,
        /// The pages changed.
        dirty_pages: Vec<SqliteDirtyPage>,
        /// Size of the database afterwards, in pages.
        db_size_pages: u32,
        /// Clock of the host, epoch milliseconds.
        now_ms: i64,
        /// Generation of the actor.
        expected_generation: Option<u64>,
        /// Fence.
        expected_head_txid: Option<u64>,
    }

    /// Written.
    struct SqliteCommitOk {
        /// Newest transaction, the one just written.
        head_txid: Option<u64>,
    }

    /// Begin a transaction that is too large for one message.
    struct SqliteCommitStageBeginRequest {
        /// Text form of the actor id.
        actor_id: String,
        /// Generation of the actor.
        expected_generation: Option<u64>,
        /// Fence.
        expected_head_txid: Option<u64>,
    }

    /// Begun.
    struct SqliteCommitStageBeginOk {
        /// Number of the staged transaction.
        txid: u64,
    }

    /// One piece of a staged transaction.
    struct SqliteCommitStageSegmentRequest {
        /// Text form of the actor id.
        actor_id: String,
        /// Generation of the actor.
        expected_generation: Option<u64>,
        /// The staged transaction.
        txid: u64,
        /// First page of the segment's span: a multiple of 64.
        first_pgno: u32,
        /// The pages changed.
        dirty_pages: Vec<SqliteDirtyPage>,
    }

    /// Staged.
    struct SqliteCommitStageSegmentOk {
        /// Bytes stored for this segment.
        staged_bytes: u64,
    }

    /// Publish a staged transaction.
    struct SqliteCommitFinalizeRequest {
        /// Text form of the actor id.
        actor_id: String,
        /// Generation of the actor.
        expected_generation: Option<u64>,
        /// The staged transaction.
        txid: u64,
        /// Size of the database afterwards, in pages.
        new_db_size_pages: u32,
        /// Clock of the host, epoch milliseconds.
        now_ms: i64,
        /// `first_pgno` of every segment staged.
        segment_first_pgnos: Vec<u32>,
    }

    /// Published.
    struct SqliteCommitFinalizeOk {
        /// Newest transaction, the one just published.
        head_txid: Option<u64>,
    }
}
