#![doc = include_str!("../README.md")]
//!
//! # The model
//!
//! * A [`Table`] is an ordered set of records with one key type ([`Key`]) and one **lineage**: a chain of Rust types
//!   v1 → v2 → …, each a [`Version`] with an `upcast` and a `downcast` to its neighbour.
//! * A handle reads and writes at one **view**, its Rust type. Handles at several views may be open at once.
//! * A view strictly between the two versions of an open migration reads what the older one holds, upcast, and cannot
//!   write. What only the newer version holds is not seen there: the view need not have the code to downcast it.
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

mod caught;
mod clock;
#[cfg(all(unix, feature = "control"))]
mod control;
mod copies;
mod duty;
pub mod engine;
mod error;
mod form;
#[cfg(feature = "json")]
pub mod json;
pub mod measure;
mod medium;
pub mod migration;
mod pace;
mod record;
mod state;
mod store;
#[cfg(any(feature = "json", feature = "control"))]
mod strict;
mod sync;
mod table;
mod threads;

// What a program names, in the order in which a record flows: its type, its key, the store, its table, a migration.

pub use record::plain::Plain;
pub use record::version::{Origin, Version};

pub use record::key::Key;

pub use state::settings::Durability;
pub use store::handle::Store;
pub use store::options::Options;

pub use table::batch::Batch;
pub use table::scan::Scan;
pub use table::snapshot::Snapshot;
pub use table::transaction::Transaction;
pub use table::typed::Table;

pub use migration::{Migration, Plan};
pub use pace::Budget;
pub use state::catalog::Phase;

pub use error::{CastError, Error, Result};

pub use record::{codec, laws, shape};

/// Keys by their beginnings.
pub mod key {
    pub use crate::record::key::KeyPrefix;
}

/// Whole stores: backups, salvage, imports, and looks at everything.
pub mod tools {
    pub use crate::copies::inspect::{Inventory, Report, Space};
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub use crate::copies::{backup, salvage};
    #[cfg(feature = "sled")]
    pub use crate::table::import;
}
