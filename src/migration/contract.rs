//! Contract: the end of a migration, with proof.
//!
//! 1. Take the worker's seat. What is known to be in the way (a record in quarantine) ends it here.
//! 2. Raise the fence (in memory): old writers are refused from here, those in flight are drained by the gate.
//! 3. On a thread of low priority, one ordered pass over overlay and base brings forward what old writers left, and
//!    proves that no live key is left behind (I10).
//! 4. Forget where an interrupted pass would have gone on, for the sweep walks the same tree. Flush.
//! 5. Commit the catalog with one generation.
//! 6. Flip.
//! 7. The old base is emptied and the overlay's companions are swept in the background.
//!
//! If anything before 5 fails, the fence comes down and everything is as it was.

use std::ops::Bound;
use std::sync::Arc;

use crate::duty::Duty;
use crate::engine::{Page, Value};
use crate::error::{EngineError, EngineErrorKind, Error, Result, ShowKey};
use crate::form::envelope::Entry;
use crate::measure::observe::Activity;
use crate::migration::backfill::TableBackfill;
use crate::migration::core::Core;
use crate::migration::host::Seated;
use crate::migration::run::{Run, RunTable};
use crate::migration::{Migration, worker};
use crate::pace::{Calls, PAGE_RECORDS, Paced, Step, lower_priority};
use crate::record::lineage::Casts;
use crate::state::catalog::{Phase, Stage, place};
use crate::state::change::Change;
use crate::state::ledger::Event;
use crate::state::quarantine;
use crate::state::route::{Fence, Frontier, Kind, Open, Route};
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
        let seat = self.run.seat()?;
        let result = contract(core, &self.run, self.migration.event("contract"), started);
        drop(seat);
        if result.is_err() {
            worker::start(core, &self.run);
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
    run.tables.iter().try_for_each(|table| check_known(run, table))?;
    let mut fences = Vec::new();
    for table in &run.tables {
        let route = core.route_of(&catalog, &table.step.table)?;
        fences.push((Arc::clone(&table.state), Route { fence: Some(Fence::BelowTo), ..route }));
    }
    core.flip(fences);
    let fenced = Fenced { core, run };
    run.set_activity(Activity::Contract);
    let proofs = prove_all(core, run)?;
    for (table, proof) in run.tables.iter().zip(proofs) {
        event = event.count_of(&table.step.table, "verified", proof.records).count_of(
            &table.step.table,
            "brought forward",
            proof.forwarded,
        );
        forget_quarantine(core, table)?;
        // The sweep walks the same tree, and begins at its start also if the process dies before it is done.
        place::forget(&*core.shared.engine, &table.overlay)?;
    }
    // Flush before the commit that closes a migration (O10).
    core.shared.flush()?;
    commit(core, run, started, phase, event)?;
    // It went with the flip of the commit.
    std::mem::forget(fenced);
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
        if entry.phase()? != phase {
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

/// The fence is up; it comes down when this is dropped, however the contract ended. In memory only, so that it works
/// beside a failing engine.
struct Fenced<'a> {
    core: &'a Core,
    run: &'a Run,
}

impl Drop for Fenced<'_> {
    fn drop(&mut self) {
        let mut flips = Vec::new();
        for table in &self.run.tables {
            let route = table.state.route_owned();
            if route.fence == Some(Fence::BelowTo) {
                flips.push((Arc::clone(&table.state), Route { fence: None, ..Route::clone(&route) }));
            }
        }
        self.core.flip(flips);
        self.run.set_activity(Activity::Backfill);
    }
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
    let name = run.name.clone();
    // Whatever user code called this waits for the proof too. Said before any user code of the proof can ask.
    let proof = Duty::new();
    let _awaiting = proof.await_one(|| format!("migration {name}"))?;
    let thread = crate::threads::spawn("exuvia-prove", move || {
        let _on_duty = (run.duty.begin(), proof.begin());
        lower_priority();
        let mut paced = Seated::paced(&run, &core.shared);
        run.tables.iter().map(|table| prove(&run, table, &mut paced)).collect()
    })?;
    thread.join().unwrap_or_else(|_| {
        let reason = "the thread that proves its contract panicked; nothing was changed, contract again";
        Err(Error::state(format!("migration {name}"), reason))
    })
}

/// What the proof will need; refused if it is known not to be there.
fn prepared(run: &Run, table: &RunTable) -> Result<(Casts, Arc<Route>)> {
    let not_ready = |reason: &str| Error::state(format!("migration {}", run.name), reason.to_owned());
    if table.progress.lock().stage()? != Stage::Forwarding {
        return Err(not_ready("its backfill is not complete; `wait()` for it, then contract"));
    }
    let casts = table.casts().ok_or_else(|| {
        not_ready(
            "no handle with the code of the new version is open; open its tables with it, then contract",
        )
    })?;
    Ok((casts, table.state.route_owned()))
}

/// Refuses what the proof would refuse for a reason that is known: before the fence, since old writers would be refused for
/// as long as that proof takes, and for nothing.
fn check_known(run: &Run, table: &RunTable) -> Result<()> {
    let (_, route) = prepared(run, table)?;
    let Kind::Open(open) = &route.kind else {
        return Err(overtaken(run));
    };
    match crate::state::in_quarantine::first(&table.state, open, || run.stopping())? {
        None if run.stopping() => Err(overtaken(run)),
        None => Ok(()),
        Some((key, reason)) => Err(left_behind(table, &key, &in_quarantine(&reason))),
    }
}

/// Looks at every key of overlay and base, under the fence.
fn prove(run: &Run, table: &RunTable, paced: &mut Paced<Seated<'_>>) -> Result<Proof> {
    let (casts, route) = prepared(run, table)?;
    let Kind::Open(open) = &route.kind else {
        return Err(overtaken(run));
    };
    let backfill = TableBackfill::new(run, table, casts);
    let mut proving = Proving { run, table, route: &route, open, backfill, proof: Proof::default() };
    let mut lower = Bound::Unbounded;
    let done = paced.drive(|batch, calls| {
        let mut records = 0;
        while records < batch {
            let limit = PAGE_RECORDS.min(batch - records);
            match proving.page(calls, &lower, limit)? {
                Some(last) => lower = Bound::Excluded(last),
                None => return Ok(Step::Done),
            }
            records += limit;
        }
        Ok(Step::Did(records))
    })?;
    if done { Ok(proving.proof) } else { Err(overtaken(run)) }
}

/// Another verb came, or the end of the store.
fn overtaken(run: &Run) -> Error {
    Error::Conflict { subject: format!("migration {}", run.name) }
}

/// The proof of one table, under way.
struct Proving<'a> {
    run: &'a Run,
    table: &'a RunTable,
    route: &'a Route,
    open: &'a Open,
    backfill: TableBackfill<'a>,
    proof: Proof,
}

impl Proving<'_> {
    /// Proves a page of keys: both sides' next `limit`, as far as both reach. Answers the last key, `None` at the end.
    fn page(&mut self, calls: &mut Calls, lower: &Bound<Vec<u8>>, limit: usize) -> Result<Option<Vec<u8>>> {
        let (table, open) = (self.table, self.open);
        let range = (lower.as_ref().map(Vec::as_slice), Bound::Unbounded);
        let mut base = Page::new();
        let base_end = calls.make(|| open.base.tree.scan(range, false, limit, &mut base));
        calls.give_turn();
        let base_end = base_end?;
        let mut overlay = Page::new();
        let overlay_end = calls.make(|| open.overlay.tree.scan(range, false, limit, &mut overlay));
        calls.give_turn();
        let overlay_end = overlay_end?;
        if (base.is_empty() && !base_end) || (overlay.is_empty() && !overlay_end) {
            // Only a real end ends the proof (I12).
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
            if self.run.stopping() {
                return Err(overtaken(self.run));
            }
            self.entry(calls, &key, value)?;
        }
        Ok(stop)
    }

    fn entry(&mut self, calls: &mut Calls, key: &[u8], value: Value) -> Result<()> {
        let (table, open) = (self.table, self.open);
        let mut entry = table.state.parse(key, value.clone())?;
        if is_behind(&entry, open) {
            if self.backfill.bring_forward(calls, self.route, open, key, value)?.is_none() {
                return Err(Error::Conflict { subject: format!("table {}", table.state.name) });
            }
            self.proof.forwarded += 1;
            match open.overlay.tree.get(key)? {
                Some(value) => entry = table.state.parse(key, value)?,
                None => return Ok(()),
            }
        }
        if entry.is_failed() {
            let reason = quarantine::reason(&table.state.shared, &table.state.name, key)?;
            return Err(left_behind(table, key, &in_quarantine(&reason.unwrap_or_default())));
        }
        if !entry.is_tombstone() && entry.version() != open.to {
            return Err(left_behind(table, key, &format!("it is written in version {}", entry.version())));
        }
        self.proof.records += u64::from(!entry.is_tombstone());
        Ok(())
    }
}

fn in_quarantine(reason: &str) -> String {
    format!("it is in quarantine: {reason}")
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
    let Some(tree) = quarantine::existing(&core.shared, &table.state.name)? else {
        return Ok(());
    };
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
