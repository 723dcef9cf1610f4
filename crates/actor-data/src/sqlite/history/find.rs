//! What a database was at some time, in one snapshot.

use protocol::id::Id;
use store::Explorer;

use super::HistoryError;
use super::rows::{self, Commit};
use crate::ledger::{Kept, Ledger, Stage};
use crate::record;
use crate::sqlite::row_range;
use crate::{Bytes, Damaged, Standing, fence, ledger, page};

/// Takes a page of the past: its number, and key and value of its row.
pub(super) type Take<'t> = &'t mut dyn FnMut(u32, &[u8], &[u8]) -> Result<(), HistoryError>;

/// The standing of an actor in a snapshot.
pub(super) fn standing(explorer: &Explorer<'_>, actor: &Id) -> Result<Standing, HistoryError> {
    let (fence, ledger) = (explorer.get(&fence::key(actor))?, explorer.get(&ledger::key(actor))?);
    Ok(Standing::decode(actor, fence, ledger)?)
}

/// The history, if it reaches back to some time.
pub(super) fn reaching(ledger: &Ledger, at: i64) -> Result<Kept, HistoryError> {
    let kept = ledger.history.ok_or(HistoryError::NotKept)?;
    if at < kept.since { Err(HistoryError::TooEarly { since: kept.since }) } else { Ok(kept) }
}

/// The first commit after some time, and the head that it made.
pub(super) fn first_after(
    explorer: &Explorer<'_>,
    actor: &Id,
    ledger: &Ledger,
    at: i64,
) -> Result<Option<(u64, Commit)>, HistoryError> {
    let kept = reaching(ledger, at)?;
    // Times rise with heads. Commits below `low` are not after the time, those from `high` on are.
    let (mut low, mut high) = (kept.first, ledger.head.saturating_add(1));
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        match next_commit(explorer, actor, middle, high)? {
            Some((head, commit)) if commit.time <= at => low = head + 1,
            Some(after) => {
                found = Some(after);
                high = middle;
            }
            // Undone commits have no row.
            None => high = middle,
        }
    }
    Ok(found)
}

/// The first commit with a head from `start` to below `end`.
fn next_commit(explorer: &Explorer<'_>, actor: &Id, start: u64, end: u64) -> Result<Option<(u64, Commit)>, HistoryError> {
    let row = explorer.range(&rows::commit_key(actor, start), &rows::commit_key(actor, end))?.next();
    let Some((key, value)) = row.transpose()? else { return Ok(None) };
    Ok(Some((rows::head_of(key)?, Commit::decode(key, value)?)))
}

/// Takes the wanted pages that commits from `head` on have noted, as they were before the first of these.
pub(super) fn take_noted(
    explorer: &Explorer<'_>,
    actor: &Id,
    head: u64,
    wanted: &mut PageSet,
    take: Take<'_>,
) -> Result<(), HistoryError> {
    take_range(explorer, rows::page_key(actor, head, 0), &rows::page_key(actor, u64::MAX, u32::MAX), wanted, take)
}

/// Takes the wanted pages that have a row, as they are in the page rows.
pub(super) fn take_rows(explorer: &Explorer<'_>, actor: &Id, wanted: &mut PageSet, take: Take<'_>) -> Result<(), HistoryError> {
    take_range(explorer, page::key(actor, 0), &page::key(actor, u32::MAX), wanted, take)
}

/// Takes the wanted pages of a commit that has not been moved into the page rows yet, if there is one.
pub(super) fn take_staged(
    explorer: &Explorer<'_>,
    actor: &Id,
    ledger: &Ledger,
    wanted: &mut PageSet,
    take: Take<'_>,
) -> Result<(), HistoryError> {
    let Stage::Published { number, limit } = ledger.stage else { return Ok(()) };
    take_range(explorer, page::staged_key(actor, number, 0), &page::staged_key(actor, number, limit), wanted, take)
}

fn take_range(
    explorer: &Explorer<'_>,
    first: Bytes,
    last: &Bytes,
    wanted: &mut PageSet,
    take: Take<'_>,
) -> Result<(), HistoryError> {
    let (start, end) = row_range(first, last);
    for row in explorer.range(&start, &end)? {
        let (key, value) = row?;
        let pgno = record::last_u32(key).ok_or(Damaged { record: "page" })?;
        if wanted.remove(pgno) {
            take(pgno, key, value)?;
        }
    }
    Ok(())
}

/// A set of page numbers, as bits: 320 KiB for a database of 10 GiB.
pub(super) struct PageSet {
    words: Vec<u64>,
}

impl PageSet {
    /// All pages of a database of this size.
    pub(super) fn all(size: u32) -> Self {
        let mut words = vec![u64::MAX; size as usize / 64 + 1];
        // Page 0 does not exist, nor do those above the size.
        words[0] &= !1;
        if let Some(last) = words.last_mut() {
            *last &= u64::MAX >> (63 - size % 64);
        }
        Self { words }
    }

    /// Takes a page out. Whether it was in it.
    pub(super) fn remove(&mut self, pgno: u32) -> bool {
        let Some(word) = self.words.get_mut(pgno as usize / 64) else { return false };
        let bit = 1 << (pgno % 64);
        let was_in = *word & bit != 0;
        *word &= !bit;
        was_in
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_page_set_has_each_page_once(size in 0..300u32, pgnos in prop::collection::vec(0..400u32, 0..300)) {
            let mut set = PageSet::all(size);
            let mut left: std::collections::BTreeSet<u32> = (1..=size).collect();
            for pgno in pgnos {
                prop_assert_eq!(set.remove(pgno), left.remove(&pgno), "{}", pgno);
            }
        }
    }
}
