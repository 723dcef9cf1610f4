//! SQL that the engine executes: statements, transactions, and how long a session lives (`spec/storage.md` 8, checklist 36 to
//! 42). What SQLite itself does is tested where it is built in.

use protocol::envoy::SqliteValue::{Float, Integer, Null};
use protocol::envoy::{SqliteCommitRequest, SqliteDirtyPage, SqliteGetPagesRequest, SqliteValue, ToEnvoy, ToRivet};
use serde_json::json;
use testkit::envoy::FakeEnvoy;
use testkit::{eventually, in_time};

use crate::one_actor::{A_WHILE, fall_asleep, running_actor, wake};
use crate::sql_host::{ENDLESS, Sql, blob, code, text};

const SESSIONS: &str = "rivet_sqlite_remote_session_active";
const RUNNING: &str = "rivet_sqlite_remote_request_active";

#[tokio::test]
async fn values_go_there_and_back_and_statements_answer_as_specified() {
    let (_engine, mut envoy, run) = running_actor(json!({})).await;
    let mut sql = Sql::of(&run);
    let script = "CREATE TABLE t (k, v); SELECT 1 AS one; SELECT 2 AS two, 3 AS three; DELETE FROM t";
    let result = sql.exec(&mut envoy, script).await.unwrap();
    assert_eq!((result.columns, result.rows), (vec!["two".into(), "three".into()], vec![vec![Integer(2), Integer(3)]]));

    let values = [
        Integer(i64::MAX),
        Integer(i64::MIN),
        Integer(9_007_199_254_740_993),
        Float(-0.1),
        Float(f64::MAX),
        text("ä\u{10ffff}"),
        text(""),
        blob(&[0, 255, 0]),
        Null,
    ];
    for (key, value) in (0..).zip(&values) {
        let inserted = sql.execute(&mut envoy, "INSERT INTO t VALUES (?, ?)", &[Integer(key), value.clone()]).await.unwrap();
        assert_eq!((inserted.changes, inserted.last_insert_row_id), (1, Some(key + 1)));
    }
    let found = sql.execute(&mut envoy, "SELECT v FROM t ORDER BY k", &[]).await.unwrap();
    assert_eq!(found.rows, values.map(|value| vec![value]));
    assert_eq!((found.changes, found.last_insert_row_id), (1, Some(9)), "the connection's counters, as they are");

    let missing = sql.execute(&mut envoy, "SELECT ?, ?", &[Integer(1)]).await.unwrap();
    assert_eq!(missing.rows, [vec![Integer(1), Null]]);
    for (statement, params, message) in [
        ("SELECT 1; SELECT 2", &[][..], "sqlite execute only supports a single statement"),
        ("SELECT 1", &[Null], "failed to bind sqlite parameter: column index out of range"),
        ("SELECT ?", &[blob(&[0; 131_073])], "remote sqlite bind params had 131073 bytes, exceeding limit 131072"),
        ("SELECT * FROM nowhere", &[], "failed to prepare sqlite execute statement: no such table: nowhere"),
    ] {
        let error = sql.execute(&mut envoy, statement, params).await.unwrap_err();
        assert_eq!((code(&error).as_str(), error.message.as_str()), ("core.internal_error", message), "{statement}");
    }
}

#[tokio::test]
async fn a_batch_is_done_as_a_whole_or_not_at_all() {
    let (_engine, mut envoy, run) = running_actor(json!({})).await;
    let mut sql = Sql::of(&run);
    let results = sql.batch(&mut envoy, &["CREATE TABLE t (k UNIQUE)", "INSERT INTO t VALUES (1), (2)"]).await.unwrap();
    assert_eq!(results.iter().map(|result| result.changes).collect::<Vec<_>>(), [0, 2]);
    let error = sql.batch(&mut envoy, &["INSERT INTO t VALUES (3)", "INSERT INTO t VALUES (2)"]).await.unwrap_err();
    assert!(error.message.starts_with("execute remote sqlite batch statement: "), "{}", error.message);
    assert_eq!(sql.value(&mut envoy, "SELECT count(*) FROM t").await, Integer(2));

    sql.exec(&mut envoy, "BEGIN; INSERT INTO t VALUES (9)").await.unwrap();
    let error = sql.batch(&mut envoy, &["INSERT INTO t VALUES (4)"]).await.unwrap_err();
    assert!(error.message.ends_with("cannot start a transaction within a transaction"), "{}", error.message);
    sql.exec(&mut envoy, "COMMIT").await.unwrap();
    assert_eq!(sql.value(&mut envoy, "SELECT group_concat(k) FROM t").await, text("1,2,9"));
}

#[tokio::test]
async fn who_has_not_the_present_generation_is_refused() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    let mut sql = Sql::of(&run);
    sql.namespace = "elsewhere".to_owned();
    let error = sql.execute(&mut envoy, "SELECT 1", &[]).await.unwrap_err();
    assert_eq!((code(&error).as_str(), error.message.as_str()), ("core.internal_error", "actor does not exist"));
    sql.namespace = "default".to_owned();
    sql.run.generation += 1;
    let error = sql.execute(&mut envoy, "SELECT 1", &[]).await.unwrap_err();
    assert_eq!(code(&error), "depot.head_fence_mismatch");
    let mut other = engine.host().await;
    let error = Sql::of(&run).execute(&mut other, "SELECT 1", &[]).await.unwrap_err();
    assert_eq!(code(&error), "depot.head_fence_mismatch");
    sql.run.actor_id = "nobody".to_owned();
    let error = sql.execute(&mut envoy, "SELECT 1", &[]).await.unwrap_err();
    assert!(error.message.starts_with("invalid sqlite actor id: "), "{}", error.message);
    // The word would tell the host that there is no remote SQL at all.
    sql.run.actor_id = "2000".to_owned();
    let error = sql.execute(&mut envoy, "SELECT 1", &[]).await.unwrap_err();
    assert!(error.message.contains("un-supported"), "{}", error.message);
    assert_eq!(engine.metric(SESSIONS).await, 0);
}

#[tokio::test]
async fn a_cut_connection_ends_the_statement_and_undoes_the_transaction() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    let mut sql = Sql::of(&run);
    sql.exec(&mut envoy, "CREATE TABLE t (k); INSERT INTO t VALUES (1)").await.unwrap();
    sql.exec(&mut envoy, "BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(sql.value(&mut envoy, "SELECT count(*) FROM t").await, Integer(2));
    sql.send_execute(&envoy, ENDLESS, &[]);
    eventually("a running statement", async || (engine.metric(RUNNING).await == 1).then_some(())).await;

    let params = envoy.params().clone();
    envoy.cut();
    let mut envoy = FakeEnvoy::join(engine.address(), &params).await;
    // It goes on at once, and far within the time of the statement that was cut off.
    assert_eq!(sql.value(&mut envoy, "SELECT count(*) FROM t").await, Integer(1));
    sql.exec(&mut envoy, "BEGIN; INSERT INTO t VALUES (3); COMMIT").await.unwrap();
    assert_eq!(engine.metric(SESSIONS).await, 1);
    envoy.cut();
    eventually("the end of all sessions", async || (engine.metric(SESSIONS).await == 0).then_some(())).await;
}

#[tokio::test]
async fn a_transaction_that_nobody_goes_on_with_is_rolled_back_and_its_instance_must_end() {
    // The other bound is longer, and must not be waited for.
    let settings = json!({ "remote_transaction_idle_timeout_ms": 100, "remote_idle_timeout_ms": 60_000 });
    let (engine, mut envoy, run) = running_actor(json!({ "sqlite": settings })).await;
    let mut sql = Sql::of(&run);
    sql.exec(&mut envoy, "CREATE TABLE t (k); INSERT INTO t VALUES (1); BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
    eventually("the end of the session", async || (engine.metric(SESSIONS).await == 0).then_some(())).await;
    for statement in ["INSERT INTO t VALUES (3)", "COMMIT"] {
        let error = sql.execute(&mut envoy, statement, &[]).await.unwrap_err();
        let message = "the sqlite transaction was rolled back, because there was no statement for 100 ms";
        assert_eq!((code(&error).as_str(), error.message.as_str()), ("depot.head_fence_mismatch", message), "{statement}");
    }
    envoy.crashed(&run, "sqlite fatal storage error");
    engine.asleep(&run.actor_id).await;
    let run = wake(&engine, &mut envoy, &run.actor_id).await;
    assert_eq!(Sql::numbered(&run, 1000).value(&mut envoy, "SELECT group_concat(k) FROM t").await, text("1"));
}

#[tokio::test]
async fn an_engine_that_stops_ends_statements_and_keeps_what_was_committed() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    let mut sql = Sql::of(&run);
    sql.exec(&mut envoy, "CREATE TABLE t (k); INSERT INTO t VALUES (1); BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
    sql.send_execute(&envoy, ENDLESS, &[]);
    eventually("a running statement", async || (engine.metric(RUNNING).await == 1).then_some(())).await;
    let engine = in_time("the next engine", engine.restart()).await;
    let mut envoy = FakeEnvoy::join(engine.address(), envoy.params()).await;
    assert_eq!(sql.value(&mut envoy, "SELECT count(*) FROM t").await, Integer(1));
}

#[tokio::test]
async fn a_statement_has_its_time_and_the_next_one_its_own() {
    let (_engine, mut envoy, run) = running_actor(json!({ "sqlite": { "remote_statement_timeout_ms": 500 } })).await;
    let mut sql = Sql::of(&run);
    sql.exec(&mut envoy, "CREATE TABLE t (k); BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let error = sql.execute(&mut envoy, ENDLESS, &[]).await.unwrap_err();
    assert_eq!(
        (code(&error).as_str(), error.message.as_str()),
        ("sqlite.statement_timeout", "sqlite statement did not end within 500 ms")
    );
    // Reading changes nothing, so SQLite keeps the transaction.
    sql.exec(&mut envoy, "INSERT INTO t VALUES (2); COMMIT").await.unwrap();
    assert_eq!(sql.value(&mut envoy, "SELECT count(*) FROM t").await, Integer(2));
}

#[tokio::test]
async fn statements_of_an_actor_keep_their_order_and_no_other_actor_waits_for_them() {
    const INSERTS: usize = 20;
    let (engine, mut envoy, stuck_run) = running_actor(json!({})).await;
    engine.create("counter", None).await;
    let quick_run = envoy.start_actor().await;
    let (mut stuck, mut quick) = (Sql::numbered(&stuck_run, 0), Sql::numbered(&quick_run, 1000));
    let mut sent = vec![stuck.send_execute(&envoy, ENDLESS, &[])];
    quick.exec(&mut envoy, "CREATE TABLE t (k)").await.unwrap();
    let mut rowids = Vec::new();
    for insert in 0..INSERTS {
        sent.push(stuck.send_execute(&envoy, "SELECT 1", &[]));
        rowids.push((quick.send_execute(&envoy, "INSERT INTO t VALUES (1)", &[]), Some(insert as i64 + 1)));
    }
    let next = |message: &ToEnvoy| {
        let ToEnvoy::SqliteExecute { request_id, data } = message else { return None };
        Some((*request_id, data.clone().map(|ok| ok.result.last_insert_row_id)))
    };
    for (insert, rowid) in rowids {
        assert_eq!(envoy.expect("the answer to an insert", next).await, (insert, Ok(rowid)));
    }
    // The end of the generation ends what runs, and whatever waits behind it comes too late.
    envoy.crashed(&stuck_run, "stuck");
    let codes = ["sqlite.closed"].into_iter().chain(std::iter::repeat("depot.head_fence_mismatch"));
    for (request, wanted) in sent.into_iter().zip(codes) {
        let (answered, result) = envoy.expect("the answer to a statement that came to nothing", next).await;
        assert_eq!((answered, code(&result.unwrap_err()).as_str()), (request, wanted));
    }
}

#[tokio::test]
async fn the_session_of_a_stopped_actor_is_closed_and_its_data_stays() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    let mut sql = Sql::of(&run);
    sql.exec(&mut envoy, "CREATE TABLE t (k); INSERT INTO t VALUES (1); BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(engine.metric(SESSIONS).await, 1);
    fall_asleep(&engine, &mut envoy, &run).await;
    eventually("the end of the session", async || (engine.metric(SESSIONS).await == 0).then_some(())).await;
    let error = sql.execute(&mut envoy, "SELECT 1", &[]).await.unwrap_err();
    assert_eq!(code(&error), "depot.head_fence_mismatch");

    let run = wake(&engine, &mut envoy, &run.actor_id).await;
    let mut sql = Sql::numbered(&run, 1000);
    assert_eq!(sql.value(&mut envoy, "SELECT count(*) FROM t").await, Integer(1));
    let destroyed = engine.destroy_soon(&run.actor_id);
    let (index, _) = envoy.expect_stop(&run).await;
    envoy.acknowledge(&run, index);
    envoy.stopped(&run);
    assert_eq!(destroyed.await.unwrap().status, 200);
    eventually("the end of the session", async || (engine.metric(SESSIONS).await == 0).then_some(())).await;
}

#[tokio::test]
async fn an_instance_whose_database_was_changed_behind_it_must_end() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    let mut sql = Sql::of(&run);
    sql.exec(&mut envoy, "CREATE TABLE t (k); INSERT INTO t VALUES (1)").await.unwrap();
    // The same instance speaks of pages, as no host does that executes here.
    let head = touch_page_one(&mut envoy, &run.actor_id, run.generation.into()).await;
    for attempt in 0..2 {
        let error = sql.execute(&mut envoy, "INSERT INTO t VALUES (2)", &[]).await.unwrap_err();
        let message =
            format!("transaction failed: sqlite head fence mismatch: expected head txid {}, current head txid {head}", head - 1);
        assert_eq!((code(&error), error.message), ("depot.head_fence_mismatch".to_owned(), message), "attempt {attempt}");
    }
    envoy.crashed(&run, "sqlite fatal storage error");
    engine.asleep(&run.actor_id).await;
    let run = wake(&engine, &mut envoy, &run.actor_id).await;
    assert_eq!(Sql::numbered(&run, 1000).value(&mut envoy, "SELECT count(*) FROM t").await, Integer(1));
}

/// Commits page 1 as it is; returns the new head.
async fn touch_page_one(envoy: &mut FakeEnvoy, actor_id: &str, generation: u64) -> u64 {
    let actor_id = actor_id.to_owned();
    let expected_generation = Some(generation);
    let data =
        SqliteGetPagesRequest { actor_id: actor_id.clone(), pgnos: vec![1], expected_generation, expected_head_txid: None };
    envoy.send(&ToRivet::SqliteGetPages { request_id: 1, data });
    let found = envoy.expect("page 1", |message| {
        let ToEnvoy::SqliteGetPages { data, .. } = message else { return None };
        Some(data.clone().unwrap())
    });
    let bytes = found.await.pages[0].bytes.clone().unwrap();
    let db_size_pages = u32::from_be_bytes(bytes[28..32].try_into().unwrap());
    let data = SqliteCommitRequest {
        actor_id,
        dirty_pages: vec![SqliteDirtyPage { pgno: 1, bytes }],
        db_size_pages,
        now_ms: 0,
        expected_generation,
        expected_head_txid: None,
    };
    envoy.send(&ToRivet::SqliteCommit { request_id: 2, data });
    let committed = envoy.expect("a commit", |message| {
        let ToEnvoy::SqliteCommit { data, .. } = message else { return None };
        Some(data.clone().unwrap())
    });
    committed.await.head_txid.unwrap()
}

#[tokio::test]
async fn an_unused_session_is_closed_unless_that_could_be_noticed() {
    let (engine, mut envoy, plain) = running_actor(json!({ "sqlite": { "remote_idle_timeout_ms": 30 } })).await;
    let mut runs = vec![plain];
    for _actor in 0..2 {
        engine.create("counter", None).await;
        runs.push(envoy.start_actor().await);
    }
    let mut sql: Vec<Sql> = runs.iter().zip([0, 1000, 2000]).map(|(run, first)| Sql::numbered(run, first)).collect();
    sql[0].exec(&mut envoy, "CREATE TABLE t (k); INSERT INTO t VALUES (1)").await.unwrap();
    sql[1].exec(&mut envoy, "CREATE TABLE t (k); BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    sql[2].exec(&mut envoy, "CREATE TEMP TABLE t (k); INSERT INTO t VALUES (1)").await.unwrap();
    eventually("the end of the plain session", async || (engine.metric(SESSIONS).await == 2).then_some(())).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(engine.metric(SESSIONS).await, 2);
    for sql in &mut sql {
        assert_eq!(sql.value(&mut envoy, "SELECT count(*) FROM t").await, SqliteValue::Integer(1));
    }
}
