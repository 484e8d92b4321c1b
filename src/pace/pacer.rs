//! The pacer: a pure decision. What the last batch cost → how many records the next one has, and how long to rest.
//!
//! A batch's engine time stays under the pause budget, and all of its time under a quarter of that: a foreground
//! thread that wakes up on the worker's core may have to wait until the worker rests, whatever it is at. Batches
//! shrink at once when they are over either bound, and grow slowly while they are under both (additive increase,
//! multiplicative decrease, as in TCP's congestion control, RFC 5681). The rest keeps the worker at its share of
//! one core.

use std::time::Duration;

use super::Budget;
use super::turns::Spent;

const BATCH_FIRST: usize = 16;
const BATCH_MIN: usize = 1;
const BATCH_MAX: usize = 1024;
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
    pub(crate) spent: Spent,
}

/// What a worker is at: how large its next batch is, and how much of its share of a core it has used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pacer {
    batch: usize,
    /// Seconds of a core that are its due; less than nothing if it has to rest first.
    due: f64,
}

impl Pacer {
    pub(crate) fn new() -> Self {
        Self { batch: BATCH_FIRST, due: 0.0 }
    }

    /// The records of the next batch.
    pub(crate) fn batch(&self) -> usize {
        self.batch
    }

    /// Takes note of a batch. Answers how long to rest before the next.
    pub(crate) fn rest_after(&mut self, budget: &Budget, measured: &Measured) -> Duration {
        self.batch = next_batch(budget, self.batch, measured);
        let Spent { core, wall } = measured.spent;
        // Whatever it waited for, others had the core meanwhile. What it did not use for long is not saved up.
        let due = self.due + wall.as_secs_f64() * budget.share() - core.as_secs_f64();
        self.due = due.min(budget.pause().as_secs_f64()).max(-REST_MAX.as_secs_f64() * budget.share());
        if budget.share() >= 1.0 {
            return Duration::ZERO;
        }
        let rest = (-self.due / budget.share()).clamp(0.0, REST_MAX.as_secs_f64());
        Duration::from_secs_f64(rest)
    }
}

fn next_batch(budget: &Budget, batch: usize, measured: &Measured) -> usize {
    let (slice, core) = (budget.pause() / SLICES, measured.spent.core);
    let next = if measured.engine > budget.pause() {
        // Straight to what would have fitted, and a little less.
        let per_record = measured.engine.as_secs_f64() / measured.records.max(1) as f64;
        let fits = (budget.pause().as_secs_f64() * 0.75 / per_record) as usize;
        fits.min(batch / 2)
    } else if core > slice {
        (batch - batch / 4).max(SLICE_RECORDS_MIN).min(batch)
    } else if core < slice * 4 / 5 && measured.records >= batch {
        batch + (batch / 8).max(1)
    } else {
        batch
    };
    next.clamp(BATCH_MIN, BATCH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: fn(u64) -> Duration = Duration::from_micros;

    /// A batch that kept a core for so long, and the engine for half of that.
    fn measured(records: usize, core: Duration) -> Measured {
        Measured { records, engine: core / 2, spent: Spent { core, wall: core } }
    }

    fn next(batch: usize, records: usize, engine_us: u64, core_us: u64) -> usize {
        let spent = Spent { core: US(core_us), wall: US(core_us) };
        next_batch(&Budget::default(), batch, &Measured { records, engine: US(engine_us), spent })
    }

    /// Batches of so much work, one after the other with the rests that are asked for, and whatever waits come
    /// on top of them. Answers the share of a core that they had.
    fn share(budget: &Budget, core: Duration, wait: Duration) -> f64 {
        let mut pacer = Pacer::new();
        let (mut used, mut passed, mut rest) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for _ in 0..1000 {
            let wall = rest + wait + core;
            let spent = Spent { core, wall };
            rest = pacer.rest_after(budget, &Measured { records: 10, engine: core / 2, spent });
            (used, passed) = (used + core, passed + wall);
        }
        used.as_secs_f64() / passed.as_secs_f64()
    }

    #[test]
    fn shrinks_at_once_and_grows_slowly() {
        assert!(next(100, 100, 4000, 8000) <= 25);
        assert_eq!(next(100, 100, 300, 600), 75, "600 us of a core");
        assert_eq!(next(100, 100, 90, 180), 112);
        assert_eq!(next(100, 100, 110, 220), 100);
        assert_eq!(next(9, 9, 900, 1800), 8);
        assert_eq!(next(5, 5, 900, 1800), 5);
        // A short batch says nothing about a full one.
        assert_eq!(next(100, 3, 10, 20), 100);
    }

    #[test]
    fn stays_in_its_bounds_whatever_is_measured() {
        assert_eq!(next(1, 1, 900_000, 1_800_000), BATCH_MIN);
        assert_eq!(next_batch(&Budget::unlimited(), BATCH_MAX, &measured(BATCH_MAX, US(1))), BATCH_MAX);
        assert_eq!(next(0, 0, 0, 0), BATCH_MIN);
        let mut pacer = Pacer::new();
        let long = Duration::from_secs(86_400 * 365);
        assert_eq!(pacer.rest_after(&Budget::default(), &measured(1, long)), REST_MAX);
        let spent = Spent { core: Duration::MAX, wall: Duration::MAX };
        pacer.rest_after(&Budget::default(), &Measured { records: 1, engine: Duration::MAX, spent });
    }

    #[test]
    fn a_batch_over_the_budget_is_cut_to_what_would_have_fitted_and_to_half_at_least() {
        // 40 us a record: 25 fit into the budget, and a quarter of it is left free.
        assert_eq!(next(100, 100, 4000, 8000), 18);
        assert_eq!(next(100, 50, 2000, 4000), 18, "by the records that were there");
        assert_eq!(next(100, 100, 1001, 2002), 50);
    }

    #[test]
    fn a_bound_that_is_just_kept_is_kept() {
        assert_eq!(next(100, 100, 1000, 1000), 75, "the whole budget in the engine, and too long on a core");
        assert_eq!(next(100, 100, 0, 250), 100, "a quarter of the budget on a core");
        assert_eq!(next(100, 100, 0, 251), 75);
        assert_eq!(next(100, 100, 0, 200), 100, "it grows only where a longer one would fit, too");
        assert_eq!(next(100, 100, 0, 199), 112);
        assert_eq!(next(1, 1, 1, 1), 2, "a batch of one grows, too");
    }

    #[test]
    fn rests_so_that_it_keeps_its_share_of_a_core() {
        let budget = Budget::default().core_share(0.25);
        let rest = Pacer::new().rest_after(&budget, &measured(10, Duration::from_millis(1)));
        assert_eq!(rest, Duration::from_millis(3), "1 ms of work, 3 ms of rest");
        assert_eq!(Pacer::new().rest_after(&Budget::unlimited(), &measured(10, US(1000))), Duration::ZERO);
        for asked in [0.01, 0.1, 0.3, 0.9] {
            let had = share(&Budget::default().core_share(asked), US(250), Duration::ZERO);
            assert!((had / asked - 1.0).abs() < 0.05, "{had} of {asked}");
        }
    }

    /// A wait for a core, or for the medium, is a rest: with twice as long ones as the share asks for rests it does half as
    /// much, and no less.
    #[test]
    fn a_wait_counts_as_a_rest() {
        let budget = Budget::default().core_share(0.25);
        let had = share(&budget, US(250), US(500));
        assert!((had / 0.25 - 1.0).abs() < 0.05, "{had}: the rest is shorter by the wait");
        let had = share(&budget, US(250), US(1750));
        assert!((had / 0.125 - 1.0).abs() < 0.05, "{had}: there is no rest besides the waits");
    }

    #[test]
    fn what_was_not_used_for_long_is_not_saved_up() {
        let budget = Budget::default();
        let mut pacer = Pacer::new();
        let spent = Spent { core: US(1), wall: Duration::from_secs(10) };
        let first = Measured { records: 1, engine: US(1), spent };
        assert_eq!(pacer.rest_after(&budget, &first), Duration::ZERO);
        // A millisecond is its due, the pause that the budget allows: four batches of 250 us.
        let rests: Vec<_> = (0..6).map(|_| pacer.rest_after(&budget, &measured(10, US(250)))).collect();
        assert_eq!(rests[..5], [Duration::ZERO; 5], "as 250 us are 75 us of its share");
        assert!(!rests[5].is_zero());
    }

    #[test]
    fn a_rest_has_an_end() {
        let budget = Budget::default().core_share(0.01);
        let rest = Pacer::new().rest_after(&budget, &measured(10, US(2000)));
        assert_eq!(rest, Duration::from_millis(198));
        let mut pacer = Pacer::new();
        assert_eq!(pacer.rest_after(&budget, &measured(10, Duration::from_secs(60))), REST_MAX);
        // That one rest was for all of it.
        let spent = Spent { core: US(10), wall: REST_MAX + US(10) };
        let next = pacer.rest_after(&budget, &Measured { records: 10, engine: US(5), spent });
        assert!(next < Duration::from_millis(2), "{next:?}");
    }
}
