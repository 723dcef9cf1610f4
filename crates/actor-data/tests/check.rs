//! The walk in search of damage, and the export of a database: whole data is clean at every moment, each kind of damage is
//! found, and it costs nobody else anything.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use actor_data::Caller;
use actor_data::check::{Finding, Owner, check};
use actor_data::export::{self, ExportError, Exported};
use bytes::Bytes;
use proptest::prelude::*;
use protocol::envoy::*;
use protocol::id::Id;
use store::{Batch, Scan, Store};

use support::{PAGE, World, dirty};

fn findings_of(store: &Store, owner: Owner) -> Vec<Finding> {
    let mut findings = Vec::new();
    let seen = store.snapshot(|explorer| check(explorer, &mut |_| Ok(owner), &mut |finding| findings.push(finding)));
    seen.unwrap().unwrap();
    findings
}

fn codes(store: &Store, owner: Owner) -> Vec<&'static str> {
    findings_of(store, owner).into_iter().map(|finding| finding.code).collect()
}

fn exported(store: &Store, actor: Id) -> Result<(Exported, Vec<u8>), ExportError> {
    let mut file = Vec::new();
    let exported = store.snapshot(|explorer| export::database(explorer, actor, &mut file)).unwrap()?;
    Ok((exported, file))
}

/// Key-value keys of all lengths, some of which begin alike for longer than a key of the store can be.
fn kv_key(number: u8) -> Bytes {
    let mut key = vec![number / 4; [1, 1_900, 1_901, 2_048][usize::from(number % 4)]];
    *key.last_mut().unwrap() = number;
    key.into()
}

fn put(number: u8, length: usize) -> KvRequestData {
    KvRequestData::Put { keys: vec![kv_key(number)], values: vec![vec![number; length].into()] }
}

#[derive(Debug, Clone)]
enum Step {
    Commit {
        first: u32,
        count: u32,
        size: u32,
    },
    /// A commit of a host that did not see the answer to the one before.
    Retry {
        size: u32,
    },
    Begin,
    Segment {
        number: u32,
        pages: u32,
    },
    Finalize {
        size: u32,
    },
    Settle,
    Put {
        number: u8,
        length: usize,
    },
    Delete {
        number: u8,
    },
    DeleteAll,
    Start,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..50u32, 1..20u32, size()).prop_map(|(first, count, size)| Step::Commit { first, count, size }),
        2 => size().prop_map(|size| Step::Retry { size }),
        2 => Just(Step::Begin),
        3 => (0..2u32, 1..20u32).prop_map(|(number, pages)| Step::Segment { number, pages }),
        2 => size().prop_map(|size| Step::Finalize { size }),
        1 => Just(Step::Settle),
        3 => (any::<u8>(), 0..100usize).prop_map(|(number, length)| Step::Put { number, length }),
        2 => any::<u8>().prop_map(|number| Step::Delete { number }),
        1 => Just(Step::DeleteAll),
        1 => Just(Step::Start),
    ]
}

/// Most databases are small here, so that the test is quick.
fn size() -> impl Strategy<Value = u32> {
    prop_oneof![9 => 1..60u32, 1 => 300..360u32]
}

/// Does a step; whether it succeeds is not the question.
async fn take(world: &mut World, open: &mut (u64, Vec<u32>), step: &Step, content: u8) {
    match *step {
        Step::Commit { first, count, size } => {
            let pages: Vec<_> = (first..first + count).map(|pgno| (pgno, content)).collect();
            let _ = world.commit(&pages, size).await;
        }
        Step::Retry { size } => {
            world.connection += 1;
            let head = world.data.get_pages(world.actor, Caller::Engine, world.get_request([])).await.unwrap().head_txid.unwrap();
            let request = world.commit_request(dirty(&[(1, content)]), size);
            let request = SqliteCommitRequest { expected_head_txid: Some(head.saturating_sub(1)), ..request };
            let _ = world.data.commit(world.actor, Caller::Host(world.connection), request).await;
        }
        Step::Begin => {
            if let Ok(txid) = world.begin().await {
                *open = (txid, Vec::new());
            }
        }
        Step::Segment { number, pages } => {
            let first = number * 320;
            let pages: Vec<_> = (first.max(1)..first.max(1) + pages).map(|pgno| (pgno, content)).collect();
            if world.segment(open.0, first, &pages).await.is_ok() {
                open.1.push(first);
            }
        }
        Step::Finalize { size } => {
            let _ = world.finalize(open.0, size, &open.1).await;
        }
        Step::Settle => world.settle().await,
        Step::Put { number, length } => {
            world.kv(put(number, length)).await;
        }
        Step::Delete { number } => {
            world.kv(KvRequestData::Delete { keys: vec![kv_key(number)] }).await;
        }
        Step::DeleteAll => {
            world.kv(KvRequestData::Drop).await;
        }
        Step::Start => world.start().await,
    }
}

/// All pages, as a host reads them.
async fn read(world: &World, pages: u32) -> Vec<u8> {
    let mut all = Vec::new();
    for page in world.data.get_pages(world.actor, Caller::Engine, world.get_request(1..=pages)).await.unwrap().pages {
        all.extend(page.bytes.unwrap());
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn whole_data_is_clean_at_every_moment_and_exported_as_hosts_read_it(steps in prop::collection::vec(step(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            let mut open = (0, Vec::new());
            for (number, step) in steps.iter().enumerate() {
                take(&mut world, &mut open, step, number as u8).await;
                assert_eq!(findings_of(&world.store, Owner::Actor), [], "after {step:?}");
                match exported(&world.store, world.actor) {
                    Ok((exported, file)) => {
                        assert_eq!(file.len(), exported.pages as usize * PAGE);
                        assert!(file == read(&world, exported.pages).await, "after {step:?}");
                    }
                    Err(ExportError::NoDatabase { .. }) => assert_eq!(world.read([1]).await.unwrap(), []),
                    Err(error) => panic!("{error}"),
                }
            }
            world.destroy().await;
            assert_eq!(findings_of(&world.store, Owner::Actor), []);
            world.data.delete_all(world.actor).await.unwrap();
            assert_eq!(world.rows().await, Vec::<Bytes>::new());
        });
    }
}

/// Rows of every kind: an open stage, too, long keys, and a past.
async fn rich() -> World {
    let mut world = World::new().await;
    world.start_with_history(60).await;
    world.commit(&[(1, 1), (2, 2), (3, 3)], 3).await.unwrap();
    for number in [0, 1, 2, 3, 7] {
        world.kv(put(number, 10)).await;
    }
    let txid = world.begin().await.unwrap();
    world.segment(txid, 0, &[(2, 8), (3, 9)]).await.unwrap();
    assert_eq!(findings_of(&world.store, Owner::Actor), []);
    world
}

async fn rows(world: &World) -> Vec<(Bytes, Bytes)> {
    world.store.scan(Scan { max_bytes: usize::MAX, ..Scan::prefix("") }).await.unwrap()
}

async fn write(world: &World, change: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    change(&mut batch);
    world.store.write(batch).await.unwrap();
}

#[tokio::test]
async fn a_changed_byte_is_found_in_every_row() {
    let world = rich().await;
    let all = rows(&world).await;
    assert_eq!(all.iter().map(|(key, _)| key[0]).collect::<std::collections::BTreeSet<_>>(), (0x40..=0x48).collect());
    for (key, value) in all {
        for place in [0, value.len() / 2, value.len() - 1] {
            let mut changed = value.to_vec();
            changed[place] ^= 0x10;
            write(&world, |batch| batch.put(key.clone(), changed)).await;
            let findings = findings_of(&world.store, Owner::Actor);
            assert!(
                findings.iter().any(|found| found.code == "row.damaged" && found.key == key && found.actor == Some(world.actor)),
                "{key:x?} at {place}: {findings:?}"
            );
            write(&world, |batch| batch.put(key.clone(), value.clone())).await;
        }
    }
    assert_eq!(findings_of(&world.store, Owner::Actor), []);
}

#[tokio::test]
async fn a_missing_row_is_found_where_others_tell_of_it() {
    let world = rich().await;
    for (key, value) in rows(&world).await {
        write(&world, |batch| batch.delete(key.clone())).await;
        let codes = codes(&world.store, Owner::Actor);
        match key[0] {
            0x40 => assert_eq!(codes, ["fence.missing"]),
            // Without it everything counts as 0.
            0x41 => assert_eq!(codes.first(), Some(&"page.beyond_end")),
            // A page without a row is all zeros: that is how holes are stored.
            0x42 => assert_eq!(codes, [] as [&str; 0]),
            0x43 | 0x44 => assert_eq!(codes, ["ledger.stage"]),
            0x45 if key.len() > 19 + 1_900 => assert_eq!(codes, ["kv.unreachable"]),
            0x45 => assert_eq!(codes, ["ledger.kv_bytes"]),
            0x46 => assert_eq!(codes, ["kv.bucket", "ledger.kv_bytes"]),
            _ => assert_eq!(codes, ["ledger.history_bytes"]),
        }
        write(&world, |batch| batch.put(key, value)).await;
    }
}

#[tokio::test]
async fn rows_in_the_wrong_place_are_found() {
    let world = rich().await;
    let key = |kind: u8, rest: &[u8]| Bytes::from([&[kind], world.actor.as_bytes().as_slice(), rest].concat());
    let of = |kind: u8| async move { rows(&rich().await).await.into_iter().find(|(key, _)| key[0] == kind).unwrap().1 };
    let (page, staged) = (of(0x42).await, of(0x43).await);
    for (key, value, expected) in [
        (key(0x42, &7_u32.to_be_bytes()), page.clone(), &["row.damaged", "page.beyond_end"][..]),
        (key(0x42, &0_u32.to_be_bytes()), page.clone(), &["row.damaged", "page.beyond_end"]),
        (key(0x42, &[1]), page, &["row.malformed"]),
        (key(0x43, &[&9_u64.to_be_bytes()[..], &2_u32.to_be_bytes()].concat()), staged, &["row.damaged", "stage.unknown"]),
        (key(0x41, &[0]), "".into(), &["row.malformed"]),
        (Bytes::from_static(&[0x45, 1, 2]), "".into(), &["row.malformed"]),
        (key(0x5e, &[]), "".into(), &["row.unknown_kind"]),
    ] {
        write(&world, |batch| batch.put(key.clone(), value)).await;
        assert_eq!(codes(&world.store, Owner::Actor), expected, "{key:x?}");
        write(&world, |batch| batch.delete(key)).await;
    }
    assert_eq!(codes(&world.store, Owner::Nobody), ["fence.without_actor"]);
    assert_eq!(codes(&world.store, Owner::Actor), [] as [&str; 0]);
}

#[tokio::test]
async fn data_without_a_fence_needs_a_reason() {
    let world = rich().await;
    let fence = rows(&world).await.swap_remove(0).0;
    write(&world, |batch| batch.delete(fence)).await;
    assert_eq!(codes(&world.store, Owner::Actor), ["fence.missing"]);
    assert_eq!(codes(&world.store, Owner::Nobody), ["fence.missing"]);
    assert_eq!(codes(&world.store, Owner::Unstarted), [] as [&str; 0]);
    assert_eq!(codes(&world.store, Owner::Remains), [] as [&str; 0]);
}

/// Whatever is damaged: its own actor gets errors with a code or a reason, and another one notices nothing.
#[tokio::test]
async fn damage_concerns_one_actor_only() {
    let world = rich().await;
    let mut other =
        World { actor: Id::from_parts([10; 16], 1), data: world.data.clone(), store: world.store.clone(), ..World::new().await };
    other.generation = 0;
    other.start().await;
    other.commit(&[(1, 5)], 1).await.unwrap();
    other.kv(put(2, 10)).await;

    for (key, value) in rows(&world).await.into_iter().filter(|(key, _)| key[1..19] == world.actor.as_bytes()[..]) {
        write(&world, |batch| batch.put(key.clone(), [&value[..value.len() - 1], &[!value[value.len() - 1]]].concat())).await;
        match key[0] {
            0x40 | 0x41 => {
                let error = world.read([1]).await.unwrap_err();
                assert_eq!((error.group.as_str(), error.code.as_str()), ("store", "damaged"));
                let refused = world.kv(KvRequestData::Get { keys: vec![kv_key(0)] }).await;
                assert!(matches!(&refused, KvResponseData::Error { message } if message.contains("damaged")), "{refused:?}");
                assert!(matches!(exported(&world.store, world.actor), Err(ExportError::Damaged { .. })));
            }
            0x42 => {
                let pgno = u32::from_be_bytes(*key.last_chunk().unwrap());
                let error = world.read([pgno]).await.unwrap_err();
                assert_eq!((error.group.as_str(), error.code.as_str()), ("store", "damaged"));
                assert_eq!(world.read([pgno % 3 + 1]).await.unwrap().len(), 1, "the others can still be read");
                let damaged = exported(&world.store, world.actor).unwrap_err();
                assert!(matches!(damaged, ExportError::DamagedPage { pgno: found, .. } if found == pgno), "{damaged}");
            }
            0x45 | 0x46 => {
                let all = KvRequestData::List { query: KvListQuery::All, reverse: None, limit: None };
                let refused = world.kv(all).await;
                assert!(matches!(&refused, KvResponseData::Error { message } if message.contains("damaged")), "{refused:?}");
            }
            // Nobody reads what is staged before it is published, nor the past before it is wanted back.
            _ => {}
        }
        assert_eq!(other.read([1]).await.unwrap(), [(1, 5)]);
        assert!(matches!(other.kv(KvRequestData::Get { keys: vec![kv_key(2)] }).await, KvResponseData::Get { .. }));
        write(&world, |batch| batch.put(key, value)).await;
    }
    other.commit(&[(1, 6)], 1).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_exported_says_why() {
    let world = World::new().await;
    assert!(matches!(exported(&world.store, Id::NIL), Err(ExportError::NoActor { .. })));
    assert!(matches!(exported(&world.store, world.actor), Err(ExportError::NoDatabase { .. })));
    world.commit(&[(1, 1)], 1).await.unwrap();
    assert_eq!(exported(&world.store, world.actor).unwrap().0, Exported { head: 1, pages: 1 });
    world.destroy().await;
    assert!(matches!(exported(&world.store, world.actor), Err(ExportError::Destroyed { .. })));
    world.data.delete_all(world.actor).await.unwrap();
    assert!(matches!(exported(&world.store, world.actor), Err(ExportError::NoActor { .. })));
}
