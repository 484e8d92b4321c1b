//! What the demo needs of a store: reads and writes at every view, and the verbs of a migration.

use std::fmt;
use std::time::Duration;

use crate::failure::Failure;
use crate::types::{Airport, View};

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The view is not open (a fence is up, or its version was contracted): nothing was changed.
    Closed(String),
    /// The operation failed; what became of it is not known.
    Failed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Closed(reason) | Refusal::Failed(reason) => f.write_str(reason),
        }
    }
}

/// A table of airports that can be read and written at any open view.
pub(crate) trait Subject: Send + Sync {
    /// Reads a record.
    fn get(&self, key: u64, view: View) -> Result<Option<Airport>, Refusal>;

    /// Writes a record at its own view.
    fn put(&self, key: u64, airport: &Airport) -> Result<(), Refusal>;

    /// Removes a record, if there is one.
    fn remove(&self, key: u64, view: View) -> Result<(), Refusal>;

    /// Reads the first `limit` records from key `from` on, in the order of their keys.
    fn scan(&self, from: u64, limit: usize, view: View) -> Result<Vec<(u64, Airport)>, Refusal>;
}

/// One of the demo's two migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Text becomes numbers: v1 to v2.
    Numbers,
    /// The name is taken apart: v2 to v3.
    Names,
}

impl Step {
    /// The name of the migration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Step::Numbers => "coordinates-as-numbers",
            Step::Names => "names-in-parts",
        }
    }

    /// Why it is done, for the ledger.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Step::Numbers => "find airports near a point, in metres",
            Step::Names => "list airports by kind",
        }
    }

    /// The view that the migration starts from.
    pub(crate) fn from(self) -> View {
        match self {
            Step::Numbers => View::V1,
            Step::Names => View::V2,
        }
    }

    /// The view that it leads to.
    pub(crate) fn to(self) -> View {
        match self {
            Step::Numbers => View::V2,
            Step::Names => View::V3,
        }
    }
}

/// How far a backfill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Records that the backfill has dealt with.
    pub(crate) done: u64,
    /// Records that it has to deal with, as far as is known.
    pub(crate) total: u64,
    /// Whether nothing is left to do.
    pub(crate) complete: bool,
}

/// A table that can be migrated while it is read and written.
pub(crate) trait Rollout: Subject {
    /// Makes everything written so far durable.
    fn flush(&self) -> Result<(), Failure>;

    /// Begins a migration.
    fn begin(&self, step: Step) -> Result<(), Failure>;

    /// Starts its backfill in the background.
    fn start_backfill(&self, step: Step) -> Result<(), Failure>;

    /// How far the backfill is. An error if it stopped and cannot go on by itself.
    fn progress(&self, step: Step) -> Result<Progress, Failure>;

    /// Rolls a migration back.
    fn rollback(&self, step: Step) -> Result<(), Failure>;

    /// Rolls it forward again; the backfill goes on.
    fn resume(&self, step: Step) -> Result<(), Failure>;

    /// Contracts a migration whose backfill is complete.
    fn contract(&self, step: Step) -> Result<(), Failure>;

    /// Whether what a contracted migration left behind is swept.
    fn swept(&self, step: Step) -> Result<bool, Failure>;

    /// What the store takes on the disk.
    fn size_bytes(&self) -> Result<u64, Failure>;

    /// The longest pause of a foreground call that a migration caused.
    fn longest_pause(&self) -> Result<Duration, Failure>;

    /// Closes the store.
    fn close(&self) -> Result<(), Failure>;
}
