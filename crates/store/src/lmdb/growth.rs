//! Watching the file grow.
//!
//! LMDB keeps what a reader may still look at. A reader of another process that was killed (`rivet-engine backup`, say) would
//! keep it for ever, and the file would grow with each commit. So growth is what makes us look for dead readers.

use super::table::Table;

/// Pages by which the file grows before somebody looks: 16 MiB, if pages have 4 KiB.
const STEP_PAGES: usize = 4096;

/// How far the file had grown when somebody last looked for dead readers.
#[derive(Debug, Default)]
pub(super) struct Growth {
    looked_at: usize,
}

impl Growth {
    /// Looks for dead readers if the file has grown enough. Takes some microseconds then, and next to nothing otherwise.
    pub(super) fn look(&mut self, table: &Table) {
        if !self.is_due(table.last_page()) {
            return;
        }
        match table.forget_dead_readers() {
            Ok(0) => {}
            Ok(readers) => tracing::info!(readers, "room that processes which died had kept can be used again"),
            // They stay for the next look.
            Err(error) => tracing::warn!(%error, "cannot look for readers that died"),
        }
    }

    fn is_due(&mut self, last_page: usize) -> bool {
        let due = last_page >= self.looked_at.saturating_add(STEP_PAGES);
        if due {
            self.looked_at = last_page;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_looks_once_for_each_step() {
        let mut growth = Growth::default();
        let due =
            [1, STEP_PAGES - 1, STEP_PAGES, STEP_PAGES + 1, 2 * STEP_PAGES - 1, 2 * STEP_PAGES].map(|page| growth.is_due(page));
        assert_eq!(due, [false, false, true, false, false, true]);
    }
}
