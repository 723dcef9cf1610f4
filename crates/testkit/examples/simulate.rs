//! Plays simulations: `cargo run -p testkit --features simulation --example simulate -- SEED [COUNT]`.
//!
//! One seed: prints its whole log. Several: plays all of them, on all processors, and prints those that break a rule.

#![expect(clippy::print_stdout, reason = "a tool talks to the terminal")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use testkit::simulation::simulate;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<u64>().ok());
    let Some(seed) = numbers.next() else {
        println!("usage: simulate SEED [COUNT]");
        return ExitCode::from(2);
    };
    let broken = match numbers.next() {
        None => u64::from(!tell(seed)),
        Some(count) => play(seed, count),
    };
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a whole story; whether it went well.
fn tell(seed: u64) -> bool {
    let story = simulate(seed, None, true);
    story.log.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {}", story.violation.as_deref().unwrap_or("no rule is broken"));
    story.violation.is_none()
}

/// Plays many, and says how many went wrong.
fn play(first: u64, count: u64) -> u64 {
    let (next, broken) = (AtomicU64::new(first), AtomicU64::new(0));
    let end = first.saturating_add(count);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            if let Some(violation) = simulate(seed, None, false).violation {
                broken.fetch_add(1, Ordering::Relaxed);
                println!("seed {seed}: {violation}");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let broken = broken.into_inner();
    println!("{count} simulations, {broken} broke a rule");
    broken
}
