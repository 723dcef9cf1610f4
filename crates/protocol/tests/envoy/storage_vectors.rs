//! The vectors of `spec/storage.md` 2.6, for actor id `abcl00`.

use bytes::Bytes;
use protocol::envoy::*;

use crate::{hex, unhex};

const ACTOR: &str = "abcl00";
const NOW: i64 = 1_700_000_000_000;

fn data(byte: u8) -> Bytes {
    Bytes::from(vec![byte])
}

fn kv(request_id: u32, data: KvRequestData) -> ToRivet {
    ToRivet::KvRequest(ToRivetKvRequest { actor_id: ACTOR.into(), request_id, data })
}

fn list(query: KvListQuery, reverse: Option<bool>, limit: Option<u64>) -> KvRequestData {
    KvRequestData::List { query, reverse, limit }
}

fn kv_requests() -> Vec<(&'static str, ToRivet)> {
    let get = KvRequestData::Get { keys: vec![data(1), Bytes::from_static(&[5, 1, 1])] };
    let range = KvListQuery::Range { start: data(1), end: data(2), exclusive: true };
    vec![
        ("05 066162636c3030 00000000 00 02 0101 03050101", kv(0, get)),
        (
            "05 066162636c3030 01000000 01 02 0102 0100 01 0100000000000000",
            kv(1, list(KvListQuery::Prefix { key: data(2) }, Some(false), Some(1))),
        ),
        ("05 066162636c3030 02000000 01 00 00 00", kv(2, list(KvListQuery::All, None, None))),
        ("05 066162636c3030 03000000 01 01 0101 0102 01 0101 01 2c01000000000000", kv(3, list(range, Some(true), Some(300)))),
        (
            "05 066162636c3030 04000000 02 01 0103 01 026162",
            kv(4, KvRequestData::Put { keys: vec![data(3)], values: vec!["ab".into()] }),
        ),
        ("05 066162636c3030 05000000 03 01 0103", kv(5, KvRequestData::Delete { keys: vec![data(3)] })),
        ("05 066162636c3030 06000000 04 0101 0109", kv(6, KvRequestData::DeleteRange { start: data(1), end: data(9) })),
        ("05 066162636c3030 07000000 05", kv(7, KvRequestData::Drop)),
    ]
}

fn kv_responses() -> Vec<(&'static str, ToEnvoy)> {
    let found = KvResponseData::Get {
        keys: vec![data(1)],
        values: vec![data(0xaa)],
        metadata: vec![KvMetadata { version: "2.3.19".into(), update_ts: NOW }],
    };
    let nothing = KvResponseData::List { keys: vec![], values: vec![], metadata: vec![] };
    let error = KvResponseData::Error { message: "no".into() };
    vec![
        ("03 00000000 01 01 0101 01 01aa 01 06322e332e3139 0068e5cf8b010000", ToEnvoy::KvResponse { request_id: 0, data: found }),
        ("03 01000000 02 00 00 00", ToEnvoy::KvResponse { request_id: 1, data: nothing }),
        ("03 04000000 03", ToEnvoy::KvResponse { request_id: 4, data: KvResponseData::Put }),
        ("03 04000000 00 026e6f", ToEnvoy::KvResponse { request_id: 4, data: error }),
    ]
}

fn page_requests() -> Vec<(&'static str, ToRivet)> {
    let get_pages = SqliteGetPagesRequest {
        actor_id: ACTOR.into(),
        pgnos: vec![1, 2],
        expected_generation: Some(1),
        expected_head_txid: None,
    };
    let commit = SqliteCommitRequest {
        actor_id: ACTOR.into(),
        dirty_pages: vec![SqliteDirtyPage { pgno: 1, bytes: Bytes::from_static(&[9, 9, 9]) }],
        db_size_pages: 1,
        now_ms: NOW,
        expected_generation: Some(1),
        expected_head_txid: Some(0),
    };
    let stage_begin =
        SqliteCommitStageBeginRequest { actor_id: ACTOR.into(), expected_generation: Some(1), expected_head_txid: Some(1) };
    let stage_segment = SqliteCommitStageSegmentRequest {
        actor_id: ACTOR.into(),
        expected_generation: Some(1),
        txid: 2,
        first_pgno: 64,
        dirty_pages: vec![],
    };
    let finalize = SqliteCommitFinalizeRequest {
        actor_id: ACTOR.into(),
        expected_generation: Some(1),
        txid: 2,
        new_db_size_pages: 700,
        now_ms: 1,
        segment_first_pgnos: vec![0, 320],
    };
    vec![
        (
            "07 00000000 066162636c3030 02 01000000 02000000 01 0100000000000000 00",
            ToRivet::SqliteGetPages { request_id: 0, data: get_pages },
        ),
        (
            "08 01000000 066162636c3030 01 01000000 03090909 01000000 0068e5cf8b010000 01 0100000000000000 01 0000000000000000",
            ToRivet::SqliteCommit { request_id: 1, data: commit },
        ),
        (
            "09 02000000 066162636c3030 01 0100000000000000 01 0100000000000000",
            ToRivet::SqliteCommitStageBegin { request_id: 2, data: stage_begin },
        ),
        (
            "0a 03000000 066162636c3030 01 0100000000000000 0200000000000000 40000000 00",
            ToRivet::SqliteCommitStageSegment { request_id: 3, data: stage_segment },
        ),
        (
            "0b 04000000 066162636c3030 01 0100000000000000 0200000000000000 bc020000 0100000000000000 02 00000000 40010000",
            ToRivet::SqliteCommitFinalize { request_id: 4, data: finalize },
        ),
    ]
}

fn page_responses() -> Vec<(&'static str, ToEnvoy)> {
    let get_pages = |data| ToEnvoy::SqliteGetPages { request_id: 0, data };
    let missing = SqliteFetchedPage { pgno: 1, bytes: None };
    let error = SqliteErrorResponse { group: "depot".into(), code: "head_fence_mismatch".into(), message: "m".into() };
    vec![
        ("06 00000000 00 00 01 0000000000000000", get_pages(Ok(SqliteGetPagesOk { pages: vec![], head_txid: Some(0) }))),
        (
            "06 00000000 00 01 01000000 00 01 0000000000000000",
            get_pages(Ok(SqliteGetPagesOk { pages: vec![missing], head_txid: Some(0) })),
        ),
        ("06 00000000 01 056465706f74 13686561645f66656e63655f6d69736d61746368 016d", get_pages(Err(error))),
        (
            "07 01000000 00 01 0100000000000000",
            ToEnvoy::SqliteCommit { request_id: 1, data: Ok(SqliteCommitOk { head_txid: Some(1) }) },
        ),
        (
            "08 02000000 00 0200000000000000",
            ToEnvoy::SqliteCommitStageBegin { request_id: 2, data: Ok(SqliteCommitStageBeginOk { txid: 2 }) },
        ),
        (
            "09 03000000 00 0a00000000000000",
            ToEnvoy::SqliteCommitStageSegment { request_id: 3, data: Ok(SqliteCommitStageSegmentOk { staged_bytes: 10 }) },
        ),
        (
            "0a 04000000 00 01 0200000000000000",
            ToEnvoy::SqliteCommitFinalize { request_id: 4, data: Ok(SqliteCommitFinalizeOk { head_txid: Some(2) }) },
        ),
    ]
}

fn sql_requests() -> Vec<(&'static str, ToRivet)> {
    let namespace_id = || "default".to_owned();
    let exec = SqliteExecRequest { namespace_id: namespace_id(), actor_id: ACTOR.into(), generation: 1, sql: "SELECT 1".into() };
    let params = vec![
        SqliteValue::Integer(5),
        SqliteValue::Null,
        SqliteValue::Float(1.5),
        SqliteValue::Text("a".into()),
        SqliteValue::Blob(data(1)),
    ];
    let execute = SqliteExecuteRequest {
        namespace_id: namespace_id(),
        actor_id: ACTOR.into(),
        generation: 1,
        sql: "SELECT ?".into(),
        params: Some(params),
    };
    let batch = SqliteExecuteBatchRequest {
        namespace_id: namespace_id(),
        actor_id: ACTOR.into(),
        generation: 1,
        statements: vec![SqliteBatchStatement { sql: "SELECT 1".into(), params: None }],
    };
    vec![
        (
            "0c 00000000 0764656661756c74 066162636c3030 0100000000000000 08 53454c4543542031",
            ToRivet::SqliteExec { request_id: 0, data: exec },
        ),
        (
            "0d 01000000 0764656661756c74 066162636c3030 0100000000000000 08 53454c454354203f \
             01 05 01 0500000000000000 00 02 3ff8000000000000 03 0161 04 0101",
            ToRivet::SqliteExecute { request_id: 1, data: execute },
        ),
        (
            "0e 02000000 0764656661756c74 066162636c3030 0100000000000000 01 08 53454c4543542031 00",
            ToRivet::SqliteExecuteBatch { request_id: 2, data: batch },
        ),
    ]
}

fn sql_responses() -> Vec<(&'static str, ToEnvoy)> {
    let one_row = SqliteExecuteResult {
        columns: vec!["?".into()],
        rows: vec![vec![SqliteValue::Integer(5)]],
        changes: 0,
        last_insert_row_id: None,
    };
    let empty = SqliteQueryResult { columns: vec![], rows: vec![] };
    vec![
        (
            "0c 01000000 00 01 013f 01 01 01 0500000000000000 0000000000000000 00",
            ToEnvoy::SqliteExecute { request_id: 1, data: Ok(SqliteExecuteOk { result: one_row }) },
        ),
        ("0d 02000000 00 00", ToEnvoy::SqliteExecuteBatch { request_id: 2, data: Ok(SqliteExecuteBatchOk { results: vec![] }) }),
        ("0b 00000000 00 00 00", ToEnvoy::SqliteExec { request_id: 0, data: Ok(SqliteExecOk { result: empty }) }),
    ]
}

#[test]
fn requests() {
    for (bytes, message) in [kv_requests(), page_requests(), sql_requests()].concat() {
        assert_eq!(hex(&message.to_frame(PROTOCOL_VERSION).unwrap()), hex(&unhex(bytes)));
        assert_eq!(ToRivet::decode(unhex(bytes), PROTOCOL_VERSION), Ok(message));
    }
}

#[test]
fn responses() {
    for (bytes, message) in [kv_responses(), page_responses(), sql_responses()].concat() {
        assert_eq!(hex(&message.to_frame(PROTOCOL_VERSION).unwrap()), hex(&unhex(bytes)));
        assert_eq!(ToEnvoy::decode(unhex(bytes), PROTOCOL_VERSION), Ok(message));
    }
}
