//! What only the driver on disk does.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use std::fs;
use std::sync::mpsc;

use bytes::Bytes;
use store::{Batch, Decision, LmdbOptions, Reads, Scan, Store, View};

use support::{options, put};

async fn get(store: &Store, key: &'static str) -> Option<Bytes> {
    store.get(vec![key.into()]).await.unwrap().remove(0)
}

#[tokio::test]
async fn data_survives_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_lmdb(LmdbOptions::new(folder.path())).unwrap();
    store.write(put("written", "1")).await.unwrap();
    store.write_lazy(put("lazy", "2")).unwrap();
    store.close().await;

    let store = Store::open_lmdb(LmdbOptions::new(folder.path())).unwrap();
    assert_eq!(get(&store, "written").await, Some("1".into()));
    assert_eq!(get(&store, "lazy").await, Some("2".into()));
}

#[tokio::test]
async fn one_folder_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_lmdb(options(&folder)).unwrap();
    assert_eq!(Store::open_lmdb(options(&folder)).unwrap_err().code(), "in_use");
    store.close().await;
    Store::open_lmdb(options(&folder)).unwrap();
}

/// Its threads clear away what LMDB notes for each of them when they end, and nothing may pull that from under them. Many at
/// once, so that threads end while others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_may_go_at_any_time_closed_or_not() {
    let life = async |round: usize| {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_lmdb(options(&folder)).unwrap();
        store.write(put("key", "value")).await.unwrap();
        for _ in 0..8 {
            assert_eq!(get(&store, "key").await, Some("value".into()));
        }
        if round.is_multiple_of(2) {
            store.close().await;
        }
    };
    for _ in 0..20 {
        let lives: Vec<_> = (0..24).map(|round| tokio::spawn(life(round))).collect();
        for ended in lives {
            ended.await.unwrap();
        }
    }
}

#[test]
fn folders_that_cannot_be_used_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| Store::open_lmdb(LmdbOptions::new(folder.path().join(name))).unwrap_err().code();

    // Permissions would not stop the superuser, but a file in the way stops everybody.
    fs::write(folder.path().join("file"), "").unwrap();
    assert_eq!(open("file/below"), "not_writable");

    fs::create_dir(folder.path().join("newer")).unwrap();
    fs::write(folder.path().join("newer/FORMAT"), "3\n").unwrap();
    assert_eq!(open("newer"), "newer_format");

    fs::create_dir(folder.path().join("older")).unwrap();
    fs::write(folder.path().join("older/FORMAT"), "1\n").unwrap();
    assert_eq!(open("older"), "older_format");

    fs::create_dir(folder.path().join("damaged")).unwrap();
    fs::write(folder.path().join("damaged/FORMAT"), "").unwrap();
    assert_eq!(open("damaged"), "unknown_format");

    fs::create_dir(folder.path().join("foreign")).unwrap();
    fs::write(folder.path().join("foreign/data.mdb"), "").unwrap();
    assert_eq!(open("foreign"), "unknown_format");
}

#[tokio::test]
async fn a_full_store_fails_who_is_concerned_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_lmdb(LmdbOptions { map_size_bytes: 1 << 20, ..options(&folder) }).unwrap();

    // All of them wait together, so they share a transaction. The second does not fit.
    let grow = store.update(Reads::keys(["small".into()]), |view| {
        assert!(view.get(0).is_some(), "runs after the neighbour before it, also when it is run again");
        Decision::Commit(put("grown", "2"), ())
    });
    let (small, large, grown, last) = tokio::join!(
        store.write(put("small", "1")),
        store.write(put("large", vec![7; 2 << 20])),
        grow,
        store.write(put("last", "3")),
    );
    small.unwrap();
    assert_eq!(large.unwrap_err().code(), "full");
    grown.unwrap();
    last.unwrap();

    // Fill it to the brim; then deleting must still work, and make room.
    let mut count = 0;
    let full = loop {
        match store.write(put(format!("fill {count:03}"), vec![7; 20_000])).await {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.code(), "full");
    assert!(count > 20, "{count}");
    let mut batch = Batch::new();
    batch.delete_range("fill", "film");
    store.write(batch).await.unwrap();
    // LMDB keeps the state before the last commit, so the room is there one commit later.
    store.write(put("small", "2")).await.unwrap();
    store.write(put("fits again", vec![7; 20_000])).await.unwrap();
    let keys = store.scan(Scan { max_bytes: usize::MAX, ..Scan::prefix("") }).await.unwrap();
    let keys: Vec<_> = keys.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["fits again", "grown", "last", "small"]);
}

#[tokio::test]
async fn an_inbox_that_is_full_makes_callers_wait() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_lmdb(options(&folder)).unwrap();
    // The committer takes nothing out of its inbox while it decides.
    let (decides, deciding) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    let held = store.clone();
    let held = tokio::spawn(async move {
        let decide = move |_: &View<'_>| {
            decides.send(()).unwrap();
            gate.recv().unwrap();
            Decision::Skip(())
        };
        held.update(Reads::keys([]), decide).await
    });
    while deciding.try_recv().is_err() {
        tokio::task::yield_now().await;
    }

    // 4 MiB and a little each, 64 MiB in all: the lazy ones are refused at some point, the others wait.
    let large = |number: u32| put(format!("key {number}"), vec![1; 4 << 20]);
    for number in 0..15 {
        store.write_lazy(large(number)).unwrap();
    }
    assert_eq!(store.write_lazy(large(15)).unwrap_err().code(), "busy");
    let mut waiting = Box::pin(store.write(large(15)));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("there is no room"),
        () = std::future::ready(()) => {}
    }
    go_on.send(()).unwrap();
    waiting.await.unwrap();
    held.await.unwrap().unwrap();
    let keys = (0..=15).map(|number| Bytes::from(format!("key {number}"))).collect();
    assert!(store.get(keys).await.unwrap().iter().all(Option::is_some));
}
