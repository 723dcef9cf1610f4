//! Whether a silent client is still there, and how fast a busy one may talk (`spec/gateway.md` 16.2 and 18). Pure.

use std::time::Duration;

use protocol::limits;
use tokio::time::Instant;

use crate::io::Received;

/// Finds out whether a client is still there. It is looked at now and then; if it has sent nothing since the last look it is
/// pinged, and whatever it sends in return will do.
#[derive(Debug)]
pub(super) struct Keepalive {
    answer_timeout: Duration,
    /// What it had sent when it last gave a sign of life.
    seen: Received,
    /// It was pinged and has given no sign of life since.
    asked: bool,
}

/// What to do at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It is there.
    Alive,
    /// It must be pinged.
    Ask,
    /// It has not answered in time.
    Gone,
}

impl Keepalive {
    pub(super) fn new(answer_timeout: Duration) -> Self {
        Self { answer_timeout, seen: Received::default(), asked: false }
    }

    /// Looks at a client that has sent so much in all.
    pub(super) fn look(&mut self, received: Received) -> Look {
        if shows_life(self.seen, received) {
            self.seen = received;
            self.asked = false;
            return Look::Alive;
        }
        if self.asked { Look::Gone } else { Look::Ask }
    }

    /// The ping is on its way.
    pub(super) fn asked(&mut self) {
        self.asked = true;
    }

    /// How long until the next look.
    pub(super) fn rest(&self) -> Duration {
        if self.asked { self.answer_timeout } else { limits::WEBSOCKET_PING_INTERVAL }
    }
}

/// Whether a client that had sent `before` has given a sign of life since. Any byte will do, unless much memory waits for the
/// rest of a message: then only as much of the message as even slow clients send.
fn shows_life(before: Received, now: Received) -> bool {
    match now.held > limits::WAITING_FREE_BYTES {
        true => now.carried - before.carried >= limits::WEBSOCKET_SEND_PROGRESS_MIN_BYTES,
        false => now.bytes != before.bytes,
    }
}

/// A leaky bucket: a number of messages at once, then one per interval. What is too much waits unread in the socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Throttle {
    interval: Duration,
    /// How far ahead of its interval a message may come.
    slack: Duration,
    /// When the bucket is empty again.
    empty_at: Instant,
}

impl Throttle {
    /// Lets `burst` messages through at once, at least one, and then one per `interval`.
    pub(super) fn new(burst: u32, interval: Duration, now: Instant) -> Self {
        Self { interval, slack: interval.saturating_mul(burst.saturating_sub(1)), empty_at: now }
    }

    /// When the next message may be read; in the past if at once.
    pub(super) fn free_at(&self) -> Instant {
        self.empty_at.checked_sub(self.slack).unwrap_or(self.empty_at)
    }

    /// A message was read.
    pub(super) fn take(&mut self, now: Instant) {
        self.empty_at = self.empty_at.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_client_is_asked_once_and_then_given_up() {
        let mut keepalive = Keepalive::new(Duration::from_secs(7));
        let sent = |bytes| Received { bytes, ..Received::default() };
        assert_eq!(keepalive.look(sent(10)), Look::Alive);
        assert_eq!(keepalive.rest(), limits::WEBSOCKET_PING_INTERVAL);
        assert_eq!(keepalive.look(sent(10)), Look::Ask);
        // The ping could not be queued yet: it is tried again.
        assert_eq!(keepalive.look(sent(10)), Look::Ask);
        keepalive.asked();
        assert_eq!(keepalive.rest(), Duration::from_secs(7));
        assert_eq!(keepalive.look(sent(11)), Look::Alive, "any byte is an answer");
        assert_eq!(keepalive.look(sent(11)), Look::Ask);
        keepalive.asked();
        assert_eq!(keepalive.look(sent(11)), Look::Gone);
    }

    #[test]
    fn in_a_large_message_only_its_progress_is_a_sign_of_life() {
        const ENOUGH: u64 = limits::WEBSOCKET_SEND_PROGRESS_MIN_BYTES;
        const FREE: u64 = limits::WAITING_FREE_BYTES;
        let mut keepalive = Keepalive::new(Duration::from_secs(7));
        let sent = |bytes, held| Received { bytes, carried: bytes, held };
        assert_eq!(keepalive.look(sent(FREE, FREE)), Look::Alive);
        assert_eq!(keepalive.look(sent(FREE + ENOUGH, FREE + ENOUGH)), Look::Alive);
        let stuck = sent(FREE + 2 * ENOUGH - 1, FREE + 2 * ENOUGH - 1);
        assert_eq!(keepalive.look(stuck), Look::Ask);
        keepalive.asked();
        let mut pongs = stuck;
        pongs.bytes += 1_000_000;
        assert_eq!(keepalive.look(pongs), Look::Gone, "pongs are no part of the message");
        let on_time = sent(FREE + 2 * ENOUGH, FREE + 2 * ENOUGH);
        assert_eq!(keepalive.look(on_time), Look::Alive);
        assert_eq!(keepalive.look(sent(FREE + 2 * ENOUGH + 1, 0)), Look::Alive, "it is complete: any byte will do again");
    }

    #[test]
    fn a_burst_passes_and_the_rest_drips() {
        let start = Instant::now();
        let drip = Duration::from_millis(10);
        let mut throttle = Throttle::new(3, drip, start);
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
