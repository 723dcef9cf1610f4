//! Whether a silent client is still there (`spec/gateway.md` 18). Pure.

use std::time::Duration;

use protocol::limits;

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
}
