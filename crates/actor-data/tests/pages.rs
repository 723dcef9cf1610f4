//! Reads and single commits (`spec/storage.md` 6; the numbers are those of its checklist, section 19).

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use actor_data::Caller;
use protocol::envoy::{KvRequestData, KvResponseData, SqliteCommitStageSegmentRequest, SqliteDirtyPage, SqliteGetPagesOk};
use protocol::id::Id;
use store::Batch;

use support::{PAGE, World, dirty, text};

/// Item 12: how the SDK opens a new database.
#[tokio::test]
async fn a_new_database_is_empty() {
    let world = World::new().await;
    let read = world.data.get_pages(world.actor, Caller::Host(1), world.get_request(1..=128)).await;
    assert_eq!(read, Ok(SqliteGetPagesOk { pages: Vec::new(), head_txid: Some(0) }));
}

/// Items 13 and 14.
#[tokio::test]
async fn the_head_counts_commits_and_fences_them() {
    let world = World::new().await;
    let at_head = async |expected: Option<u64>, size| {
        let mut request = world.commit_request(dirty(&[(1, size as u8)]), size);
        request.expected_head_txid = expected;
        world.data.commit(world.actor, Caller::Host(1), request).await.map(|ok| ok.head_txid)
    };
    assert_eq!(at_head(Some(0), 1).await, Ok(Some(1)));
    assert_eq!(at_head(None, 2).await, Ok(Some(2)));
    assert_eq!(world.commit(&[], 2).await, Ok(3));

    let mismatch = "depot.head_fence_mismatch: transaction failed: \
                    sqlite head fence mismatch: expected head txid 2, current head txid 3";
    assert_eq!(text(at_head(Some(2), 9).await), mismatch);
    let mut request = world.get_request([1]);
    request.expected_head_txid = Some(2);
    assert_eq!(text(world.data.get_pages(world.actor, Caller::Host(1), request).await), mismatch);
    assert_eq!(world.read(1..=9).await.unwrap(), [(1, 2), (2, 0)]);
}

/// Item 15, and `spec/storage.md` 6.5: nothing that a host takes for "this database is new".
#[tokio::test]
async fn only_the_current_generation_gets_through() {
    let mut world = World::new().await;
    world.commit(&[(1, 1)], 1).await.unwrap();

    let mut read = world.get_request([1]);
    let mut commit = world.commit_request(dirty(&[(1, 2)]), 1);
    read.expected_generation = None;
    commit.expected_generation = None;
    let missing = text(world.data.get_pages(world.actor, Caller::Host(1), read.clone()).await);
    assert_eq!(missing, "sqlite.invalid_request: sqlite get_pages missing expectedGeneration");
    let missing = text(world.data.commit(world.actor, Caller::Host(1), commit.clone()).await);
    assert_eq!(missing, "sqlite.invalid_request: sqlite commit missing expectedGeneration");

    world.start().await;
    // Older, newer, and too large for a generation. The fence comes before what else is wrong.
    for generation in [1, 3, u64::MAX] {
        read.expected_generation = Some(generation);
        read.pgnos = vec![0];
        commit.expected_generation = Some(generation);
        commit.dirty_pages = dirty(&[(0, 1)]);
        let stale = format!("depot.head_fence_mismatch: actor generation {generation} is not current");
        assert_eq!(text(world.data.get_pages(world.actor, Caller::Host(1), read.clone()).await), stale);
        assert_eq!(text(world.data.commit(world.actor, Caller::Host(1), commit.clone()).await), stale);
    }
    // Item 26: the new one sees everything acknowledged to the old one.
    assert_eq!(world.read([1]).await.unwrap(), [(1, 1)]);

    world.destroy().await;
    let destroyed = "depot.head_fence_mismatch: actor generation 2 is not current";
    assert_eq!(text(world.read([1]).await), destroyed);
    assert_eq!(text(world.commit(&[(1, 3)], 1).await), destroyed);
}

/// Item 16.
#[tokio::test]
async fn commits_that_are_wrong_change_nothing() {
    let world = World::new().await;
    world.commit(&[(1, 1)], 1).await.unwrap();
    let rows = world.rows().await;
    let short = vec![SqliteDirtyPage { pgno: 1, bytes: vec![0; 100].into() }];
    let many = dirty(&(1..=321).map(|pgno| (pgno, 1)).collect::<Vec<_>>());
    for (pages, message) in [
        (dirty(&[(0, 1)]), "core.internal_error: sqlite commit does not accept page 0"),
        (short, "core.internal_error: sqlite commit page 1 had 100 bytes, expected 4096"),
        (dirty(&[(2, 1), (1, 1), (2, 1)]), "core.internal_error: sqlite commit duplicated page 2 in a single request"),
        (many, "depot.commit_too_large: sqlite commit too large: actual_size_bytes=1314816, max_size_bytes=1310720"),
    ] {
        let request = world.commit_request(pages, 400);
        assert_eq!(text(world.data.commit(world.actor, Caller::Host(1), request).await), message);
    }
    assert_eq!(world.rows().await, rows);
    assert_eq!(world.commit(&[], 1).await, Ok(2));

    // Exactly as many as allowed.
    let pages: Vec<_> = (1..=320).rev().map(|pgno| (pgno, 2)).collect();
    assert_eq!(world.commit(&pages, 320).await, Ok(3));
    assert_eq!(world.read(1..=400).await.unwrap().len(), 320);
}

/// `spec/storage.md` 6.3 and 18.3.
#[tokio::test]
async fn reads_keep_order_and_limits() {
    let world = World::new().await;
    let pages: Vec<_> = (1..=20).map(|pgno| (pgno, pgno as u8)).collect();
    world.commit(&pages, 20).await.unwrap();
    let read = world.read([3, 9, 5, 6, 7, 8, 21, 3, 1]).await.unwrap();
    assert_eq!(read, [(3, 3), (9, 9), (5, 5), (6, 6), (7, 7), (8, 8), (3, 3), (1, 1)]);

    let zero = "core.internal_error: get_pages does not accept page 0";
    assert_eq!(text(world.read([1, 0]).await), zero);
    assert_eq!(world.read(1..=16_384).await.unwrap().len(), 20);
    let too_many = "sqlite.invalid_request: sqlite get_pages requested 16385 pages, exceeding limit 16384";
    assert_eq!(text(world.read(1..=16_385).await), too_many);
    assert_eq!(world.read([u32::MAX - 1, u32::MAX]).await.unwrap(), []);
}

/// The leaf of a table with one row, which goes on in a chain of pages that begins with this one.
fn leaf(rest: u32) -> Vec<u8> {
    let row_of_5000_bytes = [&[0xa7, 0x08, 1][..], &[7; 908], &rest.to_be_bytes()].concat();
    let mut page = vec![0; PAGE];
    page[0] = 13;
    page[4] = 1;
    page[8..10].copy_from_slice(&300_u16.to_be_bytes());
    page[300..300 + row_of_5000_bytes.len()].copy_from_slice(&row_of_5000_bytes);
    page
}

/// A page with a number at some place.
fn naming(pgno: u32, at: usize) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    page[at..at + 4].copy_from_slice(&pgno.to_be_bytes());
    page
}

/// `spec/storage.md` 16.3. Which pages these are is tested in `sqlite::read_ahead`.
#[tokio::test]
async fn what_a_host_needs_next_comes_along() {
    let world = World::new().await;
    let with_bytes = |pages: &[(u32, Vec<u8>)]| {
        let page = |(pgno, bytes): &(u32, Vec<u8>)| SqliteDirtyPage { pgno: *pgno, bytes: bytes.clone().into() };
        pages.iter().map(page).collect::<Vec<_>>()
    };
    let pages = [(1, naming(300, 32)), (200, leaf(201)), (201, naming(202, 0)), (202, naming(0, 0)), (300, naming(0, 4))];
    world.data.commit(world.actor, Caller::Host(1), world.commit_request(with_bytes(&pages), 400)).await.unwrap();
    let read = async |caller, pgnos: &[u32]| {
        let read = world.data.get_pages(world.actor, caller, world.get_request(pgnos.iter().copied())).await.unwrap();
        read.pages.into_iter().map(|page| (page.pgno, page.bytes.unwrap())).collect::<Vec<_>>()
    };
    let numbers = |read: Vec<(u32, bytes::Bytes)>| read.into_iter().map(|(pgno, _)| pgno).collect::<Vec<_>>();

    let row = read(Caller::Host(1), &[200]).await;
    assert_eq!(row, pages[1..4].iter().map(|(pgno, page)| (*pgno, page.clone().into())).collect::<Vec<_>>());
    assert_eq!(numbers(read(Caller::Host(1), &[200, 200]).await), [200, 200, 201, 202]);
    let opening: Vec<u32> = (1..=128).collect();
    assert_eq!(numbers(read(Caller::Host(1), &opening).await), [opening.as_slice(), &[300]].concat());
    // The engine's SQLite has a read-ahead of its own.
    assert_eq!(numbers(read(Caller::Engine, &[200]).await), [200]);

    // A stage counts as soon as it is published, before its rows have moved.
    let txid = world.begin().await.unwrap();
    let request = SqliteCommitStageSegmentRequest {
        actor_id: String::new(),
        expected_generation: Some(world.generation.into()),
        txid,
        first_pgno: 192,
        dirty_pages: with_bytes(&[(201, naming(203, 0)), (203, naming(0, 0))]),
    };
    world.data.stage_segment(world.actor, Caller::Host(1), request).await.unwrap();
    world.finalize(txid, 400, &[192]).await.unwrap();
    assert_eq!(numbers(read(Caller::Host(1), &[200]).await), [200, 201, 203]);
    world.settle().await;
    assert_eq!(numbers(read(Caller::Host(1), &[200]).await), [200, 201, 203]);

    // Damage concerns only those who ask for it.
    let key = world.rows().await.into_iter().find(|key| key.ends_with(&203_u32.to_be_bytes())).unwrap();
    let mut batch = Batch::new();
    batch.put(key, "damaged");
    world.store.write(batch).await.unwrap();
    assert_eq!(numbers(read(Caller::Host(1), &[200]).await), [200]);
    let damaged = world.data.get_pages(world.actor, Caller::Host(1), world.get_request([203])).await.unwrap_err();
    assert_eq!((damaged.group.as_str(), damaged.code.as_str()), ("store", "damaged"));
}

/// Items 17, 18 and 20.
#[tokio::test]
async fn holes_and_what_was_cut_off_are_zeros() {
    let world = World::new().await;
    world.commit(&[(1, 1), (4, 4), (9, 9)], 6).await.unwrap();
    assert_eq!(world.read(1..=9).await.unwrap(), [(1, 1), (2, 0), (3, 0), (4, 4), (5, 0), (6, 0)]);
    // Page 9 was above the size: it must not appear now.
    world.commit(&[(10, 10)], 10).await.unwrap();
    assert_eq!(world.read([4, 9, 10]).await.unwrap(), [(4, 4), (9, 0), (10, 10)]);
    world.commit(&[], 3).await.unwrap();
    world.commit(&[], 10).await.unwrap();
    assert_eq!(world.read([1, 4, 10]).await.unwrap(), [(1, 1), (4, 0), (10, 0)]);
    // Page 1 of a database that is there is in every answer, even if it is a hole.
    world.commit(&[], 0).await.unwrap();
    assert_eq!(world.read([1]).await.unwrap(), []);
    assert_eq!(world.commit(&[], 1).await, Ok(6));
    assert_eq!(world.read([1]).await.unwrap(), [(1, 0)]);
}

#[tokio::test]
async fn a_large_shrink_leaves_no_rows() {
    let world = World::new().await;
    for first in (1..=1280).step_by(320) {
        let pages: Vec<_> = (first..first + 320).map(|pgno| (pgno, 5)).collect();
        world.commit(&pages, first + 319).await.unwrap();
    }
    assert_eq!(world.rows().await.len(), 2 + 1280);
    world.commit(&[(2, 6)], 2).await.unwrap();
    // They stay until the host has shown that it knows of the commit: it may have to be taken back.
    world.data.settle(world.actor).await.unwrap();
    assert_eq!(world.rows().await.len(), 2 + 1280);
    world.settle().await;
    assert_eq!(world.rows().await.len(), 2 + 2);
    world.commit(&[(1280, 7)], 1280).await.unwrap();
    let read = world.read(1..=1280).await.unwrap();
    assert_eq!(read.iter().filter(|(_, content)| *content != 0).count(), 3);
}

/// Item 28, and 49: one limit for both kinds of storage.
#[tokio::test]
async fn the_limit_stops_growth_only() {
    let world = World::with_limit(10 * PAGE as u64).await;
    let put = async |length: usize| {
        let request = KvRequestData::Put { keys: vec!["key".into()], values: vec![vec![0; length].into()] };
        world.kv(request).await
    };
    let kv_full = KvResponseData::Error { message: "Not enough space left in storage.".into() };
    assert_eq!(put(PAGE - 35).await, KvResponseData::Put);
    let pages: Vec<_> = (1..=9).map(|pgno| (pgno, 1)).collect();
    for _ in 0..5 {
        world.commit(&pages, 9).await.unwrap();
    }
    let full = "depot.quota_exceeded: transaction failed: SqliteStorageQuotaExceeded: \
                not enough space left in depot (0 bytes remaining, current payload is 4096 bytes)";
    assert_eq!(text(world.commit(&[(10, 1)], 10).await), full);
    assert_eq!(put(PAGE - 34).await, kv_full);
    // What does not grow works, and makes room.
    world.commit(&pages, 9).await.unwrap();
    assert_eq!(put(PAGE - 35).await, KvResponseData::Put);
    world.commit(&[(1, 2)], 8).await.unwrap();
    assert_eq!(put(PAGE - 34).await, KvResponseData::Put);
    assert!(world.commit(&[(9, 1)], 9).await.is_err());
    assert_eq!(world.kv(KvRequestData::Drop).await, KvResponseData::Drop);
    world.commit(&[(10, 1)], 10).await.unwrap();
    assert_eq!(world.read([1, 9, 10]).await.unwrap(), [(1, 2), (9, 0), (10, 1)]);
}

/// Items 9 and 29.
#[tokio::test]
async fn nothing_of_a_destroyed_actor_remains() {
    let mut world = World::new().await;
    let (store, data, now) = (world.store.clone(), world.data.clone(), world.now.clone());
    let mut neighbour = World { store, data, now, actor: Id::from_parts([10; 16], 1), generation: 0, connection: 1 };
    neighbour.start().await;
    neighbour.commit(&[(1, 1)], 1).await.unwrap();
    let neighbours_rows: Vec<_> = world.rows().await.into_iter().filter(|key| key[1] == 10).collect();
    let long_key = vec![b'k'; 2048];
    let put = KvRequestData::Put { keys: vec!["key".into(), long_key.into()], values: vec!["a".into(), "b".into()] };
    assert_eq!(world.kv(put).await, KvResponseData::Put);
    for first in (1..=640).step_by(320) {
        let pages: Vec<_> = (first..first + 320).map(|pgno| (pgno, 5)).collect();
        world.commit(&pages, 640).await.unwrap();
    }
    let txid = world.begin().await.unwrap();
    world.segment(txid, 0, &[(1, 1)]).await.unwrap();

    // Without the mark, as if the engine had failed to set it.
    world.data.delete_all(world.actor).await.unwrap();
    assert_eq!(world.rows().await, neighbours_rows);
    let refused = "depot.head_fence_mismatch: actor generation 1 is not current";
    assert_eq!(text(world.commit(&[(1, 1)], 1).await), refused);
    assert_eq!(text(world.begin().await), refused);
    assert_eq!(world.rows().await, neighbours_rows);
    world.data.delete_all(world.actor).await.unwrap();
    world.generation = 2;
    assert_eq!(text(world.read([1]).await), "depot.head_fence_mismatch: actor generation 2 is not current");
}
