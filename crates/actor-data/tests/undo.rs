//! Commits whose answers were lost, over the next connection of their host (`spec/storage.md` 7.5). Random histories are in
//! `sqlite::model_tests`; here is what must not be undone, and where memory ends.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use actor_data::{ActorData, Caller, Options};
use protocol::envoy::{SqliteCommitRequest, SqliteGetPagesRequest, SqliteResult};
use protocol::id::Id;
use std::sync::Arc;

use support::{World, dirty, text};

/// A commit of page 1 that builds on a head.
fn on_head(world: &World, head: u64, content: u8) -> SqliteCommitRequest {
    let request = world.commit_request(dirty(&[(1, content)]), 1);
    SqliteCommitRequest { expected_head_txid: Some(head), ..request }
}

async fn commit(world: &World, caller: Caller, head: u64, content: u8) -> SqliteResult<u64> {
    let committed = world.data.commit(world.actor, caller, on_head(world, head, content)).await;
    committed.map(|ok| ok.head_txid.unwrap())
}

/// Content of page 1, to a host that names a head over a connection.
async fn read(world: &World, connection: u64, head: u64) -> SqliteResult<u8> {
    let request = SqliteGetPagesRequest { expected_head_txid: Some(head), ..world.get_request([1]) };
    let read = world.data.get_pages(world.actor, Caller::Host(connection), request).await?;
    Ok(read.pages[0].bytes.as_ref().unwrap()[0])
}

fn out_of_step(expected: u64, current: u64) -> String {
    format!(
        "depot.head_fence_mismatch: transaction failed: \
         sqlite head fence mismatch: expected head txid {expected}, current head txid {current}"
    )
}

/// Checklist item 14 stays as it is: over its own connection a host knows what it was told.
#[tokio::test]
async fn an_old_head_over_the_same_or_an_older_connection_is_out_of_step() {
    let world = World::new().await;
    assert_eq!(commit(&world, Caller::Host(5), 0, 1).await, Ok(1));
    assert_eq!(commit(&world, Caller::Host(5), 1, 2).await, Ok(2));
    for connection in [4, 5] {
        assert_eq!(text(read(&world, connection, 1).await), out_of_step(1, 2));
        assert_eq!(text(commit(&world, Caller::Host(connection), 1, 3).await), out_of_step(1, 2));
    }
    // Only the last commit can be taken back.
    assert_eq!(text(read(&world, 6, 0).await), out_of_step(0, 2));
    assert_eq!(read(&world, 6, 1).await, Ok(1));
}

#[tokio::test]
async fn a_commit_stays_once_its_host_knows_of_it_or_another_one_has_come() {
    let world = World::new().await;
    commit(&world, Caller::Host(1), 0, 1).await.unwrap();
    assert_eq!(read(&world, 2, 1).await, Ok(1));
    assert_eq!(text(commit(&world, Caller::Host(3), 0, 9).await), out_of_step(0, 1));

    // The engine's own commits are nobody's to take back, and neither is what they were put on.
    commit(&world, Caller::Host(1), 1, 2).await.unwrap();
    assert_eq!(commit(&world, Caller::Engine, 2, 3).await, Ok(3));
    for head in [1, 2] {
        assert_eq!(text(read(&world, 4, head).await), out_of_step(head, 3));
    }
    commit(&world, Caller::Host(1), 3, 4).await.unwrap();
    world.data.forget_undo(&world.actor);
    assert_eq!(text(read(&world, 4, 3).await), out_of_step(3, 4));
}

#[tokio::test]
async fn a_new_generation_takes_nothing_back() {
    let mut world = World::new().await;
    commit(&world, Caller::Host(1), 0, 1).await.unwrap();
    world.start().await;
    assert_eq!(text(read(&world, 2, 0).await), out_of_step(0, 1));
    assert_eq!(read(&world, 2, 1).await, Ok(1));
}

/// Nobody asks for it any more, and memory is limited.
#[tokio::test]
async fn what_was_remembered_goes_with_its_generation() {
    let mut world = World::new().await;
    commit(&world, Caller::Host(1), 0, 1).await.unwrap();
    world.data.generation_ended(&world.actor, world.generation);
    assert_eq!(text(read(&world, 2, 0).await), out_of_step(0, 1));
    // An end that is told late does not concern the next generation.
    world.start().await;
    commit(&world, Caller::Host(2), 1, 2).await.unwrap();
    world.data.generation_ended(&world.actor, world.generation - 1);
    assert_eq!(read(&world, 3, 1).await, Ok(1));
}

/// A request that fails does not tell its host the new head: the old one must go on to mean it.
#[tokio::test]
async fn a_request_that_fails_after_the_undo_leaves_the_old_head_valid() {
    let world = World::with_limit(2 * 4096).await;
    commit(&world, Caller::Host(1), 0, 1).await.unwrap();
    commit(&world, Caller::Host(1), 1, 2).await.unwrap();
    let too_large = SqliteCommitRequest { db_size_pages: 3, ..on_head(&world, 1, 3) };
    let full = text(world.data.commit(world.actor, Caller::Host(2), too_large).await);
    assert!(full.starts_with("depot.quota_exceeded: "), "{full}");
    assert_eq!(read(&world, 2, 1).await, Ok(1));
    assert_eq!(commit(&world, Caller::Host(2), 1, 4).await, Ok(4));
    // And if that answer is lost, too, it is still the only head that the host knows.
    assert_eq!(read(&world, 3, 1).await, Ok(1));
}

#[tokio::test]
async fn the_oldest_commits_are_forgotten_when_there_are_too_many() {
    let mut world = World::new().await;
    let options = Options { max_undo_bytes: 3 * 400, ..Options::default() };
    world.data = ActorData::new(world.store.clone(), options, Arc::new(|| 0));
    let actors: Vec<Id> = (1..=8).map(|number| Id::from_parts([number; 16], 1)).collect();
    for actor in &actors {
        (world.actor, world.generation) = (*actor, 0);
        world.start().await;
        commit(&world, Caller::Host(1), 0, 1).await.unwrap();
    }
    let mut taken_back = 0;
    for actor in &actors {
        world.actor = *actor;
        match world
            .data
            .get_pages(*actor, Caller::Host(2), SqliteGetPagesRequest { expected_head_txid: Some(0), ..world.get_request([1]) })
            .await
        {
            Ok(read) => {
                assert_eq!((read.pages.len(), read.head_txid), (0, Some(2)));
                taken_back += 1;
            }
            Err(error) => {
                assert_eq!(taken_back, 0, "the newest are kept");
                assert_eq!(text::<()>(Err(error)), out_of_step(0, 1));
            }
        }
    }
    assert!((2..=4).contains(&taken_back), "{taken_back} commits were remembered");
}
