//! What a program does with a table: read, write, scan, load, commit.

mod admin;
mod atomic;
mod bulk_load;
mod plain_types;
mod scans;
#[cfg(feature = "fjall")]
mod snapshots;
mod transactions;
