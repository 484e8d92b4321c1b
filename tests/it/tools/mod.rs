//! Copies, backups, compaction, salvage and imports.

mod backup;
mod compact;
mod copy;
mod import;
mod salvage;
