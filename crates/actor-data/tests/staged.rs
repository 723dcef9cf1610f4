//! Staged commits (`spec/storage.md` 6.7; the numbers are those of its checklist, section 19).

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use actor_data::Caller;
use protocol::envoy::{SqliteCommitStageBeginRequest, SqliteCommitStageSegmentRequest};

use support::{World, dirty, text};

/// Pages with these numbers, all alike.
fn pages(pgnos: std::ops::RangeInclusive<u32>, content: u8) -> Vec<(u32, u8)> {
    pgnos.map(|pgno| (pgno, content)).collect()
}

/// Item 21.
#[tokio::test]
async fn pages_appear_when_they_are_published() {
    let world = World::new().await;
    world.commit(&pages(1..=100, 1), 100).await.unwrap();
    let txid = world.begin().await.unwrap();
    assert_eq!(txid, 2);
    assert_eq!(world.begin().await, Ok(2));
    world.segment(txid, 0, &pages(1..=319, 2)).await.unwrap();
    world.segment(txid, 320, &[(321, 3), (320, 3)]).await.unwrap();
    assert_eq!(world.read([1, 100, 101]).await.unwrap(), [(1, 1), (100, 1)]);

    assert_eq!(world.finalize(txid, 321, &[0, 320]).await, Ok(2));
    let read = world.read(1..=400).await.unwrap();
    assert_eq!(read[..319], pages(1..=319, 2));
    assert_eq!(read[319..], pages(320..=321, 3));
    // Fence, ledger, pages: nothing is left of the stage itself.
    world.settle().await;
    assert_eq!(world.rows().await.len(), 2 + 321);

    let again = "depot.head_fence_mismatch: transaction failed: \
                 sqlite head fence mismatch: expected head txid 1, current head txid 2";
    assert_eq!(text(world.finalize(txid, 321, &[0, 320]).await), again);
}

/// Item 21, the largest one, on disk, and reopened between the last segment and the end.
#[tokio::test]
async fn the_largest_commit_works_and_a_larger_one_fails() {
    const SPAN: u32 = 320;
    const PAGES: u32 = 32_768;
    let folder = tempfile::tempdir().unwrap();
    let world = World::on_disk(&folder).await;
    world.commit(&[(1, 1)], 1).await.unwrap();
    let txid = world.begin().await.unwrap();
    let mut segments = Vec::new();
    // Shard 0 has no page 0, so the pages end at 32,768.
    for first in (0..=PAGES).step_by(SPAN as usize) {
        let last = (first + SPAN - 1).min(PAGES);
        world.segment(txid, first, &pages(first.max(1)..=last, 2)).await.unwrap();
        segments.push(first);
    }
    let next = PAGES.next_multiple_of(SPAN);
    let too_large = "depot.commit_too_large: transaction failed: \
                     CommitTooLarge: raw dirty pages were 134221824 bytes, limit is 134217728 bytes";
    assert_eq!(text(world.segment(txid, next, &[(next, 2)]).await), too_large);
    world.store.close().await;

    let mut world = World::on_disk(&folder).await;
    assert_eq!(world.read(1..=2).await.unwrap(), [(1, 1)]);
    assert_eq!(world.finalize(txid, PAGES, &segments).await, Ok(2));
    let sample = [1, 2, 319, 320, 20_000, PAGES];
    assert_eq!(world.read(sample).await.unwrap(), sample.map(|pgno| (pgno, 2)));
    world.settle().await;
    assert_eq!(world.rows().await.len(), 2 + PAGES as usize);
    world.start().await;
    world.commit(&[(1, 3)], 1).await.unwrap();
    world.settle().await;
    assert_eq!(world.rows().await.len(), 2 + 1);
    world.store.close().await;
}

/// Item 22.
#[tokio::test]
async fn wrong_segments_are_refused() {
    let world = World::new().await;
    let invalid = "depot.stage_segment_invalid: transaction failed: StageSegmentInvalid";
    let not_open = text(world.segment(1, 0, &[(1, 1)]).await);
    assert_eq!(not_open, format!("{invalid}: no staged commit is open at txid 1"));

    let txid = world.begin().await.unwrap();
    world.segment(txid, 640, &[(640, 1), (959, 1)]).await.unwrap();
    for (first_pgno, content, fault) in [
        (65, vec![(65, 1)], "first page 65 is not shard-aligned"),
        (960, vec![], "segment has no pages"),
        (640, vec![(640, 1)], "segment 640 overlaps the span of the segment at 640"),
        (896, vec![(960, 1)], "segment 896 overlaps the span of the segment at 640"),
        (0, vec![(1, 1)], "segment 0 overlaps the span of the segment at 640"),
        (960, vec![(1280, 1)], "page 1280 is outside of the 320-page span of the segment at 960"),
        (960, vec![(959, 1)], "page 959 is outside of the 320-page span of the segment at 960"),
    ] {
        assert_eq!(text(world.segment(txid, first_pgno, &content).await), format!("{invalid}: {fault}"));
    }
    assert_eq!(
        text(world.segment(txid, 960, &[(961, 1), (961, 1)]).await),
        "core.internal_error: sqlite commit duplicated page 961 in a single request"
    );
    // The fence comes first, whatever else is wrong.
    for stale in [0, 2] {
        let mismatch = text(world.segment(stale, 65, &[]).await);
        assert!(mismatch.starts_with("depot.head_fence_mismatch: "), "{mismatch}");
        let mismatch = text(world.finalize(stale, 1, &[]).await);
        assert!(mismatch.starts_with("depot.head_fence_mismatch: "), "{mismatch}");
    }

    let count = text(world.finalize(txid, 1000, &[]).await);
    assert_eq!(count, format!("{invalid}: finalize claimed 0 segments but 1 were staged"));
    let count = text(world.finalize(txid, 1000, &[640, 960]).await);
    assert_eq!(count, format!("{invalid}: finalize claimed 2 segments but 1 were staged"));
    let count = text(world.finalize(txid, 1000, &[640, 640]).await);
    assert_eq!(count, format!("{invalid}: finalize claimed 2 segments but 1 were staged"));
    let missing = text(world.finalize(txid, 1000, &[960]).await);
    assert_eq!(missing, "depot.stage_not_found: transaction failed: StageNotFound: no staged segment at page 960 for txid 1");
    assert_eq!(world.finalize(txid, 1000, &[640]).await, Ok(1));
    assert_eq!(world.read([639, 640, 959, 960]).await.unwrap(), [(639, 0), (640, 1), (959, 1), (960, 0)]);
}

/// Item 15, for the steps of a staged commit.
#[tokio::test]
async fn stages_belong_to_a_generation() {
    let mut world = World::new().await;
    let request =
        SqliteCommitStageBeginRequest { actor_id: world.actor.to_string(), expected_generation: None, expected_head_txid: None };
    let missing = text(world.data.stage_begin(world.actor, Caller::Host(1), request).await);
    assert_eq!(missing, "sqlite.invalid_request: sqlite staged commit missing expectedGeneration");

    let txid = world.begin().await.unwrap();
    world.segment(txid, 0, &[(1, 1)]).await.unwrap();
    world.start().await;
    let other = "depot.stage_segment_invalid: transaction failed: StageSegmentInvalid: \
                 the staged commit was begun by generation 1";
    assert_eq!(text(world.segment(txid, 320, &[(320, 1)]).await), other);
    assert_eq!(text(world.finalize(txid, 1, &[0]).await), other);
    world.generation = 1;
    let stale = "depot.head_fence_mismatch: actor generation 1 is not current";
    assert_eq!(text(world.segment(txid, 320, &[(320, 1)]).await), stale);
    assert_eq!(text(world.finalize(txid, 1, &[0]).await), stale);
    assert_eq!(text(world.begin().await), stale);
}

/// Item 23.
#[tokio::test]
async fn a_commit_or_a_new_stage_ends_an_open_one() {
    let world = World::new().await;
    let txid = world.begin().await.unwrap();
    world.segment(txid, 0, &pages(1..=319, 1)).await.unwrap();
    assert_eq!(world.commit(&[(1, 2)], 1).await, Ok(1));
    let stale = text(world.finalize(txid, 319, &[0]).await);
    assert!(stale.starts_with("depot.head_fence_mismatch: "), "{stale}");
    world.settle().await;
    assert_eq!(world.rows().await.len(), 2 + 1);

    let txid = world.begin().await.unwrap();
    world.segment(txid, 0, &pages(1..=319, 3)).await.unwrap();
    assert_eq!(world.begin().await, Ok(txid));
    world.settle().await;
    assert_eq!(world.rows().await.len(), 2 + 1);
    world.segment(txid, 64, &[(64, 4)]).await.unwrap();
    assert_eq!(world.finalize(txid, 64, &[64]).await, Ok(txid));
    assert_eq!(world.read([1, 2, 64]).await.unwrap(), [(1, 2), (2, 0), (64, 4)]);
}

/// Item 24.
#[tokio::test]
async fn a_stage_may_change_the_size_only_or_shrink() {
    let world = World::new().await;
    world.commit(&pages(1..=300, 1), 300).await.unwrap();
    let txid = world.begin().await.unwrap();
    assert_eq!(world.finalize(txid, 200, &[]).await, Ok(2));
    assert_eq!(world.read([200, 201]).await.unwrap(), [(200, 1)]);

    let txid = world.begin().await.unwrap();
    world.segment(txid, 0, &[(1, 2), (20, 2)]).await.unwrap();
    assert_eq!(world.finalize(txid, 10, &[0]).await, Ok(3));
    assert_eq!(world.commit(&[], 300).await, Ok(4));
    assert_eq!(world.read([1, 2, 10, 20, 200]).await.unwrap(), [(1, 2), (2, 1), (10, 1), (20, 0), (200, 0)]);
    world.settle().await;
    assert_eq!(world.rows().await.len(), 2 + 10);
}

#[tokio::test]
async fn the_storage_limit_holds_for_stages() {
    let world = World::with_limit(100 * 4096).await;
    world.commit(&[(1, 1)], 1).await.unwrap();
    let txid = world.begin().await.unwrap();
    world.segment(txid, 0, &pages(1..=101, 1)).await.unwrap();
    let full = |bytes: u64| {
        format!(
            "depot.quota_exceeded: transaction failed: SqliteStorageQuotaExceeded: \
             not enough space left in depot ({} bytes remaining, current payload is {bytes} bytes)",
            99 * 4096
        )
    };
    assert_eq!(text(world.finalize(txid, 101, &[0]).await), full(101 * 4096));

    // The engine's own, of which there may be more than a host may stage, are refused as soon as they cannot fit any more.
    let request = SqliteCommitStageSegmentRequest {
        actor_id: String::new(),
        expected_generation: Some(world.generation.into()),
        txid,
        first_pgno: 320,
        dirty_pages: dirty(&[(320, 1)]),
    };
    assert_eq!(text(world.data.stage_segment(world.actor, Caller::Engine, request).await), full(102 * 4096));
    assert_eq!(world.finalize(txid, 100, &[0]).await, Ok(2));
}
