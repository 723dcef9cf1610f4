//! Random histories of one database, compared with a model after each step: commits of all kinds, answers that get lost, a
//! host that goes on over its next connection, engines that end, and upkeep that gets only some of its steps done. That is
//! why this is not among the integration tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use protocol::envoy::{
    SqliteCommitFinalizeRequest, SqliteCommitRequest, SqliteCommitStageBeginRequest, SqliteCommitStageSegmentRequest,
    SqliteDirtyPage, SqliteGetPagesRequest, SqliteResult,
};
use protocol::id::Id;
use store::{Batch, Scan, Store};

use super::{standing_reads, upkeep};
use crate::limits::{PAGE_BYTES, SEGMENT_SPAN_PAGES};
use crate::record::{self, Subspace};
use crate::{ActorData, Caller, Options, fence};

const MAX_PGNO: u32 = 2 * SEGMENT_SPAN_PAGES;

/// Page numbers and what is on them.
type Pages = Vec<(u32, u8)>;

#[derive(Debug, Clone)]
enum Step {
    Read {
        answer: Answer,
    },
    Commit {
        pages: Pages,
        /// None: as it is.
        size: Option<u32>,
        answer: Answer,
    },
    /// Segments are given by the number of their span and the pages in it.
    Stage {
        segments: BTreeMap<u32, Pages>,
        size: u32,
        /// After so many answers the connection breaks.
        answers: usize,
    },
    /// The host leaves it to the next generation.
    NextGeneration,
    /// The engine ends and starts again.
    Restart,
    /// Upkeep gets this far.
    Upkeep(Progress),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Seen,
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    OneStep,
    /// A task makes a step that knows only what an earlier one knew.
    LateStep,
    InBackground,
}

fn size() -> impl Strategy<Value = u32> {
    prop_oneof![0..20u32, MAX_PGNO / 2..=MAX_PGNO]
}

/// Pages with different numbers; content 0 is a page of zeros.
fn pages(pgnos: std::ops::RangeInclusive<u32>, count: usize) -> impl Strategy<Value = Pages> {
    prop::collection::btree_map(pgnos, 0..4u8, 0..count).prop_map(Vec::from_iter)
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![Just(Answer::Seen), Just(Answer::Lost)]
}

fn step() -> impl Strategy<Value = Step> {
    let pgnos = prop_oneof![3 => pages(1..=20, 6), 1 => pages(1..=MAX_PGNO, 12)];
    let commit =
        (pgnos, prop::option::of(size()), answer()).prop_map(|(pages, size, answer)| Step::Commit { pages, size, answer });
    let segment = prop_oneof![3 => pages(1..=20, 12), 1 => pages(1..=SEGMENT_SPAN_PAGES - 1, 12)];
    let segment = segment.prop_filter("segments have pages", |pages| !pages.is_empty());
    let segments = prop::collection::btree_map(0..MAX_PGNO / SEGMENT_SPAN_PAGES, segment, 0..3);
    let stage = (segments, size(), 0..8usize).prop_map(|(segments, size, answers)| Step::Stage { segments, size, answers });
    prop_oneof![
        8 => commit,
        4 => stage,
        3 => answer().prop_map(|answer| Step::Read { answer }),
        1 => Just(Step::NextGeneration),
        1 => Just(Step::Restart),
        3 => prop_oneof![Just(Progress::OneStep), Just(Progress::LateStep), Just(Progress::InBackground)].prop_map(Step::Upkeep),
    ]
}

#[derive(Clone, Default)]
struct Content {
    size: u32,
    pages: BTreeMap<u32, u8>,
}

/// What must be stored, and what the host knows of it.
struct Model {
    head: u64,
    content: Content,
    /// The head that the host names.
    known: u64,
    gap: Gap,
}

/// Why the host names a head that is not the newest.
enum Gap {
    /// It does not.
    None,
    /// It has not seen the answer to the newest commit, before which this was stored.
    Lost(Content),
    /// It has not seen that a commit was taken back: what is stored is what it thinks.
    TakenBack,
    /// The engine does not know any more what was before.
    Forgotten,
}

impl Model {
    /// A request of the host comes in. False: the host is out of step, and must be told so.
    fn admit(&mut self) -> bool {
        match std::mem::replace(&mut self.gap, Gap::TakenBack) {
            Gap::Lost(before) => {
                self.content = before;
                self.head += 1;
            }
            Gap::TakenBack => {}
            Gap::None => self.gap = Gap::None,
            Gap::Forgotten => self.gap = Gap::Forgotten,
        }
        !matches!(self.gap, Gap::Forgotten)
    }

    /// A commit is made, whose answer is on its way.
    fn commit(&mut self, pages: impl IntoIterator<Item = (u32, u8)>, size: u32) {
        self.gap = Gap::Lost(self.content.clone());
        self.head += 1;
        self.content.size = size;
        self.content.pages.extend(pages);
        self.content.pages.retain(|pgno, _| *pgno <= size);
    }

    /// The host knows everything.
    fn catch_up(&mut self) {
        self.known = self.head;
        self.gap = Gap::None;
    }
}

struct World {
    data: ActorData,
    actor: Id,
    generation: u32,
    connection: u64,
    /// Up to where commits were once known to stay.
    kept_head: u64,
    model: Model,
}

fn dirty_pages(pages: &[(u32, u8)]) -> Vec<SqliteDirtyPage> {
    pages.iter().map(|(pgno, content)| SqliteDirtyPage { pgno: *pgno, bytes: vec![*content; PAGE_BYTES].into() }).collect()
}

fn data(store: Store) -> ActorData {
    ActorData::new(store, Options::default(), Arc::new(|| 0))
}

impl World {
    async fn new() -> Self {
        let model = Model { head: 0, content: Content::default(), known: 0, gap: Gap::None };
        let actor = Id::from_bytes([7; 18]);
        let mut world = Self { data: data(Store::memory()), actor, generation: 0, connection: 1, kept_head: 0, model };
        world.next_generation().await;
        world
    }

    async fn next_generation(&mut self) {
        self.generation += 1;
        let mut batch = Batch::new();
        fence::set_generation(&mut batch, &self.actor, self.generation);
        self.data.store.write(batch).await.unwrap();
        self.model.catch_up();
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Read { answer } => self.read(*answer).await,
            Step::Commit { pages, size, answer } => {
                self.commit(pages, size.unwrap_or(self.model.content.size), *answer).await;
            }
            Step::Stage { segments, size, answers } => self.stage(segments, *size, *answers).await,
            Step::NextGeneration => self.next_generation().await,
            Step::Restart => {
                self.data = data(self.data.store.clone());
                self.connection += 1;
                if !matches!(self.model.gap, Gap::None) {
                    self.model.gap = Gap::Forgotten;
                }
            }
            Step::Upkeep(Progress::OneStep) => {
                self.look_what_is_kept().await;
                self.one_step_of_upkeep().await;
            }
            Step::Upkeep(Progress::LateStep) => {
                self.one_step_of_upkeep().await;
                self.look_what_is_kept().await;
            }
            // There is only one thread, and nothing that upkeep waits for.
            Step::Upkeep(Progress::InBackground) => tokio::task::yield_now().await,
        }
    }

    /// The host goes on over its next connection if an answer is lost.
    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Seen => self.model.catch_up(),
            Answer::Lost => self.connection += 1,
        }
    }

    /// Checks an answer against the model, which is asked first. None: the host was out of step, and a new generation is there.
    async fn unless_out_of_step<T: std::fmt::Debug>(&mut self, admitted: bool, answer: SqliteResult<T>) -> Option<T> {
        if admitted {
            return Some(answer.unwrap());
        }
        assert_eq!(answer.unwrap_err().code, "head_fence_mismatch");
        self.next_generation().await;
        None
    }

    fn read_request(&self, named: Option<u64>) -> SqliteGetPagesRequest {
        SqliteGetPagesRequest {
            actor_id: String::new(),
            pgnos: (1..=MAX_PGNO).collect(),
            expected_generation: Some(self.generation.into()),
            expected_head_txid: named,
        }
    }

    async fn read(&mut self, answer: Answer) {
        let request = self.read_request(Some(self.model.known));
        let read = self.data.get_pages(self.actor, Caller::Host(self.connection), request).await;
        let admitted = self.model.admit();
        if let Some(read) = self.unless_out_of_step(admitted, read).await {
            assert_eq!(read.head_txid, Some(self.model.head));
            self.answered(answer);
        }
    }

    async fn commit(&mut self, pages: &Pages, size: u32, answer: Answer) {
        let request = SqliteCommitRequest {
            actor_id: String::new(),
            dirty_pages: dirty_pages(pages),
            db_size_pages: size,
            now_ms: 0,
            expected_generation: Some(self.generation.into()),
            expected_head_txid: Some(self.model.known),
        };
        let committed = self.data.commit(self.actor, Caller::Host(self.connection), request).await;
        let admitted = self.model.admit();
        if let Some(committed) = self.unless_out_of_step(admitted, committed).await {
            self.model.commit(pages.iter().copied(), size);
            assert_eq!(committed.head_txid, Some(self.model.head));
            self.answered(answer);
        }
    }

    async fn stage(&mut self, segments: &BTreeMap<u32, Pages>, size: u32, answers: usize) {
        let (actor, caller, expected_generation) = (self.actor, Caller::Host(self.connection), Some(self.generation.into()));
        let mut answers = std::iter::repeat_n(Answer::Seen, answers);
        let begin = SqliteCommitStageBeginRequest {
            actor_id: String::new(),
            expected_generation,
            expected_head_txid: Some(self.model.known),
        };
        let begun = self.data.stage_begin(actor, caller, begin).await;
        let admitted = self.model.admit();
        let Some(begun) = self.unless_out_of_step(admitted, begun).await else { return };
        let txid = begun.txid;
        assert_eq!(txid, self.model.head + 1);

        let mut segment_first_pgnos = Vec::new();
        let mut all_pages = Vec::new();
        for (span, pages) in segments {
            if answers.next().is_none() {
                return self.answered(Answer::Lost);
            }
            let first_pgno = span * SEGMENT_SPAN_PAGES;
            let pages: Pages = pages.iter().map(|(offset, content)| (first_pgno + offset, *content)).collect();
            let segment = SqliteCommitStageSegmentRequest {
                actor_id: String::new(),
                expected_generation,
                txid,
                first_pgno,
                dirty_pages: dirty_pages(&pages),
            };
            self.data.stage_segment(actor, caller, segment).await.unwrap();
            segment_first_pgnos.push(first_pgno);
            all_pages.extend(pages);
        }
        if answers.next().is_none() {
            return self.answered(Answer::Lost);
        }
        let request = SqliteCommitFinalizeRequest {
            actor_id: String::new(),
            expected_generation,
            txid,
            new_db_size_pages: size,
            now_ms: 0,
            segment_first_pgnos,
        };
        assert_eq!(self.data.finalize(actor, caller, request).await.unwrap().head_txid, Some(txid));
        self.model.commit(all_pages, size);
        self.answered(answers.next().unwrap_or(Answer::Lost));
    }

    async fn look_what_is_kept(&mut self) {
        let (actor, generation) = (self.actor, self.generation.into());
        let ledger = self.data.standing(actor).await.unwrap().ledger;
        self.kept_head = self.data.kept_head(&actor, generation, &ledger).unwrap_or(self.kept_head);
    }

    async fn one_step_of_upkeep(&self) {
        let (actor, kept_head) = (self.actor, self.kept_head);
        let step = move |view: &store::View<'_>| upkeep::step(view, &actor, kept_head, false);
        self.data.transact(standing_reads(&actor), step).await.unwrap();
    }

    /// Everything that can be read is as the model says.
    async fn check(&self) {
        let read = self.data.get_pages(self.actor, Caller::Host(self.connection), self.read_request(None)).await.unwrap();
        assert_eq!(read.head_txid, Some(self.model.head));
        let content = &self.model.content;
        assert_eq!(read.pages.len(), content.size as usize);
        for page in read.pages {
            let content = content.pages.get(&page.pgno).copied().unwrap_or(0);
            assert!(page.bytes.unwrap() == vec![content; PAGE_BYTES], "page {}", page.pgno);
        }
    }

    async fn rows(&self, subspace: Subspace) -> usize {
        let scan = Scan { max_bytes: usize::MAX, ..Scan::prefix(record::key(subspace, &self.actor, &[])) };
        self.data.store.scan(scan).await.unwrap().len()
    }

    /// No row is left that nobody can see, once the host has shown that it knows everything.
    async fn check_rows(&mut self) {
        self.read(Answer::Seen).await;
        self.read(Answer::Seen).await;
        self.data.settle(self.actor).await.unwrap();
        assert_eq!(self.rows(Subspace::Page).await, self.model.content.pages.len());
        assert_eq!(self.rows(Subspace::StagedPage).await + self.rows(Subspace::Segment).await, 0);
        let ledger = self.data.standing(self.actor).await.unwrap().ledger;
        assert!(!ledger.needs_upkeep());
    }
}

/// Whoever lets a commit stay while its host has it taken back at the same moment: it stays whole.
#[tokio::test]
async fn a_commit_that_upkeep_has_begun_with_is_not_taken_back() {
    let pages: Pages = (1..=12).map(|pgno| (pgno, 1)).collect();
    let shrink = Step::Commit { pages: vec![(1, 2)], size: Some(2), answer: Answer::Lost };
    let stage = Step::Stage {
        segments: BTreeMap::from([(0, (1..=12).map(|pgno| (pgno, 2)).collect())]),
        size: 12,
        // All but the last.
        answers: 2,
    };
    for step in [shrink, stage] {
        let mut world = World::new().await;
        world.commit(&pages, 12, Answer::Seen).await;
        world.read(Answer::Seen).await;
        world.take(&step).await;
        // One step of several; what was remembered for the host is still there.
        let (actor, head) = (world.actor, world.model.head);
        let one = move |view: &store::View<'_>| upkeep::step(view, &actor, head, false);
        assert!(world.data.transact(standing_reads(&actor), one).await.unwrap());

        let request = SqliteGetPagesRequest { expected_head_txid: Some(head - 1), ..world.read_request(None) };
        let refused = world.data.get_pages(actor, Caller::Host(world.connection), request).await;
        assert_eq!(refused.map(|read| read.head_txid).unwrap_err().code, "head_fence_mismatch");
        world.model.catch_up();
        world.check().await;
        world.check_rows().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn histories_match_the_model(steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in &steps {
                world.take(step).await;
                world.check().await;
            }
            // A host that is out of step makes way for the next one.
            world.read(Answer::Seen).await;
            // Discards a stage that is still open.
            world.commit(&vec![(1, 1)], 1, Answer::Seen).await;
            world.check().await;
            world.check_rows().await;
        });
    }
}
