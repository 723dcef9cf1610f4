//! Requests about pages that do not wait for each other (`spec/storage.md` 2.4, checklist 25).

use protocol::envoy::{SqliteCommitOk, SqliteCommitRequest, SqliteDirtyPage, ToEnvoy, ToRivet};
use serde_json::json;

use crate::scene::TestEngine;

const COMMITS: u64 = 40;

/// Commits of two actors in turn, each on the head that the one before it will have made.
#[tokio::test]
async fn chained_commits_are_done_and_answered_in_order() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let mut actors = Vec::new();
    for name in ["one", "other"] {
        actors.push(engine.create(name, None).await);
        envoy.start_actor().await;
    }
    for number in 0..2 * COMMITS {
        let actor_id = actors[number as usize % 2].clone();
        let head = number / 2;
        let data = SqliteCommitRequest {
            actor_id,
            dirty_pages: vec![SqliteDirtyPage { pgno: 1, bytes: vec![number as u8; 4096].into() }],
            db_size_pages: 1,
            now_ms: 0,
            expected_generation: Some(1),
            expected_head_txid: Some(head),
        };
        envoy.send(&ToRivet::SqliteCommit { request_id: number as u32, data });
    }
    let mut heads = [0; 2];
    for _answer in 0..2 * COMMITS {
        let answer = |message: &ToEnvoy| {
            let ToEnvoy::SqliteCommit { request_id, data } = message else { return None };
            Some((*request_id, data.clone()))
        };
        let (request_id, data) = envoy.expect("the answer to a commit", answer).await;
        let actor = request_id as usize % 2;
        heads[actor] += 1;
        assert_eq!(u64::from(request_id / 2) + 1, heads[actor], "answers of one actor keep their order");
        assert_eq!(data, Ok(SqliteCommitOk { head_txid: Some(heads[actor]) }));
    }
}
