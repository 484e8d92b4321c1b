//! What a store was opened with, and keeps to.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::measure::observe::Observer;
use crate::pace::Budget;

/// When a write is safe from a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns. Concurrent writers share flushes.
    EveryWrite,
    /// At the latest `interval` after the call returned (plus the time of a flush).
    ///
    /// What a process loses that is killed, or that ends with the store open, depends on the engine. fjall hands each write
    /// to the system before the call returns: nothing. sled keeps writes in the memory of the process until the next flush:
    /// up to those of one `interval`. A [`Store::close`](crate::Store::close), and the last handle that is dropped, lose nothing. Where the
    /// system drops the thread-local values of the thread that ends the process (Linux with glibc, macOS), a store
    /// that this thread has opened is flushed then, too: a net for a store in a `static`, and nothing to count on.
    Buffered {
        /// The longest time between two background flushes while something is being written: from 1 ms to a day.
        interval: Duration,
    },
}

impl Default for Durability {
    /// Buffered, with an interval of 500 ms.
    fn default() -> Self {
        Durability::Buffered { interval: Duration::from_millis(500) }
    }
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) budget: Budget,
    pub(crate) free_bytes_min: u64,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) observe_pauses_from: Duration,
    pub(crate) background: bool,
    pub(crate) read_only: bool,
    pub(crate) private: bool,
    pub(crate) check_writes: bool,
    /// Of old values, for a copy beside writers. Less in tests only.
    pub(crate) saved_bytes_max: usize,
}

impl Settings {
    /// Refuses what is out of range, before anything is looked at.
    pub(crate) fn check(&self) -> Result<()> {
        self.budget.check()?;
        match self.durability {
            Durability::Buffered { interval }
                if !(Duration::from_millis(1)..=Duration::from_secs(24 * 3600)).contains(&interval) =>
            {
                let reason = format!("{interval:?} is not from 1 ms to a day");
                Err(Error::Argument { what: "Durability::Buffered::interval", reason })
            }
            _ => Ok(()),
        }
    }
}
