//! Latencies by phase: one set of histograms for each thread, put together at the end.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that can be told apart; longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Latencies by phase, in the order in which the phases first ran.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    phases: Vec<Option<Histogram<u64>>>,
}

impl Latencies {
    /// Notes a latency in the phase of this number.
    pub(crate) fn record(&mut self, phase: usize, latency: Duration) {
        if self.phases.len() <= phase {
            self.phases.resize_with(phase + 1, || None);
        }
        let Some(slot) = self.phases.get_mut(phase) else {
            return;
        };
        // The bounds are constants that a histogram accepts, so there is one.
        if slot.is_none() {
            *slot = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).ok();
        }
        if let Some(histogram) = slot {
            histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX));
        }
    }

    /// Adds what another thread noted.
    pub(crate) fn add(&mut self, other: Self) {
        if self.phases.len() < other.phases.len() {
            self.phases.resize_with(other.phases.len(), || None);
        }
        for (mine, theirs) in self.phases.iter_mut().zip(other.phases) {
            match (mine.as_mut(), theirs) {
                (_, None) => {}
                (None, theirs) => *mine = theirs,
                // Both have the same bounds, so the sum fits.
                (Some(mine), Some(theirs)) => drop(mine.add(theirs)),
            }
        }
    }

    /// The latencies of the phase of this number.
    pub(crate) fn phase(&self, phase: usize) -> PhaseSummary {
        let Some(Some(histogram)) = self.phases.get(phase) else {
            return PhaseSummary::default();
        };
        let us = |ns: u64| ns as f64 / 1000.0;
        PhaseSummary {
            ops: histogram.len(),
            p50_us: us(histogram.value_at_quantile(0.5)),
            p99_us: us(histogram.value_at_quantile(0.99)),
            p999_us: us(histogram.value_at_quantile(0.999)),
            max_us: us(histogram.max()),
        }
    }
}

/// The foreground's latencies in one phase, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(crate) struct PhaseSummary {
    /// Operations that ended in the phase.
    pub(crate) ops: u64,
    /// Half of them took at most this.
    pub(crate) p50_us: f64,
    /// 99 of 100 took at most this.
    pub(crate) p99_us: f64,
    /// 999 of 1000 took at most this.
    pub(crate) p999_us: f64,
    /// The longest.
    pub(crate) max_us: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_and_phases_stay_apart() {
        let mut sum = Latencies::default();
        for thread in 0..3 {
            let mut latencies = Latencies::default();
            for n in 1..=100 {
                latencies.record(2, Duration::from_micros(n));
            }
            if thread == 1 {
                latencies.record(4, Duration::from_secs(1000));
            }
            sum.add(latencies);
        }
        let phase = sum.phase(2);
        assert_eq!(phase.ops, 300);
        assert!((phase.p50_us - 50.0).abs() < 0.1 && (phase.p99_us - 99.0).abs() < 0.2, "{phase:?}");
        assert_eq!(sum.phase(4).ops, 1);
        assert!((sum.phase(4).max_us - 60e6).abs() < 60e3, "a latency over the limit counts as the limit");
        assert_eq!(sum.phase(0), PhaseSummary::default());
        assert_eq!(sum.phase(9), PhaseSummary::default());
    }
}
