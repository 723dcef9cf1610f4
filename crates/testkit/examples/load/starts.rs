//! What it takes until an actor serves that is new or asleep. The host answers at once and stores nothing, so this is the
//! engine's own share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::caller::Caller;
use crate::host::{Host, Nap};
use crate::process::EngineProcess;
use crate::rates::{Figures, Span, measure};

/// Actors that are put to sleep before they are woken: as many as the engine makes in this time, and no more than this.
const STOCK_TIME: Duration = Duration::from_secs(20);
const STOCK_MAX: usize = 4_000;
/// Clients that make them.
const MAKERS: usize = 16;
/// For what an engine does after actors have fallen asleep.
const SETTLE: Duration = Duration::from_secs(3);

/// New actors, by so many clients.
pub(crate) async fn creates(engine: &EngineProcess, clients: usize) {
    let _host = Host::join(engine.address()).await;
    let opened = join_all((0..clients).map(async |number| (Caller::connect(engine.address()).await, number))).await;
    measure(engine, "creates", opened, create_until).await;
}

async fn create_until((mut caller, client): (Caller, usize), span: Span) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut number = 0;
    while !span.is_over() {
        let since = Instant::now();
        caller.get(&path_of(&format!("{client}-{number}"))).await;
        took.extend(span.took(since));
        number += 1;
    }
    took
}

/// A request to an actor with this key, which is made if there is none.
fn path_of(key: &str) -> String {
    let query = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-crash-policy=sleep";
    format!("/gateway/echo/request/hello?{query}&rvt-key={key}")
}

/// Sleeping actors, by so many clients, each once.
pub(crate) async fn wakes(engine: &EngineProcess, clients: usize) {
    let mut host = Host::join(engine.address()).await;
    host.let_nap(Nap { alarm_in: None });
    let actors = Arc::new(stock(engine, &mut host).await);
    host.leave_awake();
    tokio::time::sleep(SETTLE).await;
    let already_started = host.started();
    let next = Arc::new(AtomicUsize::new(0));
    let callers = join_all((0..clients).map(|_| Caller::connect(engine.address()))).await;
    let (before, since) = (engine.processor_time(), Instant::now());
    let tasks = callers.into_iter().map(|caller| tokio::spawn(wake_next(caller, actors.clone(), next.clone())));
    let took: Vec<Duration> = join_all(tasks).await.into_iter().flat_map(|done| done.expect("a client")).collect();
    let (processor_time, lasted) = (engine.processor_time() - before, since.elapsed());
    assert_eq!(host.started() - already_started, actors.len(), "each actor was asleep, and started once");
    Figures { took, lasted, processor_time }.print("wakes", clients);
}

async fn wake_next(mut caller: Caller, actors: Arc<Vec<String>>, next: Arc<AtomicUsize>) -> Vec<Duration> {
    let mut took = Vec::new();
    while let Some(actor) = actors.get(next.fetch_add(1, Ordering::Relaxed)) {
        let since = Instant::now();
        caller.get(&format!("/gateway/{actor}/request/hello")).await;
        took.push(since.elapsed());
    }
    took
}

/// Makes actors that sleep.
async fn stock(engine: &EngineProcess, host: &mut Host) -> Vec<String> {
    let end = Instant::now() + STOCK_TIME;
    let make = async |number: usize| {
        let mut caller = Caller::connect(engine.address()).await;
        let mut made = Vec::new();
        while made.len() < STOCK_MAX / MAKERS && Instant::now() < end {
            made.push(create(&mut caller, &format!("{number}-{}", made.len())).await);
        }
        made
    };
    let actors: Vec<String> = join_all((0..MAKERS).map(make)).await.concat();
    host.until_asleep(&actors).await;
    actors
}

/// Makes an actor without asking it for anything; returns its id.
pub(crate) async fn create(caller: &mut Caller, key: &str) -> String {
    let wanted = json!({ "name": "echo", "key": key, "runner_name_selector": "default", "crash_policy": "sleep" });
    let answer = caller.post("/actors?namespace=default", wanted.to_string()).await;
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    answer["actor"]["actor_id"].as_str().expect("an actor's id").to_owned()
}
