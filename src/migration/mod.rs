//! Migrations: the verbs begin, backfill, rollback, resume, contract, abandon.
//!
//! ```text
//! begin ──▶ open ──backfill──▶ complete ──contract──▶ closed at `to`
//!             │  ▲                │
//!          rollback, resume    rollback
//!             ▼  │                ▼
//!          rolled back ──abandon──▶ closed at `from`
//! ```
//!
//! Each verb is one [`Core::change`](crate::core::Core): decide on the catalog, commit it durably, flip. The
//! background work is in `worker` (drives), `backfill` (what is done), `pacer` (how much at a time), `fold`,
//! `contract` and `sweep`.

mod backfill;
mod contract;
mod fold;
mod pacer;
mod run;
mod status;
mod sweep;
mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quanta::Instant;

use crate::catalog::{self, Catalog, Generation, MigrationEntry, Phase, Progress, Stage, Step};
use crate::core::{Change, Core, Lease, now_ms};
use crate::engine::Page;
use crate::envelope::Entry;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::ledger::Event;
use crate::lineage::Lineage;
use crate::route::{Frontier, Kind, Route};
use crate::shape::Shape;
use crate::stats::Activity;
use crate::table::Table;
use crate::version::Version;

pub use contract::ContractPlan;
pub use pacer::Budget;
pub(crate) use run::Run;
pub use run::Waiting;
pub use status::{Backfill, Status, TableStatus};
pub(crate) use sweep::Sweeper;
pub(crate) use worker::start as start_worker;

/// Describes a migration; made by `Store::migration`, ended by [`Plan::begin`].
#[must_use = "nothing happens until `begin` is called"]
pub struct Plan {
    lease: Arc<Lease>,
    name: String,
    why: String,
    by: String,
    one_way: bool,
    paused: bool,
    tables: Vec<(String, u32)>,
    foreign: Option<String>,
}

impl Plan {
    pub(crate) fn new(lease: Arc<Lease>, name: &str) -> Self {
        let name = name.to_owned();
        let (why, by, tables) = (String::new(), String::new(), Vec::new());
        Plan { lease, name, why, by, one_way: false, paused: false, tables, foreign: None }
    }

    /// Adds a table, to be brought to the view of this handle.
    pub fn table<K: Key, V: Version>(mut self, table: &Table<K, V>) -> Self {
        if !Arc::ptr_eq(table.lease(), &self.lease) {
            self.foreign = Some(table.name().to_owned());
        }
        self.tables.push((table.name().to_owned(), V::VERSION));
        self
    }

    /// Why, for the ledger.
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// By whom, for the ledger.
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
        for (name, to) in &self.tables {
            growth = growth.max(sampled_growth(core, name, *to)?);
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
    /// before, a shape that changed without a new version.
    pub fn begin(self) -> Result<Migration> {
        let started = Instant::now();
        let core = Arc::clone(&self.lease.0);
        if let Some(table) = self.foreign {
            return Err(Error::state(format!("table {table}"), "the handle belongs to another store"));
        }
        if self.tables.is_empty() {
            return Err(Error::state(format!("migration {}", self.name), "it names no table; add one"));
        }
        let mut steps = Vec::new();
        let catalog = core.catalog();
        for (name, to) in &self.tables {
            steps.push(planned_step(&core, &catalog, name, *to)?);
        }
        core.shared.flush()?;
        // The sweep of a generation must not go on under a migration whose base it is (rule 5).
        core.stop_sweeper();
        let mut entry = MigrationEntry::new(self.why, self.by, self.one_way, now_ms(), Vec::new());
        entry.paused = self.paused;
        let begun = begin(&core, started, &self.name, entry, steps);
        core.start_sweeper();
        begun?;
        let run = Run::load(&core, &core.catalog(), &self.name, true)?;
        core.runs.lock().insert(self.name.clone(), Arc::clone(&run));
        if run.tables.is_empty() {
            worker::completed(&core, &run)?;
        }
        worker::start(&core, &run)?;
        Ok(Migration { lease: self.lease, name: self.name })
    }
}

/// A step and the shapes that it makes known.
struct PlannedStep {
    step: Step,
    shapes: Vec<(u32, [u8; 32])>,
}

fn planned_step(core: &Core, catalog: &Catalog, name: &str, to: u32) -> Result<PlannedStep> {
    let state = core.table(name)?;
    let table = catalog.table(name)?;
    let refuse = |reason: String| Err(state.refuse_version(to, reason));
    let lineage: Arc<Lineage> =
        state.newest_code().ok_or_else(|| state.refuse_version(to, "no handle with its code is open"))?;
    let from = table.stored;
    if to <= from {
        return refuse(format!("the table is already at version {from}; nothing to migrate"));
    }
    let mut shapes = Vec::new();
    let mut metadata_only = true;
    let stored = table.shapes.get(&from);
    let mut before = stored.map(|stored| catalog::load_shape(&*core.shared.engine, stored)).transpose()?;
    for version in from + 1..=to {
        let Some(casts) = lineage.at(version) else {
            return refuse(format!("the lineage has no type for version {version}"));
        };
        let shape = (casts.shape)().map_err(|e| {
            let difference = format!("its shape cannot be described: {e}");
            Error::Shape { table: name.to_owned(), version, difference }
        })?;
        metadata_only &= casts.same_bytes;
        if casts.same_bytes {
            check_layout(name, before.as_ref(), version, &shape)?;
        }
        shapes.push((version, catalog::save_shape(&*core.shared.engine, &shape)?));
        before = Some(shape);
    }
    let step = Step { table: name.to_owned(), from, to, metadata_only };
    Ok(PlannedStep { step, shapes })
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

/// The commit and the flip of `begin`.
fn begin(
    core: &Core,
    started: Instant,
    name: &str,
    mut entry: MigrationEntry,
    planned: Vec<PlannedStep>,
) -> Result<()> {
    core.change(started, |catalog| {
        let subject = || format!("migration {name}");
        if let Some(old) = catalog.migrations.get(name) {
            let reason =
                format!("there was a migration of this name, it is {}; choose another", old.phase()?);
            return Err(Error::state(subject(), reason));
        }
        let mut event = Event::new("begin", name).because(&entry.why, &entry.by);
        let mut seen = BTreeSet::new();
        for PlannedStep { step, shapes } in planned {
            let id = catalog.new_id();
            let table = catalog.table_mut(&step.table)?;
            if let Some(other) = &table.migration {
                let reason = format!("migration {other} is open; contract or abandon it first");
                return Err(Error::state(format!("table {}", step.table), reason));
            }
            if table.stored != step.from || !seen.insert(step.table.clone()) {
                return Err(Error::Conflict { subject: format!("table {}", step.table) });
            }
            table.migration = Some(name.to_owned());
            table.active = step.to;
            table.shapes.extend(shapes);
            if !step.metadata_only {
                table.generations.push(Generation { id, unswept: false });
            }
            event = event.count(&format!("{} from", step.table), u64::from(step.from));
            event = event.count(&format!("{} to", step.table), u64::from(step.to));
            entry.tables.push(step);
        }
        catalog.migrations.insert(name.to_owned(), entry);
        let mut flips = Vec::new();
        for table in &seen {
            let state = core.table(table)?;
            state.set_frontier(Frontier::Start);
            flips.push((state, core.route_of(catalog, table)?));
        }
        Ok(Change { event, flips, result: () })
    })
}

/// (bytes that an overlay entry takes) / (bytes of the base's record), in a sample from the table's start.
fn sampled_growth(core: &Core, name: &str, to: u32) -> Result<f64> {
    let state = core.table(name)?;
    let Some(casts) = state.newest_code().and_then(|lineage| lineage.at(to).copied()) else {
        return Ok(1.0);
    };
    let route = state.route_owned();
    let Kind::Settled { tree, .. } = &route.kind else {
        return Ok(1.0);
    };
    let mut page = Page::new();
    tree.tree.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false, 128, &mut page)?;
    let (mut before, mut after) = (0usize, 0usize);
    for (key, value) in &page {
        let Ok(entry) = Entry::parse(key, value.clone()) else {
            continue;
        };
        if let Ok(main) = casts.upcast((entry.version(), entry.main())) {
            before += key.len() + value.len();
            after += key.len() + main.len() + crate::envelope::OVERHEAD_MAX;
        }
    }
    Ok(if before == 0 { 1.0 } else { after as f64 / before as f64 })
}

/// A handle on a migration that was begun.
#[derive(Clone)]
pub struct Migration {
    lease: Arc<Lease>,
    name: String,
}

impl std::fmt::Debug for Migration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Migration").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Migration {
    pub(crate) fn new(lease: Arc<Lease>, name: &str) -> Result<Self> {
        lease.0.catalog().migration(name)?;
        Ok(Migration { lease, name: name.to_owned() })
    }

    /// The migration's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn core(&self) -> &Arc<Core> {
        &self.lease.0
    }

    fn run(&self) -> Result<Arc<Run>> {
        let run = self.core().runs.lock().get(&self.name).cloned();
        match run {
            Some(run) if !run.control().closed => Ok(run),
            _ => {
                let phase = self.core().catalog().migration(&self.name)?.phase()?;
                Err(self.refuse(format!("it is {phase}, and nothing can be done to it any more")))
            }
        }
    }

    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::state(format!("migration {}", self.name), reason)
    }

    /// Where the migration stands. Costs a few lookups.
    ///
    /// # Errors
    ///
    /// Damage of the catalog.
    pub fn status(&self) -> Result<Status> {
        status::of(self.core(), &self.core().catalog(), &self.name)
    }

    /// Waits until the backfill is complete, or the migration closed.
    ///
    /// # Errors
    ///
    /// The backfill cannot get on by itself: it is paused, rolled back, lacks code or space, or failed.
    pub fn wait(&self) -> Result<Status> {
        loop {
            let status = self.status()?;
            match (&status.phase, &status.backfill) {
                (phase, _) if phase.is_closed() => return Ok(status),
                (Phase::Complete, _) => return Ok(status),
                (Phase::RolledBack, _) => {
                    return Err(self.refuse("it is rolled back, so nothing is in progress; resume it"));
                }
                (_, Backfill::Paused) => return Err(self.refuse("its backfill is paused; unpause it")),
                (_, Backfill::Waiting(waiting)) if !matches!(waiting, Waiting::Retry { .. }) => {
                    return Err(self.refuse(format!("its backfill waits: {waiting}")));
                }
                _ => {}
            }
            self.core().shared.check_usable()?;
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Pauses the backfill, also over restarts of the process, until [`Migration::unpause`]. Returns when the
    /// worker is gone.
    ///
    /// # Errors
    ///
    /// A migration that is closed, or a failing engine.
    pub fn pause(&self) -> Result<()> {
        self.set_paused(true)
    }

    /// Lets a paused backfill go on.
    ///
    /// # Errors
    ///
    /// A migration that is closed, or a failing engine.
    pub fn unpause(&self) -> Result<()> {
        self.set_paused(false)
    }

    fn set_paused(&self, paused: bool) -> Result<()> {
        let started = Instant::now();
        let run = self.run()?;
        let seat = run.seat()?;
        let what = if paused { "pause" } else { "unpause" };
        let changed = self.core().change(started, |catalog| {
            catalog.migration_mut(&self.name)?.paused = paused;
            Ok(Change { event: Event::new(what, &self.name), flips: Vec::new(), result: () })
        });
        if changed.is_ok() {
            run.set(|control| control.paused = paused);
        }
        drop(seat);
        worker::start(self.core(), &run)?;
        changed
    }

    /// Changes the budget, at once. It is not persisted: a reopened store starts with that of its options.
    ///
    /// # Errors
    ///
    /// A migration that is closed.
    pub fn set_budget(&self, budget: Budget) -> Result<()> {
        self.run()?.set(|control| control.budget = budget);
        Ok(())
    }

    /// Does up to `records` of the backfill's work in the calling thread. For tests and for programs that want
    /// to drive it by hand; the backfill must be paused.
    ///
    /// # Errors
    ///
    /// A backfill that runs by itself, lacks code, or meets a failing engine.
    pub fn step(&self, records: usize) -> Result<Status> {
        let core = self.core();
        let run = self.run()?;
        let Some(seat) = run.try_seat() else {
            return Err(self.refuse("another thread drives it; pause it, and drive it from one thread"));
        };
        let stepped = self.step_seated(core, &run, records);
        drop(seat);
        // Someone may have found the seat taken who wanted to start it.
        worker::start(core, &run)?;
        stepped?;
        self.status()
    }

    fn step_seated(&self, core: &Core, run: &Run, records: usize) -> Result<()> {
        if !run.control().paused {
            return Err(self.refuse("its backfill runs in the background; pause it to drive it by hand"));
        }
        if !core.catalog().migration(&self.name)?.phase()?.is_forward() {
            return Err(self.refuse("it does not go forward; resume it first"));
        }
        let meter = core.shared.recorder.background();
        let mut tables = Vec::new();
        for table in &run.tables {
            let casts = table.casts().ok_or_else(|| {
                self.refuse(format!(
                    "open table {} with the code of version {}",
                    table.step.table, table.step.to
                ))
            })?;
            tables.push(backfill::TableBackfill::new(table, casts));
        }
        let mut left = records;
        loop {
            let stepped = worker::step_first_unfinished(&mut tables, &meter, left.max(1))?;
            left = left.saturating_sub(stepped.records);
            if stepped.caught_up {
                worker::completed(core, run)?;
                break;
            }
            if left == 0 || stepped.moved || run.stopping() {
                break;
            }
        }
        Ok(())
    }

    /// Runs the backfill again with the code that is open now: derived entries go back to what they came from
    /// and are made again, what applications wrote is kept. For a cast that was wrong.
    ///
    /// # Errors
    ///
    /// A migration that does not go forward, or a failing engine.
    pub fn restart(&self) -> Result<()> {
        let started = Instant::now();
        let core = self.core();
        let run = self.run()?;
        let seat = run.seat()?;
        let result = self.restart_seated(core, &run, started);
        drop(seat);
        worker::start(core, &run)?;
        result
    }

    fn restart_seated(&self, core: &Core, run: &Run, started: Instant) -> Result<()> {
        if !core.catalog().migration(&self.name)?.phase()?.is_forward() {
            return Err(self.refuse("it does not go forward; resume it, then restart"));
        }
        // Rule 3: lowered durably before anything is removed.
        for table in &run.tables {
            let mut progress = Progress::start();
            progress.set_stage(Stage::Reverting);
            run::save_progress(&core.shared, &table.overlay, &progress)?;
        }
        core.shared.flush()?;
        core.change(started, |catalog| {
            let entry = catalog.migration_mut(&self.name)?;
            if !entry.phase()?.is_forward() {
                return Err(Error::Conflict { subject: format!("migration {}", self.name) });
            }
            entry.set_phase(Phase::Open);
            Ok(Change { event: Event::new("restart", &self.name), flips: Vec::new(), result: () })
        })?;
        let mut flips = Vec::new();
        for table in &run.tables {
            let mut progress = Progress::start();
            progress.set_stage(Stage::Reverting);
            *table.progress.lock() = progress;
            *table.pass.lock() = None;
            *table.unsaved.lock() = None;
            table.state.set_frontier(Frontier::Start);
            flips.push((Arc::clone(&table.state), Route::clone(&table.state.route_owned())));
        }
        core.flip(flips);
        run.set_activity(Activity::Backfill);
        Ok(())
    }

    /// Goes back: `from` is active again, for all tables of the migration at once. Every record, also what new
    /// code has written since, can be read by old code. New code goes on working.
    ///
    /// Costs one durable commit (two engine flushes at most) and a flip in memory, whatever the tables' size.
    ///
    /// # Errors
    ///
    /// A one-way migration, one that is not open, or a failing engine.
    pub fn rollback(&self) -> Result<()> {
        self.turn(Phase::RolledBack, false)
    }

    /// As [`Migration::rollback`], and refuses writes of the new version until it is resumed: for new code that
    /// writes nonsense.
    ///
    /// # Errors
    ///
    /// As [`Migration::rollback`].
    pub fn rollback_fenced(&self) -> Result<()> {
        self.turn(Phase::RolledBack, true)
    }

    /// Goes forward again after a rollback.
    ///
    /// # Errors
    ///
    /// A migration that is not rolled back, or a failing engine.
    pub fn resume(&self) -> Result<()> {
        self.turn(Phase::Open, false)
    }

    /// Rollback and resume: one commit, one flip.
    fn turn(&self, target: Phase, fenced: bool) -> Result<()> {
        let started = Instant::now();
        let core = self.core();
        let run = self.run()?;
        let seat = run.seat()?;
        let back = target == Phase::RolledBack;
        let turned = core.change(started, |catalog| {
            let entry = catalog.migration_mut(&self.name)?;
            let phase = entry.phase()?;
            if back && entry.one_way {
                return Err(self.refuse("it was begun one_way(), so there is nothing to go back to"));
            }
            let fits = if back { phase.is_forward() } else { phase == Phase::RolledBack };
            if !fits {
                let verb = if back { "rolled back" } else { "resumed" };
                return Err(self.refuse(format!("it is {phase}, so it cannot be {verb}")));
            }
            entry.set_phase(target);
            entry.fenced = fenced;
            let steps = entry.tables.clone();
            let mut flips = Vec::new();
            for step in &steps {
                catalog.table_mut(&step.table)?.active = if back { step.from } else { step.to };
                flips.push((core.table(&step.table)?, core.route_of(catalog, &step.table)?));
            }
            let event = Event::new(if back { "rollback" } else { "resume" }, &self.name);
            Ok(Change { event, flips, result: () })
        });
        if turned.is_ok() {
            run.set_activity(run::activity_of(target));
        }
        if turned.is_ok() && run.tables.is_empty() && !back {
            worker::completed(core, &run)?;
        }
        drop(seat);
        worker::start(core, &run)?;
        turned
    }

    /// Says what a contract would destroy.
    ///
    /// # Errors
    ///
    /// A migration that does not go forward or whose backfill is not complete.
    pub fn contract(&self) -> Result<ContractPlan> {
        let run = self.run()?;
        let status = self.status()?;
        if !status.phase.is_forward() {
            return Err(self.refuse(format!("it is {}; resume it before a contract", status.phase)));
        }
        if run.tables.iter().any(|t| !matches!(t.progress.lock().stage(), Ok(Stage::Forwarding))) {
            return Err(self.refuse("its backfill is not complete; `wait()` for it, then contract"));
        }
        let entry = self.core().catalog();
        let destroys = entry.migration(&self.name)?.tables.iter().map(|step| {
            let Step { table, from, to, metadata_only } = step;
            if *metadata_only {
                format!("table {table}: the right to read and write version {from}; no record is touched")
            } else {
                format!(
                    "table {table}: every form of version {from} (base and companions); from then on only code \
                     that knows version {to} can read it, and there is no rollback"
                )
            }
        });
        let destroys = destroys.collect();
        Ok(ContractPlan { lease: Arc::clone(&self.lease), run, destroys })
    }

    /// Says what giving up the migration would destroy. It must be rolled back.
    ///
    /// # Errors
    ///
    /// A migration that is not rolled back.
    pub fn abandon(&self, writes: NewWrites) -> Result<AbandonPlan> {
        let run = self.run()?;
        let catalog = self.core().catalog();
        let entry = catalog.migration(&self.name)?;
        let phase = entry.phase()?;
        if phase != Phase::RolledBack {
            return Err(self.refuse(format!("it is {phase}; roll it back before it is abandoned")));
        }
        let destroys = entry.tables.iter().map(|Step { table, from, to, .. }| match writes {
            NewWrites::Keep => format!(
                "table {table}: what only version {to} holds; every record stays as version {from} reads it"
            ),
            NewWrites::Discard => format!(
                "table {table}: every write since {} began; the table is exactly as it was then",
                self.name
            ),
        });
        let destroys = destroys.collect();
        Ok(AbandonPlan { lease: Arc::clone(&self.lease), run, writes, destroys })
    }
}

/// What becomes of the writes made since `begin` when a migration is abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewWrites {
    /// Their old forms are folded into the base.
    Keep,
    /// They are dropped: the table is exactly as it was at `begin`.
    Discard,
}

/// What an abandon will destroy. Nothing happens until [`AbandonPlan::execute`].
#[must_use = "a plan does nothing until it is executed"]
pub struct AbandonPlan {
    lease: Arc<Lease>,
    run: Arc<Run>,
    writes: NewWrites,
    destroys: Vec<String>,
}

impl std::fmt::Display for AbandonPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "abandoning migration {} will destroy, for good:", self.run.name)?;
        self.destroys.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl std::fmt::Debug for AbandonPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AbandonPlan").field("destroys", &self.destroys).finish_non_exhaustive()
    }
}

impl AbandonPlan {
    /// What will be destroyed, a line for each.
    pub fn destroys(&self) -> &[String] {
        &self.destroys
    }

    /// Closes the migration at `from`. Discarding is one commit; keeping returns when every key is folded,
    /// which goes on in the background under the budget, and over a restart of the process.
    ///
    /// # Errors
    ///
    /// A state that changed meanwhile, or a failing engine.
    pub fn execute(self) -> Result<()> {
        let started = Instant::now();
        let core = &self.lease.0;
        let name = self.run.name.as_str();
        let seat = self.run.seat()?;
        let done = match self.writes {
            NewWrites::Discard => self.discard(core, started),
            NewWrites::Keep => self.begin_folding(core, started),
        };
        drop(seat);
        // Whatever phase it is in now, its worker goes on.
        worker::start(core, &self.run)?;
        done?;
        match self.writes {
            NewWrites::Discard => {
                core.start_sweeper();
                Ok(())
            }
            NewWrites::Keep => {
                Migration { lease: Arc::clone(&self.lease), name: name.to_owned() }.wait().map(|_| ())
            }
        }
    }

    fn discard(&self, core: &Core, started: Instant) -> Result<()> {
        // Flush before the commit that closes a migration (rule 10).
        core.shared.flush()?;
        let event = Event::new("abandon", &self.run.name).count("new writes discarded", 1);
        close_at_from(core, &self.run, started, event, Phase::RolledBack)
    }

    fn begin_folding(&self, core: &Core, started: Instant) -> Result<()> {
        let name = self.run.name.as_str();
        core.change(started, |catalog| {
            let entry = catalog.migration_mut(name)?;
            if entry.phase()? != Phase::RolledBack {
                return Err(Error::Conflict { subject: format!("migration {name}") });
            }
            entry.set_phase(Phase::Folding);
            let mut flips = Vec::new();
            for step in &entry.tables.clone() {
                flips.push((core.table(&step.table)?, core.route_of(catalog, &step.table)?));
            }
            Ok(Change { event: Event::new("fold", name), flips, result: () })
        })?;
        self.run.set_activity(Activity::Fold);
        Ok(())
    }
}

/// Commits `abandoned`: the base alone is the table again.
fn close_at_from(core: &Core, run: &Run, started: Instant, event: Event, expected: Phase) -> Result<()> {
    let name = run.name.as_str();
    core.change(started, |catalog| {
        let entry = catalog.migration_mut(name)?;
        if entry.phase()? != expected {
            return Err(Error::Conflict { subject: format!("migration {name}") });
        }
        entry.set_phase(Phase::Abandoned);
        let steps = entry.tables.clone();
        for step in &steps {
            let table = catalog.table_mut(&step.table)?;
            table.generations.truncate(1);
            table.active = step.from;
            table.migration = None;
        }
        let mut flips = Vec::new();
        for step in &steps {
            flips.push((core.table(&step.table)?, core.route_of(catalog, &step.table)?));
        }
        Ok(Change { event, flips, result: () })
    })?;
    for table in &run.tables {
        table.state.set_frontier(Frontier::Start);
        table.state.set_activity(Activity::Sweep);
    }
    run.close(&core.shared);
    Ok(())
}
