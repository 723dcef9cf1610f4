//! A disk that takes no more: what was refused is not there, what was acknowledged is, and when there is room again everything
//! goes on in the same process.
//!
//! The limit on the size of files stands for the disk: unlike a full one it needs no privileges. At a limit within a page the
//! system cuts a write short, as it does on a full disk.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use store::{Batch, Durability, LmdbOptions, Scan, Store, StoreError};

/// Shows the child that it is one.
const FOLDER: &str = "full-disk-test";
/// Bytes that the file may grow by: some pages, and not a whole number of them.
const ROOM: u64 = 100 * 4096 + 1000;

#[test]
fn a_full_disk_loses_nothing_and_breaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
    // A limit concerns a whole process, and by default its excess kills it.
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact child --ignored --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "a process of its own, started by the other test"]
fn child() {
    if Path::new(FOLDER).exists() {
        support::runtime().block_on(fill_and_go_on());
    }
}

async fn fill_and_go_on() {
    let options = || LmdbOptions { durability: Durability::Os, ..LmdbOptions::new(FOLDER) };
    let store = Store::open_lmdb(options()).unwrap();
    let mut expected = BTreeMap::new();
    // Values of many sizes: those of more than a page are written in one piece.
    for round in 0..4_usize {
        let unlimited = limit_file_size(ROOM * (round as u64 + 1));
        for size in [6_000, 30_000, 1_500, 100] {
            let refusal = fill(&store, &mut expected, round, size).await;
            assert_eq!(refusal.code(), "full", "{refusal}");
            assert_eq!(store.trouble().map(|trouble| trouble.code()), Some("full"));
            check(&store, &expected).await;
        }
        // Neighbours of one that cannot be served: all wait together.
        let (small, large, other) = tokio::join!(
            store.write(support::put(format!("{round} small"), "1")),
            store.write(support::put(format!("{round} large"), vec![7; 1 << 20])),
            store.write(support::put(format!("{round} other"), "2")),
        );
        for (name, value, written) in [("small", "1", small), ("other", "2", other)] {
            match written {
                Ok(()) => drop(expected.insert(Bytes::from(format!("{round} {name}")), Bytes::from(value))),
                Err(error) => assert_eq!(error.code(), "full", "{error}"),
            }
        }
        assert_eq!(large.unwrap_err().code(), "full");
        check(&store, &expected).await;

        setrlimit(Resource::Fsize, unlimited).unwrap();
        store.write(support::put(format!("{round} large"), vec![8; 1 << 20])).await.unwrap();
        expected.insert(format!("{round} large").into(), vec![8; 1 << 20].into());
        // What makes room must not need much.
        let mut batch = Batch::new();
        batch.delete_range(format!("{round} fill 6000"), format!("{round} fill 6001"));
        store.write(batch).await.unwrap();
        expected.retain(|key, _| !key.starts_with(format!("{round} fill 6000").as_bytes()));
        check(&store, &expected).await;
    }
    store.close().await;
    let store = Store::open_lmdb(options()).unwrap();
    check(&store, &expected).await;
    store.close().await;
}

/// Writes until it is refused; returns why.
async fn fill(store: &Store, expected: &mut BTreeMap<Bytes, Bytes>, round: usize, size: usize) -> StoreError {
    for count in 0.. {
        let (key, value) = (Bytes::from(format!("{round} fill {size} {count}")), Bytes::from(vec![count as u8; size]));
        match store.write(support::put(key.clone(), value.clone())).await {
            Ok(()) => drop(expected.insert(key, value)),
            Err(error) => return error,
        }
    }
    unreachable!("there is always a next number")
}

/// Nothing else, and nothing less.
async fn check(store: &Store, expected: &BTreeMap<Bytes, Bytes>) {
    let found = store.scan(Scan { max_bytes: usize::MAX, ..Scan::prefix("") }).await.unwrap();
    assert!(found.into_iter().eq(expected.clone()));
}

/// Lets files be this much larger than the store's is, and says what was allowed before.
fn limit_file_size(room: u64) -> Rlimit {
    let before = getrlimit(Resource::Fsize);
    let size = std::fs::metadata(Path::new(FOLDER).join("data.mdb")).unwrap().len();
    setrlimit(Resource::Fsize, Rlimit { current: Some(size + room), maximum: before.maximum }).unwrap();
    before
}
