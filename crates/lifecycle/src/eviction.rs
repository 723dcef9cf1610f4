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

/// When each of `actors` evictions is due, in milliseconds after the drain was triggered.
pub fn due_times_ms(pace: &EvictionPace, actors: usize) -> impl Iterator<Item = u64> + use<> {
    let gap_ms = gap_ms(pace, actors);
    let delay_ms = u64::from(pace.delay_s) * 1000;
    (0..actors as u64).map(move |position| delay_ms + (position as f64 * gap_ms) as u64)
}

/// Milliseconds between two evictions: the shorter of what the rate and what the period ask for. Without a period the
/// rate alone counts, and without either all go at once. A rate that is no positive number asks for no gap.
fn gap_ms(pace: &EvictionPace, actors: usize) -> f64 {
    let gap_of = |rate: f32| if rate.is_finite() && rate > 0.0 { 1000.0 / f64::from(rate) } else { 0.0 };
    match (pace.rate_per_s, pace.period_s) {
        (None, 0) => 0.0,
        (Some(rate), 0) => gap_of(rate),
        (rate, period_s) => gap_of(rate.unwrap_or(DEFAULT_RATE_PER_S)).min(f64::from(period_s) * 1000.0 / actors.max(1) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(delay_s: u32, period_s: u32, rate_per_s: Option<f32>, actors: usize) -> Vec<u64> {
        due_times_ms(&EvictionPace { delay_s, period_s, rate_per_s }, actors).collect()
    }

    #[test]
    fn paces_of_the_specification() {
        assert_eq!(due(2, 60, Some(1.0), 6), [2000, 3000, 4000, 5000, 6000, 7000]);
        assert_eq!(due(1, 3, Some(1.0), 6), [1000, 1500, 2000, 2500, 3000, 3500]);
        assert_eq!(due(0, 100, Some(4.0), 6), [0, 250, 500, 750, 1000, 1250]);
        assert_eq!(due(0, 0, None, 3), [0, 0, 0]);
        assert_eq!(due(0, 0, Some(2.0), 3), [0, 500, 1000]);
        assert_eq!(due(0, 60, Some(0.0), 2), [0, 0]);
        assert_eq!(due(0, 60, Some(f32::NAN), 2), [0, 0]);
        assert!(due(5, 60, None, 0).is_empty());
    }
}
