//! Why a page request failed, in the words of `spec/storage.md` 6.5 to 6.7.

use protocol::envoy::SqliteErrorResponse;
use store::StoreError;

use crate::Damaged;
use crate::limits::{COMMIT_MAX_PAGES, PAGE_BYTES, READ_MAX_PAGES, SEGMENT_SPAN_PAGES, STAGE_MAX_PAGES};

/// Why a page request failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SqliteError {
    #[error("sqlite {request} missing expectedGeneration")]
    MissingGeneration { request: &'static str },
    /// Stale, or destroyed.
    #[error("actor generation {generation} is not current")]
    NotCurrent { generation: u64 },
    #[error("transaction failed: sqlite head fence mismatch: expected head txid {expected}, current head txid {actual}")]
    HeadMismatch { expected: u64, actual: u64 },
    #[error("{request} does not accept page 0")]
    PageZero { request: &'static str },
    #[error("sqlite commit page {pgno} had {bytes} bytes, expected {PAGE_BYTES}")]
    PageLength { pgno: u32, bytes: usize },
    #[error("sqlite commit duplicated page {pgno} in a single request")]
    PageTwice { pgno: u32 },
    #[error("sqlite get_pages requested {pages} pages, exceeding limit {READ_MAX_PAGES}")]
    ReadTooLarge { pages: usize },
    #[error(
        "sqlite commit too large: actual_size_bytes={}, max_size_bytes={}",
        pages * PAGE_BYTES,
        COMMIT_MAX_PAGES * PAGE_BYTES
    )]
    CommitTooLarge { pages: usize },
    #[error(
        "transaction failed: CommitTooLarge: raw dirty pages were {} bytes, limit is {} bytes",
        pages * PAGE_BYTES as u64,
        u64::from(STAGE_MAX_PAGES) * PAGE_BYTES as u64
    )]
    StageTooLarge { pages: u64 },
    #[error("transaction failed: StageSegmentInvalid: {0}")]
    StageInvalid(#[from] StageFault),
    #[error("transaction failed: StageNotFound: no staged segment at page {first_pgno} for txid {txid}")]
    StageNotFound { first_pgno: u32, txid: u64 },
    #[error(
        "transaction failed: SqliteStorageQuotaExceeded: not enough space left in depot \
         ({remaining} bytes remaining, current payload is {payload} bytes)"
    )]
    QuotaExceeded { remaining: u64, payload: u64 },
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Work on a thread of its own did not end; only at shutdown, or after a panic.
    #[error("the request was interrupted")]
    Interrupted,
}

/// What is wrong with a step of a staged commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StageFault {
    #[error("no staged commit is open at txid {txid}")]
    NotOpen { txid: u64 },
    #[error("the staged commit was begun by generation {generation}")]
    OtherGeneration { generation: u32 },
    #[error("first page {first_pgno} is not shard-aligned")]
    NotAligned { first_pgno: u32 },
    #[error("segment has no pages")]
    Empty,
    #[error("page {pgno} is outside of the {SEGMENT_SPAN_PAGES}-page span of the segment at {first_pgno}")]
    OutOfSpan { pgno: u32, first_pgno: u32 },
    #[error("segment {first_pgno} overlaps the span of the segment at {last}")]
    Overlap { first_pgno: u32, last: u32 },
    #[error("finalize claimed {claimed} segments but {staged} were staged")]
    Count { claimed: usize, staged: usize },
}

impl SqliteError {
    /// Whether the store takes nothing at the moment, of which it tells its operator once for all.
    pub(super) fn is_lack_of_room(&self) -> bool {
        matches!(self, Self::Store(error) if error.may_pass())
    }

    fn group_and_code(&self) -> (&'static str, &'static str) {
        match self {
            Self::MissingGeneration { .. } | Self::ReadTooLarge { .. } => ("sqlite", "invalid_request"),
            Self::NotCurrent { .. } | Self::HeadMismatch { .. } => ("depot", "head_fence_mismatch"),
            Self::PageZero { .. } | Self::PageLength { .. } | Self::PageTwice { .. } => ("core", "internal_error"),
            Self::CommitTooLarge { .. } | Self::StageTooLarge { .. } => ("depot", "commit_too_large"),
            Self::StageInvalid(_) => ("depot", "stage_segment_invalid"),
            Self::StageNotFound { .. } => ("depot", "stage_not_found"),
            Self::QuotaExceeded { .. } => ("depot", "quota_exceeded"),
            Self::Damaged(_) => ("store", "damaged"),
            Self::Store(error) => ("store", error.code()),
            Self::Interrupted => ("core", "internal_error"),
        }
    }
}

impl From<SqliteError> for SqliteErrorResponse {
    fn from(error: SqliteError) -> Self {
        let (group, code) = error.group_and_code();
        if group == "store" && !error.is_lack_of_room() {
            tracing::error!(%error, "a page request failed in the store");
        }
        Self { group: group.into(), code: code.into(), message: error.to_string() }
    }
}
