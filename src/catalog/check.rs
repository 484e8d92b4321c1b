//! What a catalog must be, beyond decoding. Damage that its checksum did not show (a tool, a bug) is found before
//! anything is built on it, above all before a sweep takes a tree for nobody's.

use std::collections::BTreeSet;

use super::{Catalog, TableEntry, damaged};
use crate::error::{Error, Result};

pub(super) fn check(catalog: &Catalog) -> Result<()> {
    for (name, entry) in &catalog.migrations {
        let known = entry.known_phase().ok_or_else(|| Error::Format {
            reason: format!(
                "the catalog gives migration {name} the unknown phase code {}: the store may be of a newer \
                 release of exuvia; use that",
                entry.phase
            ),
        })?;
        for step in entry.tables.iter().filter(|_| !known.is_closed()) {
            let table = catalog.table(&step.table)?;
            if table.migration.as_ref() != Some(name) {
                return Err(damaged(format!("table {} does not know of migration {name}", step.table)));
            }
        }
    }
    let mut ids = BTreeSet::new();
    for (name, table) in &catalog.tables {
        if let Err(reason) = check_table(catalog, name, table) {
            return Err(damaged(format!("table {name} {reason}")));
        }
        let own = std::iter::once(table.id).chain(table.generations.iter().map(|generation| generation.id));
        for id in own {
            if id >= catalog.next_id || !ids.insert(id) {
                return Err(damaged(format!("table {name} has the id {id}, which is not its own")));
            }
        }
    }
    Ok(())
}

fn check_table(catalog: &Catalog, name: &str, table: &TableEntry) -> Result<(), String> {
    let TableEntry { active, floor, stored, oldest, .. } = table;
    if floor > stored || oldest > stored {
        return Err(format!("is written in version {stored}, below its floor {floor} or oldest {oldest}"));
    }
    let generations = match &table.migration {
        None if active != stored => {
            return Err(format!("is settled at version {stored}, and version {active} is active"));
        }
        None => 1,
        Some(migration) => {
            let open = catalog
                .migrations
                .get(migration)
                .filter(|entry| entry.known_phase().is_some_and(|p| !p.is_closed()));
            let step = open.and_then(|entry| entry.tables.iter().find(|step| step.table == name));
            let Some(step) = step else {
                return Err(format!("names the migration {migration}, which is not open for it"));
            };
            if step.from != *stored || step.to <= step.from || ![step.from, step.to].contains(active) {
                return Err(format!("does not fit the versions of migration {migration}"));
            }
            if step.metadata_only { 1 } else { 2 }
        }
    };
    if table.generations.len() != generations {
        return Err(format!("has {} generations and not {generations}", table.generations.len()));
    }
    Ok(())
}
