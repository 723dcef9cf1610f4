//! The rules of `spec/storage.md` 8.2 and 16.5 (checklist 36 to 40).

use bytes::Bytes;
use protocol::envoy::{SqliteBatchStatement, SqliteErrorResponse, SqliteQueryResult, SqliteValue};
use sqlite_vfs::{Session, SessionError, SessionOptions};

use crate::support::{MemoryPages, cell, integer, run, text};

fn session() -> Session {
    MemoryPages::default().open()
}

fn batch(statements: &[&str]) -> Vec<SqliteBatchStatement> {
    statements.iter().map(|sql| SqliteBatchStatement { sql: (*sql).into(), params: None }).collect()
}

/// The message of a request that must fail in SQLite.
fn message<T: std::fmt::Debug>(outcome: Result<T, SessionError>) -> String {
    match outcome {
        Err(SessionError::Sql { message }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn exec_answers_with_the_last_statement_that_has_columns() {
    let mut session = session();
    let mut answer = |sql: &str| {
        let SqliteQueryResult { columns, rows } = session.exec(sql).unwrap();
        (columns.join(","), rows.concat())
    };
    let script = "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'); SELECT a AS first, b FROM t; DELETE FROM t; -- end";
    assert_eq!(answer(script), ("first,b".into(), vec![integer(1), text("x")]));
    assert_eq!(answer("SELECT 1 AS one; SELECT 2 AS two WHERE 0"), ("two".into(), vec![]));
    assert_eq!(answer("INSERT INTO t VALUES (3, 'z') RETURNING a"), ("a".into(), vec![integer(3)]));
    assert_eq!(answer("SELECT CAST(x'ff41' AS TEXT) AS t"), ("t".into(), vec![text("\u{fffd}A")]));
    let nothing = SqliteQueryResult { columns: vec![], rows: vec![] };
    for sql in ["", " ;; \n", "-- nothing", "/* nothing */", "DELETE FROM t"] {
        assert_eq!(session.exec(sql).unwrap(), nothing, "{sql}");
    }
}

#[test]
fn execute_takes_one_statement() {
    let mut session = session();
    for sql in ["SELECT 1", "SELECT 1;", " ; SELECT 1 ;\n;\t", "/* a */ SELECT 1 -- b"] {
        assert_eq!(session.execute(sql, None).unwrap().rows, [[integer(1)]], "{sql}");
    }
    for sql in ["SELECT 1; SELECT 2", "SELECT 1; -- b", "SELECT 1; /* b */", "SELECT 1;\u{a0}"] {
        assert_eq!(message(session.execute(sql, None)), "sqlite execute only supports a single statement", "{sql}");
    }
    for sql in ["", ";", "-- nothing", " /* nothing */ "] {
        let answer = session.execute(sql, None).unwrap();
        assert_eq!((answer.columns.len(), answer.rows.len(), answer.changes), (0, 0, 0), "{sql}");
        assert_eq!(answer.last_insert_row_id, None);
    }
}

#[test]
fn a_script_of_very_many_statements_does_not_exhaust_the_stack() {
    let many = "SELECT 1;".repeat(20_000);
    let mut session = session();
    assert_eq!(session.exec(&many).unwrap().rows, [[integer(1)]]);
    assert_eq!(message(session.execute(&many, None)), "sqlite execute only supports a single statement");
}

#[test]
fn missing_parameters_are_null_and_surplus_ones_fail() {
    let mut session = session();
    let answer = session.execute("SELECT ?, ?2, :c", Some(&[integer(1)])).unwrap();
    assert_eq!(answer.rows, [[integer(1), SqliteValue::Null, SqliteValue::Null]]);
    // The same statement again, from the cache, has forgotten its parameters.
    let answer = session.execute("SELECT ?, ?2, :c", None).unwrap();
    assert_eq!(answer.rows, [[SqliteValue::Null, SqliteValue::Null, SqliteValue::Null]]);
    let surplus = session.execute("SELECT ?", Some(&[integer(1), integer(2)]));
    assert_eq!(message(surplus), "failed to bind sqlite parameter: column index out of range");
}

#[test]
fn a_pragma_has_its_effect_each_time() {
    let mut session = session();
    // The second does its work when it is prepared.
    for pragma in ["recursive_triggers", "secure_delete"] {
        for is_on in [0, 1, 0, 1] {
            run(&mut session, &format!("PRAGMA {pragma} = {is_on}"));
            assert_eq!(cell(&mut session, &format!("PRAGMA {pragma}")), integer(is_on));
        }
    }
}

#[test]
fn values_of_every_kind_make_the_round_trip() {
    let mut session = session();
    let values = [
        SqliteValue::Null,
        integer(i64::MIN),
        integer(i64::MAX),
        integer((1 << 53) + 1),
        SqliteValue::Float(-0.0),
        SqliteValue::Float(f64::MIN_POSITIVE),
        SqliteValue::Float(f64::INFINITY),
        text(""),
        text("a\0b\u{1f600}"),
        SqliteValue::Blob(Bytes::new()),
        SqliteValue::Blob(Bytes::from_static(&[0, 255, 0])),
    ];
    run(&mut session, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    for value in &values {
        let direct = session.execute("SELECT ?", Some(std::slice::from_ref(value))).unwrap();
        assert_eq!(direct.rows, [[value.clone()]]);
        session.execute("INSERT INTO t (v) VALUES (?)", Some(std::slice::from_ref(value))).unwrap();
    }
    let stored: Vec<_> = run(&mut session, "SELECT v FROM t ORDER BY id").rows.into_iter().flatten().collect();
    assert_eq!(stored, values);
}

#[test]
fn changes_and_row_id_are_the_connections_as_they_are() {
    let mut session = session();
    let answer = run(&mut session, "CREATE TABLE t (a)");
    assert_eq!((answer.changes, answer.last_insert_row_id), (0, None));
    let answer = run(&mut session, "INSERT INTO t VALUES (1), (2), (3)");
    assert_eq!((answer.changes, answer.last_insert_row_id), (3, Some(3)));
    let answer = run(&mut session, "SELECT 1");
    assert_eq!((answer.changes, answer.last_insert_row_id), (3, Some(3)), "a SELECT repeats them");
    let answer = run(&mut session, "DELETE FROM t WHERE a > 5");
    assert_eq!((answer.changes, answer.last_insert_row_id), (0, None));
    let answer = run(&mut session, "INSERT INTO t VALUES (4) RETURNING a * 2");
    assert_eq!((answer.columns, answer.rows), (vec!["a * 2".into()], vec![vec![integer(8)]]));
    let answer = run(&mut session, "SELECT a FROM t WHERE 0");
    assert_eq!((answer.columns.len(), answer.rows.len()), (1, 0), "columns are named without rows, too");
}

#[test]
fn errors_say_what_was_being_done_and_then_what_sqlite_says() {
    let mut session = session();
    run(&mut session, "CREATE TABLE t (a UNIQUE)");
    run(&mut session, "INSERT INTO t VALUES (1)");
    let cases = [
        (session.execute("SELEC 1", None).map(drop), "failed to prepare sqlite execute statement: near \"SELEC\": syntax error"),
        (session.execute("SELECT * FROM n", None).map(drop), "failed to prepare sqlite execute statement: no such table: n"),
        (
            session.execute("INSERT INTO t VALUES (1)", None).map(drop),
            "failed to step sqlite execute statement: UNIQUE constraint failed: t.a",
        ),
        (session.exec("SELECT 1; SELEC 2").map(drop), "failed to prepare sqlite exec statement: near \"SELEC\": syntax error"),
        (
            session.exec("INSERT INTO t VALUES (1)").map(drop),
            "failed to step sqlite exec statement: UNIQUE constraint failed: t.a",
        ),
        (session.execute("SELECT 'a\0b'", None).map(drop), "nul byte found in provided data at position: 9"),
        (
            session.execute_batch(&batch(&["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (2)"])).map(drop),
            "execute remote sqlite batch statement: failed to step sqlite execute statement: UNIQUE constraint failed: t.a",
        ),
    ];
    for (outcome, expected) in cases {
        let error = outcome.unwrap_err();
        let answer = SqliteErrorResponse::from(error);
        assert_eq!((answer.group.as_str(), answer.code.as_str(), answer.message.as_str()), ("core", "internal_error", expected));
    }
    assert_eq!(cell(&mut session, "SELECT count(*) FROM t"), integer(1));
}

#[test]
fn a_batch_is_all_or_nothing() {
    let mut session = session();
    let results = session.execute_batch(&batch(&["CREATE TABLE t (a)", "INSERT INTO t VALUES (1), (2)", "SELECT a FROM t"]));
    let results = results.unwrap();
    assert_eq!((results[1].changes, results[1].last_insert_row_id), (2, Some(2)));
    assert_eq!(results[2].rows, [[integer(1)], [integer(2)]]);
    assert_eq!(session.execute_batch(&[]).unwrap(), []);

    session.execute_batch(&batch(&["DELETE FROM t", "SELECT * FROM nothing"])).unwrap_err();
    assert!(!session.in_transaction());
    assert_eq!(cell(&mut session, "SELECT count(*) FROM t"), integer(2));
}

#[test]
fn a_batch_that_cannot_be_committed_is_rolled_back() {
    let mut session = session();
    session
        .exec("CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
        .unwrap();
    let outcome = session.execute_batch(&batch(&["INSERT INTO c VALUES (1)"]));
    let expected = "commit remote sqlite batch: failed to step sqlite exec statement: FOREIGN KEY constraint failed";
    assert_eq!(message(outcome), expected);
    assert!(!session.in_transaction());
    assert_eq!(cell(&mut session, "SELECT count(*) FROM c"), integer(0));

    let outcome = session.execute_batch(&batch(&["INSERT INTO p VALUES (1)", "COMMIT"]));
    let expected = "rollback remote sqlite batch after failed commit: commit remote sqlite batch: \
                    failed to step sqlite exec statement: cannot commit - no transaction is active";
    assert_eq!(message(outcome), expected);
    let outcome = session.execute_batch(&batch(&["COMMIT", "INSERT INTO p VALUES (1)"]));
    let expected = "rollback remote sqlite batch: execute remote sqlite batch statement: \
                    failed to step sqlite execute statement: UNIQUE constraint failed: p.id";
    assert_eq!(message(outcome), expected);
}

#[test]
fn a_batch_inside_of_a_transaction_fails_and_leaves_it_open() {
    let mut session = session();
    run(&mut session, "CREATE TABLE t (a)");
    run(&mut session, "BEGIN");
    run(&mut session, "INSERT INTO t VALUES (1)");
    let outcome = session.execute_batch(&batch(&["INSERT INTO t VALUES (2)"]));
    let expected = "failed to step sqlite exec statement: cannot start a transaction within a transaction";
    assert_eq!(message(outcome), expected);
    assert!(session.in_transaction());
    run(&mut session, "COMMIT");
    assert_eq!(cell(&mut session, "SELECT count(*) FROM t"), integer(1));
}

#[test]
fn parameters_and_results_are_bounded() {
    let pages = MemoryPages::default();
    let mut session = pages.open_with(SessionOptions { result_max_bytes: 100_000, ..SessionOptions::default() });
    let fits = [SqliteValue::Blob(vec![1; 131_000].into()), text(&"x".repeat(72))];
    assert_eq!(session.execute("SELECT length(?) + length(?)", Some(&fits)).unwrap().rows, [[integer(131_072)]]);
    let too_much = [SqliteValue::Blob(vec![1; 131_073].into())];
    let expected = "remote sqlite bind params had 131073 bytes, exceeding limit 131072";
    assert_eq!(message(session.execute("SELECT length(?)", Some(&too_much))), expected);

    assert_eq!(run(&mut session, "SELECT randomblob(99000)").rows.len(), 1);
    assert!((99_000..100_000).contains(&session.result_bytes()));
    let too_large = SessionError::ResultTooLarge { limit: 100_000 };
    assert_eq!(session.execute("SELECT randomblob(100000)", None).unwrap_err(), too_large);
    let many_rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000) SELECT NULL FROM n";
    assert_eq!(session.exec(many_rows).unwrap_err(), too_large);
    let halves = batch(&["SELECT randomblob(60000)", "SELECT randomblob(60000)"]);
    assert_eq!(session.execute_batch(&halves).unwrap_err(), too_large, "the results of a batch share one reply");

    // What is answered with an error has no effect.
    run(&mut session, "CREATE TABLE t (a)");
    let returning = "INSERT INTO t SELECT randomblob(60000) FROM (SELECT 1 UNION SELECT 2) RETURNING a";
    assert_eq!(session.execute(returning, None).unwrap_err(), too_large);
    assert_eq!(cell(&mut session, "SELECT count(*) FROM t"), integer(0));
}

#[test]
fn nothing_outside_of_the_database_can_be_reached() {
    let pages = MemoryPages::default();
    let mut session = pages.open();
    run(&mut session, "CREATE TABLE t (a)");
    let folder = std::env::temp_dir();
    let file = folder.join(format!("sqlite-vfs-{}.db", std::process::id()));
    let file = file.to_str().unwrap();
    let refused = [
        format!("ATTACH '{file}' AS other"),
        format!("ATTACH 'file:{file}?vfs=unix' AS other"),
        "ATTACH 'actor.db' AS other".into(),
        "ATTACH '' AS other".into(),
        "ATTACH ':memory:' AS other".into(),
        "ATTACH 'file::memory:?cache=shared' AS other".into(),
        "ATTACH (SELECT '') AS other".into(),
        format!("VACUUM INTO '{file}'"),
        format!("VACUUM INTO 'file:{file}?vfs=unix'"),
        "SELECT load_extension('libc.so.6')".into(),
        "PRAGMA journal_mode = WAL".into(),
        "PRAGMA main.journal_mode('wal')".into(),
        "PRAGMA page_size = 8192".into(),
        "INSERT INTO sqlite_schema VALUES (1, 2, 3, 4, 5)".into(),
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema".into(),
    ];
    for sql in refused {
        let error = session.exec(&sql).unwrap_err().to_string();
        assert!(!error.contains("unavailable") && !error.contains("unsupported"), "{sql}: {error}");
    }
    assert!(!std::path::Path::new(file).exists());
    for (pragma, expected) in
        [("journal_mode", text("delete")), ("locking_mode", text("exclusive")), ("page_size", integer(4096))]
    {
        assert_eq!(cell(&mut session, &format!("PRAGMA {pragma}")), expected);
    }
    for (pragma, value) in
        [("cache_size", -4096), ("hard_heap_limit", 0), ("soft_heap_limit", 0), ("threads", 0), ("mmap_size", 0)]
    {
        run(&mut session, &format!("PRAGMA {pragma} = 1000000"));
        let answer = run(&mut session, &format!("PRAGMA {pragma}"));
        assert!(answer.rows.is_empty() || answer.rows == [[integer(value)]], "{pragma}: {answer:?}");
    }
    run(&mut session, "PRAGMA locking_mode = NORMAL");
    for mode in ["OFF", "MEMORY", "PERSIST"] {
        assert_eq!(cell(&mut session, &format!("PRAGMA journal_mode = {mode}")), text("delete"));
    }
    for pragma in ["temp.journal_mode = MEMORY", "temp.journal_mode = WAL", "temp_store = MEMORY"] {
        assert!(run(&mut session, &format!("PRAGMA {pragma}")).rows.is_empty(), "{pragma}");
    }
    assert_eq!(cell(&mut session, "PRAGMA temp_store"), integer(1));
    assert_eq!(cell(&mut session, "PRAGMA temp.journal_mode"), text("delete"));
    assert_eq!(cell(&mut session, "PRAGMA locking_mode"), text("exclusive"));
    assert_eq!(cell(&mut session, "PRAGMA journal_mode"), text("delete"));
}

#[test]
fn what_closing_an_idle_session_would_lose_is_known() {
    let mut session = session();
    run(&mut session, "CREATE TABLE t (a)");
    run(&mut session, "PRAGMA foreign_keys");
    run(&mut session, "PRAGMA user_version = 3");
    run(&mut session, "PRAGMA table_info(t)");
    run(&mut session, "VACUUM");
    assert!(!session.has_own_state());
    run(&mut session, "PRAGMA foreign_keys = OFF");
    assert!(session.has_own_state());

    let mut session = self::session();
    run(&mut session, "CREATE TEMP TABLE t (a)");
    assert!(session.has_own_state());
}

#[test]
fn an_interrupt_ends_the_running_statement_and_is_kept_until_cleared() {
    let mut session = session();
    run(&mut session, "CREATE TABLE t (a)");
    let interrupter = session.interrupter();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n";
    let other_thread = std::thread::spawn({
        let interrupter = interrupter.clone();
        move || interrupter.interrupt()
    });
    assert_eq!(session.execute(endless, None).unwrap_err(), SessionError::Interrupted);
    other_thread.join().unwrap();
    assert_eq!(session.execute("SELECT 1", None).unwrap_err(), SessionError::Interrupted);
    assert_eq!(session.execute_batch(&batch(&["INSERT INTO t VALUES (1)"])).unwrap_err(), SessionError::Interrupted);
    interrupter.clear();
    assert!(!session.in_transaction());
    assert_eq!(cell(&mut session, "SELECT count(*) FROM t"), integer(0));
}

#[test]
fn an_interrupted_batch_and_an_interrupted_change_are_rolled_back() {
    let pages = MemoryPages::default();
    let mut session = pages.open();
    session.exec("CREATE TABLE t (a); CREATE TABLE filler (b); CREATE TABLE cold (c)").unwrap();
    session.exec("INSERT INTO filler VALUES (zeroblob(400000)); INSERT INTO cold VALUES (zeroblob(400000))").unwrap();
    let insert = "INSERT INTO t VALUES (1)";
    let endless = "WITH RECURSIVE n(i) AS (SELECT length(substr(c, 300000)) FROM cold UNION ALL SELECT i + 1 FROM n)";
    for statement in [format!("{endless} SELECT sum(i) FROM n"), format!("{endless} INSERT INTO t SELECT i FROM n")] {
        for is_batch in [true, false] {
            drop(session);
            session = pages.open();
            // Has read what the first statement needs; the second needs a page far behind.
            run(&mut session, "SELECT count(*) FROM t");
            let interrupter = session.interrupter();
            pages.0.lock().interrupts = Some(interrupter.clone());
            let outcome = if is_batch {
                session.execute_batch(&batch(&[insert, &statement])).map(drop)
            } else {
                session.exec(&format!("BEGIN; {insert}; {statement}")).map(drop)
            };
            assert_eq!(outcome.unwrap_err(), SessionError::Interrupted);
            interrupter.clear();
            // A query does not end the transaction of its host.
            let stays_open = !is_batch && statement.contains("SELECT sum");
            assert_eq!(session.in_transaction(), stays_open, "{statement}");
            assert_eq!(cell(&mut session, "SELECT count(*) FROM t"), integer(i64::from(stays_open)));
        }
    }
}
