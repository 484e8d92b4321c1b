//! The store: opening, tables, migrations, closing.

use std::fs::File;
#[cfg(any(feature = "sled", feature = "fjall"))]
use std::path::Path;
use std::sync::Arc;

use crate::engine::{self, Engine, ReadOnly};
use crate::error::{Error, Result};
use crate::measure::observe::LedgerEntry;
use crate::measure::stats::Stats;
use crate::migration::core::{Core, Hold, Lease};
use crate::migration::{self, Migration, Plan, Run, Status};
use crate::record::key::Key;
use crate::record::lineage::{self, Lineage};
use crate::record::version::Version;
use crate::state::catalog::{self, closed};
use crate::state::ledger::{self};
use crate::state::settings::Settings;
use crate::state::shared::Shared;
#[cfg(any(feature = "sled", feature = "fjall"))]
use crate::store::directory;
use crate::store::options::Options;
use crate::store::types;
use crate::table::batch::Batch;
use crate::table::typed::Table;

/// An open store. Clones share it; the last handle (of the store, a table, a scan or a migration) that goes
/// flushes and closes it.
///
/// A handle that never goes, in a `static` or in a thread that is not joined, closes nothing. Then call [`Store::close`]
/// before the process ends; [`Durability`](crate::Durability) says what is lost without it.
#[derive(Clone)]
pub struct Store {
    lease: Arc<Lease>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.lease.0.shared.path).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens the store in a directory, which only one process at a time may do.
    ///
    /// The directory is created if it is not there, and must be empty or a store. It may be a symbolic link, which is
    /// resolved once; links inside it are refused.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Path`] (also of a backup, which [`Store::restore`] makes a store of), [`crate::Error::Locked`],
    /// [`crate::Error::Format`] (another engine than the one asked for, an engine that this program was built without, a
    /// newer format), [`crate::Error::Argument`] for an option out of its range, or damage of the catalog. Nothing on
    /// disk is changed by a refused open.
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        self.settings.check()?;
        let create = self.create && !self.settings.read_only;
        let settings = self.settings();
        Store::open_directory(path.as_ref(), Options { settings, create, ..self })
    }

    /// Opens a store in an engine that was made elsewhere, for example a [`crate::engine::MemoryEngine`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Format`] if another engine wrote what it holds, or damage of the catalog.
    pub fn open_in(self, engine: Arc<dyn Engine>) -> Result<Store> {
        self.settings.check()?;
        Store::open_engine(engine, self.settings(), None, None, true)
    }
}

impl Store {
    /// Options of a store, with their defaults.
    pub fn options() -> Options {
        Options::default()
    }

    /// Opens the store in a directory with default options, and creates it if it is not there.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Options::default().open(path)
    }

    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub(crate) fn open_directory(path: &Path, options: Options) -> Result<Store> {
        // Before anything is made.
        crate::clock::check()?;
        let private = options.settings.private;
        let prepared = directory::prepare(path, options.engine, options.create, private)?;
        let directory::Prepared { path: own, new, kind, .. } = &prepared;
        let (own, new, kind) = (own.clone(), *new, *kind);
        if !new
            && !options.settings.read_only
            && let Err(e) = directory::clear_compaction(&own, kind)
        {
            tracing::warn!(target: "exuvia", error = %e, "remains of a compaction cannot be removed");
        }
        let engine = prepared.open_engine(&own.join(kind.name()), options.cache_bytes, private)?;
        let store =
            Store::open_engine(engine, options.settings, Some(own.clone()), Some(prepared.lock), new)?;
        if new && let Err(e) = directory::finish(&own) {
            let reason = "the store was made, and cannot be marked as one".to_owned();
            return Err(crate::error::Error::Path { path: path.to_owned(), reason, source: Some(e) });
        }
        #[cfg(not(any(windows, exuvia_shuttle)))]
        crate::migration::core::exit::flush_at_exit(&store.core().shared);
        Ok(store)
    }

    pub(crate) fn open_engine(
        engine: Arc<dyn Engine>,
        settings: Settings,
        path: Option<std::path::PathBuf>,
        lock: Option<File>,
        new: bool,
    ) -> Result<Store> {
        let engine = if settings.read_only { Arc::new(ReadOnly(engine)) } else { engine };
        let shared = Shared::new(engine, settings, path, lock);
        let core = Core::open(shared, new)?;
        let lease = Arc::new(Lease(Arc::clone(&core)));
        let catalog = core.catalog();
        for (name, entry) in &catalog.migrations {
            if !entry.phase()?.is_closed() {
                let run = Run::load(&core, &catalog, name, false)?;
                core.runs.lock().insert(name.clone(), Arc::clone(&run));
                // Folding needs no code; a backfill says that it waits for it.
                migration::start_worker(&core, &run);
            }
        }
        core.start()?;
        core.start_sweeper();
        Ok(Store { lease })
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    #[cfg(all(unix, feature = "control"))]
    pub(crate) fn of(lease: Arc<Lease>) -> Store {
        Store { lease }
    }

    /// For a thread that must not keep the store open.
    #[cfg(all(unix, feature = "control"))]
    pub(crate) fn weak(&self) -> std::sync::Weak<Lease> {
        Arc::downgrade(&self.lease)
    }

    /// Every table with its active version and its floor.
    #[cfg(all(unix, feature = "control"))]
    pub(crate) fn outline(&self) -> Vec<(String, u32, u32)> {
        let tables = self.core().catalog().tables;
        tables.into_iter().map(|(name, table)| (name, table.active, table.floor)).collect()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.lease.0
    }

    /// Opens a table at the view `V`, and creates it at that version if it is not there.
    ///
    /// Opening an existing table changes nothing on disk. If a migration is open that waits for the code of
    /// `V`, its backfill goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Version`](crate::Error::Version) if the view is retired, or the table older than the oldest type of the lineage;
    /// [`Error::Shape`](crate::Error::Shape) if the table has keys of another type, a type changed its shape or codec without a new
    /// version, or what is written of a type is not what is read back (see [`shape`](crate::record::shape));
    /// [`Error::Limit`](crate::Error::Limit) for a name of more than 256 bytes, and for one table more than the store
    /// has room for. On sled that is a matter of bytes, as all tables and migrations are described in one value of 48 KiB: some
    /// 480 tables with names of 10 bytes, or 110 with names of 256; each later version of a table takes 45 bytes more. On
    /// fjall it is 895 tables; one that migrates takes two places more until it is swept. Room for the verbs on what is
    /// there is kept free.
    pub fn table<K: Key, V: Version>(&self, name: &str) -> Result<Table<K, V>> {
        const { lineage::assert_chain_of::<V>() };
        let core = self.core();
        core.shared.check_usable()?;
        let (state, entry) = loop {
            if let Some(found) = core.find(name) {
                break found;
            }
            match types::create(core, name, types::NewTable::of::<K, V>(name)?) {
                // Another thread made it meanwhile.
                Err(Error::Conflict { .. }) => {}
                created => break created?,
            }
        };
        if !types::check::<K, V>(core, name, &entry)? {
            state.check_writes();
        }
        let brought_code = {
            let mut newest = state.lineage.lock();
            let newer = newest.as_ref().is_none_or(|known| known.newest() < V::VERSION);
            if newer {
                *newest = Some(Arc::new(Lineage::of::<V>()));
            }
            newer
        };
        if brought_code {
            let run = entry.migration.and_then(|m| core.runs.lock().get(&m).cloned());
            if let Some(run) = run {
                migration::start_worker(core, &run);
            }
        }
        Ok(Table::new(state, Arc::clone(&self.lease)))
    }

    /// An empty [`Batch`]: writes to any tables that are made all at once.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.lease))
    }

    /// The names of all tables.
    pub fn tables(&self) -> Vec<String> {
        self.core().catalog().tables.keys().cloned().collect()
    }

    /// Starts to describe a new migration; [`Plan::begin`] begins it. [`Store::migration`] finds one that was begun.
    pub fn plan(&self, name: &str) -> Plan {
        Plan::new(Arc::clone(&self.lease), name)
    }

    /// A handle on a migration that was begun earlier, perhaps by another process.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub fn migration(&self, name: &str) -> Result<Migration> {
        Migration::new(Arc::clone(&self.lease), name)
    }

    /// The status of every migration, open and closed. Costs a lookup for each closed one but the newest (at most 32). One
    /// of these whose entry is damaged is left out; [`Store::verify`] names it.
    ///
    /// # Errors
    ///
    /// A failing engine.
    pub fn migrations(&self) -> Result<Vec<Status>> {
        let core = self.core();
        // In this order: an entry is put aside before the catalog lets go of it.
        let mut migrations = core.catalog().migrations;
        engine::each(&*core.shared.engine, catalog::TREE, |key, value| {
            match closed::parse(key, &value) {
                Some(Ok((name, entry))) => {
                    migrations.entry(name).or_insert(entry);
                }
                Some(Err(e)) => {
                    tracing::warn!(target: "exuvia", error = %e, "a closed migration is left out of the list");
                }
                None => {}
            }
            Ok(())
        })?;
        migrations.iter().map(|(name, entry)| migration::status(core, name, entry)).collect()
    }

    /// Makes everything written before this call durable.
    ///
    /// # Errors
    ///
    /// A failing engine; the store is poisoned then.
    pub fn flush(&self) -> Result<()> {
        self.core().shared.check_usable()?;
        self.core().shared.flush()
    }

    /// Stops background work, flushes, and lets go of the directory: when this has answered, also with an error, it can be
    /// opened again, whatever other handles there are (tables, scans, snapshots, transactions). They answer
    /// [`Error::Closed`](crate::Error::Closed) from here on. A call of another thread that is in the engine is waited for.
    /// Dropping the last handle does the same, without an error to look at.
    ///
    /// # Errors
    ///
    /// A flush that failed; [`Error::State`](crate::Error::State) if another call is closing the store; a call of another
    /// thread that has not come back from the engine for 10 s: the directory is let go of when it does.
    pub fn close(self) -> Result<()> {
        self.core().close()
    }

    /// Statistics since the store was opened.
    ///
    /// # Errors
    ///
    /// Damage of the catalog.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = self.core().shared.recorder.snapshot();
        stats.flushes = self.core().shared.flusher.count();
        Ok(stats)
    }

    /// The ledger, oldest entry first.
    ///
    /// # Errors
    ///
    /// A broken chain.
    pub fn ledger(&self) -> Result<Vec<LedgerEntry>> {
        let (entries, damage) = ledger::read(&*self.core().shared.engine, &|| self.core().catalog());
        damage.map_or(Ok(entries), Err)
    }

    /// The engine for a look at everything, which must make no tree and finds none dropped under it.
    pub(crate) fn held(&self) -> (Hold, ReadOnly) {
        (self.core().hold(), ReadOnly(Arc::clone(&self.core().shared.engine)))
    }

    /// Bytes on disk, as the engine counts them.
    ///
    /// # Errors
    ///
    /// A failing engine.
    pub fn bytes_on_disk(&self) -> Result<u64> {
        Ok(self.core().shared.engine.bytes_on_disk()?)
    }

    /// The engine that keeps the store; `None` for one that was made elsewhere ([`Options::open_in`]) and is no disk engine.
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub fn engine_kind(&self) -> Option<crate::engine::EngineKind> {
        crate::engine::EngineKind::from_name(self.core().shared.engine.name())
    }

    /// Whether remains of closed migrations are being swept.
    pub fn is_sweeping(&self) -> bool {
        self.core().is_sweeping()
    }
}
