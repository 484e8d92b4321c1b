//! Latencies: histograms for each phase and operation, and one for each 100 ms.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::mix::Operation;

/// The longest latency that can be told apart; longer ones count as this.
pub(crate) const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// How long one point of a time series is.
pub const WINDOW: Duration = Duration::from_millis(100);

/// Significant digits of a latency in a phase, and in a window of a time series.
const DIGITS: u8 = 3;
const WINDOW_DIGITS: u8 = 2;

/// A histogram of latencies, exact to 0.1%, from 1 ns to ten minutes (longer ones count as ten minutes).
#[derive(Debug, Clone, Default)]
pub struct Latencies(Option<Box<Histogram<u64>>>);

impl Latencies {
    /// Notes one.
    pub fn record(&mut self, latency: Duration) {
        self.record_ns(u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX), 1);
    }

    fn record_ns(&mut self, ns: u64, count: u64) {
        // The bounds are constants that a histogram accepts, so there is one.
        if self.0.is_none() {
            self.0 = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).ok().map(Box::new);
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record_n(ns.max(1), count);
        }
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Latencies) {
        match (&mut self.0, &other.0) {
            (_, None) => {}
            (own @ None, theirs) => own.clone_from(theirs),
            // Both have the same bounds, so the sum fits.
            (Some(own), Some(theirs)) => own.add(&**theirs).unwrap_or(()),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// The latency at quantile `q`, 0 to 1; zero if there is none.
    pub fn quantile(&self, q: f64) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |h| Duration::from_nanos(h.value_at_quantile(q)))
    }

    /// The longest; zero if there is none.
    pub fn max(&self) -> Duration {
        self.quantile(1.0)
    }

    /// Recorded latencies as (highest in its bucket, count), ascending.
    pub fn buckets(&self) -> Vec<(Duration, u64)> {
        self.0
            .as_ref()
            .map_or_else(Vec::new, |h| sparse(h).map(|(ns, n)| (Duration::from_nanos(ns), n)).collect())
    }
}

fn sparse(histogram: &Histogram<u64>) -> impl Iterator<Item = (u64, u64)> {
    histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().flat_map(|histogram| sparse(histogram)))
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut latencies = Latencies::default();
        for (ns, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            latencies.record_ns(ns, count);
        }
        Ok(latencies)
    }
}

/// Latencies of one kind of operations in one phase.
pub(crate) type ByOperation = BTreeMap<Operation, Latencies>;

/// What a thread notes of the operations that were due within one window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// (ns, count), ascending, exact to 1%.
    pub(crate) buckets: Vec<(u64, u64)>,
    /// The longest, exact.
    pub(crate) max_ns: u64,
}

impl Window {
    fn add(&mut self, other: &Window) {
        let mut sum: BTreeMap<u64, u64> = self.buckets.drain(..).collect();
        for (ns, count) in &other.buckets {
            *sum.entry(*ns).or_default() += count;
        }
        self.buckets = sum.into_iter().collect();
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    pub(crate) fn quantile_ns(&self, q: f64) -> u64 {
        let wanted = (self.count() as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (ns, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return (*ns).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

/// A time series: windows by their number, counted from the clock's beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Series(pub(crate) BTreeMap<u64, Window>);

impl Series {
    /// Adds what another thread noted.
    pub(crate) fn add(&mut self, other: &Series) {
        for (number, window) in &other.0 {
            self.0.entry(*number).or_default().add(window);
        }
    }
}

/// Collects a time series in one thread. Operations have to come in the order in which they were due.
pub(crate) struct Collector {
    number: u64,
    max_ns: u64,
    histogram: Option<Histogram<u64>>,
    series: Series,
}

impl Collector {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, WINDOW_DIGITS).ok();
        Self { number: 0, max_ns: 0, histogram, series: Series::default() }
    }

    pub(crate) fn record(&mut self, due: Duration, latency: Duration) {
        let number = u64::try_from(due.as_nanos() / WINDOW.as_nanos()).unwrap_or(u64::MAX);
        if number != self.number {
            self.close();
            self.number = number;
        }
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX);
        self.max_ns = self.max_ns.max(ns);
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(ns.max(1));
        }
    }

    fn close(&mut self) {
        let Some(histogram) = &mut self.histogram else { return };
        if !histogram.is_empty() {
            let window = Window { buckets: sparse(histogram).collect(), max_ns: self.max_ns };
            self.series.0.entry(self.number).or_default().add(&window);
            histogram.reset();
        }
        self.max_ns = 0;
    }

    pub(crate) fn finish(mut self) -> Series {
        self.close();
        self.series
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn histograms_add_up_and_come_back_from_json() {
        let mut sum = Latencies::default();
        for _ in 0..3 {
            let mut part = Latencies::default();
            (1..=1000).for_each(|n| part.record(us(n)));
            sum.add(&part);
        }
        let json = serde_json::to_string(&sum).expect("json");
        let back: Latencies = serde_json::from_str(&json).expect("json");
        for latencies in [&sum, &back] {
            assert_eq!(latencies.count(), 3000);
            for (q, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
                let found = latencies.quantile(q).as_secs_f64() * 1e6;
                assert!((found / exact - 1.0).abs() < 0.002, "{q}: {found}");
            }
        }
        assert_eq!(sum.buckets(), back.buckets());
        assert_eq!(Latencies::default().max(), Duration::ZERO);
    }

    #[test]
    fn windows_of_threads_are_put_together() {
        let mut sum = Series::default();
        for thread in 0..2u64 {
            let mut collector = Collector::new();
            for n in 0..200 {
                collector.record(Duration::from_millis(n), us(100 + thread));
            }
            collector.record(Duration::from_millis(950), Duration::from_millis(250));
            sum.add(&collector.finish());
        }
        let counts: Vec<_> = sum.0.iter().map(|(number, window)| (*number, window.count())).collect();
        assert_eq!(counts, [(0, 200), (1, 200), (9, 2)]);
        let window = &sum.0[&9];
        assert_eq!((window.max_ns, window.quantile_ns(0.5)), (250_000_000, 250_000_000));
        assert!(sum.0[&0].quantile_ns(0.5).abs_diff(100_000) < 1_500);
    }
}
