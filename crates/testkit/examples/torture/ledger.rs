//! What was written, as those who wrote it know it: kept here, and so outside of the engine that is killed.

use std::collections::VecDeque;
use std::fmt;
use std::ops::AddAssign;

/// Lines of what happened last that are told together with a violation.
const HISTORY: usize = 40;

/// The engine broke its word.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

pub(crate) type Checked = Result<(), Violation>;

/// What became of what was sent.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Without an answer: such a write may have been done, and wholly, or not.
    pub(crate) indeterminate: u64,
    /// Of the indeterminate ones, those that turned out to have been done.
    pub(crate) done_unanswered: u64,
    /// Single reads that were compared with what must be there.
    pub(crate) reads: u64,
    /// Comparisons of all that is stored.
    pub(crate) audits: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.indeterminate += other.indeterminate;
        self.done_unanswered += other.done_unanswered;
        self.reads += other.reads;
        self.audits += other.audits;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, refused, indeterminate, done_unanswered, reads, audits } = self;
        write!(
            f,
            "{acknowledged} writes acknowledged, {refused} refused, {indeterminate} indeterminate ({done_unanswered} of them \
             done), {reads} reads and {audits} audits compared"
        )
    }
}

/// What something may hold that is written by one writer, one write after another.
pub(crate) trait Content: Clone + PartialEq {
    type Write: fmt::Debug;

    /// Does a write, all of it.
    fn apply(&mut self, write: &Self::Write);

    /// How `found` differs from this, in a few words.
    fn difference(&self, found: &Self) -> String;
}

/// The books of one writer, who may send a write before the one before it is answered. Answers come in the order of the
/// writes, and so does their effect: what is found after a crash is what was acknowledged, and of what was not answered
/// the first few, each of them wholly.
pub(crate) struct Ledger<C: Content> {
    name: String,
    /// All that was acknowledged, and nothing else.
    known: C,
    /// Sent and not answered, oldest first.
    open: VecDeque<C::Write>,
    /// As if all that is open were done.
    expected: C,
    counts: Counts,
    history: VecDeque<String>,
}

impl<C: Content> Ledger<C> {
    /// Books about something that is empty. The name is told with a violation.
    pub(crate) fn new(name: &str, empty: C) -> Self {
        Self {
            name: name.to_owned(),
            known: empty.clone(),
            open: VecDeque::new(),
            expected: empty,
            counts: Counts::default(),
            history: VecDeque::new(),
        }
    }

    pub(crate) fn known(&self) -> &C {
        &self.known
    }

    /// What is there when all that was sent will have been done.
    pub(crate) fn expected(&self) -> &C {
        &self.expected
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn read_compared(&mut self) {
        self.counts.reads += 1;
    }

    /// Remembers something to tell with a violation.
    pub(crate) fn note(&mut self, line: String) {
        self.history.push_back(line);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    /// A write is on its way.
    pub(crate) fn sent(&mut self, write: C::Write) {
        self.note(format!("sent {write:?}"));
        self.expected.apply(&write);
        self.open.push_back(write);
    }

    /// The oldest write that was not answered is done.
    pub(crate) fn acknowledged(&mut self) {
        let Some(write) = self.open.pop_front() else { unreachable!("nobody waits for this answer") };
        self.note(format!("acknowledged {write:?}"));
        self.known.apply(&write);
        self.counts.acknowledged += 1;
    }

    /// The oldest write that was not answered is refused: it must have no effect, now or later.
    pub(crate) fn refused(&mut self, why: &str) {
        let Some(write) = self.open.pop_front() else { unreachable!("nobody waits for this answer") };
        self.note(format!("refused ({why}) {write:?}"));
        self.counts.refused += 1;
        self.expected = self.known.clone();
        for write in &self.open {
            self.expected.apply(write);
        }
    }

    /// Something that had to be refused was.
    pub(crate) fn rightly_refused(&mut self, why: &str) {
        self.note(format!("rightly refused: {why}"));
        self.counts.refused += 1;
    }

    /// Compares all that is stored with the books, and goes on from what was found.
    pub(crate) fn audit(&mut self, found: C) -> Checked {
        let mut candidate = self.known.clone();
        let mut done = 0;
        loop {
            if candidate == found {
                break;
            }
            let Some(write) = self.open.get(done) else { return Err(self.nothing_fits(&found)) };
            candidate.apply(write);
            done += 1;
        }
        self.note(format!("audited: {done} of {} writes without an answer were done", self.open.len()));
        self.counts.audits += 1;
        self.counts.indeterminate += self.open.len() as u64;
        self.counts.done_unanswered += done as u64;
        self.open.clear();
        self.expected = found.clone();
        self.known = found;
        Ok(())
    }

    fn nothing_fits(&self, found: &C) -> Violation {
        let open = self.open.len();
        self.violation(&format!(
            "what is stored is not what was acknowledged plus the first of {open} writes without an answer\n  against what was \
             acknowledged: {}\n  against all that was sent: {}",
            self.known.difference(found),
            self.expected.difference(found),
        ))
    }

    /// A violation, with what happened before.
    pub(crate) fn violation(&self, what: &str) -> Violation {
        let history: Vec<&str> = self.history.iter().map(String::as_str).collect();
        Violation(format!("{}: {what}\nwhat happened before:\n  {}", self.name, history.join("\n  ")))
    }
}
