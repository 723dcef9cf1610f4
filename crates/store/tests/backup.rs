//! Copies of a whole store, and reading one beside the process that serves it.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use store::{Batch, LmdbOptions, ReadOnly, Scan, Store, restore_backup, verify_backup};

use support::{put, runtime};

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// A store with values of all kinds of lengths, closed again, and its rows.
fn filled(folder: &Path) -> Rows {
    let mut batch = Batch::new();
    for number in 0..3_000_u32 {
        batch.put(Bytes::from(format!("key {number:05}")), vec![number as u8; number as usize * 7 % 9_000]);
    }
    runtime().block_on(async {
        let store = Store::open_lmdb(LmdbOptions::new(folder)).unwrap();
        store.write(batch).await.unwrap();
        // So that the file has gaps.
        let mut batch = Batch::new();
        batch.delete_range("key 01000", "key 02000");
        store.write(batch).await.unwrap();
        store.close().await;
    });
    rows(folder)
}

fn rows(folder: &Path) -> Rows {
    let read = ReadOnly::open(folder).unwrap();
    let all = read.snapshot(|explorer| {
        let rows = explorer.range(b"", &[0xff]).unwrap();
        rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect::<Result<Rows, _>>()
    });
    all.unwrap().unwrap()
}

fn back_up(from: &Path, to: &Path) -> Result<store::Backup, String> {
    ReadOnly::open(from).unwrap().back_up(to, 1_795_225_270_314).map_err(|error| error.code())
}

fn entries(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_backup_has_every_row_and_gives_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let before = filled(&path("data"));
    let backup = back_up(&path("data"), &path("deep/backup")).unwrap();
    assert_eq!(rows(&path("deep/backup")), before);
    assert_eq!((backup.rows, backup.made_at_ms), (2_000, 1_795_225_270_314));
    assert_eq!(ReadOnly::open(&path("deep/backup")).unwrap().backup(), Some(&backup));
    let length = |name: &str| fs::metadata(path(name)).unwrap().len();
    assert_eq!(backup.bytes, length("deep/backup/data.mdb"));
    assert!(backup.bytes < length("data/data.mdb"), "without the gaps");

    assert_eq!(restore_backup(&path("deep/backup"), &path("again")).unwrap(), backup);
    assert_eq!(rows(&path("again")), before);
    runtime().block_on(async {
        let store = Store::open_lmdb(options_at(&path("again"))).unwrap();
        store.write(put("key 00000", "new")).await.unwrap();
        store.close().await;
    });
    assert_eq!(rows(&path("again"))[0].1, b"new");
    assert_eq!(rows(&path("deep/backup")), before, "a copy of its own");
}

fn options_at(path: &Path) -> LmdbOptions {
    LmdbOptions { durability: store::Durability::Os, ..LmdbOptions::new(path) }
}

#[test]
fn an_empty_store_can_be_backed_up() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async { Store::open_lmdb(options_at(&folder.path().join("data"))).unwrap().close().await });
    back_up(&folder.path().join("data"), &folder.path().join("backup")).unwrap();
    assert_eq!(rows(&folder.path().join("backup")), []);
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let before = filled(&path("data"));
    fs::create_dir(path("empty")).unwrap();
    back_up(&path("data"), &path("empty")).unwrap();

    // A finished backup, a store, anything else.
    assert_eq!(back_up(&path("data"), &path("empty")), Err("copy.not_empty".into()));
    assert_eq!(back_up(&path("data"), &path("data")), Err("copy.not_empty".into()));
    assert_eq!(restore_backup(&path("empty"), &path("data")).unwrap_err().code(), "copy.not_empty");
    fs::create_dir(path("other")).unwrap();
    fs::write(path("other/file"), "precious").unwrap();
    assert_eq!(back_up(&path("data"), &path("other")), Err("copy.not_empty".into()));
    assert_eq!(entries(&path("other")), ["file".to_owned()].into());
    assert_eq!(back_up(&path("data"), &path("other/file")), Err("copy.not_writable".into()));
    assert_eq!((rows(&path("empty")), rows(&path("data"))), (before.clone(), before));
}

#[test]
fn an_interrupted_copy_is_refused_by_everybody_but_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let before = filled(&path("data"));
    back_up(&path("data"), &path("backup")).unwrap();
    // All steps but the last one, and one step before that.
    for interrupted_at in ["FORMAT", "BACKUP"] {
        let to = path(&format!("interrupted at {interrupted_at}"));
        fs::create_dir(&to).unwrap();
        for name in ["LOCK", "FORMAT", "BACKUP"].into_iter().take_while(|name| *name != interrupted_at) {
            fs::write(to.join(name), if name == "FORMAT" { "2\n" } else { "" }).unwrap();
        }
        fs::write(to.join("data.mdb.partial"), "half a store").unwrap();
        assert_eq!(Store::open_lmdb(LmdbOptions::new(&to)).unwrap_err().code(), "unfinished");
        assert_eq!(ReadOnly::open(&to).err().unwrap().code(), "unfinished");
        assert_eq!(restore_backup(&to, &path("new")).unwrap_err().code(), "store.unfinished");
        if interrupted_at == "FORMAT" {
            back_up(&path("data"), &to).unwrap();
        } else {
            restore_backup(&path("backup"), &to).unwrap();
        }
        assert_eq!(rows(&to), before);
    }
    assert!(!path("new").exists());
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    filled(&path("data"));
    back_up(&path("data"), &path("backup")).unwrap();
    let file = path("backup/data.mdb");
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    fs::create_dir(path("to")).unwrap();
    for damaged in [&flipped, &good[..good.len() - 4096]] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(restore_backup(&path("backup"), &path("to")).unwrap_err().code(), "copy.damaged");
        assert_eq!(verify_backup(&path("backup")).unwrap_err().code(), "copy.damaged");
        assert_eq!(entries(&path("to")), BTreeSet::new(), "as empty as before");
    }
    fs::write(&file, &good).unwrap();
    verify_backup(&path("backup")).unwrap();
    restore_backup(&path("backup"), &path("to")).unwrap();
}

#[test]
fn folders_that_are_no_backup_or_no_store_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    filled(&path("data"));
    back_up(&path("data"), &path("backup")).unwrap();
    assert_eq!(Store::open_lmdb(options_at(&path("backup"))).unwrap_err().code(), "is_backup");
    assert_eq!(restore_backup(&path("data"), &path("to")).unwrap_err().code(), "copy.not_a_backup");
    assert_eq!(restore_backup(&path("nothing"), &path("to")).unwrap_err().code(), "store.no_data");
    assert_eq!(ReadOnly::open(&path("nothing")).err().unwrap().code(), "no_data");
    assert!(!path("to").exists() && !path("nothing").exists());
}

#[test]
fn a_target_is_for_one_copy_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    filled(&path("data"));
    fs::create_dir(path("to")).unwrap();
    let held = fs::File::create(path("to/LOCK")).unwrap();
    held.try_lock().unwrap();
    assert_eq!(back_up(&path("data"), &path("to")), Err("copy.in_use".into()));
    drop(held);
    back_up(&path("data"), &path("to")).unwrap();
}

/// There, a process of the same number could be taken for the one that serves.
#[test]
fn a_store_that_another_container_serves_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    filled(&path("data"));
    let mut lock = fs::File::options().write(true).truncate(true).open(path("data/LOCK")).unwrap();
    lock.write_all(b"pid:[1]").unwrap();
    lock.try_lock().unwrap();
    assert_eq!(ReadOnly::open(&path("data")).err().unwrap().code(), "other_container");
    // It has ended.
    drop(lock);
    ReadOnly::open(&path("data")).unwrap();
}

/// Rows that the child writes in pairs.
const PAIRS_BEFORE_THE_BACKUP: usize = 200;

#[test]
fn a_backup_of_a_store_that_is_written_to_is_one_of_its_states() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = child("child_that_writes", folder.path());
    let mut acknowledged = said_by(&mut writer);
    for _ in 0..PAIRS_BEFORE_THE_BACKUP {
        acknowledged.next().unwrap();
    }
    // It goes on meanwhile.
    let rest = std::thread::spawn(move || acknowledged.count());
    let backup = folder.path().join("backup");
    back_up(&folder.path().join("data"), &backup).unwrap();
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(rest.join().unwrap() > 0);
    let names = |prefix: &str| -> Vec<Vec<u8>> {
        let found = rows(&backup).into_iter().filter_map(|(key, _)| key.strip_prefix(prefix.as_bytes()).map(<[u8]>::to_vec));
        found.collect()
    };
    assert_eq!(names("first"), names("second"), "both halves of a batch, or none");
    assert!(names("first").len() >= PAIRS_BEFORE_THE_BACKUP, "all that was acknowledged before");
}

/// A process that is killed while it reads must not make the file of the one that serves grow for ever.
#[test]
fn a_reader_that_is_killed_keeps_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let runtime = runtime();
    let store = runtime.block_on(async {
        let store = Store::open_lmdb(options_at(&data)).unwrap();
        store.write(put("key", vec![1; 1 << 20])).await.unwrap();
        store
    });
    let mut reader = child("child_that_reads", folder.path());
    assert_eq!(said_by(&mut reader).next().unwrap(), "reading");
    reader.kill().unwrap();
    reader.wait().unwrap();
    runtime.block_on(async {
        for round in 0..100_u8 {
            store.write(put("key", vec![round; 1 << 20])).await.unwrap();
        }
        store.close().await;
    });
    let length = fs::metadata(data.join("data.mdb")).unwrap().len();
    assert!(length < 40 << 20, "{length}");
}

fn child(test: &str, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).current_dir(folder);
    fs::write(folder.join(CHILD), "").unwrap();
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Shows a child that it is one, and nobody who runs ignored tests by hand.
const CHILD: &str = "child";

/// What a child says, without what the test harness says.
fn said_by(child: &mut Child) -> impl Iterator<Item = String> + Send + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.filter_map(|line| line.unwrap().strip_prefix("said ").map(str::to_owned))
}

fn say(what: &str) {
    // Straight into the pipe, in one piece: the test harness must not hold it back.
    std::io::stdout().write_all(format!("said {what}\n").as_bytes()).unwrap();
}

#[test]
#[ignore = "a process of its own, started by another test"]
fn child_that_writes() {
    if !Path::new(CHILD).exists() {
        return;
    }
    runtime().block_on(async {
        let store = Store::open_lmdb(LmdbOptions::new("data")).unwrap();
        for number in 0.. {
            let mut batch = Batch::new();
            batch.put(format!("first {number:07}"), vec![1; 5_000]);
            batch.put(format!("second {number:07}"), vec![2; 500]);
            store.write(batch).await.unwrap();
            say("written");
        }
    });
}

#[test]
#[ignore = "a process of its own, started by another test"]
fn child_that_reads() {
    if !Path::new(CHILD).exists() {
        return;
    }
    let read = ReadOnly::open(Path::new("data")).unwrap();
    let seen = read.snapshot(|explorer| {
        assert!(explorer.get(b"key").unwrap().is_some());
        say("reading");
        // Ends by being killed; the time is for the case that the parent is gone.
        std::thread::park_timeout(Duration::from_secs(30));
    });
    seen.unwrap();
}

#[tokio::test]
async fn a_snapshot_stands_still_while_others_write() {
    support::on_every_driver(async |store: Store| {
        store.write(put("key", "before")).await.unwrap();
        let (started, writing) = tokio::sync::oneshot::channel();
        let (written, may_read) = std::sync::mpsc::channel();
        let reader = store.clone();
        let read = tokio::task::spawn_blocking(move || {
            reader.snapshot(|explorer| {
                started.send(()).unwrap();
                may_read.recv().unwrap();
                explorer.get(b"key").unwrap().map(<[u8]>::to_vec)
            })
        });
        writing.await.unwrap();
        store.write(put("key", "after")).await.unwrap();
        written.send(()).unwrap();
        assert_eq!(read.await.unwrap().unwrap().unwrap(), b"before");
        assert_eq!(store.scan(Scan::prefix("key")).await.unwrap()[0].1, "after");
        store.close().await;
        assert_eq!(store.snapshot(|_| ()).unwrap_err().code(), "closed");
    })
    .await;
}
