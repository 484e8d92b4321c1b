//! What all handles of one store share, and the one function that changes its state.

mod shared;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use self::shared::Shared;
use crate::catalog::{self, Catalog, MigrationEntry, Phase, TableEntry, closed};
use crate::error::{EngineError, EngineErrorKind, Error, Result};
use crate::ledger::{self, Event};
use crate::migration::{Run, Sweeper};
use crate::options::Durability;
use crate::route::{Fence, Kind, Open, Route, TableState};
use crate::seeded::{Bug, bug};
use crate::shape::KeyType;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Instant, Mutex, RwLock};

/// How often what the background wrote is flushed where every foreground write is.
const BACKGROUND_FLUSH: Duration = Duration::from_millis(500);

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The whole store. Background threads hold it; handles hold it through a [`Lease`].
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    catalog: Mutex<Published>,
    pub(crate) tables: RwLock<HashMap<String, Arc<TableState>>>,
    pub(crate) runs: Mutex<HashMap<String, Arc<Run>>>,
    pub(crate) sweeper: Mutex<Option<Sweeper>>,
    /// Trees that are being filled and that no catalog names yet: not to be swept.
    reserved: Mutex<BTreeSet<String>>,
    /// A copy runs: nothing is swept that it may still have to read.
    pub(crate) copying: AtomicBool,
    #[cfg(all(unix, feature = "control"))]
    pub(crate) control: Mutex<Option<crate::control::Control>>,
    flush_thread: Mutex<Option<JoinHandle<()>>>,
    lock_file: Mutex<Option<File>>,
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

impl Core {
    /// Loads the catalog, or writes the first one (`new`: there may be none yet), and brings every table to its
    /// place.
    pub(crate) fn open(shared: Arc<Shared>, lock_file: Option<File>, new: bool) -> Result<Arc<Core>> {
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
        Ok(Arc::new(Core {
            shared,
            catalog: Mutex::new(Published { catalog, bytes }),
            tables: RwLock::new(tables),
            runs: Mutex::new(HashMap::new()),
            sweeper: Mutex::new(None),
            reserved: Mutex::new(BTreeSet::new()),
            copying: AtomicBool::new(false),
            #[cfg(all(unix, feature = "control"))]
            control: Mutex::new(None),
            flush_thread: Mutex::new(None),
            lock_file: Mutex::new(lock_file),
        }))
    }

    /// Starts the background threads that need no user code.
    pub(crate) fn start(self: &Arc<Core>) -> Result<()> {
        if !self.shared.settings.background {
            return Ok(());
        }
        let interval = match self.shared.settings.durability {
            Durability::Buffered { interval } => interval,
            // For the background's progress; writers flush themselves.
            Durability::EveryWrite => BACKGROUND_FLUSH,
        };
        let shared = Arc::clone(&self.shared);
        let flush = move || {
            // Nobody would make durable what is written after that.
            if let Some(reason) = shared.flusher.run(interval) {
                shared.poison(&reason);
            }
        };
        *self.flush_thread.lock() = Some(spawn("exuvia-flush", flush)?);
        Ok(())
    }

    /// Calls `with` under the catalog's mutex: no state change comes between.
    pub(crate) fn with_catalog<R>(&self, with: impl FnOnce(&Catalog) -> R) -> R {
        with(&self.catalog.lock().catalog)
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
        self.catalog.lock().catalog.clone()
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
        let mut published = self.catalog.lock();
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
        let published = self.catalog.lock();
        let state = self.tables.read().get(name).cloned();
        state.zip(published.catalog.tables.get(name).cloned())
    }

    /// **The** state change: every begin, rollback, resume, contract, abandon and creation of a table comes
    /// through here (invariants 7, 9 and 11).
    ///
    /// 1. `decide` looks at the catalog and changes a copy of it: no user code, no waiting.
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

    /// [`Core::change`], for what makes, renames or drops a table: `publish` brings the tables in memory to what
    /// the catalog says, in step 4, so that whoever looks at both under the catalog's mutex finds them agree.
    pub(crate) fn change_tables<R>(
        &self,
        started: Instant,
        decide: impl FnOnce(&mut Catalog) -> Result<Change<R>>,
        publish: impl FnOnce(&mut HashMap<String, Arc<TableState>>, &R),
    ) -> Result<R> {
        self.shared.check_writable()?;
        let mut published = self.catalog.lock();
        let mut next = published.catalog.clone();
        let Change { event, flips, result } = decide(&mut next)?;
        next.revision += 1;
        let subject = event.subject.clone();
        let flips = if bug(Bug::FlipBeforeCommit) {
            self.flip(flips);
            Vec::new()
        } else {
            flips
        };
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        if !bug(Bug::LedgerForgotten) {
            ledger::append(&mut next, event, now_ms(), duration_us)?;
        }
        let bytes = next.to_bytes()?;
        self.shared.check_size(catalog::KEY, &bytes)?;
        let tree = self.shared.engine.tree(catalog::TREE)?;
        let swapped = tree.compare_and_swap(catalog::KEY, Some(&published.bytes), Some(&bytes));
        if !swapped.map_err(|e| self.unknown(e.into()))? {
            return Err(Error::Conflict { subject });
        }
        if !bug(Bug::CloseUnflushed) {
            self.shared.flush()?;
        }
        published.catalog = next;
        published.bytes = bytes;
        self.flip(flips);
        publish(&mut self.tables.write(), &result);
        ledger::copy_out(&*self.shared.engine, &published.catalog).map_err(|e| self.unknown(e))?;
        self.shared.flusher.touch();
        let entry = published.catalog.outbox.last().and_then(|record| record.entry().ok());
        drop(published);
        if let Some(entry) = entry {
            tracing::info!(target: "exuvia", what = %entry.what, subject = %entry.subject, "state change");
            self.shared.recorder.tell();
            if let Some(observer) = self.shared.recorder.observer() {
                observer.state_change(&entry);
            }
        }
        Ok(result)
    }

    /// After a failed commit the engine may have either state: this handle stops, a reopen finds out.
    fn unknown(&self, e: Error) -> Error {
        self.shared
            .poison(&format!("a state change failed half way, and a reopen has to find out how far: {e}"));
        e
    }

    /// Changes routes in memory, all under one hold of the gate.
    pub(crate) fn flip(&self, flips: Vec<(Arc<TableState>, Route)>) {
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
        let _catalog = self.catalog.lock();
        if !table.epoch_is(epoch) {
            return None;
        }
        self.flip(vec![(Arc::clone(table), route)]);
        Some(epoch + 1)
    }

    /// A new generation of a table that no catalog names yet, and its tree. No durable change: after a crash the
    /// tree itself says that its id was given out (`Catalog::skip_ids`). To be given back by [`Core::release`].
    pub(crate) fn reserve(&self, table: &Arc<TableState>) -> Result<(u64, String)> {
        let mut published = self.catalog.lock();
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
        let published = self.catalog.lock();
        !self.copying.load(Ordering::SeqCst)
            && !published.catalog.is_named(tree)
            && !self.reserved.lock().contains(tree)
            // Last: a state change that failed half way may have named it, and that poisons before it lets go.
            && self.shared.check_usable().is_ok()
    }

    /// The route that the catalog prescribes for a table.
    pub(crate) fn route_of(&self, catalog: &Catalog, table: &str) -> Result<Route> {
        route_of(&self.shared, catalog, table, 0)
    }

    /// Stops everything in the background, flushes, and lets go of the directory. Later calls are refused.
    pub(crate) fn close(&self) -> Result<()> {
        // First, so that nobody starts anything that is stopped below, and no write comes after the last flush.
        let first = self.shared.shut();
        self.shared.gate.exclusive(|| ());
        let runs: Vec<Arc<Run>> = self.runs.lock().values().cloned().collect();
        for run in runs {
            run.shut();
        }
        // After the runs: a verb of a client may have waited for one, and is refused now.
        #[cfg(all(unix, feature = "control"))]
        {
            let control = self.control.lock().take();
            if let Some(control) = control {
                control.stop();
            }
        }
        let sweeper = self.sweeper.lock().take();
        if let Some(sweeper) = sweeper {
            sweeper.join();
        }
        self.shared.flusher.stop();
        if let Some(thread) = self.flush_thread.lock().take() {
            drop(thread.join());
        }
        let result = match self.shared.poisoned() {
            Some(poisoned) => Err(poisoned),
            None if first => self.shared.flusher.flush(),
            None => Ok(()),
        };
        drop(self.lock_file.lock().take());
        result
    }
}

/// Starts a background thread; a system without room for one answers with a typed error.
pub(crate) fn spawn<R: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> R + Send + 'static,
) -> Result<JoinHandle<R>> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|e| {
        Error::state("background thread", format!("the system refused to start one ({e}); free some threads"))
    })
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
    Ok(Route { epoch, active: table.active, floor: table.floor, fence, kind })
}

/// Held by every handle; the last one that goes closes the store.
pub(crate) struct Lease(pub(crate) Arc<Core>);

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(e) = self.0.close() {
            tracing::error!(target: "exuvia", error = %e, "closing the store failed");
        }
    }
}
