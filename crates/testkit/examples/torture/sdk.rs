//! The load of real applications on the unmodified npm package: a process of its own, `conformance/torture.mjs`, which gets
//! its orders as lines of JSON and answers each with one.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::in_time;
use testkit::process::EngineProcess;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::ledger::Violation;

/// For a host that has to find back to the engine, and all it then has to read.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends, and its host with it, when its input does: when this value is dropped or this process has died.
pub(crate) struct SdkLoad {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// What it counted last.
    counts: Value,
    /// Its actors, once they were compared for the first time.
    actor_ids: Vec<String>,
}

impl SdkLoad {
    /// Starts the process; `conformance` is the folder of that name, `folder` one for its logs.
    pub(crate) fn start(conformance: &Path, folder: &Path, engine: &EngineProcess, seed: u64) -> Self {
        let mut command = Command::new("node");
        command.arg(conformance.join("torture.mjs")).args(["--endpoint", &format!("http://{}", engine.address())]);
        command.arg("--folder").arg(folder).args(["--seed", &seed.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Node.js starts");
        let orders = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, orders, answers, counts: Value::Null, actor_ids: Vec::new() }
    }

    /// Gives an order and waits until it is carried out.
    pub(crate) async fn order(&mut self, order: Value) -> Result<(), Violation> {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.expect("the load of the SDK takes orders");
        let answer = tokio::time::timeout(PATIENCE, self.answers.next_line()).await;
        let Ok(answer) = answer else { return Err(Violation(format!("the load of the SDK does not answer {order}"))) };
        let line = answer.expect("a pipe").unwrap_or_else(|| panic!("the load of the SDK has ended after {order}"));
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
        self.counts = answer["counts"].take();
        let ids = answer["actors"].as_array().into_iter().flatten();
        self.actor_ids = ids.filter_map(|id| id.as_str().map(str::to_owned)).collect();
        match answer["violation"].as_str() {
            Some(violation) => Err(Violation(violation.to_owned())),
            None => Ok(()),
        }
    }

    /// The engine is there: waits for the host, starting one where there is none, and compares all that is stored.
    pub(crate) async fn audit(&mut self) -> Result<(), Violation> {
        self.order(json!({ "do": "audit" })).await
    }

    /// Begins to write, and waits until all writers have had an answer.
    pub(crate) async fn load(&mut self) -> Result<(), Violation> {
        self.order(json!({ "do": "load" })).await
    }

    /// The engine was killed then, in milliseconds since 1970, and the host is to go with it or not.
    pub(crate) async fn down(&mut self, killed_at: u128, host_dies: bool) -> Result<(), Violation> {
        self.order(json!({ "do": "down", "killedAt": killed_at as u64, "hostDies": host_dies })).await
    }

    /// Ends the process and its host.
    pub(crate) async fn end(self) {
        let Self { mut child, orders, .. } = self;
        drop(orders);
        in_time("the end of the SDK's load", child.wait()).await.expect("the end of a process");
    }

    pub(crate) fn actor_ids(&self) -> impl Iterator<Item = &str> {
        self.actor_ids.iter().map(String::as_str)
    }

    /// What became of what it wrote.
    pub(crate) fn counts(&self) -> &Value {
        &self.counts
    }
}
