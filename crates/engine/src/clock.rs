//! The one place where the engine reads the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use lifecycle::Ts;

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "the engine's clock; everything else gets the time from here")]
pub(crate) fn now() -> Ts {
    // A clock before 1970 is treated as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as Ts)
}
