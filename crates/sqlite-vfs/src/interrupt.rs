//! Stopping a statement from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stops what a session does, from any thread. Clones are the same switch.
///
/// It stays on until [`Interrupter::clear`], so that a request which is interrupted just before it begins does not run.
#[derive(Debug, Clone, Default)]
pub struct Interrupter {
    requested: Arc<AtomicBool>,
}

impl Interrupter {
    /// Has the running statement, and every later one, fail with [`SessionError::Interrupted`](crate::SessionError).
    pub fn interrupt(&self) {
        self.requested.store(true, Ordering::Relaxed);
    }

    /// Lets statements run again.
    pub fn clear(&self) {
        self.requested.store(false, Ordering::Relaxed);
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }
}
