//! Large things, and many at once.

use sqlite_vfs::{Budget, Session, SessionError, SessionOptions};

use crate::support::{Fate, MemoryPages, cell, integer, refusal, run, text};

/// Little memory, and a folder for the rest.
fn put_aside(budget: &Budget) -> SessionOptions {
    SessionOptions {
        cache_bytes: 40 * 4096,
        transaction_max_bytes: 1024 * 1024,
        budget: budget.clone(),
        folder: Some(std::env::temp_dir()),
        ..SessionOptions::default()
    }
}

#[test]
fn a_blob_of_100_mib_comes_back_whole() {
    const BYTES: i64 = 100 * 1024 * 1024;
    let budget = Budget::default();
    let pages = MemoryPages::default();
    let options = SessionOptions { transaction_max_bytes: 128 << 20, budget: budget.clone(), ..SessionOptions::default() };
    let mut session = pages.open_with(options);
    run(&mut session, "CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)");
    let half = BYTES / 2 - 4;
    let blob = format!("CAST('head' || zeroblob({half}) || 'half' || zeroblob({half} - 4) || 'tail' AS BLOB)");
    run(&mut session, &format!("INSERT INTO t VALUES (1, {blob})"));
    assert!(*pages.take_commits().last().unwrap() > 25_600);
    assert_eq!(budget.used(), 0);
    drop(session);
    let mut session = pages.open();
    for (start, expected) in [(1, "head"), (half + 5, "half"), (BYTES - 3, "tail")] {
        assert_eq!(cell(&mut session, &format!("SELECT CAST(substr(v, {start}, 4) AS TEXT) FROM t")), text(expected));
    }
    assert_eq!(cell(&mut session, "SELECT length(v) FROM t"), integer(BYTES));
    assert_eq!(session.execute("SELECT v FROM t", None).unwrap_err(), SessionError::ResultTooLarge { limit: 64 << 20 });
    run(&mut session, "DELETE FROM t");
    run(&mut session, "VACUUM");
    assert_eq!(pages.0.lock().size, 2);
}

#[test]
fn what_is_put_aside_can_be_rolled_back_refused_and_committed() {
    let budget = Budget::default();
    let pages = MemoryPages::default();
    let mut session = pages.open_with(put_aside(&budget));
    run(&mut session, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    run(
        &mut session,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) INSERT INTO t SELECT i, zeroblob(3000) FROM n",
    );
    let before = cell(&mut session, "SELECT count(*) || ',' || sum(length(v)) FROM t");
    let update = "UPDATE t SET v = randomblob(3100)";
    run(&mut session, "BEGIN");
    run(&mut session, update);
    run(&mut session, "SAVEPOINT s");
    run(&mut session, "DELETE FROM t WHERE id % 3");
    run(&mut session, "ROLLBACK TO s");
    assert!(budget.used() > 1_000_000);
    run(&mut session, "ROLLBACK");
    pages.next_commits(&[Fate::Refused]);
    let refused = SessionError::Pages(refusal("quota_exceeded", false));
    assert_eq!(session.execute(update, None).unwrap_err(), refused);
    assert_eq!(cell(&mut session, "SELECT count(*) || ',' || sum(length(v)) FROM t"), before);
    run(&mut session, update);
    assert_eq!(cell(&mut session, "SELECT sum(length(v)) FROM t"), integer(6_200_000));
    assert_eq!(budget.used(), 0, "and nothing is left of it");
    pages.check_integrity();
}

#[test]
fn without_a_place_to_put_things_aside_a_transaction_fails_and_the_session_goes_on() {
    let pages = MemoryPages::default();
    let folder = Some(std::env::temp_dir().join("this folder does not exist"));
    let mut session = pages.open_with(SessionOptions { folder, ..put_aside(&Budget::default()) });
    run(&mut session, "CREATE TABLE t (v)");
    let error = session.execute("INSERT INTO t VALUES (zeroblob(10000000))", None).unwrap_err();
    let SessionError::Pages(error) = error else { panic!("{error:?}") };
    assert_eq!((error.answer.group.as_str(), error.answer.code.as_str(), error.is_fence), ("store", "failed", false));
    run(&mut session, "INSERT INTO t VALUES (1)");
    assert_eq!(cell(&mut session, "SELECT count(*) FROM t"), integer(1));
}

#[test]
fn memory_is_shared_among_the_sessions_of_a_budget() {
    let budget = Budget::new(1024 * 1024);
    let options = SessionOptions { folder: None, transaction_max_bytes: 900 * 1024, ..put_aside(&budget) };
    let [first, second] = [MemoryPages::default(), MemoryPages::default()];
    let [mut first, mut second] = [first.open_with(options.clone()), second.open_with(options)];
    for session in [&mut first, &mut second] {
        run(session, "CREATE TABLE t (v)");
        run(session, "BEGIN");
    }
    run(&mut first, "INSERT INTO t VALUES (zeroblob(900000))");
    let insert = "INSERT INTO t VALUES (zeroblob(800000))";
    assert!(matches!(second.execute(insert, None), Err(SessionError::TransactionTooLarge { .. })));
    drop(first);
    if second.in_transaction() {
        run(&mut second, "ROLLBACK");
    }
    run(&mut second, insert);
    drop(second);
    assert_eq!(budget.used(), 0);
}

#[test]
fn many_sessions_work_at_once_and_move_between_threads() {
    let databases: Vec<MemoryPages> = (0..200).map(|_| MemoryPages::default()).collect();
    let mut sessions: Vec<_> = databases.iter().map(MemoryPages::open).collect();
    for session in &mut sessions {
        run(session, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    }
    for round in 0..4 {
        let work = |session: &mut Session| {
            session.execute("INSERT INTO t (v) VALUES (?)", Some(&[integer(round)])).unwrap();
            assert_eq!(cell(session, "SELECT count(*) || ',' || max(v) FROM t"), text(&format!("{},{round}", round + 1)));
        };
        // The first session of a thread is the last of another in the next round.
        sessions.rotate_left(27);
        std::thread::scope(|scope| {
            for some in sessions.chunks_mut(50) {
                scope.spawn(|| some.iter_mut().for_each(work));
            }
        });
    }
    drop(sessions);
    databases.iter().take(10).for_each(MemoryPages::check_integrity);
}
