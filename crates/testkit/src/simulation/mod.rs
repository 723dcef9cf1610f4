//! A simulation of the engine in a world that fails: real scheduler, management API and host connections; made-up hosts,
//! clients, disk, network and time. Everything follows from a seed, so whatever goes wrong goes wrong again.
//!
//! The rules that hold at every commit are in `rules`, those that hold when everything is at rest in `finale`.

mod chance;
mod clients;
mod endpoint;
mod faults;
mod finale;
mod host;
mod ledger;
mod log;
mod rules;
mod settings;
mod wire;
mod world;

use chance::Chance;
use world::World;

/// A fault that is put into the engine on purpose, to show that the simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Events of generations that are over count as if the present one had reported them.
    StaleEventsBelieved,
}

/// How a simulation went.
#[derive(Debug)]
pub struct Story {
    /// The seed.
    pub seed: u64,
    /// The first rule that was broken.
    pub violation: Option<String>,
    /// How many lines the log has, and a hash of all of them.
    pub digest: (u64, u64),
    /// The log, or its end.
    pub log: Vec<String>,
}

/// Lines that a report shows at most.
const SHOWN: usize = 60;

impl Story {
    /// The last lines of the log about the actor or host with which something is wrong; all of the last lines if it is neither.
    pub fn lines_about_the_violation(&self) -> Vec<&str> {
        let about = self.violation.as_deref().and_then(|violation| violation.split([':', ' ']).next()).unwrap_or_default();
        let is_about = |line: &str| line.split([' ', ':', ',']).any(|word| word == about);
        let mut lines: Vec<&str> = self.log.iter().map(String::as_str).filter(|line| is_about(line)).collect();
        if lines.len() < 2 {
            lines = self.log.iter().map(String::as_str).collect();
        }
        lines.split_off(lines.len().saturating_sub(SHOWN))
    }
}

/// Plays one simulation. `keeps_log`: all lines are wanted, and not only the last ones.
///
/// # Panics
/// If no runtime can be made.
pub fn simulate(seed: u64, planted: Option<Planted>, keeps_log: bool) -> Story {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be made");
    runtime.block_on(async {
        let mut world = World::new(seed, planted, keeps_log);
        world.play().await;
        let ledger = world.ledger.clone();
        drop(world);
        let mut books = ledger.lock();
        let violation = books.violation().map(str::to_owned);
        let log = std::mem::replace(&mut books.log, log::Log::new(false));
        Story { seed, violation, digest: log.digest(), log: log.into_lines() }
    })
}
