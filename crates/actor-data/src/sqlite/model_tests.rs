//! Random histories of one database, compared with a model after each step. Crashes between a change and its upkeep are
//! part of it; that is why this is not among the integration tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use protocol::envoy::{
    SqliteCommitFinalizeRequest, SqliteCommitStageBeginRequest, SqliteCommitStageSegmentRequest, SqliteDirtyPage,
    SqliteGetPagesRequest,
};
use protocol::id::Id;
use store::{Batch, Scan, Store};

use super::{Guard, commit, dirty, stage};
use crate::limits::{PAGE_BYTES, SEGMENT_SPAN_PAGES};
use crate::record::{self, Subspace};
use crate::{ActorData, Options, fence, ledger};

const MAX_PGNO: u32 = 1000;

/// Page numbers and what is on them.
type Pages = Vec<(u32, u8)>;

#[derive(Debug, Clone)]
enum Step {
    Commit {
        pages: Pages,
        /// None: as it is.
        size: Option<u32>,
        crash: bool,
    },
    /// Segments are given by the number of their span and the pages in it.
    Stage {
        segments: BTreeMap<u32, Pages>,
        end: StageEnd,
    },
    NextGeneration,
}

#[derive(Debug, Clone)]
enum StageEnd {
    Finalize { size: u32, crash: bool },
    Abandon,
}

fn size() -> impl Strategy<Value = u32> {
    prop_oneof![0..20u32, MAX_PGNO / 2..=MAX_PGNO]
}

/// Pages with different numbers; content 0 is a page of zeros.
fn pages(pgnos: std::ops::RangeInclusive<u32>, count: usize) -> impl Strategy<Value = Pages> {
    prop::collection::btree_map(pgnos, 0..4u8, 0..count).prop_map(Vec::from_iter)
}

fn step() -> impl Strategy<Value = Step> {
    let pgnos = prop_oneof![pages(1..=20, 6), pages(1..=MAX_PGNO, 12)];
    let commit =
        (pgnos, prop::option::of(size()), any::<bool>()).prop_map(|(pages, size, crash)| Step::Commit { pages, size, crash });
    let segment = prop_oneof![pages(1..=20, 12), pages(1..=SEGMENT_SPAN_PAGES - 1, 12)];
    let segment = segment.prop_filter("segments have pages", |pages| !pages.is_empty());
    let segments = prop::collection::btree_map(0..MAX_PGNO / SEGMENT_SPAN_PAGES, segment, 0..4);
    let end = prop_oneof![
        3 => (size(), any::<bool>()).prop_map(|(size, crash)| StageEnd::Finalize { size, crash }),
        1 => Just(StageEnd::Abandon),
    ];
    let stage = (segments, end).prop_map(|(segments, end)| Step::Stage { segments, end });
    prop_oneof![4 => commit, 2 => stage, 1 => Just(Step::NextGeneration)]
}

#[derive(Default)]
struct Model {
    head: u64,
    size: u32,
    pages: BTreeMap<u32, u8>,
}

impl Model {
    fn commit(&mut self, pages: impl IntoIterator<Item = (u32, u8)>, size: u32) {
        self.head += 1;
        self.size = size;
        self.pages.extend(pages);
        self.pages.retain(|pgno, _| *pgno <= size);
    }
}

struct World {
    data: ActorData,
    actor: Id,
    generation: u32,
    model: Model,
}

fn dirty_pages(pages: &[(u32, u8)]) -> Vec<SqliteDirtyPage> {
    pages.iter().map(|(pgno, content)| SqliteDirtyPage { pgno: *pgno, bytes: vec![*content; PAGE_BYTES].into() }).collect()
}

impl World {
    async fn new() -> Self {
        let data = ActorData::new(Store::memory(), Options::default(), Arc::new(|| 0));
        let mut world = Self { data, actor: Id::from_bytes([7; 18]), generation: 0, model: Model::default() };
        world.next_generation().await;
        world
    }

    async fn next_generation(&mut self) {
        self.generation += 1;
        let mut batch = Batch::new();
        fence::set_generation(&mut batch, &self.actor, self.generation);
        self.data.store.write(batch).await.unwrap();
    }

    fn guard(&self) -> Guard {
        Guard { generation: self.generation.into(), head: Some(self.model.head) }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Commit { pages, size, crash } => self.commit(pages, size.unwrap_or(self.model.size), *crash).await,
            Step::Stage { segments, end } => self.stage(segments, end).await,
            Step::NextGeneration => self.next_generation().await,
        }
    }

    async fn commit(&mut self, pages: &Pages, size: u32, crash: bool) {
        let (actor, guard) = (self.actor, self.guard());
        let packed = dirty::pack(dirty_pages(pages)).await.unwrap();
        let attempt =
            move |view: &store::View<'_>, options: &Options| commit::attempt(view, options, &actor, guard, &packed, size);
        let txid = if crash {
            self.data.until_done(actor, attempt).await.unwrap().0
        } else {
            self.data.settled(actor, attempt).await.unwrap()
        };
        self.model.commit(pages.iter().copied(), size);
        assert_eq!(txid, self.model.head);
    }

    async fn stage(&mut self, segments: &BTreeMap<u32, Pages>, end: &StageEnd) {
        let (actor, txid) = (self.actor, self.model.head + 1);
        let expected_generation = Some(self.generation.into());
        let begin = SqliteCommitStageBeginRequest {
            actor_id: String::new(),
            expected_generation,
            expected_head_txid: Some(self.model.head),
        };
        assert_eq!(self.data.stage_begin(actor, begin).await.unwrap().txid, txid);
        let mut segment_first_pgnos = Vec::new();
        let mut all_pages = Vec::new();
        for (span, pages) in segments {
            let first_pgno = span * SEGMENT_SPAN_PAGES;
            let pages: Pages = pages.iter().map(|(offset, content)| (first_pgno + offset, *content)).collect();
            let segment = SqliteCommitStageSegmentRequest {
                actor_id: String::new(),
                expected_generation,
                txid,
                first_pgno,
                dirty_pages: dirty_pages(&pages),
            };
            self.data.stage_segment(actor, segment).await.unwrap();
            segment_first_pgnos.push(first_pgno);
            all_pages.extend(pages);
        }
        let StageEnd::Finalize { size, crash } = end else { return };

        let request = SqliteCommitFinalizeRequest {
            actor_id: String::new(),
            expected_generation,
            txid,
            new_db_size_pages: *size,
            now_ms: 0,
            segment_first_pgnos,
        };
        if *crash {
            let guard = self.guard();
            let attempt =
                move |view: &store::View<'_>, options: &Options| stage::finalize(view, options, &actor, guard, &request);
            self.data.until_done(actor, attempt).await.unwrap();
        } else {
            self.data.finalize(actor, request).await.unwrap();
        }
        self.model.commit(all_pages, *size);
    }

    /// Everything that can be read is as the model says.
    async fn check(&self) {
        let request = SqliteGetPagesRequest {
            actor_id: String::new(),
            pgnos: (1..=MAX_PGNO).collect(),
            expected_generation: Some(self.generation.into()),
            expected_head_txid: None,
        };
        let read = self.data.get_pages(self.actor, request).await.unwrap();
        assert_eq!(read.head_txid, Some(self.model.head));
        assert_eq!(read.pages.len(), self.model.size as usize);
        for page in read.pages {
            let content = self.model.pages.get(&page.pgno).copied().unwrap_or(0);
            assert!(page.bytes.unwrap() == vec![content; PAGE_BYTES], "page {}", page.pgno);
        }
    }

    async fn rows(&self, subspace: Subspace) -> usize {
        let scan = Scan { max_bytes: usize::MAX, ..Scan::prefix(record::key(subspace, &self.actor, &[])) };
        self.data.store.scan(scan).await.unwrap().len()
    }

    /// No row is left that nobody can see.
    async fn check_rows(&self) {
        self.data.settle(self.actor).await.unwrap();
        assert_eq!(self.rows(Subspace::Page).await, self.model.pages.len());
        assert_eq!(self.rows(Subspace::StagedPage).await + self.rows(Subspace::Segment).await, 0);
        let row = self.data.store.get(vec![ledger::key(&self.actor)]).await.unwrap().remove(0);
        let ledger = ledger::Ledger::decode(row.as_deref().unwrap_or_default());
        assert!(ledger.is_ok_and(|ledger| !ledger.is_unsettled() && !ledger.leftovers));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn histories_match_the_model(steps in prop::collection::vec(step(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in &steps {
                world.take(step).await;
                world.check().await;
            }
            // Discards a stage that is still open.
            world.commit(&vec![(1, 1)], 1, false).await;
            world.check().await;
            world.check_rows().await;
        });
    }
}
