//! Accounts that do not fit what there is. What only bytes of rows can show is in this crate's `tests/check.rs`.

use std::sync::Arc;

use protocol::envoy::{
    KvRequestData, KvResponseData, SqliteCommitFinalizeRequest, SqliteCommitRequest, SqliteCommitStageBeginRequest,
    SqliteCommitStageSegmentRequest, SqliteDirtyPage,
};
use store::{Batch, Store};

use super::*;
use crate::kv::KeyRange;
use crate::ledger;
use crate::{ActorData, Caller, Options};

const ACTOR: Id = Id::NIL;
/// So that a commit stays one that may have to be taken back.
const HOST: Caller = Caller::Host(1);

fn page(pgno: u32) -> SqliteDirtyPage {
    SqliteDirtyPage { pgno, bytes: vec![pgno as u8; 4096].into() }
}

/// An actor with history, a published stage, and key-value entries with short and long keys.
async fn actor() -> Store {
    let store = Store::memory();
    let data = ActorData::new(store.clone(), Options::default(), Arc::new(|| 1));
    let mut batch = Batch::new();
    fence::set_generation_with_history(&mut batch, &ACTOR, 1, 60);
    store.write(batch).await.unwrap();
    for keys in [vec![Bytes::from_static(b"key")], vec![vec![1; 2000].into()]] {
        let values = keys.clone();
        assert_eq!(data.kv(ACTOR, 1, KvRequestData::Put { keys, values }).await, KvResponseData::Put);
    }
    let expected_generation = Some(1);
    for size in [3, 4] {
        let request = SqliteCommitRequest {
            actor_id: String::new(),
            dirty_pages: vec![page(1), page(2)],
            db_size_pages: size,
            now_ms: 0,
            expected_generation,
            expected_head_txid: None,
        };
        data.commit(ACTOR, HOST, request).await.unwrap();
    }
    let begin = SqliteCommitStageBeginRequest { actor_id: String::new(), expected_generation, expected_head_txid: Some(2) };
    let txid = data.stage_begin(ACTOR, HOST, begin).await.unwrap().txid;
    let segment = SqliteCommitStageSegmentRequest {
        actor_id: String::new(),
        expected_generation,
        txid,
        first_pgno: 0,
        dirty_pages: vec![page(2), page(3)],
    };
    data.stage_segment(ACTOR, HOST, segment).await.unwrap();
    let finalize = SqliteCommitFinalizeRequest {
        actor_id: String::new(),
        expected_generation,
        txid,
        new_db_size_pages: 4,
        now_ms: 0,
        segment_first_pgnos: vec![0],
    };
    data.finalize(ACTOR, HOST, finalize).await.unwrap();
    store
}

/// What is found after a change of the account.
async fn codes(change: impl FnOnce(&mut Ledger)) -> Vec<&'static str> {
    let store = actor().await;
    let row = store.get(vec![ledger::key(&ACTOR)]).await.unwrap().remove(0).unwrap();
    let mut account = Ledger::decode(&ACTOR, &row).unwrap();
    assert!(account.published().is_some() && account.history.is_some() && account.kv_buckets == 1, "{account:?}");
    change(&mut account);
    let mut batch = Batch::new();
    account.put(&mut batch, &ACTOR);
    store.write(batch).await.unwrap();
    let mut codes = Vec::new();
    let walk = |explorer: &Explorer<'_>| check(explorer, &mut |_| Ok(Owner::Actor), &mut |finding| codes.push(finding.code));
    store.snapshot(walk).unwrap().unwrap();
    codes
}

fn history(account: &mut Ledger) -> &mut ledger::Kept {
    account.history.as_mut().unwrap()
}

#[tokio::test]
async fn an_account_that_does_not_fit_is_found() {
    assert_eq!(codes(|_| {}).await, [] as [&str; 0]);
    let range = KeyRange { start: Bytes::new(), end: None };
    assert_eq!(codes(|account| account.deleting = Some(range)).await, [] as [&str; 0]);
    assert_eq!(codes(|account| account.old_notes = true).await, [] as [&str; 0]);

    assert_eq!(codes(|account| account.high_water = account.size - 1).await, ["ledger.high_water"]);
    assert_eq!(codes(|account| account.kv_bytes += 1).await, ["ledger.kv_bytes"]);
    assert_eq!(codes(|account| account.kv_buckets = 0).await, ["ledger.kv_buckets"]);
    assert_eq!(codes(|account| account.stage = Stage::None).await, ["stage.unknown"; 3]);
    assert_eq!(codes(|account| history(account).bytes -= 1).await, ["ledger.history_bytes"]);
    assert_eq!(codes(|account| account.head = 2).await, ["history.beyond_head"]);
    // Two pages and the commit.
    assert_eq!(codes(|account| account.history = None).await.len(), 3 + 3 + 1);
    assert_eq!(codes(|account| history(account).first = 2).await[..3], ["history.unknown", "history.unknown", "history.unknown"]);
}
