//! Backup, restore, check and export: the real binary, beside an engine that runs, and without one.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use store::{Batch, LmdbOptions, Scan, Store};
use testkit::client;
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run};

use crate::one_actor::event_acknowledged;
use crate::page_host::Database;
use crate::process::{Ended, Process, create, on, put_pool};
use crate::scene::{TestEngine, is_set};

/// Runs `rivet-engine` on a data folder, to its end.
async fn command(data: &Path, arguments: &[&str]) -> Ended {
    Process::start(arguments, &[("RIVET__FILE_SYSTEM__PATH", data.to_str().unwrap())]).ended().await
}

/// What it said when it did what it was asked for.
async fn done(data: &Path, arguments: &[&str]) -> String {
    let ended = command(data, arguments).await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    ended.stdout
}

/// The code of the error with which it refused.
async fn refused(data: &Path, arguments: &[&str]) -> String {
    let ended = command(data, arguments).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let code = ended.stderr.strip_prefix("Error: [").and_then(|rest| rest.split(']').next());
    code.unwrap_or_else(|| panic!("{ended:?}")).to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An actor that runs, acknowledged.
async fn running(address: std::net::SocketAddr, envoy: &mut FakeEnvoy, key: &str) -> Run {
    create(address, Some(key)).await;
    let run = envoy.start_actor().await;
    event_acknowledged(envoy, &run.checkpoint(0)).await;
    run
}

#[tokio::test]
async fn what_is_backed_up_beside_a_running_engine_can_be_restored() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup, again) = (folder.path().join("data"), folder.path().join("backup"), folder.path().join("again"));
    let (process, address) = on(&data);
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    let run = running(address, &mut envoy, "k").await;
    let mut database = Database::of(&run);
    database.commit(&mut envoy, 300).await.unwrap();
    let said = done(&data, &["backup", text(&backup)]).await;
    assert!(said.starts_with("Backed up ") && said.contains(text(&backup)), "{said}");
    let then = (database.head, database.pages.clone());
    database.commit(&mut envoy, 1).await.unwrap();

    assert_eq!(refused(&data, &["backup", text(&backup)]).await, "copy.not_empty");
    assert_eq!(refused(&data, &["restore", text(&backup)]).await, "copy.not_empty");
    assert!(done(&data, &["check"]).await.contains(": no damage."));
    assert!(done(&data, &["check", text(&backup)]).await.contains(": no damage."));
    database.check(&mut envoy).await;
    process.kill();

    let said = done(&again, &["restore", text(&backup)]).await;
    assert!(said.starts_with("Restored ") && said.contains(text(&again)), "{said}");
    let (_process, address) = on(&again);
    let holder = client::call(address, http::Method::GET, "/actors?namespace=default&name=counter&key=k").await.json();
    assert_eq!(holder["actors"][0]["actor_id"], run.actor_id.as_str());
    let mut envoy = FakeEnvoy::join(address, envoy.params()).await;
    (database.head, database.pages) = then;
    database.check(&mut envoy).await;
    database.commit(&mut envoy, 1).await.unwrap();
}

/// What is in flight is not damage: each copy and each walk sees one state.
#[tokio::test]
async fn copies_and_checks_under_load_are_whole() {
    const COMMITS: usize = 24;
    let engine = TestEngine::start(serde_json::json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut envoy = engine.host().await;
    let address = engine.address();
    let mut load = tokio::spawn(async move {
        let mut commits = 0;
        // Actors come, write and go, so that records, indexes and data change all the time.
        while commits < COMMITS {
            let run = running(address, &mut envoy, "k").await;
            let mut database = Database::of(&run);
            for count in [1, 20, 1, 60] {
                database.commit(&mut envoy, count).await.unwrap();
                commits += 1;
            }
            let gone = http::Request::delete(format!("/actors/{}?namespace=default", run.actor_id));
            let gone = tokio::spawn(client::send(address, gone.body(http_body_util::Full::default()).unwrap()));
            envoy.expect_stop(&run).await;
            envoy.stopped(&run);
            gone.await.unwrap();
        }
    });
    let mut copies = 0;
    let copy = async {
        loop {
            let backup = folder.path().join(copies.to_string());
            done(engine.folder(), &["backup", text(&backup)]).await;
            done(engine.folder(), &["check", text(&backup)]).await;
            done(engine.folder(), &["check"]).await;
            copies += 1;
        }
    };
    tokio::select! {
        ended = &mut load => ended.unwrap(),
        () = copy => {}
    }
    assert!(copies > 0, "the load was over before the first copy");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_exported_database_is_what_the_host_wrote() {
    let engine = TestEngine::start(serde_json::json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("actor.sqlite");
    let mut envoy = engine.host().await;
    let run = running(engine.address(), &mut envoy, "k").await;
    let export = ["actor", "export", &run.actor_id, text(&file)];
    assert_eq!(refused(engine.folder(), &export).await, "actor.no_database");
    let mut database = Database::of(&run);
    database.commit(&mut envoy, 3).await.unwrap();
    database.commit(&mut envoy, 7).await.unwrap();

    assert_eq!(done(engine.folder(), &export).await, format!("Wrote 10 pages, as of commit 2, to {}.\n", text(&file)));
    let written: Vec<u8> = database.pages.values().flatten().copied().collect();
    assert!(std::fs::read(&file).unwrap() == written);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");

    assert_eq!(refused(engine.folder(), &export).await, "export.file_exists");
    let other = folder.path().join("other");
    let precious = folder.path().join("other.partial");
    std::fs::write(&precious, "somebody's").unwrap();
    assert_eq!(refused(engine.folder(), &["actor", "export", &run.actor_id, text(&other)]).await, "export.file_exists");
    assert_eq!(std::fs::read(&precious).unwrap(), b"somebody's");
    std::fs::remove_file(&precious).unwrap();
    let of = async |actor: &str| refused(engine.folder(), &["actor", "export", actor, text(&other)]).await;
    assert_eq!(of("nonsense").await, "actor.invalid_id");
    // An id of the right form: that of a namespace.
    let namespaces = engine.get("/namespaces").await.json();
    assert_eq!(of(namespaces["namespaces"][0]["namespace_id"].as_str().unwrap()).await, "actor.not_found");
    let gone = engine.destroy_soon(&run.actor_id);
    envoy.expect_stop(&run).await;
    envoy.stopped(&run);
    gone.await.unwrap();
    engine.actor_when(&run.actor_id, "a destroyed actor", |actor| is_set(&actor["destroy_ts"])).await;
    // Its data is removed in the background.
    let reason = of(&run.actor_id).await;
    assert!(reason == "actor.destroyed" || reason == "actor.not_found", "{reason}");
    assert!(!other.exists());
    engine.shutdown().await;
}

/// A page and a record, damaged: the check names the actor, a damaged backup is not restored without being told to, and the
/// engine serves everybody else.
#[tokio::test]
async fn damage_is_named_and_hurts_its_actor_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (process, address) = on(&data);
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    let (hurt, well) = (running(address, &mut envoy, "hurt").await, running(address, &mut envoy, "well").await);
    let mut healthy = Database::of(&well);
    healthy.commit(&mut envoy, 2).await.unwrap();
    Database::of(&hurt).commit(&mut envoy, 2).await.unwrap();
    process.kill();

    let id: protocol::id::Id = hurt.actor_id.parse().unwrap();
    change_rows(&data, |rows, batch| {
        let page = rows.iter().find(|(key, _)| key[0] == 0x42 && key[1..19] == id.as_bytes()[..]).unwrap();
        let mut damaged = page.1.to_vec();
        damaged[100] ^= 1;
        batch.put(page.0.clone(), damaged);
    })
    .await;
    let checked = command(&data, &["check", "--json"]).await;
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let found: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!((&found["damaged"], &found["findings_total"], &found["actors"]), (&true.into(), &1.into(), &2.into()));
    let finding = &found["findings"][0];
    assert_eq!((&finding["code"], &finding["actor"]), (&"row.damaged".into(), &hurt.actor_id.as_str().into()));
    let told = command(&data, &["check"]).await;
    assert!(told.stdout.starts_with(&format!("actor {}: a page row is damaged: page 1 [", hurt.actor_id)), "{told:?}");
    assert_eq!(refused(&data, &["actor", "export", &hurt.actor_id, text(&folder.path().join("x"))]).await, "store.damaged");

    let (backup, again) = (folder.path().join("backup"), folder.path().join("again"));
    done(&data, &["backup", text(&backup)]).await;
    assert_eq!(refused(&again, &["restore", text(&backup)]).await, "copy.damage_inside");
    assert!(!again.exists());
    let said = done(&again, &["restore", "--even-if-damaged", text(&backup)]).await;
    assert!(said.contains(&hurt.actor_id), "{said}");

    let (_process, address) = on(&again);
    let mut envoy = FakeEnvoy::join(address, envoy.params()).await;
    healthy.check(&mut envoy).await;
    healthy.commit(&mut envoy, 1).await.unwrap();
    let request = protocol::envoy::SqliteGetPagesRequest {
        actor_id: hurt.actor_id.clone(),
        pgnos: vec![1],
        expected_generation: Some(1),
        expected_head_txid: None,
    };
    envoy.send(&protocol::envoy::ToRivet::SqliteGetPages { request_id: 1_000, data: request });
    let answer = envoy.expect("an answer", |message| {
        let protocol::envoy::ToEnvoy::SqliteGetPages { request_id: 1_000, data } = message else { return None };
        Some(data.clone())
    });
    let error = answer.await.unwrap_err();
    assert_eq!((error.group.as_str(), error.code.as_str()), ("store", "damaged"));
}

/// Where LMDB's own pages are damaged there is nothing to walk along; that is said, too, whatever happens to who tries.
#[tokio::test]
async fn a_file_that_is_no_database_any_more_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    filled(&data, 1).await;
    let file = data.join("data.mdb");
    let whole = std::fs::read(&file).unwrap();
    let mut garbled = whole.clone();
    // All but the two pages that say where the others are.
    garbled[2 * 4096..].fill(0xa5);
    let (backup, again) = (folder.path().join("backup"), folder.path().join("again"));
    done(&data, &["backup", text(&backup)]).await;
    std::fs::write(backup.join("data.mdb"), &garbled).unwrap();
    assert_eq!(refused(&again, &["restore", text(&backup)]).await, "copy.damaged");
    for damaged in [&whole[..3 * 4096], &garbled, &whole[..100], b""] {
        std::fs::write(&file, damaged).unwrap();
        let checked = command(&data, &["check"]).await;
        assert_eq!(checked.status.code(), Some(1), "{} bytes: {checked:?}", damaged.len());
        let named = checked.stdout.contains("[store.") || checked.stderr.starts_with("Error: [store.");
        assert!(named, "{} bytes: {checked:?}", damaged.len());
    }
}

/// Changes rows of a store that nobody serves.
pub(crate) async fn change_rows(data: &Path, change: impl FnOnce(&[(bytes::Bytes, bytes::Bytes)], &mut Batch)) {
    let store = Store::open_lmdb(LmdbOptions::new(data)).unwrap();
    let rows = store.scan(Scan { max_bytes: usize::MAX, ..Scan::prefix("") }).await.unwrap();
    let mut batch = Batch::new();
    change(&rows, &mut batch);
    store.write(batch).await.unwrap();
    store.close().await;
}

/// A store of some size, with pages of nobody's database.
async fn filled(data: &Path, mebibytes: u32) {
    let store = Store::open_lmdb(LmdbOptions::new(data)).unwrap();
    for number in 0..mebibytes {
        let mut batch = Batch::new();
        batch.put([&[0x42][..], &[0; 18], &number.to_be_bytes()].concat(), vec![number as u8; 1 << 20]);
        store.write(batch).await.unwrap();
    }
    store.close().await;
}

/// Runs `rivet-engine backup` on a data folder where files cannot become larger than a mebibyte, which is less than the copy.
fn back_up_with_little_room(data: &Path, backup: &Path, before: &str) -> std::process::Output {
    let limited = format!("{before} ulimit -f 2048; exec \"$0\" backup \"$1\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &limited, env!("CARGO_BIN_EXE_rivet-engine"), text(backup)]).env_clear();
    shell.env("RIVET__FILE_SYSTEM__PATH", data).output().unwrap()
}

#[tokio::test]
async fn a_backup_without_room_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
    filled(&data, 4).await;
    let ended = back_up_with_little_room(&data, &backup, "trap '' XFSZ;");
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(error.starts_with("Error: [copy.no_room] there is no room for the copy in "), "{error}");
    assert!(!backup.exists());
    done(&data, &["backup", text(&backup)]).await;
}

#[tokio::test]
async fn a_backup_that_was_killed_is_no_backup_until_it_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
    filled(&data, 4).await;
    // The signal for a file that is too large kills whoever does not ignore it: always at the same byte.
    let ended = back_up_with_little_room(&data, &backup, "");
    assert_eq!(ended.status.signal(), Some(rustix::process::Signal::XFSZ.as_raw()), "{ended:?}");
    assert!(backup.join("data.mdb.partial").exists() && !backup.join("data.mdb").exists());
    assert_eq!(refused(&data, &["check", text(&backup)]).await, "store.unfinished");
    assert_eq!(refused(&folder.path().join("new"), &["restore", text(&backup)]).await, "store.unfinished");
    done(&data, &["backup", text(&backup)]).await;
}
