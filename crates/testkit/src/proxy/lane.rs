//! One direction of one connection, as a pure machine: what may be read, written and passed on now.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use tokio::time::{Duration, Instant};

use super::fault::Fault;

/// Bytes that one direction of a connection holds at most.
pub(super) const LANE_MAX_BYTES: usize = 1024 * 1024;
/// A limited direction writes about so much at a time.
const LIMIT_SLICE: Duration = Duration::from_millis(20);

/// How a sender has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SenderEnd {
    /// It sends no more.
    Finished,
    /// Its connection is gone.
    Reset,
}

/// What a connection's task should do for a direction now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Whether to read from the sender.
    pub(super) may_read: bool,
    /// How many of the foremost bytes to write to the receiver.
    pub(super) may_write: usize,
    /// When to ask again, if nothing happens before.
    pub(super) wake_at: Option<Instant>,
    /// How the direction has ended. Nothing else is to be done then.
    pub(super) verdict: Option<Verdict>,
}

/// How a direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The sender has finished and everything has arrived: the receiver is told. The other direction goes on.
    Finish,
    /// The sender has finished, and nobody is told.
    Forget,
    /// The whole connection ends cleanly.
    Cut,
    /// The whole connection ends with a reset.
    Reset,
}

/// Nothing is to be done.
const IDLE: Step = Step { may_read: false, may_write: 0, wake_at: None, verdict: None };

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    due: Instant,
}

#[derive(Debug)]
pub(super) struct Lane {
    fault: Fault,
    queue: VecDeque<Chunk>,
    queued_bytes: usize,
    /// How the sender has ended, and when the receiver hears of it.
    end: Option<(SenderEnd, Instant)>,
    /// Bytes left before a cut or reset.
    budget: u64,
    /// When a limited direction may write again.
    next_write: Instant,
    passed_bytes: u64,
}

impl Lane {
    pub(super) fn new(fault: Fault, now: Instant) -> Self {
        let mut lane = Self {
            fault: Fault::Pass,
            queue: VecDeque::new(),
            queued_bytes: 0,
            end: None,
            budget: 0,
            next_write: now,
            passed_bytes: 0,
        };
        lane.set(fault, now);
        lane
    }

    /// Bytes that have arrived at the receiver.
    pub(super) fn passed_bytes(&self) -> u64 {
        self.passed_bytes
    }

    pub(super) fn fault(&self) -> Fault {
        self.fault
    }

    /// Another fault begins. What was held back by the last one is free.
    pub(super) fn set(&mut self, fault: Fault, now: Instant) {
        let ends = matches!(fault, Fault::Cut { after_bytes: 0 } | Fault::Reset { after_bytes: 0 });
        if self.fault == Fault::HalfOpen && !ends {
            return;
        }
        self.fault = fault;
        self.next_write = now;
        self.release(now);
        match fault {
            Fault::Cut { after_bytes } | Fault::Reset { after_bytes } => self.budget = after_bytes,
            Fault::HalfOpen => {
                self.queue.clear();
                self.queued_bytes = 0;
            }
            Fault::Pass | Fault::Stall | Fault::Delay(_) | Fault::Overtaken { .. } | Fault::Limit { .. } => {}
        }
    }

    /// Frees all that waits for its time.
    pub(super) fn release(&mut self, now: Instant) {
        for chunk in &mut self.queue {
            chunk.due = chunk.due.min(now);
        }
        self.end = self.end.map(|(end, due)| (end, due.min(now)));
    }

    /// The sender has sent something. `overtakes`: in place of others that wait, so it does not wait itself.
    pub(super) fn sent(&mut self, bytes: Bytes, overtakes: bool, now: Instant) {
        let wait = match self.fault {
            Fault::HalfOpen => return,
            Fault::Overtaken { at_most } if !overtakes => at_most,
            Fault::Overtaken { .. } => Duration::ZERO,
            Fault::Delay(_) | Fault::Pass | Fault::Cut { .. } | Fault::Reset { .. } | Fault::Stall | Fault::Limit { .. } => {
                self.delay()
            }
        };
        self.queued_bytes += bytes.len();
        self.queue.push_back(Chunk { bytes, due: now + wait });
    }

    /// The sender has ended.
    pub(super) fn ended(&mut self, end: SenderEnd, now: Instant) {
        self.end = Some((end, now + self.delay()));
    }

    fn delay(&self) -> Duration {
        if let Fault::Delay(by) = self.fault { by } else { Duration::ZERO }
    }

    /// The bytes to write next, as many as the last step allowed.
    pub(super) fn front(&self, may_write: usize) -> Bytes {
        self.queue.front().map(|chunk| chunk.bytes.slice(..may_write.min(chunk.bytes.len()))).unwrap_or_default()
    }

    /// The receiver has taken so many bytes. Whether nothing is left.
    pub(super) fn wrote(&mut self, count: usize, now: Instant) -> bool {
        self.passed_bytes += count as u64;
        self.queued_bytes -= count;
        self.budget = self.budget.saturating_sub(count as u64);
        if let Fault::Limit { bytes_per_second } = self.fault {
            let takes = Duration::from_secs_f64(count as f64 / bytes_per_second as f64);
            self.next_write = self.next_write.max(now) + takes;
        }
        if let Some(chunk) = self.queue.front_mut() {
            chunk.bytes.advance(count);
            if chunk.bytes.is_empty() {
                self.queue.pop_front();
            }
        }
        self.queue.is_empty()
    }

    /// What to do at this moment.
    pub(super) fn step(&self, now: Instant) -> Step {
        let may_read = self.end.is_none() && self.queued_bytes < LANE_MAX_BYTES;
        match self.fault {
            Fault::Stall => IDLE,
            Fault::HalfOpen if self.end.is_some() => Step { verdict: Some(Verdict::Forget), ..IDLE },
            Fault::HalfOpen => Step { may_read: true, ..IDLE },
            Fault::Cut { .. } if self.budget == 0 => Step { verdict: Some(Verdict::Cut), ..IDLE },
            Fault::Reset { .. } if self.budget == 0 => Step { verdict: Some(Verdict::Reset), ..IDLE },
            Fault::Cut { .. } | Fault::Reset { .. } => self.carry(may_read, self.budget.try_into().unwrap_or(usize::MAX), now),
            Fault::Limit { .. } if now < self.next_write => Step { wake_at: Some(self.next_write), may_read, ..IDLE },
            Fault::Limit { bytes_per_second } => {
                let slice = bytes_per_second as f64 * LIMIT_SLICE.as_secs_f64();
                self.carry(may_read, (slice as usize).max(1), now)
            }
            Fault::Pass | Fault::Delay(_) | Fault::Overtaken { .. } => self.carry(may_read, usize::MAX, now),
        }
    }

    fn carry(&self, may_read: bool, max_write: usize, now: Instant) -> Step {
        match self.queue.front() {
            Some(chunk) if chunk.due <= now => Step { may_read, may_write: chunk.bytes.len().min(max_write), ..IDLE },
            Some(chunk) => Step { may_read, wake_at: Some(chunk.due), ..IDLE },
            None => match self.end {
                Some((end, due)) if due <= now => Step { verdict: Some(verdict_of(end)), ..IDLE },
                Some((_, due)) => Step { wake_at: Some(due), ..IDLE },
                None => Step { may_read, ..IDLE },
            },
        }
    }
}

fn verdict_of(end: SenderEnd) -> Verdict {
    match end {
        SenderEnd::Finished => Verdict::Finish,
        SenderEnd::Reset => Verdict::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Bytes = Bytes::from_static(b"hello");

    fn lane(fault: Fault) -> (Lane, Instant) {
        let now = Instant::now();
        (Lane::new(fault, now), now)
    }

    #[test]
    fn bytes_pass_before_the_end() {
        let (mut lane, now) = lane(Fault::Pass);
        lane.sent(HELLO, false, now);
        lane.ended(SenderEnd::Finished, now);
        assert_eq!(lane.step(now), Step { may_read: false, may_write: 5, wake_at: None, verdict: None });
        assert!(!lane.wrote(2, now));
        assert_eq!(lane.front(usize::MAX), "llo");
        assert!(lane.wrote(3, now));
        assert_eq!(lane.step(now).verdict, Some(Verdict::Finish));
    }

    #[test]
    fn a_cut_comes_after_exactly_so_many_bytes() {
        for (fault, verdict) in [(Fault::Cut { after_bytes: 3 }, Verdict::Cut), (Fault::Reset { after_bytes: 3 }, Verdict::Reset)]
        {
            let (mut lane, now) = lane(fault);
            lane.sent(HELLO, false, now);
            assert_eq!((lane.step(now).may_write, lane.front(3)), (3, Bytes::from_static(b"hel")));
            lane.wrote(3, now);
            assert_eq!(lane.step(now), Step { verdict: Some(verdict), ..IDLE });
        }
        let (lane, now) = lane(Fault::Cut { after_bytes: 0 });
        assert_eq!(lane.step(now).verdict, Some(Verdict::Cut), "without waiting for bytes");
    }

    #[test]
    fn a_stall_holds_everything_and_ends_without_loss() {
        let (mut lane, now) = lane(Fault::Pass);
        lane.sent(HELLO, false, now);
        lane.set(Fault::Stall, now);
        assert_eq!(lane.step(now), IDLE);
        lane.set(Fault::Pass, now);
        assert_eq!(lane.step(now).may_write, 5);
    }

    #[test]
    fn a_dead_direction_takes_everything_and_stays_dead() {
        let (mut lane, now) = lane(Fault::HalfOpen);
        lane.sent(HELLO, false, now);
        assert_eq!(lane.step(now), Step { may_read: true, ..IDLE });
        lane.set(Fault::Pass, now);
        assert_eq!(lane.step(now).verdict, None);
        lane.ended(SenderEnd::Reset, now);
        assert_eq!((lane.step(now).verdict, lane.passed_bytes()), (Some(Verdict::Forget), 0));
        lane.set(Fault::Reset { after_bytes: 0 }, now);
        assert_eq!(lane.step(now).verdict, Some(Verdict::Reset));
    }

    #[test]
    fn delayed_bytes_and_ends_arrive_later_in_order() {
        let by = Duration::from_millis(200);
        let (mut lane, now) = lane(Fault::Delay(by));
        lane.sent(HELLO, false, now);
        lane.ended(SenderEnd::Finished, now + by / 2);
        assert_eq!(lane.step(now), Step { wake_at: Some(now + by), ..IDLE });
        assert_eq!(lane.step(now + by).may_write, 5);
        lane.wrote(5, now + by);
        assert_eq!(lane.step(now + by), Step { wake_at: Some(now + by * 3 / 2), ..IDLE });
        lane.set(Fault::Pass, now + by);
        assert_eq!(lane.step(now + by).verdict, Some(Verdict::Finish), "the end of the delay frees what waits");
    }

    #[test]
    fn held_bytes_are_released_by_those_that_overtake() {
        let at_most = Duration::from_millis(50);
        let (mut lane, now) = lane(Fault::Overtaken { at_most });
        lane.sent(HELLO, false, now);
        assert_eq!(lane.step(now).wake_at, Some(now + at_most));
        lane.release(now);
        assert_eq!(lane.step(now).may_write, 5);
        lane.wrote(5, now);
        lane.sent(HELLO, true, now);
        assert_eq!(lane.step(now).may_write, 5);
    }

    #[test]
    fn a_limit_spreads_bytes_over_time() {
        let (mut lane, mut now) = lane(Fault::Limit { bytes_per_second: 1000 });
        let started = now;
        lane.sent(Bytes::from(vec![0; 1000]), false, now);
        while lane.queued_bytes > 0 {
            let step = lane.step(now);
            match step.wake_at {
                Some(at) => now = at,
                None => drop(lane.wrote(step.may_write, now)),
            }
        }
        assert_eq!(now.duration_since(started).as_millis(), 980, "the last slice has gone out, and 49 before it");
    }

    #[test]
    fn a_full_direction_reads_no_more() {
        let (mut lane, now) = lane(Fault::Delay(Duration::from_secs(9)));
        lane.sent(Bytes::from(vec![0; LANE_MAX_BYTES]), false, now);
        assert!(!lane.step(now).may_read);
    }
}
