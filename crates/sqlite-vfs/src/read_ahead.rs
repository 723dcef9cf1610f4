//! Which pages to read with the one that is needed, and where to keep them until they are.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;

use bytes::Bytes;

/// Pages read at once by a scan that has gone on for a while: 512 KiB.
const MAX_WINDOW: u32 = 128;
/// A scan that goes on reads this many times as much.
const GROWTH: u32 = 4;
/// Pages that a scan may leave out and still be one: inner pages lie between the leaves.
const MAX_GAP: u32 = 8;
/// Scans followed at once: those of a join, or of a table and its index.
const RUNS: usize = 4;
/// Pages kept that nobody has asked for yet. Enough for every run to have one full window.
const MAX_HELD: usize = MAX_WINDOW as usize * RUNS;
/// The same between two requests, when the scan is over: what opening a small database has read may stay.
const MAX_HELD_WHILE_IDLE: usize = 64;

/// A scan in either direction.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The pages read so far lie between these, inclusively.
    first: u32,
    last: u32,
    window: u32,
}

/// Pages that were read before they were needed. SQLite has a cache of its own for those it has seen.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    held: HashMap<u32, Bytes>,
    /// The order in which they came; some may be gone already.
    order: VecDeque<u32>,
    /// The latest is the last.
    runs: Vec<Run>,
}

impl ReadAhead {
    /// Which pages to read now that `pgno` is missing, in a database of `size` pages. It is one of them.
    pub(crate) fn plan(&mut self, pgno: u32, size: u32) -> RangeInclusive<u32> {
        let forward = |run: &Run| pgno > run.last && pgno - run.last <= MAX_GAP;
        let backward = |run: &Run| pgno < run.first && run.first - pgno <= MAX_GAP;
        let Some(found) = self.runs.iter().position(|run| forward(run) || backward(run)) else {
            self.begin_run(pgno, pgno);
            return pgno..=pgno;
        };
        let mut run = self.runs.remove(found);
        let is_forward = forward(&run);
        run.window = (run.window * GROWTH).min(MAX_WINDOW);
        if is_forward {
            run.first = pgno;
            run.last = pgno.saturating_add(run.window - 1).min(size.max(pgno));
        } else {
            run.last = pgno;
            run.first = pgno.saturating_sub(run.window - 1).max(1);
        }
        self.runs.push(run);
        run.first..=run.last
    }

    /// Remembers that these pages were read, and that a scan may go on from there.
    pub(crate) fn begin_run(&mut self, first: u32, last: u32) {
        if self.runs.len() == RUNS {
            self.runs.remove(0);
        }
        self.runs.push(Run { first, last, window: 1 });
    }

    /// Whether the page is here.
    pub(crate) fn holds(&self, pgno: u32) -> bool {
        self.held.contains_key(&pgno)
    }

    /// The page, which stays.
    pub(crate) fn peek(&self, pgno: u32) -> Option<&Bytes> {
        self.held.get(&pgno)
    }

    /// The page, whose place is free then.
    pub(crate) fn take(&mut self, pgno: u32) -> Option<Bytes> {
        self.held.remove(&pgno)
    }

    /// Keeps a page until it is asked for, or until there are too many: then the oldest goes.
    pub(crate) fn keep(&mut self, pgno: u32, page: Bytes) {
        if self.held.insert(pgno, page).is_none() {
            self.order.push_back(pgno);
        }
        while self.held.len() > MAX_HELD
            && let Some(oldest) = self.order.pop_front()
        {
            self.held.remove(&oldest);
        }
        if self.order.len() > 2 * MAX_HELD {
            let held = &self.held;
            self.order.retain(|pgno| held.contains_key(pgno));
        }
    }

    /// A request is over, and what it has not needed is probably not needed.
    pub(crate) fn rest(&mut self) {
        if self.held.len() > MAX_HELD_WHILE_IDLE {
            self.held = HashMap::new();
            self.order = VecDeque::new();
        }
    }

    /// Drops all pages behind `size`.
    pub(crate) fn truncate(&mut self, size: u32) {
        self.held.retain(|pgno, _| *pgno <= size);
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the reads that a series of page requests leads to.
    fn reads(requests: impl IntoIterator<Item = u32>, size: u32) -> Vec<u32> {
        let mut ahead = ReadAhead::default();
        let mut lengths = Vec::new();
        for pgno in requests {
            if ahead.take(pgno).is_some() {
                continue;
            }
            let range = ahead.plan(pgno, size);
            assert!(range.contains(&pgno));
            assert!(*range.start() >= 1 && *range.end() <= size);
            lengths.push(range.end() - range.start() + 1);
            for other in range.filter(|other| *other != pgno) {
                ahead.keep(other, Bytes::new());
            }
            assert!(ahead.held.len() <= MAX_HELD);
        }
        lengths
    }

    #[test]
    fn a_scan_reads_more_and_more_at_once_in_both_directions() {
        assert_eq!(reads(2..=800, 800), [1, 4, 16, 64, 128, 128, 128, 128, 128, 74]);
        assert_eq!(reads((1..=800).rev(), 800), [1, 4, 16, 64, 128, 128, 128, 128, 128, 75]);
    }

    #[test]
    fn point_reads_read_one_page_each() {
        let scattered = (1..200_u32).map(|step| step * 7919 % 10_007 + 1);
        assert!(reads(scattered, 10_007).iter().all(|length| *length <= 4));
    }

    #[test]
    fn scans_side_by_side_with_inner_pages_between_are_all_followed() {
        let three = (0..1000_u32).flat_map(|step| {
            let leaf = 10 + step + step / 100;
            [leaf, 2000 + step, 5000 - step]
        });
        assert!(reads(three, 5000).len() < 40);
    }

    #[test]
    fn pages_that_nobody_asks_for_are_bounded() {
        let mut ahead = ReadAhead::default();
        for pgno in 1..10_000 {
            ahead.keep(pgno, Bytes::new());
            if pgno % 3 == 0 {
                ahead.take(pgno);
            }
        }
        assert!(ahead.held.len() <= MAX_HELD && ahead.order.len() <= 2 * MAX_HELD);
        assert!(ahead.holds(9998));
        ahead.rest();
        assert!(ahead.held.len() <= MAX_HELD_WHILE_IDLE && ahead.order.len() <= MAX_HELD_WHILE_IDLE);
    }
}
