//! Client messages that the actor has not acknowledged yet (`spec/gateway.md` 17.2 and 17.3). Pure.

use std::collections::VecDeque;

use bytes::Bytes;
use protocol::limits;
use tokio::time::Instant;

/// A client message under its index.
#[derive(Debug, Clone)]
pub(super) struct PendingMessage {
    pub(super) index: u16,
    pub(super) data: Bytes,
    pub(super) binary: bool,
    since: Instant,
}

/// The messages in order, within the limits of a socket.
#[derive(Debug)]
pub(super) struct Pending {
    messages: VecDeque<PendingMessage>,
    bytes: u64,
    max_bytes: u64,
}

/// Too many messages or bytes wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Pending {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, max_bytes }
    }

    pub(super) fn push(&mut self, index: u16, data: Bytes, binary: bool, now: Instant) -> Result<(), Full> {
        let bytes = self.bytes + data.len() as u64;
        if bytes > self.max_bytes || self.messages.len() >= limits::HIBERNATION_PENDING_MAX_MESSAGES {
            return Err(Full);
        }
        self.bytes = bytes;
        self.messages.push_back(PendingMessage { index, data, binary, since: now });
        Ok(())
    }

    /// Forgets all messages up to an index.
    pub(super) fn acknowledge(&mut self, index: u16) {
        while self.messages.front().is_some_and(|message| !is_newer(message.index, index)) {
            if let Some(message) = self.messages.pop_front() {
                self.bytes -= message.data.len() as u64;
            }
        }
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &PendingMessage> {
        self.messages.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }

    /// Since when the oldest message waits.
    pub(super) fn oldest_since(&self) -> Option<Instant> {
        self.messages.front().map(|message| message.since)
    }

    /// Starts the acknowledgement time of all messages over: it does not run while the actor sleeps.
    pub(super) fn restart_clock(&mut self, now: Instant) {
        for message in &mut self.messages {
            message.since = now;
        }
    }
}

/// Whether index `a` comes after `b`, with wrap-around (`spec/gateway.md` 17.3).
fn is_newer(a: u16, b: u16) -> bool {
    a != b && a.wrapping_sub(b) < 32_767
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_at_their_edges_and_acks_give_room_back() {
        let now = Instant::now();
        let mut pending = Pending::new(10);
        assert_eq!(pending.push(65_535, Bytes::from_static(b"12345"), true, now), Ok(()));
        assert_eq!(pending.push(0, Bytes::from_static(b"12345"), true, now), Ok(()));
        assert_eq!(pending.push(1, Bytes::from_static(b"1"), true, now), Err(Full));
        pending.acknowledge(65_535);
        assert_eq!(pending.messages().map(|message| message.index).collect::<Vec<_>>(), [0]);
        assert_eq!(pending.push(1, Bytes::from_static(b"12345"), true, now), Ok(()));
        pending.acknowledge(1);
        assert!(pending.is_empty());

        let mut many = Pending::new(u64::MAX);
        for index in 0..limits::HIBERNATION_PENDING_MAX_MESSAGES {
            many.push(index as u16, Bytes::new(), false, now).unwrap();
        }
        assert_eq!(many.push(0, Bytes::new(), false, now), Err(Full));
    }
}
