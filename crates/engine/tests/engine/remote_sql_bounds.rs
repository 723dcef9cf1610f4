//! How much SQL the engine executes at once, and how large it may be (`spec/storage.md` 8.2, 16.5).

use protocol::envoy::SqliteValue::Integer;
use protocol::envoy::ToEnvoy;
use serde_json::{Value, json};
use testkit::envoy::{FakeEnvoy, Run};
use testkit::eventually;

use crate::one_actor::running_actor;
use crate::scene::TestEngine;
use crate::sql_host::{Sql, code, executed};

const SESSIONS: &str = "rivet_sqlite_remote_session_active";
const OPENED: &str = "rivet_sqlite_remote_session_open_total";

/// Several actors on one host, each with its own range of request ids.
async fn actors(settings: Value, count: u32) -> (TestEngine, FakeEnvoy, Vec<Sql>) {
    let (engine, mut envoy, first) = running_actor(settings).await;
    let mut runs: Vec<Run> = vec![first];
    for _actor in 1..count {
        engine.create("counter", None).await;
        runs.push(envoy.start_actor().await);
    }
    let actors = runs.iter().zip((0..).step_by(10_000)).map(|(run, first_id)| Sql::numbered(run, first_id)).collect();
    (engine, envoy, actors)
}

#[tokio::test]
async fn more_actors_than_sessions_and_threads_take_turns() {
    let (engine, mut envoy, mut actors) = actors(json!({ "sqlite": { "remote_max_sessions": 2, "remote_threads": 1 } }), 6).await;
    for sql in &mut actors {
        sql.exec(&mut envoy, "CREATE TABLE t (k INTEGER PRIMARY KEY)").await.unwrap();
    }
    for round in 1..=3 {
        // All at once, so that those without a session wait for one.
        let inserts: Vec<u32> =
            actors.iter_mut().map(|sql| sql.send_execute(&envoy, "INSERT INTO t DEFAULT VALUES", &[])).collect();
        for insert in inserts {
            assert_eq!(executed(&mut envoy, insert).await.unwrap().last_insert_row_id, Some(round));
        }
        assert!(engine.metric(SESSIONS).await <= 2);
    }
    assert!(engine.metric(OPENED).await >= 6);
}

#[tokio::test]
async fn a_session_in_a_transaction_gives_its_place_to_nobody() {
    let settings = json!({ "sqlite": { "remote_max_sessions": 1, "remote_statement_timeout_ms": 500 } });
    let (engine, mut envoy, mut actors) = actors(settings, 2).await;
    let [one, other] = &mut actors[..] else { unreachable!() };
    one.exec(&mut envoy, "CREATE TABLE t (k); BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let error = other.execute(&mut envoy, "SELECT 1", &[]).await.unwrap_err();
    assert_eq!(code(&error), "sqlite.remote_sessions_exhausted");
    // It comes to its turn as soon as the transaction has ended.
    let waiting = other.send_execute(&envoy, "SELECT 1", &[]);
    one.exec(&mut envoy, "INSERT INTO t VALUES (2); COMMIT").await.unwrap();
    executed(&mut envoy, waiting).await.unwrap();
    assert_eq!(engine.metric(SESSIONS).await, 1);
    assert_eq!(one.value(&mut envoy, "SELECT count(*) FROM t").await, Integer(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_beyond_the_bound_is_refused_and_one_below_arrives() {
    let (_engine, mut envoy, mut actors) = actors(json!({}), 1).await;
    let sql = &mut actors[0];
    let rows = |mib: u32| {
        format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {mib}) SELECT zeroblob(1024 * 1024) FROM n")
    };
    let result = sql.execute(&mut envoy, &rows(63), &[]).await.unwrap();
    assert_eq!(result.rows.len(), 63);
    let error = sql.execute(&mut envoy, &rows(65), &[]).await.unwrap_err();
    assert_eq!(code(&error), "sqlite.result_too_large");
    assert_eq!(error.message, "the result of the sqlite statement has more than 67108864 bytes");
    assert_eq!(sql.value(&mut envoy, "SELECT 1").await, Integer(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_200_mib_is_one_commit() {
    let (engine, mut envoy, mut actors) = actors(json!({}), 1).await;
    let sql = &mut actors[0];
    sql.exec(&mut envoy, "CREATE TABLE t (k INTEGER PRIMARY KEY, v); BEGIN").await.unwrap();
    for _part in 0..4 {
        sql.exec(
            &mut envoy,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50) \
             INSERT INTO t (v) SELECT zeroblob(1024 * 1024) FROM n",
        )
        .await
        .unwrap();
    }
    sql.exec(&mut envoy, "COMMIT").await.unwrap();
    let result = sql.execute(&mut envoy, "SELECT count(*), sum(length(v)) FROM t", &[]).await.unwrap();
    assert_eq!(result.rows, [[Integer(200), Integer(200 * 1024 * 1024)]]);
    // Over another connection, so that nothing of it is in SQLite's cache.
    let params = envoy.params().clone();
    envoy.cut();
    let mut envoy = FakeEnvoy::join(engine.address(), &params).await;
    let result = sql.execute(&mut envoy, "SELECT count(*), sum(length(v)) FROM t", &[]).await.unwrap();
    assert_eq!(result.rows, [[Integer(200), Integer(200 * 1024 * 1024)]]);
}

#[tokio::test]
async fn a_full_actor_keeps_its_session_and_may_shrink() {
    let (_engine, mut envoy, mut actors) = actors(json!({ "sqlite": { "max_storage_bytes": 4_000_000 } }), 1).await;
    let sql = &mut actors[0];
    sql.exec(&mut envoy, "CREATE TABLE t (v); INSERT INTO t VALUES (zeroblob(1500000))").await.unwrap();
    for statement in ["INSERT INTO t VALUES (zeroblob(3000000))", "INSERT INTO t VALUES (zeroblob(2600000))"] {
        let error = sql.execute(&mut envoy, statement, &[]).await.unwrap_err();
        assert_eq!(code(&error), "depot.quota_exceeded", "{statement}");
    }
    assert_eq!(sql.value(&mut envoy, "SELECT count(*) FROM t").await, Integer(1));
    sql.exec(&mut envoy, "DELETE FROM t; VACUUM; INSERT INTO t VALUES (zeroblob(3000000))").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_actors_execute_side_by_side() {
    const ACTORS: u32 = 64;
    const ROUNDS: i64 = 10;
    let (engine, mut envoy, mut actors) = actors(json!({}), ACTORS).await;
    for sql in &mut actors {
        sql.send_exec(&envoy, "CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
        for round in 0..ROUNDS {
            sql.send_execute(&envoy, "INSERT INTO t (v) VALUES (?)", &[Integer(round)]);
        }
    }
    let answer = |message: &ToEnvoy| {
        let ToEnvoy::SqliteExecute { data, .. } = message else { return None };
        Some(data.clone().map(|ok| ok.result.last_insert_row_id))
    };
    for _answer in 0..i64::from(ACTORS) * ROUNDS {
        assert!(envoy.expect("an answer", answer).await.unwrap().is_some());
    }
    for sql in &mut actors {
        assert_eq!(sql.value(&mut envoy, "SELECT count(*) FROM t").await, Integer(ROUNDS));
    }
    assert_eq!(engine.metric(SESSIONS).await, i64::from(ACTORS));
    envoy.cut();
    eventually("the end of all sessions", async || (engine.metric(SESSIONS).await == 0).then_some(())).await;
}
