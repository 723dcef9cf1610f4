//! Which actors' databases are open here, for whom, and what becomes of them. Decisions only: opening and closing is done by
//! the caller, outside of the lock around this table.
//!
//! An actor has at most one database open, for one generation and one connection of its host. Numbers of generations and
//! connections only grow, so whoever comes later takes it over, and whoever is late gets nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use protocol::envoy::SqliteErrorResponse;
use protocol::id::ActorId;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::cancel::{Cancel, Reason};

/// For whom a database is open. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) generation: u32,
    /// Number of the connection of the generation's host.
    pub(super) connection: u64,
}

/// All actors whose present generation has executed a statement. `S` is an open database.
pub(super) struct Table<S> {
    slots: HashMap<ActorId, Slot<S>>,
    /// Actors whose database is open or being worked on, by connection.
    open: BTreeMap<u64, BTreeSet<ActorId>>,
    /// Databases that may be closed at any moment, the one that was idle for longest first.
    idle: BTreeMap<u64, ActorId>,
    /// Those that are closed only when others need the room: it loses temporary tables, or settings.
    reluctant: BTreeMap<u64, ActorId>,
    /// Those that stay open, because a transaction does, unless nobody goes on with it for too long.
    in_transaction: BTreeMap<u64, ActorId>,
    /// Grows with each entry of these three.
    next_turn: u64,
    /// How many statements wait until a database is closed, so that they can open theirs.
    waiting: usize,
}

struct Slot<S> {
    owner: Owner,
    state: State<S>,
    /// Told when nobody works on the database any more.
    freed: Arc<Notify>,
}

enum State<S> {
    /// There is none open. `head`: the commit at which it was, if it ever was.
    Closed { head: Option<u64> },
    /// It is open, and no statement runs.
    Idle { session: S, head: Option<u64>, rest: Rest },
    /// Somebody works on it.
    Busy { cancel: Arc<Cancel>, end: Option<End> },
    /// It is not what the instance believes it to be: every statement gets this answer until the generation ends.
    Poisoned(SqliteErrorResponse),
}

enum Rest {
    /// In `idle`.
    Idle { turn: u64, since: Instant },
    /// In `reluctant`.
    Reluctant { turn: u64 },
    /// In `in_transaction`.
    InTransaction { turn: u64, since: Instant },
}

/// How long a database may be open without a statement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) idle: Duration,
    pub(super) in_transaction: Duration,
}

/// What would be lost if a database were closed between two statements. More is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing but the time to open it again.
    Nothing,
    /// Temporary tables, or settings.
    OwnState,
    /// An open transaction.
    Transaction,
}

/// What has ended while somebody worked on a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Connection,
    Generation,
}

/// What a statement finds.
pub(super) enum Taken<S> {
    /// Its database, which is its own now until [`Table::put_back`].
    Open(S, Arc<Cancel>),
    /// The database is to be opened, at this head if there is one; also its own now. `replaced` is to be closed first.
    Closed { head: Option<u64>, cancel: Arc<Cancel>, replaced: Option<S> },
    /// Somebody else works on it; it is worth another look after this.
    Busy(OwnedNotified),
    /// The instance must end.
    Poisoned(SqliteErrorResponse),
    /// It belongs to a later generation or connection.
    Late,
}

/// How a statement leaves its database.
pub(super) struct Left<S> {
    /// None: it is not open.
    pub(super) session: Option<S>,
    /// The commit at which it is, if that is known.
    pub(super) head: Option<u64>,
    pub(super) loss: Loss,
    /// It is not what the instance believes it to be.
    pub(super) poison: Option<SqliteErrorResponse>,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self {
            slots: HashMap::new(),
            open: BTreeMap::new(),
            idle: BTreeMap::new(),
            reluctant: BTreeMap::new(),
            in_transaction: BTreeMap::new(),
            next_turn: 0,
            waiting: 0,
        }
    }
}

impl<S> Table<S> {
    /// Gives an actor's database to a statement.
    pub(super) fn take(&mut self, actor: ActorId, owner: Owner) -> Taken<S> {
        let fresh = || Slot { owner, state: State::Closed { head: None }, freed: Arc::default() };
        let slot = self.slots.entry(actor).or_insert_with(fresh);
        if slot.owner > owner {
            return Taken::Late;
        }
        let is_same_generation = slot.owner.generation == owner.generation;
        match &mut slot.state {
            State::Busy { cancel, end } => {
                if slot.owner < owner {
                    end.get_or_insert(End::Connection);
                    cancel.raise(Reason::Over);
                }
                return Taken::Busy(slot.freed.clone().notified_owned());
            }
            State::Poisoned(error) if is_same_generation => return Taken::Poisoned(error.clone()),
            State::Closed { .. } | State::Idle { .. } | State::Poisoned(_) => {}
        }
        let cancel = Arc::<Cancel>::default();
        let before = std::mem::replace(&mut slot.state, State::Busy { cancel: cancel.clone(), end: None });
        let old_owner = std::mem::replace(&mut slot.owner, owner);
        let head_for_it = |head: Option<u64>| head.filter(|_| is_same_generation);
        let taken = match before {
            State::Idle { session, head, rest } => {
                self.no_longer_idle(&rest);
                self.no_longer_open(old_owner, actor);
                match old_owner == owner {
                    true => Taken::Open(session, cancel),
                    false => Taken::Closed { head: head_for_it(head), cancel, replaced: Some(session) },
                }
            }
            State::Closed { head } => Taken::Closed { head: head_for_it(head), cancel, replaced: None },
            // Of an earlier generation; busy ones were answered above.
            State::Poisoned(_) | State::Busy { .. } => Taken::Closed { head: None, cancel, replaced: None },
        };
        self.open.entry(owner.connection).or_default().insert(actor);
        taken
    }

    /// Takes a database back; returns it if it is to be closed.
    pub(super) fn put_back(&mut self, actor: ActorId, left: Left<S>, now: Instant) -> Option<S> {
        let Left { session, head, loss, poison } = left;
        let Some(slot) = self.slots.get_mut(&actor) else { return session };
        let State::Busy { end, .. } = slot.state else { return session };
        let owner = slot.owner;
        slot.freed.notify_waiters();
        if end == Some(End::Generation) {
            self.slots.remove(&actor);
            self.no_longer_open(owner, actor);
            return session;
        }
        let makes_room = self.waiting > 0 && loss != Loss::Transaction;
        match (poison, session) {
            (None, Some(session)) if end.is_none() && !makes_room => {
                let turn = self.next_turn;
                self.next_turn += 1;
                let rest = match loss {
                    Loss::Nothing => {
                        self.idle.insert(turn, actor);
                        Rest::Idle { turn, since: now }
                    }
                    Loss::OwnState => {
                        self.reluctant.insert(turn, actor);
                        Rest::Reluctant { turn }
                    }
                    Loss::Transaction => {
                        self.in_transaction.insert(turn, actor);
                        Rest::InTransaction { turn, since: now }
                    }
                };
                slot.state = State::Idle { session, head, rest };
                None
            }
            (poison, session) => {
                slot.state = poison.map_or(State::Closed { head }, State::Poisoned);
                self.no_longer_open(owner, actor);
                session
            }
        }
    }

    /// A generation is over: nothing of it stays. Returns its database if it is to be closed.
    pub(super) fn generation_ended(&mut self, actor: ActorId, generation: u32) -> Option<S> {
        let slot = self.slots.get_mut(&actor).filter(|slot| slot.owner.generation <= generation)?;
        if let State::Busy { cancel, end } = &mut slot.state {
            *end = Some(End::Generation);
            cancel.raise(Reason::Over);
            return None;
        }
        let Slot { owner, state, .. } = self.slots.remove(&actor)?;
        let State::Idle { session, rest, .. } = state else { return None };
        self.no_longer_idle(&rest);
        self.no_longer_open(owner, actor);
        Some(session)
    }

    /// A connection has ended: what its statements did not commit must be undone. Returns the databases to be closed.
    pub(super) fn connection_ended(&mut self, connection: u64) -> Vec<S> {
        let actors: Vec<ActorId> = self.open.get(&connection).into_iter().flatten().copied().collect();
        let mut to_close = Vec::new();
        for actor in actors {
            if let Some(State::Busy { cancel, end }) = self.slots.get_mut(&actor).map(|slot| &mut slot.state) {
                end.get_or_insert(End::Connection);
                cancel.raise(Reason::Over);
            } else {
                to_close.extend(self.close(actor));
            }
        }
        to_close
    }

    /// Closes the database whose loss matters least, if there is one that may be closed.
    pub(super) fn evict(&mut self) -> Option<S> {
        let actor = *self.idle.first_key_value().or_else(|| self.reluctant.first_key_value())?.1;
        self.close(actor)
    }

    /// Closes the databases without a statement for so long. An instance whose transaction is rolled back for that hears it, as
    /// `rolled_back`, from now on: it must not go on in the middle of what is gone.
    pub(super) fn expire(&mut self, patience: Patience, now: Instant, rolled_back: &SqliteErrorResponse) -> Vec<S> {
        let mut to_close = Vec::new();
        while let Some(actor) = self.first_idle(patience).filter(|(_, at)| *at <= now).map(|(actor, _)| actor) {
            to_close.extend(self.close(actor));
        }
        while let Some(actor) = self.first_in_transaction(patience).filter(|(_, at)| *at <= now).map(|(actor, _)| actor) {
            to_close.extend(self.close(actor));
            if let Some(slot) = self.slots.get_mut(&actor) {
                slot.state = State::Poisoned(rolled_back.clone());
            }
        }
        to_close
    }

    /// When the next database is closed for that.
    pub(super) fn next_expiry(&self, patience: Patience) -> Option<Instant> {
        let both = self.first_idle(patience).into_iter().chain(self.first_in_transaction(patience));
        both.map(|(_, at)| at).min()
    }

    fn first_idle(&self, patience: Patience) -> Option<(ActorId, Instant)> {
        self.first_of(&self.idle, patience.idle)
    }

    fn first_in_transaction(&self, patience: Patience) -> Option<(ActorId, Instant)> {
        self.first_of(&self.in_transaction, patience.in_transaction)
    }

    /// The one that was without a statement for longest, and when that is too long.
    fn first_of(&self, resting: &BTreeMap<u64, ActorId>, patience: Duration) -> Option<(ActorId, Instant)> {
        let actor = *resting.first_key_value()?.1;
        match &self.slots.get(&actor)?.state {
            State::Idle { rest: Rest::Idle { since, .. } | Rest::InTransaction { since, .. }, .. } => {
                // What is further away than can be said is never.
                Some((actor, since.checked_add(patience)?))
            }
            State::Idle { rest: Rest::Reluctant { .. }, .. } | State::Closed { .. } | State::Busy { .. } | State::Poisoned(_) => {
                None
            }
        }
    }

    /// A statement begins to wait until a database is closed: from now on those that may be are.
    pub(super) fn begin_waiting(&mut self) {
        self.waiting += 1;
    }

    /// It waits no longer.
    pub(super) fn end_waiting(&mut self) {
        self.waiting -= 1;
    }

    /// Closes an idle database, and remembers its head.
    fn close(&mut self, actor: ActorId) -> Option<S> {
        let slot = self.slots.get_mut(&actor)?;
        let owner = slot.owner;
        let State::Idle { head, .. } = slot.state else { return None };
        let State::Idle { session, rest, .. } = std::mem::replace(&mut slot.state, State::Closed { head }) else { return None };
        self.no_longer_idle(&rest);
        self.no_longer_open(owner, actor);
        Some(session)
    }

    fn no_longer_idle(&mut self, rest: &Rest) {
        match rest {
            Rest::Idle { turn, .. } => drop(self.idle.remove(turn)),
            Rest::Reluctant { turn } => drop(self.reluctant.remove(turn)),
            Rest::InTransaction { turn, .. } => drop(self.in_transaction.remove(turn)),
        }
    }

    fn no_longer_open(&mut self, owner: Owner, actor: ActorId) {
        if let Some(actors) = self.open.get_mut(&owner.connection) {
            actors.remove(&actor);
            if actors.is_empty() {
                self.open.remove(&owner.connection);
            }
        }
    }
}
