//! Temporary tables, which are in files of ours when they are large, and the memory of results.

use sqlite_vfs::{Budget, SessionError, SessionOptions};

use crate::support::{Fate, MemoryPages, cell, integer, refusal, run, text};

/// Fills a table with 4 MiB, more than SQLite keeps of temporary tables in its cache.
const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1400) \
                    INSERT INTO mine SELECT i, zeroblob(3000) FROM n";
const SUM: &str = "SELECT count(*) || ',' || sum(length(v)) FROM mine";

#[test]
fn temporary_tables_survive_a_commit_that_fails() {
    let pages = MemoryPages::default();
    let files = Budget::default();
    let folder = Some(std::env::temp_dir());
    let options =
        SessionOptions { transaction_max_bytes: 64 * 1024, folder, aside_budget: files.clone(), ..SessionOptions::default() };
    let mut session = pages.open_with(options);
    session.exec("CREATE TABLE t (v); CREATE TEMP TABLE mine (id INTEGER PRIMARY KEY, v)").unwrap();
    run(&mut session, FILL);
    assert!(files.used() > 1024 * 1024, "{} bytes are put aside", files.used());
    let change =
        "BEGIN; INSERT INTO t VALUES (1); UPDATE mine SET v = zeroblob(3100) WHERE id % 2; DELETE FROM mine WHERE id > 700";
    session.exec(change).unwrap();
    pages.next_commits(&[Fate::Refused]);
    assert_eq!(session.exec("COMMIT").unwrap_err(), SessionError::Pages(refusal("quota_exceeded", false)));
    assert!(!session.in_transaction());
    assert_eq!(cell(&mut session, SUM), text("1400,4200000"), "as before the transaction");
    assert_eq!(cell(&mut session, "SELECT count(*) FROM t"), integer(0));
    session.exec(&format!("{change}; COMMIT")).unwrap();
    assert_eq!(cell(&mut session, SUM), text("700,2135000"));
    assert_eq!(cell(&mut session, "PRAGMA temp.integrity_check"), text("ok"));
    pages.check_integrity();
    drop(session);
    assert_eq!(files.used(), 0);
}

#[test]
fn where_temporary_tables_find_no_room_the_rest_of_their_transaction_fails_too() {
    let pages = MemoryPages::default();
    let options = SessionOptions { transaction_max_bytes: 1024 * 1024, ..SessionOptions::default() };
    let create = "CREATE TABLE IF NOT EXISTS t (v); CREATE TEMP TABLE mine (id INTEGER PRIMARY KEY, v)";
    let mut session = pages.open_with(options.clone());
    session.exec(create).unwrap();
    let mut failures = 0;
    for step in 1..60 {
        // Of another size each time, so that the room ends at another place.
        let more = format!("INSERT INTO mine (v) VALUES (zeroblob({}))", 100_000 + step * 7_000);
        let outcome = session.exec(&format!("BEGIN; INSERT INTO t VALUES ({step}); {more}; COMMIT"));
        let is_there = integer(i64::from(outcome.is_ok()));
        let count = format!("SELECT count(*) FROM t WHERE v = {step}");
        assert_eq!(cell(&mut pages.open(), &count), is_there, "{outcome:?}");
        let Err(error) = outcome else { continue };
        assert_eq!(error, SessionError::TransactionTooLarge { limit: 1024 * 1024 });
        failures += 1;
        // There may not even be room for going back.
        if session.execute(&count, None) == Err(SessionError::Lost) {
            session = pages.open_with(options.clone());
            session.exec(create).unwrap();
        }
        assert_eq!(cell(&mut session, &count), is_there);
        run(&mut session, "DELETE FROM mine");
    }
    assert!(failures > 1, "{failures} statements failed");
    pages.check_integrity();
}

#[test]
fn results_share_a_budget_until_they_are_gone() {
    let budget = Budget::new(1024 * 1024);
    let options = SessionOptions { result_budget: budget.clone(), ..SessionOptions::default() };
    let [pages, others] = [MemoryPages::default(), MemoryPages::default()];
    let [mut session, mut other] = [&pages, &others].map(|pages| pages.open_with(options.clone()));
    let large = "SELECT randomblob(600000)";
    let rows = run(&mut session, large).rows;
    let charge = session.take_charge();
    run(&mut other, "CREATE TABLE t (v)");
    for sql in [large, "INSERT INTO t VALUES (randomblob(600000)) RETURNING v"] {
        assert_eq!(other.execute(sql, None).unwrap_err(), SessionError::NoRoomForResult, "{sql}");
    }
    assert_eq!(cell(&mut other, "SELECT count(*) FROM t"), integer(0));
    drop((rows, charge));
    run(&mut other, large);
    run(&mut other, "DELETE FROM t");
    assert_eq!(budget.used(), 0, "an answer makes room for the next one");
    // Many small rows count as what they are in memory.
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) SELECT i FROM n";
    assert_eq!(session.execute(many, None).unwrap_err(), SessionError::NoRoomForResult);
    assert_eq!(budget.used(), 0);
}
