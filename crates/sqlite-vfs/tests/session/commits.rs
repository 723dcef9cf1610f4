//! What reaches the pages, and what remains when they refuse.

use protocol::envoy::{SqliteBatchStatement, SqliteValue};
use sqlite_vfs::{SessionError, SessionOptions};

use crate::support::{Fate, MemoryPages, cell, integer, refusal, run, text};

/// A transaction of some hundred pages spills from this.
fn small_cache() -> SessionOptions {
    SessionOptions { cache_bytes: 40 * 4096, ..SessionOptions::default() }
}

#[test]
fn a_transaction_is_one_commit_of_the_pages_that_changed() {
    let pages = MemoryPages::default();
    let mut session = pages.open();
    assert_eq!(pages.take_commits(), [] as [usize; 0], "opening writes nothing");
    run(&mut session, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    assert_eq!(pages.take_commits(), [2]);
    run(&mut session, "BEGIN");
    for _ in 0..100 {
        run(&mut session, "INSERT INTO t (v) VALUES (zeroblob(10))");
    }
    assert_eq!(pages.take_commits(), [] as [usize; 0]);
    run(&mut session, "COMMIT");
    assert_eq!(pages.take_commits(), [1], "and not page 1: nobody else changes the database");
    run(&mut session, "UPDATE t SET v = 1 WHERE id = 5");
    assert_eq!(pages.take_commits(), [1]);
    for nothing in ["SELECT * FROM t", "DELETE FROM t WHERE id = 1000", "BEGIN", "COMMIT", "PRAGMA integrity_check"] {
        run(&mut session, nothing);
    }
    run(&mut session, "BEGIN");
    run(&mut session, "DELETE FROM t");
    run(&mut session, "ROLLBACK");
    assert_eq!(pages.take_commits(), [] as [usize; 0]);
    pages.check_integrity();
}

#[test]
fn a_transaction_larger_than_the_cache_is_one_commit_or_none() {
    let pages = MemoryPages::default();
    let mut session = pages.open_with(small_cache());
    run(&mut session, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    let fill =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) INSERT INTO t SELECT i, zeroblob(3000) FROM n";
    run(&mut session, fill);
    let commits = pages.take_commits();
    assert!(commits.len() == 2 && commits[1] > 400, "{commits:?}");

    run(&mut session, "BEGIN");
    run(&mut session, "UPDATE t SET v = randomblob(3500)");
    run(&mut session, "SAVEPOINT s");
    run(&mut session, "DELETE FROM t WHERE id % 2");
    run(&mut session, "INSERT INTO t SELECT id + 1000, v FROM t");
    run(&mut session, "ROLLBACK TO s");
    assert_eq!(cell(&mut session, "SELECT count(*) || ',' || sum(length(v)) FROM t"), text("500,1750000"));
    run(&mut session, "ROLLBACK");
    assert_eq!(pages.take_commits(), [] as [usize; 0], "a rollback of what had spilled commits nothing");
    assert_eq!(cell(&mut session, "SELECT count(*) || ',' || sum(length(v)) FROM t"), text("500,1500000"));

    run(&mut session, "BEGIN");
    run(&mut session, "UPDATE t SET v = zeroblob(3500)");
    run(&mut session, "SAVEPOINT s");
    run(&mut session, "DELETE FROM t WHERE id % 2");
    run(&mut session, "ROLLBACK TO s");
    run(&mut session, "COMMIT");
    assert_eq!(pages.take_commits().len(), 1);

    // Here SQLite undoes everything and yet goes on.
    run(&mut session, "SAVEPOINT outermost");
    run(&mut session, "UPDATE t SET v = zeroblob(3300)");
    run(&mut session, "ROLLBACK TO outermost");
    run(&mut session, "UPDATE t SET v = zeroblob(3400) WHERE id <= 250");
    run(&mut session, "RELEASE outermost");
    assert_eq!(pages.take_commits().len(), 1);
    drop(session);
    pages.check_integrity();
    assert_eq!(cell(&mut pages.open(), "SELECT count(*) || ',' || sum(length(v)) FROM t"), text("500,1725000"));
}

#[test]
fn vacuum_shortens_the_database() {
    let pages = MemoryPages::default();
    let mut session = pages.open_with(small_cache());
    session.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE u (a)").unwrap();
    run(
        &mut session,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) INSERT INTO t SELECT i, zeroblob(3000) FROM n",
    );
    run(&mut session, "INSERT INTO u SELECT id FROM t");
    run(&mut session, "DELETE FROM t WHERE id > 3");
    assert!(pages.0.lock().size > 200);
    pages.take_commits();
    run(&mut session, "VACUUM");
    assert!(pages.0.lock().size < 10, "{}", pages.0.lock().size);
    assert!(pages.take_commits().len() <= 2);
    assert_eq!(cell(&mut session, "SELECT count(*) FROM u"), integer(300));
    run(&mut session, "INSERT INTO t VALUES (10, zeroblob(100000))");
    drop(session);
    pages.check_integrity();
    assert_eq!(cell(&mut pages.open(), "SELECT count(*) FROM t"), integer(4));
}

#[test]
fn a_refused_commit_rolls_the_transaction_back_and_the_session_goes_on() {
    for options in [SessionOptions::default(), small_cache()] {
        let pages = MemoryPages::default();
        let mut session = pages.open_with(options);
        session.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE INDEX i ON t (v); CREATE TEMP TABLE mine (a)").unwrap();
        run(
            &mut session,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200) INSERT INTO t SELECT i, zeroblob(1000) FROM n",
        );
        let sum = "SELECT count(*) || ',' || sum(length(v)) FROM t";
        let refused = SessionError::Pages(refusal("quota_exceeded", false));

        pages.next_commits(&[Fate::Refused]);
        assert_eq!(session.execute("UPDATE t SET v = randomblob(1100)", None).unwrap_err(), refused);
        assert_eq!(cell(&mut session, sum), text("200,200000"));

        run(&mut session, "BEGIN");
        run(&mut session, "INSERT INTO t SELECT id + 1000, randomblob(900) FROM t");
        pages.next_commits(&[Fate::Refused]);
        assert_eq!(session.execute("COMMIT", None).unwrap_err(), refused);
        assert!(!session.in_transaction());
        assert_eq!(cell(&mut session, sum), text("200,200000"));

        let grow = SqliteBatchStatement { sql: "DELETE FROM t WHERE id < 150".into(), params: None };
        pages.next_commits(&[Fate::Refused]);
        assert_eq!(session.execute_batch(&[grow]).unwrap_err(), refused);
        pages.next_commits(&[Fate::Refused]);
        assert_eq!(session.execute("VACUUM", None).unwrap_err(), refused);

        assert_eq!(cell(&mut session, "SELECT count(*) FROM mine"), integer(0), "temporary tables outlive it");
        run(&mut session, "DELETE FROM t WHERE id > 100");
        assert_eq!(cell(&mut session, sum), text("100,100000"));
        drop(session);
        pages.check_integrity();
        assert_eq!(cell(&mut pages.open(), sum), text("100,100000"));
    }
}

#[test]
fn the_very_first_commit_may_be_refused() {
    let pages = MemoryPages::default();
    let mut session = pages.open();
    pages.next_commits(&[Fate::Refused, Fate::Refused]);
    session.execute("CREATE TABLE t (a)", None).unwrap_err();
    session.execute("CREATE TABLE t (a)", None).unwrap_err();
    run(&mut session, "CREATE TABLE t (a)");
    pages.check_integrity();
}

#[test]
fn after_a_fence_the_session_touches_nothing() {
    let pages = MemoryPages::default();
    let mut session = pages.open();
    run(&mut session, "CREATE TABLE t (a)");
    run(&mut session, "BEGIN");
    run(&mut session, "INSERT INTO t VALUES (1)");
    pages.next_commits(&[Fate::Fenced]);
    let fence = refusal("head_fence_mismatch", true);
    assert_eq!(session.execute("COMMIT", None).unwrap_err(), SessionError::Pages(fence.clone()));
    pages.take_reads();
    pages.take_commits();
    for sql in ["SELECT 1", "INSERT INTO t VALUES (2)"] {
        assert_eq!(session.execute(sql, None).unwrap_err(), SessionError::Poisoned(fence.clone()));
    }
    drop(session);
    assert!(pages.take_reads().is_empty() && pages.take_commits().is_empty());
}

#[test]
fn a_panic_of_whoever_keeps_the_pages_ends_the_session_only() {
    let pages = MemoryPages::default();
    let mut session = pages.open();
    run(&mut session, "CREATE TABLE t (a)");
    pages.next_commits(&[Fate::Panics]);
    assert_eq!(session.execute("INSERT INTO t VALUES (1)", None).unwrap_err(), SessionError::Lost);
    assert_eq!(session.execute("SELECT 1", None).unwrap_err(), SessionError::Lost);
    drop(session);
    pages.check_integrity();
    assert_eq!(cell(&mut pages.open(), "SELECT count(*) FROM t"), integer(0));
}

#[test]
fn a_session_that_is_dropped_rolls_back_and_asks_for_nothing() {
    let pages = MemoryPages::default();
    let mut session = pages.open_with(small_cache());
    run(&mut session, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    run(
        &mut session,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200) INSERT INTO t SELECT i, zeroblob(3000) FROM n",
    );
    run(&mut session, "BEGIN");
    run(&mut session, "UPDATE t SET v = zeroblob(2000)");
    pages.take_reads();
    pages.take_commits();
    drop(session);
    assert!(pages.take_reads().is_empty() && pages.take_commits().is_empty());
    assert_eq!(cell(&mut pages.open(), "SELECT sum(length(v)) FROM t"), integer(600_000));
}

#[test]
fn a_transaction_that_needs_too_much_memory_fails_and_gives_it_back() {
    let pages = MemoryPages::default();
    let options = SessionOptions { transaction_max_bytes: 1024 * 1024, ..small_cache() };
    let mut session = pages.open_with(options);
    session.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v)").unwrap();
    for _ in 0..3 {
        run(&mut session, "INSERT INTO t (v) VALUES (zeroblob(600000))");
    }
    let too_large = SessionError::TransactionTooLarge { limit: 1024 * 1024 };
    for sql in ["UPDATE t SET v = randomblob(600000)", "INSERT INTO t (v) VALUES (zeroblob(1200000))", "DELETE FROM t; VACUUM"] {
        let outcome = session.exec(sql);
        if sql.ends_with("VACUUM") {
            outcome.unwrap();
        } else {
            assert_eq!(outcome.unwrap_err(), too_large, "{sql}");
            assert_eq!(cell(&mut session, "SELECT sum(length(v)) FROM t"), integer(1_800_000));
        }
        pages.check_integrity();
    }
}

#[test]
fn a_damaged_page_fails_the_statements_that_need_it() {
    let pages = MemoryPages::default();
    let mut session = pages.open();
    session.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE u (a)").unwrap();
    run(
        &mut session,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200) INSERT INTO t SELECT i, zeroblob(3000) FROM n",
    );
    drop(session);
    pages.0.lock().damaged = Some(150);
    let mut session = pages.open();
    let damaged = SessionError::Pages(refusal("damaged", false));
    assert_eq!(session.execute("SELECT sum(length(v)) FROM t", None).unwrap_err(), damaged);
    assert_eq!(cell(&mut session, "SELECT length(v) FROM t WHERE id = 100"), integer(3000));
    run(&mut session, "INSERT INTO u VALUES (1)");
    run(&mut session, "BEGIN");
    run(&mut session, "INSERT INTO u VALUES (2)");
    assert_eq!(session.execute("UPDATE t SET v = NULL", None).unwrap_err(), damaged);
    if session.in_transaction() {
        run(&mut session, "ROLLBACK");
    }
    pages.0.lock().damaged = None;
    assert_eq!(cell(&mut session, "SELECT sum(length(v)) FROM t"), integer(600_000));
    assert_eq!(cell(&mut session, "SELECT count(*) FROM u"), integer(1));
    pages.check_integrity();
}

#[test]
fn pages_that_are_not_a_database_are_refused() {
    let database = || {
        let pages = MemoryPages::default();
        run(&mut pages.open(), "CREATE TABLE t (a)");
        pages
    };
    let change = |pages: &MemoryPages, place: usize, byte: u8| {
        let mut state = pages.0.lock();
        let mut page = state.pages[&1].to_vec();
        page[place] = byte;
        state.pages.insert(1, page.into());
    };
    let wrong_page_size = database();
    change(&wrong_page_size, 16, 0x20);
    assert!(sqlite_vfs::Session::open(wrong_page_size, SessionOptions::default()).is_err());

    let wrong_magic = database();
    change(&wrong_magic, 0, b'X');
    let outcome = sqlite_vfs::Session::open(wrong_magic, SessionOptions::default()).map(drop);
    assert!(outcome.unwrap_err().to_string().contains("not a database"));

    let write_ahead_log = database();
    change(&write_ahead_log, 18, 2);
    change(&write_ahead_log, 19, 2);
    assert!(sqlite_vfs::Session::open(write_ahead_log, SessionOptions::default()).is_err());

    let empty = MemoryPages::default();
    empty.0.lock().pages.insert(1, vec![0; 4096].into());
    assert_eq!(cell(&mut empty.open(), "SELECT count(*) FROM sqlite_schema"), integer(0));
    assert_eq!(cell(&mut empty.open(), "SELECT typeof(zeroblob(0))"), SqliteValue::Text("blob".into()));
}

#[test]
fn a_cold_scan_reads_many_pages_at_once_and_a_point_read_few() {
    let pages = MemoryPages::default();
    let mut session = pages.open();
    run(&mut session, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    run(
        &mut session,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000) INSERT INTO t SELECT i, zeroblob(3500) FROM n",
    );
    for (sql, most) in
        [("SELECT sum(length(v)) FROM t", 40), ("SELECT sum(length(v)) FROM (SELECT v FROM t ORDER BY id DESC)", 60)]
    {
        drop(session);
        session = pages.open();
        pages.take_reads();
        run(&mut session, sql);
        let reads = pages.take_reads();
        assert!(reads.len() < most && reads.iter().sum::<usize>() < 3300, "{sql}: {reads:?}");
    }
    drop(session);
    session = pages.open();
    for id in [17, 2900, 1200, 333] {
        pages.take_reads();
        run(&mut session, &format!("SELECT length(v) FROM t WHERE id = {id}"));
        let reads = pages.take_reads();
        assert!(reads.iter().sum::<usize>() <= 6, "{reads:?}");
    }
}
