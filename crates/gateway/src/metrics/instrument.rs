//! Counters, gauges and histograms that cost an atomic addition: no allocation, no lock and no look-up where they are used.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts several more at once.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// All that was counted since the process began.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How much of something is there now. It has no way to be set: whoever has a share of it holds that share
/// ([`Gauge::hold`]), so it returns to zero when everything is over, whichever way it ended.
#[derive(Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Counts one until the result is dropped.
    pub fn hold(&self) -> Held {
        self.hold_amount(1)
    }

    /// Counts an amount, which may change, until the result is dropped.
    pub fn hold_amount(&self, amount: u64) -> Held {
        self.0.fetch_add(amount, Ordering::Relaxed);
        Held { total: self.0.clone(), amount }
    }

    /// The sum of what is held now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A share of a [`Gauge`], given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    total: Arc<AtomicU64>,
    amount: u64,
}

impl Held {
    /// Holds another amount from now on.
    pub fn set(&mut self, amount: u64) {
        // Wraps on the way when it shrinks; the sum is right.
        self.total.fetch_add(amount.wrapping_sub(self.amount), Ordering::Relaxed);
        self.amount = amount;
    }

    /// Counts the same amount under another gauge from now on.
    pub fn move_to(&mut self, gauge: &Gauge) {
        *self = gauge.hold_amount(self.amount);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// Upper bounds of the buckets, in microseconds: 1 ms to 500 s, as dashboards of this platform expect
/// (`spec/engine-api.md` 12.2).
const BOUNDS_MICROS: [u64; 18] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
];

/// How long something took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One per bound, and one for what is above all of them.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// What a [`Histogram`] has seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Sum of all durations, in seconds.
    pub sum_seconds: f64,
    /// How many there were.
    pub count: u64,
    /// Upper bound in seconds, the last one infinite, and how many durations were above the bound before and not above this.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Everything that was counted.
    pub fn distribution(&self) -> Distribution {
        let bounds = BOUNDS_MICROS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        Distribution {
            sum_seconds: self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6,
            // Not counted apart, so that the sum of the buckets and the count never contradict each other.
            count: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        }
    }
}

/// The values of a label: a closed set, so the number of series is known when the program is compiled.
pub trait Label: Copy + 'static {
    /// The label's name.
    const KEY: &'static str;
    /// All values, in order of [`Label::index`].
    const ALL: &'static [Self];

    /// The value's name.
    fn name(self) -> &'static str;
    /// The value's place in [`Label::ALL`].
    fn index(self) -> usize;
}

/// One metric for each value of a label, all made beforehand.
#[derive(Debug)]
pub struct By<L, M> {
    children: Box<[M]>,
    label: PhantomData<L>,
}

impl<L: Label, M: Default> Default for By<L, M> {
    fn default() -> Self {
        Self { children: L::ALL.iter().map(|_| M::default()).collect(), label: PhantomData }
    }
}

impl<L: Label, M> By<L, M> {
    /// The metric of one value.
    pub fn get(&self, label: L) -> &M {
        &self.children[label.index()]
    }

    /// All values with their metrics.
    pub fn iter(&self) -> impl Iterator<Item = (L, &M)> {
        L::ALL.iter().copied().zip(&self.children)
    }
}

/// Names and values of the labels of one series.
pub type Labels = [(&'static str, &'static str)];

/// A metric, or all metrics under a label.
pub trait Series<M> {
    /// Visits each metric with its labels, which follow those given.
    ///
    /// # Errors
    /// Those of the visitor, at the first of which this ends.
    fn visit<E>(
        &self,
        labels: &mut Vec<(&'static str, &'static str)>,
        visitor: &mut impl FnMut(&Labels, &M) -> Result<(), E>,
    ) -> Result<(), E>;
}

/// A metric that is one series.
pub trait Metric {}
impl Metric for Counter {}
impl Metric for Gauge {}
impl Metric for Histogram {}

impl<M: Metric> Series<M> for M {
    fn visit<E>(
        &self,
        labels: &mut Vec<(&'static str, &'static str)>,
        visitor: &mut impl FnMut(&Labels, &M) -> Result<(), E>,
    ) -> Result<(), E> {
        visitor(labels, self)
    }
}

impl<L: Label, M, S: Series<M>> Series<M> for By<L, S> {
    fn visit<E>(
        &self,
        labels: &mut Vec<(&'static str, &'static str)>,
        visitor: &mut impl FnMut(&Labels, &M) -> Result<(), E>,
    ) -> Result<(), E> {
        for (label, child) in self.iter() {
            labels.push((L::KEY, label.name()));
            child.visit(labels, visitor)?;
            labels.pop();
        }
        Ok(())
    }
}

/// Declares a label as an enum whose variants are its values.
macro_rules! label {
    ($(#[$doc:meta])* $label:ident, $key:literal, { $($(#[$about:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $label {
            $($(#[$about])* $variant,)+
        }

        impl Label for $label {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(super) use label;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_the_sum_of_what_is_held() {
        let (gauge, other) = (Gauge::default(), Gauge::default());
        let (one, mut many) = (gauge.hold(), gauge.hold_amount(0));
        many.set(100);
        assert_eq!(gauge.get(), 101);
        many.set(7);
        drop(one);
        assert_eq!(gauge.get(), 7);
        many.move_to(&other);
        assert_eq!((gauge.get(), other.get()), (0, 7));
        drop(many);
        assert_eq!(other.get(), 0);
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        let seen = [Duration::ZERO, Duration::from_millis(1), Duration::from_micros(1_001), Duration::from_secs(501)];
        for took in seen {
            histogram.observe(took);
        }
        let distribution = histogram.distribution();
        let filled: Vec<(f64, u64)> = distribution.buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.001, 2), (0.0025, 1), (f64::INFINITY, 1)]);
        assert_eq!((distribution.count, histogram.count()), (4, 4));
        assert_eq!(distribution.sum_seconds, 501.002_001);
    }
}
