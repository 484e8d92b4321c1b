//! All integration tests, in one binary.

#[cfg(feature = "cli")]
mod command;
mod conformance;
mod conformance_commits;
mod engine_memory;
mod engine_sled;
mod full_disk;
mod lifecycle;
mod process_death;
mod records;
mod scratch;
mod types;
