//! What actors cost that sleep: nothing but disk, it should be.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use crate::caller::Caller;
use crate::host::{Host, Nap};
use crate::process::EngineProcess;
use crate::starts::create;

/// Alarms are due so long after the creation: near enough that the engine has to have an eye on them, and after the end of
/// this.
pub(crate) const ALARM_IN: Duration = Duration::from_secs(7 * 60);
/// Clients that make the actors.
const MAKERS: usize = 64;
const STARTS: usize = 5;
const LISTS: usize = 20;
/// For what an engine does after its start.
const SETTLE: Duration = Duration::from_secs(3);

/// Makes so many actors that sleep, each with an alarm if wanted, and starts the engine again.
pub(crate) async fn measure(engine: &mut EngineProcess, count: usize, alarm_in: Option<Duration>) {
    let empty_bytes = engine.data_bytes();
    let mut host = Host::join(engine.address()).await;
    host.let_nap(Nap { alarm_in });
    let (since, before) = (Instant::now(), engine.processor_time());
    let make = async |maker: usize| {
        let mut caller = Caller::connect(engine.address()).await;
        let mut last = String::new();
        for number in (maker..count).step_by(MAKERS) {
            last = create(&mut caller, &number.to_string()).await;
        }
        last
    };
    let last_ones = join_all((0..MAKERS.min(count)).map(make)).await;
    host.until_asleep(&last_ones).await;
    let made = json!({
        "state": "made and asleep",
        "actors": count,
        "per_second": count as f64 / since.elapsed().as_secs_f64(),
        "engine_us_each": (engine.processor_time() - before).as_secs_f64() * 1e6 / count as f64,
        "disk_bytes_each": (engine.data_bytes() - empty_bytes) as f64 / count as f64,
        "resident_bytes": engine.memory().resident,
        "anonymous_bytes": engine.memory().anonymous,
    });
    println!("{made}");
    drop(host);

    let mut starts_ms = Vec::new();
    for _ in 0..STARTS {
        starts_ms.push(milliseconds(engine.kill_and_start().await));
    }
    let processor_time = engine.processor_time();
    tokio::time::sleep(SETTLE).await;
    let memory = engine.memory();
    let started = json!({
        "state": "started again",
        "ms": starts_ms,
        "processor_ms": milliseconds(processor_time),
        "processor_ms_when_settled": milliseconds(engine.processor_time()),
        "resident_bytes": memory.resident,
        "anonymous_bytes": memory.anonymous,
    });
    println!("{started}");
    list(engine, count).await;

    let _host = Host::join(engine.address()).await;
    let mut caller = Caller::connect(engine.address()).await;
    let since = Instant::now();
    caller.get(&format!("/gateway/{}/request/hello", last_ones[0])).await;
    let took = milliseconds(since.elapsed());
    let memory = engine.memory();
    println!(
        "{}",
        json!({ "state": "one woken", "ms": took, "resident_bytes": memory.resident, "anonymous_bytes": memory.anonymous })
    );
}

/// Lists a hundred of them again and again.
async fn list(engine: &EngineProcess, count: usize) {
    let mut caller = Caller::connect(engine.address()).await;
    let mut took = Vec::new();
    for _ in 0..LISTS {
        let since = Instant::now();
        let answer = caller.get("/actors?namespace=default&name=echo&limit=100").await;
        took.push(since.elapsed());
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(answer["actors"].as_array().map(Vec::len), Some(count.min(100)));
    }
    took.sort_unstable();
    println!("{}", json!({ "state": "listed", "ms_of_100": milliseconds(took[LISTS / 2]) }));
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
