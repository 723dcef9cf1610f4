//! A writer of SQLite pages: commits in one message and in several, abandoned ones, and such as must be refused.

use std::collections::VecDeque;

use protocol::envoy::{
    SqliteCommitFinalizeRequest, SqliteCommitRequest, SqliteCommitStageBeginRequest, SqliteCommitStageSegmentRequest,
    SqliteDirtyPage, SqliteGetPagesOk, SqliteGetPagesRequest, ToEnvoy, ToRivet,
};
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{Rng, RngExt};
use tokio::sync::watch;

use crate::database::{Commit, Database, page};
use crate::host::{Place, Running};
use crate::ledger::{Checked, Counts, Ledger, Violation};
use crate::writer::{Pending, Taken, Writer, or_refusal};

/// Pages of the largest database.
const SIZE_MAX: u32 = 1_000;
/// What an audit asks for: all that may be there, and more.
const AUDITED: u32 = SIZE_MAX + 100;
/// Pages that one message may carry, and that a segment may span.
const MESSAGE_PAGES: u32 = 320;
/// A segment begins at a multiple of it.
const SHARD_PAGES: u32 = 64;
/// The clock of the host says nothing to the engine.
const NOW_MS: i64 = 1_700_000_000_000;

/// What is to be asked next. Heads and transactions are filled in when it is.
enum Step {
    Commit(Commit),
    Begin,
    Segment(u32, Vec<(u32, u64)>),
    Finalize(Commit, Vec<u32>),
    /// Of a stage that a commit has made useless in between.
    LateFinalize(Commit, Vec<u32>),
    Impossible(Flaw),
    Read(Vec<u32>),
}

/// Why a commit must be refused.
#[derive(Debug, Clone, Copy)]
enum Flaw {
    OldHead,
    HeadToCome,
    OtherGeneration,
    PageTwice,
    ShortPage,
    TooManyPages,
}

const FLAWS: [Flaw; 6] =
    [Flaw::OldHead, Flaw::HeadToCome, Flaw::OtherGeneration, Flaw::PageTwice, Flaw::ShortPage, Flaw::TooManyPages];

/// What was asked and is not answered.
pub(crate) enum Asked {
    Write,
    /// A part of a write that has no effect of its own.
    Part,
    Impossible(String),
    Read(Vec<u32>),
}

/// The one writer of an actor's pages.
pub(crate) struct PageWriter {
    actor_id: String,
    actor: watch::Receiver<Place>,
    ledger: Ledger<Database>,
    random: StdRng,
    /// Steps that belong together and were not asked yet.
    script: VecDeque<Step>,
}

impl PageWriter {
    pub(crate) fn new(actor_id: &str, actor: watch::Receiver<Place>, random: StdRng) -> Self {
        let ledger = Ledger::new(&format!("pages of actor {actor_id}"), Database::default());
        Self { actor_id: actor_id.to_owned(), actor, ledger, random, script: VecDeque::new() }
    }

    /// Thinks of something to do next.
    fn plan(&mut self) {
        match self.random.random_range(0..100) {
            0..45 => {
                let commit = self.commit(1, 3);
                self.script.push_back(Step::Commit(commit));
            }
            45..60 => {
                let commit = self.commit(4, 60);
                self.script.push_back(Step::Commit(commit));
            }
            60..62 => {
                let commit = self.commit(MESSAGE_PAGES, MESSAGE_PAGES);
                self.script.push_back(Step::Commit(commit));
            }
            // Smaller, with and without pages that change, some of which are cut off at once.
            62..72 => {
                let mut commit = self.commit(0, 5);
                commit.size = self.random.random_range(0..=self.ledger.expected().size);
                self.script.push_back(Step::Commit(commit));
            }
            72..82 => {
                let flaw = FLAWS[self.random.random_range(0..FLAWS.len())];
                self.script.push_back(Step::Impossible(flaw));
            }
            82..87 => self.plan_stage(),
            _ => {
                let (first, count) = (self.random.random_range(1..=SIZE_MAX), self.random.random_range(1..=64));
                self.script.push_back(Step::Read((first..first + count).collect()));
            }
        }
    }

    /// A commit in several messages: to its end, or given up, or made useless by a commit in between.
    fn plan_stage(&mut self) {
        let commit = self.commit(MESSAGE_PAGES + 1, SIZE_MAX * 3 / 4);
        let segments = segments(&commit.pages);
        let firsts: Vec<u32> = segments.iter().map(|(first, _)| *first).collect();
        let staged = self.random.random_range(1..=segments.len());
        let fate = self.random.random_range(0..4);
        self.script.push_back(Step::Begin);
        for (first, pages) in segments.into_iter().take(if fate == 0 { staged } else { usize::MAX }) {
            self.script.push_back(Step::Segment(first, pages));
            self.script.push_back(Step::Read(vec![first.max(1), first + 1]));
        }
        match fate {
            0 => {}
            1 => {
                let between = self.commit(1, 3);
                self.script.push_back(Step::Commit(between));
                self.script.push_back(Step::LateFinalize(commit, firsts));
            }
            _ => self.script.push_back(Step::Finalize(commit, firsts)),
        }
    }

    /// A commit of so many pages, which makes the database a little larger or leaves its size.
    fn commit(&mut self, least: u32, most: u32) -> Commit {
        let count = self.random.random_range(least..=most);
        let growth = self.random.random_range(0..20);
        let size = (self.ledger.expected().size + growth).max(count).min(SIZE_MAX);
        let chosen = index::sample(&mut self.random, size as usize, count as usize).into_vec();
        let mut pages: Vec<(u32, u64)> = chosen.into_iter().map(|at| (at as u32 + 1, self.tag())).collect();
        pages.sort_unstable();
        Commit { pages, size }
    }

    fn tag(&mut self) -> u64 {
        self.random.next_u64().max(1)
    }

    fn ask(&mut self, running: &Running, step: Step) -> (Asked, Pending) {
        let head = self.ledger.expected().head;
        match step {
            Step::Commit(commit) => {
                let request = self.commit_request(running, &commit);
                self.ledger.sent(commit);
                (Asked::Write, ask_commit(running, request))
            }
            Step::Begin => (Asked::Part, self.ask_begin(running)),
            Step::Segment(first, pages) => (Asked::Part, self.ask_segment(running, first, &pages)),
            Step::Finalize(commit, firsts) => {
                let asked = self.ask_finalize(running, &commit, firsts, head + 1);
                self.ledger.sent(commit);
                (Asked::Write, asked)
            }
            Step::LateFinalize(commit, firsts) => {
                let what = "the end of a stage that is no more".to_owned();
                (Asked::Impossible(what), self.ask_finalize(running, &commit, firsts, head))
            }
            Step::Impossible(flaw) => {
                let what = format!("{flaw:?}");
                let request = self.flawed(running, flaw);
                (Asked::Impossible(what), ask_commit(running, request))
            }
            Step::Read(pgnos) => (Asked::Read(pgnos.clone()), self.read(running, pgnos, Some(head))),
        }
    }

    fn commit_request(&self, running: &Running, commit: &Commit) -> SqliteCommitRequest {
        SqliteCommitRequest {
            actor_id: self.actor_id.clone(),
            dirty_pages: dirty(&commit.pages),
            db_size_pages: commit.size,
            now_ms: NOW_MS,
            expected_generation: Some(running.generation.into()),
            expected_head_txid: Some(self.ledger.expected().head),
        }
    }

    fn flawed(&mut self, running: &Running, flaw: Flaw) -> SqliteCommitRequest {
        let count = if matches!(flaw, Flaw::TooManyPages) { MESSAGE_PAGES + 1 } else { 3 };
        let commit = self.commit(count, count);
        let mut request = self.commit_request(running, &commit);
        let head = self.ledger.expected().head;
        match flaw {
            // Not the one before the last: who names that over a new connection has the last commit taken back. There is none before
            // the first.
            Flaw::OldHead => request.expected_head_txid = Some(head.checked_sub(2).unwrap_or(head + 1)),
            Flaw::HeadToCome => request.expected_head_txid = Some(head + 1),
            Flaw::OtherGeneration => request.expected_generation = Some(u64::from(running.generation) + 1),
            Flaw::PageTwice => request.dirty_pages[2].pgno = request.dirty_pages[0].pgno,
            Flaw::ShortPage => request.dirty_pages[1].bytes.truncate(100),
            Flaw::TooManyPages => {}
        }
        request
    }

    fn ask_begin(&self, running: &Running) -> Pending {
        let data = SqliteCommitStageBeginRequest {
            actor_id: self.actor_id.clone(),
            expected_generation: Some(running.generation.into()),
            expected_head_txid: Some(self.ledger.expected().head),
        };
        running.host.ask(|request_id| ToRivet::SqliteCommitStageBegin { request_id, data })
    }

    fn ask_segment(&self, running: &Running, first_pgno: u32, pages: &[(u32, u64)]) -> Pending {
        let data = SqliteCommitStageSegmentRequest {
            actor_id: self.actor_id.clone(),
            expected_generation: Some(running.generation.into()),
            txid: self.ledger.expected().head + 1,
            first_pgno,
            dirty_pages: dirty(pages),
        };
        running.host.ask(|request_id| ToRivet::SqliteCommitStageSegment { request_id, data })
    }

    fn ask_finalize(&self, running: &Running, commit: &Commit, firsts: Vec<u32>, txid: u64) -> Pending {
        let data = SqliteCommitFinalizeRequest {
            actor_id: self.actor_id.clone(),
            expected_generation: Some(running.generation.into()),
            txid,
            new_db_size_pages: commit.size,
            now_ms: NOW_MS,
            segment_first_pgnos: firsts,
        };
        running.host.ask(|request_id| ToRivet::SqliteCommitFinalize { request_id, data })
    }

    fn read(&self, running: &Running, pgnos: Vec<u32>, head: Option<u64>) -> Pending {
        let data = SqliteGetPagesRequest {
            actor_id: self.actor_id.clone(),
            pgnos,
            expected_generation: Some(running.generation.into()),
            expected_head_txid: head,
        };
        running.host.ask(|request_id| ToRivet::SqliteGetPages { request_id, data })
    }

    /// A read sees what was asked for before it, and nothing that comes after it.
    fn compare(&mut self, pgnos: &[u32], found: SqliteGetPagesOk) -> Checked {
        let known = self.ledger.known();
        if found.head_txid != Some(known.head) {
            return Err(self.ledger.violation(&format!("head {:?} instead of {} in a read", found.head_txid, known.head)));
        }
        let wrong = found.pages.iter().find(|page| page.bytes != known.page(page.pgno));
        let is_there = |pgno: &u32| found.pages.iter().any(|page| page.pgno == *pgno);
        let left_out = pgnos.iter().find(|pgno| **pgno <= known.size && !is_there(pgno));
        match (wrong, left_out) {
            (None, None) => {
                self.ledger.read_compared();
                Ok(())
            }
            (Some(page), _) => Err(self.ledger.violation(&format!("a read of page {} is wrong", page.pgno))),
            (None, Some(pgno)) => Err(self.ledger.violation(&format!("page {pgno} is missing in a read"))),
        }
    }
}

impl Writer for PageWriter {
    type Asked = Asked;
    type Content = Database;

    fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    fn ledger(&mut self) -> &mut Ledger<Database> {
        &mut self.ledger
    }

    fn actor(&mut self) -> &mut watch::Receiver<Place> {
        &mut self.actor
    }

    fn begin(&mut self) {
        self.script.clear();
    }

    fn ask_next(&mut self, running: &Running) -> (Asked, Pending) {
        loop {
            match self.script.pop_front() {
                Some(step) => return self.ask(running, step),
                None => self.plan(),
            }
        }
    }

    fn take(&mut self, asked: Asked, answer: ToEnvoy) -> Result<Taken, Violation> {
        match (asked, outcome(answer)) {
            (Asked::Write, Ok(Done::Committed(head))) => {
                self.ledger.acknowledged();
                let known = self.ledger.known().head;
                if head != Some(known) {
                    return Err(self.ledger.violation(&format!("head {head:?} instead of {known} after a commit")));
                }
            }
            (Asked::Write, Err(why)) => {
                self.ledger.refused(&why);
                return Ok(Taken::Refused(why));
            }
            (Asked::Part, Ok(Done::Staged)) => {}
            (Asked::Part | Asked::Read(_), Err(why)) => return Ok(Taken::Refused(why)),
            (Asked::Impossible(what), Err(why)) => self.ledger.rightly_refused(&format!("{what}: {why}")),
            (Asked::Impossible(what), Ok(_)) => return Err(self.ledger.violation(&format!("accepted although {what}"))),
            (Asked::Read(pgnos), Ok(Done::Read(found))) => self.compare(&pgnos, found)?,
            (Asked::Write | Asked::Part | Asked::Read(_), Ok(other)) => {
                return Err(self.ledger.violation(&format!("{other:?} answers another kind of request")));
            }
        }
        Ok(Taken::AsItShould)
    }

    fn ask_all(&self, running: &Running) -> Vec<Pending> {
        vec![self.read(running, (1..=AUDITED).collect(), None)]
    }

    fn found(mut answers: Vec<ToEnvoy>) -> Result<Database, String> {
        match outcome(answers.pop().ok_or("no answer")?)? {
            Done::Read(SqliteGetPagesOk { pages, head_txid }) => {
                let pages = pages.into_iter().filter_map(|page| Some((page.pgno, page.bytes?)));
                Database::from_pages(head_txid.unwrap_or_default(), pages)
            }
            other @ (Done::Committed(_) | Done::Staged) => Err(format!("{other:?} answers a read")),
        }
    }
}

fn ask_commit(running: &Running, data: SqliteCommitRequest) -> Pending {
    running.host.ask(|request_id| ToRivet::SqliteCommit { request_id, data })
}

/// Pages in order, cut so that each segment keeps to its span.
fn segments(pages: &[(u32, u64)]) -> Vec<(u32, Vec<(u32, u64)>)> {
    let mut segments: Vec<(u32, Vec<(u32, u64)>)> = Vec::new();
    for page in pages {
        match segments.last_mut() {
            Some((first, segment)) if page.0 < *first + MESSAGE_PAGES => segment.push(*page),
            _ => segments.push((page.0 / SHARD_PAGES * SHARD_PAGES, vec![*page])),
        }
    }
    segments
}

fn dirty(pages: &[(u32, u64)]) -> Vec<SqliteDirtyPage> {
    pages.iter().map(|(pgno, tag)| SqliteDirtyPage { pgno: *pgno, bytes: page(*tag) }).collect()
}

/// What was done.
#[derive(Debug)]
enum Done {
    Committed(Option<u64>),
    Staged,
    Read(SqliteGetPagesOk),
}

/// What was done, or the refusal in words.
fn outcome(answer: ToEnvoy) -> Result<Done, String> {
    if let ToEnvoy::SqliteCommit { data, .. } = answer {
        or_refusal(data).map(|done| Done::Committed(done.head_txid))
    } else if let ToEnvoy::SqliteCommitFinalize { data, .. } = answer {
        or_refusal(data).map(|done| Done::Committed(done.head_txid))
    } else if let ToEnvoy::SqliteCommitStageBegin { data, .. } = answer {
        or_refusal(data).map(|_| Done::Staged)
    } else if let ToEnvoy::SqliteCommitStageSegment { data, .. } = answer {
        or_refusal(data).map(|_| Done::Staged)
    } else if let ToEnvoy::SqliteGetPages { data, .. } = answer {
        or_refusal(data).map(Done::Read)
    } else {
        panic!("{answer:?} answers a request for pages")
    }
}
