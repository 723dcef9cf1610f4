//! When a host counts as eligible, silent, or lost (`spec/scheduling.md` 6.2, 6.3).

use protocol::limits;

use crate::Ts;

/// What liveness depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Connected; the time of the last pong (of the connect, before the first).
    Up {
        /// Last sign of life.
        last_pong_ts: Ts,
    },
    /// Not connected since then.
    Down {
        /// When the connection ended.
        since_ts: Ts,
    },
}

/// The limits in force, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvoyRules {
    /// A silent connection is closed after this.
    pub ping_timeout_ms: i64,
    /// A host that is out of touch for longer is lost. The same value is announced to hosts: they stop their actors by
    /// themselves after it, so nothing is started elsewhere earlier. The one exception are actors of serverless pools whose
    /// request has ended too: nobody waits longer for those than a living host needs to connect again.
    pub lost_threshold_ms: i64,
    /// No new actors for a host that has been silent for longer.
    pub eligible_threshold_ms: i64,
}

/// Whether a connected host has been silent for too long.
pub fn is_silent(link: Link, now: Ts, rules: &EnvoyRules) -> bool {
    match link {
        Link::Up { last_pong_ts } => now - last_pong_ts > rules.ping_timeout_ms,
        Link::Down { .. } => false,
    }
}

/// A ping that a host has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwedPong {
    /// How long ago it was queued, in milliseconds.
    pub since_ms: i64,
    /// What was queued for the host before it, in bytes.
    pub behind_bytes: u64,
    /// Whether the engine does not read what comes from the host at the moment, and so perhaps not the answer.
    pub reading_held_up: bool,
}

/// Whether a host that may well send does not read what it is sent: hosts read in order, and answer at once.
pub fn is_deaf(owed: OwedPong, rules: &EnvoyRules) -> bool {
    let on_a_slow_line = owed.behind_bytes * 1000 / limits::ENVOY_LINE_MIN_BYTES_PER_SECOND;
    let unread = if owed.reading_held_up { limits::ENVOY_UNREAD_GRACE.as_millis() as i64 } else { 0 };
    owed.since_ms > rules.ping_timeout_ms.saturating_add(on_a_slow_line as i64).saturating_add(unread)
}

/// Whether new actors may be placed on a host as far as its liveness goes.
pub fn is_eligible(link: Link, now: Ts, rules: &EnvoyRules) -> bool {
    match link {
        Link::Up { last_pong_ts } => now - last_pong_ts <= rules.eligible_threshold_ms,
        Link::Down { .. } => false,
    }
}

/// When a host without connection counts as lost; `None` while it is connected.
pub fn lost_at(link: Link, rules: &EnvoyRules) -> Option<Ts> {
    match link {
        Link::Up { .. } => None,
        Link::Down { since_ts } => Some(since_ts + rules.lost_threshold_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: EnvoyRules = EnvoyRules { ping_timeout_ms: 15_000, lost_threshold_ms: 15_000, eligible_threshold_ms: 10_000 };

    #[test]
    fn thresholds_hold_at_their_edges() {
        let up = Link::Up { last_pong_ts: 0 };
        assert!(is_eligible(up, 10_000, &RULES) && !is_eligible(up, 10_001, &RULES));
        assert!(!is_silent(up, 15_000, &RULES) && is_silent(up, 15_001, &RULES));
        let owed = |since_ms, behind_bytes, reading_held_up| OwedPong { since_ms, behind_bytes, reading_held_up };
        for (behind_bytes, held_up, limit) in [(0, false, 15_000), (1024 * 1024, false, 17_000), (0, true, 75_000)] {
            assert!(!is_deaf(owed(limit, behind_bytes, held_up), &RULES));
            assert!(is_deaf(owed(limit + 1, behind_bytes, held_up), &RULES));
        }
        let down = Link::Down { since_ts: 100 };
        assert!(!is_eligible(down, 100, &RULES) && !is_silent(down, 1_000_000, &RULES));
        assert_eq!((lost_at(up, &RULES), lost_at(down, &RULES)), (None, Some(15_100)));
    }
}
