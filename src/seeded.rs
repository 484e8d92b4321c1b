//! Bugs that are made on purpose, so that the campaigns which are to find such bugs can be tested themselves.
//!
//! Only in a build with `RUSTFLAGS="--cfg exuvia_seeded"`, one at a time, named by the environment variable
//! `EXUVIA_SEEDED`; in any other build [`bug`] is the constant `false`. `tests/seeded/run` goes through all of them.

/// What can be broken. Each is the opposite of a rule in docs/architecture.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// `remove` takes the overlay's entry away in place of a tombstone: the base's record is back.
    TombstoneDropped,
    /// Contract proves without a fence.
    FenceSkipped,
    /// Routes change before the commit that says so.
    FlipBeforeCommit,
    /// The backfill's cursor is persisted before its records are.
    CursorEarly,
    /// An old writer erases the new form that it cannot see.
    CompanionForgotten,
    /// A new writer leaves no old form behind.
    DowncastForgotten,
    /// The backfill puts where it should insert.
    InsertUnchecked,
    /// The backfill swaps without a look at what it replaces.
    SwapUnchecked,
    /// An error ends the backfill's scan as if it were the end.
    ScanErrorSwallowed,
    /// A write does not look at the epoch under the gate.
    WriteEpochUnchecked,
    /// A read does not look at the epoch after it.
    ReadEpochUnchecked,
    /// Folding begins without its durable phase.
    FoldUnannounced,
    /// A fold moves a key in two writes, the overlay's entry going first.
    FoldTorn,
    /// A restart leaves the frontier where it was.
    FrontierKept,
    /// The frontier is raised before its page is applied.
    FrontierEarly,
    /// A migration is closed without a flush, and without one after the commit.
    CloseUnflushed,
    /// A generation's id is given out again.
    GenerationReused,
    /// `begin` does not wait for the sweep of its base.
    SweepNotJoined,
    /// A transaction's reads are not checked.
    ReadsUnchecked,
    /// A commit of several keys on sled has no redo record.
    #[cfg_attr(not(feature = "sled"), allow(dead_code, reason = "only sled has redo records"))]
    RedoForgotten,
    /// A record goes to the quarantine without its reason.
    ReasonForgotten,
    /// A state change leaves no entry in the ledger.
    LedgerForgotten,
    /// Contract does not take the migration's seat, nor compare the phase that it read. Both at once, as either stands
    /// behind the other: who has the seat is the only one to change a phase, so that nobody sees the comparison alone
    /// missing.
    ContractUnseated,
    /// The checksum leaves out the key.
    KeyUnchecked,
    /// `flush` answers before it has flushed.
    FlushSkipped,
    /// A write of old code is not queued for the backfill.
    BacklogForgotten,
    /// A merge answers with the new form alone.
    MergeSkipped,
}

/// Whether this bug is to be made.
#[cfg(exuvia_seeded)]
pub(crate) fn bug(bug: Bug) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("EXUVIA_SEEDED").ok());
    chosen.as_ref().is_some_and(|chosen| *chosen == format!("{bug:?}"))
}

/// Whether this bug is to be made: never.
#[cfg(not(exuvia_seeded))]
#[inline(always)]
pub(crate) const fn bug(_: Bug) -> bool {
    false
}
