//! Placeholder head.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod key;
mod version;
mod lineage;
mod codec;
pub mod shape;
pub mod laws;
mod envelope;
mod resolve;
mod route;
mod write;
mod table;
mod scan;
mod catalog;
mod ledger;
mod quarantine;
mod migration;
mod gate;
mod flusher;
mod core;
mod store;
mod options;
mod inspect;
mod stats;
mod observe;
pub mod engine;
mod error;

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
