//! Going back, and copying, on a real disk: beside an actor that writes, and with key-value data. What any time in the window
//! looks like is shown by random histories, inside the crate.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actor_data::check::{Owner, check};
use actor_data::limits::MAX_COPIES;
use actor_data::{Caller, Draft, HistoryError, Restored, as_it_was, fence};
use bytes::Bytes;
use protocol::envoy::*;
use protocol::id::Id;
use store::{Batch, Scan};
use support::{World, dirty};
use tempfile::TempDir;
use tokio::sync::Notify;

const SIZE: u32 = 700;

/// An actor on disk whose generation keeps history.
async fn with_history(folder: &TempDir) -> World {
    let mut world = World::on_disk(folder).await;
    world.start_with_history(60).await;
    world
}

async fn write(world: &World, first: u32, content: u8) {
    let pages: Vec<(u32, u8)> = (first..first + 300).map(|pgno| (pgno, content)).collect();
    world.commit(&pages, SIZE).await.unwrap();
}

/// The clock goes on; the time before.
fn tick(world: &World) -> i64 {
    world.now.fetch_add(10, Ordering::Relaxed)
}

fn assert_clean(world: &World) {
    let mut findings = Vec::new();
    let walk = |explorer: &store::Explorer<'_>| check(explorer, &mut |_| Ok(Owner::Actor), &mut |finding| findings.push(finding));
    world.store.snapshot(walk).unwrap().unwrap();
    assert_eq!(findings, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_writes_all_the_time_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_history(&folder).await;
    write(&world, 1, 1).await;
    write(&world, 301, 2).await;
    let then = tick(&world);
    let expected = world.read(1..=SIZE).await.unwrap();
    write(&world, 101, 3).await;

    // It goes on until it is told that it is out of step, as a host does.
    let (data, request) = (world.data.clone(), world.commit_request(Vec::new(), SIZE));
    let writing = tokio::spawn(async move {
        for number in 0.. {
            let pgno = number % SIZE + 1;
            let request = SqliteCommitRequest {
                dirty_pages: dirty(&[(pgno, 4)]),
                expected_head_txid: Some(3 + u64::from(number)),
                ..request.clone()
            };
            let actor = request.actor_id.parse().unwrap();
            if let Err(refused) = data.commit(actor, Caller::Host(1), request).await {
                return (number, refused);
            }
        }
        unreachable!("the numbers do not end")
    });
    let restored = world.data.restore(world.actor, then, as_it_was).await.unwrap();
    let (written, refused) = writing.await.unwrap();
    assert_eq!(refused.code, "head_fence_mismatch", "{refused:?}");
    assert_eq!(restored, Restored::Changed { head: 4 + u64::from(written) });
    assert_eq!(world.read(1..=SIZE).await.unwrap(), expected);
    world.data.settle(world.actor).await.unwrap();
    assert_clean(&world);
}

/// Bytes of all notes of the past.
async fn noted_bytes(world: &World) -> u64 {
    let mut bytes = 0;
    for kind in [0x47, 0x48] {
        let rows = world.store.scan(Scan { max_bytes: usize::MAX, ..Scan::prefix(vec![kind]) }).await.unwrap();
        bytes += rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
    }
    bytes
}

/// Waits until the past has no more notes than it should; forgetting goes on in the background.
async fn forgotten(world: &World, max_bytes: u64) {
    let forgets = async {
        while noted_bytes(world).await > max_bytes {
            tokio::task::yield_now().await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), forgets).await;
    assert!(done.is_ok(), "the past is never forgotten");
    let past = world.data.past(world.actor).await.unwrap();
    assert_eq!(past.map_or(0, |past| past.bytes), noted_bytes(world).await);
    assert_clean(world);
}

#[tokio::test]
async fn the_past_is_forgotten_after_commits() {
    let max_bytes = 16 * 1024;
    let mut world = World::with_limit(max_bytes).await;
    let retention_s = 100;
    world.start_with_history(retention_s).await;
    // Nobody sweeps here. Each commit notes more than 100 bytes.
    for round in 0..4 {
        for content in 1..=200 {
            world.commit(&[(1, content), (2, content)], 2).await.unwrap();
            tick(&world);
        }
        forgotten(&world, max_bytes).await;
        assert!(noted_bytes(&world).await > max_bytes / 2, "more was forgotten than had to be");
        // Ten milliseconds each.
        let then = world.now.load(Ordering::Relaxed) - 10 * 5;
        world.data.restore(world.actor, then, as_it_was).await.unwrap();
        assert_eq!(world.read([1, 2]).await.unwrap(), [(1, 196), (2, 196)], "round {round}");
        let refused = world.data.restore(world.actor, then - 10 * 190, as_it_was).await.unwrap_err();
        assert!(matches!(refused, HistoryError::TooEarly { .. }), "{refused:?}");
    }

    // The next commit finds that the window of all others is over.
    world.now.fetch_add(i64::from(retention_s) * 1100, Ordering::Relaxed);
    world.commit(&[(1, 1)], 2).await.unwrap();
    forgotten(&world, 200).await;

    // One of a generation that keeps none ends the rest.
    world.start().await;
    world.commit(&[(1, 2)], 2).await.unwrap();
    assert_eq!(world.data.past(world.actor).await.unwrap(), None);
    forgotten(&world, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_few_actors_are_copied_at_a_time() {
    let mut world = World::new().await;
    world.commit(&[(1, 1)], 1).await.unwrap();
    world.start_with_history(60).await;
    let wait = Arc::new(Notify::new());
    let copy = |number: u8| {
        let (data, from, wait) = (world.data.clone(), world.actor, wait.clone());
        let amend = async move |draft: Draft| {
            wait.notified().await;
            as_it_was(draft).await
        };
        tokio::spawn(async move { data.copy(from, Id::from_parts([number; 16], 1), None, amend).await })
    };
    let copies: Vec<_> = (0..MAX_COPIES as u8).map(copy).collect();
    tokio::task::yield_now().await;
    // It does not wait for ever.
    let refused = copy(100).await.unwrap();
    assert!(matches!(refused, Err(HistoryError::Busy)), "{refused:?}");
    let restored = world.data.restore(world.actor, 0, as_it_was).await;
    assert!(matches!(restored, Err(HistoryError::Busy)), "{restored:?}");
    let late = copy(101);
    tokio::task::yield_now().await;
    for _ in 0..MAX_COPIES {
        wait.notify_one();
        tokio::task::yield_now().await;
    }
    for done in copies {
        done.await.unwrap().unwrap();
    }
    wait.notify_one();
    late.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_restore_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_history(&folder).await;
    write(&world, 1, 1).await;
    let then = tick(&world);
    write(&world, 1, 2).await;
    let (one, other) =
        tokio::join!(world.data.restore(world.actor, then, as_it_was), world.data.restore(world.actor, then, as_it_was));
    assert!(matches!(one, Ok(Restored::Changed { .. })), "{one:?}");
    assert!(matches!(other, Err(HistoryError::UnderWay)), "{other:?}");
}

#[tokio::test]
async fn a_restore_that_is_given_up_halfway_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_history(&folder).await;
    write(&world, 1, 1).await;
    for number in 0..8_u64 {
        let then = tick(&world);
        let past = world.read(1..=SIZE).await.unwrap();
        // Each time other pages, so that rows of an earlier attempt would be seen.
        write(&world, 50 * number as u32 + 1, 10 + number as u8).await;
        let present = world.read(1..=SIZE).await.unwrap();
        let cut = Duration::from_micros(number * number * 400);
        let given_up = tokio::time::timeout(cut, world.data.restore(world.actor, then, as_it_was)).await;
        let found = world.read(1..=SIZE).await.unwrap();
        assert!(found == past || (given_up.is_err() && found == present), "{number}: {given_up:?}");
    }
    world.data.forget_undo(&world.actor);
    world.data.settle(world.actor).await.unwrap();
    assert_clean(&world);
    let staged = world.rows().await.iter().filter(|key| key[0] == 0x43).count();
    assert_eq!(staged, 0);
}

#[tokio::test]
async fn what_is_put_back_may_be_amended() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_history(&folder).await;
    write(&world, 1, 1).await;
    let then = tick(&world);
    write(&world, 101, 2).await;
    // Pages that are to be put back, that are as they were, and that are all zeros.
    let places = [50, 101, 650];
    let amend = async |draft: Draft| {
        assert_eq!(draft.size(), SIZE);
        let found = draft.read(&places).await.unwrap();
        let expected = [(50, 1), (101, 1), (650, 0)].map(|(pgno, content)| (pgno, Bytes::from(vec![content; 4096])));
        assert_eq!(found, expected);
        places.map(|pgno| (pgno, Bytes::from(vec![9; 4096]))).to_vec()
    };
    let fork = Id::from_parts([10; 16], 1);
    world.data.copy(world.actor, fork, Some(then), amend).await.unwrap();
    world.data.restore(world.actor, then, amend).await.unwrap();
    let mut batch = Batch::new();
    fence::set_generation(&mut batch, &fork, world.generation);
    world.store.write(batch).await.unwrap();
    for actor in [world.actor, fork] {
        let request = world.get_request(1..=SIZE);
        for page in world.data.get_pages(actor, Caller::Engine, request).await.unwrap().pages {
            let expected = if places.contains(&page.pgno) { 9 } else { u8::from(page.pgno <= 300) };
            assert_eq!(page.bytes.unwrap()[0], expected, "page {}", page.pgno);
        }
    }
    // Nothing comes of what does not fit.
    let misfit = async |_: Draft| vec![(1, Bytes::from(vec![7; 4096])), (SIZE + 1, Bytes::from(vec![7; 4096]))];
    world.data.restore(world.actor, then, misfit).await.unwrap();
    assert_eq!(world.read([1, 101]).await.unwrap(), [(1, 1), (101, 1)]);
    world.data.settle(world.actor).await.unwrap();
    assert_clean(&world);
}

fn put(keys: &[Bytes], value: &'static [u8]) -> KvRequestData {
    KvRequestData::Put { keys: keys.to_vec(), values: keys.iter().map(|_| Bytes::from_static(value)).collect() }
}

const LIST: KvRequestData = KvRequestData::List { query: KvListQuery::All, reverse: None, limit: None };

#[tokio::test]
async fn a_copy_has_the_key_value_entries_too_and_is_independent() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_history(&folder).await;
    write(&world, 1, 1).await;
    let then = tick(&world);
    write(&world, 101, 2).await;
    // Long keys are stored in another way.
    let keys: Vec<Bytes> = (0..100).map(|number| vec![number; 1 + 20 * usize::from(number)].into()).collect();
    world.kv(put(&keys, b"value")).await;
    let entries = world.kv(LIST).await;

    let fork = Id::from_parts([10; 16], 1);
    world.data.copy(world.actor, fork, Some(then), as_it_was).await.unwrap();
    let mut batch = Batch::new();
    fence::set_generation(&mut batch, &fork, 1);
    world.store.write(batch).await.unwrap();
    assert_clean(&world);
    assert_eq!(world.data.kv(fork, 1, LIST).await, entries);
    let request = SqliteGetPagesRequest { expected_generation: Some(1), ..world.get_request(1..=SIZE) };
    let pages = world.data.get_pages(fork, Caller::Engine, request).await.unwrap().pages;
    assert!(pages.iter().all(|page| page.bytes.as_ref().unwrap()[0] == u8::from(page.pgno <= 300)));

    world.kv(KvRequestData::Drop).await;
    assert_eq!(world.data.kv(fork, 1, LIST).await, entries);
    world.data.delete_all(world.actor).await.unwrap();
    assert_eq!(world.data.kv(fork, 1, LIST).await, entries);
    assert_clean(&world);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_copied() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_history(&folder).await;
    let fork = Id::from_parts([10; 16], 1);
    world.destroy().await;
    assert!(matches!(world.data.copy(world.actor, fork, None, as_it_was).await, Err(HistoryError::NoActor)));
    assert!(matches!(world.data.restore(world.actor, 0, as_it_was).await, Err(HistoryError::NoActor)));
    assert!(matches!(world.data.past(world.actor).await, Err(HistoryError::NoActor)));
}
