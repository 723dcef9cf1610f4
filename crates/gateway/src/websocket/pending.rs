//! Client messages that the actor has not acknowledged yet (`spec/gateway.md` 17.2 and 17.3). Pure.

use std::collections::VecDeque;

use bytes::Bytes;
use protocol::limits;
use tokio::time::Instant;

use crate::budget::Share;

/// A client message under its index.
#[derive(Debug, Clone)]
pub(super) struct PendingMessage {
    pub(super) index: u16,
    pub(super) data: Bytes,
    pub(super) binary: bool,
    since: Instant,
}

/// The messages in order, within the limits of a socket and of the process.
#[derive(Debug)]
pub(super) struct Pending {
    messages: VecDeque<PendingMessage>,
    bytes: u64,
    max_bytes: u64,
    share: Share,
}

/// Too many messages or bytes wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// What a message costs the process besides its bytes, roughly.
const MESSAGE_OVERHEAD_BYTES: u64 = size_of::<PendingMessage>() as u64;

/// A message shorter than this is copied before it is kept, in bytes. It is a piece of the codec's buffer of 8 KiB, all of
/// which would be kept with it.
const KEPT_UNCOPIED_MIN_BYTES: usize = 2 * limits::KIB;

/// A message as it is kept: without much memory that nobody counts.
pub(super) fn compact(data: Bytes) -> Bytes {
    if data.len() < KEPT_UNCOPIED_MIN_BYTES { Bytes::copy_from_slice(&data) } else { data }
}

/// Room that is kept when all messages are acknowledged, in messages.
const KEPT_CAPACITY: usize = 16;

impl Pending {
    /// At most `max_bytes` of messages, which count towards `share`, too.
    pub(super) fn new(max_bytes: u64, share: Share) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, max_bytes, share }
    }

    pub(super) fn push(&mut self, index: u16, data: Bytes, binary: bool, now: Instant) -> Result<(), Full> {
        let more = data.len() as u64;
        let fits = self.bytes + more <= self.max_bytes && self.messages.len() < limits::HIBERNATION_PENDING_MAX_MESSAGES;
        if !fits || self.share.grow(more + MESSAGE_OVERHEAD_BYTES).is_err() {
            return Err(Full);
        }
        self.bytes += more;
        self.messages.push_back(PendingMessage { index, data: compact(data), binary, since: now });
        Ok(())
    }

    /// Forgets all messages up to an index. Indices are consecutive, so the distance to the oldest one says how many that
    /// are; an index that was never given out covers more than there are and is ignored.
    pub(super) fn acknowledge(&mut self, index: u16) {
        let Some(oldest) = self.messages.front() else { return };
        let covered = usize::from(index.wrapping_sub(oldest.index)) + 1;
        if covered <= self.messages.len() {
            for _ in 0..covered {
                self.pop();
            }
        }
    }

    /// The message that waits longest.
    pub(super) fn oldest(&self) -> Option<&PendingMessage> {
        self.messages.front()
    }

    /// Forgets the oldest message.
    pub(super) fn pop(&mut self) {
        let Some(message) = self.messages.pop_front() else { return };
        let bytes = message.data.len() as u64;
        self.bytes -= bytes;
        self.share.shrink(bytes + MESSAGE_OVERHEAD_BYTES);
        if self.messages.is_empty() && self.messages.capacity() > KEPT_CAPACITY {
            self.messages = VecDeque::new();
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
    use crate::budget::Budget;

    #[test]
    fn small_messages_do_not_keep_the_buffer_that_they_came_in() {
        let mut pending = Pending::new(u64::MAX, Budget::new(u64::MAX).share());
        let buffer = Bytes::from(vec![7; 8 * limits::KIB]);
        let mut keep = |bytes| pending.push(0, buffer.slice(..bytes), true, Instant::now()).unwrap();
        keep(20);
        keep(KEPT_UNCOPIED_MIN_BYTES - 1);
        assert!(buffer.is_unique());
        keep(KEPT_UNCOPIED_MIN_BYTES);
        assert!(!buffer.is_unique(), "large ones are not copied");
        assert_eq!(pending.messages().map(|message| message.data.len()).collect::<Vec<_>>(), [20, 2047, 2048]);
    }

    #[test]
    fn limits_hold_at_their_edges_and_acks_give_room_back() {
        let now = Instant::now();
        let budget = Budget::new(u64::MAX);
        let mut pending = Pending::new(10, budget.share());
        assert_eq!(pending.push(65_535, Bytes::from_static(b"12345"), true, now), Ok(()));
        assert_eq!(pending.push(0, Bytes::from_static(b"12345"), true, now), Ok(()));
        assert_eq!(pending.push(1, Bytes::from_static(b"1"), true, now), Err(Full));
        pending.acknowledge(65_535);
        assert_eq!(pending.messages().map(|message| message.index).collect::<Vec<_>>(), [0]);
        assert_eq!(pending.push(1, Bytes::from_static(b"12345"), true, now), Ok(()));
        pending.acknowledge(1);
        assert!(pending.is_empty());

        assert_eq!(budget.waiting_bytes(), 0);

        let mut many = Pending::new(u64::MAX, budget.share());
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
