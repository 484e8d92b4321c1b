//! The pacer: a pure decision. What the last batch cost → how many records the next one has, and how long to rest.
//!
//! A batch's engine time stays under the pause budget, and all of its time under a quarter of that: a foreground
//! thread that wakes up on the worker's core may have to wait until the worker rests, whatever it is at. Batches
//! shrink at once when they are over either bound, and grow slowly while they are under both (additive increase,
//! multiplicative decrease, as in TCP's congestion control, RFC 5681). The rest keeps the worker at its share of
//! one core.

use std::time::Duration;

/// What a backfill may take: bounds on a pause and on its share of a core. Can be changed while it runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    pause_max: Duration,
    core_share: f64,
}

impl Default for Budget {
    /// Pauses of 1 ms, and at most 30% of a core.
    fn default() -> Self {
        Self { pause_max: Duration::from_millis(1), core_share: 0.3 }
    }
}

impl Budget {
    /// Bounds the engine time of one batch. Default 1 ms; at least 10 µs.
    pub fn pause_max(mut self, pause_max: Duration) -> Self {
        self.pause_max = pause_max.max(Duration::from_micros(10));
        self
    }

    /// The most that the worker takes of one core, between 0.01 and 1. Default 0.3.
    pub fn core_share(mut self, share: f64) -> Self {
        self.core_share = if share.is_finite() { share.clamp(0.01, 1.0) } else { 1.0 };
        self
    }

    /// No rests and large batches: as fast as the engine goes, whatever it does to the foreground.
    pub fn unlimited() -> Self {
        Self { pause_max: Duration::from_secs(3600), core_share: 1.0 }
    }

    /// The bound on a batch's engine time.
    pub fn pause(&self) -> Duration {
        self.pause_max
    }

    /// The share of one core.
    pub fn share(&self) -> f64 {
        self.core_share
    }
}

pub(crate) const BATCH_MIN: usize = 1;
pub(crate) const BATCH_MAX: usize = 1024;
/// Rests are not longer than this, so that a slow batch does not stop the work.
const REST_MAX: Duration = Duration::from_millis(250);

/// The share of the pause budget that a batch may keep a core busy.
const SLICES: u32 = 4;
/// Batches are not made smaller than this for the time that they take: where the system is busy much of that is the
/// time that the worker itself waited for a core.
const SLICE_RECORDS_MIN: usize = 8;

/// What the last batch cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) records: usize,
    /// Time inside the engine.
    pub(crate) engine: Duration,
    /// Time altogether, user code included.
    pub(crate) elapsed: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) batch: usize,
    pub(crate) rest: Duration,
}

/// The next batch and the rest before it.
pub(crate) fn decide(budget: &Budget, batch: usize, measured: &Measured) -> Decision {
    let slice = budget.pause_max / SLICES;
    let next = if measured.engine > budget.pause_max {
        // Straight to what would have fitted, and a little less.
        let per_record = measured.engine.as_secs_f64() / measured.records.max(1) as f64;
        let fits = (budget.pause_max.as_secs_f64() * 0.75 / per_record) as usize;
        fits.min(batch / 2)
    } else if measured.elapsed > slice {
        (batch - batch / 4).max(SLICE_RECORDS_MIN).min(batch)
    } else if measured.elapsed < slice * 4 / 5 && measured.records >= batch {
        batch + (batch / 8).max(1)
    } else {
        batch
    };
    let rest = measured.elapsed.mul_f64((1.0 / budget.core_share - 1.0).clamp(0.0, 1000.0));
    Decision { batch: next.clamp(BATCH_MIN, BATCH_MAX), rest: rest.min(REST_MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(records: usize, engine_us: u64) -> Measured {
        let engine = Duration::from_micros(engine_us);
        Measured { records, engine, elapsed: engine * 2 }
    }

    #[test]
    fn shrinks_at_once_and_grows_slowly() {
        let budget = Budget::default();
        assert!(decide(&budget, 100, &measured(100, 4000)).batch <= 25);
        assert_eq!(decide(&budget, 100, &measured(100, 300)).batch, 75, "600 us of a core");
        assert_eq!(decide(&budget, 100, &measured(100, 90)).batch, 112);
        assert_eq!(decide(&budget, 100, &measured(100, 110)).batch, 100);
        assert_eq!(decide(&budget, 9, &measured(9, 900)).batch, 8);
        assert_eq!(decide(&budget, 5, &measured(5, 900)).batch, 5);
        // A short batch says nothing about a full one.
        assert_eq!(decide(&budget, 100, &measured(3, 10)).batch, 100);
    }

    #[test]
    fn stays_in_its_bounds_whatever_is_measured() {
        let budget = Budget::default();
        assert_eq!(decide(&budget, 1, &measured(1, 900_000)).batch, BATCH_MIN);
        assert_eq!(decide(&Budget::unlimited(), BATCH_MAX, &measured(BATCH_MAX, 1)).batch, BATCH_MAX);
        assert_eq!(decide(&budget, 0, &measured(0, 0)).batch, BATCH_MIN);
    }

    #[test]
    fn rests_so_that_it_keeps_its_share_of_a_core() {
        let budget = Budget::default().core_share(0.25);
        let decision = decide(&budget, 10, &measured(10, 500));
        assert_eq!(decision.rest, Duration::from_millis(3), "1 ms of work, 3 ms of rest");
        assert_eq!(decide(&Budget::unlimited(), 10, &measured(10, 500)).rest, Duration::ZERO);
    }

    #[test]
    fn a_batch_over_the_budget_is_cut_to_what_would_have_fitted_and_to_half_at_least() {
        let budget = Budget::default();
        // 40 us a record: 25 fit into the budget, and a quarter of it is left free.
        assert_eq!(decide(&budget, 100, &measured(100, 4000)).batch, 18);
        assert_eq!(decide(&budget, 100, &measured(50, 2000)).batch, 18, "by the records that were there");
        assert_eq!(decide(&budget, 100, &measured(100, 1001)).batch, 50);
    }

    #[test]
    fn a_bound_that_is_just_kept_is_kept() {
        let budget = Budget::default();
        let next = |engine_us, elapsed_us| {
            let (engine, elapsed) = (Duration::from_micros(engine_us), Duration::from_micros(elapsed_us));
            decide(&budget, 100, &Measured { records: 100, engine, elapsed }).batch
        };
        assert_eq!(next(1000, 1000), 75, "the whole budget in the engine, and too long on a core");
        assert_eq!(next(0, 250), 100, "a quarter of the budget on a core");
        assert_eq!(next(0, 251), 75);
        assert_eq!(next(0, 200), 100, "it grows only where a longer one would fit, too");
        assert_eq!(next(0, 199), 112);
        assert_eq!(decide(&budget, 1, &measured(1, 1)).batch, 2, "a batch of one grows, too");
    }

    #[test]
    fn a_rest_has_an_end() {
        let budget = Budget::default().core_share(0.01);
        assert_eq!(decide(&budget, 10, &measured(10, 1000)).rest, Duration::from_millis(198));
        assert_eq!(decide(&budget, 10, &measured(10, 60_000_000)).rest, Duration::from_millis(250));
    }

    #[test]
    fn a_budget_keeps_its_limits_whatever_is_asked_for() {
        let budget = Budget::default();
        assert_eq!((budget.pause(), budget.share()), (Duration::from_millis(1), 0.3));
        assert_eq!(budget.pause_max(Duration::ZERO).pause(), Duration::from_micros(10));
        assert_eq!(budget.pause_max(Duration::from_secs(2)).pause(), Duration::from_secs(2));
        for (asked, share) in [(0.0, 0.01), (0.5, 0.5), (7.0, 1.0), (f64::NAN, 1.0), (f64::INFINITY, 1.0)] {
            assert_eq!(budget.core_share(asked).share(), share, "{asked}");
        }
    }
}
