//! Checks and packs the pages of a commit or a segment.

use bytes::Bytes;
use protocol::envoy::SqliteDirtyPage;

use super::error::SqliteError;
use crate::limits::PAGE_BYTES;
use crate::page;

/// Pages above which packing goes to a thread of its own: some 8 µs each, and half a millisecond is what an async
/// thread may be kept busy.
const INLINE_MAX_PAGES: usize = 64;

/// A page ready to be stored.
#[derive(Debug, Clone)]
pub(super) struct PackedPage {
    pub(super) pgno: u32,
    pub(super) row: Bytes,
}

/// Refuses pages that no commit may contain.
pub(super) fn check(pages: &[SqliteDirtyPage]) -> Result<(), SqliteError> {
    let mut numbers = Vec::with_capacity(pages.len());
    for page in pages {
        if page.pgno == 0 {
            return Err(SqliteError::PageZero { request: "sqlite commit" });
        }
        if page.bytes.len() != PAGE_BYTES {
            return Err(SqliteError::PageLength { pgno: page.pgno, bytes: page.bytes.len() });
        }
        numbers.push(page.pgno);
    }
    numbers.sort_unstable();
    match numbers.array_windows().find(|[one, next]| one == next) {
        Some(&[pgno, _]) => Err(SqliteError::PageTwice { pgno }),
        None => Ok(()),
    }
}

/// Compresses the pages, which were checked.
pub(super) async fn pack(pages: Vec<SqliteDirtyPage>) -> Result<Vec<PackedPage>, SqliteError> {
    if pages.len() <= INLINE_MAX_PAGES {
        return Ok(pack_all(&pages));
    }
    tokio::task::spawn_blocking(move || pack_all(&pages)).await.map_err(|_| SqliteError::Interrupted)
}

fn pack_all(pages: &[SqliteDirtyPage]) -> Vec<PackedPage> {
    pages.iter().map(|page| PackedPage { pgno: page.pgno, row: page::encode(&page.bytes) }).collect()
}
