//! An engine binary as a process of its own, which can be killed and started again on the same ports and data.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use http::{Method, StatusCode};
use rand::RngExt;
use serde_json::{Value, json};

use crate::{PATIENCE, client};

/// Between two looks at an engine that starts.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Lines of the log that are quoted when an engine does not start.
const QUOTED_LINES: usize = 20;
/// Below the ports that the system gives to clients: a client that dials one of those can meet itself.
const PORTS: std::ops::Range<u16> = 21_000..32_000;

/// Ends with this value.
pub struct EngineProcess {
    binary: PathBuf,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    address: SocketAddr,
    /// While it runs.
    child: Option<Child>,
}

impl EngineProcess {
    /// An engine on free ports of the loopback address, with its data and its log below `folder`; nothing runs yet.
    /// `settings` are variables of its environment, beyond those that say where things are.
    ///
    /// # Panics
    /// When no ports are free.
    pub fn prepare(binary: &Path, folder: &Path, settings: &[(&str, &str)]) -> Self {
        let first_port = three_free_ports();
        let text = |path: PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        let mut environment = vec![
            ("HOME".to_owned(), text(folder.to_owned())),
            ("RIVET__FILE_SYSTEM__PATH".to_owned(), text(folder.join("data"))),
            ("RIVET__TELEMETRY__ENABLED".to_owned(), "false".to_owned()),
        ];
        for (part, port) in ["GUARD", "API_PEER", "METRICS"].into_iter().zip(first_port..) {
            environment.push((format!("RIVET__{part}__HOST"), "127.0.0.1".to_owned()));
            environment.push((format!("RIVET__{part}__PORT"), port.to_string()));
        }
        environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, first_port));
        Self { binary: binary.to_owned(), folder: folder.to_owned(), environment, address, child: None }
    }

    /// Where clients and hosts find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder of its data.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where it writes what it has to say.
    pub fn log(&self) -> PathBuf {
        self.folder.join("engine.log")
    }

    /// The number of its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("a running engine").id()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env_clear().current_dir(&self.folder).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the process and waits for nothing.
    ///
    /// # Panics
    /// When that fails, or it runs already.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the engine runs already");
        let log: File = OpenOptions::new().create(true).append(true).open(self.log()).expect("a log file");
        let mut command = self.command();
        command.arg("start").stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().expect("the engine's binary starts"));
    }

    /// Starts the process and waits until it answers its health route.
    ///
    /// # Panics
    /// As [`Self::spawn`]; and when it ends, or does not answer in time.
    pub async fn start(&mut self) {
        self.spawn();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.is_healthy().await {
            let ended = self.child.as_mut().expect("a running engine").try_wait().expect("the state of a process");
            if let Some(status) = ended {
                panic!("the engine ended while starting: {status}; {}", self.log_tail());
            }
            assert!(tokio::time::Instant::now() < deadline, "the engine does not answer; {}", self.log_tail());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn is_healthy(&self) -> bool {
        let answer = client::try_send(self.address, client::empty(Method::GET, "/health")).await;
        answer.is_ok_and(|answer| answer.status == StatusCode::OK)
    }

    /// Ends it with a signal that nobody can catch; whether it was still running.
    ///
    /// # Panics
    /// When it was not started.
    pub fn kill(&mut self) -> bool {
        let mut child = self.child.take().expect("an engine that was started");
        let was_running = child.try_wait().expect("the state of a process").is_none();
        // Fails when it has ended in between.
        let _ = child.kill();
        child.wait().expect("the end of a process");
        was_running
    }

    /// Runs another command of the same binary with the same settings, and waits for its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("the engine's binary starts")
    }

    /// Gives the engine a pool of hosts that connect by themselves.
    ///
    /// # Panics
    /// When the engine refuses.
    pub async fn put_pool(&self, name: &str) {
        let config: Value = json!({ "datacenters": { "default": { "normal": {} } } });
        let path = format!("/runner-configs/{name}?namespace=default");
        let answer = client::call_with(self.address, Method::PUT, &path, &config).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }

    /// What it has said last.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let quoted = lines.get(lines.len().saturating_sub(QUOTED_LINES)..).unwrap_or_default();
        format!("the end of its log:\n{}", quoted.join("\n"))
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

fn three_free_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    // Anywhere in the range, so that two programs that look at the same time hardly choose the same.
    let mut random = rand::rng();
    let mut tries = std::iter::repeat_with(|| random.random_range(PORTS.start..PORTS.end - 2)).take(1_000);
    tries.find(|first| (*first..first + 3).all(is_free)).expect("three free ports")
}
