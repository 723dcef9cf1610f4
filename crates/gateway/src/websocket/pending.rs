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

    /// Forgets all messages up to an index. Indices are consecutive, so the distance to the oldest one says how many that
    /// are; an index that was never given out covers more than there are and is ignored.
    pub(super) fn acknowledge(&mut self, index: u16) {
        let Some(oldest) = self.messages.front() else { return };
        let covered = usize::from(index.wrapping_sub(oldest.index)) + 1;
        if covered <= self.messages.len() {
            let forgotten: u64 = self.messages.drain(..covered).map(|message| message.data.len() as u64).sum();
            self.bytes -= forgotten;
        }
    }

    /// The message that waits longest.
    pub(super) fn oldest(&self) -> Option<&PendingMessage> {
        self.messages.front()
    }

    /// Forgets the oldest message.
    pub(super) fn pop(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.data.len() as u64;
        }
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &PendingMessage> {
        self.messages.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
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
        many.acknowledge(40_000);
        assert_eq!(many.messages().next().map(|message| message.index), Some(40_001));
        many.acknowledge(39_999);
        assert_eq!(many.messages().count(), limits::HIBERNATION_PENDING_MAX_MESSAGES - 40_001, "never given out: ignored");
    }
}
