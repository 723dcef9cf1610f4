//! Pages in memory that count, refuse and lose what a test wants them to.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::envoy::{SqliteErrorResponse, SqliteExecuteResult, SqliteValue};
use sqlite_vfs::{DirtyPages, Interrupter, PAGE_BYTES, Pages, PagesError, Session, SessionOptions};

/// What happens to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Succeeds,
    /// Nothing is stored, and the session hears so.
    Refused,
    /// Somebody else has the pages now.
    Fenced,
    /// It is stored, but the session hears of a fence: an answer that got lost.
    StoredAndFenced,
    Panics,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) pages: BTreeMap<u32, Bytes>,
    pub(crate) size: u32,
    /// Pages of each commit.
    pub(crate) commits: Vec<usize>,
    /// Pages of each read.
    pub(crate) reads: Vec<usize>,
    /// What happens to the next commits; those after that succeed.
    pub(crate) fates: Vec<Fate>,
    /// Whom the next read interrupts.
    pub(crate) interrupts: Option<Interrupter>,
    /// A page that cannot be read.
    pub(crate) damaged: Option<u32>,
}

/// Clones are the same pages.
#[derive(Clone, Default)]
pub(crate) struct MemoryPages(pub(crate) Arc<Mutex<State>>);

pub(crate) fn refusal(code: &str, is_fence: bool) -> PagesError {
    let answer = SqliteErrorResponse { group: "depot".into(), code: code.into(), message: format!("told so: {code}") };
    PagesError { answer, is_fence }
}

impl Pages for MemoryPages {
    fn read(&mut self, pgnos: &[u32]) -> Result<Vec<(u32, Bytes)>, PagesError> {
        let mut state = self.0.lock();
        state.reads.push(pgnos.len());
        if let Some(interrupter) = state.interrupts.take() {
            interrupter.interrupt();
        }
        if state.damaged.is_some_and(|damaged| pgnos.contains(&damaged)) {
            return Err(refusal("damaged", false));
        }
        Ok(pgnos.iter().filter_map(|pgno| Some((*pgno, state.pages.get(pgno)?.clone()))).collect())
    }

    fn commit(&mut self, pages: DirtyPages, size: u32) -> Result<(), PagesError> {
        let mut state = self.0.lock();
        let fate = if state.fates.is_empty() { Fate::Succeeds } else { state.fates.remove(0) };
        match fate {
            Fate::Succeeds | Fate::StoredAndFenced => {}
            Fate::Refused => return Err(refusal("quota_exceeded", false)),
            Fate::Fenced => return Err(refusal("head_fence_mismatch", true)),
            Fate::Panics => panic!("the pages fall apart"),
        }
        state.commits.push(pages.len());
        let mut last = 0;
        for page in pages {
            let (pgno, page) = page?;
            assert!(pgno > last && pgno <= size, "page {pgno} after {last} of {size}");
            assert_eq!(page.len(), PAGE_BYTES);
            last = pgno;
            state.pages.insert(pgno, page);
        }
        state.pages.split_off(&(size + 1));
        state.size = size;
        if fate == Fate::StoredAndFenced { Err(refusal("head_fence_mismatch", true)) } else { Ok(()) }
    }
}

impl MemoryPages {
    pub(crate) fn open(&self) -> Session {
        self.open_with(SessionOptions::default())
    }

    pub(crate) fn open_with(&self, options: SessionOptions) -> Session {
        Session::open(self.clone(), options).unwrap()
    }

    /// The pages of the commits since the last call.
    pub(crate) fn take_commits(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().commits)
    }

    /// The pages of the reads since the last call.
    pub(crate) fn take_reads(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().reads)
    }

    /// A copy that goes its own way.
    pub(crate) fn fork(&self) -> Self {
        let state = self.0.lock();
        let copy = State { pages: state.pages.clone(), size: state.size, ..State::default() };
        Self(Arc::new(Mutex::new(copy)))
    }

    pub(crate) fn next_commits(&self, fates: &[Fate]) {
        self.0.lock().fates = fates.to_vec();
    }

    /// Has a fresh session, which knows only what was committed, look the whole database over.
    pub(crate) fn check_integrity(&self) {
        let answer = self.open().execute("PRAGMA integrity_check", None).unwrap();
        assert_eq!(answer.rows, [[text("ok")]]);
    }
}

pub(crate) fn text(text: &str) -> SqliteValue {
    SqliteValue::Text(text.into())
}

pub(crate) fn integer(value: i64) -> SqliteValue {
    SqliteValue::Integer(value)
}

/// Runs a statement that must succeed.
pub(crate) fn run(session: &mut Session, sql: &str) -> SqliteExecuteResult {
    session.execute(sql, None).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The one cell of an answer.
pub(crate) fn cell(session: &mut Session, sql: &str) -> SqliteValue {
    let answer = run(session, sql);
    assert_eq!((answer.rows.len(), answer.columns.len()), (1, 1), "{sql}");
    answer.rows[0][0].clone()
}
