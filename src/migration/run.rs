//! What is known in memory of an open migration, and the control of its one worker.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quanta::Instant;

use crate::catalog::{Catalog, MigrationEntry, Phase, Progress, Stage, Step};
use crate::core::{Core, Shared};
use crate::engine::Page;
use crate::error::{Error, Result};
use crate::lineage::Casts;
use crate::migration::Budget;
use crate::route::{Frontier, TableState};
use crate::stats::Activity;

/// One table of an open migration. Tables whose step is metadata only have none.
pub(crate) struct RunTable {
    pub(crate) state: Arc<TableState>,
    pub(crate) step: Step,
    /// The overlay's name; the key of the persisted progress.
    pub(crate) overlay: String,
    pub(crate) progress: Mutex<Progress>,
}

pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) tables: Vec<RunTable>,
    control: Mutex<Control>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) stop: bool,
    pub(crate) paused: bool,
    pub(crate) running: bool,
    pub(crate) budget: Budget,
    pub(crate) waiting: Option<Waiting>,
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
                return Err(Error::state(
                    format!("migration {name}"),
                    "a table of it has no overlay",
                ));
            };
            let progress = load_progress(&core.shared, &overlay)?;
            let stage = progress.stage()?;
            state.set_frontier(frontier_of(stage, &progress));
            if !fresh {
                // What old code wrote in another process is not in this one's queue.
                state.backlog.demand_pass();
            }
            state.set_activity(activity_of(phase));
            tables.push(RunTable {
                state,
                step: step.clone(),
                overlay,
                progress: Mutex::new(progress),
            });
        }
        let control = Control {
            stop: false,
            paused: entry.paused,
            running: false,
            budget: core.shared.settings.budget,
            waiting: None,
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

    pub(crate) fn stopping(&self) -> bool {
        self.control.lock().stop
    }

    /// Sleeps until something changes, at most `at_most`.
    pub(crate) fn sleep(&self, at_most: Duration) {
        let mut control = self.control.lock();
        if !control.stop {
            self.changed.wait_for(&mut control, at_most);
        }
    }

    /// Starts a worker unless one runs.
    pub(crate) fn spawn(
        self: &Arc<Run>,
        core: &Arc<Core>,
        body: impl FnOnce(&Arc<Core>, &Arc<Run>) + Send + 'static,
    ) -> Result<()> {
        let mut thread = self.thread.lock();
        {
            let mut control = self.control.lock();
            if control.running {
                return Ok(());
            }
            control.stop = false;
            control.running = true;
            control.waiting = None;
        }
        if let Some(old) = thread.take() {
            drop(old.join());
        }
        let (core, run) = (Arc::clone(core), Arc::clone(self));
        let spawned = crate::core::spawn("exuvia-backfill", move || {
            body(&core, &run);
            run.set(|control| control.running = false);
        });
        match spawned {
            Ok(handle) => {
                *thread = Some(handle);
                Ok(())
            }
            Err(e) => {
                self.set(|control| control.running = false);
                Err(e)
            }
        }
    }

    /// Stops the worker and waits until it is gone (ordering rule 4).
    pub(crate) fn join(&self) {
        self.set(|control| control.stop = true);
        let mut thread = self.thread.lock();
        if let Some(handle) = thread.take()
            && handle.thread().id() != std::thread::current().id()
        {
            drop(handle.join());
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
            table.state.backlog.is_empty() && matches!(table.progress.lock().stage(), Ok(Stage::Forwarding))
        })
    }

    /// The phase, as far as the catalog says `complete` and old writers have not undone it since (rule 12).
    pub(crate) fn visible_phase(&self, entry: &MigrationEntry) -> Result<Phase> {
        let phase = entry.phase()?;
        Ok(if phase == Phase::Complete && !self.is_caught_up() {
            Phase::Open
        } else {
            phase
        })
    }
}

impl RunTable {
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
        let (crate::route::Kind::Open(open) | crate::route::Kind::Folding(open)) = &route.kind else {
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
        if last > first {
            ((at - first) / (last - first)).clamp(0.0, 1.0)
        } else {
            0.0
        }
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
        Some(bytes) => Progress::from_bytes(&key, &bytes),
        None => Ok(Progress::start()),
    }
}

/// Writes progress. The caller has flushed what it claims.
pub(crate) fn save_progress(shared: &Shared, overlay: &str, progress: &Progress) -> Result<()> {
    let key = Progress::key(overlay);
    shared
        .engine
        .tree(crate::catalog::TREE)?
        .put(&key, &progress.to_bytes(&key)?)?;
    shared.flusher.touch();
    Ok(())
}

pub(crate) fn forget_progress(shared: &Shared, overlay: &str) -> Result<()> {
    shared
        .engine
        .tree(crate::catalog::TREE)?
        .delete(&Progress::key(overlay))?;
    Ok(())
}
