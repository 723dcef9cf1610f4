//! A disk that takes no more, and one that gives back what was never written to it. The limit on the size of files stands for a
//! full disk: unlike that, it needs no privileges.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use http::Method;
use protocol::envoy::{SqliteCommitRequest, SqliteDirtyPage, SqliteErrorResponse, SqliteGetPagesRequest, ToEnvoy, ToRivet};
use testkit::client;
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run};
use testkit::eventually;

use crate::one_actor::{A_WHILE, event_acknowledged};
use crate::process::{Process, actor, create, on, put_pool};
use crate::scene::is_set;

const PAGE_BYTES: usize = 4096;

/// What a host knows of the database of one of its actors.
pub(crate) struct Database {
    run: Run,
    pub(crate) head: u64,
    pub(crate) pages: BTreeMap<u32, Bytes>,
    requests: u32,
}

impl Database {
    pub(crate) fn of(run: &Run) -> Self {
        Self { run: run.clone(), head: 0, pages: BTreeMap::new(), requests: 0 }
    }

    /// Adds pages in one commit.
    pub(crate) async fn commit(&mut self, envoy: &mut FakeEnvoy, count: u32) -> Result<(), SqliteErrorResponse> {
        let first = self.pages.len() as u32 + 1;
        // Nothing that could be compressed.
        let page = || -> Bytes { (0..PAGE_BYTES / 8).flat_map(|_| rand::random::<[u8; 8]>()).collect() };
        let dirty_pages: Vec<_> = (first..first + count).map(|pgno| SqliteDirtyPage { pgno, bytes: page() }).collect();
        let data = SqliteCommitRequest {
            actor_id: self.run.actor_id.clone(),
            dirty_pages: dirty_pages.clone(),
            db_size_pages: first + count - 1,
            now_ms: 0,
            expected_generation: Some(self.run.generation.into()),
            expected_head_txid: Some(self.head),
        };
        self.requests += 1;
        let request_id = self.requests;
        envoy.send(&ToRivet::SqliteCommit { request_id, data });
        let done = envoy.expect("the answer to a commit", |message| match message {
            ToEnvoy::SqliteCommit { request_id: answered, data } => (*answered == request_id).then(|| data.clone()),
            _ => None,
        });
        self.head = done.await?.head_txid.unwrap();
        self.pages.extend(dirty_pages.into_iter().map(|page| (page.pgno, page.bytes)));
        Ok(())
    }

    /// Everything that was acknowledged is there, and nothing else.
    pub(crate) async fn check(&mut self, envoy: &mut FakeEnvoy) {
        let data = SqliteGetPagesRequest {
            actor_id: self.run.actor_id.clone(),
            pgnos: (1..=self.pages.len() as u32 + 1).collect(),
            expected_generation: Some(self.run.generation.into()),
            expected_head_txid: None,
        };
        self.requests += 1;
        envoy.send(&ToRivet::SqliteGetPages { request_id: self.requests, data });
        let found = envoy.expect("pages", |message| match message {
            ToEnvoy::SqliteGetPages { data, .. } => Some(data.clone().unwrap()),
            _ => None,
        });
        let found = found.await;
        assert_eq!(found.head_txid, Some(self.head));
        let pages = found.pages.into_iter().filter_map(|page| Some((page.pgno, page.bytes?)));
        assert!(pages.eq(self.pages.clone()));
    }
}

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

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_loses_nothing_and_needs_no_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = on(folder.path());
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    let writer = create(address, Some("writer")).await;
    let mut database = Database::of(&envoy.start_actor().await);
    let other = create(address, Some("other")).await;
    let run = envoy.start_actor().await;
    database.commit(&mut envoy, 100).await.unwrap();

    // Little room: what is too large is refused, and the smaller goes on until nothing is left.
    limit_file_size(&process, Some(file_size(folder.path()) + 1_000_000));
    for count in [100, 30, 7, 1] {
        let refusal = loop {
            if let Err(refusal) = database.commit(&mut envoy, count).await {
                break refusal;
            }
        };
        assert_eq!((&*refusal.group, &*refusal.code), ("store", "full"), "{refusal:?}");
        database.check(&mut envoy).await;
    }

    // No room at all. Nothing is acknowledged, and everybody hears why.
    limit_file_size(&process, Some(1));
    let refused =
        client::call_with(address, Method::POST, "/actors?namespace=default", &crate::scene::creation("counter", None)).await;
    assert_eq!(refused.error(), (503, "store.full".to_owned()), "{}", refused.text());
    assert_eq!(store_trouble(address).await.as_deref(), Some("full"));
    envoy.wants_sleep(&run);
    let event = run.checkpoint(1);
    let acknowledges =
        |message: &ToEnvoy| matches!(message, ToEnvoy::AckEvents(acks) if acks.last_event_checkpoints.contains(&event));
    envoy.expect_none(A_WHILE, "the acknowledgement of what is not stored", acknowledges).await;
    assert!(!is_set(&actor(address, &other).await["sleep_ts"]));
    database.check(&mut envoy).await;

    // Room again. Nobody has to ask for anything.
    limit_file_size(&process, None);
    envoy.expect_stop(&run).await;
    event_acknowledged(&mut envoy, &event).await;
    let recovered = async || store_trouble(address).await.is_none().then_some(());
    eventually("a store that takes writes again", recovered).await;
    database.commit(&mut envoy, 300).await.unwrap();
    database.check(&mut envoy).await;
    assert_eq!(actor(address, &writer).await["generation"], actor(address, &other).await["generation"]);

    process.terminate();
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stderr.matches("the store refuses writes").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("ulimit -f") && ended.stderr.contains("takes writes again"), "{}", ended.stderr);

    let (_process, address) = on(folder.path());
    let mut envoy = FakeEnvoy::join(address, envoy.params()).await;
    database.check(&mut envoy).await;
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
    let rest = file_size(folder.path()) as usize - 2 * PAGE_BYTES;
    file.write_all_at(&vec![0; rest], 2 * PAGE_BYTES as u64).unwrap();
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
