//! Random histories of one database, with lost answers, taken back, copied and pruned, compared with a model that remembers
//! everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use protocol::envoy::{
    SqliteCommitFinalizeRequest, SqliteCommitRequest, SqliteCommitStageBeginRequest, SqliteCommitStageSegmentRequest,
    SqliteDirtyPage, SqliteGetPagesRequest,
};
use protocol::id::Id;
use store::{Batch, Scan, Store};

use super::*;
use crate::check::{Owner, check};
use crate::limits::{PAGE_BYTES, SEGMENT_SPAN_PAGES};
use crate::record::Subspace;
use crate::{Caller, Options, fence, ledger};

const MAX_PGNO: u32 = 700;
const RETENTION_S: u32 = 10;

/// Page numbers and what is on them.
type Pages = Vec<(u32, u8)>;

#[derive(Debug, Clone)]
enum Step {
    Commit {
        pages: Pages,
        /// None: as it is.
        size: Option<u32>,
        /// The host's connection ends before the answer.
        lost: bool,
    },
    /// Segments are given by the number of their span and the pages in it.
    Stage {
        segments: BTreeMap<u32, Pages>,
        /// None: it is never published.
        size: Option<u32>,
        lost: bool,
    },
    /// The engine ends and starts again.
    Restart,
    NextGeneration {
        keeps: bool,
    },
    Tick {
        ms: i64,
    },
    Prune,
    /// Back to a time so many milliseconds ago.
    Restore {
        ago_ms: i64,
    },
    /// A copy from so many milliseconds ago; none: as it is.
    Fork {
        ago_ms: Option<i64>,
    },
}

fn size() -> impl Strategy<Value = u32> {
    prop_oneof![0..20u32, MAX_PGNO / 2..=MAX_PGNO]
}

/// Pages with different numbers; content 0 is a page of zeros.
fn pages(pgnos: std::ops::RangeInclusive<u32>, count: usize) -> impl Strategy<Value = Pages> {
    prop::collection::btree_map(pgnos, 0..4u8, 0..count).prop_map(Vec::from_iter)
}

fn lost() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.25)
}

fn step() -> impl Strategy<Value = Step> {
    let pgnos = prop_oneof![pages(1..=20, 6), pages(1..=MAX_PGNO, 12)];
    let commit = (pgnos, prop::option::of(size()), lost()).prop_map(|(pages, size, lost)| Step::Commit { pages, size, lost });
    let segment = prop_oneof![pages(1..=20, 12), pages(1..=SEGMENT_SPAN_PAGES - 1, 12)];
    let segment = segment.prop_filter("segments have pages", |pages| !pages.is_empty());
    let segments = prop::collection::btree_map(0..MAX_PGNO / SEGMENT_SPAN_PAGES, segment, 0..3);
    let stage = (segments, prop::option::weighted(0.8, size()), lost()).prop_map(|(segments, size, lost)| Step::Stage {
        segments,
        size,
        lost,
    });
    let ago_ms = || prop_oneof![0..20i64, 0..30_000i64];
    prop_oneof![
        6 => commit,
        2 => stage,
        1 => Just(Step::Restart),
        2 => prop::bool::weighted(0.7).prop_map(|keeps| Step::NextGeneration { keeps }),
        4 => prop_oneof![0..3i64, 0..8_000i64].prop_map(|ms| Step::Tick { ms }),
        2 => Just(Step::Prune),
        3 => ago_ms().prop_map(|ago_ms| Step::Restore { ago_ms }),
        2 => prop::option::of(ago_ms()).prop_map(|ago_ms| Step::Fork { ago_ms }),
    ]
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Content {
    size: u32,
    pages: BTreeMap<u32, u8>,
}

impl Content {
    fn with(&self, pages: &[(u32, u8)], size: u32) -> Self {
        let mut pages: BTreeMap<u32, u8> =
            self.pages.iter().map(|(pgno, page)| (*pgno, *page)).chain(pages.iter().copied()).collect();
        pages.retain(|pgno, _| *pgno <= size);
        Self { size, pages }
    }

    /// With every page of zeros that has no row.
    fn whole(&self) -> BTreeMap<u32, u8> {
        (1..=self.size).map(|pgno| (pgno, self.pages.get(&pgno).copied().unwrap_or(0))).collect()
    }
}

struct World {
    data: ActorData,
    now: Arc<AtomicI64>,
    actor: Id,
    generation: u32,
    keeps: bool,
    head: u64,
    /// Number of the host's connection.
    connection: u64,
    /// The head that the host knows of.
    known: u64,
    /// Whether the newest commit's answer was lost.
    lost: bool,
    /// What the database was from which time on.
    versions: Vec<(i64, Content)>,
    /// From when on the history must be known, if it is not too long ago.
    since: Option<i64>,
    forks: u8,
}

fn dirty_pages(pages: &[(u32, u8)]) -> Vec<SqliteDirtyPage> {
    pages.iter().map(|(pgno, content)| SqliteDirtyPage { pgno: *pgno, bytes: vec![*content; PAGE_BYTES].into() }).collect()
}

fn commit_request(pages: &[(u32, u8)], size: u32, generation: u32) -> SqliteCommitRequest {
    SqliteCommitRequest {
        actor_id: String::new(),
        dirty_pages: dirty_pages(pages),
        db_size_pages: size,
        now_ms: 0,
        expected_generation: Some(generation.into()),
        expected_head_txid: None,
    }
}

fn engine(store: Store, now: Arc<AtomicI64>) -> ActorData {
    ActorData::new(store, Options::default(), Arc::new(move || now.load(Ordering::Relaxed)))
}

impl World {
    async fn new() -> Self {
        let now = Arc::new(AtomicI64::new(1_000_000));
        let mut world = Self {
            data: engine(Store::memory(), now.clone()),
            now,
            actor: Id::from_bytes([7; 18]),
            generation: 0,
            keeps: false,
            head: 0,
            connection: 1,
            known: 0,
            lost: false,
            versions: vec![(i64::MIN, Content::default())],
            since: None,
            forks: 0,
        };
        world.next_generation(true).await;
        world
    }

    fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    fn content(&self) -> &Content {
        &self.versions.last().unwrap().1
    }

    fn content_at(&self, at: i64) -> &Content {
        &self.versions.iter().rev().find(|(time, _)| *time <= at).unwrap().1
    }

    async fn set_fence(&self, actor: &Id, generation: u32, retention_s: u32) {
        let mut batch = Batch::new();
        fence::set_generation_with_history(&mut batch, actor, generation, retention_s);
        self.data.store.write(batch).await.unwrap();
    }

    async fn next_generation(&mut self, keeps: bool) {
        self.generation += 1;
        self.keeps = keeps;
        // It reads first, whatever the head is.
        self.known = self.head;
        self.lost = false;
        self.set_fence(&self.actor, self.generation, if keeps { RETENTION_S } else { 0 }).await;
    }

    fn committed(&mut self, content: Content) {
        self.head += 1;
        let now = self.now();
        self.versions.push((now, content));
        self.since = match (self.keeps, self.since) {
            (false, _) => None,
            (true, Some(since)) => Some(since),
            (true, None) if self.head == 1 => Some(i64::MIN),
            (true, None) => Some(now),
        };
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Commit { pages, size, lost } => self.commit(pages, *size, *lost).await,
            Step::Stage { segments, size, lost } => self.stage(segments, *size, *lost).await,
            Step::Restart => self.restart().await,
            Step::NextGeneration { keeps } => self.next_generation(*keeps).await,
            Step::Tick { ms } => drop(self.now.fetch_add(*ms, Ordering::Relaxed)),
            Step::Prune => self.prune().await,
            Step::Restore { ago_ms } => self.restore(self.now() - ago_ms).await,
            Step::Fork { ago_ms } => self.fork(ago_ms.map(|ago_ms| self.now() - ago_ms)).await,
        }
    }

    async fn restart(&mut self) {
        let restores = self.data.restores.clone();
        self.data = engine(self.data.store.clone(), self.now.clone());
        // Tasks in the background do not end here as they would with their process, and must know of restores that come.
        self.data.restores = restores;
        if self.known != self.head {
            // Nobody knows any more what its host knows of, so that it is out of step.
            self.next_generation(self.keeps).await;
        }
    }

    /// The host is about to ask for something. A commit whose answer it has not seen never was.
    fn ask(&mut self) {
        if self.lost {
            self.connection += 1;
            self.head += 1;
            self.versions.pop();
            self.lost = false;
        }
    }

    /// A commit was made, as this one.
    fn answered(&mut self, head: Option<u64>, lost: bool) {
        assert_eq!(head, Some(self.head));
        self.lost = lost;
        if !lost {
            self.known = self.head;
        }
    }

    async fn commit(&mut self, pages: &Pages, size: Option<u32>, lost: bool) {
        self.ask();
        let size = size.unwrap_or(self.content().size);
        let request =
            SqliteCommitRequest { expected_head_txid: Some(self.known), ..commit_request(pages, size, self.generation) };
        let answer = self.data.commit(self.actor, Caller::Host(self.connection), request).await.unwrap();
        self.committed(self.content().with(pages, size));
        self.answered(answer.head_txid, lost);
    }

    async fn stage(&mut self, segments: &BTreeMap<u32, Pages>, size: Option<u32>, lost: bool) {
        self.ask();
        let (actor, caller) = (self.actor, Caller::Host(self.connection));
        let expected_generation = Some(self.generation.into());
        let begin =
            SqliteCommitStageBeginRequest { actor_id: String::new(), expected_generation, expected_head_txid: Some(self.known) };
        let txid = self.data.stage_begin(actor, caller, begin).await.unwrap().txid;
        assert_eq!(txid, self.head + 1);
        let mut segment_first_pgnos = Vec::new();
        let mut all_pages = Vec::new();
        for (span, pages) in segments {
            let first_pgno = span * SEGMENT_SPAN_PAGES;
            let pages: Pages = pages.iter().map(|(offset, content)| (first_pgno + offset, *content)).collect();
            let dirty_pages = dirty_pages(&pages);
            let segment =
                SqliteCommitStageSegmentRequest { actor_id: String::new(), expected_generation, txid, first_pgno, dirty_pages };
            self.data.stage_segment(actor, caller, segment).await.unwrap();
            segment_first_pgnos.push(first_pgno);
            all_pages.extend(pages);
        }
        let Some(size) = size else { return };

        let request = SqliteCommitFinalizeRequest {
            actor_id: String::new(),
            expected_generation,
            txid,
            new_db_size_pages: size,
            now_ms: 0,
            segment_first_pgnos,
        };
        let answer = self.data.finalize(actor, caller, request).await.unwrap();
        self.committed(self.content().with(&all_pages, size));
        self.answered(answer.head_txid, lost);
    }

    async fn prune(&mut self) {
        let was_settled = !self.ledger().await.0.is_unsettled();
        self.data.prune_history().await.unwrap();
        if !self.keeps {
            // Its window is empty, even if the next generation has another one.
            self.since = self.since.map(|_| self.now());
        }
        let (ledger, first) = self.ledger().await;
        // Nothing is left of what is older, unless the newest commit still had work to do.
        let rows = self.history_rows().await;
        assert!(rows.iter().all(|(head, _)| *head >= first));
        if let Some(kept) = ledger.history
            && !self.keeps
            && was_settled
        {
            assert!(rows.is_empty() && kept.bytes == 0, "a generation without history has one");
        }
    }

    /// The earliest time that can be gone back to, as far as the model knows.
    fn surely_since(&self) -> i64 {
        let window_ms = if self.keeps { i64::from(RETENTION_S) * 1000 } else { 0 };
        self.since.map_or(i64::MAX, |since| since.max(self.now() - window_ms))
    }

    /// Whether a failure to go back is as it should be.
    fn may_fail(&self, at: i64, error: &HistoryError) -> bool {
        match error {
            HistoryError::NotKept => self.since.is_none(),
            HistoryError::TooEarly { since } => at < *since && at < self.surely_since(),
            HistoryError::NoActor
            | HistoryError::UnderWay
            | HistoryError::Busy
            | HistoryError::Outrun
            | HistoryError::QuotaExceeded
            | HistoryError::Upkeep(_)
            | HistoryError::Damaged(_)
            | HistoryError::Store(_)
            | HistoryError::Interrupted => false,
        }
    }

    async fn restore(&mut self, at: i64) {
        let begins = self.ledger().await.0.history.is_some_and(|kept| at >= kept.since);
        let restored = self.data.restore(self.actor, at, as_it_was).await;
        match restored {
            Ok(Restored::Same) => assert_eq!(self.content_at(at).whole(), self.content().whole()),
            Ok(Restored::Changed { head }) => {
                assert!(self.since.is_some(), "there is no history");
                self.committed(self.content_at(at).clone());
                assert_eq!(head, self.head);
            }
            Err(error) => {
                assert!(self.may_fail(at, &error), "{error} at {at}");
                if begins && self.lost {
                    // What was due was forgotten in the background meanwhile; the lost commit stays.
                    self.next_generation(self.keeps).await;
                }
                return;
            }
        }
        self.is_refused().await;
        self.next_generation(self.keeps).await;
    }

    /// Whoever worked on a database that was put back meanwhile must not go on, not even after a lost answer.
    async fn is_refused(&mut self) {
        if self.known == self.head {
            return;
        }
        let request =
            SqliteCommitRequest { expected_head_txid: Some(self.known), ..commit_request(&[(1, 7)], 1, self.generation) };
        let refusal = self.data.commit(self.actor, Caller::Host(self.connection + 1), request).await.unwrap_err();
        assert_eq!(refusal.code, "head_fence_mismatch");
    }

    /// A copy is what the database was, and what happens to one of them after that does not touch the other.
    async fn fork(&mut self, at: Option<i64>) {
        self.forks += 1;
        let fork = Id::from_bytes([100 + self.forks; 18]);
        let copied = self.data.copy(self.actor, fork, at, as_it_was).await;
        if let Err(error) = copied {
            assert!(self.may_fail(at.unwrap(), &error), "{error} at {at:?}");
        } else {
            let expected = at.map_or(self.content(), |at| self.content_at(at)).clone();
            self.set_fence(&fork, 1, RETENTION_S).await;
            assert_eq!(self.read(fork, 1).await, expected.whole());
            self.data.commit(fork, Caller::Engine, commit_request(&[(1, 9), (3, 9)], 5, 1)).await.unwrap();
            self.commit(&vec![(1, 8), (2, 8)], None, false).await;
            assert_eq!(self.read(fork, 1).await, expected.with(&[(1, 9), (3, 9)], 5).whole());
        }
        self.check().await;
        self.data.delete_all(fork).await.unwrap();
        let all = Scan { max_bytes: usize::MAX, ..Scan::range("", [0xff; 64].to_vec()) };
        let rows = self.data.store.scan(all).await.unwrap();
        assert!(rows.iter().all(|(key, _)| key[1..19] == *self.actor.as_bytes()), "rows of the fork are left");
    }

    async fn read(&self, actor: Id, generation: u32) -> BTreeMap<u32, u8> {
        let request = SqliteGetPagesRequest {
            actor_id: String::new(),
            pgnos: (1..=MAX_PGNO).collect(),
            expected_generation: Some(generation.into()),
            expected_head_txid: None,
        };
        let read = self.data.get_pages(actor, Caller::Engine, request).await.unwrap();
        let pages = read.pages.into_iter().map(|page| {
            let bytes = page.bytes.unwrap();
            assert!(bytes[..] == [bytes[0]; PAGE_BYTES], "page {}", page.pgno);
            (page.pgno, bytes[0])
        });
        pages.collect()
    }

    async fn check(&self) {
        assert_eq!(self.read(self.actor, self.generation).await, self.content().whole());
        let mut findings = Vec::new();
        let mut owner = |_: &Id| Ok(Owner::Actor);
        let walk = |explorer: &store::Explorer<'_>| check(explorer, &mut owner, &mut |finding| findings.push(finding));
        self.data.store.snapshot(walk).unwrap().unwrap();
        assert_eq!(findings, []);
    }

    /// The ledger, and the first head that is noted.
    async fn ledger(&self) -> (Ledger, u64) {
        let row = self.data.store.get(vec![ledger::key(&self.actor)]).await.unwrap().remove(0);
        let ledger = row.map_or(Ledger::default(), |row| Ledger::decode(&self.actor, &row).unwrap());
        let first = ledger.history.map_or(u64::MAX, |kept| kept.first);
        (ledger, first)
    }

    /// Heads and bytes of all notes.
    async fn history_rows(&self) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for subspace in [Subspace::HistoryCommit, Subspace::HistoryPage] {
            let scan = Scan { max_bytes: usize::MAX, ..Scan::prefix(record::key(subspace, &self.actor, &[])) };
            let rows = self.data.store.scan(scan).await.unwrap();
            found.extend(rows.iter().map(|(key, value)| (rows::head_of(key).unwrap(), (key.len() + value.len()) as u64)));
        }
        found
    }

    /// The ledger knows how much there is, and nothing of a restore is left.
    async fn check_rows(&self) {
        self.data.forget_undo(&self.actor);
        self.data.settle(self.actor).await.unwrap();
        let (ledger, first) = self.ledger().await;
        let bytes: u64 = self.history_rows().await.iter().filter(|(head, _)| *head >= first).map(|(_, bytes)| bytes).sum();
        assert_eq!(ledger.history.map_or(0, |kept| kept.bytes), bytes);
        let staged = Scan::prefix(record::key(Subspace::StagedPage, &self.actor, &[]));
        assert!(!ledger.restore_rows && self.data.store.scan(staged).await.unwrap().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_time_in_the_window_can_be_gone_back_to(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in &steps {
                world.take(step).await;
                world.check().await;
            }
            // Discards a stage that is still open.
            world.commit(&vec![(1, 1)], Some(1), false).await;
            world.check().await;
            world.check_rows().await;
        });
    }
}
