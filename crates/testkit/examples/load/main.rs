//! Load on an engine, without Node.js on either end:
//!
//!     cargo run --release -p testkit --example load -- WHAT PATH/TO/rivet-engine [COUNT]
//!
//! * `memory`: what an open WebSocket costs the engine, idle and hibernating (COUNT: sockets, 10,000).
//! * `messages`: echoes of 64 bytes per second over WebSockets, 16 in flight on each (COUNT: sockets, 8).
//! * `requests`: HTTP requests per second over kept connections (COUNT: clients, 64).
//! * `creates`: actors that are asked for by key for the first time, until the first answer (COUNT: clients, 16).
//! * `wakes`: sleeping actors that are asked for something, until the answer (COUNT: clients, 16).
//! * `commits`: commits of one page to the databases of actors, one after the other in each (COUNT: actors, 64).
//! * `updates`, `selects`: SQL that the engine executes, changing or reading one row (COUNT: actors, 64).
//! * `sleepers`: what actors cost that sleep: disk, start of the engine, memory, lists (COUNT: actors, 100,000).
//! * `alarms`: the same, each with an alarm a few minutes away.
//!
//! Starts the engine and plays its host. Prints JSON lines. Linux only: memory and processor time are what `/proc` says of
//! the engine's process. Works on any engine of the same protocol. Clients and host share the machine with the engine, so
//! compare figures of one run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that fails may stop")]
#![allow(clippy::print_stdout, reason = "the figures are the point")]

mod caller;
mod commits;
mod host;
mod memory;
mod process;
mod rates;
mod sleepers;
mod sockets;
mod starts;
mod statements;

use process::EngineProcess;
use statements::Statement;

const USAGE: &str =
    "usage: load memory|messages|requests|creates|wakes|commits|updates|selects|sleepers|alarms PATH/TO/rivet-engine [COUNT]";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(what), Some(engine)) = (arguments.first(), arguments.get(1)) else { panic!("{USAGE}") };
    let count = arguments.get(2).map(|text| text.parse::<usize>().expect("the count is a number"));
    let mut engine = EngineProcess::start(engine.as_ref()).await;
    match what.as_str() {
        "memory" => memory::measure(&engine, count.unwrap_or(10_000)).await,
        "messages" => rates::messages(&engine, count.unwrap_or(8)).await,
        "requests" => rates::requests(&engine, count.unwrap_or(64)).await,
        "creates" => starts::creates(&engine, count.unwrap_or(16)).await,
        "wakes" => starts::wakes(&engine, count.unwrap_or(16)).await,
        "commits" => commits::measure_commits(&engine, count.unwrap_or(64)).await,
        "updates" => statements::measure_statements(&engine, count.unwrap_or(64), Statement::Update).await,
        "selects" => statements::measure_statements(&engine, count.unwrap_or(64), Statement::Select).await,
        "sleepers" => sleepers::measure(&mut engine, count.unwrap_or(100_000), None).await,
        "alarms" => sleepers::measure(&mut engine, count.unwrap_or(100_000), Some(sleepers::ALARM_IN)).await,
        _ => panic!("{USAGE}"),
    }
}
