//! All WebSockets of clients, for the end of the process.

use std::future::Future;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// The tasks of all WebSockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Sockets {
    /// Runs one.
    pub(super) fn spawn(&self, socket: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(socket);
    }

    /// Ends when all WebSockets are to be closed.
    pub(super) fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.closing.cancelled()
    }

    /// Whether all WebSockets are to be closed.
    pub(super) fn are_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Has all of them closed, and those that come later as well. What it returns ends when none is left.
    pub(crate) fn close(&self) -> impl Future<Output = ()> {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait()
    }
}
