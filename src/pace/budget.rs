//! What background work may take.

use std::time::Duration;

use crate::error::{Error, Result};

/// What a backfill may take: bounds on a pause and on its share of a core. Can be changed while it runs.
///
/// A value out of its range is refused where the budget is used: by [`Options::open`](crate::Options::open),
/// [`Migration::set_budget`](crate::Migration::set_budget) and an import, with [`Error::Argument`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    pause_max: Duration,
    core_share: f64,
    /// In place of the rest that follows from the share.
    #[cfg(test)]
    pub(super) rest: Option<Duration>,
}

impl Default for Budget {
    /// Pauses of 1 ms, and at most 30% of a core.
    fn default() -> Self {
        Self::new(Duration::from_millis(1), 0.3)
    }
}

impl Budget {
    fn new(pause_max: Duration, core_share: f64) -> Self {
        Self {
            pause_max,
            core_share,
            #[cfg(test)]
            rest: None,
        }
    }

    /// Rests so long after each batch, whatever that took.
    #[cfg(test)]
    pub(crate) fn resting(self, rest: Duration) -> Self {
        Self { rest: Some(rest), ..self }
    }

    /// Bounds the engine time of one batch. From 10 µs to 1 h; default 1 ms.
    pub fn pause_max(mut self, pause_max: Duration) -> Self {
        self.pause_max = pause_max;
        self
    }

    /// The most that the worker takes of one core, from 0.01 to 1. Default 0.3.
    pub fn core_share(mut self, share: f64) -> Self {
        self.core_share = share;
        self
    }

    /// No rests and large batches: as fast as the engine goes, whatever it does to the foreground.
    pub fn unlimited() -> Self {
        Self::new(PAUSE_LONGEST, 1.0)
    }

    /// Refuses what is out of range.
    pub(crate) fn check(&self) -> Result<()> {
        if !(PAUSE_SHORTEST..=PAUSE_LONGEST).contains(&self.pause_max) {
            return Err(Error::Argument {
                what: "Budget::pause_max",
                reason: format!("{:?} is not from 10 µs to 1 h", self.pause_max),
            });
        }
        if !(0.01..=1.0).contains(&self.core_share) {
            return Err(Error::Argument {
                what: "Budget::core_share",
                reason: format!("{} is not from 0.01 to 1", self.core_share),
            });
        }
        Ok(())
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

const PAUSE_SHORTEST: Duration = Duration::from_micros(10);
const PAUSE_LONGEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_what_was_asked_for_or_refused() {
        let budget = Budget::default();
        assert_eq!((budget.pause(), budget.share()), (Duration::from_millis(1), 0.3));
        for (pause, fits) in [
            (Duration::ZERO, false),
            (Duration::from_nanos(9_999), false),
            (Duration::from_micros(10), true),
            (Duration::from_secs(3600), true),
            (Duration::from_secs(3601), false),
            (Duration::MAX, false),
        ] {
            assert_eq!(budget.pause_max(pause).check().is_ok(), fits, "{pause:?}");
        }
        for (share, fits) in [(0.01, true), (1.0, true), (0.0, false), (7.0, false), (f64::NAN, false)] {
            assert_eq!(budget.core_share(share).check().is_ok(), fits, "{share}");
        }
        Budget::unlimited().check().unwrap();
    }
}
