//! Administration of tables: rename, drop, clear.
//!
//! Each is one [`Core::change`], so after a crash it has happened or it has not, whole:
//!
//! | verb | the commit says | after it |
//! |---|---|---|
//! | rename | the same entry under another name | nothing: trees are named by ids, and handles follow |
//! | drop | no entry | the route says *dropped*; the sweeper empties the trees, which the catalog no longer names |
//! | clear | one generation, a new one | the route leads to it; the sweeper empties the old one |
//!
//! None of them waits for records: the cost is that of the commit. A writer is before the flip, and its record goes
//! with the old trees, or after it: then it starts again by the new route (rule 2). Ids are never used again (rule 9),
//! so a table that is made anew under an old name shares nothing with the old one, and handles of that stay *dropped*.
//!
//! All three are refused while a migration is open: it names its tables, and its phases say what may be destroyed.
//! What is quarantined is so in an open migration only. So a quarantine tree, which is named by its table, never has to
//! follow a rename: what it still holds then is stale, and is swept with the name that nobody has any more.

use std::sync::Arc;

use crate::catalog::{Catalog, Generation, TableEntry};
use crate::core::{Change, Core};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::ledger::Event;
use crate::route::{Frontier, Kind, Route, TableState};
use crate::stats::Activity;
use crate::store::Store;
use crate::sync::Instant;
use crate::table::Table;
use crate::version::Version;

/// Longest name of a table, in bytes.
const NAME_BYTES_MAX: usize = 256;

impl Store {
    /// Gives a table another name. Handles that are open follow it.
    ///
    /// Costs one durable commit, whatever the table's size. The ledger, and migrations that are closed, keep the
    /// name that it had then.
    ///
    /// # Errors
    ///
    /// There is no such table, there is one of the new name, a migration of it is open, or a failing engine.
    pub fn rename_table(&self, name: &str, new_name: &str) -> Result<()> {
        check_name(new_name)?;
        self.core().rename_table(name, new_name)
    }

    /// Drops a table with all its records, for good. Handles on it answer [`Error::Dropped`] from here on, also when a
    /// table of this name is made again.
    ///
    /// Costs one durable commit, whatever the table's size; the space is given back in the background.
    ///
    /// # Errors
    ///
    /// There is no such table, a migration of it is open, or a failing engine.
    pub fn drop_table(&self, name: &str) -> Result<()> {
        self.core().drop_table(name)
    }
}

impl<K: Key, V: Version> Table<K, V> {
    /// Removes all records. Versions, shapes and handles stay as they are.
    ///
    /// Costs one durable commit, whatever the table's size; the space is given back in the background. A write that
    /// runs beside it is removed by it or comes after it, and then stays.
    ///
    /// # Errors
    ///
    /// A migration of the table is open, the table was dropped, or a failing engine.
    pub fn clear(&self) -> Result<()> {
        self.lease().0.clear_table(self.state())
    }
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Error::state(format!("table {name:?}"), "a table's name has 1 to 256 bytes"));
    }
    Ok(())
}

impl Core {
    fn rename_table(self: &Arc<Core>, name: &str, new_name: &str) -> Result<()> {
        let decide = |catalog: &mut Catalog| {
            settled(catalog, name, "renamed")?;
            if catalog.tables.contains_key(new_name) {
                return Err(Error::state(
                    format!("table {new_name}"),
                    "there is a table of this name already; choose another, or drop that one first",
                ));
            }
            if let Some(entry) = catalog.tables.remove(name) {
                catalog.tables.insert(new_name.to_owned(), entry);
            }
            let event = Event { why: format!("from {name}"), ..Event::new("rename table", new_name) };
            Ok(Change { event, flips: Vec::new(), result: () })
        };
        self.administer(decide, |tables, ()| {
            if let Some(state) = tables.remove(name) {
                state.name.set(new_name);
                tables.insert(new_name.to_owned(), state);
            }
        })
    }

    fn drop_table(self: &Arc<Core>, name: &str) -> Result<()> {
        let decide = |catalog: &mut Catalog| {
            settled(catalog, name, "dropped")?;
            catalog.tables.remove(name);
            let state = self.table(name)?;
            let route = Route { kind: Kind::Dropped, fence: None, floor: 0, ..Route::clone(&state.route()) };
            Ok(Change { event: Event::new("drop table", name), flips: vec![(state, route)], result: () })
        };
        self.administer(decide, |tables, ()| {
            if let Some(state) = tables.remove(name) {
                state.set_activity(Activity::Idle);
            }
        })
    }

    fn clear_table(self: &Arc<Core>, state: &Arc<TableState>) -> Result<()> {
        let decide = |catalog: &mut Catalog| {
            let name = self.name_of(state)?;
            let generation = Generation { id: catalog.new_id(), unswept: false };
            let entry = settled(catalog, &name, "cleared")?;
            entry.generations = vec![generation];
            // There is no older record any more.
            entry.oldest = entry.stored;
            let route = self.route_of(catalog, &name)?;
            Ok(Change {
                event: Event::new("clear table", &name),
                flips: vec![(Arc::clone(state), route)],
                result: (),
            })
        };
        self.administer(decide, |_, ()| state.set_frontier(Frontier::Start))
    }

    /// The name of a table by its handle, under the catalog's mutex.
    pub(crate) fn name_of(&self, state: &Arc<TableState>) -> Result<String> {
        let name = state.name.to_string();
        match self.tables.read().get(&name) {
            Some(known) if Arc::ptr_eq(known, state) => Ok(name),
            _ => Err(state.dropped()),
        }
    }

    /// A change of tables, with the sweeper out of its way: what it was sweeping may be gone afterwards, and there may
    /// be more for it.
    pub(crate) fn administer(
        self: &Arc<Core>,
        decide: impl FnOnce(&mut Catalog) -> Result<Change<()>>,
        publish: impl FnOnce(&mut std::collections::HashMap<String, Arc<TableState>>, &()),
    ) -> Result<()> {
        let started = Instant::now();
        self.stop_sweeper();
        let changed = self.change_tables(started, decide, publish);
        self.start_sweeper();
        changed
    }
}

/// The entry of a table that no migration is open for.
pub(crate) fn settled<'a>(catalog: &'a mut Catalog, name: &str, what: &str) -> Result<&'a mut TableEntry> {
    let subject = format!("table {name}");
    let Some(entry) = catalog.tables.get_mut(name) else {
        return Err(Error::state(subject, "there is no table of this name; `tables()` lists them"));
    };
    match &entry.migration {
        Some(migration) => {
            let reason = format!(
                "migration {migration} is open, so it cannot be {what}; contract it, or roll it back and abandon it, \
                 first"
            );
            Err(Error::state(subject, reason))
        }
        None => Ok(entry),
    }
}
