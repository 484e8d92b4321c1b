//! Describing and beginning a migration.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock::now_ms;
use crate::engine::Page;
use crate::error::{Error, Result};
use crate::form::envelope::Entry;
use crate::measure::observe::Activity;
use crate::migration::core::{Core, Lease};
use crate::migration::{Migration, Run, worker};
use crate::record::lineage::Lineage;
use crate::record::shape::Shape;
use crate::state::catalog::room::{self, Growth};
use crate::state::catalog::{self, Catalog, Generation, MigrationEntry, Step, closed};
use crate::state::change::Change;
use crate::state::ledger::Event;
use crate::state::route::{Frontier, Kind, TableState};
use crate::sync::Instant;

/// Describes a migration; made by `Store::plan`, ended by [`Plan::begin`].
#[must_use = "nothing happens until `begin` is called"]
pub struct Plan {
    lease: Arc<Lease>,
    name: String,
    why: String,
    by: String,
    one_way: bool,
    paused: bool,
    tables: Vec<(Arc<TableState>, u32)>,
    foreign: Option<String>,
}

impl Plan {
    pub(crate) fn new(lease: Arc<Lease>, name: &str) -> Self {
        let name = name.to_owned();
        let (why, by, tables) = (String::new(), String::new(), Vec::new());
        Plan { lease, name, why, by, one_way: false, paused: false, tables, foreign: None }
    }

    /// Adds a table, to be brought to version `to`.
    pub(crate) fn add(mut self, lease: &Arc<Lease>, table: &Arc<TableState>, to: u32) -> Self {
        if !Arc::ptr_eq(lease, &self.lease) {
            self.foreign = Some(table.name.to_string());
        }
        self.tables.push((Arc::clone(table), to));
        self
    }

    /// Why, for the ledger: at most 1024 bytes.
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// By whom, for the ledger: at most 256 bytes.
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = by.into();
        self
    }

    /// Gives up rollback: records whose downcast fails may be written, and no older form is kept of what new
    /// code writes.
    pub fn one_way(mut self) -> Self {
        self.one_way = true;
        self
    }

    /// Begins with the backfill paused: by [`Migration::step`] it can be driven by hand.
    pub fn paused(mut self) -> Self {
        self.paused = true;
        self
    }

    /// An upper estimate of the bytes that the migration needs on disk until contract: the store's size times
    /// the growth of a sample of at most 128 records a table. Its cost does not depend on the tables' size.
    ///
    /// # Errors
    ///
    /// A failing engine.
    pub fn expected_bytes(&self) -> Result<u64> {
        let core = &self.lease.0;
        let on_disk = core.shared.engine.bytes_on_disk()?;
        let mut growth: f64 = 0.0;
        for (state, to) in &self.tables {
            growth = growth.max(sampled_growth(state, *to)?);
        }
        Ok((on_disk as f64 * growth) as u64)
    }

    /// Begins the migration: from here on `to` is active, and the backfill runs in the background.
    ///
    /// Costs one durable commit, whatever the tables' size; readers and writers wait for the flip only, which
    /// changes memory and nothing else.
    ///
    /// # Errors
    ///
    /// A table that is not settled, has another migration open or is already there, a name that was used
    /// before, a shape that changed without a new version; [`Error::Limit`] for a name or text that is too long, and for
    /// more tables at once than the engine has room for: begin with fewer of them.
    pub fn begin(self) -> Result<Migration> {
        let started = Instant::now();
        let core = Arc::clone(&self.lease.0);
        core.shared.check_writable()?;
        room::check_migration_name(&self.name)?;
        room::check_texts(&self.why, &self.by)?;
        if let Some(table) = self.foreign {
            return Err(Error::state(format!("table {table}"), "the handle belongs to another store"));
        }
        if self.tables.is_empty() {
            return Err(Error::state(format!("migration {}", self.name), "it names no table; add one"));
        }
        let mut steps = Vec::new();
        for (state, to) in &self.tables {
            steps.push(planned_step(&core, state, *to)?);
        }
        let mut entry = MigrationEntry::new(self.why, self.by, self.one_way, now_ms(), Vec::new());
        entry.paused = self.paused;
        // Before anything is written for it.
        let engine = &*core.shared.engine;
        let aside = closed::older(&core.catalog(), &core.shared.limits)?;
        enter(&core, &mut core.catalog(), &self.name, entry.clone(), &steps, &aside)?;
        for (_, shape) in steps.iter().flat_map(|step| &step.shapes) {
            catalog::save_shape(engine, shape)?;
        }
        closed::put_aside(engine, &core.catalog(), &aside)?;
        core.shared.flush()?;
        // The sweep of a generation must not go on under a migration whose base it is (O5).
        core.stop_sweeper();
        let begun = begin(&core, started, &self.name, entry, &steps, &aside);
        core.start_sweeper();
        let run = begun?;
        forget_runs(&core, &aside);
        if run.tables.is_empty() {
            worker::complete_at_once(&core, &run);
        }
        worker::start(&core, &run);
        Ok(Migration::of(self.lease, &self.name))
    }
}

/// A step and the shapes that it makes known.
struct PlannedStep {
    /// The table's id: one of the same name may have taken its place until the commit.
    id: u64,
    step: Step,
    shapes: Vec<(u32, Shape)>,
    codecs: Vec<(u32, String)>,
}

fn planned_step(core: &Core, state: &Arc<TableState>, to: u32) -> Result<PlannedStep> {
    let name = &*state.name.to_string();
    let found = core.find(name).filter(|(known, _)| Arc::ptr_eq(known, state));
    let (_, table) = found.ok_or_else(|| state.dropped())?;
    let refuse = |reason: String| Err(state.refuse_version(to, reason));
    let lineage: Arc<Lineage> =
        state.newest_code().ok_or_else(|| state.refuse_version(to, "no handle with its code is open"))?;
    let from = table.stored;
    if to <= from {
        return refuse(format!("the table is already at version {from}; nothing to migrate"));
    }
    let (mut shapes, mut codecs) = (Vec::new(), Vec::new());
    // Of a salvaged table it is not known that its versions are the same bytes.
    let mut metadata_only = table.floor == table.stored;
    let stored = table.shapes.get(&from);
    let mut before = stored.map(|stored| catalog::load_shape(&*core.shared.engine, stored)).transpose()?;
    for version in from + 1..=to {
        let Some(casts) = lineage.at(version) else {
            return refuse(format!("the lineage has no type for version {version}"));
        };
        let refuse_type = |difference| Error::Shape { table: name.to_owned(), version, difference };
        let examined = (casts.examine)().map_err(refuse_type)?;
        let shape = examined.shape_with_codec(casts.codec).map_err(refuse_type)?;
        room::check_codec_name(casts.codec)?;
        metadata_only &= casts.same_bytes;
        if casts.same_bytes {
            check_layout(name, before.as_ref(), version, &shape)?;
            let codec_before = codecs.last().map(|(_, codec)| codec).or(table.codecs.get(&from));
            if let Some(before) = codec_before.filter(|before| *before != casts.codec) {
                return Err(refuse_type(format!(
                    "SAME_BYTES is declared, but its codec is {:?} and that of the version before is {before:?}; remove \
                     the declaration",
                    casts.codec
                )));
            }
        }
        shapes.push((version, shape.clone()));
        codecs.push((version, casts.codec.to_owned()));
        before = Some(shape);
    }
    let step = Step { table: name.to_owned(), from, to, metadata_only };
    Ok(PlannedStep { id: table.id, step, shapes, codecs })
}

/// `SAME_BYTES` is a promise about meaning; that the layout is the same can be checked.
fn check_layout(table: &str, before: Option<&Shape>, version: u32, shape: &Shape) -> Result<()> {
    let Some(before) = before.filter(|before| !before.layout_eq(shape)) else {
        return Ok(());
    };
    let difference = format!(
        "SAME_BYTES is declared, but its layout differs from that of the version before: {}; remove the declaration",
        before.difference(shape).unwrap_or_default()
    );
    Err(Error::Shape { table: table.to_owned(), version, difference })
}

/// Enters a migration into the catalog, or says why that cannot be.
fn enter(
    core: &Core,
    catalog: &mut Catalog,
    name: &str,
    mut entry: MigrationEntry,
    planned: &[PlannedStep],
    aside: &[String],
) -> Result<Event> {
    let subject = || format!("migration {name}");
    let known = catalog.migrations.get(name).cloned();
    if let Some(old) = known.map_or_else(|| closed::load(&*core.shared.engine, name), |old| Ok(Some(old)))? {
        let reason = format!("there was a migration of this name, it is {}; choose another", old.phase()?);
        return Err(Error::state(subject(), reason));
    }
    let mut event = Event::new("begin", name).because(&entry.why, &entry.by);
    let mut seen = BTreeSet::new();
    for PlannedStep { id, step, shapes, codecs } in planned {
        let generation = catalog.new_id();
        let table = catalog.tables.get_mut(&step.table).filter(|table| table.id == *id);
        // It was renamed or dropped meanwhile.
        let conflict = || Error::Conflict { subject: format!("table {}", step.table) };
        let table = table.ok_or_else(conflict)?;
        if !seen.insert(step.table.clone()) {
            let reason =
                format!("it names table {} twice; name it once, at the version to go to", step.table);
            return Err(Error::state(subject(), reason));
        }
        if let Some(other) = &table.migration {
            let reason = format!("migration {other} is open; contract or abandon it first");
            return Err(Error::state(format!("table {}", step.table), reason));
        }
        if table.stored != step.from {
            return Err(conflict());
        }
        table.migration = Some(name.to_owned());
        table.active = step.to;
        table.shapes.extend(shapes.iter().map(|(version, shape)| (*version, shape.fingerprint())));
        table.codecs.extend(codecs.iter().cloned());
        if !step.metadata_only {
            table.generations.push(Generation { id: generation, unswept: false });
        }
        event = event.version(&step.table, "from", step.from).version(&step.table, "to", step.to);
        entry.tables.push(step.clone());
    }
    catalog.migrations.retain(|name, _| !aside.contains(name));
    catalog.migrations.insert(name.to_owned(), entry);
    room::check(&core.shared, catalog, Growth::Migration)?;
    Ok(event)
}

/// The commit and the flip of `begin`. The migration is known in memory before anybody is told of it.
fn begin(
    core: &Core,
    started: Instant,
    name: &str,
    entry: MigrationEntry,
    planned: &[PlannedStep],
    aside: &[String],
) -> Result<Arc<Run>> {
    let decide = |catalog: &mut Catalog| {
        let event = enter(core, catalog, name, entry, planned, aside)?;
        let mut flips = Vec::new();
        for PlannedStep { step, .. } in planned {
            let state = core.table(&step.table)?;
            state.set_frontier(Frontier::Start);
            flips.push((state, core.route_of(catalog, &step.table)?));
        }
        let run = Run::load(core, catalog, name, true)?;
        Ok(Change { event, flips, result: run })
    };
    core.change_tables(started, decide, |_, run| {
        run.set_activity(Activity::Backfill);
        core.runs.lock().insert(name.to_owned(), Arc::clone(run));
    })
}

/// Lets go of what memory holds of migrations that the catalog has let go of.
fn forget_runs(core: &Core, names: &[String]) {
    for name in names {
        let run = core.runs.lock().remove(name);
        if let Some(run) = run {
            run.shut();
        }
    }
}

/// (bytes that an overlay entry takes) / (bytes of the base's record), in a sample from the table's start.
fn sampled_growth(state: &TableState, to: u32) -> Result<f64> {
    let Some(casts) = state.newest_code().and_then(|lineage| lineage.at(to).copied()) else {
        return Ok(1.0);
    };
    let mut page = Page::new();
    loop {
        let route = state.route_owned();
        let Kind::Settled { tree, .. } = &route.kind else {
            return Ok(1.0);
        };
        page.clear();
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let scanned = tree.tree.scan(all, false, 128, &mut page);
        // What an old route led to may be gone by now.
        if state.holds(route.epoch) {
            scanned?;
            break;
        }
    }
    let (mut before, mut after) = (0usize, 0usize);
    for (key, value) in &page {
        let Ok(entry) = Entry::parse(key, value.clone()) else {
            continue;
        };
        if let Ok(main) = casts.upcast((state.read_as(entry.version(), to), entry.main()), false) {
            before += key.len() + value.len();
            after += key.len() + main.len() + crate::form::envelope::OVERHEAD_MAX;
        }
    }
    Ok(if before == 0 { 1.0 } else { after as f64 / before as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MemoryEngine;
    use crate::migration::tests_sample::{One, Two};
    use crate::{Budget, Store, Table};

    #[test]
    fn a_budget_is_the_worker_s_from_then_on() {
        let budgets = [Budget::default().core_share(0.07), Budget::unlimited(), Budget::default()];
        let options = Store::options().budget(Budget::default().core_share(0.5));
        let store = options.open_in(Arc::new(MemoryEngine::new())).expect("opened");
        let _old: Table<u64, One> = store.table("t").expect("made");
        let new: Table<u64, Two> = store.table("t").expect("opened");
        let migration = store.plan("m").table(&new).paused().begin().expect("begun");
        let now = || store.core().runs.lock().get("m").expect("it is open").control().budget;
        assert_eq!(now(), Budget::default().core_share(0.5), "the store's");
        for budget in budgets {
            migration.set_budget(budget).expect("it is open");
            assert_eq!(now(), budget);
        }
    }

    /// What `begin` takes out of the catalog leaves memory too: a queue and a cursor for each table of each migration
    /// that there ever was would be a leak.
    #[test]
    fn memory_holds_no_more_migrations_than_the_catalog() {
        let store = Store::options().open_in(Arc::new(MemoryEngine::new())).expect("opened");
        let known = || {
            let mut names: Vec<String> = store.core().runs.lock().keys().cloned().collect();
            names.sort();
            names
        };
        for number in 0..closed::KEPT + 3 {
            let _old: Table<u64, One> = store.table("t").expect("made");
            let new: Table<u64, Two> = store.table("t").expect("opened");
            let migration = store.plan(&format!("m{number:02}")).table(&new).begin().expect("begun");
            assert_eq!(known(), store.core().catalog().migrations.into_keys().collect::<Vec<_>>());
            migration.wait().expect("complete");
            migration.contract().expect("planned").execute().expect("closed");
            drop((migration, new));
            store.drop_table("t").expect("dropped");
        }
        assert!(!known().contains(&"m00".to_owned()) && known().len() <= closed::KEPT + 1, "{:?}", known());
    }
}
