//! The catalog of a damaged store.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Salvage;
use super::source::Source;
use crate::clock::now_ms;
use crate::error::{Error, Result};
use crate::form::envelope::Entry;
use crate::state::catalog::{self as stored, Catalog, Generation, MigrationEntry, Phase, Step, TableEntry};
use crate::state::ledger;

/// The catalog, or the best that can be made of it.
pub(super) fn find(source: &RefCell<Source>, salvage: &mut Salvage) -> Result<Catalog> {
    let found = source.borrow_mut().get(stored::TREE, stored::KEY);
    let trees = source.borrow_mut().trees()?;
    let bytes = match found {
        Ok(Some(bytes)) => match Catalog::from_bytes(&bytes) {
            Ok(catalog) => return Ok(catalog),
            Err(e @ Error::Format { .. }) => return Err(e),
            Err(_) => Some(bytes),
        },
        Ok(None) | Err(_) => None,
    };
    // One wrong byte in a name or a time leaves the rest as it was.
    let names_what_is_there = |catalog: &Catalog| {
        let mut named =
            catalog.tables.values().flat_map(|table| table.generations.iter().map(|g| table.tree(g)));
        named.all(|tree| trees.contains(&tree))
    };
    if let Some(catalog) = bytes.and_then(|bytes| Catalog::from_damaged(&bytes)).filter(names_what_is_there) {
        salvage.lose(
            "",
            None,
            "the catalog is damaged; it is taken as it reads: look at the names of tables and migrations",
        );
        return Ok(catalog);
    }
    salvage.lose(
        "",
        None,
        "the catalog; it is made up from the records: names of tables and the state of migrations may be others, types of \
         keys and shapes are taken from the code that opens the tables",
    );
    made_up(source, &trees)
}

/// The generations of each table, oldest first.
fn generations(trees: &[String]) -> BTreeMap<u64, Vec<u64>> {
    let mut tables: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (table, generation) in trees.iter().filter_map(|tree| tree.split_once('/')) {
        if let (Ok(table), Ok(generation)) = (table.parse(), generation.parse()) {
            tables.entry(table).or_default().push(generation);
        }
    }
    tables.values_mut().for_each(|generations| generations.sort_unstable());
    tables
}

/// The oldest and the newest version in a tree; `None` if nothing in it can be read.
fn versions(source: &RefCell<Source>, tree: &str) -> Result<Option<(u32, u32)>> {
    let mut versions: Option<(u32, u32)> = None;
    Source::each(source, tree, &mut |key, value| {
        if let Ok(entry) = Entry::parse(key, value) {
            let mut note = |version: u32| {
                let (oldest, newest) = versions.unwrap_or((version, version));
                versions = Some((oldest.min(version), newest.max(version)));
            };
            note(entry.version());
            entry.companion().map(|(version, _)| version).into_iter().for_each(note);
        }
        Ok(())
    })?;
    Ok(versions)
}

/// Names in the order in which tables were made, if the ledger tells no more than that of them.
fn names(source: &RefCell<Source>) -> Result<Vec<String>> {
    let (mut names, mut plain) = (Vec::new(), true);
    Source::each(source, ledger::TREE, &mut |key, value| {
        match ledger::from_bytes(key, &value) {
            Ok(entry) if entry.what == "create table" => names.push(entry.subject),
            Ok(entry) => plain &= !matches!(entry.what.as_str(), "rename table" | "drop table"),
            Err(_) => plain = false,
        }
        Ok(())
    })?;
    Ok(if plain { names } else { Vec::new() })
}

fn made_up(source: &RefCell<Source>, trees: &[String]) -> Result<Catalog> {
    let found = generations(trees);
    let names = names(source)?;
    let mut catalog = Catalog::new("");
    for (position, (id, generations)) in found.iter().enumerate() {
        let name = if names.len() == found.len() { names.get(position).cloned() } else { None };
        let name = name.unwrap_or_else(|| format!("table-{id}"));
        let (base, overlay) = match generations.as_slice() {
            [.., base, overlay] => (*base, Some(*overlay)),
            [base] => (*base, None),
            [] => continue,
        };
        let seen = versions(source, &format!("{id}/{base}"))?;
        let newer = match overlay {
            Some(overlay) => versions(source, &format!("{id}/{overlay}"))?,
            None => None,
        };
        let Some((oldest, stored)) = seen.or(newer.map(|(oldest, _)| (oldest, oldest))) else {
            // Nothing in it can be read.
            continue;
        };
        let generation = |id| Generation { id, unswept: true };
        let mut table = TableEntry {
            id: *id,
            active: stored,
            floor: oldest,
            stored,
            oldest,
            generations: vec![generation(base)],
            shapes: BTreeMap::new(),
            migration: None,
            key: None,
            codecs: BTreeMap::new(),
        };
        if let Some(overlay) = overlay {
            // Nothing goes on by itself, and both versions can be read: whoever knows resumes or abandons it.
            let to = newer.map_or(0, |(_, newest)| newest).max(stored + 1);
            let migration = format!("salvaged {name}");
            let step = Step { table: name.clone(), from: stored, to, metadata_only: false };
            let why = "found by a salvage, without a catalog".to_owned();
            let mut entry = MigrationEntry::new(why, String::new(), false, now_ms(), vec![step]);
            entry.paused = true;
            entry.set_phase(Phase::RolledBack);
            catalog.migrations.insert(migration.clone(), entry);
            table.migration = Some(migration);
            table.generations = [base, overlay].map(|id| Generation { id, unswept: false }).into();
        }
        catalog.tables.insert(name, table);
    }
    catalog.skip_ids(trees);
    Ok(catalog)
}
