//! Looking at a store without any Rust types: inventory and verification.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::copies::around;
use crate::engine::{Engine, KeyRange, Page, Tree, Value, each, each_in};
use crate::error::{EngineErrorKind, Error, Result, ShowKey};
use crate::form::envelope::Entry;
use crate::record::codec;
use crate::record::shape::{self, Shape};
use crate::state::catalog::{
    self, Catalog, Generation, Phase, Progress, Stage, Step, TableEntry, quarantine_tree,
};
use crate::state::ledger;
use crate::state::quarantine;
use crate::store::handle::Store;

/// What a table's records are written in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inventory {
    /// The table.
    pub table: String,
    /// The active version.
    pub active: u32,
    /// The oldest version that can be read.
    pub floor: u32,
    /// Live records by the version of their main form; in an open migration a key counts once, by its overlay
    /// entry if it has one.
    pub records: BTreeMap<u32, u64>,
    /// Overlay entries that hold a companion.
    pub companions: u64,
    /// Overlay entries that are derived; none in a settled table, where that means nothing.
    pub derived: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Records in quarantine.
    pub quarantined: u64,
    /// Values that are damaged.
    pub damaged: u64,
    /// Bytes of keys and values, in all forms and generations. What the engine adds to that, and what it has not
    /// given back yet, is in [`Space`].
    pub bytes: u64,
}

/// The room that a store takes, and that is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// Bytes of the engine's files (in memory: of keys and values).
    pub bytes_on_disk: u64,
    /// Bytes that are free on the medium; `None` where there is no directory or the system cannot tell.
    pub bytes_free: Option<u64>,
    /// Free bytes below which a backfill pauses by itself (`Options::free_bytes_min`).
    pub bytes_free_min: u64,
}

/// What a verification found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// Live records that were read, over all tables.
    pub records: u64,
    /// Ledger entries whose chain holds.
    pub ledger_entries: u64,
    /// Records in quarantine: not damage, but waiting.
    pub quarantined: u64,
    /// The first 1 000 damages, in words.
    pub damage: Vec<String>,
    /// All damages.
    pub damage_count: u64,
}

const DAMAGE_MAX: usize = 1000;
const PAGE_RECORDS: usize = 512;

impl Report {
    fn damaged(&mut self, what: impl FnOnce() -> String) {
        self.damage_count += 1;
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(what());
        }
    }

    /// Adds what was found in another part of the store.
    fn add(&mut self, part: Report) {
        self.records += part.records;
        self.ledger_entries += part.ledger_entries;
        self.quarantined += part.quarantined;
        self.damage_count += part.damage_count;
        self.damage.extend(part.damage);
        self.damage.truncate(DAMAGE_MAX);
    }

    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.damage_count == 0
    }
}

impl Store {
    /// Counts the records of every table by the version that they are written in, and their bytes. Reads everything.
    /// What verbs leave behind meanwhile is swept when the look is over.
    ///
    /// # Errors
    ///
    /// A failing engine; [`Error::Conflict`] if the state of a table changed under each of 64 looks at it.
    pub fn inventory(&self) -> Result<Vec<Inventory>> {
        let (_hold, engine) = self.held();
        inventory(&engine, &|| self.core().catalog())
    }

    /// Reads everything and lists what is damaged: catalog, ledger chain, every record's checksum and version, whether it
    /// decodes by the stored shape of its version (with a codec of its own it cannot be looked at), and for open
    /// migrations that nothing is left behind.
    ///
    /// # Errors
    ///
    /// A failing engine; [`Error::Conflict`] as [`Store::inventory`]. Damage is not an error here but what is answered.
    pub fn verify(&self) -> Result<Report> {
        let (_hold, engine) = self.held();
        verify(&engine, &|| self.core().catalog())
    }

    /// What the store takes on its medium, and what is left there. Costs a listing of the engine's files. What a
    /// migration is going to need is said by [`Plan::expected_bytes`](crate::Plan::expected_bytes), what each table holds by [`Store::inventory`].
    ///
    /// # Errors
    ///
    /// A failing engine.
    pub fn space(&self) -> Result<Space> {
        let shared = &self.core().shared;
        Ok(Space {
            bytes_on_disk: shared.engine.bytes_on_disk()?,
            bytes_free: shared.free_bytes(),
            bytes_free_min: shared.settings.free_bytes_min,
        })
    }
}

/// The catalog of the present moment.
pub(crate) type Now<'n> = dyn Fn() -> Catalog + 'n;

/// How often a look at one part of the store begins again because a state change has come between.
const LOOKS_MAX: u32 = 64;

/// Looks at one part of the store by the catalog, and again if a state change under the look may have spoilt what it found:
/// `footing` is what of the catalog it stands on. What is `certain` stands on nothing.
fn look<R, F: PartialEq>(
    now: &Now<'_>,
    subject: &str,
    footing: impl Fn(&Catalog) -> F,
    look: impl Fn(&Catalog) -> Result<R>,
    certain: impl Fn(&R) -> bool,
) -> Result<R> {
    for _ in 0..LOOKS_MAX {
        let catalog = now();
        let seen = look(&catalog);
        if seen.as_ref().is_ok_and(&certain) || footing(&catalog) == footing(&now()) {
            return seen;
        }
    }
    let subject = format!("{subject} changes faster than it can be looked at; try again");
    Err(Error::Conflict { subject })
}

/// What a look at a table stands on: its generations, and what an open migration does with them.
fn footing_of(catalog: &Catalog, name: &str) -> Option<(Vec<Generation>, Option<Phase>)> {
    let table = catalog.tables.get(name)?;
    let migration = table.migration.as_ref().and_then(|name| catalog.migrations.get(name));
    Some((table.generations.clone(), migration.and_then(|migration| migration.phase().ok())))
}

pub(crate) fn inventory(engine: &dyn Engine, now: &Now<'_>) -> Result<Vec<Inventory>> {
    let mut all = Vec::new();
    for name in now().tables.keys() {
        let count = |catalog: &Catalog| match catalog.tables.get(name) {
            Some(table) => inventory_of(engine, name, table).map(Some),
            None => Ok(None),
        };
        let subject = format!("table {name}");
        all.extend(look(now, &subject, |catalog| footing_of(catalog, name), count, |_| false)?);
    }
    Ok(all)
}

fn inventory_of(engine: &dyn Engine, name: &str, table: &TableEntry) -> Result<Inventory> {
    let (active, floor) = (table.active, table.floor);
    let mut inventory = Inventory { table: name.to_owned(), active, floor, ..Inventory::default() };
    match (table.base(), table.overlay()) {
        (Some(base), None) => each(engine, &table.tree(base), |key, value| {
            drop(count(&mut inventory, key, value));
            Ok(())
        })?,
        (Some(base), Some(overlay)) => {
            let tree = |generation| engine.tree(&table.tree(generation));
            count_both(&*tree(base)?, &*tree(overlay)?, &mut inventory)?;
        }
        (None, _) => {}
    }
    Ok(inventory)
}

/// Range by range, and in each the overlay before the base: so a record counts once also if it is copied or folded
/// meanwhile.
fn count_both(base: &dyn Tree, overlay: &dyn Tree, inventory: &mut Inventory) -> Result<()> {
    let mut lower = Bound::Unbounded;
    loop {
        let mut over = Page::new();
        let range = (lower.as_ref().map(Vec::as_slice), Bound::Unbounded);
        let end = overlay.scan(range, false, PAGE_RECORDS, &mut over)?;
        let last = over.last().filter(|_| !end).map(|(key, _)| key.to_vec());
        let range =
            (lower.as_ref().map(Vec::as_slice), last.as_deref().map_or(Bound::Unbounded, Bound::Included));
        each_in(base, range, |key, value| {
            if over.binary_search_by(|(over, _)| over[..].cmp(key)).is_ok() {
                inventory.bytes += (key.len() + value.len()) as u64;
            } else {
                drop(count(inventory, key, value));
            }
            Ok(())
        })?;
        for (key, value) in over {
            let entry = count(inventory, &key, value);
            inventory.derived += u64::from(entry.is_some_and(|entry| entry.is_derived()));
        }
        match last {
            Some(last) => lower = Bound::Excluded(last),
            None => return Ok(()),
        }
    }
}

/// Answers the entry, unless it is damaged.
fn count(inventory: &mut Inventory, key: &[u8], value: Value) -> Option<Entry> {
    inventory.bytes += (key.len() + value.len()) as u64;
    let Ok(entry) = Entry::parse(key, value) else {
        inventory.damaged += 1;
        return None;
    };
    inventory.companions += u64::from(entry.companion().is_some());
    if entry.is_failed() {
        inventory.quarantined += 1;
    }
    if entry.is_tombstone() {
        inventory.tombstones += 1;
    } else {
        *inventory.records.entry(entry.version()).or_default() += 1;
    }
    Some(entry)
}

/// Damage is told and not an error, also what the engine itself cannot read; it is read around. When the engine stops at
/// it the rest is not looked at.
pub(crate) fn verify(engine: &dyn Engine, now: &Now<'_>) -> Result<Report> {
    let mut report = Report::default();
    match verify_all(engine, now, &mut report) {
        // It stopped at damage that was told just now.
        Err(Error::Poisoned { reason }) if !report.is_clean() => report.damaged(|| {
            format!("the engine stopped, and the rest was not looked at: {reason}; `exuvia salvage` reads on")
        }),
        other => other?,
    }
    Ok(report)
}

fn verify_all(engine: &dyn Engine, now: &Now<'_>, report: &mut Report) -> Result<()> {
    verify_ledger(engine, now, report)?;
    for damage in engine.check_files()? {
        report.damaged(|| damage);
    }
    for name in now().tables.keys() {
        let verify = |catalog: &Catalog| {
            let mut report = Report::default();
            // With its error: what was found before that counts.
            let ended = verify_table(engine, catalog, name, &mut report);
            match ended {
                Err(e) if report.is_clean() => Err(e),
                ended => Ok((report, ended)),
            }
        };
        let footing = |catalog: &Catalog| footing_of(catalog, name);
        let certain = |(report, _): &(Report, _)| report.is_clean();
        let (part, ended) = look(now, &format!("table {name}"), footing, verify, certain)?;
        report.add(part);
        ended?;
    }
    Ok(())
}

/// The ledger, and what lies beside the catalog.
fn verify_ledger(engine: &dyn Engine, now: &Now<'_>, report: &mut Report) -> Result<()> {
    let (entries, damage) = ledger::read(engine, now);
    report.ledger_entries = entries.len() as u64;
    if let Some(damage) = damage {
        report.damaged(|| damage.to_string());
    }
    each_whole(engine, catalog::TREE, "the catalog", report, |report, key, value| {
        if let Some(Err(e)) = catalog::closed::parse(key, &value) {
            report.damaged(|| e.to_string());
        }
        if let Some(Err(e)) = catalog::place::parse(key, &value) {
            report.damaged(|| format!("{e}; only time is lost: a walk begins at its start"));
        }
        Ok(())
    })
}

/// A table, if there is one of this name.
fn verify_table(engine: &dyn Engine, catalog: &Catalog, name: &str, report: &mut Report) -> Result<()> {
    let Some(table) = catalog.tables.get(name) else {
        return Ok(());
    };
    let mut shapes = BTreeMap::new();
    for (version, fingerprint) in &table.shapes {
        match catalog::load_shape(engine, fingerprint) {
            Ok(shape) if shape.fingerprint() == *fingerprint => {
                // Bytes of another codec, or of one that was never named, say nothing without their type.
                if table.codecs.get(version).is_some_and(|codec| codec == codec::BINCODE) {
                    shapes.insert(*version, shape);
                }
            }
            Ok(_) => report.damaged(|| format!("table {name}: the shape of version {version} was changed")),
            Err(e) => report.damaged(|| format!("table {name}, version {version}: {e}")),
        }
    }
    let migration = table.migration.as_ref().and_then(|name| catalog.migrations.get(name));
    let step = migration.and_then(|m| m.tables.iter().find(|step| step.table == *name));
    let phase = migration.map(|m| m.phase()).transpose()?;
    let looked = Looked { engine, name, table, shapes };
    verify_records(&looked, step.filter(|s| !s.metadata_only), phase, report)?;
    let (tree, what) = (quarantine_tree(name), format!("quarantine of {name}"));
    if !engine.trees()?.contains(&tree) {
        // It was never needed, and a look makes none.
        return Ok(());
    }
    each_whole(engine, &tree, &what, report, |report, key, value| {
        if let Err(e) = quarantine::from_bytes(key, &value) {
            report.damaged(|| format!("{what}, key {}: {e}", ShowKey(key)));
        }
        Ok(())
    })
}

/// [`each`], around what the engine cannot read, which is told. `what`: the tree, in words.
fn each_whole(
    engine: &dyn Engine,
    tree: &str,
    what: &str,
    report: &mut Report,
    mut call: impl FnMut(&mut Report, &[u8], Value) -> Result<()>,
) -> Result<()> {
    let tree = match engine.tree(tree) {
        Ok(tree) => tree,
        Err(e) if e.kind() == EngineErrorKind::Corrupt => {
            report.damaged(|| format!("{what}: {e}"));
            return Ok(());
        }
        Err(e) => return Err(e.into()),
    };
    // Told first: an engine that then stops ends the look.
    let first = std::cell::Cell::new(None);
    let mut scan = |range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page| {
        let scanned = tree.scan(range, reverse, limit, page);
        if let Err(e) = &scanned
            && e.kind() == EngineErrorKind::Corrupt
        {
            first.set(Some(format!("{what}: {e}")));
        }
        scanned
    };
    match around::each(&mut scan, &mut |key, value| call(report, key, value)) {
        Ok(holes) => holes.iter().for_each(|hole| report.damaged(|| format!("{what}: {hole}"))),
        Err(stopped) => {
            if let Some(first) = first.take() {
                report.damaged(|| first);
            }
            return Err(stopped);
        }
    }
    Ok(())
}

/// Whether the overlay has an entry for a key; what cannot be told is damage.
fn is_hidden(over: Option<&Arc<dyn Tree>>, name: &str, key: &[u8], report: &mut Report) -> Result<bool> {
    match over.map(|over| over.get(key)).transpose() {
        Ok(found) => Ok(found.flatten().is_some()),
        Err(e) if e.kind() == EngineErrorKind::Corrupt => {
            report.damaged(|| format!("table {name}, key {}: {e}", ShowKey(key)));
            Ok(true)
        }
        Err(e) => Err(e.into()),
    }
}

/// Whether the quarantine has the reason for a FAILED entry; both come and go in one commit, which a scan may see half of.
fn has_reason(engine: &dyn Engine, name: &str, overlay: &str, key: &[u8]) -> Result<bool> {
    let quarantine = engine.tree(&quarantine_tree(name))?;
    if quarantine.get(key)?.is_some() {
        return Ok(true);
    }
    let still = engine.tree(overlay)?.get(key)?.map(|value| Entry::parse(key, value));
    Ok(!matches!(still, Some(Ok(entry)) if entry.is_failed()) || quarantine.get(key)?.is_some())
}

/// A table that is verified.
struct Looked<'a> {
    engine: &'a dyn Engine,
    name: &'a str,
    table: &'a TableEntry,
    /// Of every version whose records can be decoded without their type.
    shapes: BTreeMap<u32, Shape>,
}

impl Looked<'_> {
    /// Whether the bytes of a form are a value of their version's shape.
    fn decodes(&self, key: &[u8], (version, bytes): (u32, &[u8]), report: &mut Report) {
        // Below the floor they are the floor's bytes, and the shape may be of another history.
        let checked =
            self.shapes.get(&version.max(self.table.floor)).map(|shape| shape::check_stored(shape, bytes));
        if let Some(Err(e)) = checked {
            let (name, key) = (self.name, ShowKey(key));
            report.damaged(|| {
                format!("table {name}, key {key}: what is stored as version {version} does not decode: {e}")
            });
        }
    }
}

fn verify_records(
    looked: &Looked<'_>,
    step: Option<&Step>,
    phase: Option<Phase>,
    report: &mut Report,
) -> Result<()> {
    let Looked { engine, name, table, .. } = *looked;
    let Some(base) = table.base().map(|g| table.tree(g)) else {
        return Ok(());
    };
    let what = format!("table {name}");
    let overlay = table.overlay().map(|g| table.tree(g));
    let mut copied = false;
    if let (Some(overlay), Some(step)) = (&overlay, step) {
        let key = Progress::key(overlay);
        let found = engine.tree(catalog::TREE)?.get(&key).map_err(Error::from);
        let stage = found.and_then(|found| match found {
            Some(bytes) => Progress::from_bytes(&key, &bytes)?.stage().map(Some),
            None => Ok(None),
        });
        copied = match stage {
            Ok(stage) => stage == Some(Stage::Forwarding) && phase != Some(Phase::Folding),
            Err(e) => {
                report.damaged(|| format!("{e}; only time is lost: the next open for writing copies again"));
                false
            }
        };
        each_whole(engine, overlay, &what, report, |report, key, value| {
            let Some(entry) = parsed(name, key, value, report) else {
                return Ok(());
            };
            if entry.is_failed() {
                report.quarantined += 1;
                if !has_reason(engine, name, overlay, key)? {
                    report.damaged(|| {
                        format!("quarantine of {name}, key {}: why it is in quarantine is lost", ShowKey(key))
                    });
                }
            }
            report.records += u64::from(!entry.is_tombstone());
            if !entry.is_tombstone() && !entry.is_failed_marker() {
                looked.decodes(key, (entry.version(), entry.main()), report);
                if let Some(companion) = entry.companion() {
                    looked.decodes(key, companion, report);
                }
            }
            let companion_fits = entry.companion().is_none_or(|(v, _)| v == step.from || v == step.to);
            let fits = entry.is_tombstone() || entry.version() == step.from || entry.version() == step.to;
            if !fits || !companion_fits {
                let version = entry.version();
                report.damaged(|| {
                    format!(
                        "table {name}, key {}: version {version} is of neither side of the migration",
                        ShowKey(key)
                    )
                });
            }
            Ok(())
        })?;
    }
    let over = overlay.as_ref().map(|name| engine.tree(name)).transpose()?;
    each_whole(engine, &base, &what, report, |report, key, value| {
        let Some(entry) = parsed(name, key, value, report) else {
            return Ok(());
        };
        if entry.is_tombstone() || entry.is_failed_marker() {
            return Ok(());
        }
        looked.decodes(key, (entry.version(), entry.main()), report);
        let hidden = is_hidden(over.as_ref(), name, key, report)?;
        report.records += u64::from(!hidden);
        let version = entry.version();
        if !(table.oldest..=table.stored).contains(&version) {
            report.damaged(|| {
                format!(
                    "table {name}, key {}: a record of version {version} does not belong here",
                    ShowKey(key)
                )
            });
        }
        if copied && !hidden {
            report.damaged(|| format!("table {name}, key {}: the backfill left it behind", ShowKey(key)));
        }
        Ok(())
    })
}

fn parsed(name: &str, key: &[u8], value: Value, report: &mut Report) -> Option<Entry> {
    match Entry::parse(key, value) {
        Ok(entry) => Some(entry),
        Err(damage) => {
            report.damaged(|| format!("table {name}, key {}: {}", ShowKey(key), damage.0));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A failure under a state change is looked at again, and never handed on; one that nothing explains is.
    #[test]
    fn a_look_that_never_settles_says_try_again() {
        let revision = Cell::new(0);
        let now = || {
            revision.set(revision.get() + 1);
            Catalog { revision: revision.get(), ..Catalog::new("memory") }
        };
        let dropped = |_: &Catalog| -> Result<()> {
            Err(crate::engine::EngineError::new(
                EngineErrorKind::Io,
                "tree \"1/2\" was dropped; open it again",
            )
            .into())
        };
        let e = look(&now, "table t", |catalog| catalog.revision, dropped, |()| true).unwrap_err();
        assert!(matches!(e, Error::Conflict { .. }), "{e}");
        assert!(e.to_string().contains("table t changes faster than it can be looked at; try again"), "{e}");
        assert_eq!(revision.get(), 2 * u64::from(LOOKS_MAX));
        let e = look(&now, "table t", |_| (), dropped, |()| true).unwrap_err();
        assert!(matches!(e, Error::Engine(_)), "{e}");
        look(&now, "table t", |catalog| catalog.revision, |_| Ok(()), |()| true).unwrap();
    }
}
