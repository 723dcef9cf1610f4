//! How deep SQLite's own recursion goes, on a stack as small as the threads that execute statements have. A stack that overflows
//! ends the process.

use std::thread;

use sqlite_vfs::{STACK_BYTES, Session, SessionOptions};

use crate::support::MemoryPages;

/// As many as SQLite lets depend on each other.
const DEPTH: usize = 1000;
/// A little less, so that what is around them has room, too.
const ALLOWED: usize = 900;

/// Runs scripts in a session of their own, on a thread with just that stack. Answers with the last one's error, if it has one.
fn run(scripts: impl IntoIterator<Item = String> + Send + 'static) -> Option<String> {
    let work = move || {
        let mut session = Session::open(MemoryPages::default(), SessionOptions::default()).unwrap();
        scripts.into_iter().map(|script| session.exec(&script).err()).last().unwrap()
    };
    let running = thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap();
    running.join().unwrap().map(|error| error.to_string())
}

/// An insertion that sets off so many triggers, each by the one before.
fn triggered(depth: usize) -> [String; 3] {
    let table = |n: usize| format!("CREATE TABLE t{n} (v);");
    let trigger =
        |n: usize| format!("CREATE TRIGGER r{n} AFTER INSERT ON t{n} BEGIN INSERT INTO t{} VALUES (new.v); END;", n + 1);
    [(0..=depth).map(table).collect(), (0..depth).map(trigger).collect(), "INSERT INTO t0 VALUES (1)".to_owned()]
}

/// A query of a view that is made of so many others.
fn viewed(depth: usize) -> [String; 2] {
    let view = |n: usize| format!("CREATE VIEW v{} AS SELECT * FROM v{n};", n + 1);
    let views: String = (0..depth).map(view).collect();
    [format!("CREATE VIEW v0 AS SELECT 1; {views}"), format!("SELECT * FROM v{depth}")]
}

fn nested(open: &str, close: &str, depth: usize) -> [String; 1] {
    [format!("SELECT {}1{}", open.repeat(depth), close.repeat(depth))]
}

#[test]
fn what_sqlite_allows_fits_on_the_stack() {
    assert_eq!(run(triggered(ALLOWED)), None);
    assert_eq!(run(viewed(ALLOWED / 10)), None);
    assert_eq!(run(nested("abs(", ")", ALLOWED / 10)), None);
}

#[test]
fn what_is_nested_too_deep_is_refused_before_the_stack_is_full() {
    let cases = [
        (run(triggered(DEPTH + 100)), "triggers nested too deep"),
        (run(viewed(DEPTH + 100)), "nested too deep"),
        (run(nested("(1 + ", ")", 3 * DEPTH)), "Recursion limit"),
        (run(nested("(SELECT ", ")", 3 * DEPTH)), "Recursion limit"),
    ];
    for (error, expected) in cases {
        assert!(error.as_ref().is_some_and(|error| error.ends_with(expected)), "{error:?} instead of {expected}");
    }
}
