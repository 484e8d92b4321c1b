//! The worker of an open migration: one thread, at low priority, that drives the backfill within its budget.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Phase;
use crate::core::{Change, Core, Shared};
use crate::error::{Error, Result};
use crate::ledger::Event;
use crate::migration::backfill::{Stepped, TableBackfill};
use crate::migration::pacer::{Budget, Measured, Pacer};
use crate::migration::retry::{self, Retries, is_transient};
use crate::migration::run::{Run, Waiting};
use crate::migration::turns::{self, Steps};
use crate::stats::{Activity, BackgroundMeter};
use crate::sync::{Instant, thread};

/// How often an idle worker looks for work that old writers made.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const SPACE_CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often an idle worker looks at a page of each quarantine.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Starts the worker of a run if the migration goes forward, is not paused, and the code is there.
pub(crate) fn start(core: &Arc<Core>, run: &Arc<Run>) -> Result<()> {
    let phase = core.catalog().migration(&run.name)?.phase()?;
    if !core.shared.settings.background {
        run.set(|control| control.waiting = Some(Waiting::Background));
        return Ok(());
    }
    if phase == Phase::Folding {
        return run.spawn(core, crate::migration::fold::work);
    }
    if !phase.is_forward() || run.control().paused {
        return Ok(());
    }
    match missing_code(run) {
        Some(table) => run.set(|control| control.waiting = Some(Waiting::Code { table })),
        None => run.spawn(core, work)?,
    }
    Ok(())
}

/// A table of the migration that no handle has brought the code for.
pub(crate) fn missing_code(run: &Run) -> Option<String> {
    run.tables.iter().find(|table| table.casts().is_none()).map(|table| table.step.table.clone())
}

fn work(core: &Arc<Core>, run: &Arc<Run>) {
    lower_priority();
    let meter = core.shared.recorder.background();
    let first = fraction(run);
    let copied = run.tables.iter().map(|t| t.progress.lock().counts.copied).sum();
    run.set(|control| control.started = Some((Instant::now(), copied, first)));
    let mut retries = Retries::new();
    while !run.stopping() {
        match backfill(core, run, &meter, &mut retries) {
            Ok(()) => return,
            Err(e) if is_transient(&e) && !core.shared.is_poisoned() => retries.rest(run, "backfill", &e),
            Err(e) => return retry::failed(run, "backfill", &e),
        }
    }
}

/// Runs until the run is stopped.
fn backfill(core: &Arc<Core>, run: &Arc<Run>, meter: &BackgroundMeter, retries: &mut Retries) -> Result<()> {
    let mut tables = Vec::new();
    for table in &run.tables {
        let casts =
            table.casts().ok_or_else(|| Error::state(&run.name, "the code of its version is gone"))?;
        tables.push(TableBackfill::new(table, casts));
    }
    let (mut pacer, mut steps) = (Pacer::new(), Steps::new());
    let mut space_checked: Option<Instant> = None;
    let mut tidied: Option<Instant> = None;
    while !run.stopping() {
        core.shared.check_usable()?;
        if space_checked.is_none_or(|at| at.elapsed() >= SPACE_CHECK_EVERY) {
            space_checked = Some(Instant::now());
            if let Some(waiting) = short_of_space(&core.shared) {
                run.set(|control| control.waiting = Some(waiting));
                run.sleep(SPACE_CHECK_EVERY);
                space_checked = None;
                continue;
            }
        }
        if run.control().waiting.is_some() {
            run.set(|control| control.waiting = None);
        }
        let budget = run.control().budget;
        core.shared.recorder.budget_ns.store(nanos(budget.pause()), crate::sync::atomic::Ordering::Relaxed);
        give_way_within(&budget, &core.shared, || run.stopping());
        let batch = pacer.batch();
        let hurried = budget == Budget::unlimited();
        tables.iter_mut().for_each(|table| table.keep_turns(hurried));
        let (stepped, spent) = steps.timed(|| step_first_unfinished(&mut tables, meter, batch));
        let stepped = stepped?;
        if stepped.moved {
            run.sleep(Duration::from_millis(1));
            continue;
        }
        if stepped.caught_up {
            completed(core, run)?;
            retries.got_on();
            if tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
                tidied = Some(Instant::now());
                tidy(run)?;
            }
            run.sleep(LOOK_EVERY);
            continue;
        }
        if stepped.records > 0 {
            retries.got_on();
        }
        core.shared.recorder.batch(stepped.engine);
        run.set_activity(Activity::Backfill);
        let measured = Measured { records: stepped.records, engine: stepped.engine, spent };
        rest(run, pacer.rest_after(&budget, &measured));
    }
    Ok(())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Rests while the medium is behind, so that what little may wait for it is left to the foreground.
pub(crate) fn give_way(shared: &Shared, stopping: impl Fn() -> bool) {
    turns::rest_while(|| shared.engine.is_pressed() && !stopping());
}

/// The same for work with a budget; without one it is asked for speed and for nothing else, and would only wait for the disk,
/// again and again.
pub(crate) fn give_way_within(budget: &Budget, shared: &Shared, stopping: impl Fn() -> bool) {
    if *budget != Budget::unlimited() {
        give_way(shared, stopping);
    }
}

/// A rest is short; only a long one listens for changes.
fn rest(run: &Run, rest: Duration) {
    if rest > Duration::from_millis(20) {
        run.sleep(rest);
    } else if !rest.is_zero() {
        thread::sleep(rest);
    }
}

/// Steps the first table that has work; `caught_up` if none has.
pub(crate) fn step_first_unfinished(
    tables: &mut [TableBackfill<'_>],
    meter: &BackgroundMeter,
    batch: usize,
) -> Result<Stepped> {
    for table in tables {
        let stepped = table.step(meter, batch)?;
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
            .count(&format!("{} copied", table.step.table), counts.copied)
            .count(&format!("{} brought forward", table.step.table), counts.brought_forward)
            .count(&format!("{} quarantined", table.step.table), counts.quarantined);
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

/// Asks the system to prefer other threads to this one, where it knows a priority by thread. Moderately: a
/// worker that is starved while it holds one of the engine's locks would hold up the foreground.
pub(crate) fn lower_priority() {
    // In a chosen interleaving all threads are one thread of the system.
    #[cfg(all(target_os = "linux", not(exuvia_shuttle)))]
    {
        const NICER_BY: i32 = 5;
        // Relative to what the process has: one that was started at a low priority must not be raised here.
        let thread = Some(rustix::thread::gettid());
        if let Ok(nice) = rustix::process::getpriority_process(thread) {
            let _ = rustix::process::setpriority_process(thread, nice.saturating_add(NICER_BY).min(19));
        }
    }
}
