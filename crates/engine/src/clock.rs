//! The one place where the engine reads clocks.
//!
//! Two of them: the time of day for everything that is stored or shown, and the uptime for everything that measures
//! silence. A step of the time of day must not make hosts look lost.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use lifecycle::Ts;

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "the engine's clock; everything else gets the time from here")]
pub(crate) fn now() -> Ts {
    // A clock before 1970 is treated as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as Ts)
}

/// Milliseconds that pass evenly, counted from some moment in the life of this process.
#[expect(clippy::disallowed_methods, reason = "the engine's clock; everything else gets the time from here")]
pub(crate) fn uptime() -> Ts {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as Ts
}
