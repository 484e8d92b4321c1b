//! What is known in memory of an open migration, and the control of its one worker.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Catalog, MigrationEntry, Phase, Progress, Stage, Step};
use crate::core::{Core, Shared};
use crate::engine::Page;
use crate::error::{EngineErrorKind, Error, Result};
use crate::flusher::Ticket;
use crate::lineage::Casts;
use crate::migration::Budget;
use crate::quarantine;
use crate::route::{Frontier, Kind, TableState};
use crate::stats::Activity;
use crate::sync::thread::{self, JoinHandle, ThreadId};
use crate::sync::{Condvar, Instant, Mutex};

/// One table of an open migration. Tables whose step is metadata only have none.
pub(crate) struct RunTable {
    pub(crate) state: Arc<TableState>,
    pub(crate) step: Step,
    /// The overlay's name; the key of the persisted progress.
    pub(crate) overlay: String,
    pub(crate) progress: Mutex<Progress>,
    /// Where a pass over the overlay (to revert, or to bring forward) goes on, if one is under way. It outlives
    /// the worker that began it.
    pub(crate) pass: Mutex<Option<Bound<Vec<u8>>>>,
    /// A cursor that may be persisted once a flush that started after the ticket is done. It outlives the worker
    /// too, or a backfill that is driven step by step would persist none.
    pub(crate) unsaved: Mutex<Option<(Ticket, Vec<u8>)>>,
    /// Where the next look for stale entries of the quarantine goes on.
    tidy: Mutex<Bound<Vec<u8>>>,
}

/// The migration is driven by one thread at a time (rule 4): its worker, a caller of `step`, or a verb. Whoever
/// holds the seat may change progress, frontier, routes and phase; everyone else takes it first.
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) tables: Vec<RunTable>,
    control: Mutex<Control>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Control {
    /// The thread that has the seat.
    seated: Option<ThreadId>,
    /// Verbs that wait for the seat: who has it gives it up soon. A closed store waits for ever.
    wanted: usize,
    pub(crate) paused: bool,
    /// The seat is the worker's.
    pub(crate) running: bool,
    pub(crate) budget: Budget,
    pub(crate) waiting: Option<Waiting>,
    /// What kind of failure of the engine it waits for, if it does.
    pub(crate) failure: Option<EngineErrorKind>,
    /// When and where the present worker started: for rate and ETA.
    pub(crate) started: Option<(Instant, u64, f64)>,
    pub(crate) closed: bool,
}

/// Why a worker does not get on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// No handle with the code of the new version is open in this process.
    Code {
        /// The table that lacks it.
        table: String,
    },
    /// The medium has less free space than the store's floor.
    Space {
        /// Free bytes.
        free: u64,
        /// The floor (`Options::free_bytes_min`).
        floor: u64,
    },
    /// The store was opened without background work.
    Background,
    /// The engine failed; it is tried again.
    Retry {
        /// The error.
        reason: String,
        /// Failures in a row, with nothing done between them.
        tries: u32,
    },
    /// The worker ended with an error that trying again does not mend.
    Failed {
        /// The error.
        reason: String,
    },
}

impl Run {
    /// Brings the run of a catalogued migration to life: frontier, activity, backlog.
    pub(crate) fn load(core: &Core, catalog: &Catalog, name: &str, fresh: bool) -> Result<Arc<Run>> {
        let entry = catalog.migration(name)?;
        let phase = entry.phase()?;
        let mut tables = Vec::new();
        for step in entry.tables.iter().filter(|step| !step.metadata_only) {
            let table = catalog.table(&step.table)?;
            let state = core.table(&step.table)?;
            let Some(overlay) = table.overlay().map(|g| table.tree(g)) else {
                return Err(Error::state(format!("migration {name}"), "a table of it has no overlay"));
            };
            // A generation that was made just now has none; and what is begun must not depend on a look that may fail.
            let progress = if fresh { Progress::start() } else { load_progress(&core.shared, &overlay)? };
            let stage = progress.stage()?;
            state.set_frontier(frontier_of(stage, &progress));
            if !fresh {
                // What old code wrote in another process is not in this one's queue.
                state.backlog.demand_pass();
            }
            state.set_activity(activity_of(phase));
            let (progress, pass) = (Mutex::new(progress), Mutex::new(None));
            let (step, unsaved, tidy) = (step.clone(), Mutex::new(None), Mutex::new(Bound::Unbounded));
            tables.push(RunTable { state, step, overlay, progress, pass, unsaved, tidy });
        }
        let control = Control {
            seated: None,
            wanted: 0,
            paused: entry.paused,
            running: false,
            budget: core.shared.settings.budget,
            waiting: None,
            failure: None,
            started: None,
            closed: false,
        };
        Ok(Arc::new(Run {
            name: name.to_owned(),
            tables,
            control: Mutex::new(control),
            changed: Condvar::new(),
            thread: Mutex::new(None),
        }))
    }

    pub(crate) fn control(&self) -> Control {
        self.control.lock().clone()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Control)) {
        change(&mut self.control.lock());
        self.changed.notify_all();
    }

    /// Whether someone waits for the seat.
    pub(crate) fn stopping(&self) -> bool {
        self.control.lock().wanted > 0
    }

    /// Sleeps until something changes, at most `at_most`.
    pub(crate) fn sleep(&self, at_most: Duration) {
        let mut control = self.control.lock();
        if control.wanted == 0 {
            self.changed.wait_for(&mut control, at_most);
        }
    }

    fn conflict(&self) -> Error {
        Error::Conflict { subject: format!("migration {}", self.name) }
    }

    /// Takes the seat for a verb; who has it is asked to stop. To be followed by [`super::start_worker`] once the
    /// seat is free again, unless the migration is closed.
    ///
    /// Refused to the thread that has it: that is an observer's call, made from inside the work.
    pub(crate) fn seat(&self) -> Result<Seat<'_>> {
        let me = thread::current().id();
        let mut control = self.control.lock();
        if control.seated == Some(me) {
            let reason =
                "an observer called this from the thread that drives the migration; use another thread";
            return Err(Error::state(format!("migration {}", self.name), reason));
        }
        control.wanted += 1;
        self.changed.notify_all();
        while control.seated.is_some() {
            self.changed.wait(&mut control);
        }
        control.wanted -= 1;
        if control.closed {
            drop(control);
            self.changed.notify_all();
            return Err(self.conflict());
        }
        control.seated = Some(me);
        Ok(Seat { run: self })
    }

    /// Takes the seat if it is free and nobody waits for it.
    pub(crate) fn try_seat(&self) -> Option<Seat<'_>> {
        let mut control = self.control.lock();
        if control.seated.is_some() || control.wanted > 0 || control.closed {
            return None;
        }
        control.seated = Some(thread::current().id());
        Some(Seat { run: self })
    }

    /// Starts a worker if the seat is free. If it is not, whoever has it or waits for it starts one afterwards.
    pub(crate) fn spawn(
        self: &Arc<Run>,
        core: &Arc<Core>,
        body: impl FnOnce(&Arc<Core>, &Arc<Run>) + Send + 'static,
    ) -> Result<()> {
        let mut thread = self.thread.lock();
        let Some(seat) = self.try_seat() else {
            return Ok(());
        };
        self.set(|control| {
            control.running = true;
            control.waiting = None;
        });
        // The seat goes over to the worker: freed by it, or here if there will be none.
        std::mem::forget(seat);
        if let Some(old) = thread.take() {
            drop(old.join());
        }
        let (core, run) = (Arc::clone(core), Arc::clone(self));
        let spawned = crate::core::spawn("exuvia-backfill", move || {
            run.set(|control| control.seated = Some(thread::current().id()));
            let seat = Seat { run: &run };
            body(&core, &run);
            drop(core);
            drop(seat);
        });
        match spawned {
            Ok(handle) => {
                self.set(|control| {
                    if control.seated == Some(thread::current().id()) {
                        control.seated = Some(handle.thread().id());
                    }
                });
                *thread = Some(handle);
                Ok(())
            }
            Err(e) => {
                drop(Seat { run: self });
                Err(e)
            }
        }
    }

    /// The migration is closed, durably: nobody takes the seat again. The run stays known, so that a store that
    /// is being closed waits for its worker too.
    pub(crate) fn close(&self, shared: &Shared) {
        self.set(|control| control.closed = true);
        for table in &self.tables {
            // A key that nothing reads any more: of no account if it stays.
            if let Err(e) = forget_progress(shared, &table.overlay) {
                tracing::warn!(target: "exuvia", error = %e, "the progress of a closed migration stays behind");
            }
        }
    }

    /// Ends all work on the migration for good, and waits until it has ended: the store is being closed.
    pub(crate) fn shut(&self) {
        let me = thread::current().id();
        let mut control = self.control.lock();
        control.wanted += 1;
        self.changed.notify_all();
        while control.seated.is_some_and(|seated| seated != me) {
            self.changed.wait(&mut control);
        }
        drop(control);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.thread().id() != me
        {
            drop(thread.join());
        }
    }

    pub(crate) fn set_activity(&self, activity: Activity) {
        for table in &self.tables {
            table.state.set_activity(activity);
        }
    }

    /// Whether the copy is done and nothing of old writers is left to bring forward.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.tables.iter().all(|table| {
            table.state.backlog.is_empty()
                && table.pass.lock().is_none()
                && matches!(table.progress.lock().stage(), Ok(Stage::Forwarding))
        })
    }

    /// The phase, as far as the catalog says `complete` and old writers have not undone it since (rule 12).
    pub(crate) fn visible_phase(&self, entry: &MigrationEntry) -> Result<Phase> {
        let phase = entry.phase()?;
        Ok(if phase == Phase::Complete && !self.is_caught_up() { Phase::Open } else { phase })
    }
}

/// The right to drive a migration; free again when dropped, also by a panic.
#[must_use = "the seat is free again at once"]
pub(crate) struct Seat<'a> {
    run: &'a Run,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.run.set(|control| {
            control.seated = None;
            control.running = false;
        });
    }
}

impl RunTable {
    /// Removes what has become stale in the next page of the quarantine, and begins again when it has come to its end.
    /// The caller has the seat.
    pub(crate) fn tidy_quarantine(&self) -> Result<()> {
        let route = self.state.route_owned();
        let Kind::Open(open) = &route.kind else {
            return Ok(());
        };
        let mut lower = self.tidy.lock();
        let next = quarantine::forget_stale(&self.state.shared, &self.state, open, &lower)?;
        *lower = next.unwrap_or(Bound::Unbounded);
        Ok(())
    }

    pub(crate) fn casts(&self) -> Option<Casts> {
        self.state.newest_code()?.at(self.step.to).copied()
    }

    /// The share of the base that is copied, by the position of the cursor between the first and the last key:
    /// an estimate that costs two lookups and is good where keys are spread evenly.
    pub(crate) fn fraction(&self) -> f64 {
        let progress = self.progress.lock().clone();
        match progress.stage() {
            Ok(Stage::Forwarding) => return 1.0,
            Ok(Stage::Copying) if !progress.cursor.is_empty() => {}
            _ => return 0.0,
        }
        let route = self.state.route_owned();
        let (Kind::Open(open) | Kind::Folding(open)) = &route.kind else {
            return 0.0;
        };
        let end_of = |reverse| {
            let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
            let mut page = Page::new();
            open.base.tree.scan(all, reverse, 1, &mut page).ok()?;
            page.pop().map(|(key, _)| key)
        };
        let (Some(first), Some(last)) = (end_of(false), end_of(true)) else {
            return 0.0;
        };
        let common = first.iter().zip(last.iter()).take_while(|(a, b)| a == b).count();
        let position = |key: &[u8]| {
            key.iter()
                .skip(common)
                .take(8)
                .zip(1..)
                .fold(0.0, |sum, (byte, at)| sum + f64::from(*byte) / 256f64.powi(at))
        };
        let (first, last, at) = (position(&first), position(&last), position(&progress.cursor));
        if last > first { ((at - first) / (last - first)).clamp(0.0, 1.0) } else { 0.0 }
    }
}

fn frontier_of(stage: Stage, progress: &Progress) -> Frontier {
    match stage {
        Stage::Reverting => Frontier::Start,
        Stage::Copying if progress.cursor.is_empty() => Frontier::Start,
        Stage::Copying => Frontier::After(progress.cursor.clone()),
        Stage::Forwarding => Frontier::End,
    }
}

pub(crate) fn activity_of(phase: Phase) -> Activity {
    match phase {
        Phase::Open => Activity::Backfill,
        Phase::Complete => Activity::Complete,
        Phase::RolledBack => Activity::Rollback,
        Phase::Folding => Activity::Fold,
        Phase::Contracted | Phase::Abandoned => Activity::Sweep,
    }
}

pub(crate) fn load_progress(shared: &Shared, overlay: &str) -> Result<Progress> {
    let key = Progress::key(overlay);
    match shared.engine.tree(crate::catalog::TREE)?.get(&key)? {
        Some(bytes) => Progress::from_bytes(&key, &bytes).or_else(|e| {
            // Losing it costs time only: everything derived is made again, from the first key on.
            tracing::warn!(target: "exuvia", error = %e, "the backfill starts again");
            let mut progress = Progress::start();
            progress.set_stage(Stage::Reverting);
            Ok(progress)
        }),
        None => Ok(Progress::start()),
    }
}

/// Writes progress. The caller has flushed what it claims.
pub(crate) fn save_progress(shared: &Shared, overlay: &str, progress: &Progress) -> Result<()> {
    let key = Progress::key(overlay);
    shared.engine.tree(crate::catalog::TREE)?.put(&key, &progress.to_bytes(&key)?)?;
    shared.flusher.touch();
    Ok(())
}

pub(crate) fn forget_progress(shared: &Shared, overlay: &str) -> Result<()> {
    shared.engine.tree(crate::catalog::TREE)?.delete(&Progress::key(overlay))?;
    Ok(())
}
