//! The real binary as a process of its own: signals, and what survives its sudden death.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::client;
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run};
use testkit::in_time;
use tokio::time::Instant;

use crate::one_actor::event_acknowledged;
use crate::scene::creation;

/// A process that is killed when the test ends.
pub(crate) struct Process {
    child: Child,
}

/// How a process ended, and what it said on its way.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Process {
    /// Starts `rivet-engine` with nothing but these settings in its environment; ports are chosen by the system.
    pub(crate) fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::start_with_log(arguments, settings, Stdio::piped())
    }

    /// As [`Self::start`], with another place for what it has to say.
    pub(crate) fn start_with_log(arguments: &[&str], settings: &[(&str, &str)], stderr: Stdio) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rivet-engine"));
        command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        for port in ["RIVET__GUARD__PORT", "RIVET__API_PEER__PORT", "RIVET__METRICS__PORT"] {
            command.env(port, "0");
        }
        command.envs(settings.iter().copied());
        Self { child: command.spawn().unwrap() }
    }

    /// As [`Self::start`] without arguments; returns where it listens, too.
    pub(crate) fn start_and_listen(settings: &[(&str, &str)]) -> (Self, SocketAddr) {
        let mut process = Self::start(&[], settings);
        let address = process.address();
        (process, address)
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the line that says where it listens.
    pub(crate) fn address(&mut self) -> SocketAddr {
        let mut line = String::new();
        BufReader::new(self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let found = line.split("http://").nth(1).and_then(|rest| rest.split(',').next()).map(str::parse);
        found.unwrap_or_else(|| panic!("no address in {line:?}")).unwrap()
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(mut self) -> Ended {
        let status = in_time("the end of a process", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ended { status, stdout, stderr }
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        let signalled = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(signalled.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn on(folder: &Path) -> (Process, SocketAddr) {
    Process::start_and_listen(&[("RIVET__FILE_SYSTEM__PATH", folder.to_str().unwrap())])
}

/// Configures the pool `default`.
pub(crate) async fn put_pool(address: SocketAddr) {
    let config = json!({ "datacenters": { "default": { "normal": {} } } });
    client::call_with(address, http::Method::PUT, "/runner-configs/default?namespace=default", &config).await;
}

/// Creates an actor of the pool `default`; its id.
pub(crate) async fn create(address: SocketAddr, key: Option<&str>) -> String {
    let path = "/actors?namespace=default";
    let answer = client::call_with(address, http::Method::POST, path, &creation("counter", key)).await;
    answer.json()["actor"]["actor_id"].as_str().unwrap().to_owned()
}

/// An actor as the API shows it.
pub(crate) async fn actor(address: SocketAddr, actor_id: &str) -> Value {
    let path = format!("/actors?namespace=default&actor_id={actor_id}");
    client::call(address, http::Method::GET, &path).await.json()["actors"][0].clone()
}

#[tokio::test]
async fn a_signal_ends_it_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = on(folder.path());
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    process.terminate();
    assert_eq!(envoy.expect_close().await.code_and_cause(), (1011, "ws.going_away"));
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_sudden_death() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = on(folder.path());
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    let actor_id = create(address, Some("k")).await;
    let run = envoy.start_actor().await;
    let soon = std::time::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(1);
    envoy.set_alarm(&run, Some(soon.as_millis() as i64));
    envoy.wants_sleep(&run);
    envoy.expect_stop(&run).await;
    envoy.stopped(&run);
    event_acknowledged(&mut envoy, &run.checkpoint(3)).await;
    process.kill();

    let (_process, address) = on(folder.path());
    let holder = client::call(address, http::Method::GET, "/actors?namespace=default&name=counter&key=k").await.json();
    assert_eq!(holder["actors"][0]["actor_id"], actor_id.as_str());
    let mut envoy = FakeEnvoy::join(address, envoy.params()).await;
    assert_eq!(envoy.start_actor().await, Run { actor_id, generation: 2 });
}

/// Checklist 53.
#[tokio::test]
async fn after_a_sudden_death_all_sleepers_can_be_woken_at_once() {
    const SLEEPERS: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = on(folder.path());
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    let mut sleepers = Vec::new();
    for _actor in 0..SLEEPERS {
        let actor_id = create(address, None).await;
        let run = envoy.start_actor().await;
        envoy.wants_sleep(&run);
        let (index, _) = envoy.expect_stop(&run).await;
        envoy.acknowledge(&run, index);
        envoy.stopped(&run);
        event_acknowledged(&mut envoy, &run.checkpoint(2)).await;
        sleepers.push(actor_id);
    }
    process.kill();

    let (_process, address) = on(folder.path());
    let healthy = Instant::now();
    let mut envoy = FakeEnvoy::join(address, envoy.params()).await;
    let call = |actor_id: &String| {
        let request = client::empty(http::Method::GET, &format!("/gateway/{actor_id}/request/x"));
        tokio::spawn(client::send(address, request))
    };
    let answers: Vec<_> = sleepers.iter().map(call).collect();
    for _actor in &sleepers {
        assert_eq!(envoy.start_actor().await.generation, 2);
    }
    for _actor in &sleepers {
        let request = envoy.expect_request().await;
        envoy.respond(&request, 200, &[], "awake");
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().text(), "awake");
    }
    assert!(healthy.elapsed() < Duration::from_secs(1), "{:?}", healthy.elapsed());
}

#[tokio::test]
async fn a_sudden_death_leaves_running_actors_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = on(folder.path());
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    let actor_id = create(address, None).await;
    let run = envoy.start_actor().await;
    // It is shown as running a little earlier; then a host would have to say so again.
    event_acknowledged(&mut envoy, &run.checkpoint(0)).await;
    let running = actor(address, &actor_id).await;
    assert!(running["connectable_ts"].is_i64(), "{running}");
    process.kill();
    let (_process, address) = on(folder.path());
    let mut envoy = FakeEnvoy::join(address, envoy.params()).await;
    assert_eq!(actor(address, &actor_id).await, running);
    let request = client::empty(http::Method::GET, &format!("/gateway/{actor_id}/request/x"));
    let answer = tokio::spawn(client::send(address, request));
    let request = envoy.expect_request().await;
    assert_eq!(request.start.actor_generation, Some(1));
    envoy.respond(&request, 200, &[], "as before");
    assert_eq!(answer.await.unwrap().text(), "as before");
}

#[tokio::test]
async fn a_request_that_does_not_end_does_not_keep_hosts_from_hearing() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = Process::start_and_listen(&[
        ("RIVET__FILE_SYSTEM__PATH", folder.path().to_str().unwrap()),
        ("RIVET__RUNTIME__GUARD_SHUTDOWN_DURATION", "1"),
    ]);
    put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    let actor_id = create(address, None).await;
    envoy.start_actor().await;
    let request = client::empty(http::Method::GET, &format!("/gateway/{actor_id}/request/x"));
    let endless = tokio::spawn(client::try_send(address, request));
    envoy.expect_request().await;
    process.terminate();
    assert_eq!(envoy.expect_close().await.code_and_cause(), (1011, "ws.going_away"));
    assert!(endless.await.unwrap().is_err());
    assert_eq!(process.ended().await.status.code(), Some(0));
}
