//! A process that is killed loses nothing that it acknowledged, and leaves no batch half written.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use store::{Batch, Decision, LmdbOptions, Reads, Scan, Store};

const WRITERS: usize = 8;
/// Acknowledgements after which the process is killed, in each round.
const ACKS: usize = 300;
/// Makes the folder below which the child writes, and shows it that it is one.
const FOLDER: &str = "crash-test";

#[test]
fn kill_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        acknowledged.extend(run_child_and_kill_it(folder.path()));
        assert!(acknowledged.len() >= ACKS * (round + 1), "{}", acknowledged.len());
        support::runtime().block_on(check(folder.path(), &acknowledged));
    }
}

/// Names of the records that the child said were written.
fn run_child_and_kill_it(folder: &Path) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    // After the kill there may be lines left in the pipe: these were acknowledged, too.
    for line in output.lines() {
        if let Some(record) = line.unwrap().strip_prefix("ack ") {
            acknowledged.push(record.to_owned());
        }
        if acknowledged.len() == ACKS {
            // Not a signal that could be caught, on any system.
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    acknowledged
}

async fn check(folder: &Path, acknowledged: &BTreeSet<String>) {
    let store = Store::open_lmdb(LmdbOptions::new(folder.join(FOLDER))).unwrap();
    let names = async |prefix: &'static str| -> BTreeSet<String> {
        let found = store.scan(Scan { max_bytes: usize::MAX, ..Scan::prefix(prefix) }).await.unwrap();
        found.iter().map(|(key, _)| String::from_utf8(key[prefix.len()..].to_vec()).unwrap()).collect()
    };
    let (first, second) = (names("first ").await, names("second ").await);
    assert_eq!(first, second, "both halves of a batch, or none");
    assert!(first.is_superset(acknowledged));
    store.close().await;
}

#[test]
#[ignore = "a process of its own, started by the other test"]
fn child() {
    if !Path::new(FOLDER).exists() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = Store::open_lmdb(LmdbOptions::new(FOLDER)).unwrap();
    for writer in 0..WRITERS {
        runtime.spawn(write_records(store.clone(), writer));
    }
    // Ends by being killed; the time is for the case that the parent is gone.
    std::thread::park_timeout(Duration::from_secs(30));
}

async fn write_records(store: Store, writer: usize) {
    for number in 0.. {
        let record = format!("{} {writer} {number}", std::process::id());
        let mut batch = Batch::new();
        batch.put(format!("first {record}"), vec![1; 700 * writer]);
        batch.put(format!("second {record}"), vec![2; 700 * writer]);
        if number % 2 == 0 {
            store.write(batch).await.unwrap();
        } else {
            store.update(Reads::default(), move |_| Decision::Commit(batch.clone(), ())).await.unwrap();
        }
        // Straight into the pipe, in one piece: the test harness must not hold it back.
        std::io::stdout().write_all(format!("ack {record}\n").as_bytes()).unwrap();
    }
}
