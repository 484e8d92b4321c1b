//! Watching a store: a callback for pauses and state changes.
//!
//! Besides, every state change is a `tracing` event (target `exuvia`).

use std::time::{Duration, Instant};

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

/// What background work did: what a foreground call may have had to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkKind {
    /// A call of the engine by a backfill, a fold, a contract or a sweep.
    EngineCall,
    /// A flush of the engine: of a verb, of a backfill, or the regular one of buffered writes.
    Flush,
    /// Readers and writers were switched to another route, and waited at the gate for it.
    Flip,
    /// A tree of the engine was dropped.
    Drop,
}

/// One piece of background work, which has ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Work {
    /// What it was.
    pub kind: WorkKind,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
}

/// Told of pauses and state changes. Calls are made from the thread that it happened in, under no lock of the
/// store; they should be short, since the caller waits for them.
pub trait Observer: Send + Sync {
    /// A foreground call was paused for at least the store's reporting threshold.
    fn pause(&self, pause: &Pause<'_>) {
        let _ = pause;
    }

    /// Background work took at least the store's reporting threshold. Told of after it ended, and perhaps some milliseconds
    /// later: at the end of the batch that it was part of.
    fn work(&self, work: &Work) {
        let _ = work;
    }

    /// A state change was committed and is in force.
    fn state_change(&self, entry: &LedgerEntry) {
        let _ = entry;
    }
}
