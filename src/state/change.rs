//! What a store is in memory and in its catalog, and the one function that changes it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::clock::now_ms;
use crate::error::{EngineError, EngineErrorKind, Error, Result};
use crate::record::shape::KeyType;
use crate::state::catalog::{self, Catalog, MigrationEntry, Phase, TableEntry, closed, room};
use crate::state::ledger::{self, Event};
use crate::state::route::{Alike, Fence, Kind, Open, Route, TableState};
use crate::state::shared::Shared;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Instant, Mutex, RwLock};

/// The catalog, and the tables that it names.
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    published: Mutex<Published>,
    pub(crate) tables: RwLock<HashMap<String, Arc<TableState>>>,
    /// Trees that are being filled and that no catalog names yet: not to be swept.
    reserved: Mutex<BTreeSet<String>>,
    /// Looks at everything that are under way: nothing is dropped that they may still have to read.
    pub(crate) held: AtomicUsize,
}

/// The catalog as the engine has it.
struct Published {
    catalog: Catalog,
    bytes: Vec<u8>,
}

/// What a verb decided: the ledger's entry and the routes to take once the catalog is durable.
pub(crate) struct Change<R> {
    pub(crate) event: Event,
    pub(crate) flips: Vec<(Arc<TableState>, Route)>,
    pub(crate) result: R,
}

impl State {
    /// Loads the catalog, or writes the first one (`new`: there may be none yet), and brings every table to its
    /// place.
    pub(crate) fn open(shared: Arc<Shared>, new: bool) -> Result<State> {
        let others = shared.engine.trees()?.iter().any(|tree| tree != catalog::TREE);
        let tree = shared.engine.tree(catalog::TREE)?;
        let (mut catalog, bytes) = match tree.get(catalog::KEY)? {
            Some(bytes) => (Catalog::from_bytes(&bytes)?, bytes.to_vec()),
            // A new catalog would make everything else nobody's, to be swept away.
            None if others || !new || shared.settings.read_only => {
                return Err(Error::corrupt(catalog::TREE, catalog::KEY, "it is missing"));
            }
            None => {
                let catalog = Catalog::new(shared.engine.name());
                let bytes = catalog.to_bytes()?;
                tree.put(catalog::KEY, &bytes)?;
                shared.flush()?;
                (catalog, bytes)
            }
        };
        if catalog.engine != shared.engine.name() {
            let reason = format!(
                "the store was written by the engine {:?} and is being opened with {:?}; open it with {:?}",
                catalog.engine,
                shared.engine.name(),
                catalog.engine
            );
            return Err(Error::Format { reason });
        }
        let written = !shared.settings.read_only && ledger::copy_out(&*shared.engine, &catalog)?;
        // What a killed process left may be in the system's memory only: it becomes durable before anything, the
        // sweep above all, is built on it. The engines with files see to that when they open; of one that was handed in
        // nobody knows what was done to it since.
        if written || shared.path.is_none() {
            shared.flush()?;
        }
        let trees = shared.engine.trees()?;
        // In memory there are only trees that hold something, after a crash that is played.
        if shared.path.is_some() {
            check_trees(&catalog, &trees)?;
        }
        catalog.skip_ids(&trees);
        let mut tables = HashMap::new();
        for name in catalog.tables.keys() {
            let route = route_of(&shared, &catalog, name, 1)?;
            tables.insert(name.clone(), Arc::new(TableState::new(name, Arc::clone(&shared), route)));
        }
        Ok(State {
            shared,
            published: Mutex::new(Published { catalog, bytes }),
            tables: RwLock::new(tables),
            reserved: Mutex::new(BTreeSet::new()),
            held: AtomicUsize::new(0),
        })
    }

    /// Calls `with` under the catalog's mutex: no state change comes between.
    pub(crate) fn with_catalog<R>(&self, with: impl FnOnce(&Catalog) -> R) -> R {
        with(&self.published.lock().catalog)
    }

    /// A migration, open or closed.
    pub(crate) fn migration(&self, name: &str) -> Result<MigrationEntry> {
        // In this order: an entry is put aside before the catalog lets go of it.
        if let Some(entry) = self.with_catalog(|catalog| catalog.migrations.get(name).cloned()) {
            return Ok(entry);
        }
        closed::load(&*self.shared.engine, name)?.ok_or_else(|| catalog::no_migration(name))
    }

    pub(crate) fn catalog(&self) -> Catalog {
        self.published.lock().catalog.clone()
    }

    /// Takes from the code what a store of an older format does not say, and answers the type of keys that the
    /// table has. It becomes durable with the next state change: opening a table writes nothing. By the table's id: its
    /// name may be another table's by now, and `None` says that it is dropped.
    pub(crate) fn learn<'c>(
        &self,
        id: u64,
        key: &KeyType,
        codecs: impl Iterator<Item = (u32, &'c str)>,
    ) -> Option<KeyType> {
        let mut published = self.published.lock();
        let table = published.catalog.tables.values_mut().find(|table| table.id == id)?;
        if table.key.as_ref().is_none_or(|known| known.is_custom() && !key.is_custom()) {
            table.key = Some(key.clone());
        }
        for (version, codec) in codecs {
            table.codecs.entry(version).or_insert_with(|| codec.to_owned());
        }
        table.key.clone()
    }

    pub(crate) fn table(&self, name: &str) -> Result<Arc<TableState>> {
        self.tables
            .read()
            .get(name)
            .cloned()
            .ok_or_else(|| Error::state(format!("table {name}"), "there is no table of this name"))
    }

    /// A table and its catalog entry, both of one moment.
    pub(crate) fn find(&self, name: &str) -> Option<(Arc<TableState>, TableEntry)> {
        let published = self.published.lock();
        let state = self.tables.read().get(name).cloned();
        state.zip(published.catalog.tables.get(name).cloned())
    }

    /// **The** state change: every begin, rollback, resume, contract, abandon and creation of a table comes
    /// through here (I7, I9 and I11).
    ///
    /// Before anything, transactions that were overtaken too often are let by (`holds`).
    ///
    /// 1. `decide` looks at the catalog and changes a copy of it: no user code, no waiting. Ids that it gave out are not given
    ///    out again, also if it is refused.
    /// 2. The copy, with its ledger entry, replaces exactly what was read, in one single-key commit.
    /// 3. Flush. Until it is done, memory still answers by the old state.
    /// 4. Flip: the gate is held exclusively while routes change, in memory only.
    /// 5. The ledger entry is copied out, the observer told.
    ///
    /// A crash before 2 leaves the old state, after 3 the new one, between them either, whole.
    pub(crate) fn change<R>(
        &self,
        started: Instant,
        decide: impl FnOnce(&mut Catalog) -> Result<Change<R>>,
    ) -> Result<R> {
        self.change_tables(started, decide, |_, _| ())
    }

    /// [`State::change`], for what makes, renames or drops a table: `publish` brings the tables in memory to what
    /// the catalog says, in step 4, so that whoever looks at both under the catalog's mutex finds them agree.
    pub(crate) fn change_tables<R>(
        &self,
        started: Instant,
        decide: impl FnOnce(&mut Catalog) -> Result<Change<R>>,
        publish: impl FnOnce(&mut HashMap<String, Arc<TableState>>, &R),
    ) -> Result<R> {
        self.shared.check_writable()?;
        let flipping = self.shared.holds.flip();
        let mut published = self.published.lock();
        let mut next = published.catalog.clone();
        let decided = decide(&mut next);
        // Rule 9, also if it is refused now: it may have made a tree, which the sweep is about to drop.
        published.catalog.next_id = next.next_id;
        let Change { event, flips, result } = decided?;
        next.revision += 1;
        let subject = event.subject.clone();
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        ledger::append(&mut next, event, now_ms(), duration_us)?;
        let bytes = next.to_bytes()?;
        if bytes.len() > self.shared.limits.value_bytes_max {
            return Err(room::over_limit(bytes.len(), self.shared.limits.value_bytes_max));
        }
        let tree = self.shared.engine.tree(catalog::TREE)?;
        let swapped = tree.compare_and_swap(catalog::KEY, Some(&published.bytes), Some(&bytes));
        if !swapped.map_err(|e| self.unknown(e.into()))? {
            return Err(Error::Conflict { subject });
        }
        self.shared.flush()?;
        published.catalog = next;
        published.bytes = bytes;
        self.flip_now(flips);
        publish(&mut self.tables.write(), &result);
        ledger::copy_out(&*self.shared.engine, &published.catalog).map_err(|e| self.unknown(e))?;
        self.shared.flusher.touch();
        let entry = published.catalog.outbox.last().and_then(|record| record.entry().ok());
        drop((published, flipping));
        if let Some(entry) = entry {
            tracing::info!(target: "exuvia", what = %entry.what, subject = %entry.subject, "state change");
            self.shared.recorder.changed(&entry);
        }
        Ok(result)
    }

    /// After a failed commit the engine may have either state: this handle stops, a reopen finds out.
    fn unknown(&self, e: Error) -> Error {
        self.shared.poison(&format!(
            "a state change failed half way, and a reopen has to find out how far: {}",
            e.as_reason()
        ));
        e
    }

    /// Changes routes in memory, all under one hold of the gate.
    pub(crate) fn flip(&self, flips: Vec<(Arc<TableState>, Route)>) {
        let _flipping = self.shared.holds.flip();
        self.flip_now(flips);
    }

    fn flip_now(&self, flips: Vec<(Arc<TableState>, Route)>) {
        if flips.is_empty() {
            return;
        }
        let ((), held) = self.shared.gate.exclusive(|| {
            for (table, mut route) in flips {
                route.epoch = table.route().epoch + 1;
                table.flip(route);
            }
        });
        self.shared.recorder.flip(held);
    }

    /// Changes the route of one table in memory, if its epoch is still `epoch`. Answers the new epoch. No verb comes
    /// between: they flip under the catalog's mutex too.
    pub(crate) fn flip_if(&self, table: &Arc<TableState>, epoch: u64, route: Route) -> Option<u64> {
        let _flipping = self.shared.holds.flip();
        let _catalog = self.published.lock();
        if !table.epoch_is(epoch) {
            return None;
        }
        self.flip_now(vec![(Arc::clone(table), route)]);
        Some(epoch + 1)
    }

    /// A new generation of a table that no catalog names yet, and its tree. No durable change: after a crash the
    /// tree itself says that its id was given out (`Catalog::skip_ids`). To be given back by [`State::release`].
    pub(crate) fn reserve(&self, table: &Arc<TableState>) -> Result<(u64, String)> {
        let mut published = self.published.lock();
        let table = &self.name_of(table)?;
        let id = published.catalog.new_id();
        let generation = catalog::Generation { id, unswept: false };
        let tree = published.catalog.table(table)?.tree(&generation);
        self.reserved.lock().insert(tree.clone());
        Ok((id, tree))
    }

    pub(crate) fn release(&self, tree: &str) {
        self.reserved.lock().remove(tree);
    }

    /// Whether a tree is nobody's, by the catalog of this moment.
    pub(crate) fn is_dead(&self, tree: &str) -> bool {
        let published = self.published.lock();
        self.held.load(Ordering::SeqCst) == 0
            && !published.catalog.is_named(tree)
            && !self.reserved.lock().contains(tree)
            // Last: a state change that failed half way may have named it, and that poisons before it lets go.
            && self.shared.check_usable().is_ok()
    }

    /// The name of a table by its handle, under the catalog's mutex.
    pub(crate) fn name_of(&self, state: &Arc<TableState>) -> Result<String> {
        let name = state.name.to_string();
        match self.tables.read().get(&name) {
            Some(known) if Arc::ptr_eq(known, state) => Ok(name),
            _ => Err(state.dropped()),
        }
    }

    /// The route that the catalog prescribes for a table.
    pub(crate) fn route_of(&self, catalog: &Catalog, table: &str) -> Result<Route> {
        route_of(&self.shared, catalog, table, 0)
    }
}

/// A tree was durable before the catalog named it: one that is missing is a loss, and would be opened empty.
fn check_trees(catalog: &Catalog, trees: &[String]) -> Result<()> {
    for (name, table) in &catalog.tables {
        for tree in table.generations.iter().map(|generation| table.tree(generation)) {
            if !trees.contains(&tree) {
                let message = format!(
                    "the tree {tree:?}, records of table {name}, is missing; nothing was changed: restore the store from a \
                     copy"
                );
                return Err(EngineError::new(EngineErrorKind::Corrupt, message).into());
            }
        }
    }
    Ok(())
}

fn route_of(shared: &Shared, catalog: &Catalog, name: &str, epoch: u64) -> Result<Route> {
    let table = catalog.table(name)?;
    let missing = || Error::corrupt(catalog::TREE, catalog::KEY, format!("table {name} has no generation"));
    let base = shared.named(&table.tree(table.base().ok_or_else(missing)?))?;
    let settled = |tree| Kind::Settled { stored: table.stored, tree };
    let mut fence = None;
    let kind = match &table.migration {
        None => settled(base),
        Some(migration) => {
            let entry = catalog.migration(migration)?;
            let step = entry.tables.iter().find(|step| step.table == name).ok_or_else(missing)?;
            let phase = entry.phase()?;
            if entry.fenced && phase == Phase::RolledBack {
                fence = Some(Fence::AtTo);
            }
            if step.metadata_only {
                settled(base)
            } else {
                let overlay = shared.named(&table.tree(table.overlay().ok_or_else(missing)?))?;
                let open = Open {
                    migration: migration.as_str().into(),
                    from: step.from,
                    to: step.to,
                    one_way: entry.one_way,
                    base,
                    overlay,
                };
                if phase == Phase::Folding { Kind::Folding(open) } else { Kind::Open(open) }
            }
        }
    };
    let TableEntry { oldest, floor, active, .. } = *table;
    let alike = (oldest < floor).then_some(Alike { oldest, floor });
    Ok(Route { epoch, active, floor, alike, fence, kind })
}
