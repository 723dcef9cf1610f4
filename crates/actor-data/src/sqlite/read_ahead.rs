//! Which pages a host will need next: they go along with those that it asked for (`spec/storage.md` 6.9, 16.3).
//!
//! | A host reads | Then its SQLite reads, one after the other | So with it go |
//! |---|---|---|
//! | page 1, with those behind it: it opens the database | pages of the schema that lie further back; the first page of the list of free pages, when the SDK tries out at each wake whether it can write | these |
//! | one leaf of a table | the rest of the row that it looks for, page by page, if the row does not fit into the leaf | the rests of all rows of the leaf, as far as there is room |
//!
//! Without them each of these pages, or each few of them, costs the host a round trip. The SDK keeps whatever comes with an
//! answer. Of the free page that SQLite takes from the list it does not read what is in there, so it is left out.
//!
//! The format is that of SQLite's files, with pages of 4,096 bytes and nothing reserved in them. What the pages say is the
//! host's and may be anything: a wrong number brings a page of the same database that nobody needs, each page is looked at
//! once, and there is an end to how many are.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;

use crate::limits::{PAGE_BYTES, READ_AHEAD_MAX_PAGES};

/// Pages that are followed in all, those that were asked for included.
const MAX_LINKS: usize = 512;

/// Where page 1 says how many bytes at the end of each page are not SQLite's.
const RESERVED_AT: usize = 20;
/// Where page 1 names the first page of the list of free pages.
const FREE_LIST_AT: usize = 32;
/// Where the b-tree of the schema begins, on page 1.
const SCHEMA_AT: usize = 100;
const INNER_TABLE: u8 = 5;
const TABLE_LEAF: u8 = 13;
/// Bytes of a row that a leaf holds at most.
const MAX_LOCAL: u64 = PAGE_BYTES as u64 - 35;
/// Bytes of a row that a leaf holds at least if the row does not fit.
const MIN_LOCAL: u64 = (PAGE_BYTES as u64 - 12) * 32 / 255 - 23;
/// Bytes of a row on each page of its rest.
const OVERFLOW_BYTES: u64 = PAGE_BYTES as u64 - 4;

/// What a page is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Page 1.
    First,
    /// Of the tree of the schema.
    Schema,
    /// Of a tree that may be a table.
    Tree,
    /// Of the list of free pages.
    FreeList,
    /// Of the rest of a row.
    Overflow,
}

/// A page that another one names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) pgno: u32,
    role: Role,
}

/// Pages to be read for one answer.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// Those that were asked for and are within the size.
    asked: BTreeMap<u32, Bytes>,
    /// Pages of the database.
    size: u32,
    /// To be looked at, nearest first.
    links: VecDeque<Link>,
    linked: HashSet<u32>,
    /// Pages found so far.
    found: Vec<(u32, Bytes)>,
}

impl ReadAhead {
    /// For a database of `size` pages. `asked`: the pages in the answer.
    pub(super) fn new(asked: BTreeMap<u32, Bytes>, size: u32) -> Self {
        let mut this = Self { asked, size, links: VecDeque::new(), linked: HashSet::new(), found: Vec::new() };
        if let Some(first) = this.asked.get(&1).cloned() {
            this.follow(Role::First, &first);
        } else if this.asked.len() == 1
            && let Some(page) = this.asked.values().next().cloned()
        {
            this.follow(Role::Tree, &page);
        }
        this
    }

    /// The next page to be read.
    pub(super) fn next(&mut self) -> Option<Link> {
        while let Some(link) = self.links.pop_front() {
            match self.asked.get(&link.pgno).cloned() {
                Some(page) => self.follow(link.role, &page),
                None => return Some(link).filter(|_| self.found.len() < READ_AHEAD_MAX_PAGES),
            }
        }
        None
    }

    /// Takes a page that [`Self::next`] has named.
    pub(super) fn found(&mut self, link: Link, page: Bytes) {
        self.follow(link.role, &page);
        self.found.push((link.pgno, page));
    }

    /// The pages that were found, each once, none of which was asked for.
    pub(super) fn into_pages(self) -> Vec<(u32, Bytes)> {
        self.found
    }

    fn follow(&mut self, role: Role, page: &[u8]) {
        match role {
            Role::First if page.get(RESERVED_AT) == Some(&0) => {
                self.link(u32_at(page, FREE_LIST_AT), Role::FreeList);
                self.follow_tree(page, SCHEMA_AT, Role::Schema);
            }
            // No database that the SDK makes.
            Role::First => {}
            Role::Schema | Role::Tree => self.follow_tree(page, 0, role),
            // SQLite goes on with the next page of the list only if this one has no more free pages.
            Role::FreeList if u32_at(page, 4) == Some(0) => self.link(u32_at(page, 0), Role::FreeList),
            Role::FreeList => {}
            Role::Overflow => self.link(u32_at(page, 0), Role::Overflow),
        }
    }

    /// Of a page with a part of a tree, which begins at `header`.
    fn follow_tree(&mut self, page: &[u8], header: usize, role: Role) {
        match page.get(header) {
            // Which branch of a table is needed nobody knows; of the schema it is all of them.
            Some(&INNER_TABLE) if role == Role::Schema => {
                for at in cells(page, header, header + 12) {
                    self.link(u32_at(page, at), role);
                }
                self.link(u32_at(page, header + 8), role);
            }
            Some(&TABLE_LEAF) => {
                for at in cells(page, header, header + 8) {
                    self.link(overflow(page, at), Role::Overflow);
                }
            }
            Some(_) | None => {}
        }
    }

    fn link(&mut self, pgno: Option<u32>, role: Role) {
        // Page 1 is none that others name.
        if let Some(pgno) = pgno
            && (2..=self.size).contains(&pgno)
            && self.linked.len() < MAX_LINKS
            && self.linked.insert(pgno)
        {
            self.links.push_back(Link { pgno, role });
        }
    }
}

/// Where the cells of a page begin; `pointers` is where the page says so.
fn cells(page: &[u8], header: usize, pointers: usize) -> impl Iterator<Item = usize> {
    let count = u16_at(page, header + 3).unwrap_or(0);
    (0..usize::from(count)).map_while(move |index| u16_at(page, pointers + 2 * index)).map(usize::from)
}

/// The page on which the row of a cell goes on, if it does not fit into its leaf.
fn overflow(page: &[u8], cell: usize) -> Option<u32> {
    let (length, row_id) = varint(page, cell)?;
    let (_, local) = varint(page, row_id)?;
    if length <= MAX_LOCAL {
        return None;
    }
    let fits_evenly = MIN_LOCAL + (length - MIN_LOCAL) % OVERFLOW_BYTES;
    let local_bytes = if fits_evenly <= MAX_LOCAL { fits_evenly } else { MIN_LOCAL };
    u32_at(page, local + local_bytes as usize)
}

/// A number of up to nine bytes, and where it ends.
fn varint(page: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut number = 0;
    for offset in 0..8 {
        let byte = *page.get(at + offset)?;
        number = number << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((number, at + offset + 1));
        }
    }
    let last = *page.get(at + 8)?;
    Some((number << 8 | u64::from(last), at + 9))
}

fn u16_at(page: &[u8], at: usize) -> Option<u16> {
    let bytes = page.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

fn u32_at(page: &[u8], at: usize) -> Option<u32> {
    let bytes = page.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = PAGE_BYTES;
    const NONE: [u32; 0] = [];

    /// A page with a header at some place, for cells that begin at these places.
    fn tree(kind: u8, header: usize, cells: &[(usize, Vec<u8>)]) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[header] = kind;
        put(&mut page, header + 3, &(cells.len() as u16).to_be_bytes());
        let pointers = header + if kind == INNER_TABLE { 12 } else { 8 };
        for (index, (at, cell)) in cells.iter().enumerate() {
            put(&mut page, pointers + 2 * index, &(*at as u16).to_be_bytes());
            put(&mut page, *at, cell);
        }
        page
    }

    fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
        page[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// An inner page: a cell is the number of a page and a row id.
    fn inner(header: usize, children: &[u32]) -> Vec<u8> {
        let (last, others) = children.split_last().unwrap();
        let cell = |(index, child): (usize, &u32)| (1000 + 5 * index, [&child.to_be_bytes()[..], &[1]].concat());
        let mut page = tree(INNER_TABLE, header, &others.iter().enumerate().map(cell).collect::<Vec<_>>());
        put(&mut page, header + 8, &last.to_be_bytes());
        page
    }

    /// A leaf with rows of 5,000 bytes, of which 908 are in the leaf.
    fn leaf(rests: &[u32]) -> Vec<u8> {
        let cell = |rest: &u32| [&[0xa7, 0x08, 1][..], &[7; 908], &rest.to_be_bytes()].concat();
        let cells: Vec<_> = rests.iter().enumerate().map(|(index, rest)| (300 + 920 * index, cell(rest))).collect();
        tree(TABLE_LEAF, 0, &cells)
    }

    /// A page that names another one at its beginning.
    fn chain(next: u32) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        put(&mut page, 0, &next.to_be_bytes());
        page
    }

    type Database = BTreeMap<u32, Vec<u8>>;

    /// Numbers of the pages that go along with an answer.
    fn ahead(database: &Database, size: u32, asked: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let page = |pgno: u32| Bytes::from(database.get(&pgno).cloned().unwrap_or_else(|| vec![0; PAGE]));
        let asked: BTreeMap<u32, Bytes> = asked.into_iter().map(|pgno| (pgno, page(pgno))).collect();
        let mut ahead = ReadAhead::new(asked, size);
        while let Some(link) = ahead.next() {
            ahead.found(link, page(link.pgno));
        }
        let pages = ahead.into_pages();
        assert!(pages.iter().all(|(pgno, bytes)| *bytes == page(*pgno)));
        pages.into_iter().map(|(pgno, _)| pgno).collect()
    }

    #[test]
    fn with_page_1_come_the_schema_and_the_free_page_that_names_others() {
        let mut first = inner(SCHEMA_AT, &[2, 500, 501]);
        put(&mut first, FREE_LIST_AT, &600_u32.to_be_bytes());
        let mut free = chain(700);
        put(&mut free, 4, &1_u32.to_be_bytes());
        let long_entry = leaf(&[502]);
        let mut database =
            Database::from([(1, first), (2, inner(0, &[3, 503])), (500, long_entry), (502, chain(504)), (600, free)]);
        assert_eq!(ahead(&database, 1000, 1..=128), [600, 500, 501, 503, 502, 504]);
        // Also if only page 1 is asked for; and never more than the database has.
        assert_eq!(ahead(&database, 1000, [1]), [600, 2, 500, 501, 3, 503, 502, 504]);
        assert_eq!(ahead(&database, 502, 1..=128), [500, 501, 502]);
        assert_eq!(ahead(&database, 128, 1..=128), NONE);
        // A page without free pages is used itself: then SQLite needs the next one.
        database.insert(600, chain(700));
        assert_eq!(ahead(&database, 1000, 1..=128), [600, 500, 501, 700, 503, 502, 504]);
        // Not as SQLite is used here.
        database.get_mut(&1).unwrap()[RESERVED_AT] = 8;
        assert_eq!(ahead(&database, 1000, 1..=128), NONE);
    }

    #[test]
    fn with_a_leaf_come_the_rests_of_its_rows() {
        let database = Database::from([
            (10, leaf(&[20, 30, 40])),
            (11, inner(0, &[20, 30])),
            (20, chain(21)),
            (21, chain(22)),
            (30, chain(0)),
            (40, chain(41)),
            (41, chain(20)),
        ]);
        assert_eq!(ahead(&database, 100, [10]), [20, 30, 40, 21, 41, 22]);
        assert_eq!(ahead(&database, 35, [10]), [20, 30, 21, 22]);
        // Which branch is needed nobody knows, and whoever asks for more pages reads ahead by itself.
        assert_eq!(ahead(&database, 100, [11]), NONE);
        assert_eq!(ahead(&database, 100, [10, 11]), NONE);
        let small_row = tree(TABLE_LEAF, 0, &[(2000, vec![0x9f, 0x5d, 1])]);
        assert_eq!(ahead(&Database::from([(12, small_row)]), u32::MAX, [12]), NONE, "4,061 bytes fit into a leaf");
    }

    /// Lengths at which SQLite changes how much of a row it leaves in the leaf.
    #[test]
    fn the_number_behind_a_row_is_found() {
        for (length, local) in [(4062_u32, 489), (4580, 489), (4581, 489), (5000, 908), (8153, 4061), (8154, 489)] {
            let mut page = vec![0; PAGE];
            put(&mut page, 0, &[0x80 | (length >> 7) as u8, length as u8 & 0x7f, 0x81, 1]);
            put(&mut page, 4 + local, &77_u32.to_be_bytes());
            assert_eq!(overflow(&page, 0), Some(77), "{length} bytes");
        }
        assert_eq!(varint(&[0xff; 9], 0), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0xff; 8], 0), None);
    }

    #[test]
    fn a_long_row_comes_as_far_as_there_is_room() {
        let mut database: Database = (20..1000).map(|pgno| (pgno, chain(pgno + 1))).collect();
        database.insert(10, leaf(&[20]));
        assert_eq!(ahead(&database, 1000, [10]), Vec::from_iter(20..20 + READ_AHEAD_MAX_PAGES as u32));
    }

    proptest! {
        /// Whatever is in the pages: few pages come along, all of them within the database, each once.
        #[test]
        fn hostile_pages_do_no_harm(
            // Few different bytes, so that many of the numbers in the pages mean something.
            pages in prop::collection::vec(prop::collection::vec(prop_oneof![0..14_u8, Just(0), any::<u8>()], PAGE), 1..5),
            kinds in prop::collection::vec(prop_oneof![Just(INNER_TABLE), Just(TABLE_LEAF)], 4),
            size in prop_oneof![1..300_u32, any::<u32>()],
            asked in prop::collection::btree_set(1..10_u32, 1..5),
        ) {
            let mut pages = pages;
            for (page, kind) in pages.iter_mut().zip(kinds) {
                (page[0], page[SCHEMA_AT], page[RESERVED_AT]) = (kind, kind, 0);
            }
            // Every page of the database is one of these.
            let page = |pgno: u32| Bytes::from(pages[pgno as usize % pages.len()].clone());
            let asked: BTreeMap<u32, Bytes> = asked.into_iter().filter(|pgno| *pgno <= size).map(|pgno| (pgno, page(pgno))).collect();
            let mut ahead = ReadAhead::new(asked.clone(), size);
            while let Some(link) = ahead.next() {
                prop_assert!(link.pgno <= size && !asked.contains_key(&link.pgno));
                ahead.found(link, page(link.pgno));
            }
            let found: Vec<u32> = ahead.into_pages().into_iter().map(|(pgno, _)| pgno).collect();
            let different: HashSet<u32> = found.iter().copied().collect();
            prop_assert!(found.len() <= READ_AHEAD_MAX_PAGES && different.len() == found.len() && !different.contains(&1));
        }
    }
}
