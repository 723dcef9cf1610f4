//! Writing families of metrics in text form.

use std::fmt;

use gateway::metrics::{Counter, Gauge, Histogram, Labels, Series};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Takes one family after another. Names come without the common prefix, and those of counters without `_total`.
pub(super) struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl<'a> Families<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self { encoder }
    }

    /// A gauge that is read now.
    pub(super) fn value(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// Counters that are read now, one for each value of a label.
    pub(super) fn counts(&mut self, name: &str, help: &str, label: &'static str, counts: &[(&'static str, u64)]) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        counts.iter().try_for_each(|(value, count)| encode_count(&mut family.encode_family(&[(label, *value)])?, *count))
    }

    /// Gauges that are read now, one for each value of a label.
    pub(super) fn values(&mut self, name: &str, help: &str, label: &'static str, values: &[(&'static str, u64)]) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values.iter().try_for_each(|(of, value)| family.encode_family(&[(label, *of)])?.encode_gauge(value))
    }

    pub(super) fn gauges(&mut self, name: &str, help: &str, gauges: &impl Series<Gauge>) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauges.visit(&mut Vec::new(), &mut |labels, gauge: &Gauge| {
            labelled(&mut family, labels, |series| series.encode_gauge(&gauge.get()))
        })
    }

    pub(super) fn counters(&mut self, name: &str, help: &str, counters: &impl Series<Counter>) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        counters.visit(&mut Vec::new(), &mut |labels, counter: &Counter| {
            labelled(&mut family, labels, |series| encode_count(series, counter.get()))
        })
    }

    /// How often each of some histograms was fed.
    pub(super) fn counts_of(&mut self, name: &str, help: &str, histograms: &impl Series<Histogram>) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        histograms.visit(&mut Vec::new(), &mut |labels, histogram: &Histogram| {
            labelled(&mut family, labels, |series| encode_count(series, histogram.count()))
        })
    }

    pub(super) fn histograms(&mut self, name: &str, help: &str, histograms: &impl Series<Histogram>) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        histograms.visit(&mut Vec::new(), &mut |labels, histogram: &Histogram| {
            let seen = histogram.distribution();
            labelled(&mut family, labels, |series| {
                series.encode_histogram::<NoLabelSet>(seen.sum_seconds, seen.count, &seen.buckets, None)
            })
        })
    }
}

fn encode_count(series: &mut MetricEncoder<'_>, count: u64) -> fmt::Result {
    series.encode_counter::<NoLabelSet, _, f64>(&count, None)
}

/// Encodes one series of a family, which is all of it when there are no labels.
fn labelled(
    family: &mut MetricEncoder<'_>,
    labels: &Labels,
    encode: impl Fn(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    // An empty set of labels would be written as empty braces.
    if labels.is_empty() { encode(family) } else { encode(&mut family.encode_family(&labels)?) }
}
