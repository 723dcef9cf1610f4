//! What a pool knows of its endpoint: whether it may be asked, what went wrong last, when its metadata is read next
//! (`spec/scheduling.md` 9).

use crate::Ts;

/// Why the hosts of a pool cannot be had (`spec/scheduling.md` 1.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PoolError {
    /// The endpoint refused a start request.
    HttpError {
        /// Its status.
        status_code: u16,
        /// The beginning of what it said.
        body: String,
    },
    /// A start request ended before its actor had stopped.
    StreamEndedEarly,
    /// The endpoint could not be reached, or answered something that is no start of an actor.
    ConnectionError {
        /// What happened, outermost cause first.
        message: String,
    },
    /// The rules for outgoing requests forbid the endpoint.
    DestinationBlocked {
        /// Which rule.
        reason: String,
    },
    /// The endpoint runs an application without actors of this kind, although it once had them.
    Downgrade,
    /// The pool's configuration is gone.
    InternalError,
    /// The engine could not put the start request together, or not send it. Nothing of that is the endpoint's fault.
    NotAsked {
        /// Why.
        reason: String,
    },
}

/// How attempts that fail are spaced, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// After the first failure.
    pub base_ms: i64,
    /// At most.
    pub max_ms: i64,
    /// After this time an attempt without an outcome no longer holds up others.
    pub probe_patience_ms: i64,
}

/// Keeps a pool whose endpoint fails from hammering it: attempts wait after a failure, the longer the more of them failed in a
/// row, and then a single one goes ahead of the others (`spec/scheduling.md` 9.6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    state: BreakerState,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum BreakerState {
    /// The latest attempt that ended did not fail.
    #[default]
    Closed,
    /// Nothing may be tried before `until`.
    Open { trouble: Trouble, until: Ts },
    /// One attempt is under way; the others wait for its outcome, but no longer than `until`.
    Probing { trouble: Trouble, until: Ts },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    /// In a row.
    failures: u32,
    /// When the latest of them became known.
    known_since: Ts,
    /// What it was.
    error: PoolError,
}

/// Whether an attempt may be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Go,
    /// Not before this time.
    Wait {
        /// When it is worth asking again.
        until: Ts,
        /// Why: what the latest attempt has met.
        error: PoolError,
    },
}

impl Breaker {
    /// Whether an attempt may be made at `now`; changes nothing.
    pub fn admits(&self, now: Ts, rules: &BreakerRules) -> Admission {
        match &self.state {
            BreakerState::Closed => Admission::Go,
            BreakerState::Open { trouble, until } if now < *until => {
                Admission::Wait { until: *until, error: trouble.error.clone() }
            }
            // The attempt may end at any moment, and nobody tells those who wait if it fails.
            BreakerState::Probing { trouble, until } if now < *until => {
                Admission::Wait { until: now.saturating_add(rules.max_ms).min(*until), error: trouble.error.clone() }
            }
            BreakerState::Open { .. } | BreakerState::Probing { .. } => Admission::Go,
        }
    }

    /// An attempt that was admitted begins.
    pub fn attempted(&mut self, now: Ts, rules: &BreakerRules) {
        self.state = match std::mem::take(&mut self.state) {
            BreakerState::Closed => BreakerState::Closed,
            BreakerState::Open { trouble, .. } | BreakerState::Probing { trouble, .. } => {
                BreakerState::Probing { trouble, until: now.saturating_add(rules.probe_patience_ms) }
            }
        };
    }

    /// An attempt that was admitted is not made after all: somebody else may go first.
    pub fn withdrawn(&mut self, now: Ts) {
        self.state = match std::mem::take(&mut self.state) {
            state @ (BreakerState::Closed | BreakerState::Open { .. }) => state,
            BreakerState::Probing { trouble, .. } => BreakerState::Open { trouble, until: now },
        };
    }

    /// An attempt that began at `began` has failed. Attempts that began before the previous failure was known tell nothing new.
    pub fn failed(&mut self, began: Ts, now: Ts, error: PoolError, rules: &BreakerRules) {
        if self.trouble_since(began).is_some() {
            return;
        }
        let failures = self.trouble().map_or(0, |trouble| trouble.failures);
        let delay = rules.base_ms.saturating_mul(1 << failures.min(30)).min(rules.max_ms);
        let trouble = Trouble { failures: failures.saturating_add(1), known_since: now, error };
        self.state = BreakerState::Open { trouble, until: now.saturating_add(delay) };
    }

    /// An attempt has led to something: all may try again. Whether that is news to those who wait.
    pub fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.state) != BreakerState::Closed
    }

    /// Whether the latest outcome was a failure.
    pub fn is_open(&self) -> bool {
        self.trouble().is_some()
    }

    /// What went wrong after an attempt was admitted at `began`. One that has not been made yet had better not be made.
    pub fn trouble_since(&self, began: Ts) -> Option<&PoolError> {
        self.trouble().filter(|trouble| began < trouble.known_since).map(|trouble| &trouble.error)
    }

    fn trouble(&self) -> Option<&Trouble> {
        match &self.state {
            BreakerState::Closed => None,
            BreakerState::Open { trouble, .. } | BreakerState::Probing { trouble, .. } => Some(trouble),
        }
    }
}

/// The error that a pool shows until enough went well after it (`spec/scheduling.md` 9.7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorTracker {
    active: Option<(PoolError, Ts)>,
    successes: u32,
}

impl ErrorTracker {
    /// Something went wrong.
    pub fn failed(&mut self, error: PoolError, now: Ts) {
        self.active = Some((error, now));
        self.successes = 0;
    }

    /// A host of the pool has connected, or an actor of it runs. `needed` of them in a row clear the error.
    pub fn succeeded(&mut self, needed: u32) {
        self.successes = self.successes.saturating_add(1);
        if self.successes >= needed {
            self.active = None;
        }
    }

    /// The error that is shown, and since when.
    pub fn active(&self) -> Option<(&PoolError, Ts)> {
        self.active.as_ref().map(|(error, since)| (error, *since))
    }
}

/// How often a pool's metadata are read, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollRules {
    /// Without a wish of the pool.
    pub default_ms: i64,
    /// At least.
    pub min_ms: i64,
    /// Largest exponent of the slow-down after failures.
    pub max_exponent: u32,
    /// Time without a failure after which the slow-down is forgotten.
    pub reset_ms: i64,
}

/// How long to wait for the next reading of a pool's metadata (`spec/scheduling.md` 9.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PollPace {
    failures: u32,
    last_failure: Ts,
}

impl PollPace {
    /// The pace after a reading has ended.
    pub fn after(self, succeeded: bool, now: Ts, rules: &PollRules) -> Self {
        let quiet = now.saturating_sub(self.last_failure) >= rules.reset_ms;
        match (succeeded, quiet) {
            (true, true) => Self::default(),
            (true, false) => self,
            (false, true) => Self { failures: 1, last_failure: now },
            (false, false) => Self { failures: self.failures.saturating_add(1), last_failure: now },
        }
    }

    /// Milliseconds until the next reading. `succeeded`: how the last one ended; `wish_ms`: the pool's option.
    pub fn next_in_ms(self, succeeded: bool, wish_ms: Option<i64>, rules: &PollRules) -> i64 {
        let interval = wish_ms.unwrap_or(rules.default_ms).max(rules.min_ms);
        let exponent = if succeeded { 0 } else { self.failures.min(rules.max_exponent).min(30) };
        interval.saturating_mul(1 << exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKER: BreakerRules = BreakerRules { base_ms: 100, max_ms: 5_000, probe_patience_ms: 30_000 };

    fn refused(status_code: u16) -> PoolError {
        PoolError::HttpError { status_code, body: String::new() }
    }

    fn wait(until: Ts, status_code: u16) -> Admission {
        Admission::Wait { until, error: refused(status_code) }
    }

    #[test]
    fn an_endpoint_that_always_fails_is_asked_five_times_in_two_seconds() {
        let mut breaker = Breaker::default();
        let mut attempts = Vec::new();
        for now in 0..60_000 {
            if breaker.admits(now, &BREAKER) == Admission::Go {
                breaker.attempted(now, &BREAKER);
                breaker.failed(now, now, refused(502), &BREAKER);
                attempts.push(now);
            }
        }
        assert_eq!(attempts[..8], [0, 100, 300, 700, 1_500, 3_100, 6_300, 11_300]);
        assert_eq!(attempts.iter().filter(|at| **at < 2_000).count(), 5);
    }

    #[test]
    fn one_attempt_goes_ahead_and_its_outcome_counts_for_all() {
        let mut breaker = Breaker::default();
        for began in [0, 5, 9] {
            assert_eq!(breaker.admits(began, &BREAKER), Admission::Go);
            breaker.attempted(began, &BREAKER);
        }
        breaker.failed(0, 10, refused(500), &BREAKER);
        breaker.failed(5, 12, refused(501), &BREAKER);
        assert_eq!(breaker.admits(12, &BREAKER), wait(110, 500), "three failures of the same moment are one");
        assert_eq!(breaker.trouble_since(9), Some(&refused(500)), "an attempt that was not made yet is stopped");
        assert_eq!(breaker.admits(110, &BREAKER), Admission::Go);
        breaker.attempted(110, &BREAKER);
        assert_eq!(breaker.trouble_since(110), None);
        assert_eq!(breaker.admits(25_111, &BREAKER), wait(30_110, 500), "the others wait for the one");
        assert_eq!(breaker.admits(30_110, &BREAKER), Admission::Go, "but not for ever");
        breaker.withdrawn(200);
        assert_eq!(breaker.admits(200, &BREAKER), Admission::Go, "one that is not made holds up nobody");
        assert!(breaker.succeeded() && !breaker.succeeded());
        assert_eq!(breaker.admits(111, &BREAKER), Admission::Go);
        assert!(!breaker.is_open());
    }

    /// Nobody tells them that the attempt has failed.
    #[test]
    fn who_waits_for_an_attempt_asks_again_as_soon_as_after_any_failure() {
        let mut breaker = Breaker::default();
        breaker.failed(0, 0, refused(502), &BREAKER);
        breaker.attempted(100, &BREAKER);
        assert_eq!(breaker.admits(101, &BREAKER), wait(5_101, 502));
    }

    #[test]
    fn an_error_is_shown_until_enough_went_well_in_a_row() {
        let mut tracker = ErrorTracker::default();
        tracker.failed(PoolError::Downgrade, 1);
        tracker.succeeded(3);
        tracker.succeeded(3);
        tracker.failed(PoolError::StreamEndedEarly, 2);
        tracker.succeeded(3);
        tracker.succeeded(3);
        assert_eq!(tracker.active(), Some((&PoolError::StreamEndedEarly, 2)));
        tracker.succeeded(3);
        assert_eq!(tracker.active(), None);
    }

    #[test]
    fn metadata_are_read_at_the_wished_pace_and_slower_after_failures() {
        let rules = PollRules { default_ms: 10_000, min_ms: 5_000, max_exponent: 8, reset_ms: 600_000 };
        let calm = PollPace::default();
        assert_eq!(calm.next_in_ms(true, None, &rules), 10_000);
        assert_eq!(calm.next_in_ms(true, Some(1_000), &rules), 5_000);
        assert_eq!(calm.next_in_ms(true, Some(60_000), &rules), 60_000);
        let once = calm.after(false, 1_000_000, &rules);
        assert_eq!(once.next_in_ms(false, None, &rules), 20_000);
        let twice = once.after(false, 1_020_000, &rules);
        assert_eq!(twice.next_in_ms(false, None, &rules), 40_000);
        assert_eq!(twice.next_in_ms(true, None, &rules), 10_000);
        assert_eq!(twice.after(true, 1_030_000, &rules), twice);
        assert_eq!(twice.after(true, 1_620_000, &rules), calm);
        let many = (0..20).fold(calm, |pace, n| pace.after(false, 1_000_000 + n, &rules));
        assert_eq!(many.next_in_ms(false, None, &rules), 2_560_000);
    }
}
