//! Who has used how much of what. Pure: the caller says what time it is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use protocol::id::ActorId;
use tokio::time::Instant;

use super::{ClientLimits, RateLimit};

/// One client and what it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) subject: Subject,
    pub(super) ip: IpAddr,
}

/// What a limit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// All actors together.
    Anything,
    /// One actor.
    Actor(ActorId),
    /// A key that no actor has, as a hash.
    Nobody(u64),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// The window has no request left.
    Rate {
        /// The limit.
        limit: RateLimit,
        /// Until the window ends; more than zero.
        retry_after: Duration,
    },
    /// That many are open already.
    InFlight {
        /// The limit.
        max: u64,
    },
}

/// What a client has used.
#[derive(Debug)]
struct Usage {
    /// The window begins with the first request after the end of the one before.
    window_ends: Instant,
    /// Requests in this window.
    requests: u64,
    in_flight: u64,
    last_used: Instant,
}

impl Usage {
    fn new(now: Instant) -> Self {
        Self { window_ends: now, requests: 0, in_flight: 0, last_used: now }
    }

    /// Whether nothing is lost with it.
    fn is_forgettable(&self, now: Instant, remembered_for: Duration) -> bool {
        self.in_flight == 0 && (now >= self.window_ends || now >= self.last_used + remembered_for)
    }

    fn begin_window_if_due(&mut self, limits: &ClientLimits, now: Instant, remembered_for: Duration) {
        let Some(rate) = limits.rate else { return };
        if now >= self.window_ends || self.is_forgettable(now, remembered_for) {
            self.window_ends = now + rate.period;
            self.requests = 0;
        }
    }

    /// The rate comes first: a request that is one too many at once has been one of this window.
    fn admit(&mut self, limits: &ClientLimits, now: Instant) -> Result<(), Excess> {
        if let Some(limit) = limits.rate {
            if self.requests >= limit.requests {
                return Err(Excess::Rate { limit, retry_after: self.window_ends - now });
            }
            self.requests += 1;
        }
        if let Some(max) = limits.max_in_flight
            && self.in_flight >= max
        {
            return Err(Excess::InFlight { max });
        }
        self.in_flight += 1;
        Ok(())
    }
}

/// What all clients have used. A client with open requests is never forgotten; of the others as many are remembered as
/// there is room for.
pub(super) struct Table {
    usages: HashMap<Key, Usage>,
    /// How many of them have no open request.
    idle: usize,
    remembered_max: usize,
    remembered_for: Duration,
    next_sweep: Instant,
}

/// Looking through the whole table is worth it at most this often, unless it is full.
const SWEEP_PAUSE_MIN: Duration = Duration::from_secs(1);

impl Table {
    pub(super) fn new(remembered_max: usize, remembered_for: Duration, now: Instant) -> Self {
        let next_sweep = now + remembered_for.max(SWEEP_PAUSE_MIN);
        Self { usages: HashMap::new(), idle: 0, remembered_max, remembered_for, next_sweep }
    }

    /// Counts a request, which is open from here on, or refuses it.
    pub(super) fn admit(&mut self, key: Key, limits: &ClientLimits, now: Instant) -> Result<(), Excess> {
        let (usage, idle) = self.usage(key, limits, now);
        let was_idle = usage.in_flight == 0;
        let admitted = usage.admit(limits, now);
        *idle -= usize::from(was_idle && admitted.is_ok());
        self.sweep_if_due(now);
        admitted
    }

    /// An open request has ended.
    pub(super) fn release(&mut self, key: Key, now: Instant) {
        let Some(usage) = self.usages.get_mut(&key).filter(|usage| usage.in_flight > 0) else {
            debug_assert!(false, "released what was not held: {key:?}");
            return;
        };
        usage.in_flight -= 1;
        usage.last_used = now;
        self.idle += usize::from(usage.in_flight == 0);
        self.sweep_if_due(now);
    }

    /// An open request counts elsewhere from here on, whatever the limits there.
    pub(super) fn transfer(&mut self, from: Key, to: Key, limits: &ClientLimits, now: Instant) {
        let (usage, idle) = self.usage(to, limits, now);
        *idle -= usize::from(usage.in_flight == 0);
        usage.requests += 1;
        usage.in_flight += 1;
        self.release(from, now);
    }

    /// What a client has used so far, up to date, and the count of those that use nothing.
    fn usage(&mut self, key: Key, limits: &ClientLimits, now: Instant) -> (&mut Usage, &mut usize) {
        let usage = self.usages.entry(key).or_insert_with(|| {
            self.idle += 1;
            Usage::new(now)
        });
        usage.begin_window_if_due(limits, now, self.remembered_for);
        usage.last_used = now;
        (usage, &mut self.idle)
    }

    fn sweep_if_due(&mut self, now: Instant) {
        let is_full = self.idle > self.remembered_max;
        if !is_full && now < self.next_sweep {
            return;
        }
        self.next_sweep = now + self.remembered_for.max(SWEEP_PAUSE_MIN);
        self.usages.retain(|_, usage| !usage.is_forgettable(now, self.remembered_for));
        let mut idle: Vec<(Instant, Key)> =
            self.usages.iter().filter(|(_, usage)| usage.in_flight == 0).map(|(key, usage)| (usage.last_used, *key)).collect();
        // Room for some more: else a full table would be looked through for each new client.
        let kept = if is_full { self.remembered_max - self.remembered_max / 4 } else { self.remembered_max };
        let surplus = idle.len().saturating_sub(kept);
        if surplus > 0 {
            idle.select_nth_unstable_by_key(surplus - 1, |(last_used, _)| *last_used);
            for (_, key) in &idle[..surplus] {
                self.usages.remove(key);
            }
        }
        self.idle = idle.len() - surplus;
    }
}

#[cfg(test)]
mod tests;
