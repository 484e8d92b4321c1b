//! Salvage: what can be read of a damaged store, in a new one, and a list of what cannot.
//!
//! 1. The damaged engine is opened in a copy of its files (`source`): the store itself is only read.
//! 2. The catalog is taken as it is; if its checksum is wrong, as it reads, where that makes sense and names the trees that
//!    are there; else it is made up from the trees (`catalog`).
//! 3. Every tree is read around its damage (`around`), and what is whole goes to the new store as it is.
//! 4. The ledger is taken with the entries that can be read, chained anew, and an entry `salvage`.
//! 5. The new store is verified, and marked as one. Until then it is refused by every open.
//!
//! An open migration stays open, with both its generations. Three rules keep what is there the truth:
//!
//! - A damaged entry of the overlay takes the base's record with it: that may be older than what was lost. It is listed.
//! - A derived entry whose older form is lost becomes a native one: it can be read at the new version, and gives a typed
//!   error at the old one.
//! - The backfill begins again: a lost entry must not be taken for one that the backfill has passed.
//!
//! Where sled cannot open even a copy of its files it can without the mark of what was flushed, or without its snapshot, up to
//! the first damage in its log. Then these rules cannot be kept, and the loss is listed as what it is: the store of an earlier moment.

mod catalog;
mod source;

use std::cell::RefCell;
use std::path::Path;

use self::source::Source;
use crate::clock::now_ms;
use crate::copies::around::Hole;
use crate::copies::backup;
use crate::copies::inspect;
use crate::engine::own_file;
use crate::engine::{Engine, EngineKind, Value, sync_all_below, sync_directory};
use crate::error::{Error, Result};
use crate::form::envelope::{self, Entry, Flags};
use crate::record::shape::KeyType;
use crate::state::catalog::{self as stored, Catalog, Phase, TableEntry, closed, quarantine_tree};
use crate::state::ledger::{self, Event};
use crate::state::quarantine;
use crate::store::directory;
use crate::store::handle::Store;
use crate::sync::Instant;

/// Most losses that are told one by one.
const LOST_MAX: usize = 100_000;
const CACHE_BYTES: u64 = 64 << 20;
/// Values between two flushes of the new store.
const FLUSH_VALUES: u64 = 10_000;

/// Said where nothing can be said of single records.
const CUT: &str = "the end of sled's log: it can be read up to its first damage only, so what was written after that is missing, \
                   and records may be what they were at an earlier moment";

/// What a salvage brought.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Salvage {
    /// The engine of the new store.
    pub engine: EngineKind,
    /// Its tables.
    pub tables: Vec<String>,
    /// Its live records.
    pub records: u64,
    /// The first 100 000 losses.
    pub lost: Vec<Lost>,
    /// All losses. A range of keys that cannot be read counts once.
    pub lost_count: u64,
}

/// Something that could not be read, or was left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The table; empty for what belongs to none.
    pub table: String,
    /// The key's bytes; `None` if it is more or less than one record.
    pub key: Option<Vec<u8>>,
    /// The type of the key, if the store knows it.
    pub key_type: Option<KeyType>,
    /// What was lost, and why.
    pub reason: String,
}

impl Salvage {
    /// Whether nothing was lost.
    pub fn is_complete(&self) -> bool {
        self.lost_count == 0
    }

    fn lose(&mut self, table: &str, key: Option<(&[u8], &Option<KeyType>)>, reason: impl Into<String>) {
        self.lost_count += 1;
        if self.lost.len() < LOST_MAX {
            let (key, key_type) = key.map_or((None, None), |(key, of)| (Some(key.to_vec()), of.clone()));
            self.lost.push(Lost { table: table.to_owned(), key, key_type, reason: reason.into() });
        }
    }
}

impl Store {
    /// Copies what can be read of the store in `damaged` to a new store in `path`, which must not be there, and answers what
    /// could not. `engine`: of the new store; `None`: that of the damaged one.
    ///
    /// The damaged store is only read; it must not be open. Its engine's files are copied beside the new ones meanwhile, again
    /// for every page that stops the engine. Open migrations stay open, with both generations; their backfill begins
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::Path`], [`Error::Locked`]; [`Error::Format`] if the store is of a newer release; the engine's error if it
    /// cannot open even a copy of its files. Nothing is left at `path` then.
    pub fn salvage(
        damaged: impl AsRef<Path>,
        path: impl AsRef<Path>,
        engine: Option<EngineKind>,
    ) -> Result<Salvage> {
        let (damaged, path) = (damaged.as_ref(), path.as_ref());
        let (kind, lock) = directory::look(damaged)?;
        let engine = engine.unwrap_or(kind);
        engine.check_built_in()?;
        let io = |e| failed(path, "the new store cannot be made here; name a new directory", e);
        own_file::create_directory(path, true).map_err(io)?;
        let made = (|| {
            let path = &path.canonicalize().map_err(io)?;
            backup::claim(path, "exuvia salvage, not finished: of no use\n", true).map_err(io)?;
            salvage(kind, &damaged.join(kind.name()), path, engine)
        })();
        if made.is_err() {
            let _best_effort = std::fs::remove_dir_all(path);
        }
        drop(lock);
        made
    }
}

fn failed(path: &Path, reason: &str, source: std::io::Error) -> Error {
    Error::Path { path: path.to_owned(), reason: reason.to_owned(), source: Some(source) }
}

fn salvage(kind: EngineKind, files: &Path, path: &Path, engine: EngineKind) -> Result<Salvage> {
    let started = Instant::now();
    let io = |e| failed(path, "the new store cannot be written", e);
    let work = path.join("salvage.work");
    own_file::create_directory(&work, true).map_err(io)?;
    let source = RefCell::new(Source::open(kind, files, work.clone())?);
    let new = path.join(engine.name());
    let to = engine.open_with(&new, CACHE_BYTES, true)?;
    let mut salvage = Salvage { engine, tables: Vec::new(), records: 0, lost: Vec::new(), lost_count: 0 };
    if source.borrow().is_cut() {
        salvage.lose("", None, CUT);
    }
    let mut work_on = Work { source: &source, to: &*to, salvage, written: 0 };
    let mut catalog = catalog::find(&source, &mut work_on.salvage)?;
    for name in catalog.tables.keys().cloned().collect::<Vec<_>>() {
        work_on.table(&name, &mut catalog)?;
    }
    for migration in catalog.migrations.values_mut() {
        if migration.phase()? == Phase::Complete {
            migration.set_phase(Phase::Open);
        }
    }
    work_on.closed_migrations()?;
    work_on.ledger(&mut catalog)?;
    let Work { mut salvage, .. } = work_on;
    to.flush()?;
    catalog.engine = engine.name().to_owned();
    catalog.revision += 1;
    let event = Event::new("salvage", kind.name()).count("lost", salvage.lost_count);
    let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    ledger::append(&mut catalog, event, now_ms(), duration_us)?;
    to.tree(stored::TREE)?.put(stored::KEY, &catalog.to_bytes()?)?;
    ledger::copy_out(&*to, &catalog)?;
    to.flush()?;
    let report = inspect::verify(&*to, &|| catalog.clone())?;
    for damage in &report.damage {
        salvage.lose("", None, format!("the new store is not whole: {damage}"));
    }
    salvage.records = report.records;
    salvage.tables = catalog.tables.keys().cloned().collect();
    drop((source, to));
    std::fs::remove_dir_all(&work).map_err(io)?;
    directory::write_mark(path, engine, true).map_err(io)?;
    sync_all_below(path).map_err(io)?;
    backup::unclaim(path).map_err(io)?;
    path.parent().map_or(Ok(()), sync_directory).map_err(io)?;
    Ok(salvage)
}

struct Work<'e> {
    source: &'e RefCell<Source>,
    to: &'e dyn Engine,
    salvage: Salvage,
    written: u64,
}

/// One table, and where its records are.
struct Place<'n> {
    name: &'n str,
    key: Option<KeyType>,
    base: String,
    overlay: Option<String>,
}

/// What is under a key of the damaged store.
enum Found {
    Absent,
    Whole(Entry),
    Damaged,
}

impl Work<'_> {
    fn find(&self, tree: &str, key: &[u8]) -> Found {
        match self.source.borrow_mut().get(tree, key) {
            Ok(None) => Found::Absent,
            Ok(Some(value)) => match Entry::parse(key, value) {
                Ok(entry) => Found::Whole(entry),
                Err(_) => Found::Damaged,
            },
            Err(_) => Found::Damaged,
        }
    }

    /// Writes one value, unless the new engine cannot hold it.
    fn put(&mut self, place: &Place<'_>, tree: &str, key: &[u8], value: &[u8]) -> Result<()> {
        let limits = self.to.capabilities();
        if key.len() > limits.key_bytes_max || value.len() > limits.value_bytes_max {
            let bytes = key.len() + value.len();
            self.lose(
                place,
                key,
                format!("its {bytes} bytes are more than the engine {} holds", self.to.name()),
            );
            return Ok(());
        }
        self.to.tree(tree)?.put(key, value)?;
        self.written += 1;
        if self.written.is_multiple_of(FLUSH_VALUES) {
            self.to.flush()?;
        }
        Ok(())
    }

    fn lose(&mut self, place: &Place<'_>, key: &[u8], reason: impl Into<String>) {
        self.salvage.lose(place.name, Some((key, &place.key)), reason);
    }

    fn holes(&mut self, place: &Place<'_>, what: &str, holes: Vec<Hole>) {
        for hole in holes {
            self.salvage.lose(place.name, None, format!("{what}: {hole}"));
        }
    }

    fn table(&mut self, name: &str, catalog: &mut Catalog) -> Result<()> {
        let table = catalog.table_mut(name)?;
        self.shapes(name, table)?;
        let tree = |generation| table.tree(generation);
        let Some(base) = table.base().map(tree) else {
            return Ok(());
        };
        let place = Place { name, key: table.key.clone(), base, overlay: table.overlay().map(tree) };
        for tree in place.overlay.iter().chain([&place.base]) {
            self.to.tree(tree)?;
        }
        let source = self.source;
        if let Some(overlay) = place.overlay.clone() {
            let holes = Source::each(source, &overlay, &mut |key, value| {
                match Entry::parse(key, value) {
                    Ok(entry) => self.of_overlay(&place, &overlay, key, &entry)?,
                    Err(damage) => self.lose(&place, key, damage.0),
                }
                Ok(())
            })?;
            self.holes(&place, "records written since the migration began", holes);
        }
        let holes = Source::each(source, &place.base, &mut |key, value| self.of_base(&place, key, value))?;
        let what = if place.overlay.is_some() { "records from before the migration" } else { "records" };
        self.holes(&place, what, holes);
        let quarantine = quarantine_tree(name);
        let holes = Source::each(source, &quarantine, &mut |key, value| {
            if quarantine::from_bytes(key, &value).is_ok() {
                self.put(&place, &quarantine, key, &value)?;
            } else {
                self.lose(&place, key, "why it is in quarantine; the record is not affected");
            }
            Ok(())
        })?;
        self.holes(&place, "why records are in quarantine; they are not affected", holes);
        Ok(())
    }

    /// A whole entry of the overlay.
    fn of_overlay(&mut self, place: &Place<'_>, overlay: &str, key: &[u8], entry: &Entry) -> Result<()> {
        if entry.is_failed() {
            self.reason(place, key)?;
        }
        let leans = entry.is_derived() && entry.companion().is_none();
        if !leans || matches!(self.find(&place.base, key), Found::Whole(_)) {
            return self.put(place, overlay, key, entry.bytes());
        }
        if entry.is_failed() {
            self.lose(place, key, "its upcast had failed, and its older form is damaged");
            return Ok(());
        }
        let native = envelope::seal(key, Flags::NONE, entry.version(), entry.main(), None);
        self.put(place, overlay, key, &native)?;
        let reason = format!("its older form only: it can be read at version {} alone", entry.version());
        self.lose(place, key, reason);
        Ok(())
    }

    /// A FAILED entry has a reason, if only that the reason is lost.
    fn reason(&mut self, place: &Place<'_>, key: &[u8]) -> Result<()> {
        let quarantine = quarantine_tree(place.name);
        let found = self.source.borrow_mut().get(&quarantine, key);
        let known = found.ok().flatten().map(|reason| quarantine::from_bytes(key, &reason));
        if !matches!(known, Some(Ok(_))) {
            let reason = quarantine::to_bytes(key, "the reason was lost, and the store salvaged")?;
            self.put(place, &quarantine, key, &reason)?;
        }
        Ok(())
    }

    fn of_base(&mut self, place: &Place<'_>, key: &[u8], value: Value) -> Result<()> {
        let over = place.overlay.as_ref().map_or(Found::Absent, |overlay| self.find(overlay, key));
        match (envelope::parse(key, &value), over) {
            (Ok(_), Found::Absent | Found::Whole(_)) => self.put(place, &place.base, key, &value)?,
            (Ok(header), Found::Damaged) => {
                let hex = header.main(&value).iter().map(|byte| format!("{byte:02x}"));
                let reason = format!(
                    "left out: what was written since the migration began is lost; before it, in version {}, it was \
                     0x{}",
                    header.version,
                    hex.collect::<String>()
                );
                self.lose(place, key, reason);
            }
            (Err(damage), Found::Absent) => self.lose(place, key, damage.0),
            // What leans on it was told of with the overlay.
            (Err(_), Found::Whole(entry)) if entry.is_derived() && entry.companion().is_none() => {}
            (Err(damage), _) => {
                self.lose(place, key, format!("its form before the migration only: {}", damage.0));
            }
        }
        Ok(())
    }

    /// A shape that is lost is told by the code that opens the table next.
    fn shapes(&mut self, name: &str, table: &mut TableEntry) -> Result<()> {
        let mut lost = Vec::new();
        for (version, fingerprint) in &table.shapes {
            let key = stored::shape_key(fingerprint);
            let found = self.source.borrow_mut().get(stored::TREE, &key);
            match found {
                Ok(Some(bytes)) if stored::is_shape(fingerprint, &bytes) => {
                    self.to.tree(stored::TREE)?.put(&key, &bytes)?;
                }
                _ => lost.push(*version),
            }
        }
        for version in lost {
            table.shapes.remove(&version);
            let reason =
                format!("the shape of version {version}: the code that opens the table says it anew");
            self.salvage.lose(name, None, reason);
        }
        Ok(())
    }

    /// Those that the catalog does not hold any more.
    fn closed_migrations(&mut self) -> Result<()> {
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        let holes = Source::each(self.source, stored::TREE, &mut |key, value| {
            match closed::parse(key, &value) {
                Some(Ok(_)) => whole.push((key.to_vec(), value)),
                Some(Err(e)) => damaged.push(e.to_string()),
                None => {}
            }
            Ok(())
        })?;
        let tree = self.to.tree(stored::TREE)?;
        for (key, value) in whole {
            tree.put(&key, &value)?;
        }
        for damage in damaged {
            self.salvage.lose("", None, format!("left out: {damage}"));
        }
        let place = Place { name: "", key: None, base: String::new(), overlay: None };
        self.holes(&place, "catalog", holes);
        Ok(())
    }

    /// Every entry that can be read, in its order, chained anew (which changes nothing where all can be).
    fn ledger(&mut self, catalog: &mut Catalog) -> Result<()> {
        let (mut entries, mut damaged) = (Vec::new(), 0_u64);
        let holes = Source::each(self.source, ledger::TREE, &mut |key, value| {
            match ledger::from_bytes(key, &value) {
                Ok(entry) => entries.push(entry),
                Err(_) => damaged += 1,
            }
            Ok(())
        })?;
        let place = Place { name: "", key: None, base: String::new(), overlay: None };
        self.holes(&place, "ledger", holes);
        // What the catalog holds of it may not be in the tree yet.
        entries.extend(catalog.outbox.iter().filter_map(|record| record.entry().ok()));
        entries.sort_by_key(|entry| entry.seq);
        entries.dedup_by_key(|entry| entry.seq);
        let (kept, known) = (entries.len() as u64, catalog.ledger_next);
        if kept < known {
            let reason = format!("{} of {known} ledger entries; the others are chained anew", known - kept);
            self.salvage.lose("", None, reason);
        } else if damaged > 0 {
            self.salvage.lose(
                "",
                None,
                format!("{damaged} values of the ledger, whose content is there elsewhere"),
            );
        }
        ledger::rechain(self.to, catalog, entries)
    }
}
