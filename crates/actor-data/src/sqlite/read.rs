//! Reading pages (`spec/storage.md` 6.3).

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::envoy::{SqliteErrorResponse, SqliteFetchedPage, SqliteGetPagesOk, SqliteGetPagesRequest};
use protocol::id::Id;
use store::{Found, Reads, Scan};

use super::error::SqliteError;
use super::{Guard, row_range, standing_reads};
use crate::ledger::Ledger;
use crate::limits::READ_MAX_PAGES;
use crate::{ActorData, Damaged, STANDING_KEYS, Standing, page, record};

/// Pages above which unpacking goes to a thread of its own: one or two microseconds each.
const INLINE_MAX_PAGES: usize = 256;
/// Consecutive pages that are read as a range rather than one by one.
const RUN_MIN_PAGES: u32 = 4;

impl ActorData {
    /// Reads pages at one head. Pages beyond the end of the database are left out of the answer; a database without
    /// commits is answered with no pages and head 0. `session` is as for [`ActorData::commit`]: a host that has lost the
    /// answer to its last commit reads as if it had not been made.
    ///
    /// # Errors
    /// Those of `spec/storage.md` 6.5 and 6.6, and group `store` if the store fails.
    pub async fn get_pages(
        &self,
        actor: Id,
        session: Option<u64>,
        request: SqliteGetPagesRequest,
    ) -> Result<SqliteGetPagesOk, SqliteErrorResponse> {
        Ok(self.try_get_pages(actor, session, request).await?)
    }

    async fn try_get_pages(
        &self,
        actor: Id,
        session: Option<u64>,
        request: SqliteGetPagesRequest,
    ) -> Result<SqliteGetPagesOk, SqliteError> {
        let guard = Guard::new("get_pages", session, request.expected_generation, request.expected_head_txid)?;
        let guard = self.resume(actor, guard).await?;
        let fault = check(&request.pgnos);
        let wanted = if fault.is_ok() { sorted(&request.pgnos) } else { Vec::new() };

        let mut overlay = None;
        let (ledger, rows) = loop {
            let reads = reads(&actor, &wanted, overlay);
            let found = self.store.read(reads.clone()).await?;
            let standing = Standing::decode(&actor, found.keys[0].as_deref(), found.keys[1].as_deref())?;
            let ledger = guard.admit(standing)?;
            // Rare: pages of a staged commit that did not move yet. They must come from the same snapshot.
            if ledger.published().is_some() && overlay != ledger.published() {
                overlay = ledger.published();
                continue;
            }
            let rows = rows(&reads, found, &ledger)?;
            break (ledger, rows);
        };
        self.tidy(actor, guard.generation, &ledger);
        fault?;
        if rows.len() <= INLINE_MAX_PAGES {
            return Ok(answer(&ledger, &request.pgnos, &rows)?);
        }
        let work = move || answer(&ledger, &request.pgnos, &rows);
        Ok(tokio::task::spawn_blocking(work).await.map_err(|_| SqliteError::Interrupted)??)
    }
}

fn check(pgnos: &[u32]) -> Result<(), SqliteError> {
    if pgnos.len() > READ_MAX_PAGES {
        return Err(SqliteError::ReadTooLarge { pages: pgnos.len() });
    }
    if pgnos.contains(&0) {
        return Err(SqliteError::PageZero { request: "get_pages" });
    }
    Ok(())
}

fn sorted(pgnos: &[u32]) -> Vec<u32> {
    let mut sorted = pgnos.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

/// Standing and page rows; also the rows of a published stage, if there is one.
fn reads(actor: &Id, wanted: &[u32], overlay: Option<u64>) -> Reads {
    let mut reads = standing_reads(actor);
    add_runs(&mut reads, wanted, |pgno| page::key(actor, pgno));
    if let Some(stage) = overlay {
        add_runs(&mut reads, wanted, |pgno| page::staged_key(actor, stage, pgno));
    }
    reads
}

fn add_runs(reads: &mut Reads, wanted: &[u32], key: impl Fn(u32) -> Bytes) {
    for run in wanted.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
        match run {
            [first, .., last] if last - first >= RUN_MIN_PAGES => {
                let (start, end) = row_range(key(*first), &key(*last));
                reads.ranges.push(Scan { max_bytes: usize::MAX, ..Scan::range(start, end) });
            }
            _ => reads.keys.extend(run.iter().map(|pgno| key(*pgno))),
        }
    }
}

/// A row as it is stored.
struct Row {
    key: Bytes,
    value: Bytes,
}

/// The newest row of each page that has one.
fn rows(reads: &Reads, found: Found, ledger: &Ledger) -> Result<BTreeMap<u32, Row>, Damaged> {
    let singles = reads.keys.iter().cloned().zip(found.keys).skip(STANDING_KEYS);
    let singles = singles.filter_map(|(key, value)| Some((key, value?)));
    let mut rows = BTreeMap::new();
    // A page is read both times as a single key or both times in a range, and staged rows come after the others.
    for (key, value) in singles.chain(found.ranges.into_iter().flatten()) {
        let pgno = record::last_u32(&key).ok_or(Damaged { record: "page" })?;
        if !page::is_staged(&key) || ledger.counts_staged(pgno) {
            rows.insert(pgno, Row { key, value });
        }
    }
    Ok(rows)
}

fn answer(ledger: &Ledger, pgnos: &[u32], rows: &BTreeMap<u32, Row>) -> Result<SqliteGetPagesOk, Damaged> {
    let mut decoded = BTreeMap::new();
    for (pgno, row) in rows.range(..=ledger.size) {
        decoded.insert(pgno, page::decode(&row.key, &row.value)?);
    }
    let pages = pgnos.iter().filter(|pgno| **pgno <= ledger.size).map(|pgno| {
        let bytes = decoded.get(pgno).cloned().unwrap_or_else(page::zeros);
        SqliteFetchedPage { pgno: *pgno, bytes: Some(bytes) }
    });
    Ok(SqliteGetPagesOk { pages: pages.collect(), head_txid: Some(ledger.head) })
}
