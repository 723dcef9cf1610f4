//! The one place where the engine reads clocks.
//!
//! Two of them: the time of day for everything that is stored or shown, and the uptime for everything that measures
//! silence. A step of the time of day must not make hosts look lost. Both are passed in, so that a simulation has its own.

use std::time::{SystemTime, UNIX_EPOCH};

use lifecycle::Ts;
use tokio::time::Instant;

/// Tells the time; clone freely.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    started: Instant,
    time_of_day: TimeOfDay,
}

#[derive(Debug, Clone)]
enum TimeOfDay {
    System,
    /// Moves with the runtime's (paused) clock: this many milliseconds since the epoch when [`Clock::started`] was.
    #[cfg(any(test, feature = "simulation"))]
    Simulated(std::sync::Arc<std::sync::atomic::AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub(crate) fn system() -> Self {
        Self { started: Instant::now(), time_of_day: TimeOfDay::System }
    }

    /// A clock that showed the time of day `start` at `started` and moves with the runtime's. Changing `start` later is a
    /// step of the time of day.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn simulated(started: Instant, start: std::sync::Arc<std::sync::atomic::AtomicI64>) -> Self {
        Self { started, time_of_day: TimeOfDay::Simulated(start) }
    }

    /// The time of day, in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> Ts {
        match &self.time_of_day {
            TimeOfDay::System => system_now(),
            #[cfg(any(test, feature = "simulation"))]
            TimeOfDay::Simulated(start) => start.load(std::sync::atomic::Ordering::Relaxed).saturating_add(self.uptime()),
        }
    }

    /// Milliseconds that pass evenly, counted from when the clock was made.
    pub(crate) fn uptime(&self) -> Ts {
        self.started.elapsed().as_millis() as Ts
    }
}

#[expect(clippy::disallowed_methods, reason = "the engine's clock; everything else gets the time from here")]
fn system_now() -> Ts {
    // A clock before 1970 is treated as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as Ts)
}
