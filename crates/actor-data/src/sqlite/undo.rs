//! Taking back a commit whose answer its host never saw (`spec/storage.md` 7.5).
//!
//! A host whose connection breaks before the answer to a commit takes the commit for failed. It rolls its transaction back
//! in memory, and goes on over its next connection from the head before that commit. So what the commit changed is
//! remembered until the host shows that it knows the new head; if it names the old one instead, over a newer
//! connection, the commit is taken back, by a commit of its own: the head never goes down. The host takes any higher head
//! for the one that it named, as the published engine's answers allow.
//!
//! | The host names | over | Then |
//! |---|---|---|
//! | the head of the commit | any connection | it has seen the answer: nothing needs to be remembered |
//! | the head before | a newer connection | the commit is taken back, and the request goes on from there |
//! | the head before | the same connection | it is out of step, and is told so |
//! | the head before, after the commit was taken back | any connection | it goes on from what took the commit back |
//!
//! All this is in memory: a host that loses its answer because the engine ends is told that it is out of step. A host's page
//! requests for one actor come one after the other, also over different connections, so what is remembered is what is
//! stored. Whoever else lets a commit stay at the same moment (a restore) may be ahead: a commit whose old rows upkeep has
//! begun to remove is not taken back, which `held` in the ledger says.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::id::Id;
use store::{Batch, Decision, View};

use super::error::SqliteError;
use super::{Caller, Guard, history, standing_reads};
use crate::ledger::{Ledger, Stage};
use crate::{ActorData, Standing, page};

/// What a remembered commit takes besides its pages, in bytes.
const RECORD_BYTES: usize = 256;
/// What a page of it takes besides its row, in bytes.
const PAGE_BYTES: usize = 64;

/// A page as it was before a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreImage {
    pub(crate) pgno: u32,
    /// As it is stored under the page's own key; none if it had no row.
    pub(crate) row: Option<Bytes>,
}

/// What a commit has changed.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// Before it.
    pub(super) size: u32,
    /// Before it.
    pub(super) high_water: u32,
    /// Pages that it wrote.
    pub(super) pre_images: Vec<PreImage>,
    /// It published a stage, whose rows hide those of the database and have not moved yet.
    pub(super) published: bool,
}

/// The newest commit of an actor, as long as its host may not know of it.
#[derive(Debug, Clone)]
struct Record {
    generation: u64,
    /// Number of the connection over which it came.
    connection: u64,
    /// The head that it made.
    head: u64,
    /// The head that the host goes on from if it has not seen the answer.
    known: u64,
    state: State,
    /// When it was noted, among all records.
    turn: u64,
}

#[derive(Debug, Clone)]
enum State {
    Made(Change),
    /// The head is that of the commit that took the last one back: what is stored is as it was at `known`.
    TakenBack,
}

/// What a request of a host means.
#[derive(Debug)]
enum Verdict {
    AsNamed,
    /// Its head goes by another number now.
    At(u64),
    /// Its last commit must be taken back first.
    Lost(Record),
}

/// The newest commits of actors. The oldest ones go first if there is no room.
#[derive(Debug)]
pub(crate) struct Undo {
    max_bytes: usize,
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    by_actor: HashMap<Id, Record>,
    by_turn: BTreeMap<u64, Id>,
    next_turn: u64,
    bytes: usize,
}

impl Record {
    fn bytes(&self) -> usize {
        let pages = match &self.state {
            State::Made(change) => change.pre_images.as_slice(),
            State::TakenBack => &[],
        };
        let row_bytes = |page: &PreImage| page.row.as_ref().map_or(0, Bytes::len);
        RECORD_BYTES + pages.iter().map(|page| PAGE_BYTES + row_bytes(page)).sum::<usize>()
    }

    /// Whether this is about a commit that may have to be taken back.
    fn is_open(&self) -> bool {
        matches!(self.state, State::Made(_))
    }
}

impl Records {
    fn insert(&mut self, actor: Id, mut record: Record, max_bytes: usize) {
        self.remove(&actor);
        record.turn = self.next_turn;
        self.next_turn += 1;
        self.bytes += record.bytes();
        self.by_turn.insert(record.turn, actor);
        self.by_actor.insert(actor, record);
        while self.bytes > max_bytes
            && let Some((_, oldest)) = self.by_turn.first_key_value()
        {
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, actor: &Id) {
        if let Some(record) = self.by_actor.remove(actor) {
            self.by_turn.remove(&record.turn);
            self.bytes -= record.bytes();
        }
    }
}

impl Undo {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, records: Mutex::default() }
    }

    /// What a request over this connection means that names this head. A record that it makes needless is dropped.
    fn consider(&self, actor: &Id, generation: u64, connection: u64, named: u64) -> Verdict {
        let mut records = self.records.lock();
        let Some(record) = records.by_actor.get(actor).filter(|record| record.generation == generation) else {
            return Verdict::AsNamed;
        };
        if named == record.head {
            records.remove(actor);
            return Verdict::AsNamed;
        }
        match record.state {
            State::TakenBack if named == record.known => Verdict::At(record.head),
            State::Made(_) if named == record.known && connection > record.connection => Verdict::Lost(record.clone()),
            State::TakenBack | State::Made(_) => Verdict::AsNamed,
        }
    }

    /// Remembers the newest commit of an actor, which made the head `head`.
    fn note(&self, actor: Id, generation: u64, connection: u64, head: u64, state: State) {
        let mut records = self.records.lock();
        let before = records.by_actor.get(&actor);
        // A host that has not named the head of the commit that took its last one back may not know of it.
        let known = match before.filter(|before| before.generation == generation && before.head + 1 == head) {
            Some(Record { state: State::TakenBack, known, .. }) => *known,
            Some(Record { state: State::Made(_), .. }) | None => head - 1,
        };
        let record = Record { generation, connection, head, known, state, turn: 0 };
        records.insert(actor, record, self.max_bytes);
    }

    /// A commit was taken back by another one.
    fn taken_back(&self, actor: Id, lost: &Record, connection: u64, head: u64) {
        let record = Record { connection, head, state: State::TakenBack, ..lost.clone() };
        self.records.lock().insert(actor, record, self.max_bytes);
    }

    /// Forgets an actor's newest commit: it stays.
    pub(crate) fn forget(&self, actor: &Id) {
        self.records.lock().remove(actor);
    }

    /// Forgets what was noted for a generation, or for one before it: its host asks no more.
    fn generation_ended(&self, actor: &Id, generation: u64) {
        let mut records = self.records.lock();
        if records.by_actor.get(actor).is_some_and(|record| record.generation <= generation) {
            records.remove(actor);
        }
    }

    /// Lets an actor's newest commit stay. If it took another one back, the head before keeps its meaning.
    pub(super) fn release(&self, actor: &Id) {
        let mut records = self.records.lock();
        if records.by_actor.get(actor).is_some_and(Record::is_open) {
            records.remove(actor);
        }
    }

    /// Whether the commit that made this head may have to be taken back.
    pub(super) fn holds(&self, actor: &Id, generation: u64, head: u64) -> bool {
        let records = self.records.lock();
        let record = records.by_actor.get(actor);
        record.is_some_and(|record| record.is_open() && record.generation == generation && record.head == head)
    }
}

impl ActorData {
    /// Lets the newest commit of an actor stay, whether its host has seen the answer or not. For whoever changes an actor's
    /// data by themselves.
    pub fn forget_undo(&self, actor: &Id) {
        self.undo.forget(actor);
    }

    /// Frees what was remembered for a generation of an actor, which has ended; what a newer one has done stays.
    pub fn generation_ended(&self, actor: &Id, generation: u32) {
        self.undo.generation_ended(actor, generation.into());
    }

    /// What a request of a host builds on, after its last commit was taken back if it has not seen the answer.
    pub(super) async fn resume(&self, actor: Id, guard: Guard) -> Result<Guard, SqliteError> {
        let (Caller::Host(connection), Some(named)) = (guard.caller, guard.head) else { return Ok(guard) };
        match self.undo.consider(&actor, guard.generation, connection, named) {
            Verdict::AsNamed => Ok(guard),
            Verdict::At(head) => Ok(Guard { head: Some(head), ..guard }),
            Verdict::Lost(record) => self.take_back(actor, guard, connection, record).await,
        }
    }

    async fn take_back(&self, actor: Id, guard: Guard, connection: u64, record: Record) -> Result<Guard, SqliteError> {
        let lost = record.clone();
        let head = self.transact(standing_reads(&actor), move |view| take_back(view, &actor, &lost)).await?;
        let Some(head) = head else {
            // Something else has happened to the actor since; the host will be told that it is out of step.
            self.undo.forget(&actor);
            return Ok(guard);
        };
        tracing::info!(%actor, head, "took back a commit whose answer its host has not seen");
        self.undo.taken_back(actor, &record, connection, head);
        Ok(Guard { head: Some(head), ..guard })
    }

    /// Remembers a commit that was made for a host; one that the engine made for itself stays.
    pub(super) fn note_commit(&self, actor: Id, guard: Guard, head: u64, change: Change) {
        match guard.caller {
            Caller::Host(connection) => self.undo.note(actor, guard.generation, connection, head, State::Made(change)),
            Caller::Engine => self.undo.forget(&actor),
        }
    }
}

/// Writes what was before a commit, as a commit of its own. Answers with its head, or nothing if the commit is not the newest.
fn take_back(view: &View<'_>, actor: &Id, lost: &Record) -> Result<Decision<Option<u64>>, SqliteError> {
    let standing = Standing::of(actor, view)?;
    let State::Made(change) = &lost.state else { return Ok(Decision::Skip(None)) };
    if !standing.is_current(lost.generation) || standing.ledger.head != lost.head {
        return Ok(Decision::Skip(None));
    }
    let needs_held = change.published || standing.ledger.size < change.size;
    if needs_held && standing.ledger.held != lost.head {
        // Some of what was before is gone already, because somebody else lets the commit stay.
        return Ok(Decision::Skip(None));
    }
    let mut batch = Batch::new();
    for before in &change.pre_images {
        let key = page::key(actor, before.pgno);
        match &before.row {
            Some(row) => batch.put(key, row.clone()),
            None => batch.delete(key),
        }
    }
    let mut ledger = standing.ledger;
    let stage_is_void = match ledger.stage {
        // Its number is taken by this commit now.
        Stage::Open(_) => true,
        Stage::Published { .. } => change.published,
        Stage::None => false,
    };
    if stage_is_void {
        ledger.stage = Stage::None;
        ledger.leftovers = true;
    }
    history::forget(&mut batch, actor, &mut ledger, lost.head, &change.pre_images);
    let ledger = Ledger { head: ledger.head + 1, size: change.size, high_water: change.high_water, held: 0, ..ledger };
    ledger.put(&mut batch, actor);
    Ok(Decision::Commit(batch, Some(ledger.head)))
}
