//! Watching a store: a callback for pauses and state changes.
//!
//! Besides, every state change is a `tracing` event (target `exuvia`).

use std::time::Duration;

use crate::ledger::LedgerEntry;
use crate::stats::{Activity, Operation};

/// One foreground call that a migration held up.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Pause<'a> {
    /// The table.
    pub table: &'a str,
    /// The operation.
    pub operation: Operation,
    /// What was going on.
    pub activity: Activity,
    /// Time at the gate plus overlap with engine calls of a background worker.
    pub pause: Duration,
    /// The part of it that was spent at the gate.
    pub gate: Duration,
    /// The whole call.
    pub latency: Duration,
}

/// Told of pauses and state changes. Calls are made from the thread that it happened in, under no lock of the
/// store; they should be short, since the caller waits for them.
pub trait Observer: Send + Sync {
    /// A foreground call was paused for at least the store's reporting threshold.
    fn pause(&self, pause: &Pause<'_>) {
        let _ = pause;
    }

    /// A state change was committed and is in force.
    fn state_change(&self, entry: &LedgerEntry) {
        let _ = entry;
    }
}
