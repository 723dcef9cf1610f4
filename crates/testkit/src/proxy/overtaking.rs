//! Bytes of one connection that wait until another connection's have overtaken them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, futures::Notified};

/// Who waits to be overtaken: at most one connection at a time, so that whoever comes next overtakes it.
#[derive(Debug, Default)]
pub(super) struct Overtaking {
    waits: parking_lot::Mutex<Option<Arc<Notify>>>,
    count: AtomicU64,
}

impl Overtaking {
    /// How often somebody was overtaken.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// A connection's part in it.
pub(super) struct Place<'a> {
    shared: &'a Overtaking,
    /// Wakes this connection.
    overtaken: Arc<Notify>,
    /// Wakes those that this connection overtakes, once its bytes have arrived.
    behind: Vec<Arc<Notify>>,
}

impl<'a> Place<'a> {
    pub(super) fn new(shared: &'a Overtaking) -> Self {
        Self { shared, overtaken: Arc::default(), behind: Vec::new() }
    }

    /// Bytes have come. True: somebody else's wait already, and these overtake them. False: these wait.
    pub(super) fn arrived(&mut self) -> bool {
        let mut waits = self.shared.waits.lock();
        match waits.take() {
            Some(other) if !Arc::ptr_eq(&other, &self.overtaken) => {
                self.behind.push(other);
                self.shared.count.fetch_add(1, Ordering::Relaxed);
                true
            }
            Some(_) | None => {
                *waits = Some(self.overtaken.clone());
                false
            }
        }
    }

    /// Waits until others have overtaken.
    pub(super) fn overtaken(&self) -> Notified<'_> {
        self.overtaken.notified()
    }

    /// All bytes of this connection have gone out.
    pub(super) fn passed(&mut self) {
        self.leave();
        for other in self.behind.drain(..) {
            other.notify_one();
        }
    }

    fn leave(&self) {
        let mut waits = self.shared.waits.lock();
        if waits.as_ref().is_some_and(|waiting| Arc::ptr_eq(waiting, &self.overtaken)) {
            *waits = None;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.passed();
    }
}
