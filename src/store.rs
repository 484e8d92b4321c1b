//! The store: opening, tables, migrations, closing.

pub(crate) mod types;

use std::fs::File;
#[cfg(any(feature = "sled", feature = "fjall"))]
use std::path::Path;
use std::sync::Arc;

use crate::batch::Batch;
use crate::catalog::{self, Catalog, closed};
use crate::core::{Core, Lease, Shared};
#[cfg(any(feature = "sled", feature = "fjall"))]
use crate::directory;
use crate::engine::{Engine, ReadOnly};
use crate::error::{Error, Result};
use crate::inspect;
use crate::key::Key;
use crate::ledger::{self, LedgerEntry};
use crate::lineage::{self, Lineage};
use crate::migration::{self, Migration, Plan, Run, Status};
use crate::options::{Options, Settings};
use crate::stats::Stats;
use crate::table::Table;
use crate::version::Version;

/// How often a look at everything begins again because the state changed meanwhile.
const LOOKS_MAX: u32 = 8;

/// An open store. Clones share it; the last handle (of the store, a table, a scan or a migration) that goes
/// flushes and closes it.
#[derive(Clone)]
pub struct Store {
    lease: Arc<Lease>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.lease.0.shared.path).finish_non_exhaustive()
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
        let private = options.settings.private;
        let directory::Prepared { path: own, lock, new, kind } =
            directory::prepare(path, options.engine, options.create, private)?;
        if !new
            && !options.settings.read_only
            && let Err(e) = crate::compact::clear(&own, kind)
        {
            tracing::warn!(target: "exuvia", error = %e, "remains of a compaction cannot be removed");
        }
        let engine = kind.open_with(&own.join(kind.name()), options.cache_bytes, private)?;
        let store = Store::open_engine(engine, options.settings, Some(own.clone()), Some(lock), new)?;
        if new && let Err(e) = directory::finish(&own) {
            let reason = "the store was made, and cannot be marked as one".to_owned();
            return Err(crate::error::Error::Path { path: path.to_owned(), reason, source: Some(e) });
        }
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
        let shared = Shared::new(engine, settings, path);
        let core = Core::open(shared, lock, new)?;
        let lease = Arc::new(Lease(Arc::clone(&core)));
        let catalog = core.catalog();
        for (name, entry) in &catalog.migrations {
            if !entry.phase()?.is_closed() {
                let run = Run::load(&core, &catalog, name, false)?;
                core.runs.lock().insert(name.clone(), Arc::clone(&run));
                // Folding needs no code; a backfill says that it waits for it.
                migration::start_worker(&core, &run)?;
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
    /// [`Error::Shape`](crate::Error::Shape) if the table has keys of another type, or a type changed its shape or codec without a new
    /// version.
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
        types::check::<K, V>(core, name, &entry)?;
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
                migration::start_worker(core, &run)?;
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

    /// Starts to describe a migration; [`Plan::begin`] begins it.
    pub fn migration(&self, name: &str) -> Plan {
        Plan::new(Arc::clone(&self.lease), name)
    }

    /// A handle on a migration that was begun earlier, perhaps by another process.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub fn open_migration(&self, name: &str) -> Result<Migration> {
        Migration::new(Arc::clone(&self.lease), name)
    }

    /// The status of every migration, open and closed. Costs a lookup for each closed one but the newest 32.
    ///
    /// # Errors
    ///
    /// Damage of the catalog.
    pub fn migrations(&self) -> Result<Vec<Status>> {
        let core = self.core();
        // In this order: an entry is put aside before the catalog lets go of it.
        let mut migrations = core.catalog().migrations;
        inspect::each(&*core.shared.engine, catalog::TREE, |key, value| {
            if let Some(closed) = closed::parse(key, &value) {
                let (name, entry) = closed?;
                migrations.entry(name).or_insert(entry);
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

    /// Stops background work, flushes, and lets go of the directory. Other handles answer [`Error::Closed`](crate::Error::Closed)
    /// from here on. Dropping the last handle does the same, without an error to look at.
    ///
    /// # Errors
    ///
    /// A flush that failed.
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
        let migrations = self.core().catalog().migrations;
        let statuses = migrations.iter().map(|(name, entry)| migration::status(self.core(), name, entry));
        stats.migrations = statuses.collect::<Result<_>>()?;
        Ok(stats)
    }

    /// Counts the records of every table by the version that they are written in, and their bytes. Reads everything.
    ///
    /// # Errors
    ///
    /// A failing engine.
    pub fn inventory(&self) -> Result<Vec<inspect::Inventory>> {
        self.look(|catalog| inspect::inventory(&*self.core().shared.engine, catalog), |_| false)
    }

    /// Reads everything and lists what is damaged: catalog, ledger chain, every record's checksum and version,
    /// and for open migrations that nothing is left behind.
    ///
    /// # Errors
    ///
    /// A failing engine. Damage is not an error here but what is answered.
    pub fn verify(&self) -> Result<inspect::Report> {
        let clean = |report: &Result<inspect::Report>| report.as_ref().is_ok_and(inspect::Report::is_clean);
        self.look(|catalog| inspect::verify(&*self.core().shared.engine, catalog), clean)
    }

    /// The ledger, oldest entry first.
    ///
    /// # Errors
    ///
    /// A broken chain.
    pub fn ledger(&self) -> Result<Vec<LedgerEntry>> {
        let read = |catalog: &Catalog| ledger::read(&*self.core().shared.engine, catalog);
        let (entries, damage) = self.look(read, |(_, damage)| damage.is_none());
        damage.map_or(Ok(entries), Err)
    }

    /// Looks at the engine by the catalog, and again if a state change under the look may have spoilt it: a tree
    /// that was emptied, a ledger that grew.
    fn look<R>(&self, look: impl Fn(&Catalog) -> R, settled: impl Fn(&R) -> bool) -> R {
        let mut tries = 0;
        loop {
            let catalog = self.core().catalog();
            let seen = look(&catalog);
            tries += 1;
            if settled(&seen) || tries == LOOKS_MAX || self.core().catalog().revision == catalog.revision {
                return seen;
            }
        }
    }

    /// Bytes on disk, as the engine counts them.
    ///
    /// # Errors
    ///
    /// A failing engine.
    pub fn bytes_on_disk(&self) -> Result<u64> {
        Ok(self.core().shared.engine.bytes_on_disk()?)
    }

    /// What the store takes on its medium, and what is left there. Costs a listing of the engine's files. What a
    /// migration is going to need is said by [`Plan::expected_bytes`], what each table holds by [`Store::inventory`].
    ///
    /// # Errors
    ///
    /// A failing engine.
    pub fn space(&self) -> Result<inspect::Space> {
        let shared = &self.core().shared;
        Ok(inspect::Space {
            bytes_on_disk: shared.engine.bytes_on_disk()?,
            bytes_free: shared.free_bytes(),
            bytes_free_min: shared.settings.free_bytes_min,
        })
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
