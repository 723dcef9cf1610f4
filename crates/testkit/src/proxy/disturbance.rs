//! Random faults that can be had again: a seed makes the sequence.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Direction, Fault, FaultyProxy, Scope};

/// One fault of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Time since the last one.
    #[serde(skip)]
    pub after: Duration,
    /// Which of the connections that are open then, modulo their number.
    pub victim: u64,
    /// Which way.
    pub direction: Direction,
    /// What.
    pub fault: Fault,
    /// How long; a dead direction's connection is reset then, and others go on.
    #[serde(skip)]
    pub lasts: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, victim, direction, fault, lasts } = self;
        write!(f, "after {after:?}: {fault} {direction:?} on {victim} for {lasts:?}")
    }
}

/// An endless sequence of faults; the same for the same seed.
#[derive(Debug)]
pub struct Disturbances {
    random: StdRng,
}

impl Disturbances {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    fn fault(&mut self) -> Fault {
        match self.random.random_range(0..8) {
            0 => Fault::Cut { after_bytes: self.random.random_range(0..4096) },
            1 => Fault::Reset { after_bytes: self.random.random_range(0..4096) },
            2 => Fault::HalfOpen,
            3 | 4 => Fault::Stall,
            5 => Fault::Delay(self.millis(1..200)),
            6 => Fault::Overtaken { at_most: self.millis(1..50) },
            _ => Fault::Limit { bytes_per_second: self.random.random_range(10_000..200_000) },
        }
    }
}

impl Iterator for Disturbances {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let direction = if self.random.random_bool(0.5) { Direction::Up } else { Direction::Down };
        Some(Step {
            after: self.millis(10..150),
            victim: self.random.random_range(0..1_000_000),
            direction,
            fault: self.fault(),
            lasts: self.millis(20..400),
        })
    }
}

/// Disturbs the proxy's connections for so long.
pub(super) async fn run(proxy: &FaultyProxy, steps: Disturbances, duration: Duration, mut seen: impl FnMut(&Step)) {
    let deadline = Instant::now() + duration;
    let disturbing = async {
        for step in steps {
            sleep(step.after).await;
            disturb(proxy, &step, &mut seen).await;
        }
    };
    // Steps are without end: always too late.
    let _ = timeout_at(deadline, disturbing).await;
    for open in proxy.open() {
        mend(proxy, open.connection);
    }
}

async fn disturb(proxy: &FaultyProxy, step: &Step, seen: &mut impl FnMut(&Step)) {
    let open = proxy.open();
    let Some(victim) = open.get((step.victim % open.len().max(1) as u64) as usize) else { return };
    proxy.set(Scope::One(victim.connection), step.direction, step.fault);
    seen(step);
    sleep(step.lasts).await;
    mend(proxy, victim.connection);
}

/// Lets a connection go on; one that has lost bytes for good is reset.
fn mend(proxy: &FaultyProxy, connection: u64) {
    let end = Fault::Reset { after_bytes: 0 };
    for direction in [Direction::Up, Direction::Down] {
        let fault = proxy.fault(connection, direction);
        let next = if fault == Some(Fault::HalfOpen) { end } else { Fault::Pass };
        proxy.set(Scope::One(connection), direction, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_a_sequence() {
        let steps = |seed| Disturbances::new(seed).take(100).collect::<Vec<_>>();
        assert_eq!(steps(1), steps(1));
        assert_ne!(steps(1), steps(2));
        let kinds: std::collections::HashSet<_> = steps(1).iter().map(|step| std::mem::discriminant(&step.fault)).collect();
        assert_eq!(kinds.len(), 7, "every fault but none occurs");
    }
}
