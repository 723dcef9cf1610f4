//! How fast somebody may send messages: clients here, hosts in the engine. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How fast somebody may send messages. What is too fast waits, and nothing is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRate {
    /// Messages that may come at once, at least 1.
    pub burst: u32,
    /// After that, one message more per interval.
    pub interval: Duration,
}

/// A leaky bucket: a number of messages at once, then one per interval. What is too much waits unread in the socket.
#[derive(Debug, Clone, Copy)]
pub struct Throttle {
    interval: Duration,
    /// How far ahead of its interval a message may come.
    slack: Duration,
    /// When the bucket is empty again.
    empty_at: Instant,
}

impl Throttle {
    /// For somebody who has not sent anything yet.
    pub fn new(rate: MessageRate, now: Instant) -> Self {
        let slack = rate.interval.saturating_mul(rate.burst.saturating_sub(1));
        Self { interval: rate.interval, slack, empty_at: now }
    }

    /// When the next message may be read; in the past if at once.
    pub fn free_at(&self) -> Instant {
        self.empty_at.checked_sub(self.slack).unwrap_or(self.empty_at)
    }

    /// A message was read.
    pub fn take(&mut self, now: Instant) {
        self.empty_at = self.empty_at.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_drips() {
        let start = Instant::now();
        let drip = Duration::from_millis(10);
        let mut throttle = Throttle::new(MessageRate { burst: 3, interval: drip }, start);
        for _ in 0..3 {
            assert!(throttle.free_at() <= start);
            throttle.take(start);
        }
        assert_eq!(throttle.free_at(), start + drip);
        throttle.take(start + drip);
        assert_eq!(throttle.free_at(), start + 2 * drip);
        // A pause gives the burst back, and no more than that.
        let later = start + Duration::from_secs(60);
        for _ in 0..3 {
            assert!(throttle.free_at() <= later);
            throttle.take(later);
        }
        assert_eq!(throttle.free_at(), later + drip);
    }
}
