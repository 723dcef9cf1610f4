//! What statements cost over pages in memory, that is without the store below: `cargo bench -p sqlite-vfs`. Prints a table.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails may stop")]
#![allow(clippy::print_stdout, reason = "the table is the point")]
#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use sqlite_vfs::{DirtyPages, Pages, PagesError, Session, SessionOptions};

const MIB: usize = 1024 * 1024;

#[derive(Clone, Default)]
struct MemoryPages(Arc<Mutex<BTreeMap<u32, Bytes>>>);

impl Pages for MemoryPages {
    fn read(&mut self, pgnos: &[u32]) -> Result<Vec<(u32, Bytes)>, PagesError> {
        let pages = self.0.lock();
        Ok(pgnos.iter().filter_map(|pgno| Some((*pgno, pages.get(pgno)?.clone()))).collect())
    }

    fn commit(&mut self, dirty: DirtyPages, size: u32) -> Result<(), PagesError> {
        let mut pages = self.0.lock();
        for page in dirty {
            let (pgno, page) = page?;
            pages.insert(pgno, page);
        }
        pages.split_off(&(size + 1));
        Ok(())
    }
}

fn open(pages: &MemoryPages) -> Session {
    let options = SessionOptions { transaction_max_bytes: 256 * MIB as u64, ..SessionOptions::default() };
    Session::open(pages.clone(), options).unwrap()
}

fn timed(what: &str, work: impl FnOnce()) {
    let begin = Instant::now();
    work();
    println!("| {what} | {:.1} ms |", begin.elapsed().as_secs_f64() * 1000.0);
}

/// How often something can be done.
fn rate(what: &str, mut work: impl FnMut(usize)) {
    let begin = Instant::now();
    let mut done = 0;
    while begin.elapsed() < Duration::from_secs(1) {
        work(done);
        done += 1;
    }
    println!("| {what} | {:.1} µs |", begin.elapsed().as_secs_f64() * 1e6 / done as f64);
}

fn main() {
    // Cargo adds this option to benchmarks; without it we are run as a test, and nobody wants to wait.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("| | |\n|---|---|");
    let pages = MemoryPages::default();
    let mut session = open(&pages);
    session.exec("CREATE TABLE blobs (v BLOB); CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)").unwrap();
    timed("insert of 10 MiB", || {
        session.execute(&format!("INSERT INTO blobs VALUES (randomblob({}))", 10 * MIB), None).unwrap();
    });
    rate("insert of one row, one transaction each", |n| {
        session.execute("INSERT INTO t (v) VALUES (?)", Some(&[protocol::envoy::SqliteValue::Integer(n as i64)])).unwrap();
    });
    rate("select of one row", |n| {
        let id = [protocol::envoy::SqliteValue::Integer(1 + n as i64 % 1000)];
        session.execute("SELECT v FROM t WHERE id = ?", Some(&id)).unwrap();
    });
    rate("opening a session for one select", |_| {
        open(&pages).execute("SELECT v FROM t WHERE id = 5", None).unwrap();
    });

    let pages = MemoryPages::default();
    let mut session = open(&pages);
    session.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)").unwrap();
    timed("filling 50 MiB in one transaction", || {
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 51200) \
                    INSERT INTO t SELECT i, zeroblob(1000) FROM n";
        session.execute(fill, None).unwrap();
    });
    for (what, sql) in [
        ("cold scan of 50 MiB", "SELECT sum(length(v)), max(v) FROM t"),
        ("cold reverse scan of 50 MiB", "SELECT sum(length(v)), max(v) FROM (SELECT v FROM t ORDER BY id DESC)"),
    ] {
        let mut session = open(&pages);
        timed(what, || drop(session.execute(sql, None).unwrap()));
    }
    timed("reading 50 MiB of rows into a reply", || {
        drop(open(&pages).execute("SELECT * FROM t", None).unwrap());
    });
    timed("VACUUM of 50 MiB", || drop(open(&pages).execute("VACUUM", None).unwrap()));

    let before = sqlite_vfs::heap_used();
    let idle: Vec<Session> = (0..100)
        .map(|_| {
            let mut session = open(&pages);
            session.execute("SELECT v FROM t WHERE id = 5", None).unwrap();
            session
        })
        .collect();
    println!("| SQLite's memory of an idle session | {} KiB |", (sqlite_vfs::heap_used() - before) / 1024 / idle.len() as u64);
}
