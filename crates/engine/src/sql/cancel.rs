//! Ending a statement before its end.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Why a statement is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its time is up.
    Timeout,
    /// Nobody waits for its answer: its connection has ended, or its generation.
    Over,
}

/// Ends one statement, also one that has not begun. The first reason counts.
#[derive(Default)]
pub(super) struct Cancel {
    state: Mutex<State>,
    raised: Notify,
}

#[derive(Default)]
struct State {
    reason: Option<Reason>,
    interrupt: Option<Box<dyn Fn() + Send>>,
}

impl Cancel {
    /// Ends the statement, now or as soon as it begins.
    pub(super) fn raise(&self, reason: Reason) {
        let mut state = self.state.lock();
        state.reason.get_or_insert(reason);
        if let Some(interrupt) = &state.interrupt {
            interrupt();
        }
        self.raised.notify_one();
    }

    /// Waits until the statement is ended. For one waiter.
    pub(super) async fn raised(&self) {
        self.raised.notified().await;
    }

    /// The statement is about to begin, and this interrupts it, from any thread. That happens now if it was ended already.
    pub(super) fn arm(&self, interrupt: impl Fn() + Send + 'static) {
        let mut state = self.state.lock();
        if state.reason.is_some() {
            interrupt();
        }
        state.interrupt = Some(Box::new(interrupt));
    }

    /// Why it was ended, if it was.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.state.lock().reason
    }
}
