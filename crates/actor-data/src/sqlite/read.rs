//! Reading pages (`spec/storage.md` 6.3).

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::envoy::{SqliteErrorResponse, SqliteFetchedPage, SqliteGetPagesOk, SqliteGetPagesRequest};
use protocol::id::Id;
use store::{Explorer, Found, Reads, Scan};

use super::error::SqliteError;
use super::read_ahead::{Link, ReadAhead};
use super::{Caller, Guard, row_range, standing_reads};
use crate::ledger::Ledger;
use crate::limits::READ_MAX_PAGES;
use crate::{ActorData, Damaged, STANDING_KEYS, Standing, page, record, standing_keys};

/// Pages by their numbers.
type Pages = BTreeMap<u32, Bytes>;

/// Pages above which unpacking goes to a thread of its own: one or two microseconds each.
const INLINE_MAX_PAGES: usize = 256;
/// Consecutive pages that are read as a range rather than one by one.
const RUN_MIN_PAGES: u32 = 4;

impl ActorData {
    /// Reads pages at one head. Pages beyond the end of the database are left out of the answer; a database without
    /// commits is answered with no pages and head 0. A host that has lost the answer to its last commit reads as if it had
    /// not been made. Behind the pages that a host asked for may come some that it will need next (`read_ahead`).
    ///
    /// # Errors
    /// Those of `spec/storage.md` 6.5 and 6.6, and group `store` if the store fails.
    pub async fn get_pages(
        &self,
        actor: Id,
        caller: Caller,
        request: SqliteGetPagesRequest,
    ) -> Result<SqliteGetPagesOk, SqliteErrorResponse> {
        Ok(self.try_get_pages(actor, caller, request).await?)
    }

    async fn try_get_pages(
        &self,
        actor: Id,
        caller: Caller,
        request: SqliteGetPagesRequest,
    ) -> Result<SqliteGetPagesOk, SqliteError> {
        let guard = Guard::new("get_pages", caller, request.expected_generation, request.expected_head_txid)?;
        let guard = self.resume(actor, guard).await?;
        let fault = check(&request.pgnos);
        let wanted = if fault.is_ok() { sorted(&request.pgnos) } else { Vec::new() };

        let (ledger, rows) = self.newest_rows(actor, guard, &wanted).await?;
        self.tidy(actor, guard.generation, &ledger);
        fault?;
        let (size, head_txid) = (ledger.size, Some(ledger.head));
        let asked = if rows.len() <= INLINE_MAX_PAGES {
            unpack(&rows, &wanted, size)?
        } else {
            let work = move || unpack(&rows, &wanted, size);
            tokio::task::spawn_blocking(work).await.map_err(|_| SqliteError::Interrupted)??
        };
        let in_order = request.pgnos.iter().filter_map(|pgno| Some((*pgno, asked.get(pgno)?.clone())));
        let mut pages: Vec<_> = in_order.collect();
        if caller.is_host() {
            pages.extend(self.read_ahead(actor, &ledger, asked).await);
        }
        let pages = pages.into_iter().map(|(pgno, bytes)| SqliteFetchedPage { pgno, bytes: Some(bytes) });
        Ok(SqliteGetPagesOk { pages: pages.collect(), head_txid })
    }

    /// The rows of pages, in ascending order of their numbers, and the ledger, from one snapshot.
    async fn newest_rows(&self, actor: Id, guard: Guard, wanted: &[u32]) -> Result<(Ledger, BTreeMap<u32, Row>), SqliteError> {
        let mut overlay = None;
        loop {
            let reads = reads(&actor, wanted, overlay);
            let found = self.store.read(reads.clone()).await?;
            let standing = Standing::decode(&actor, found.keys[0].as_deref(), found.keys[1].as_deref())?;
            let ledger = guard.admit(standing)?;
            // Rare: pages of a staged commit that did not move yet. They must come from the same snapshot.
            if ledger.published().is_some() && overlay != ledger.published() {
                overlay = ledger.published();
                continue;
            }
            let rows = rows(&reads, found, &ledger)?;
            return Ok((ledger, rows));
        }
    }

    /// Pages that go along with those that a host asked for. None if anything is in the way: the host will ask for what it
    /// needs, and be told then.
    async fn read_ahead(&self, actor: Id, ledger: &Ledger, asked: Pages) -> Vec<(u32, Bytes)> {
        if asked.len() as u64 >= u64::from(ledger.size) {
            return Vec::new();
        }
        let mut ahead = ReadAhead::new(asked, ledger.size);
        let Some(first) = ahead.next() else { return Vec::new() };
        let head = ledger.head;
        let found = self.store.explore(move |explorer| read_ahead(explorer, &actor, head, ahead, first)).await;
        match found.map_err(SqliteError::from).flatten() {
            Ok(pages) => pages,
            Err(error) => {
                tracing::debug!(%error, %actor, "cannot read ahead");
                Vec::new()
            }
        }
    }
}

/// Reads the pages that `ahead` names, `first` being the first of them. None if the database is not at this head any more: as
/// long as it is, whatever snapshot they come from, they are as the others in the answer.
fn read_ahead(
    explorer: &Explorer<'_>,
    actor: &Id,
    head: u64,
    mut ahead: ReadAhead,
    first: Link,
) -> Result<Vec<(u32, Bytes)>, SqliteError> {
    let [fence, ledger] = standing_keys(actor);
    let Standing { ledger, .. } = Standing::decode(actor, explorer.get(&fence)?, explorer.get(&ledger)?)?;
    if ledger.head != head {
        return Ok(Vec::new());
    }
    let mut next = Some(first);
    while let Some(link) = next {
        let page = newest(explorer, actor, &ledger, link.pgno)?;
        ahead.found(link, page);
        next = ahead.next();
    }
    Ok(ahead.into_pages())
}

/// A page as it is now. It must be within the size.
fn newest(explorer: &Explorer<'_>, actor: &Id, ledger: &Ledger, pgno: u32) -> Result<Bytes, SqliteError> {
    if let Some(stage) = ledger.published().filter(|_| ledger.counts_staged(pgno)) {
        let key = page::staged_key(actor, stage, pgno);
        if let Some(row) = explorer.get(&key)? {
            return Ok(page::decode(&key, &Bytes::copy_from_slice(row))?);
        }
    }
    let key = page::key(actor, pgno);
    match explorer.get(&key)? {
        Some(row) => Ok(page::decode(&key, &Bytes::copy_from_slice(row))?),
        None => Ok(page::zeros()),
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

/// The pages that were asked for and are within the size; those without a row are zeros.
fn unpack(rows: &BTreeMap<u32, Row>, wanted: &[u32], size: u32) -> Result<Pages, Damaged> {
    let within = wanted.iter().take_while(|pgno| **pgno <= size);
    let page = |pgno: &u32| match rows.get(pgno) {
        Some(row) => Ok((*pgno, page::decode(&row.key, &row.value)?)),
        None => Ok((*pgno, page::zeros())),
    };
    within.map(page).collect()
}
