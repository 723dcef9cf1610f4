//! What happens when SQLite has no memory left, and what one session cannot take from another. The bound is that of the
//! process, so these tests have one of their own, and run one after the other.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use protocol::envoy::SqliteValue;
use sqlite_vfs::{Budget, DirtyPages, Pages, PagesError, Session, SessionError, SessionOptions, heap_used, set_heap_limit};

#[derive(Clone, Default)]
struct MemoryPages(Arc<Mutex<BTreeMap<u32, Bytes>>>);

impl Pages for MemoryPages {
    fn read(&mut self, pgnos: &[u32]) -> Result<Vec<(u32, Bytes)>, PagesError> {
        let pages = self.0.lock();
        Ok(pgnos.iter().filter_map(|pgno| Some((*pgno, pages.get(pgno)?.clone()))).collect())
    }

    fn commit(&mut self, dirty: DirtyPages, size: u32) -> Result<(), PagesError> {
        let dirty: Vec<_> = dirty.collect::<Result<_, _>>()?;
        let mut pages = self.0.lock();
        pages.extend(dirty);
        pages.split_off(&(size + 1));
        Ok(())
    }
}

impl MemoryPages {
    /// With a cache from which a transaction of this test is written ahead of its commit.
    fn open(&self) -> Session {
        Session::open(self.clone(), SessionOptions { cache_bytes: 40 * 4096, ..SessionOptions::default() }).unwrap()
    }
}

fn cell(session: &mut Session, sql: &str) -> SqliteValue {
    session.execute(sql, None).unwrap().rows[0][0].clone()
}

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

#[test]
fn temporary_tables_sorts_and_vacuum_leave_memory_to_others() {
    const MIB: u64 = 1024 * 1024;
    let _alone = alone();
    let [pages, others] = [MemoryPages::default(), MemoryPages::default()];
    let aside_budget = Budget::default();
    let options = SessionOptions {
        cache_bytes: 40 * 4096,
        transaction_max_bytes: MIB,
        folder: Some(std::env::temp_dir()),
        aside_budget: aside_budget.clone(),
        ..SessionOptions::default()
    };
    let [mut session, mut other] = [&pages, &others].map(|pages| Session::open(pages.clone(), options.clone()).unwrap());
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9000)";
    other.exec("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    // Much less than what follows, each about 9 MiB.
    set_heap_limit(heap_used() + 5 * MIB);
    let work = [
        format!("CREATE TABLE t AS {rows} SELECT i, zeroblob(1000) AS v FROM n"),
        "VACUUM".to_owned(),
        "SELECT count(*), max(w) FROM (SELECT v || i AS w FROM t ORDER BY w DESC LIMIT -1 OFFSET 1)".to_owned(),
        "BEGIN; CREATE TEMP TABLE mine AS SELECT * FROM t; CREATE INDEX temp.mine_v ON mine (v, i)".to_owned(),
        "UPDATE mine SET v = randomblob(900)".to_owned(),
    ];
    for sql in work {
        session.exec(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(cell(&mut other, "SELECT group_concat(v) FROM (SELECT v FROM t ORDER BY v)"), SqliteValue::Text("1".into()));
    }
    assert!(aside_budget.used() > 8 * MIB, "{} bytes are put aside", aside_budget.used());
    assert_eq!(cell(&mut session, "SELECT count(*) FROM mine JOIN t ON t.rowid = mine.rowid"), SqliteValue::Integer(9_000));
    drop(session);
    set_heap_limit(0);
    assert_eq!(aside_budget.used(), 0);
    assert_eq!(cell(&mut pages.open(), "PRAGMA integrity_check"), SqliteValue::Text("ok".into()));
}

#[test]
fn a_statement_that_finds_no_memory_fails_and_nothing_of_it_remains() {
    let _alone = alone();
    let pages = MemoryPages::default();
    let mut session = pages.open();
    session.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE INDEX i ON t (v)").unwrap();
    session
        .exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) INSERT INTO t SELECT i, 1 FROM n")
        .unwrap();
    let (mut failures, mut value) = (0, 1);
    for step in 0..60 {
        let update = format!("UPDATE t SET v = {value} + 1 + 0 * length(zeroblob(200000) || v)");
        set_heap_limit(heap_used() + step * 12 * 1024);
        let outcome = session.execute(&update, None);
        set_heap_limit(0);
        match outcome {
            Ok(_) => value += 1,
            Err(SessionError::Sql { message }) => {
                assert!(message.ends_with("out of memory"), "{message}");
                failures += 1;
            }
            // Memory was missing for the rollback, too.
            Err(SessionError::Lost) => session = pages.open(),
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(cell(&mut session, "SELECT sum(v) FROM t"), SqliteValue::Integer(300 * value), "after step {step}");
        assert_eq!(cell(&mut pages.open(), "PRAGMA integrity_check"), SqliteValue::Text("ok".into()));
    }
    assert!(failures > 10 && value > 10, "{failures} statements failed, {value} were to succeed");
}
