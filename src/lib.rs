//! Placeholder head.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod catalog;
mod codec;
mod core;
pub mod engine;
mod envelope;
mod error;
mod flusher;
mod gate;
mod inspect;
mod key;
pub mod laws;
mod ledger;
mod lineage;
mod migration;
mod observe;
mod options;
mod quarantine;
mod resolve;
mod route;
mod scan;
pub mod shape;
mod stats;
mod store;
mod table;
mod version;
mod write;

pub use catalog::{Counts, Phase};
pub use error::{Cast, CastError, EngineError, EngineErrorKind, Error, Result};
pub use inspect::{Inventory, Report};
pub use key::{Key, KeyPrefix};
pub use ledger::LedgerEntry;
pub use migration::{
    AbandonPlan, Backfill, Budget, ContractPlan, Migration, NewWrites, Plan, Status, TableStatus, Waiting,
};
pub use observe::{Observer, Pause};
pub use options::{Durability, Options};
pub use scan::Scan;
pub use shape::Describe;
pub use stats::{Activity, Histogram, Operation, Stats};
pub use store::Store;
pub use table::Table;
pub use version::{Origin, Version};
