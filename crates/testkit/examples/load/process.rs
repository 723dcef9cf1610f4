//! The engine under measurement, as a process of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use testkit::client;
use testkit::eventually;
use tokio::time::Instant;

/// Ends with this value.
pub(crate) struct EngineProcess {
    child: Child,
    address: SocketAddr,
    command: Command,
    /// Its data; removed after it.
    folder: tempfile::TempDir,
}

/// What `/proc` says of a process, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// The part of it that is not backed by files.
    pub(crate) anonymous: u64,
}

impl EngineProcess {
    /// Starts an engine on free ports with empty data, and gives it the pool `default`.
    pub(crate) async fn start(binary: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let first_port = three_free_ports();
        let mut command = Command::new(binary);
        command.arg("start").env_clear().env("HOME", folder.path()).current_dir(folder.path());
        for (part, port) in ["GUARD", "API_PEER", "METRICS"].into_iter().zip(first_port..) {
            command.env(format!("RIVET__{part}__HOST"), "127.0.0.1").env(format!("RIVET__{part}__PORT"), port.to_string());
        }
        command.env("RIVET__FILE_SYSTEM__PATH", folder.path().join("data")).env("RIVET__TELEMETRY__ENABLED", "false");
        // The published engine would put work off while the machine is busy.
        command.env("RIVET__RUNTIME__WORKER_CPU_MAX", "64000");
        // What is measured is not how soon the engine refuses.
        for limit in ["ACTOR_CREATE_RATE_LIMIT_REQUESTS", "ENVOY_WEBSOCKET_RATE_LIMIT_REQUESTS"] {
            command.env(format!("RIVET__PEGBOARD__{limit}"), "1000000000");
        }
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, first_port));
        let engine = Self { child, address, command, folder };
        engine.until_healthy().await;
        let pool = json!({ "datacenters": { "default": { "normal": {} } } });
        client::call_with(address, Method::PUT, "/runner-configs/default?namespace=default", &pool).await;
        engine
    }

    async fn until_healthy(&self) {
        eventually("the engine's health route", async || {
            let answer = client::try_send(self.address, client::empty(Method::GET, "/health")).await.ok()?;
            (answer.status == StatusCode::OK).then_some(())
        })
        .await;
    }

    /// Kills it and starts it again on the same data; returns how long it took from there until it was healthy.
    pub(crate) async fn kill_and_start(&mut self) -> Duration {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let since = Instant::now();
        self.child = self.command.spawn().unwrap();
        self.until_healthy().await;
        since.elapsed()
    }

    /// Bytes that its data takes on disk.
    pub(crate) fn data_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.folder.path().join("data")).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
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
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name of the program, which may hold spaces: field 3 and so on; user and system time are 14 and 15.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: u32 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
        TICK * ticks
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Below the ports that the system gives to clients: a client that dials one of those can meet itself.
fn three_free_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (21_000..32_000).step_by(3).find(|first| (*first..first + 3).all(is_free)).expect("three free ports")
}
