//! A host that keeps a SQLite database and loses its connection at any message of a transaction (`spec/storage.md` 7.5,
//! checklist 27). It does as the published SDK: takes the transaction for failed, rolls it back in memory, and goes on over
//! its next connection with the head that it knew. It must never be told that it is out of step, which would end the
//! actor's instance.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use protocol::envoy::*;
use testkit::envoy::FakeEnvoy;
use testkit::proxy::{Direction, Fault, Scope};

use crate::faults::Scene;

const PAGE_BYTES: usize = 4096;
/// Page numbers that one segment spans.
const SPAN: u32 = 320;
/// Pages that are looked at; nothing is ever written to others.
const LOOKED_AT: [RangeInclusive<u32>; 4] = [1..=8, 318..=322, 598..=602, 648..=652];

/// What is on the pages of a database that are not zeros, and its size.
#[derive(Debug, Clone)]
struct Content {
    size: u32,
    pages: BTreeMap<u32, u8>,
}

/// Changes that belong together.
#[derive(Debug, Clone)]
struct Transaction {
    pages: BTreeMap<u32, u8>,
    size: u32,
    staged: bool,
}

impl Content {
    fn after(&self, transaction: &Transaction) -> Self {
        let mut pages = self.pages.clone();
        pages.extend(&transaction.pages);
        pages.retain(|pgno, content| *pgno <= transaction.size && *content != 0);
        Self { size: transaction.size, pages }
    }

    /// What a read finds: pages within the size.
    fn visible(&self) -> BTreeMap<u32, u8> {
        let of = |pgno: u32| (pgno, self.pages.get(&pgno).copied().unwrap_or(0));
        LOOKED_AT.into_iter().flatten().filter(|pgno| *pgno <= self.size).map(of).collect()
    }

    /// What writes all of it.
    fn whole(&self) -> Transaction {
        Transaction { pages: self.pages.clone(), size: self.size, staged: false }
    }

    /// The commit that a rollback makes: the old images of the pages that were changed.
    fn rollback(&self, failed: &Transaction) -> Transaction {
        let old = |pgno: &u32| (*pgno, self.pages.get(pgno).copied().unwrap_or(0));
        let pages = failed.pages.keys().filter(|pgno| **pgno <= self.size).map(old).collect();
        Transaction { pages, size: self.size, staged: false }
    }
}

/// Where a connection breaks.
#[derive(Debug, Clone, Copy)]
enum Break {
    /// The engine has done what the message asks for; the first byte of the answer arrives.
    InTheAnswer,
    /// So many bytes of the message reach the engine.
    InTheMessage(u64),
}

/// A host's database, as the SDK keeps it.
struct Database {
    actor_id: String,
    head: u64,
    next_id: u32,
}

/// The messages that make a transaction.
enum Message {
    Commit(SqliteCommitRequest),
    Begin(SqliteCommitStageBeginRequest),
    Segment(SqliteCommitStageSegmentRequest),
    Finalize(SqliteCommitFinalizeRequest),
}

fn dirty(pages: &BTreeMap<u32, u8>) -> Vec<SqliteDirtyPage> {
    pages.iter().map(|(pgno, content)| SqliteDirtyPage { pgno: *pgno, bytes: vec![*content; PAGE_BYTES].into() }).collect()
}

impl Database {
    /// The messages of a transaction, in order.
    fn messages(&self, transaction: &Transaction) -> Vec<Message> {
        let (actor_id, expected_generation) = (self.actor_id.clone(), Some(1));
        let expected_head_txid = Some(self.head);
        if !transaction.staged {
            let dirty_pages = dirty(&transaction.pages);
            let db_size_pages = transaction.size;
            return vec![Message::Commit(SqliteCommitRequest {
                actor_id,
                dirty_pages,
                db_size_pages,
                now_ms: 0,
                expected_generation,
                expected_head_txid,
            })];
        }
        let begin = SqliteCommitStageBeginRequest { actor_id: actor_id.clone(), expected_generation, expected_head_txid };
        let mut messages = vec![Message::Begin(begin)];
        let mut segments: BTreeMap<u32, BTreeMap<u32, u8>> = BTreeMap::new();
        for (pgno, content) in &transaction.pages {
            segments.entry(pgno - pgno % SPAN).or_default().insert(*pgno, *content);
        }
        // The number of the commit is set when the answer to the first message is there.
        for (first_pgno, pages) in &segments {
            let (actor_id, dirty_pages) = (actor_id.clone(), dirty(pages));
            let (txid, first_pgno) = (0, *first_pgno);
            messages.push(Message::Segment(SqliteCommitStageSegmentRequest {
                actor_id,
                expected_generation,
                txid,
                first_pgno,
                dirty_pages,
            }));
        }
        messages.push(Message::Finalize(SqliteCommitFinalizeRequest {
            actor_id,
            expected_generation,
            txid: 0,
            new_db_size_pages: transaction.size,
            now_ms: 0,
            segment_first_pgnos: segments.into_keys().collect(),
        }));
        messages
    }

    fn send(&mut self, envoy: &FakeEnvoy, message: Message, staged_txid: u64) {
        self.next_id += 1;
        let request_id = self.next_id;
        envoy.send(&match message {
            Message::Commit(data) => ToRivet::SqliteCommit { request_id, data },
            Message::Begin(data) => ToRivet::SqliteCommitStageBegin { request_id, data },
            Message::Segment(data) => {
                let data = SqliteCommitStageSegmentRequest { txid: staged_txid, ..data };
                ToRivet::SqliteCommitStageSegment { request_id, data }
            }
            Message::Finalize(data) => {
                let data = SqliteCommitFinalizeRequest { txid: staged_txid, ..data };
                ToRivet::SqliteCommitFinalize { request_id, data }
            }
        });
    }

    /// The answer to the last message: the number of the stage, or of the new head.
    async fn answer(&self, envoy: &mut FakeEnvoy) -> Option<u64> {
        let id = self.next_id;
        let answer = |message: &ToEnvoy| {
            if let ToEnvoy::SqliteCommit { request_id, data } = message {
                return (*request_id == id).then(|| data.clone().map(|ok| ok.head_txid));
            }
            if let ToEnvoy::SqliteCommitStageBegin { request_id, data } = message {
                return (*request_id == id).then(|| data.clone().map(|ok| Some(ok.txid)));
            }
            if let ToEnvoy::SqliteCommitStageSegment { request_id, data } = message {
                return (*request_id == id).then(|| data.clone().map(|_ok| None));
            }
            let ToEnvoy::SqliteCommitFinalize { request_id, data } = message else { return None };
            (*request_id == id).then(|| data.clone().map(|ok| ok.head_txid))
        };
        envoy.expect("the answer to a message of a transaction", answer).await.unwrap()
    }

    /// A transaction that nothing disturbs.
    async fn commit(&mut self, envoy: &mut FakeEnvoy, transaction: &Transaction) {
        let mut txid = 0;
        for message in self.messages(transaction) {
            self.send(envoy, message, txid);
            txid = self.answer(envoy).await.unwrap_or(txid);
        }
        self.head = txid;
    }

    /// Everything, with the head that the host knows; it takes over that of the answer.
    async fn read(&mut self, envoy: &mut FakeEnvoy) -> BTreeMap<u32, u8> {
        self.next_id += 1;
        let id = self.next_id;
        let data = SqliteGetPagesRequest {
            actor_id: self.actor_id.clone(),
            pgnos: LOOKED_AT.into_iter().flatten().collect(),
            expected_generation: Some(1),
            expected_head_txid: Some(self.head),
        };
        envoy.send(&ToRivet::SqliteGetPages { request_id: id, data });
        let answer = |message: &ToEnvoy| {
            let ToEnvoy::SqliteGetPages { request_id, data } = message else { return None };
            (*request_id == id).then(|| data.clone())
        };
        let read = envoy.expect("pages", answer).await.unwrap();
        self.head = read.head_txid.unwrap();
        read.pages.into_iter().map(|page| (page.pgno, page.bytes.unwrap()[0])).collect()
    }

    /// A transaction of which one message is the last before the connection breaks.
    async fn commit_until_break(&mut self, scene: &mut Scene, transaction: &Transaction, last: usize, at: Break) {
        let mut txid = 0;
        for (index, message) in self.messages(transaction).into_iter().enumerate() {
            if index == last {
                let (direction, after_bytes) = match at {
                    Break::InTheAnswer => (Direction::Down, 1),
                    Break::InTheMessage(bytes) => (Direction::Up, bytes),
                };
                scene.to_host.set(Scope::Open, direction, Fault::Cut { after_bytes });
                self.send(&scene.envoy, message, txid);
                break;
            }
            self.send(&scene.envoy, message, txid);
            txid = self.answer(&mut scene.envoy).await.unwrap_or(txid);
        }
        scene.rejoin().await;
        // Nothing else is on its way.
        scene.exchange().await;
    }
}

/// Pages with this content.
fn pages(pgnos: impl IntoIterator<Item = u32>, content: u8) -> BTreeMap<u32, u8> {
    pgnos.into_iter().map(|pgno| (pgno, content)).collect()
}

/// A database of 600 pages.
async fn database(scene: &mut Scene) -> (Database, Content) {
    let mut database = Database { actor_id: scene.actor.clone(), head: 0, next_id: 0 };
    let content = Content { size: 600, pages: pages((1..=8).chain(318..=322).chain(598..=600), 1) };
    database.commit(&mut scene.envoy, &content.whole()).await;
    (database, content)
}

fn transactions() -> Vec<Transaction> {
    let of = |pgnos: &[u32], size, staged| Transaction { pages: pages(pgnos.iter().copied(), 2), size, staged };
    vec![
        of(&[1, 2, 3], 600, false),
        of(&[1, 602, 650], 650, false),
        of(&[1, 2], 5, false),
        of(&[], 599, false),
        of(&[2, 319, 320], 600, true),
        of(&[1, 320, 321, 601, 650], 651, true),
        of(&[1, 320, 322], 320, true),
    ]
}

/// The host reads after the break, or rolls back at once.
#[tokio::test]
async fn a_connection_that_breaks_at_any_message_costs_nothing() {
    let mut scene = Scene::new().await;
    let (mut database, before) = database(&mut scene).await;
    for transaction in transactions() {
        for last in 0..database.messages(&transaction).len() {
            for at in [Break::InTheAnswer, Break::InTheMessage(20)] {
                for reads_first in [true, false] {
                    database.commit_until_break(&mut scene, &transaction, last, at).await;
                    let context = format!("{transaction:?}, message {last}, {at:?}");
                    if reads_first {
                        assert_eq!(database.read(&mut scene.envoy).await, before.visible(), "{context}");
                    }
                    database.commit(&mut scene.envoy, &before.rollback(&transaction)).await;
                    assert_eq!(database.read(&mut scene.envoy).await, before.visible(), "{context}");
                }
            }
        }
        // Undisturbed it works. Then everything is as before for the next one.
        database.commit(&mut scene.envoy, &transaction).await;
        assert_eq!(database.read(&mut scene.envoy).await, before.after(&transaction).visible());
        database.commit(&mut scene.envoy, &before.rollback(&transaction)).await;
        database.commit(&mut scene.envoy, &before.whole()).await;
    }
}

/// Answer after answer gets lost, also those that say that a commit was taken back.
#[tokio::test]
async fn connections_that_break_again_and_again() {
    let mut scene = Scene::new().await;
    let (mut database, before) = database(&mut scene).await;
    for round in 0..3 {
        for transaction in transactions() {
            let last = database.messages(&transaction).len() - 1;
            database.commit_until_break(&mut scene, &transaction, last, Break::InTheAnswer).await;
        }
        assert_eq!(database.read(&mut scene.envoy).await, before.visible(), "round {round}");
    }
}

/// What was sent over the old connection, and comes when the host has already read over the new one.
#[tokio::test]
async fn what_an_old_connection_brings_late_does_not_count() {
    let mut scene = Scene::new().await;
    let (mut database, before) = database(&mut scene).await;
    let transaction = Transaction { pages: pages([1, 2], 2), size: 3, staged: false };
    scene.to_host.set(Scope::Open, Direction::Up, Fault::Stall);
    let old = scene.to_host.open().pop().unwrap().connection;
    let message = database.messages(&transaction).remove(0);
    database.send(&scene.envoy, message, 0);

    let params = scene.envoy.params().clone();
    let mut envoy = FakeEnvoy::join(scene.to_host.address(), &params).await;
    assert_eq!(database.read(&mut envoy).await, before.visible());
    scene.to_host.set(Scope::One(old), Direction::Up, Fault::Pass);
    scene.envoy.expect_close().await;
    assert_eq!(database.read(&mut envoy).await, before.visible());
    database.commit(&mut envoy, &transaction).await;
    assert_eq!(database.read(&mut envoy).await, before.after(&transaction).visible());
}
