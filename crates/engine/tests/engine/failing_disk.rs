//! A disk that becomes read-only, and one that cannot keep what was written to it, under an engine that runs. The system
//! gives both to those who mount file systems; here a library that is loaded into the process says them for its one file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use protocol::envoy::ToEnvoy;
use tempfile::TempDir;
use testkit::client;
use testkit::envoy::FakeEnvoy;

use crate::full_disk::{Scene, ends_well_and_has_everything, nothing_is_stored_until};
use crate::process::{create, on};
use crate::scene::{creation, post};

/// A data folder on a disk that fails when it is told to.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/failing_disk.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"]).arg(folder.path().join("faults.so")).arg(source);
        assert!(compiler.status().unwrap().success());
        Self { folder }
    }

    fn data(&self) -> PathBuf {
        // The system names open files by their real path.
        self.folder.path().canonicalize().unwrap().join("data")
    }

    fn fault(&self) -> PathBuf {
        self.folder.path().join("fault")
    }

    /// Begins a fault that `failing_disk.c` knows.
    fn begins(&self, fault: &str) {
        std::fs::write(self.fault(), fault).unwrap();
    }

    fn ends(&self) {
        std::fs::remove_file(self.fault()).unwrap();
    }

    /// An engine on it.
    async fn scene(&self) -> Scene {
        let (library, file, fault) = (self.folder.path().join("faults.so"), self.data().join("data.mdb"), self.fault());
        let faults = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAULTY_FILE", file.to_str().unwrap()),
            ("FAULT", fault.to_str().unwrap()),
        ];
        Scene::start_with(&self.data(), &faults).await
    }
}

#[tokio::test]
async fn a_disk_that_is_read_only_for_a_while_loses_nothing_and_needs_no_restart() {
    let disk = Disk::new();
    let mut scene = disk.scene().await;
    disk.begins("erofs");
    nothing_is_stored_until(&mut scene, "read_only", |_| disk.ends()).await;

    ends_well_and_has_everything(scene, &disk.data(), "make it writable").await;
}

/// What could not be synced may be gone, whatever a second try says. So there is none.
#[tokio::test]
async fn a_disk_that_keeps_nothing_ends_the_process_and_nothing_is_acknowledged() {
    let disk = Disk::new();
    let Scene { process, address, mut envoy, mut database, run, .. } = disk.scene().await;
    disk.begins("eio");
    let request = post("/actors?namespace=default").header("content-type", "application/json");
    let request = request.body(creation("counter", Some("lost")).to_string().into()).unwrap();
    let created = tokio::spawn(client::try_send(address, request));
    envoy.wants_sleep(&run);
    let event = run.checkpoint(1);
    database.send_commit(&envoy, 3);

    assert_eq!(envoy.expect_close().await.code_and_cause(), (1011, "ws.going_away"));
    let acknowledged = |message: &ToEnvoy| {
        matches!(message, ToEnvoy::AckEvents(acks) if acks.last_event_checkpoints.contains(&event))
            || matches!(message, ToEnvoy::SqliteCommit { data: Ok(_), .. })
    };
    envoy.expect_none(Duration::ZERO, "an acknowledgement", acknowledged).await;
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("Error: [store.failed] the store failed: Input/output error"), "{}", ended.stderr);
    // Whether there was still time for an answer is another matter.
    assert!(!created.await.unwrap().is_ok_and(|answer| answer.status.is_success()));

    let (_process, address) = on(&disk.data());
    envoy = FakeEnvoy::join(address, envoy.params()).await;
    database.check(&mut envoy).await;
    database.commit(&mut envoy, 3).await.unwrap();
    create(address, Some("lost")).await;
}
