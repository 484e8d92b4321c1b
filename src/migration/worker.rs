//! The worker of an open migration: one thread, at low priority, that drives the backfill within its budget.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::measure::observe::Activity;
use crate::migration::backfill::{Stepped, TableBackfill};
use crate::migration::core::Core;
use crate::migration::fold;
use crate::migration::host::Seated;
use crate::migration::retry::{self, Retries, is_transient};
use crate::migration::run::{Run, Waiting};
use crate::pace::{Calls, Paced, Step, lower_priority};
use crate::state::catalog::Phase;
use crate::state::change::Change;
use crate::state::ledger::Event;
use crate::state::shared::Shared;
use crate::sync::Instant;
use crate::sync::atomic::Ordering;

/// How often an idle worker looks for work that old writers made.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const SPACE_CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often an idle worker looks at a page of each quarantine.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Starts the worker of a run if the migration goes forward, is not paused, and the code is there. Whatever is in the way
/// of that is no failure of the verb that is done; the status says it.
pub(crate) fn start(core: &Arc<Core>, run: &Arc<Run>) {
    // One that the catalog has let go of is closed.
    let Ok(phase) = core.with_catalog(|catalog| catalog.migration(&run.name)?.phase()) else {
        return;
    };
    if !core.shared.settings.background {
        run.set(|control| control.waiting = Some(Waiting::Background));
        return;
    }
    if phase == Phase::Folding {
        return spawn(core, run, fold::work);
    }
    if !phase.is_forward() || run.control().paused {
        return;
    }
    match missing_code(run) {
        Some(table) => run.set(|control| control.waiting = Some(Waiting::Code { table })),
        None => spawn(core, run, work),
    }
}

/// If the system has no thread for it, it is tried again ([`Core::tend`]).
fn spawn(core: &Arc<Core>, run: &Arc<Run>, body: impl FnOnce(&Arc<Core>, &Arc<Run>) + Send + 'static) {
    let its_core = Arc::clone(core);
    if !run.spawn(move |run| body(&its_core, run)) {
        core.owe_worker();
    }
}

impl Core {
    /// Starts the threads that are owed.
    pub(crate) fn tend(self: &Arc<Core>) {
        if self.take_owed_worker() {
            let runs: Vec<Arc<Run>> = self.runs.lock().values().cloned().collect();
            let waiting = |run: &&Arc<Run>| matches!(run.control().waiting, Some(Waiting::Thread { .. }));
            runs.iter().filter(waiting).for_each(|run| start(self, run));
        }
        if self.take_owed_sweeper() {
            self.start_sweeper();
        }
    }
}

/// A table of the migration that no handle has brought the code for.
pub(crate) fn missing_code(run: &Run) -> Option<String> {
    run.tables.iter().find(|table| table.casts().is_none()).map(|table| table.step.table.clone())
}

fn work(core: &Arc<Core>, run: &Arc<Run>) {
    lower_priority();
    let mut paced = Seated::paced(run, &core.shared);
    let first = fraction(run);
    let copied = run.tables.iter().map(|t| t.progress.lock().counts.copied).sum();
    run.set(|control| control.started = Some((Instant::now(), copied, first)));
    let mut retries = Retries::new();
    while !run.stopping() {
        match backfill(core, run, &mut paced, &mut retries) {
            Ok(()) => return,
            Err(e) if is_transient(&e) && !core.shared.is_poisoned() => retries.rest(run, "backfill", &e),
            Err(e) => return retry::failed(run, "backfill", &e),
        }
    }
}

/// Runs until the run is stopped.
fn backfill(core: &Core, run: &Run, paced: &mut Paced<Seated<'_>>, retries: &mut Retries) -> Result<()> {
    let mut tables = Vec::new();
    for table in &run.tables {
        let casts =
            table.casts().ok_or_else(|| Error::state(&run.name, "the code of its version is gone"))?;
        tables.push(TableBackfill::new(run, table, casts));
    }
    let mut space_checked: Option<Instant> = None;
    let mut tidied: Option<Instant> = None;
    let step = |batch: usize, calls: &mut Calls| {
        core.shared.check_usable()?;
        if is_due(space_checked, SPACE_CHECK_EVERY) {
            if let Some(waiting) = short_of_space(&core.shared) {
                space_checked = None;
                run.set(|control| control.waiting = Some(waiting));
                return Ok(Step::Idle(SPACE_CHECK_EVERY));
            }
            space_checked = Some(Instant::now());
        }
        let control = run.control();
        if control.waiting.is_some() {
            run.set(|control| control.waiting = None);
        }
        core.shared.recorder.budget_ns.store(nanos(control.budget.pause()), Ordering::Relaxed);
        let stepped = step_first_unfinished(&mut tables, calls, batch)?;
        if stepped.moved {
            return Ok(Step::Idle(Duration::from_millis(1)));
        }
        if stepped.caught_up {
            completed(core, run)?;
            retries.got_on();
            if is_due(tidied, TIDY_EVERY) {
                tidied = Some(Instant::now());
                tidy(run)?;
            }
            return Ok(Step::Idle(LOOK_EVERY));
        }
        if stepped.records > 0 {
            retries.got_on();
        }
        run.set_activity(Activity::Backfill);
        Ok(Step::Did(stepped.records))
    };
    paced.drive(step).map(|_stopped| ())
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= every)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Steps the first table that has work; `caught_up` if none has.
pub(crate) fn step_first_unfinished(
    tables: &mut [TableBackfill<'_>],
    calls: &mut Calls,
    batch: usize,
) -> Result<Stepped> {
    for table in tables {
        let stepped = table.step(calls, batch)?;
        if !stepped.caught_up || stepped.records > 0 {
            return Ok(stepped);
        }
    }
    Ok(Stepped { caught_up: true, ..Stepped::default() })
}

/// A page of each table's quarantine, however large that is.
pub(crate) fn tidy(run: &Run) -> Result<()> {
    run.tables.iter().try_for_each(|table| table.tidy_quarantine())
}

/// Commits `complete` once there is nothing left to do.
pub(crate) fn completed(core: &Core, run: &Run) -> Result<()> {
    if !run.is_caught_up() {
        return Ok(());
    }
    run.set_activity(Activity::Complete);
    if core.catalog().migration(&run.name)?.phase()? != Phase::Open {
        return Ok(());
    }
    let mut event = Event::new("complete", &run.name);
    for table in &run.tables {
        let counts = table.progress.lock().counts;
        event = event
            .count_of(&table.step.table, "copied", counts.copied)
            .count_of(&table.step.table, "brought forward", counts.brought_forward)
            .count_of(&table.step.table, "quarantined", counts.quarantined);
    }
    let started = run.control().started.map_or_else(Instant::now, |(at, _, _)| at);
    let name = run.name.clone();
    let result = core.change(started, move |catalog| {
        let entry = catalog.migration_mut(&name)?;
        if entry.phase()? != Phase::Open {
            return Err(Error::Conflict { subject: format!("migration {name}") });
        }
        entry.set_phase(Phase::Complete);
        Ok(Change { event, flips: Vec::new(), result: () })
    });
    run.set(|_| {});
    match result {
        Err(Error::Conflict { .. }) => Ok(()),
        other => other,
    }
}

/// [`completed`], for a verb that is done: what fails here its worker tries again.
pub(crate) fn complete_at_once(core: &Core, run: &Run) {
    if let Err(e) = completed(core, run) {
        tracing::warn!(target: "exuvia", error = %e, "a migration of metadata only is not complete yet");
    }
}

/// The share of all bases that is copied.
pub(crate) fn fraction(run: &Run) -> f64 {
    if run.tables.is_empty() {
        return 1.0;
    }
    run.tables.iter().map(super::run::RunTable::fraction).sum::<f64>() / run.tables.len() as f64
}

fn short_of_space(shared: &Shared) -> Option<Waiting> {
    let floor = shared.settings.free_bytes_min;
    let free = shared.free_bytes()?;
    (free < floor).then_some(Waiting::Space { free, floor })
}
