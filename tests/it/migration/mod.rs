//! The verbs of a migration, its invariants, its ordering rules, and what has bitten other systems.

mod both_forms;
mod closed_migrations;
mod interleavings;
mod invariants;
mod lifecycle;
mod metadata_only;
mod old_binary;
mod ordering;
mod progress;
mod quarantine;
mod retries;
mod sweep;
mod traps;
