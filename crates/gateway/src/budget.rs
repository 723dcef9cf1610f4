//! How much may wait in this process for slow or absent receivers, over all requests together.
//!
//! Each request has a bound of its own; this is the bound of their sum. A request may always hold
//! [`limits::WAITING_FREE_BYTES`], so that those who let much wait cannot take the last room from those who let little wait;
//! what it holds beyond that comes out of the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::limits;

/// The bytes that wait in one direction.
#[derive(Debug)]
pub(crate) struct Budget {
    waiting: AtomicU64,
    beyond: AtomicU64,
    max_beyond: u64,
}

/// Nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl Budget {
    /// A budget of `max_beyond` bytes.
    pub(crate) fn new(max_beyond: u64) -> Arc<Self> {
        Arc::new(Self { waiting: AtomicU64::new(0), beyond: AtomicU64::new(0), max_beyond })
    }

    /// Bytes that wait now, those that every request may hold included.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A request's share, empty at first.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

/// What one request holds of a budget; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

fn beyond(bytes: u64) -> u64 {
    bytes.saturating_sub(limits::WAITING_FREE_BYTES)
}

impl Share {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes `bytes` more, all or nothing.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        let grown = self.bytes + bytes;
        let more = beyond(grown) - beyond(self.bytes);
        if more > 0 && self.budget.beyond.fetch_add(more, Ordering::Relaxed) + more > self.budget.max_beyond {
            self.budget.beyond.fetch_sub(more, Ordering::Relaxed);
            return Err(Exhausted);
        }
        self.bytes = grown;
        self.budget.waiting.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Gives `bytes` back.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let left = self.bytes.saturating_sub(bytes);
        self.budget.beyond.fetch_sub(beyond(self.bytes) - beyond(left), Ordering::Relaxed);
        self.budget.waiting.fetch_sub(self.bytes - left, Ordering::Relaxed);
        self.bytes = left;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: u64 = limits::WAITING_FREE_BYTES;

    #[test]
    fn greedy_shares_leave_the_others_what_is_free() {
        let budget = Budget::new(100);
        let (mut greedy, mut modest) = (budget.share(), budget.share());
        assert_eq!(greedy.grow(FREE + 100), Ok(()));
        assert_eq!(greedy.grow(1), Err(Exhausted));
        assert_eq!(modest.grow(FREE), Ok(()));
        assert_eq!(modest.grow(1), Err(Exhausted));
        assert_eq!(budget.waiting_bytes(), 2 * FREE + 100);
        greedy.shrink(1);
        assert_eq!(modest.grow(1), Ok(()));
        drop(greedy);
        assert_eq!(modest.grow(99), Ok(()));
        assert_eq!(modest.grow(1), Err(Exhausted));
        drop(modest);
        assert_eq!(budget.waiting_bytes(), 0);
        assert_eq!(budget.share().grow(FREE + 100), Ok(()), "all is given back");
    }
}
