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
    pub(super) key: Bytes,
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

/// Compresses the pages, which were checked, to be stored under these keys.
pub(super) async fn pack(
    pages: Vec<SqliteDirtyPage>,
    key: impl Fn(u32) -> Bytes + Send + 'static,
) -> Result<Vec<PackedPage>, SqliteError> {
    let count = pages.len();
    let pack_all = move || pages.iter().map(|page| pack_one(page, key(page.pgno))).collect();
    if count <= INLINE_MAX_PAGES {
        return Ok(pack_all());
    }
    tokio::task::spawn_blocking(pack_all).await.map_err(|_| SqliteError::Interrupted)
}

fn pack_one(page: &SqliteDirtyPage, key: Bytes) -> PackedPage {
    let row = page::encode(&key, &page.bytes);
    PackedPage { pgno: page.pgno, key, row }
}
