//! Where the types of a handle meet a table: creating one, and checking them against what the catalog says of it.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::migration::core::Core;
use crate::record::key::Key;
use crate::record::lineage::{self, Lineage};
use crate::record::shape::{self, Examined, KeyType, Shape};
use crate::record::version::Version;
use crate::state::catalog::room::{self, Growth};
use crate::state::catalog::{self, Catalog, Generation, TableEntry};
use crate::state::change::Change;
use crate::state::ledger::Event;
use crate::state::route::{Route, TableState};
use crate::sync::Instant;

/// What a table is created from: its types, as data.
pub(crate) struct NewTable {
    pub(crate) version: u32,
    pub(crate) shape: Shape,
    pub(crate) key: KeyType,
    pub(crate) codec: String,
}

impl NewTable {
    pub(super) fn of<K: Key, V: Version>(name: &str) -> Result<Self> {
        let version = V::VERSION;
        let refuse = |difference| Error::Shape { table: name.to_owned(), version, difference };
        let examined = shape::examine::<V>().map_err(refuse)?;
        let shape = examined.shape_with_codec(V::CODEC).map_err(refuse)?;
        Ok(Self { version, shape, key: K::key_type(), codec: V::CODEC.to_owned() })
    }
}

/// Whether the types of a handle are those of the table. What an older release did not record of the table is taken
/// from them, in memory: opening changes nothing on disk, and the next state change takes it along.
///
/// Answers whether values of all types could be made, so that they were examined.
pub(super) fn check<K: Key, V: Version>(core: &Core, name: &str, table: &TableEntry) -> Result<bool> {
    check_versions::<V>(name, table)?;
    let lineage = Lineage::of::<V>();
    let by_values = check_shapes(core, name, table, &lineage)?;
    let read = |version| version >= table.floor && table.shapes.contains_key(&version);
    let seen = lineage.iter().filter(|casts| read(casts.version));
    let asked = K::key_type();
    let codecs = seen.map(|casts| (casts.version, casts.codec));
    match core.learn(table.id, &asked, codecs) {
        Some(key) if !key.fits(&asked) => {
            let difference = format!(
                "the keys of this table are {key}, and this handle's are {asked}; open it with keys of type {key}, \
                 or give the records with other keys a table of their own"
            );
            Err(Error::Shape { table: name.to_owned(), version: V::VERSION, difference })
        }
        _ => Ok(by_values),
    }
}

fn check_versions<V: Version>(name: &str, table: &TableEntry) -> Result<()> {
    let refuse = |version, reason: String| Err(Error::Version { table: name.to_owned(), version, reason });
    if V::VERSION < table.floor {
        return refuse(
            V::VERSION,
            format!(
                "retired: version {} is the oldest that can still be read; use a program that knows it",
                table.floor
            ),
        );
    }
    let oldest = lineage::oldest::<V>();
    // Records below the floor are the floor's bytes.
    let floor = table.floor;
    if floor < oldest {
        return refuse(
            floor,
            format!(
                "the table holds records of version {floor}, and the oldest type of this lineage is version {oldest}; \
                 open it with code that knows version {floor}, migrate it to version {oldest} and contract the \
                 migration, or add that type to the lineage"
            ),
        );
    }
    Ok(())
}

fn check_shapes(core: &Core, name: &str, table: &TableEntry, lineage: &Lineage) -> Result<bool> {
    let mut all_by_values = true;
    // What is below the floor is read by nobody any more: it binds no program, whatever its own version of that number is.
    for casts in lineage.iter().filter(|casts| casts.version >= table.floor) {
        let version = casts.version;
        let shape_error = |difference| Error::Shape { table: name.to_owned(), version, difference };
        let Examined { shape, by_values, .. } = (casts.examine)().map_err(shape_error)?;
        all_by_values &= by_values;
        let Some(stored) = table.shapes.get(&version) else {
            continue;
        };
        if let Some(codec) = table.codecs.get(&version).filter(|codec| **codec != casts.codec) {
            return Err(shape_error(format!(
                "its records are encoded by the codec {codec:?}, and the type's is {:?}; give the type with the other \
                 codec the next version, with an upcast from this one",
                casts.codec
            )));
        }
        if shape.fingerprint() == *stored {
            continue;
        }
        let stored = catalog::load_shape(&*core.shared.engine, stored)?;
        if let Some(difference) = stored.difference(&shape) {
            return Err(shape_error(format!(
                "the type changed without a new version: {difference}; give the changed type the next version, \
                 with an upcast from this one"
            )));
        }
    }
    Ok(all_by_values)
}

/// Creates a table; a conflict if another thread was faster.
pub(crate) fn create(core: &Core, name: &str, new: NewTable) -> Result<(Arc<TableState>, TableEntry)> {
    room::check_table_name(name)?;
    room::check_codec_name(&new.codec)?;
    if core.shared.settings.read_only {
        let reason = "there is no table of this name, and the store was opened read-only, so none is made";
        return Err(Error::state(format!("table {name}"), reason));
    }
    let NewTable { version, shape, key, codec } = new;
    let fingerprint = shape.fingerprint();
    let insert = |catalog: &mut Catalog| {
        if catalog.tables.contains_key(name) {
            return Err(Error::Conflict { subject: format!("table {name}") });
        }
        let (id, generation) = (catalog.new_id(), catalog.new_id());
        let entry = TableEntry {
            id,
            active: version,
            floor: version,
            stored: version,
            oldest: version,
            generations: vec![Generation { id: generation, unswept: false }],
            shapes: [(version, fingerprint)].into(),
            migration: None,
            key: Some(key.clone()),
            codecs: [(version, codec.clone())].into(),
        };
        catalog.tables.insert(name.to_owned(), entry.clone());
        room::check(&core.shared, catalog, Growth::Table)?;
        Ok(entry)
    };
    // Before anything is written for it.
    insert(&mut core.catalog())?;
    catalog::save_shape(&*core.shared.engine, &shape)?;
    core.shared.flush()?;
    let decide = |catalog: &mut Catalog| {
        let entry = insert(catalog)?;
        let route = Route { epoch: 1, ..core.route_of(catalog, name)? };
        let state = Arc::new(TableState::new(name, Arc::clone(&core.shared), route));
        let event = Event::new("create table", name).count("version", u64::from(version));
        Ok(Change { event, flips: Vec::new(), result: (state, entry) })
    };
    core.change_tables(Instant::now(), decide, |tables, (state, _)| {
        tables.insert(name.to_owned(), Arc::clone(state));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MemoryEngine;
    use crate::{Error, Plain, Store, Table};

    /// A handle is being opened while its table is dropped, or renamed, and another one made under the name.
    #[test]
    fn what_is_checked_is_the_table_that_was_found() {
        let store = Store::options().open_in(Arc::new(MemoryEngine::new())).expect("opened");
        for renamed in [false, true] {
            let numbers: Table<u64, Plain<u64>> = store.table("t").expect("made");
            let (_, entry) = store.core().find("t").expect("found");
            if renamed {
                store.rename_table("t", "was t").expect("renamed");
            } else {
                store.drop_table("t").expect("dropped");
            }
            let _words: Table<String, Plain<u64>> = store.table("t").expect("made anew");
            let checked = check::<u64, Plain<u64>>(store.core(), "t", &entry);
            checked.expect("the keys of the table that was found are numbers");
            let gone = matches!(numbers.get(&1), Err(Error::Dropped { .. }));
            assert_eq!(gone, !renamed);
            store.drop_table("t").expect("dropped");
        }
    }
}
