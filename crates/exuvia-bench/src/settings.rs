//! What is measured, and how.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mix::Mix;
use super::schedule::{Arrivals, Pace};
use super::subject::Failure;

/// The load and the phases of a measurement. They are in its report, so that it can be repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Records that are loaded.
    pub records: u64,
    /// Encoded size of a record, as the subjects were made for; the harness itself does not look at it.
    pub record_bytes: usize,
    /// Open loop at a rate, or closed loop.
    pub pace: Pace,
    /// Threads that make operations.
    pub threads: u64,
    /// What operations there are, and to which keys they go.
    pub mix: Mix,
    /// Where everything random comes from.
    pub seed: u64,
    /// Load before the first phase, which counts for nothing.
    pub warm_up: Duration,
    /// How long the phases without an end of their own last: idle, after, rollback.
    pub phase: Duration,
    /// How long a verb's phase goes on after it returned, so that what it causes shows in it.
    pub settle: Duration,
    /// The longest that a backfill, or a sweep, is waited for.
    pub limit: Duration,
    /// Calls that take longer by themselves are looked at as stalls.
    pub stall_from: Duration,
    /// The version that is migrated to; 1 is what is loaded.
    pub to: u32,
}

impl Default for Settings {
    /// 100 000 records of 150 bytes; 10 000 operations a second at fixed distances from 4 threads; the mix
    /// [`Mix::mixed`]; seed 1; 2 s of warm-up, phases of 5 s; stalls from 2 ms on; version 2.
    fn default() -> Self {
        Self {
            records: 100_000,
            record_bytes: 150,
            pace: Pace::Open { rate: 10_000, arrivals: Arrivals::Fixed },
            threads: 4,
            mix: Mix::mixed(),
            seed: 1,
            warm_up: Duration::from_secs(2),
            phase: Duration::from_secs(5),
            settle: Duration::from_millis(300),
            limit: Duration::from_secs(600),
            stall_from: Duration::from_millis(2),
            to: 2,
        }
    }
}

/// The most threads; far more than a store is ever tested with.
const THREADS_MAX: u64 = 1024;

/// The most records: their model takes four bytes each.
const RECORDS_MAX: u64 = 1 << 32;

impl Settings {
    /// Whether they can be used.
    ///
    /// # Errors
    ///
    /// What is wrong, and what would do.
    pub fn check(&self) -> Result<(), Failure> {
        let wrong = |text: String| Err(Failure::Setting(text));
        if self.threads == 0 || self.threads > THREADS_MAX {
            return wrong(format!("{} threads cannot be had; give 1 to {THREADS_MAX}", self.threads));
        }
        if self.records < self.threads || self.records > RECORDS_MAX {
            return wrong(format!(
                "{} records cannot be measured; give at least one for each of the {} threads, and at most {RECORDS_MAX}",
                self.records, self.threads
            ));
        }
        if let Pace::Open { rate: 0, .. } = self.pace {
            return wrong("a rate of 0 measures nothing; give at least 1 operation a second".to_owned());
        }
        if let Pace::OfPeak { percent, .. } = self.pace
            && !(1..=100).contains(&percent)
        {
            return wrong(format!("{percent}% of the peak cannot be asked for; give 1 to 100"));
        }
        if self.to < 2 {
            return wrong(format!("version {} is not after 1, which is loaded; give at least 2", self.to));
        }
        Ok(())
    }
}
