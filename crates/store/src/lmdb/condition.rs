//! Whether writing works, and who is told of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::health::Health;
use crate::{Shortage, StoreError};

/// How long writing must have gone well until it counts as well again, and how soon it is tried if nobody writes.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How often the log may say that writes are refused: where only the large ones are, that comes and goes.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The time for [`Condition`].
#[expect(clippy::disallowed_methods, reason = "it only measures how long ago something was, in a thread that no simulation has")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// What the committer knows of its ability to write.
pub(super) struct Condition {
    health: Arc<watch::Sender<Health>>,
    /// When a write was refused last, if none has succeeded for long enough after that.
    refused_at: Option<Instant>,
    /// What the log said last of a refusal, and when.
    logged: Option<(&'static str, Instant)>,
    /// Whether the log says that writes are refused, and not that they are taken again.
    is_announced: bool,
}

impl Condition {
    pub(super) fn new(health: Arc<watch::Sender<Health>>) -> Self {
        Self { health, refused_at: None, logged: None, is_announced: false }
    }

    /// Why nothing is written any more.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.health.borrow().failure()
    }

    /// When to try whether writing works again.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.refused_at.map(|refused_at| refused_at + RETRY_INTERVAL)
    }

    /// Something was written.
    pub(super) fn succeeded(&mut self, now: Instant) {
        // Where small writes still find room, each large one would make for two messages otherwise.
        if self.next_try().is_some_and(|next_try| next_try <= now) {
            self.refused_at = None;
            self.health.send_replace(Health::Good);
            if self.is_announced {
                self.is_announced = false;
                tracing::warn!("the store takes writes again, at least small ones");
            }
        }
    }

    /// Something was not written, for a reason that may pass.
    pub(super) fn refused(&mut self, error: &StoreError, now: Instant) {
        self.refused_at = Some(now);
        let code = error.code();
        let is_known = self.health.borrow().trouble().is_some_and(|known| known.code() == code);
        if is_known {
            return;
        }
        self.health.send_replace(Health::Refusing(error.clone()));
        if !self.logged.is_some_and(|(logged, at)| logged == code && now < at + LOG_INTERVAL) {
            (self.logged, self.is_announced) = (Some((code, now)), true);
            tracing::error!(code, %error, "the store refuses writes and keeps trying; {}", advice(error));
        }
    }

    /// Nothing will be written any more.
    pub(super) fn failed(&mut self, error: &StoreError) {
        self.refused_at = None;
        let code = error.code();
        tracing::error!(code, %error, "the store has failed and takes no more writes; {}", advice(error));
        self.health.send_replace(Health::Failed(error.clone()));
    }
}

/// What an operator has to do.
fn advice(error: &StoreError) -> &'static str {
    if let StoreError::Full(shortage) = error {
        return match shortage {
            Shortage::Disk => "make room on the disk of the data folder",
            Shortage::Quota => "make room, or raise the disk quota of the engine's user",
            Shortage::FileSize => "raise the limit of file sizes (`ulimit -f`), or use a file system that allows larger files",
            Shortage::Store => "destroy actors that are not needed",
        };
    }
    if matches!(error, StoreError::ReadOnly { .. }) {
        return "find in the system's log why the file system is read-only, and make it writable";
    }
    if matches!(error, StoreError::Damaged { .. }) {
        return "check the disk, and restore the data from a backup";
    }
    "look for errors of the disk in the system's log, then start the engine again"
}

/// Tells everybody if the thread that writes panics: nobody else would notice.
pub(super) struct PanicAlarm(pub(super) Arc<watch::Sender<Health>>);

impl Drop for PanicAlarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = StoreError::failed(std::io::Error::other("the thread that writes panicked"));
            self.0.send_replace(Health::Failed(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_well_again_after_a_while_without_refusals() {
        let health = Arc::new(watch::Sender::new(Health::Good));
        let mut condition = Condition::new(health.clone());
        let start = now();
        let after = |ms| start + Duration::from_millis(ms);
        let trouble = || health.borrow().trouble().map(|error| error.code());

        condition.succeeded(start);
        assert_eq!((trouble(), condition.next_try()), (None, None));
        condition.refused(&StoreError::Full(Shortage::Disk), start);
        assert_eq!((trouble(), condition.next_try()), (Some("full"), Some(after(1000))));
        // Others are small enough; but the one that was refused comes again.
        condition.succeeded(after(500));
        condition.refused(&StoreError::Full(Shortage::Disk), after(900));
        condition.succeeded(after(1500));
        assert_eq!((trouble(), condition.next_try()), (Some("full"), Some(after(1900))));
        condition.succeeded(after(1900));
        assert_eq!((trouble(), condition.next_try()), (None, None));
    }

    #[test]
    fn another_reason_is_told_and_the_last_one_is_final() {
        let health = Arc::new(watch::Sender::new(Health::Good));
        let mut condition = Condition::new(health.clone());
        let now = now();
        let source = Arc::new(std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem));
        condition.refused(&StoreError::Full(Shortage::Disk), now);
        condition.refused(&StoreError::ReadOnly { source }, now);
        assert_eq!(health.borrow().trouble().map(|error| error.code()), Some("read_only"));
        assert!(condition.failure().is_none());
        condition.failed(&StoreError::failed(std::io::Error::from_raw_os_error(5)));
        assert_eq!(condition.failure().map(|error| error.code()), Some("failed"));
        assert_eq!(condition.next_try(), None);
    }
}
