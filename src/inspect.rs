//! Looking at a store without any Rust types: inventory and verification.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::catalog::{self, Catalog, Phase, Progress, Stage, Step, TableEntry, quarantine_tree};
use crate::engine::{Engine, KeyRange, Page, Tree, Value};
use crate::envelope::Entry;
use crate::error::{EngineErrorKind, Error, Result, ShowKey};
use crate::{around, ledger, quarantine};

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

    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.damage_count == 0
    }
}

pub(crate) fn each(
    engine: &dyn Engine,
    tree: &str,
    call: impl FnMut(&[u8], Value) -> Result<()>,
) -> Result<()> {
    each_in(&*engine.tree(tree)?, (Bound::Unbounded, Bound::Unbounded), call)
}

fn each_in(
    tree: &dyn Tree,
    (lower, upper): KeyRange<'_>,
    mut call: impl FnMut(&[u8], Value) -> Result<()>,
) -> Result<()> {
    let mut lower = lower.map(<[u8]>::to_vec);
    loop {
        let mut page = Page::new();
        let range = (lower.as_ref().map(Vec::as_slice), upper);
        let end = tree.scan(range, false, PAGE_RECORDS, &mut page)?;
        let last = page.last().map(|(key, _)| key.to_vec());
        for (key, value) in page {
            call(&key, value)?;
        }
        match last {
            Some(last) if !end => lower = Bound::Excluded(last),
            _ => return Ok(()),
        }
    }
}

pub(crate) fn inventory(engine: &dyn Engine, catalog: &Catalog) -> Result<Vec<Inventory>> {
    let mut all = Vec::new();
    for (name, table) in &catalog.tables {
        let (active, floor) = (table.active, table.floor);
        let mut inventory = Inventory { table: name.clone(), active, floor, ..Inventory::default() };
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
        all.push(inventory);
    }
    Ok(all)
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
pub(crate) fn verify(engine: &dyn Engine, catalog: &Catalog) -> Result<Report> {
    let mut report = Report::default();
    match verify_all(engine, catalog, &mut report) {
        // It stopped at damage that was told just now.
        Err(Error::Poisoned { reason }) if !report.is_clean() => report.damaged(|| {
            format!("the engine stopped, and the rest was not looked at: {reason}; `exuvia salvage` reads on")
        }),
        other => other?,
    }
    Ok(report)
}

fn verify_all(engine: &dyn Engine, catalog: &Catalog, report: &mut Report) -> Result<()> {
    let (entries, damage) = ledger::read(engine, catalog);
    report.ledger_entries = entries.len() as u64;
    if let Some(damage) = damage {
        report.damaged(|| damage.to_string());
    }
    each_whole(engine, catalog::TREE, "the catalog", report, |report, key, value| {
        if let Some(Err(e)) = catalog::closed::parse(key, &value) {
            report.damaged(|| e.to_string());
        }
        Ok(())
    })?;
    let there = engine.trees()?;
    for (name, table) in &catalog.tables {
        for (version, fingerprint) in &table.shapes {
            match catalog::load_shape(engine, fingerprint) {
                Ok(shape) if shape.fingerprint() == *fingerprint => {}
                Ok(_) => {
                    report.damaged(|| format!("table {name}: the shape of version {version} was changed"))
                }
                Err(e) => report.damaged(|| format!("table {name}, version {version}: {e}")),
            }
        }
        let migration = table.migration.as_ref().and_then(|name| catalog.migrations.get(name));
        let step = migration.and_then(|m| m.tables.iter().find(|step| step.table == *name));
        let phase = migration.map(|m| m.phase()).transpose()?;
        verify_table(engine, name, table, step.filter(|s| !s.metadata_only), phase, report)?;
        let (tree, what) = (quarantine_tree(name), format!("quarantine of {name}"));
        if !there.contains(&tree) {
            // It was never needed, and a look makes none.
            continue;
        }
        each_whole(engine, &tree, &what, report, |report, key, value| {
            if let Err(e) = quarantine::from_bytes(key, &value) {
                report.damaged(|| format!("{what}, key {}: {e}", ShowKey(key)));
            }
            Ok(())
        })?;
    }
    Ok(())
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

fn verify_table(
    engine: &dyn Engine,
    name: &str,
    table: &TableEntry,
    step: Option<&Step>,
    phase: Option<Phase>,
    report: &mut Report,
) -> Result<()> {
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
                report.damaged(|| e.to_string());
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
