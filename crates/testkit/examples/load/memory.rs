//! What open WebSockets cost an engine in memory.
//!
//! Bytes per socket are the difference to the same engine with the same actors running and no socket. The kernel's own
//! buffers are not in it.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::host::Host;
use crate::process::{EngineProcess, Memory};
use crate::sockets::Sockets;

/// Below the limit of 32 open requests for an actor and an address.
const SOCKETS_PER_ACTOR: usize = 20;
/// Allocators give memory back with a delay.
const SETTLE: Duration = Duration::from_secs(5);

/// Opens so many sockets, each with one echoed message, lets all actors sleep, and wakes one again.
pub(crate) async fn measure(engine: &EngineProcess, count: usize) {
    let mut host = Host::join(engine.address()).await;
    let actors = host.start_actors(count.div_ceil(SOCKETS_PER_ACTOR)).await;
    let without = settled(engine).await;
    print("no socket", without, without, 0);

    let mut sockets = Sockets::open(engine.address(), &actors, count).await;
    let idle = settled(engine).await;
    sockets.assert_still();
    print("idle", idle, without, count);

    host.put_all_to_sleep(&actors).await;
    let hibernating = settled(engine).await;
    sockets.assert_still();
    print("hibernating", hibernating, without, count);

    let started = Instant::now();
    sockets.echo_on_first().await;
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
