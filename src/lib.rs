#![doc = include_str!("../README.md")]
//!
//! # The model
//!
//! * A [`Table`] is an ordered set of records with one key type ([`Key`]) and one **lineage**: a chain of Rust types
//!   v1 → v2 → …, each a [`Version`] with an `upcast` and a `downcast` to its neighbour.
//! * A handle reads and writes at one **view**, its Rust type. Handles at several views may be open at once.
//! * Every record carries the version that it was written in. Shipping a new type changes nothing on disk: older
//!   records are upcast as they are read.
//! * A [`Migration`] is begun when you decide so. From then on the table's old records (the **base**) are frozen, and
//!   writes go to an **overlay** that keeps both forms of every record. A **backfill** copies the rest in small steps,
//!   under a pause [`Budget`].
//! * Until [`contract`](Migration::contract), [`rollback`](Migration::rollback) is one durable commit and a flip in memory,
//!   and a redeployed old binary reads and writes everything, without any of the new code. What it could not see is
//!   kept, and [`Version::merge`] puts both together afterwards.
//!
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod admin;
mod around;
mod atomic;
#[cfg(any(feature = "sled", feature = "fjall"))]
pub mod backup;
mod batch;
#[cfg(feature = "bench")]
pub mod bench;
mod catalog;
pub mod codec;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod compact;
#[cfg(all(unix, feature = "control"))]
mod control;
mod copy;
mod core;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod directory;
pub mod engine;
mod envelope;
mod error;
mod fill;
mod flusher;
mod gate;
#[cfg(feature = "sled")]
pub mod import;
mod inspect;
#[cfg(feature = "json")]
pub mod json;
mod key;
pub mod laws;
mod ledger;
mod lineage;
mod load;
mod lookup;
mod medium;
mod migration;
mod observe;
mod options;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod own_file;
mod plain;
mod quarantine;
mod resolve;
mod route;
#[cfg(any(feature = "sled", feature = "fjall"))]
pub mod salvage;
mod scan;
mod seeded;
pub mod shape;
mod snapshot;
mod stats;
mod store;
mod sync;
mod table;
mod transaction;
mod version;
mod write;

pub use batch::Batch;
pub use catalog::{Counts, Phase};
pub use error::{Cast, CastError, EngineError, EngineErrorKind, Error, Result};
pub use inspect::{Inventory, Report, Space};
pub use key::{Key, KeyPrefix};
pub use ledger::LedgerEntry;
pub use migration::{
    AbandonPlan, Backfill, Budget, ContractPlan, Migration, NewWrites, Plan, Status, TableStatus, Waiting,
};
pub use observe::{Observer, Pause, Work, WorkKind};
pub use options::{Durability, Options};
pub use plain::Plain;
pub use scan::Scan;
pub use shape::Describe;
pub use snapshot::Snapshot;
pub use stats::{Activity, Histogram, Operation, Stats};
pub use store::Store;
pub use table::Table;
pub use transaction::Transaction;
pub use version::{Origin, Version};
