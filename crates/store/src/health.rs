//! Whether a store takes writes.

use tokio::sync::watch;

use crate::StoreError;

/// Whether a store takes writes.
#[derive(Debug, Clone, Default)]
pub(crate) enum Health {
    /// It does.
    #[default]
    Good,
    /// The latest write was refused for a reason that may pass.
    Refusing(StoreError),
    /// It never will again.
    Failed(StoreError),
}

impl Health {
    /// Why writes are not possible.
    pub(crate) fn trouble(&self) -> Option<StoreError> {
        match self {
            Self::Good => None,
            Self::Refusing(error) | Self::Failed(error) => Some(error.clone()),
        }
    }

    /// Why writes will never be possible again.
    pub(crate) fn failure(&self) -> Option<StoreError> {
        match self {
            Self::Good | Self::Refusing(_) => None,
            Self::Failed(error) => Some(error.clone()),
        }
    }
}

/// Waits until the store has failed for good.
pub(crate) async fn failed(mut health: watch::Receiver<Health>) -> StoreError {
    loop {
        if let Some(error) = health.borrow_and_update().failure() {
            return error;
        }
        if health.changed().await.is_err() {
            // Whoever could tell is gone, and so is the store.
            std::future::pending::<()>().await;
        }
    }
}
