//! The engine under measurement, as a process of its own.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use testkit::process;
use tokio::time::Instant;

/// Ends with this value.
pub(crate) struct EngineProcess {
    process: process::EngineProcess,
    /// What is in it is removed after the process has ended.
    _folder: tempfile::TempDir,
}

/// What `/proc` says of a process, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// The part of it that is not backed by files.
    pub(crate) anonymous: u64,
}

const SETTINGS: [(&str, &str); 3] = [
    // The published engine would put work off while the machine is busy.
    ("RIVET__RUNTIME__WORKER_CPU_MAX", "64000"),
    // What is measured is not how soon the engine refuses.
    ("RIVET__PEGBOARD__ACTOR_CREATE_RATE_LIMIT_REQUESTS", "1000000000"),
    ("RIVET__PEGBOARD__ENVOY_WEBSOCKET_RATE_LIMIT_REQUESTS", "1000000000"),
];

impl EngineProcess {
    /// Starts an engine on free ports with empty data, and gives it the pool `default`.
    pub(crate) async fn start(binary: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = process::EngineProcess::prepare(binary, folder.path(), &SETTINGS);
        process.start().await;
        process.put_pool("default").await;
        Self { process, _folder: folder }
    }

    /// Kills it and starts it again on the same data; returns how long it took from there until it was healthy.
    pub(crate) async fn kill_and_start(&mut self) -> Duration {
        self.process.kill();
        let since = Instant::now();
        self.process.start().await;
        since.elapsed()
    }

    /// Bytes that its data takes on disk.
    pub(crate) fn data_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.process.data()).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address()
    }

    pub(crate) fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of the process's status");
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            kib * 1024
        };
        Memory { resident: bytes("VmRSS:"), anonymous: bytes("RssAnon:") }
    }
}

/// `USER_HZ`, in which `/proc` counts processor time: 100 on every Linux that this runs on.
const TICK: Duration = Duration::from_millis(10);

impl EngineProcess {
    /// Processor time that it has used so far, in steps of 10 ms.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // Behind the name of the program, which may hold spaces: field 3 and so on; user and system time are 14 and 15.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: u32 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
        TICK * ticks
    }
}
