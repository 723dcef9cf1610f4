//! The table of sessions: single cases, and random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use protocol::envoy::SqliteErrorResponse;
use protocol::id::ActorId;
use tokio::time::Instant;

use super::cancel::{Cancel, Reason};
use super::table::{Left, Loss, Owner, Patience, Table, Taken};

/// Stands for an open session.
type Session = u64;

fn actor(number: u8) -> ActorId {
    ActorId::from_parts([number; 16], 1)
}

fn owner(generation: u32, connection: u64) -> Owner {
    Owner { generation, connection }
}

fn left(session: Option<Session>, head: u64, loss: Loss) -> Left<Session> {
    Left { session, head: Some(head), loss, poison: None }
}

fn fence() -> SqliteErrorResponse {
    SqliteErrorResponse { group: "depot".into(), code: "head_fence_mismatch".into(), message: "moved".into() }
}

/// Takes an actor whose session is not open; returns the head at which it is to be opened.
fn open(table: &mut Table<Session>, number: u8, owner: Owner) -> (Option<u64>, Arc<Cancel>, Option<Session>) {
    match table.take(actor(number), owner) {
        Taken::Closed { head, cancel, replaced } => (head, cancel, replaced),
        Taken::Open(..) | Taken::Busy(_) | Taken::Poisoned(_) | Taken::Late => panic!("it is not closed"),
    }
}

/// Opens an actor's session and leaves it.
fn leave(table: &mut Table<Session>, number: u8, owner: Owner, session: Session, loss: Loss) {
    open(table, number, owner);
    assert_eq!(table.put_back(actor(number), left(Some(session), 1, loss), Instant::now()), None);
}

#[test]
fn a_session_stays_with_its_connection_and_the_next_one_goes_on_at_its_head() {
    let mut table = Table::default();
    assert_eq!(open(&mut table, 1, owner(1, 10)).0, None);
    table.put_back(actor(1), left(Some(77), 5, Loss::Nothing), Instant::now());
    assert!(matches!(table.take(actor(1), owner(1, 10)), Taken::Open(77, _)));
    table.put_back(actor(1), left(Some(77), 6, Loss::Nothing), Instant::now());

    let (head, _, replaced) = open(&mut table, 1, owner(1, 11));
    assert_eq!((head, replaced), (Some(6), Some(77)));
    table.put_back(actor(1), left(Some(78), 6, Loss::Nothing), Instant::now());
    assert!(matches!(table.take(actor(1), owner(1, 10)), Taken::Late), "the old connection is too late");
    let (head, _, replaced) = open(&mut table, 1, owner(2, 5));
    assert_eq!((head, replaced), (None, Some(78)), "a new generation begins with what there is");
}

#[test]
fn whoever_comes_later_waits_for_the_statement_that_it_ends() {
    let mut table = Table::default();
    let (_, cancel, _) = open(&mut table, 1, owner(1, 10));
    let Taken::Busy(freed) = table.take(actor(1), owner(1, 11)) else { panic!("it is busy") };
    assert_eq!(cancel.reason(), Some(Reason::Over));
    let mut freed = std::pin::pin!(freed);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(freed.as_mut().poll(&mut context).is_pending());
    let closed = table.put_back(actor(1), left(Some(77), 9, Loss::Transaction), Instant::now());
    assert_eq!(closed, Some(77), "what the old connection did not commit is undone");
    assert!(freed.as_mut().poll(&mut context).is_ready());
    assert_eq!(open(&mut table, 1, owner(1, 11)).0, Some(9));
}

#[test]
fn the_end_of_a_connection_closes_its_sessions_and_no_others() {
    let mut table = Table::default();
    leave(&mut table, 1, owner(1, 10), 71, Loss::Transaction);
    leave(&mut table, 2, owner(1, 10), 72, Loss::Nothing);
    leave(&mut table, 3, owner(1, 11), 73, Loss::Nothing);
    let (_, cancel, _) = open(&mut table, 4, owner(1, 10));
    assert_eq!(table.connection_ended(10), [71, 72]);
    assert_eq!(cancel.reason(), Some(Reason::Over));
    assert_eq!(table.put_back(actor(4), left(Some(74), 1, Loss::Nothing), Instant::now()), Some(74));
    assert_eq!(table.connection_ended(10), [0; 0]);
    assert!(matches!(table.take(actor(3), owner(1, 11)), Taken::Open(73, _)));
}

#[test]
fn the_end_of_a_generation_leaves_nothing_of_it_and_spares_a_later_one() {
    let mut table = Table::default();
    leave(&mut table, 1, owner(2, 10), 71, Loss::Transaction);
    assert_eq!(table.generation_ended(actor(1), 1), None);
    assert_eq!(table.generation_ended(actor(1), 2), Some(71));
    assert_eq!(open(&mut table, 1, owner(1, 1)).0, None, "nothing is remembered of it");
    assert_eq!(table.generation_ended(actor(1), 1), None, "a statement has it");
    assert_eq!(table.put_back(actor(1), left(Some(72), 1, Loss::Nothing), Instant::now()), Some(72));
}

#[test]
fn a_poisoned_instance_gets_the_same_answer_until_its_generation_ends() {
    let mut table = Table::default();
    open(&mut table, 1, owner(1, 10));
    let poisoned = Left { poison: Some(fence()), ..left(Some(71), 1, Loss::Nothing) };
    assert_eq!(table.put_back(actor(1), poisoned, Instant::now()), Some(71));
    table.connection_ended(10);
    for connection in [10, 11] {
        let Taken::Poisoned(error) = table.take(actor(1), owner(1, connection)) else { panic!("it is poisoned") };
        assert_eq!(error, fence());
    }
    assert_eq!(open(&mut table, 1, owner(2, 11)).0, None);
}

#[test]
fn who_loses_least_is_closed_first_and_transactions_never() {
    let mut table = Table::default();
    leave(&mut table, 1, owner(1, 10), 71, Loss::Transaction);
    leave(&mut table, 2, owner(1, 10), 72, Loss::OwnState);
    leave(&mut table, 3, owner(1, 10), 73, Loss::Nothing);
    leave(&mut table, 4, owner(1, 10), 74, Loss::Nothing);
    let Taken::Open(session, _) = table.take(actor(3), owner(1, 10)) else { panic!("it is open") };
    table.put_back(actor(3), left(Some(session), 1, Loss::Nothing), Instant::now());
    let evicted: Vec<_> = std::iter::from_fn(|| table.evict()).collect();
    assert_eq!(evicted, [74, 73, 72]);
    assert_eq!(open(&mut table, 3, owner(1, 10)).0, Some(1), "its head is remembered");
}

#[test]
fn while_somebody_waits_for_a_place_no_session_stays_without_need() {
    let mut table = Table::default();
    table.begin_waiting();
    for (number, loss, closed) in [(1, Loss::Nothing, Some(7)), (2, Loss::OwnState, Some(7)), (3, Loss::Transaction, None)] {
        open(&mut table, number, owner(1, 10));
        assert_eq!(table.put_back(actor(number), left(Some(7), 1, loss), Instant::now()), closed, "{loss:?}");
    }
    table.end_waiting();
    leave(&mut table, 1, owner(1, 10), 8, Loss::Nothing);
}

#[tokio::test(start_paused = true)]
async fn only_what_has_been_idle_for_so_long_expires() {
    const TIMEOUT: Duration = Duration::from_secs(60);
    const PATIENCE: Patience = Patience { idle: TIMEOUT, in_transaction: Duration::from_secs(120) };
    let mut table = Table::default();
    assert_eq!(table.next_expiry(PATIENCE), None);
    let begin = Instant::now();
    leave(&mut table, 1, owner(1, 10), 71, Loss::OwnState);
    leave(&mut table, 2, owner(1, 10), 72, Loss::Nothing);
    tokio::time::advance(Duration::from_secs(1)).await;
    leave(&mut table, 3, owner(1, 10), 73, Loss::Nothing);
    assert_eq!(table.next_expiry(PATIENCE), Some(begin + TIMEOUT));
    assert_eq!(table.expire(PATIENCE, begin + TIMEOUT, &fence()), [72]);
    assert_eq!(table.expire(PATIENCE, begin + 10 * TIMEOUT, &fence()), [73], "settings are kept");
    assert_eq!(table.next_expiry(PATIENCE), None);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_nobody_goes_on_with_expires_and_poisons_its_instance() {
    const PATIENCE: Patience = Patience { idle: Duration::from_secs(60), in_transaction: Duration::from_secs(120) };
    let mut table = Table::default();
    let begin = Instant::now();
    leave(&mut table, 1, owner(1, 10), 71, Loss::Transaction);
    leave(&mut table, 2, owner(1, 10), 72, Loss::Transaction);
    tokio::time::advance(Duration::from_secs(100)).await;
    // Every statement of a transaction gives it its time anew.
    let Taken::Open(session, _) = table.take(actor(2), owner(1, 10)) else { panic!("it is open") };
    table.put_back(actor(2), left(Some(session), 1, Loss::Transaction), Instant::now());
    leave(&mut table, 3, owner(1, 10), 73, Loss::Nothing);
    let expiry = begin + PATIENCE.in_transaction;
    assert_eq!(table.next_expiry(PATIENCE), Some(expiry), "also if another has been idle for less long");
    assert_eq!(table.expire(PATIENCE, expiry, &fence()), [71]);
    let Taken::Poisoned(error) = table.take(actor(1), owner(1, 11)) else { panic!("it is poisoned") };
    assert_eq!(error, fence());
    assert_eq!(open(&mut table, 1, owner(2, 11)).0, None, "the next generation is not");
    assert_eq!(table.next_expiry(PATIENCE), Some(begin + Duration::from_secs(160)));
    assert!(matches!(table.take(actor(2), owner(1, 10)), Taken::Open(72, _)));
    assert_eq!(table.connection_ended(10), [73]);
}

/// Something that happens to the table.
#[derive(Debug, Clone)]
enum Event {
    Take { actor: u8, generation: u32, connection: u64 },
    PutBack { actor: u8, opened: bool, loss: Loss, poison: bool },
    GenerationEnded { actor: u8, generation: u32 },
    ConnectionEnded(u64),
    Evict,
    ExpireAll,
}

fn event() -> impl Strategy<Value = Event> {
    let loss = prop_oneof![Just(Loss::Nothing), Just(Loss::OwnState), Just(Loss::Transaction)];
    prop_oneof![
        6 => (0..4u8, 1..4u32, 1..4u64)
            .prop_map(|(actor, generation, connection)| Event::Take { actor, generation, connection }),
        6 => (0..4u8, prop::bool::weighted(0.9), loss, prop::bool::weighted(0.1))
            .prop_map(|(actor, opened, loss, poison)| Event::PutBack { actor, opened, loss, poison }),
        1 => (0..4u8, 1..4u32).prop_map(|(actor, generation)| Event::GenerationEnded { actor, generation }),
        1 => (1..4u64).prop_map(Event::ConnectionEnded),
        1 => Just(Event::Evict),
        1 => Just(Event::ExpireAll),
    ]
}

/// The sessions that exist: in the table, or in the hands of a statement.
#[derive(Default)]
struct Census {
    made: u64,
    open: BTreeSet<Session>,
    /// By actor: a statement has it, with this session.
    held: BTreeMap<u8, (Owner, Option<Session>)>,
}

impl Census {
    fn closed(&mut self, sessions: impl IntoIterator<Item = Session>) {
        for session in sessions {
            assert!(self.open.remove(&session), "session {session} is closed twice");
        }
    }
}

proptest! {
    /// Whatever happens: no session is lost, none is closed twice, an actor has one at most, and what ends closes its own.
    #[test]
    fn no_session_is_lost(events in prop::collection::vec(event(), 0..200)) {
        let mut table = Table::default();
        let mut census = Census::default();
        let now = Instant::now();
        for event in events {
            match event {
                Event::Take { actor: number, generation, connection } => {
                    let owner = owner(generation, connection);
                    let session = match table.take(actor(number), owner) {
                        Taken::Open(session, _) => Some(session),
                        Taken::Closed { replaced, .. } => {
                            census.closed(replaced);
                            None
                        }
                        Taken::Busy(_) => {
                            prop_assert!(census.held.contains_key(&number));
                            continue;
                        }
                        Taken::Poisoned(_) | Taken::Late => continue,
                    };
                    prop_assert!(census.held.insert(number, (owner, session)).is_none(), "two statements have it");
                }
                Event::PutBack { actor: number, opened, loss, poison } => {
                    let Some((_, session)) = census.held.remove(&number) else { continue };
                    let session = session.or_else(|| {
                        census.made += 1;
                        opened.then_some(census.made).inspect(|made| assert!(census.open.insert(*made)))
                    });
                    let left = Left { session, head: None, loss, poison: poison.then(fence) };
                    let closed = table.put_back(actor(number), left, now);
                    census.closed(closed);
                }
                Event::GenerationEnded { actor: number, generation } => {
                    let closed = table.generation_ended(actor(number), generation);
                    census.closed(closed);
                }
                Event::ConnectionEnded(connection) => {
                    let closed = table.connection_ended(connection);
                    census.closed(closed);
                }
                Event::Evict => census.closed(table.evict()),
                Event::ExpireAll => {
                    let patience = Patience { idle: Duration::ZERO, in_transaction: Duration::ZERO };
                    let closed = table.expire(patience, now, &fence());
                    census.closed(closed);
                    prop_assert_eq!(table.next_expiry(patience), None);
                }
            }
        }
        for (number, (_, session)) in std::mem::take(&mut census.held) {
            let closed = table.put_back(actor(number), left(session, 1, Loss::Nothing), now);
            census.closed(closed);
        }
        for connection in 1..4 {
            let closed = table.connection_ended(connection);
            census.closed(closed);
        }
        prop_assert!(census.open.is_empty(), "{:?} were never closed", census.open);
    }
}
