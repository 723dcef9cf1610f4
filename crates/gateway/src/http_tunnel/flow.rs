//! The bookkeeping of a tunnelled exchange (`spec/envoy-protocol.md` 13.2, 13.4 and 13.5). Pure.

use protocol::limits;

/// The order of a host's messages about one request: indices from 0, each one more than the one before, around at 65,536.
#[derive(Debug, Default)]
pub(super) struct Order {
    next: u16,
}

/// A message has another index than its turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) expected: u16,
    pub(super) got: u16,
}

impl Order {
    /// Takes the index of the next message.
    pub(super) fn take(&mut self, got: u16) -> Result<(), Gap> {
        let expected = self.next;
        self.next = expected.wrapping_add(1);
        if got == expected { Ok(()) } else { Err(Gap { expected, got }) }
    }

    /// Whether no message has come yet.
    pub(super) fn is_at_start(&self) -> bool {
        self.next == 0
    }
}

/// What an upload may send: the actor's host takes [`limits::HTTP_BODY_WINDOW_BYTES`] beyond what it has reported as consumed.
#[derive(Debug, Default)]
pub(super) struct SendWindow {
    sent: u64,
    consumed: u64,
}

/// A host has reported less than before, or more than was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidUpdate;

impl SendWindow {
    /// How many bytes may be sent now.
    pub(super) fn credit(&self) -> u64 {
        limits::HTTP_BODY_WINDOW_BYTES.saturating_sub(self.sent - self.consumed)
    }

    /// These bytes were sent.
    pub(super) fn send(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The host reports how many bytes it has consumed, in total.
    pub(super) fn report(&mut self, consumed: u64) -> Result<(), InvalidUpdate> {
        if consumed < self.consumed || consumed > self.sent {
            return Err(InvalidUpdate);
        }
        self.consumed = consumed;
        Ok(())
    }
}

/// What has come of a streamed answer, when to give credit for more, and whether it is as long as announced.
#[derive(Debug, Default)]
pub(super) struct Receipt {
    received: u64,
    reported: u64,
    announced: Option<u64>,
}

/// An answer is shorter or longer than the actor announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LengthDiffers;

impl Receipt {
    /// Of an answer whose length the actor may have announced, in bytes.
    pub(super) fn new(announced: Option<u64>) -> Self {
        Self { received: 0, reported: 0, announced }
    }

    /// Takes a piece of the answer.
    pub(super) fn take(&mut self, bytes: usize, is_last: bool) -> Result<(), LengthDiffers> {
        self.received += bytes as u64;
        match self.announced {
            Some(announced) if self.received > announced || (is_last && self.received < announced) => Err(LengthDiffers),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether as many bytes have come as were announced.
    pub(super) fn is_as_announced(&self) -> bool {
        self.announced == Some(self.received)
    }

    /// What to report as consumed, in total, when it is time to.
    pub(super) fn report_due(&mut self) -> Option<u64> {
        let is_due = self.received - self.reported >= limits::HTTP_WINDOW_UPDATE_STEP_BYTES;
        is_due.then(|| {
            self.reported = self.received;
            self.received
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = limits::HTTP_BODY_WINDOW_BYTES;

    #[test]
    fn indices_follow_each_other_and_go_around() {
        let mut order = Order::default();
        assert!(order.is_at_start());
        for index in 0..=u16::MAX {
            assert_eq!(order.take(index), Ok(()));
        }
        assert_eq!(order.take(0), Ok(()));
        assert_eq!(order.take(3), Err(Gap { expected: 1, got: 3 }));
        assert_eq!(order.take(1), Err(Gap { expected: 2, got: 1 }));
    }

    #[test]
    fn a_window_is_outstanding_at_most_and_reports_neither_go_back_nor_ahead() {
        let mut window = SendWindow::default();
        assert_eq!(window.credit(), WINDOW);
        window.send(WINDOW as usize);
        assert_eq!(window.credit(), 0);
        assert_eq!(window.report(WINDOW + 1), Err(InvalidUpdate));
        assert_eq!(window.report(10), Ok(()));
        assert_eq!(window.report(10), Ok(()));
        assert_eq!(window.credit(), 10);
        assert_eq!(window.report(9), Err(InvalidUpdate));
        assert_eq!(window.credit(), 10, "a refused report changes nothing");
    }

    #[test]
    fn credit_is_returned_in_steps() {
        let step = limits::HTTP_WINDOW_UPDATE_STEP_BYTES;
        let mut receipt = Receipt::new(None);
        receipt.take(step as usize - 1, false).unwrap();
        assert_eq!(receipt.report_due(), None);
        receipt.take(2, false).unwrap();
        assert_eq!(receipt.report_due(), Some(step + 1));
        assert_eq!(receipt.report_due(), None);
    }

    #[test]
    fn an_answer_is_as_long_as_announced() {
        let mut exact = Receipt::new(Some(5));
        assert_eq!(exact.take(5, false), Ok(()));
        assert!(exact.is_as_announced());
        assert_eq!(exact.take(0, true), Ok(()));
        assert_eq!(exact.take(1, false), Err(LengthDiffers));
        assert_eq!(Receipt::new(Some(5)).take(4, true), Err(LengthDiffers));
        assert_eq!(Receipt::new(None).take(4, true), Ok(()));
        assert!(!Receipt::new(None).is_as_announced());
    }
}
