//! The sweeper: what closed migrations left behind, in small steps under the pause budget.
//!
//! 1. Trees that the catalog does not name are emptied page by page, unless the engine drops a full one at once, and then
//!    dropped (generation ids are never used again, so such a tree is certainly nobody's). First, so that the rest can
//!    use their space.
//! 2. A generation that a contract left with companions and tombstones is cleaned by compare-and-set. The work
//!    belongs to a generation, and `begin` stops it first (rule 5); it need not have finished, since in a base a
//!    tombstone is absence and a companion means nothing. Neither does DERIVED, which takes no space: what the backfill
//!    wrote, and nobody since, is read and left as it is.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::core::{Change, Core, Shared};
use crate::engine::{Page, Tree};
use crate::envelope::{self, Entry, Flags};
use crate::error::Result;
use crate::ledger::Event;
use crate::migration::pacer::{Measured, Pacer};
use crate::migration::turns::{PAGE_RECORDS, Steps, give_turn};
use crate::migration::worker;
use crate::observe::WorkKind;
use crate::route::{Kind, TableState};
use crate::stats::{Activity, BackgroundMeter};
use crate::sync::Instant;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, JoinHandle};

pub(crate) struct Sweeper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sweeper {
    pub(crate) fn join(self) {
        self.stop.store(true, Ordering::Release);
        if self.thread.thread().id() != thread::current().id() {
            drop(self.thread.join());
        }
    }
}

impl Core {
    /// Starts the sweeper, if there is anything to sweep; one that runs is stopped first. A failure is no
    /// failure of the verb that left something to sweep: it waits for the next verb, or the next open.
    pub(crate) fn start_sweeper(self: &Arc<Core>) {
        if let Err(e) = self.try_start_sweeper() {
            tracing::warn!(target: "exuvia", error = %e, "the sweep could not begin; it waits for the next open");
        }
    }

    fn try_start_sweeper(self: &Arc<Core>) -> Result<()> {
        // Joined under no lock: an observer that the old one is telling may ask about it.
        self.stop_sweeper();
        if !self.shared.settings.background {
            return Ok(());
        }
        let catalog = self.catalog();
        let unswept =
            catalog.tables.values().any(|t| t.migration.is_none() && t.generations.iter().any(|g| g.unswept));
        let dead = self.shared.engine.trees()?.iter().any(|tree| self.is_dead(tree));
        if !unswept && !dead {
            return Ok(());
        }
        let mut sweeper = self.sweeper.lock();
        // A closed store gets no new thread, and another thread's sweeper does the same work.
        if sweeper.is_some() || self.shared.check_usable().is_err() {
            return Ok(());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (core, stopped) = (Arc::clone(self), Arc::clone(&stop));
        let thread = crate::core::spawn("exuvia-sweep", move || {
            worker::lower_priority();
            if let Err(e) = sweep(&core, &stopped) {
                tracing::warn!(target: "exuvia", error = %e, "sweep ended; it goes on at the next open");
            }
        })?;
        *sweeper = Some(Sweeper { stop, thread });
        Ok(())
    }

    /// Stops the sweeper and waits until it is gone.
    pub(crate) fn stop_sweeper(&self) {
        let sweeper = self.sweeper.lock().take();
        if let Some(sweeper) = sweeper {
            sweeper.join();
        }
    }

    /// Whether a sweep is at work.
    pub(crate) fn is_sweeping(&self) -> bool {
        self.sweeper.lock().as_ref().is_some_and(|sweeper| !sweeper.thread.is_finished())
    }
}

fn sweep(core: &Arc<Core>, stop: &AtomicBool) -> Result<()> {
    let meter = core.shared.recorder.background();
    let catalog = core.catalog();
    let unswept = catalog
        .tables
        .iter()
        .filter(|(_, table)| table.migration.is_none() && table.generations.iter().any(|g| g.unswept));
    let unswept = unswept.map(|(name, _)| core.table(name)).collect::<Result<Vec<_>>>()?;
    unswept.iter().for_each(|state| state.set_activity(Activity::Sweep));
    // What nobody reads goes first: the sweep of the records can use its space.
    if !drop_dead(core, &meter, stop)? {
        return Ok(());
    }
    for state in &unswept {
        if !clean(core, state, &meter, stop)? {
            return Ok(());
        }
    }
    for name in catalog.tables.keys() {
        let state = core.table(name)?;
        if state.activity() == Activity::Sweep {
            state.set_activity(Activity::Idle);
        }
    }
    Ok(())
}

/// Drops the trees that belong to no table. Answers `false` if it was stopped.
fn drop_dead(core: &Arc<Core>, meter: &BackgroundMeter, stop: &AtomicBool) -> Result<bool> {
    let engine = &core.shared.engine;
    for tree in engine.trees()? {
        if core.is_dead(&tree) {
            if !engine.capabilities().drops_at_once && !empty(&core.shared, &tree, meter, stop)? {
                return Ok(false);
            }
            if stop.load(Ordering::Acquire) {
                return Ok(false);
            }
            let dropping = Instant::now();
            let dropped = engine.drop_tree(&tree);
            core.shared.recorder.worked(WorkKind::Drop, dropping.elapsed());
            dropped?;
        }
    }
    Ok(true)
}

/// Removes all records of a tree that nobody reads. Answers `false` if it was stopped.
fn empty(shared: &Shared, name: &str, meter: &BackgroundMeter, stop: &AtomicBool) -> Result<bool> {
    let tree = shared.engine.tree(name)?;
    paced(shared, &*tree, meter, stop, |key, _value, calls| {
        let (done, took) = meter.call(|| tree.delete(key));
        calls.push(took);
        Ok(done.map(|()| true)?)
    })
}

/// Drops companions, tombstones and markers from a settled table's generation.
fn clean(
    core: &Arc<Core>,
    state: &Arc<TableState>,
    meter: &BackgroundMeter,
    stop: &AtomicBool,
) -> Result<bool> {
    let started = Instant::now();
    let route = state.route_owned();
    let Kind::Settled { tree, .. } = &route.kind else {
        return Ok(true);
    };
    let mut swept = 0;
    let finished = paced(&core.shared, &*tree.tree, meter, stop, |key, value, calls| {
        // A damaged record is left for its readers to find.
        let Ok(old) = Entry::parse(key, value) else {
            return Ok(true);
        };
        if old.flags() == Flags::NONE || old.flags() == Flags::DERIVED {
            return Ok(true);
        }
        let new = if old.is_tombstone() || old.is_failed_marker() {
            None
        } else {
            Some(envelope::seal(key, Flags::NONE, old.version(), old.main(), None))
        };
        let mut waited = Duration::ZERO;
        let done = state.gated(route.epoch, &mut waited, || {
            let (result, took) =
                meter.call(|| tree.tree.compare_and_swap(key, Some(old.bytes()), new.as_deref()));
            calls.push(took);
            result
        })?;
        swept += 1;
        Ok(done.is_some())
    })?;
    if !finished {
        return Ok(false);
    }
    core.shared.flush()?;
    let generation = tree.name.to_string();
    core.change(started, move |catalog| {
        let name = state.name.to_string();
        let event = Event::new("sweep", &name).count("entries swept", swept);
        let table = catalog.table_mut(&name)?;
        let id = table.id;
        for swept in table.generations.iter_mut().filter(|g| format!("{id}/{}", g.id) == generation) {
            swept.unswept = false;
        }
        Ok(Change { event, flips: Vec::new(), result: () })
    })?;
    Ok(true)
}

/// What a batch left to do.
enum Left {
    More,
    Nothing,
    /// Whatever there is: the sweep has to end here.
    Stopped,
}

/// Goes through a tree in batches under the store's budget. Answers `false` if it was stopped, or `each` said so.
fn paced(
    shared: &Shared,
    tree: &dyn Tree,
    meter: &BackgroundMeter,
    stop: &AtomicBool,
    mut each: impl FnMut(&[u8], crate::engine::Value, &mut Vec<Duration>) -> Result<bool>,
) -> Result<bool> {
    let budget = shared.settings.budget;
    let mut lower = Bound::Unbounded;
    let (mut pacer, mut steps) = (Pacer::new(), Steps::new());
    loop {
        if stop.load(Ordering::Acquire) {
            return Ok(false);
        }
        worker::give_way(shared, || stop.load(Ordering::Acquire));
        let (mut calls, mut records) = (Vec::new(), 0);
        let batch = pacer.batch();
        let (left, spent) = steps.timed(|| -> Result<Left> {
            while records < batch {
                let mut page = Page::new();
                let range = (lower.as_ref().map(Vec::as_slice), Bound::Unbounded);
                let limit = PAGE_RECORDS.min(batch - records);
                let (end, took) = meter.call(|| tree.scan(range, false, limit, &mut page));
                calls.push(took);
                give_turn();
                let end = end?;
                let found = page.len();
                records += found;
                for (key, value) in page {
                    let before = calls.len();
                    if !each(&key, value, &mut calls)? {
                        return Ok(Left::Stopped);
                    }
                    if calls.len() > before {
                        give_turn();
                    }
                    lower = Bound::Excluded(key.to_vec());
                }
                if end {
                    return Ok(Left::Nothing);
                }
                if found == 0 {
                    break;
                }
            }
            Ok(Left::More)
        });
        let left = left?;
        meter.record(&calls);
        let engine = calls.iter().sum();
        shared.recorder.batch(engine);
        shared.flusher.touch();
        match left {
            Left::Stopped => return Ok(false),
            Left::Nothing => return Ok(true),
            Left::More => {}
        }
        thread::sleep(pacer.rest_after(&budget, &Measured { records, engine, spent }));
    }
}
