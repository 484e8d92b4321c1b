//! All integration tests, in one binary.

mod admin;
mod atomic;
mod backup;
mod bad_input;
mod bank;
mod closed;
#[cfg(feature = "cli")]
mod command;
#[cfg(feature = "cli")]
mod compact;
mod conformance;
mod conformance_commits;
#[cfg(all(unix, feature = "cli"))]
mod control;
mod copy;
mod corruption;
mod damage;
mod day_one;
mod engine_choice;
#[cfg(feature = "fjall")]
mod engine_fjall;
mod engine_memory;
mod engine_sled;
mod faults;
#[cfg(feature = "fjall")]
mod fjall_losses;
mod full_disk;
mod golden;
mod hook_engine;
mod hooks;
mod import;
mod invariants;
mod isolation;
mod key_types;
mod kinds;
mod lifecycle;
mod limits;
#[path = "../linear/mod.rs"]
mod linear;
mod linearizable;
mod memory;
mod mirror;
mod model;
#[cfg(feature = "cli")]
mod observed;
mod old_binary;
mod opening;
#[cfg(feature = "cli")]
mod operator;
mod ordering;
mod private;
mod process_death;
mod records;
#[cfg(feature = "cli")]
mod records_json;
mod retries;
mod review;
mod salvage;
mod scans;
mod scene;
mod scratch;
#[cfg(feature = "fjall")]
mod snapshots;
mod stored;
mod sweep;
mod sync_faults;
mod transactions;
mod traps;
mod types;
