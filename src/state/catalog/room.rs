//! How much a store may hold, and how long its names and texts may be.
//!
//! The catalog is one value of bounded size, and an engine may bound the number of its trees. So what makes either grow (a
//! new table, another name, a migration) leaves room for what has to fit after it: the ledger's entries in the outbox, and
//! after a new table a migration of it. Verbs on what is there need no more room than that, so they always fit.

use std::collections::BTreeSet;

use super::closed::KEPT_BYTES;
use super::{Catalog, TREE, quarantine_tree};
use crate::engine::Capabilities;
use crate::error::{Error, Result};
use crate::state::ledger;
use crate::state::shared::Shared;

/// Longest name of a table, a migration or a codec, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Longest reason, in bytes.
const WHY_BYTES_MAX: usize = 1024;
/// Longest name of who did it, in bytes.
const BY_BYTES_MAX: usize = 256;
/// Most that a ledger entry takes: its texts, its counts ([`ledger::COUNTS_BYTES_MAX`]), and its frame.
const ENTRY_BYTES_MAX: usize = 4096;
/// Entries in the outbox: the last change's and the one before.
const OUTBOX_BYTES_MAX: usize = 2 * ENTRY_BYTES_MAX;
/// What a migration of one table adds: its entry, and in the table's a generation, a version and the migration's name. Closed
/// ones are beside it.
const MIGRATION_BYTES_MAX: usize = 3 * 1024 + KEPT_BYTES;
/// A migration of one table needs a tree for the overlay and one for a quarantine; clearing or filling a table needs one.
const MIGRATION_TREES: usize = 2;
const SPARE_TREES: usize = 1;

const CATALOG_WHAT: &str = "bytes in the catalog of all tables and migrations (drop tables that are not needed, give a \
     migration fewer tables, or copy the store to an engine with longer values)";
const TREES_WHAT: &str = "trees (a table has one, and two more while it migrates; drop tables that are not needed, give a \
     migration fewer tables, or copy the store to an engine with more trees)";

/// What makes the catalog grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    Table,
    /// A longer name of a table that is there.
    Name,
    Migration,
}

fn check_length(what: &'static str, text: &str, limit: usize) -> Result<()> {
    let size = text.len();
    if size <= limit { Ok(()) } else { Err(Error::Limit { what, size, limit }) }
}

/// Refuses a name that no table can have.
pub(crate) fn check_table_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::state("table \"\"", "a table's name has 1 to 256 bytes"));
    }
    check_length("bytes in the name of a table", name, NAME_BYTES_MAX)
}

/// Refuses a name that no migration can have.
pub(crate) fn check_migration_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::state("migration \"\"", "a migration's name has 1 to 256 bytes"));
    }
    check_length("bytes in the name of a migration", name, NAME_BYTES_MAX)
}

/// Refuses a codec whose name the catalog does not take.
pub(crate) fn check_codec_name(name: &str) -> Result<()> {
    check_length("bytes in the name of a codec", name, NAME_BYTES_MAX)
}

/// Refuses texts that the ledger does not take.
pub(crate) fn check_texts(why: &str, by: &str) -> Result<()> {
    check_length("bytes in the reason (why)", why, WHY_BYTES_MAX)?;
    check_length("bytes in the name of who did it (by)", by, BY_BYTES_MAX)
}

/// Refuses a catalog that leaves no room for what has to fit after it. To be called before any tree is made.
pub(crate) fn check(shared: &Shared, next: &Catalog, growth: Growth) -> Result<()> {
    let spare = match growth {
        Growth::Table | Growth::Name => (MIGRATION_BYTES_MAX, MIGRATION_TREES + SPARE_TREES),
        Growth::Migration => (0, SPARE_TREES),
    };
    check_bytes(&shared.limits, next, OUTBOX_BYTES_MAX + spare.0)?;
    if growth == Growth::Name || shared.limits.trees_max == usize::MAX {
        return Ok(());
    }
    let there = shared.engine.trees()?;
    check_trees(&shared.limits, next, &there, spare.1)
}

/// Refuses what another engine could not hold.
pub(crate) fn check_copy(limits: &Capabilities, catalog: &Catalog) -> Result<()> {
    check_bytes(limits, catalog, OUTBOX_BYTES_MAX)?;
    check_trees(limits, catalog, &[], 0)
}

/// The limit's error for a catalog of so many bytes.
pub(crate) fn over_limit(size: usize, limit: usize) -> Error {
    Error::Limit { what: CATALOG_WHAT, size, limit }
}

fn check_bytes(limits: &Capabilities, next: &Catalog, reserve: usize) -> Result<()> {
    let body = Catalog { outbox: Vec::new(), ..next.clone() };
    // An engine whose values are shorter than that keeps half of them for what there is.
    let reserve = reserve.min(limits.value_bytes_max / 2);
    let (size, limit) = (body.to_bytes()?.len(), limits.value_bytes_max - reserve);
    if size <= limit { Ok(()) } else { Err(over_limit(size, limit)) }
}

fn check_trees(limits: &Capabilities, next: &Catalog, there: &[String], reserve: usize) -> Result<()> {
    let mut trees: BTreeSet<String> = there.iter().cloned().collect();
    trees.extend([TREE.to_owned(), ledger::TREE.to_owned()]);
    for (name, table) in &next.tables {
        trees.extend(table.generations.iter().map(|generation| table.tree(generation)));
        if table.overlay().is_some() {
            trees.insert(quarantine_tree(name));
        }
    }
    let (size, limit) = (trees.len(), limits.trees_max.saturating_sub(reserve));
    if size <= limit { Ok(()) } else { Err(Error::Limit { what: TREES_WHAT, size, limit }) }
}
