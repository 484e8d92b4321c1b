//! The sweeper: what closed migrations left behind, in small steps under the pause budget.
//!
//! 1. Trees that the catalog does not name are emptied page by page, unless the engine drops a full one at once, and then
//!    dropped (generation ids are never used again, so such a tree is certainly nobody's). First, so that the rest can
//!    use their space.
//! 2. A generation that a contract left with companions and tombstones is cleaned by compare-and-set. The work
//!    belongs to a generation, and `begin` stops it first (O5); it need not have finished, since in a base a
//!    tombstone is absence and a companion means nothing. Neither does DERIVED, which takes no space: what the backfill
//!    wrote, and nobody since, is read and left as it is.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::caught::caught;
use crate::engine::{Page, Tree, Value};
use crate::error::{Error, Result};
use crate::form::envelope::{self, Entry, Flags};
use crate::measure::observe::Activity;
use crate::measure::observe::WorkKind;
use crate::migration::core::{Core, Sweeper};
use crate::migration::host::Sweeping;
use crate::pace::{Calls, PAGE_RECORDS, Paced, Step, Stop, lower_priority};
use crate::state::catalog::place::{self, Place};
use crate::state::change::Change;
use crate::state::ledger::Event;
use crate::state::route::{Kind, TableState};
use crate::state::shared::Shared;
use crate::sync::Instant;

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
        // A closed store gets no new thread, and another thread's sweeper does the same work; one that could not be waited
        // for is followed by another.
        if sweeper.is_some() || self.shared.check_usable().is_err() {
            return Ok(());
        }
        let stop = Arc::new(Stop::default());
        let (core, stopped) = (Arc::clone(self), Arc::clone(&stop));
        let thread = crate::threads::spawn("exuvia-sweep", move || {
            let _on_duty = core.duties.sweep.begin();
            lower_priority();
            match caught(|| sweep(&core, &stopped)) {
                Ok(Ok(())) => {}
                Ok(Err(e)) => {
                    tracing::warn!(target: "exuvia", error = %e, "sweep ended; it goes on at the next open");
                }
                Err(text) => tracing::error!(target: "exuvia", text, "the sweep panicked"),
            }
        })
        .inspect_err(|_| self.owe_sweeper())?;
        *sweeper = Some(Sweeper { stop, thread });
        Ok(())
    }

    /// Stops the sweeper and waits until it is gone. User code inside the sweep does not wait: the sweeper ends when that
    /// has returned, before its next record, and is started anew later.
    pub(crate) fn stop_sweeper(&self) {
        if let Some(sweeper) = &*self.sweeper.lock() {
            sweeper.stop.ask();
        }
        let Ok(_awaiting) = self.duties.sweep.await_one(|| "sweep".to_owned()) else {
            return self.owe_sweeper();
        };
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

fn sweep(core: &Arc<Core>, stop: &Stop) -> Result<()> {
    let host = Sweeping { stop, shared: &core.shared };
    let mut paced = Paced::new(host, core.shared.recorder.background());
    let catalog = core.catalog();
    let unswept = catalog
        .tables
        .iter()
        .filter(|(_, table)| table.migration.is_none() && table.generations.iter().any(|g| g.unswept));
    let unswept = unswept.map(|(name, _)| core.table(name)).collect::<Result<Vec<_>>>()?;
    unswept.iter().for_each(|state| state.set_activity(Activity::Sweep));
    // What nobody reads goes first: the sweep of the records can use its space.
    if !drop_dead(core, &mut paced, stop)? {
        return Ok(());
    }
    for state in &unswept {
        if !clean(core, state, &mut paced, stop)? {
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
fn drop_dead(core: &Core, paced: &mut Paced<Sweeping<'_>>, stop: &Stop) -> Result<bool> {
    let engine = &core.shared.engine;
    for tree in engine.trees()? {
        if core.is_dead(&tree) {
            if !engine.capabilities().drops_at_once && !empty(&core.shared, &tree, paced, stop)? {
                return Ok(false);
            }
            if stop.is_asked() {
                return Ok(false);
            }
            let dropping = Instant::now();
            let dropped = engine.drop_tree(&tree);
            core.shared.recorder.worked(WorkKind::Drop, dropping.elapsed());
            dropped?;
            place::forget(&*core.shared.engine, &tree)?;
        }
    }
    Ok(true)
}

/// Removes all records of a tree that nobody reads. Answers `false` if it was stopped.
fn empty(shared: &Shared, name: &str, paced: &mut Paced<Sweeping<'_>>, stop: &Stop) -> Result<bool> {
    let tree = shared.engine.tree(name)?;
    walk(paced, &*tree, &mut Bound::Unbounded, stop, |key, _value, calls| {
        Ok(calls.make(|| tree.delete(key)).map(|()| true)?)
    })
}

/// Drops companions, tombstones and markers from a settled table's generation.
fn clean(core: &Core, state: &Arc<TableState>, paced: &mut Paced<Sweeping<'_>>, stop: &Stop) -> Result<bool> {
    let started = Instant::now();
    let route = state.route_owned();
    let Kind::Settled { tree, .. } = &route.kind else {
        return Ok(true);
    };
    let mut swept = 0;
    let mut lower = match place::load(&*core.shared.engine, &tree.name)? {
        Some(Place::From(from)) => Bound::Included(from),
        _ => Bound::Unbounded,
    };
    let finished = walk(paced, &*tree.tree, &mut lower, stop, |key, value, calls| {
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
        let swap = || tree.tree.compare_and_swap(key, Some(old.bytes()), new.as_deref());
        let done = state.gated(route.epoch, &mut waited, || calls.make(swap))?;
        swept += 1;
        Ok(done.is_some())
    });
    // A store that is being closed refuses its writes before it asks the sweeper to stop.
    let finished = finished.or_else(|e| if matches!(e, Error::Closed) { Ok(false) } else { Err(e) })?;
    core.shared.flush()?;
    if !finished {
        if let Bound::Excluded(last) = lower {
            place::save(&*core.shared.engine, &tree.name, &Place::after(&last))?;
        }
        return Ok(false);
    }
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
    place::forget(&*core.shared.engine, &tree.name)?;
    Ok(true)
}

/// Goes through a tree from `lower` on, in batches under the store's budget, and leaves there where it would go on.
/// Answers `false` if it was stopped, or `each` said so.
fn walk(
    paced: &mut Paced<Sweeping<'_>>,
    tree: &dyn Tree,
    lower: &mut Bound<Vec<u8>>,
    stop: &Stop,
    mut each: impl FnMut(&[u8], Value, &mut Calls) -> Result<bool>,
) -> Result<bool> {
    paced.drive(|batch, calls| {
        let mut records = 0;
        while records < batch {
            let mut page = Page::new();
            let range = (lower.as_ref().map(Vec::as_slice), Bound::Unbounded);
            let limit = PAGE_RECORDS.min(batch - records);
            let end = calls.make(|| tree.scan(range, false, limit, &mut page));
            calls.give_turn();
            let end = end?;
            let found = page.len();
            records += found;
            for (key, value) in page {
                let before = calls.count();
                if stop.is_asked() || !each(&key, value, calls)? {
                    return Ok(Step::Stopped);
                }
                if calls.count() > before {
                    calls.give_turn();
                }
                *lower = Bound::Excluded(key.to_vec());
            }
            if end {
                return Ok(Step::Done);
            }
            if found == 0 {
                break;
            }
        }
        Ok(Step::Did(records))
    })
}
