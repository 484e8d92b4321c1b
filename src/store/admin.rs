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
//! with the old trees, or after it: then it starts again by the new route (O2). Ids are never used again (O9),
//! so a table that is made anew under an old name shares nothing with the old one, and handles of that stay *dropped*.
//!
//! All three are refused while a migration is open: it names its tables, and its phases say what may be destroyed.
//! What is quarantined is so in an open migration only. So a quarantine tree, which is named by its table, never has to
//! follow a rename: what it still holds then is stale, and is swept with the name that nobody has any more.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::measure::observe::Activity;
use crate::migration::core::Core;
use crate::record::key::Key;
use crate::record::version::Version;
use crate::state::catalog::room::{self, Growth};
use crate::state::catalog::{Catalog, Generation};
use crate::state::change::Change;
use crate::state::ledger::Event;
use crate::state::route::{Frontier, Kind, Route, TableState};
use crate::store::handle::Store;
use crate::sync::Instant;
use crate::table::typed::Table;

impl Store {
    /// Gives a table another name. Handles that are open follow it.
    ///
    /// Costs one durable commit, whatever the table's size. The ledger, and migrations that are closed, keep the
    /// name that it had then.
    ///
    /// # Errors
    ///
    /// There is no such table, there is one of the new name, a migration of it is open, or a failing engine;
    /// [`Error::Limit`] for a name of more than 256 bytes, or one that the catalog has no room for.
    pub fn rename_table(&self, name: &str, new_name: &str) -> Result<()> {
        room::check_table_name(new_name)?;
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

impl Core {
    fn rename_table(self: &Arc<Core>, name: &str, new_name: &str) -> Result<()> {
        let decide = |catalog: &mut Catalog| {
            catalog.table_without_migration(name, "renamed")?;
            if catalog.tables.contains_key(new_name) {
                return Err(Error::state(
                    format!("table {new_name}"),
                    "there is a table of this name already; choose another, or drop that one first",
                ));
            }
            if let Some(entry) = catalog.tables.remove(name) {
                catalog.tables.insert(new_name.to_owned(), entry);
            }
            if new_name.len() > name.len() {
                room::check(&self.shared, catalog, Growth::Name)?;
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
            catalog.table_without_migration(name, "dropped")?;
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
            let entry = catalog.table_without_migration(&name, "cleared")?;
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
