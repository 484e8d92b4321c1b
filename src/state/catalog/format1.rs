//! The catalog of format 1, which knew neither key types nor codecs.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Generation, MigrationEntry, TableEntry};
use crate::state::outbox::Record;

#[derive(Deserialize)]
pub(super) struct Catalog {
    engine: String,
    revision: u64,
    next_id: u64,
    tables: BTreeMap<String, Table>,
    migrations: BTreeMap<String, MigrationEntry>,
    ledger_next: u64,
    ledger_head: [u8; 32],
    outbox: Vec<Record>,
}

#[derive(Deserialize)]
struct Table {
    id: u64,
    active: u32,
    floor: u32,
    stored: u32,
    oldest: u32,
    generations: Vec<Generation>,
    shapes: BTreeMap<u32, [u8; 32]>,
    migration: Option<String>,
}

impl From<Catalog> for super::Catalog {
    fn from(old: Catalog) -> Self {
        let Catalog { engine, revision, next_id, tables, migrations, ledger_next, ledger_head, outbox } = old;
        let tables = tables.into_iter().map(|(name, table)| (name, table.into())).collect();
        Self { engine, revision, next_id, tables, migrations, ledger_next, ledger_head, outbox }
    }
}

impl From<Table> for TableEntry {
    fn from(old: Table) -> Self {
        let Table { id, active, floor, stored, oldest, generations, shapes, migration } = old;
        let codecs = BTreeMap::new();
        Self { id, active, floor, stored, oldest, generations, shapes, migration, key: None, codecs }
    }
}
