//! What the databases of these actors hold: pages that say which write they are of, so that a torn one shows.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::ledger::Content;

pub(crate) const PAGE_BYTES: usize = 4096;

/// Pages of one actor.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Database {
    /// Commits so far.
    pub(crate) head: u64,
    /// In pages.
    pub(crate) size: u32,
    /// The tag of each page that is not only zeros.
    pages: BTreeMap<u32, u64>,
}

/// A commit: pages with their tags, and the size of the database afterwards.
#[derive(Clone)]
pub(crate) struct Commit {
    pub(crate) pages: Vec<(u32, u64)>,
    pub(crate) size: u32,
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        write!(f, "commit of {} pages, size {}:", self.pages.len(), self.size)?;
        self.pages.iter().take(SHOWN).try_for_each(|(pgno, tag)| write!(f, " {pgno}={tag:x}"))
    }
}

impl Database {
    /// What a page within the size holds.
    pub(crate) fn page(&self, pgno: u32) -> Option<Bytes> {
        (1..=self.size).contains(&pgno).then(|| self.pages.get(&pgno).map_or_else(hole, |tag| page(*tag)))
    }

    /// A database from all its pages.
    ///
    /// # Errors
    /// A page holds what nobody has written as a whole.
    pub(crate) fn from_pages(head: u64, found: impl Iterator<Item = (u32, Bytes)>) -> Result<Self, String> {
        let mut database = Self { head, ..Self::default() };
        for (pgno, bytes) in found {
            database.size = database.size.max(pgno);
            if bytes != hole() {
                let tag = tag_of(&bytes).ok_or_else(|| format!("page {pgno} was never written like that"))?;
                database.pages.insert(pgno, tag);
            }
        }
        Ok(database)
    }
}

impl Content for Database {
    type Write = Commit;

    fn apply(&mut self, commit: &Commit) {
        self.head += 1;
        self.size = commit.size;
        self.pages.extend(commit.pages.iter().copied());
        self.pages.retain(|pgno, _| *pgno <= commit.size);
    }

    fn difference(&self, found: &Self) -> String {
        const TOLD: usize = 6;
        let shown = |tag: Option<&u64>| tag.map_or_else(|| "zeros".to_owned(), |tag| format!("{tag:x}"));
        let all = self.pages.keys().chain(found.pages.keys().filter(|pgno| !self.pages.contains_key(*pgno)));
        let others: Vec<&u32> = all.filter(|pgno| self.pages.get(pgno) != found.pages.get(pgno)).collect();
        let told = others.iter().take(TOLD);
        let told = told.map(|pgno| format!("{pgno}={} instead of {}", shown(found.pages.get(pgno)), shown(self.pages.get(pgno))));
        format!(
            "head {} instead of {}, size {} instead of {}, {} other pages: {}",
            found.head,
            self.head,
            found.size,
            self.size,
            others.len(),
            told.collect::<Vec<_>>().join(", ")
        )
    }
}

fn hole() -> Bytes {
    Bytes::from_static(&[0; PAGE_BYTES])
}

/// The page of a tag that is not 0: mostly zeros, a pattern, or nothing that compresses.
pub(crate) fn page(tag: u64) -> Bytes {
    let mut page = vec![0; PAGE_BYTES];
    let mut state = tag;
    match tag % 4 {
        0 => page[PAGE_BYTES - 8..].copy_from_slice(&tag.to_be_bytes()),
        1 => page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&tag.to_be_bytes())),
        _ => page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&scrambled(&mut state).to_le_bytes())),
    }
    page[..8].copy_from_slice(&tag.to_le_bytes());
    page.into()
}

/// The tag of which these bytes are the page.
fn tag_of(bytes: &[u8]) -> Option<u64> {
    let tag = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (tag != 0 && page(tag) == bytes).then_some(tag)
}

/// The next of a sequence of numbers without a visible pattern, by the xorshift method; never 0 from a state that is not 0.
fn scrambled(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
