//! Emptying one host, one actor after another (`spec/scheduling.md` 8.2, `decisions.md` 6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::id::ActorId;

use crate::Ts;
use crate::eviction::EvictionPace;

/// Evictions that fall due while the engine is held up are made up for at once if they are late by no more than this, in
/// milliseconds: without it every late timer would slow the drain down, with more of it a long pause would end in a burst.
pub const CATCH_UP_MAX_MS: i64 = 100;

/// An actor on the host, and the generation that runs there.
pub type Hosted = (ActorId, u32);

/// A drain that is under way.
///
/// Its configuration is the one in force at its beginning. It goes on where it was when the host was away for a while. Times
/// are those of any clock that moves evenly.
#[derive(Debug, Clone, PartialEq)]
pub struct Drain {
    pace: EvictionPace,
    /// The host is away: nobody would hear the order to go.
    paused: bool,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// Nobody is told to go before `until`.
    Delay { until: Ts },
    Evicting {
        gap_us: i64,
        /// The earliest time of the next eviction, in microseconds, because fractions of milliseconds add up.
        next_us: i64,
        waiting: VecDeque<Hosted>,
        /// All who wait or have been told.
        listed: BTreeSet<Hosted>,
    },
}

impl Drain {
    /// Begins at `now`. `not_before`: the earliest time for the first eviction, when an earlier drain of the same host has set
    /// a pace that holds on ([`Self::free_at`]).
    pub fn begin(pace: EvictionPace, now: Ts, not_before: Option<Ts>) -> Self {
        let until = now.saturating_add(pace.delay_ms()).max(not_before.unwrap_or(now));
        Self { pace, paused: false, stage: Stage::Delay { until } }
    }

    /// When [`Self::advance`] has something to do; `None`: not before something else happens.
    pub fn next_look(&self) -> Option<Ts> {
        let look = match &self.stage {
            Stage::Delay { until } => Some(*until),
            Stage::Evicting { waiting, .. } if waiting.is_empty() => None,
            Stage::Evicting { next_us, .. } => Some(in_whole_ms(*next_us)),
        };
        look.filter(|_| !self.paused)
    }

    /// The host is away until [`Self::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// The host is back. What fell due meanwhile is not made up for: the pace holds.
    pub fn resume(&mut self, now: Ts) {
        self.paused = false;
        self.not_before(now);
    }

    /// Those who are to go now. `hosted`: the generations of all actors that are on the host now, those that are starting
    /// included: they move as soon as they run. Who has left by itself needs no turn. Everybody is told once per generation.
    pub fn advance(&mut self, now: Ts, hosted: &BTreeMap<ActorId, u32>) -> Vec<Hosted> {
        if self.next_look().is_none_or(|look| look > now) {
            return Vec::new();
        }
        if let Stage::Delay { until } = &self.stage {
            let listed: BTreeSet<Hosted> = hosted.iter().map(|(actor, generation)| (*actor, *generation)).collect();
            self.stage = Stage::Evicting {
                gap_us: (self.pace.gap_ms(listed.len()) * 1000.0) as i64,
                next_us: until.saturating_mul(1000),
                waiting: listed.iter().copied().collect(),
                listed,
            };
        }
        self.not_before(now.saturating_sub(CATCH_UP_MAX_MS));
        let mut due = Vec::new();
        if let Stage::Evicting { gap_us, next_us, waiting, .. } = &mut self.stage {
            while in_whole_ms(*next_us) <= now
                && let Some(next) = waiting.pop_front()
            {
                if hosted.get(&next.0) == Some(&next.1) {
                    due.push(next);
                    *next_us = next_us.saturating_add(*gap_us);
                }
            }
        }
        due
    }

    /// An actor has come to the host after all. It goes last. (During the delay it is listed with the others later.)
    pub fn arrived(&mut self, actor: Hosted, now: Ts) {
        let Stage::Evicting { waiting, listed, .. } = &mut self.stage else { return };
        if listed.insert(actor) {
            let was_idle = waiting.is_empty();
            waiting.push_back(actor);
            if was_idle {
                self.not_before(now);
            }
        }
    }

    /// When another drain of the same host may evict at the earliest, so that the two together keep to the pace of this one.
    pub fn free_at(&self) -> Option<Ts> {
        match &self.stage {
            Stage::Delay { .. } => None,
            Stage::Evicting { next_us, .. } => Some(in_whole_ms(*next_us)),
        }
    }

    fn not_before(&mut self, earliest: Ts) {
        if let Stage::Evicting { next_us, .. } = &mut self.stage {
            *next_us = earliest.saturating_mul(1000).max(*next_us);
        }
    }
}

/// The first millisecond that is no earlier.
fn in_whole_ms(us: i64) -> Ts {
    us.saturating_add(999).div_euclid(1000)
}
