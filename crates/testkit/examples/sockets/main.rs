//! What open WebSockets cost an engine in memory, idle and hibernating:
//!
//!     cargo run --release -p testkit --example sockets -- PATH/TO/rivet-engine [SOCKETS]
//!
//! Starts the engine, plays its host, opens the sockets (10,000 unless told otherwise, 20 to an actor, each with one echoed
//! message), lets all actors sleep, and wakes one again. Prints one JSON line for each state; bytes per socket are the
//! difference to the same engine with the same actors running and no socket. Linux only: memory is what `/proc` says of the
//! engine's process, which leaves out the kernel's own buffers. Works on any engine of the same protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that fails may stop")]
#![allow(clippy::print_stdout, reason = "the figures are the point")]

mod clients;
mod host;
mod process;

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use clients::Clients;
use host::Host;
use process::{EngineProcess, Memory};

const DEFAULT_SOCKETS: usize = 10_000;
/// Below the limit of 32 open requests for an actor and an address.
const SOCKETS_PER_ACTOR: usize = 20;
/// Allocators give memory back with a delay.
const SETTLE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let engine = arguments.next().expect("the first argument is the engine's binary");
    let sockets = arguments.next().map_or(DEFAULT_SOCKETS, |text| text.parse().expect("the second argument is a number"));

    let engine = EngineProcess::start(engine.as_ref()).await;
    let mut host = Host::join(engine.address()).await;
    let actors = host.start_actors(engine.address(), sockets.div_ceil(SOCKETS_PER_ACTOR)).await;
    let without = settled(&engine).await;
    print("no socket", without, without, 0);

    let mut clients = Clients::open(engine.address(), &actors, sockets).await;
    let idle = settled(&engine).await;
    clients.assert_open();
    print("idle", idle, without, sockets);

    host.put_all_to_sleep(engine.address(), &actors).await;
    let hibernating = settled(&engine).await;
    clients.assert_open();
    print("hibernating", hibernating, without, sockets);

    let started = Instant::now();
    clients.echo_on_first().await;
    println!("{}", json!({ "state": "one woken", "ms": started.elapsed().as_secs_f64() * 1e3, "restored": host.restored() }));
}

async fn settled(engine: &EngineProcess) -> Memory {
    tokio::time::sleep(SETTLE).await;
    engine.memory()
}

fn print(state: &str, now: Memory, without: Memory, sockets: usize) {
    let each = |now: u64, without: u64| (sockets > 0).then(|| (now as f64 - without as f64) / sockets as f64);
    let line = json!({
        "state": state,
        "sockets": sockets,
        "resident_bytes": now.resident,
        "anonymous_bytes": now.anonymous,
        "resident_bytes_per_socket": each(now.resident, without.resident),
        "anonymous_bytes_per_socket": each(now.anonymous, without.anonymous),
    });
    println!("{line}");
}
