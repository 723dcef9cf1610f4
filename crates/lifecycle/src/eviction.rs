//! How fast a host is emptied (`spec/scheduling.md` 8.2, `decisions.md` 6).

/// A pool's wishes for a drain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvictionPace {
    /// Seconds to wait before the first eviction.
    pub delay_s: u32,
    /// Longest time the whole eviction may take, in seconds; 0 when the operator set none.
    pub period_s: u32,
    /// Actors per second; `None` when the operator set none.
    pub rate_per_s: Option<f32>,
}

/// The pace that the API reports when the operator set no rate, in actors per second.
pub const DEFAULT_RATE_PER_S: f32 = 1.0;

impl EvictionPace {
    /// Milliseconds from the trigger to the first eviction.
    pub fn delay_ms(&self) -> i64 {
        i64::from(self.delay_s) * 1000
    }

    /// Milliseconds between two evictions, for a host with so many actors: the shorter of what the rate and what the period ask
    /// for. Without a period the rate alone counts, and without either all go at once. A rate that is no positive number asks
    /// for no gap.
    pub fn gap_ms(&self, actors: usize) -> f64 {
        let gap_of = |rate: f32| if rate.is_finite() && rate > 0.0 { 1000.0 / f64::from(rate) } else { 0.0 };
        match (self.rate_per_s, self.period_s) {
            (None, 0) => 0.0,
            (Some(rate), 0) => gap_of(rate),
            (rate, period_s) => {
                let gap_of_period = f64::from(period_s) * 1000.0 / actors.max(1) as f64;
                gap_of(rate.unwrap_or(DEFAULT_RATE_PER_S)).min(gap_of_period)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_of_the_specification() {
        let gap_ms = |period_s, rate_per_s, actors| EvictionPace { delay_s: 0, period_s, rate_per_s }.gap_ms(actors);
        assert_eq!(gap_ms(60, Some(1.0), 6), 1000.0);
        assert_eq!(gap_ms(3, Some(1.0), 6), 500.0);
        assert_eq!(gap_ms(100, Some(4.0), 6), 250.0);
        assert_eq!(gap_ms(60, None, 6), 1000.0, "the rate that lists show counts as soon as there is a period");
        assert_eq!(gap_ms(0, None, 6), 0.0, "at once");
        assert_eq!(gap_ms(0, Some(2.0), 6), 500.0);
        assert_eq!(gap_ms(60, Some(0.0), 2), 0.0);
        assert_eq!(gap_ms(60, Some(f32::NAN), 2), 0.0);
        assert_eq!(gap_ms(60, Some(1.0), 0), 1000.0);
    }
}
