//! The pages of one actor's database, as SQLite reads and commits them here.

use std::iter::Peekable;
use std::sync::Arc;

use actor_data::limits::{COMMIT_MAX_PAGES, READ_MAX_PAGES, SEGMENT_SPAN_PAGES, SHARD_PAGES};
use actor_data::{ActorData, Caller};
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::envoy::{
    SqliteCommitFinalizeRequest, SqliteCommitRequest, SqliteCommitStageBeginRequest, SqliteCommitStageSegmentRequest,
    SqliteDirtyPage, SqliteErrorResponse, SqliteGetPagesRequest,
};
use protocol::id::ActorId;
use sqlite_vfs::{DirtyPages, Pages, PagesError};
use tokio::runtime::Handle;

use super::error::is_fence;
use super::table::Owner;

/// A page with its number.
type Page = (u32, Bytes);

/// Reads and commits through [`ActorData`], so that fences, the storage limit and durability are those of the page protocol.
/// It insists on the head that it has seen last: if somebody else has moved it, the instance must end.
///
/// For threads that may block.
pub(super) struct ActorPages {
    data: ActorData,
    runtime: Handle,
    actor: ActorId,
    owner: Owner,
    head: Arc<Head>,
}

/// The commit at which a database is, if that is known; shared between the database and whoever runs its statements.
#[derive(Debug, Default)]
pub(super) struct Head(Mutex<Option<u64>>);

impl Head {
    /// A database that was at this commit before, if that is known.
    pub(super) fn at(head: Option<u64>) -> Self {
        Self(Mutex::new(head))
    }

    pub(super) fn get(&self) -> Option<u64> {
        *self.0.lock()
    }

    fn moved_to(&self, head: Option<u64>) {
        *self.0.lock() = head;
    }
}

impl ActorPages {
    /// Must be called within a runtime.
    pub(super) fn new(data: ActorData, actor: ActorId, owner: Owner, head: Arc<Head>) -> Self {
        Self { data, runtime: Handle::current(), actor, owner, head }
    }

    /// Returns the new head, as the next one does.
    fn commit_at_once(&self, pages: DirtyPages, size: u32) -> Result<Option<u64>, PagesError> {
        let request = SqliteCommitRequest {
            actor_id: String::new(),
            dirty_pages: pages.map(|page| page.map(dirty)).collect::<Result<_, _>>()?,
            db_size_pages: size,
            now_ms: 0,
            expected_generation: self.expected_generation(),
            expected_head_txid: self.head.get(),
        };
        let committed = self.wait(self.data.commit(self.actor, Caller::Engine, request))?;
        Ok(committed.head_txid)
    }

    /// One commit in several steps, of which nobody sees anything before the last.
    fn commit_in_segments(&self, pages: DirtyPages, size: u32) -> Result<Option<u64>, PagesError> {
        let begin = SqliteCommitStageBeginRequest {
            actor_id: String::new(),
            expected_generation: self.expected_generation(),
            expected_head_txid: self.head.get(),
        };
        let txid = self.wait(self.data.stage_begin(self.actor, Caller::Engine, begin))?.txid;
        let mut segment_first_pgnos = Vec::new();
        let mut segments = Segments(pages.peekable());
        while let Some((first_pgno, pages)) = segments.next()? {
            segment_first_pgnos.push(first_pgno);
            let segment = SqliteCommitStageSegmentRequest {
                actor_id: String::new(),
                expected_generation: self.expected_generation(),
                txid,
                first_pgno,
                dirty_pages: pages.into_iter().map(dirty).collect(),
            };
            self.wait(self.data.stage_segment(self.actor, Caller::Engine, segment))?;
        }
        let finalize = SqliteCommitFinalizeRequest {
            actor_id: String::new(),
            expected_generation: self.expected_generation(),
            txid,
            new_db_size_pages: size,
            now_ms: 0,
            segment_first_pgnos,
        };
        let committed = self.wait(self.data.finalize(self.actor, Caller::Engine, finalize))?;
        Ok(committed.head_txid)
    }

    fn expected_generation(&self) -> Option<u64> {
        Some(self.owner.generation.into())
    }

    fn wait<T>(&self, answer: impl Future<Output = Result<T, SqliteErrorResponse>>) -> Result<T, PagesError> {
        let answer = self.runtime.block_on(answer);
        answer.map_err(|answer| PagesError { is_fence: is_fence(&answer), answer })
    }
}

impl Pages for ActorPages {
    /// Pages beyond the end of the database are left out.
    fn read(&mut self, pgnos: &[u32]) -> Result<Vec<Page>, PagesError> {
        let mut pages = Vec::with_capacity(pgnos.len());
        for pgnos in pgnos.chunks(READ_MAX_PAGES) {
            let request = SqliteGetPagesRequest {
                actor_id: String::new(),
                pgnos: pgnos.to_vec(),
                expected_generation: self.expected_generation(),
                expected_head_txid: self.head.get(),
            };
            let found = self.wait(self.data.get_pages(self.actor, Caller::Engine, request))?;
            self.head.moved_to(found.head_txid);
            pages.extend(found.pages.into_iter().filter_map(|page| Some((page.pgno, page.bytes?))));
        }
        Ok(pages)
    }

    fn commit(&mut self, pages: DirtyPages, size: u32) -> Result<(), PagesError> {
        let head = match pages.len() {
            0..=COMMIT_MAX_PAGES => self.commit_at_once(pages, size)?,
            _ => self.commit_in_segments(pages, size)?,
        };
        self.head.moved_to(head);
        Ok(())
    }
}

fn dirty((pgno, bytes): Page) -> SqliteDirtyPage {
    SqliteDirtyPage { pgno, bytes }
}

/// Cuts sorted pages into segments, each with the number at which its span begins (`spec/storage.md` 6.7).
struct Segments<I: Iterator>(Peekable<I>);

impl<I: Iterator<Item = Result<Page, E>>, E> Segments<I> {
    fn next(&mut self) -> Result<Option<(u32, Vec<Page>)>, E> {
        let Some(page) = self.0.next() else { return Ok(None) };
        let mut segment = vec![page?];
        let first = segment[0].0 - segment[0].0 % SHARD_PAGES;
        let belongs = |page: &Result<Page, E>| page.as_ref().is_ok_and(|(pgno, _)| pgno - first < SEGMENT_SPAN_PAGES);
        while let Some(page) = self.0.next_if(belongs) {
            segment.push(page?);
        }
        Ok(Some((first, segment)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What `spec/storage.md` 6.7 asks of segments: aligned, in order, apart by a span, each page in its own.
        #[test]
        fn segments_are_what_a_stage_takes(numbers in prop::collection::btree_set(1..5_000u32, 0..2_000)) {
            let pages = numbers.iter().map(|pgno| Ok::<_, ()>((*pgno, Bytes::new())));
            let mut cutter = Segments(pages.peekable());
            let segments: Vec<_> = std::iter::from_fn(|| cutter.next().unwrap()).collect();
            for (first, pages) in &segments {
                prop_assert!(first.is_multiple_of(SHARD_PAGES) && !pages.is_empty());
                prop_assert!(pages.iter().all(|(pgno, _)| (*first..first + SEGMENT_SPAN_PAGES).contains(pgno)));
            }
            prop_assert!(segments.is_sorted_by(|(one, _), (next, _)| next - one >= SEGMENT_SPAN_PAGES));
            let staged: Vec<u32> = segments.iter().flat_map(|(_, pages)| pages.iter().map(|(pgno, _)| *pgno)).collect();
            prop_assert_eq!(staged, Vec::from_iter(numbers));
        }
    }
}
