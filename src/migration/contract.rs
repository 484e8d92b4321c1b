//! Contract: the end of a migration, with proof.
//!
//! 1. Take the worker's seat.
//! 2. Raise the fence (in memory): old writers are refused from here, those in flight are drained by the gate.
//! 3. On a thread of low priority, one ordered pass over overlay and base brings forward what old writers left, and
//!    proves that no live key is left behind (invariant 10).
//! 4. Flush.
//! 5. Commit the catalog with one generation.
//! 6. Flip.
//! 7. The old base is emptied and the overlay's companions are swept in the background.
//!
//! If anything before 5 fails, the fence comes down and everything is as it was.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Phase, Stage, quarantine_tree};
use crate::core::{Change, Core};
use crate::engine::{Page, Value};
use crate::envelope::Entry;
use crate::error::{EngineError, EngineErrorKind, Error, Result, ShowKey};
use crate::ledger::Event;
use crate::migration::backfill::TableBackfill;
use crate::migration::pacer::{Measured, Pacer};
use crate::migration::run::{Run, RunTable};
use crate::migration::turns::{PAGE_RECORDS, Steps, give_turn};
use crate::migration::{Migration, worker};
use crate::route::{Fence, Frontier, Kind, Open, Route};
use crate::seeded::{Bug, bug};
use crate::stats::{Activity, BackgroundMeter};
use crate::sync::Instant;

/// What a contract will destroy. Nothing happens until [`ContractPlan::execute`].
#[must_use = "a plan does nothing until it is executed"]
pub struct ContractPlan {
    pub(crate) migration: Migration,
    pub(crate) run: Arc<Run>,
    pub(crate) destroys: Vec<String>,
}

impl std::fmt::Debug for ContractPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContractPlan").field("destroys", &self.destroys).finish_non_exhaustive()
    }
}

impl std::fmt::Display for ContractPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "contract of migration {} will destroy, for good:", self.run.name)?;
        self.destroys.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl ContractPlan {
    /// What will be destroyed, a line for each.
    pub fn destroys(&self) -> &[String] {
        &self.destroys
    }

    /// Verifies every record and closes the migration at `to`. Returns when the new state is durable and in
    /// force; what is left over is swept in the background.
    ///
    /// Takes time in proportion to the records (they are all looked at), within the pause budget; old writers
    /// are refused meanwhile, everyone else goes on.
    ///
    /// # Errors
    ///
    /// A record that is in quarantine or damaged, named; a state that changed meanwhile. The fence is lifted
    /// then, and nothing was destroyed.
    pub fn execute(self) -> Result<()> {
        let core = self.migration.core();
        let started = Instant::now();
        let seat = if bug(Bug::ContractUnseated) { None } else { Some(self.run.seat()?) };
        let result = contract(core, &self.run, self.migration.event("contract"), started);
        if result.is_err() {
            lift_fence(core, &self.run);
        }
        drop(seat);
        if result.is_err() {
            worker::start(core, &self.run)?;
        } else {
            core.start_sweeper();
        }
        result
    }
}

fn contract(core: &Arc<Core>, run: &Arc<Run>, mut event: Event, started: Instant) -> Result<()> {
    let catalog = core.catalog();
    let phase = catalog.migration(&run.name)?.phase()?;
    if !phase.is_forward() {
        let reason = format!("it is {phase}; only an open migration can be contracted: resume it first");
        return Err(Error::state(format!("migration {}", run.name), reason));
    }
    let mut fences = Vec::new();
    for table in &run.tables {
        let route = core.route_of(&catalog, &table.step.table)?;
        fences.push((Arc::clone(&table.state), Route { fence: Some(Fence::BelowTo), ..route }));
    }
    if !bug(Bug::FenceSkipped) {
        core.flip(fences);
    }
    run.set_activity(Activity::Contract);
    let proofs = prove_all(core, run)?;
    for (table, proof) in run.tables.iter().zip(proofs) {
        event = event
            .count(&format!("{} verified", table.step.table), proof.records)
            .count(&format!("{} brought forward", table.step.table), proof.forwarded);
        forget_quarantine(core, table)?;
    }
    // Flush before the commit that closes a migration (rule 10).
    if !bug(Bug::CloseUnflushed) {
        core.shared.flush()?;
    }
    commit(core, run, started, phase, event)?;
    for table in &run.tables {
        table.state.set_frontier(Frontier::Start);
        table.state.set_activity(Activity::Sweep);
    }
    run.close(&core.shared);
    Ok(())
}

fn commit(core: &Core, run: &Run, started: Instant, phase: Phase, event: Event) -> Result<()> {
    let name = run.name.as_str();
    core.change(started, |catalog| {
        let entry = catalog.migration_mut(name)?;
        if entry.phase()? != phase && !bug(Bug::ContractUnseated) {
            return Err(Error::Conflict { subject: format!("migration {name}") });
        }
        entry.set_phase(Phase::Contracted);
        let steps = entry.tables.clone();
        for step in &steps {
            let table = catalog.table_mut(&step.table)?;
            if !step.metadata_only {
                let mut overlay = table.generations.split_off(1);
                for generation in &mut overlay {
                    generation.unswept = true;
                }
                table.generations = overlay;
                table.oldest = step.to;
            }
            (table.active, table.stored, table.floor) = (step.to, step.to, step.to);
            table.migration = None;
        }
        let mut flips = Vec::new();
        for step in &steps {
            flips.push((core.table(&step.table)?, core.route_of(catalog, &step.table)?));
        }
        Ok(Change { event, flips, result: () })
    })
}

/// In memory only: it works beside a failing engine.
fn lift_fence(core: &Core, run: &Run) {
    let mut flips = Vec::new();
    for table in &run.tables {
        let route = table.state.route_owned();
        if route.fence == Some(Fence::BelowTo) {
            flips.push((Arc::clone(&table.state), Route { fence: None, ..Route::clone(&route) }));
        }
    }
    core.flip(flips);
    run.set_activity(Activity::Backfill);
}

#[derive(Default)]
struct Proof {
    records: u64,
    forwarded: u64,
}

/// Proves each table, on a thread of low priority, as all that takes time in proportion to the records: the caller's own
/// priority could be lowered, and not raised again.
fn prove_all(core: &Arc<Core>, run: &Arc<Run>) -> Result<Vec<Proof>> {
    let (core, run) = (Arc::clone(core), Arc::clone(run));
    let thread = crate::core::spawn("exuvia-prove", move || {
        worker::lower_priority();
        let meter = core.shared.recorder.background();
        run.tables.iter().map(|table| prove(&core, &run, table, &meter)).collect()
    })?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Looks at every key of overlay and base, under the fence.
fn prove(core: &Core, run: &Run, table: &RunTable, meter: &BackgroundMeter) -> Result<Proof> {
    let not_ready = |reason: &str| Error::state(format!("migration {}", run.name), reason.to_owned());
    if table.progress.lock().stage()? != Stage::Forwarding {
        return Err(not_ready("its backfill is not complete; `wait()` for it, then contract"));
    }
    let casts = table.casts().ok_or_else(|| {
        not_ready(
            "no handle with the code of the new version is open; open its tables with it, then contract",
        )
    })?;
    let route = table.state.route_owned();
    let Kind::Open(open) = &route.kind else {
        return Err(Error::Conflict { subject: format!("migration {}", run.name) });
    };
    let mut backfill = TableBackfill::new(table, casts);
    let mut proof = Proof::default();
    let mut lower = Bound::Unbounded;
    let (mut pacer, mut steps) = (Pacer::new(), Steps::new());
    loop {
        worker::give_way(&core.shared, || run.stopping());
        let mut engine = Duration::ZERO;
        let batch = pacer.batch();
        let mut records = 0;
        let (ended, spent) = steps.timed(|| -> Result<bool> {
            while records < batch {
                let limit = PAGE_RECORDS.min(batch - records);
                let page = prove_page(
                    table,
                    &route,
                    open,
                    meter,
                    &mut backfill,
                    &lower,
                    limit,
                    &mut proof,
                    &mut engine,
                );
                let Some(last) = page? else { return Ok(true) };
                lower = Bound::Excluded(last);
                records += limit;
            }
            Ok(false)
        });
        if ended? {
            return Ok(proof);
        }
        if run.stopping() {
            // Another verb, or the end of the store.
            return Err(Error::Conflict { subject: format!("migration {}", run.name) });
        }
        engine += backfill.spent();
        core.shared.recorder.batch(engine);
        run.sleep(pacer.rest_after(&run.control().budget, &Measured { records, engine, spent }));
    }
}

/// Proves a page of keys: both sides' next `limit`, as far as both reach. Answers the last key, `None` at the end.
#[expect(clippy::too_many_arguments, reason = "a step of one loop, apart for its length")]
fn prove_page(
    table: &RunTable,
    route: &Route,
    open: &Open,
    meter: &BackgroundMeter,
    backfill: &mut TableBackfill<'_>,
    lower: &Bound<Vec<u8>>,
    limit: usize,
    proof: &mut Proof,
    engine: &mut Duration,
) -> Result<Option<Vec<u8>>> {
    let range = (lower.as_ref().map(Vec::as_slice), Bound::Unbounded);
    let mut base = Page::new();
    let (base_end, took) = meter.call(|| open.base.tree.scan(range, false, limit, &mut base));
    give_turn();
    *engine += took;
    let base_end = base_end?;
    let mut overlay = Page::new();
    let (overlay_end, took) = meter.call(|| open.overlay.tree.scan(range, false, limit, &mut overlay));
    give_turn();
    *engine += took;
    let overlay_end = overlay_end?;
    if (base.is_empty() && !base_end) || (overlay.is_empty() && !overlay_end) {
        // Only a real end ends the proof (invariant 12).
        let reason = "the engine gave an empty page that is not the end".to_owned();
        return Err(EngineError::new(EngineErrorKind::Io, reason).into());
    }
    let reach = |page: &Page, end: bool| {
        if end { None } else { page.last().map(|(key, _)| key.to_vec()) }
    };
    let stop = match (reach(&base, base_end), reach(&overlay, overlay_end)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let within = |key: &Value| stop.as_ref().is_none_or(|stop| **key <= **stop);
    for (key, value) in base.into_iter().filter(|(key, _)| within(key)) {
        // What is overlaid is proven, also if the base's record is damaged: someone has replaced it.
        let overlaid = overlay.binary_search_by(|(over, _)| over[..].cmp(&key)).is_ok();
        if !overlaid && !table.state.parse(&key, value)?.is_tombstone() {
            // Both pages are of different moments, but under the fence no overlay entry is ever removed.
            let now = open.overlay.tree.get(&key)?;
            if now.is_none() {
                return Err(left_behind(table, &key, "it was not copied; restart the backfill"));
            }
        }
    }
    for (key, value) in overlay.into_iter().filter(|(key, _)| within(key)) {
        prove_entry(table, route, open, meter, backfill, &key, value, proof)?;
    }
    Ok(stop)
}

#[expect(clippy::too_many_arguments, reason = "a step of one loop, apart for its length")]
fn prove_entry(
    table: &RunTable,
    route: &Route,
    open: &Open,
    meter: &BackgroundMeter,
    backfill: &mut TableBackfill<'_>,
    key: &[u8],
    value: Value,
    proof: &mut Proof,
) -> Result<()> {
    let mut entry = table.state.parse(key, value.clone())?;
    if is_behind(&entry, open) {
        if backfill.bring_forward(meter, route, open, key, value)?.is_none() {
            return Err(Error::Conflict { subject: format!("table {}", table.state.name) });
        }
        proof.forwarded += 1;
        match open.overlay.tree.get(key)? {
            Some(value) => entry = table.state.parse(key, value)?,
            None => return Ok(()),
        }
    }
    if entry.is_failed() {
        let reason = crate::quarantine::reason(&table.state.shared, &table.state.name, key)?;
        let reason = format!("it is in quarantine: {}", reason.unwrap_or_default());
        return Err(left_behind(table, key, &reason));
    }
    if !entry.is_tombstone() && entry.version() != open.to {
        return Err(left_behind(table, key, &format!("it is written in version {}", entry.version())));
    }
    proof.records += u64::from(!entry.is_tombstone());
    Ok(())
}

fn is_behind(entry: &Entry, open: &Open) -> bool {
    !entry.is_tombstone() && !entry.is_failed() && entry.version() <= open.from
}

fn left_behind(table: &RunTable, key: &[u8], reason: &str) -> Error {
    let reason = format!(
        "a record would be left behind, key {}: {reason}; overwrite or remove it, or restart the backfill with \
         corrected code, then contract again",
        ShowKey(key)
    );
    Error::state(format!("table {}", table.state.name), reason)
}

/// With no FAILED entry left, whatever the quarantine holds is stale.
fn forget_quarantine(core: &Core, table: &RunTable) -> Result<()> {
    let tree = core.shared.engine.tree(&quarantine_tree(&table.state.name))?;
    loop {
        let mut page = Page::new();
        let end = tree.scan((Bound::Unbounded, Bound::Unbounded), false, 256, &mut page)?;
        for (key, _) in page {
            tree.delete(&key)?;
        }
        if end {
            return Ok(());
        }
    }
}
