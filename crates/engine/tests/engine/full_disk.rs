//! A disk that takes no more, and one that gives back what was never written to it. The limit on the size of files stands for a
//! full disk: unlike that, it needs no privileges.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;

use http::Method;
use protocol::envoy::ToEnvoy;
use serde_json::json;
use testkit::client;
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run};
use testkit::eventually;

use crate::one_actor::{A_WHILE, event_acknowledged, later};
use crate::page_host::Database;
use crate::process::{Process, actor, create, on, put_pool};
use crate::scene::{assert_whole, creation, is_set};

/// What says where the rest of the database is.
const METADATA_BYTES: u64 = 2 * 4096;

/// Size of the database's file, in bytes.
fn file_size(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("data.mdb")).unwrap().len()
}

/// What `/health` says of the store.
async fn store_trouble(address: SocketAddr) -> Option<String> {
    let health = client::call(address, Method::GET, "/health").await.json();
    assert_eq!((&health["runtime"], &health["status"]), (&"engine".into(), &"ok".into()));
    health["store"]["code"].as_str().map(str::to_owned)
}

/// Lets a process write files up to this size.
#[cfg(target_os = "linux")]
fn limit_file_size(process: &Process, bytes: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let id = Pid::from_raw(process.id().cast_signed());
    prlimit(id, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// An engine in a process of its own, and a host with two actors.
pub(crate) struct Scene {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) envoy: FakeEnvoy,
    /// That of the first actor, not empty, with history.
    pub(crate) database: Database,
    /// A time between its commits.
    pub(crate) then: i64,
    /// The second actor.
    pub(crate) run: Run,
}

impl Scene {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[]).await
    }

    /// As [`Self::start`], with more in the environment.
    pub(crate) async fn start_with(folder: &Path, more: &[(&str, &str)]) -> Self {
        let settings = [("RIVET__FILE_SYSTEM__PATH", folder.to_str().unwrap()), ("RIVET__SQLITE__PITR__RETENTION_MS", "60000")];
        let (process, address) = Process::start_and_listen(&[&settings, more].concat());
        put_pool(address).await;
        let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
        create(address, Some("writer")).await;
        let mut database = Database::of(&envoy.start_actor().await);
        create(address, Some("other")).await;
        let run = envoy.start_actor().await;
        event_acknowledged(&mut envoy, &run.checkpoint(0)).await;
        database.commit(&mut envoy, 100).await.unwrap();
        let then = later().await;
        database.commit(&mut envoy, 1).await.unwrap();
        Self { process, address, envoy, database, then, run }
    }
}

/// While nothing can be stored, everybody hears why, nothing is acknowledged, and reads go on. When that ends, nobody has to ask
/// for anything again.
pub(crate) async fn nothing_is_stored_until(scene: &mut Scene, code: &str, end: impl FnOnce(&Process)) {
    let Scene { process, address, envoy, database, then, run } = scene;
    let address = *address;
    let refusal = database.commit(envoy, 1).await.unwrap_err();
    assert_eq!((&*refusal.group, &*refusal.code), ("store", code), "{refusal:?}");
    let of_writer = |action: &str| format!("/actors/{}/{action}?namespace=default", database.run.actor_id);
    for (path, body) in [
        ("/actors?namespace=default".to_owned(), creation("counter", None)),
        (of_writer("restore"), json!({ "at": *then })),
        (of_writer("fork"), json!({})),
    ] {
        let refused = client::call_with(address, Method::POST, &path, &body).await;
        assert_eq!(refused.error(), (503, format!("store.{code}")), "{path}: {}", refused.text());
    }
    assert_eq!(store_trouble(address).await.as_deref(), Some(code));
    envoy.wants_sleep(run);
    let event = run.checkpoint(1);
    let acknowledges =
        |message: &ToEnvoy| matches!(message, ToEnvoy::AckEvents(acks) if acks.last_event_checkpoints.contains(&event));
    envoy.expect_none(A_WHILE, "the acknowledgement of what is not stored", acknowledges).await;
    assert!(!is_set(&actor(address, &run.actor_id).await["sleep_ts"]));
    database.check(envoy).await;

    end(process);
    envoy.expect_stop(run).await;
    event_acknowledged(envoy, &event).await;
    let recovered = async || store_trouble(address).await.is_none().then_some(());
    eventually("a store that takes writes again", recovered).await;
    database.commit(envoy, 300).await.unwrap();
    database.check(envoy).await;
}

/// The engine ends in order, and another one on the same data has everything. `advice` is in the log, once.
pub(crate) async fn ends_well_and_has_everything(scene: Scene, folder: &Path, advice: &str) {
    let Scene { process, envoy, mut database, .. } = scene;
    process.terminate();
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stderr.matches("the store refuses writes").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(advice) && ended.stderr.contains("takes writes again"), "{}", ended.stderr);
    assert_whole(folder);

    let (_process, address) = on(folder);
    let mut envoy = FakeEnvoy::join(address, envoy.params()).await;
    database.check(&mut envoy).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_loses_nothing_and_needs_no_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;

    // Little room: what is too large is refused, and the smaller goes on until nothing is left.
    limit_file_size(&scene.process, Some(file_size(folder.path()) + 1_000_000));
    for count in [100, 30, 7, 1] {
        let refusal = loop {
            if let Err(refusal) = scene.database.commit(&mut scene.envoy, count).await {
                break refusal;
            }
        };
        assert_eq!((&*refusal.group, &*refusal.code), ("store", "full"), "{refusal:?}");
        scene.database.check(&mut scene.envoy).await;
    }

    limit_file_size(&scene.process, Some(1));
    nothing_is_stored_until(&mut scene, "full", |process| limit_file_size(process, None)).await;
    ends_well_and_has_everything(scene, folder.path(), "ulimit -f").await;
}

#[tokio::test]
async fn a_store_that_is_beyond_help_ends_the_process_and_sends_its_hosts_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = on(folder.path());
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    create(address, None).await;
    let run = envoy.start_actor().await;

    // All of it but the two pages at its beginning that say where the rest is.
    let file = OpenOptions::new().write(true).open(folder.path().join("data.mdb")).unwrap();
    let rest = file_size(folder.path()) - METADATA_BYTES;
    file.write_all_at(&vec![0; rest as usize], METADATA_BYTES).unwrap();
    // Something to store, if there was nothing left.
    envoy.wants_sleep(&run);
    assert_eq!(envoy.expect_close().await.code_and_cause(), (1011, "ws.going_away"));
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("restore the data from a backup"), "{}", ended.stderr);
    assert!(ended.stderr.contains("Error: [store.damaged]"), "{}", ended.stderr);
}

/// The log may be on the same full disk.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_that_cannot_be_written_breaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("RIVET__FILE_SYSTEM__PATH", folder.path().to_str().unwrap()), ("RUST_LOG", "trace")];
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut process = Process::start_with_log(&[], &settings, full.into());
    let address = process.address();
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    create(address, None).await;
    let mut database = Database::of(&envoy.start_actor().await);
    database.commit(&mut envoy, 10).await.unwrap();
    process.terminate();
    assert_eq!(envoy.expect_close().await.code_and_cause(), (1011, "ws.going_away"));
}
