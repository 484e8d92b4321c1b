//! What a store is: its catalog, ledger and routes, and the one function that changes them.
//!
//! Everything from here on is bytes and versions; the user's types come in as a lineage. Migrations, tables and the store use
//! this folder; it starts no thread and knows no verb. The way in: [`change::State::change`], by which every durable change
//! goes, and [`route`], by which every read and write finds its trees.

pub(crate) mod backlog;
pub(crate) mod catalog;
pub(crate) mod change;
pub(crate) mod flusher;
pub(crate) mod gate;
pub(crate) mod holds;
pub(crate) mod in_quarantine;
pub(crate) mod ledger;
pub(crate) mod outbox;
pub(crate) mod quarantine;
pub(crate) mod route;
pub(crate) mod settings;
pub(crate) mod shared;
