//! Watching a store: a callback for pauses and state changes.
//!
//! Besides, every state change is a `tracing` event (target `exuvia`).

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A foreground operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `Table::get`
    Get,
    /// `Table::put`
    Put,
    /// `Table::remove`
    Remove,
    /// One page of a `Table::scan`
    Scan,
    /// One commit of a `Store::transaction`, in conflict or not; its reads count as `Get`
    Transaction,
    /// `Batch::commit`
    Batch,
    /// `Table::update`, `insert_if_absent`, `compare_and_swap`, `pop_first`, `pop_last`: with their reads and tries
    Update,
}

impl Operation {
    /// All operations.
    pub const ALL: [Operation; 7] = [
        Operation::Get,
        Operation::Put,
        Operation::Remove,
        Operation::Scan,
        Operation::Transaction,
        Operation::Batch,
        Operation::Update,
    ];
}

/// What goes on in a table while a foreground call runs: the phase, as statistics count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Activity {
    /// Settled, nothing in the background.
    Idle = 0,
    /// A migration is open and its backfill has work left.
    Backfill = 1,
    /// A migration is open and its backfill is complete.
    Complete = 2,
    /// A migration is rolled back.
    Rollback = 3,
    /// Contract verifies under its fence.
    Contract = 4,
    /// The overlay is folded into the base.
    Fold = 5,
    /// Settled, while the remains of a closed migration are swept.
    Sweep = 6,
}

impl Activity {
    /// All activities.
    pub const ALL: [Activity; 7] = [
        Activity::Idle,
        Activity::Backfill,
        Activity::Complete,
        Activity::Rollback,
        Activity::Contract,
        Activity::Fold,
        Activity::Sweep,
    ];

    pub(crate) fn of_code(code: u8) -> Activity {
        Activity::ALL.into_iter().find(|a| *a as u8 == code).unwrap_or(Activity::Idle)
    }
}

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

/// One state change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Position in the ledger, from 0.
    pub seq: u64,
    /// Milliseconds since 1970, by the system's clock.
    pub at_ms: u64,
    /// What happened: `create table`, `rename table`, `drop table`, `clear table`, `import`, `bulk load`, `copy`, `backup`,
    /// `salvage`, `compact`,
    /// `begin`, `complete`, `reopen`,
    /// `pause`, `unpause`, `restart`, `rollback`, `resume`, `contract`, `fold`, `abandon`, `sweep`.
    pub what: String,
    /// The table or migration.
    pub subject: String,
    /// Why, if the caller said so.
    pub why: String,
    /// By whom, if the caller said so.
    pub by: String,
    /// How long it took up to this entry's commit, in microseconds.
    pub duration_us: u64,
    /// Counts by name, for example `copied`. Those of a migration are by table (`users copied`), or of all its tables
    /// together where there are many.
    pub counts: Vec<(String, u64)>,
    /// Hash (BLAKE3) of the entry before this one; zeros for the first.
    pub previous: [u8; 32],
}

/// Told of pauses and state changes. Calls are made from the thread that it happened in, under no lock of the
/// store; they should be short, since the caller waits for them.
///
/// What is told has happened: a panic of an observer changes nothing about it, is logged, and is counted in
/// [`Stats::observer_panics`](crate::measure::Stats::observer_panics). An observer may call into the store. A call that would have to
/// wait for the very work that is being told of (a verb of a migration, from that migration's worker) is refused with
/// [`Error::State`](crate::Error::State). Pauses and work that its own calls cause are not told to it.
pub trait Observer: Send + Sync {
    /// A foreground call was paused for at least the store's reporting threshold.
    fn pause(&self, pause: &Pause<'_>) {
        let _ = pause;
    }

    /// Background work took at least the store's reporting threshold. Told of after it ended, and perhaps some milliseconds
    /// later: at the end of the batch that it was part of. An observer that is slow is told later still, and of no more than
    /// 4096 pieces that wait: a thread goes on telling for 10 ms and then does its own work, for which a rollback may wait.
    fn work(&self, work: &Work) {
        let _ = work;
    }

    /// A state change was committed and is in force.
    fn state_change(&self, entry: &LedgerEntry) {
        let _ = entry;
    }
}
