//! [`testkit::proxy`] as a program, for tests in other languages: commands come as lines of JSON on standard input, answers
//! and events go as lines of JSON to standard output. It ends when its input does.
//!
//! Each command has an `id` of the caller's choice, which its one answer repeats:
//!
//! | Command | Answer |
//! |---|---|
//! | `{"id":1,"do":"listen","proxy":"NAME","upstream":"IP:PORT"}` | `{"id":1,"address":"127.0.0.1:PORT"}` |
//! | `{"id":2,"do":"set","proxy":"NAME","scope":SCOPE,"direction":DIRECTION,"fault":FAULT}` | `{"id":2,"met":OPEN CONNECTIONS}` |
//! | `{"id":3,"do":"look","proxy":"NAME"}` | `{"id":3,"open":[{"connection":1,"up_bytes":0,"down_bytes":0}],"overtaken":0}` |
//! | `{"id":4,"do":"disturb","proxy":"NAME","seed":1,"ms":3000}` | `{"id":4}` when the time is over |
//!
//! SCOPE is `"open"`, `"next"`, `"future"`, `"all"` or `{"one":CONNECTION}`, DIRECTION `"up"`, `"down"` or `"both"`, and FAULT
//! as [`testkit::proxy::Fault`] is written. A command that cannot be carried out is answered
//! `{"id":1,"error":"…"}`. Events have a `proxy` and no `id`: those of [`testkit::proxy::Event`], and
//! `{"event":"disturbed",…}` for each step of a disturbance.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::proxy::{Direction, Fault, FaultyProxy, Scope, Step};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// Lines that wait to be read or written; above it whoever produces them waits.
const LINES_MAX: usize = 1024;

#[derive(Deserialize)]
struct Line {
    id: u64,
    proxy: String,
    #[serde(flatten)]
    command: Command,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Command {
    Listen { upstream: SocketAddr },
    Set { scope: Scope, direction: Way, fault: Fault },
    Look,
    Disturb { seed: u64, ms: u64 },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    Up,
    Down,
    Both,
}

#[derive(Default)]
struct Proxies(HashMap<String, Arc<FaultyProxy>>);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (read, mut lines) = mpsc::channel(LINES_MAX);
    let (out, written) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || read_lines(&read));
    std::thread::spawn(move || write_lines(written));
    let mut proxies = Proxies::default();
    while let Some(line) = lines.recv().await {
        let answer = match serde_json::from_str::<Line>(&line) {
            Ok(line) => proxies.obey(line, &out).await,
            Err(error) => Some(json!({ "error": error.to_string() })),
        };
        if let Some(answer) = answer {
            say(&out, answer).await;
        }
    }
}

/// Ends with the input.
fn read_lines(read: &mpsc::Sender<String>) {
    for line in std::io::stdin().lines() {
        let Ok(line) = line else { return };
        if read.blocking_send(line).is_err() {
            return;
        }
    }
}

/// Ends when nobody is left to say anything, or to listen.
fn write_lines(mut written: mpsc::Receiver<Value>) {
    let mut output = std::io::stdout().lock();
    while let Some(line) = written.blocking_recv() {
        if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}

async fn say(out: &mpsc::Sender<Value>, line: Value) {
    // A reader that has gone is told nothing.
    let _ = out.send(line).await;
}

impl Proxies {
    /// Carries a command out; its answer, unless that comes later.
    async fn obey(&mut self, line: Line, out: &mpsc::Sender<Value>) -> Option<Value> {
        let Line { id, proxy: name, command } = line;
        match command {
            Command::Listen { upstream } => Some(self.listen(id, name, upstream, out).await),
            Command::Set { scope, direction, fault } => Some(self.ask(id, &name, |proxy| {
                let met = match direction {
                    Way::Up => proxy.set(scope, Direction::Up, fault),
                    Way::Down => proxy.set(scope, Direction::Down, fault),
                    Way::Both => proxy.set_both(scope, fault),
                };
                json!({ "id": id, "met": met })
            })),
            Command::Look => {
                Some(self.ask(id, &name, |proxy| json!({ "id": id, "open": proxy.open(), "overtaken": proxy.overtaken() })))
            }
            Command::Disturb { seed, ms } => {
                let Some(proxy) = self.0.get(&name).cloned() else { return Some(unknown(id, &name)) };
                tokio::spawn(disturb(id, name, proxy, seed, Duration::from_millis(ms), out.clone()));
                None
            }
        }
    }

    fn ask(&self, id: u64, name: &str, answer: impl FnOnce(&FaultyProxy) -> Value) -> Value {
        self.0.get(name).map_or_else(|| unknown(id, name), |proxy| answer(proxy))
    }

    async fn listen(&mut self, id: u64, name: String, upstream: SocketAddr, out: &mpsc::Sender<Value>) -> Value {
        let proxy = match FaultyProxy::start(upstream).await {
            Ok(proxy) => proxy,
            Err(error) => return json!({ "id": id, "error": error.to_string() }),
        };
        let address = proxy.address();
        tokio::spawn(pass_on(name.clone(), proxy.events(), out.clone()));
        self.0.insert(name, Arc::new(proxy));
        json!({ "id": id, "address": address })
    }
}

fn unknown(id: u64, name: &str) -> Value {
    json!({ "id": id, "error": format!("no proxy is called {name}") })
}

/// Tells of each event of a proxy.
async fn pass_on(name: String, mut events: tokio::sync::broadcast::Receiver<testkit::proxy::Event>, out: mpsc::Sender<Value>) {
    loop {
        match events.recv().await {
            Ok(event) => say(&out, with_name(&name, json!(event))).await,
            Err(RecvError::Lagged(missed)) => say(&out, json!({ "proxy": name, "event": "missed", "count": missed })).await,
            Err(RecvError::Closed) => return,
        }
    }
}

async fn disturb(id: u64, name: String, proxy: Arc<FaultyProxy>, seed: u64, duration: Duration, out: mpsc::Sender<Value>) {
    let (told, mut steps) = mpsc::channel::<Step>(LINES_MAX);
    let telling = async {
        while let Some(step) = steps.recv().await {
            let mut line = with_name(&name, json!(step));
            line["event"] = json!("disturbed");
            say(&out, line).await;
        }
    };
    let disturbing = async move {
        // A listener that cannot keep up misses steps; the seed tells them all.
        let tell = |step: &Step| {
            let _ = told.try_send(*step);
        };
        proxy.disturb(seed, duration, tell).await;
    };
    tokio::join!(disturbing, telling);
    say(&out, json!({ "id": id })).await;
}

fn with_name(name: &str, mut line: Value) -> Value {
    line["proxy"] = json!(name);
    line
}
