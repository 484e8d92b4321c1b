//! What is measured and told: operations, pauses, background work and state changes.
//!
//! Everything but errors, clocks and locks may use this folder, and it uses only those. The way in: `observe` has the words,
//! `stats` the recorder that each operation calls.

pub(crate) mod name;
pub(crate) mod observe;
pub(crate) mod stats;

pub use self::observe::{Activity, LedgerEntry, Observer, Operation, Pause, Work, WorkKind};
pub use self::stats::{Histogram, Stats};
