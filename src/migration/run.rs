//! What is known in memory of an open migration, and the control of its one worker.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::caught::caught;
use crate::duty::{Awaiting, Duty, OnDuty};
use crate::engine::Page;
use crate::error::{EngineErrorKind, Error, Result};
use crate::measure::observe::Activity;
use crate::migration::behind::Backlog;
use crate::pace::Budget;
use crate::record::lineage::Casts;
use crate::state::catalog::place::{self, Place};
use crate::state::catalog::{Catalog, MigrationEntry, Phase, Progress, Stage, Step, TREE};
use crate::state::change::State;
use crate::state::flusher::Ticket;
use crate::state::in_quarantine;
use crate::state::route::{Frontier, Kind, TableState};
use crate::state::shared::Shared;
use crate::sync::thread::JoinHandle;
use crate::sync::{Condvar, Instant, Mutex};

/// One table of an open migration. Tables whose step is metadata only have none.
pub(crate) struct RunTable {
    pub(crate) state: Arc<TableState>,
    pub(crate) step: Step,
    /// The overlay's name; the key of the persisted progress.
    pub(crate) overlay: String,
    pub(crate) progress: Mutex<Progress>,
    /// Where a pass over the overlay, to bring forward, goes on, if one is under way. It outlives the worker that
    /// began it.
    pub(crate) pass: Mutex<Option<Bound<Vec<u8>>>>,
    /// Progress that may be persisted once a flush that started after the ticket is done: cursor and counts of one
    /// moment. It outlives the worker too, or a backfill that is driven step by step would persist none.
    unsaved: Mutex<Option<(Ticket, Progress)>>,
    /// Where the next look for stale entries of the quarantine goes on.
    tidy: Mutex<Bound<Vec<u8>>>,
}

/// The migration is driven by one thread at a time (O4): its worker, a caller of `step`, or a verb. Whoever
/// holds the seat may change progress, frontier, routes and phase; everyone else takes it first.
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) tables: Vec<RunTable>,
    control: Mutex<Control>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Of whoever has the seat, and of the threads that work for it.
    pub(crate) duty: Duty,
}

#[derive(Debug, Clone)]
pub(crate) struct Control {
    /// Somebody has the seat.
    seated: bool,
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
    /// The system refused to start the thread that would do the work; it is tried again.
    Thread {
        /// The error.
        reason: String,
    },
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
    /// Brings the run of a catalogued migration to life: frontier, activity, backlog. Of one that is being begun (`fresh`) the
    /// activity is left to the caller: it may come to nothing.
    pub(crate) fn load(store: &State, catalog: &Catalog, name: &str, fresh: bool) -> Result<Arc<Run>> {
        let entry = catalog.migration(name)?;
        let phase = entry.phase()?;
        let mut tables = Vec::new();
        for step in entry.tables.iter().filter(|step| !step.metadata_only) {
            let table = catalog.table(&step.table)?;
            let state = store.table(&step.table)?;
            let Some(overlay) = table.overlay().map(|g| table.tree(g)) else {
                return Err(Error::state(format!("migration {name}"), "a table of it has no overlay"));
            };
            // A generation that was made just now has none; and what is begun must not depend on a look that may fail.
            let (progress, pass) = if fresh {
                (Progress::start(), None)
            } else {
                let progress = load_progress(&store.shared, &overlay)?;
                let pass = load_pass(&store.shared, &state, &overlay, progress.stage()?)?;
                (progress, pass)
            };
            state.set_frontier(frontier_of(progress.stage()?, &progress));
            if !fresh {
                state.set_activity(activity_of(phase));
            }
            let (progress, pass) = (Mutex::new(progress), Mutex::new(pass));
            let (step, unsaved, tidy) = (step.clone(), Mutex::new(None), Mutex::new(Bound::Unbounded));
            tables.push(RunTable { state, step, overlay, progress, pass, unsaved, tidy });
        }
        let control = Control {
            seated: false,
            wanted: 0,
            paused: entry.paused,
            running: false,
            budget: store.shared.settings.budget,
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
            duty: Duty::new(),
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

    /// Before a wait for whoever drives the migration: refused to user code inside that very work, for which it would never
    /// end.
    pub(crate) fn awaited(&self) -> Result<Awaiting> {
        self.duty.await_one(|| format!("migration {}", self.name))
    }

    /// Takes the seat for a verb; who has it is asked to stop. To be followed by [`super::start_worker`] once the
    /// seat is free again, unless the migration is closed.
    pub(crate) fn seat(&self) -> Result<Seat<'_>> {
        let _awaiting = self.awaited()?;
        let mut control = self.control.lock();
        control.wanted += 1;
        self.changed.notify_all();
        while control.seated {
            self.changed.wait(&mut control);
        }
        control.wanted -= 1;
        if control.closed {
            drop(control);
            self.changed.notify_all();
            return Err(self.conflict());
        }
        control.seated = true;
        Ok(Seat::of(self))
    }

    /// Takes the seat if it is free and nobody waits for it.
    pub(crate) fn try_seat(&self) -> Option<Seat<'_>> {
        self.claim().then(|| Seat::of(self))
    }

    /// Makes the seat taken, for whoever then makes a [`Seat`] of it.
    fn claim(&self) -> bool {
        let mut control = self.control.lock();
        let free = !control.seated && control.wanted == 0 && !control.closed;
        control.seated |= free;
        free
    }

    /// Starts a worker if the seat is free. If it is not, whoever has it or waits for it starts one afterwards. Answers
    /// `false` if the system has no thread for it: then the migration waits for one.
    pub(crate) fn spawn(self: &Arc<Run>, body: impl FnOnce(&Arc<Run>) + Send + 'static) -> bool {
        let mut thread = self.thread.lock();
        if !self.claim() {
            return true;
        }
        self.set(|control| {
            control.running = true;
            control.waiting = None;
        });
        if let Some(old) = thread.take() {
            drop(old.join());
        }
        let run = Arc::clone(self);
        // The seat goes over to the worker: freed by it, or here if there will be none.
        let spawned = crate::threads::spawn("exuvia-backfill", move || {
            let seat = Seat::of(&run);
            if let Err(text) = caught(|| body(&run)) {
                run.died(&text);
            }
            drop(seat);
        });
        match spawned {
            Ok(handle) => {
                *thread = Some(handle);
                true
            }
            Err(e) => {
                self.set(|control| control.waiting = Some(Waiting::Thread { reason: e.to_string() }));
                drop(Seat::of(self));
                false
            }
        }
    }

    fn died(&self, text: &str) {
        tracing::error!(target: "exuvia", text, "the worker of a migration panicked");
        let reason =
            format!("its thread panicked: {text}; unpause the migration, and it goes on where it was");
        self.set(|control| {
            control.failure = None;
            control.waiting = Some(Waiting::Failed { reason });
        });
    }

    /// The migration is closed, durably: nobody takes the seat again. The run stays known, so that a store that
    /// is being closed waits for its worker too.
    pub(crate) fn close(&self, shared: &Shared) {
        self.set(|control| control.closed = true);
        for table in &self.tables {
            // A key that nothing reads any more: of no account if it stays.
            if let Err(e) = forget(shared, &table.overlay) {
                tracing::warn!(target: "exuvia", error = %e, "the progress of a closed migration stays behind");
            }
        }
    }

    /// Ends all work on the migration for good, and waits until it has ended: the store is being closed, or has let go of a
    /// migration that is closed. User code inside that work does not wait: it ends when that has returned. Answers whether
    /// it has ended.
    pub(crate) fn shut(&self) -> bool {
        self.set(|control| control.wanted += 1);
        let Ok(_awaiting) = self.awaited() else { return false };
        let mut control = self.control.lock();
        while control.seated {
            self.changed.wait(&mut control);
        }
        drop(control);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            drop(thread.join());
        }
        true
    }

    /// Writes down how far each table has come, after a flush, unless that is known: the store is being closed, and
    /// nobody drives the migration any more.
    pub(crate) fn save(&self, shared: &Shared) -> Result<()> {
        let engine = &*shared.engine;
        for table in &self.tables {
            let progress = table.progress.lock().clone();
            let place = table.place();
            let key = Progress::key(&table.overlay);
            let known = engine.tree(TREE)?.get(&key)?;
            if known.as_deref() == Some(progress.to_bytes(&key)?.as_slice())
                && place::load(engine, &table.overlay)? == place
            {
                continue;
            }
            shared.flusher.flush()?;
            save_progress(shared, &table.overlay, &progress)?;
            match place {
                Some(place) => place::save(engine, &table.overlay, &place)?,
                None => place::forget(engine, &table.overlay)?,
            }
        }
        Ok(())
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.control.lock().closed
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

    /// What old writers left, if the base is copied.
    pub(super) fn backlog(&self) -> Option<Backlog> {
        let tables = self.tables.len() as u64;
        let mut all = Backlog { records: 0, pushed: 0, passes: 0, passing: false, tables };
        for table in &self.tables {
            if !matches!(table.progress.lock().stage(), Ok(Stage::Forwarding)) {
                return None;
            }
            let backlog = &table.state.backlog;
            let (pushed, passes) = backlog.history();
            all.records += backlog.len();
            all.pushed += pushed;
            all.passes += passes;
            all.passing |= backlog.wants_pass() || table.pass.lock().is_some();
        }
        Some(all)
    }

    /// The phase, as far as the catalog says `complete` and old writers have not undone it since (O12).
    pub(crate) fn visible_phase(&self, entry: &MigrationEntry) -> Result<Phase> {
        let phase = entry.phase()?;
        Ok(if phase == Phase::Complete && !self.is_caught_up() { Phase::Open } else { phase })
    }
}

/// The right to drive a migration; free again when dropped, also by a panic.
#[must_use = "the seat is free again at once"]
pub(crate) struct Seat<'a> {
    run: &'a Run,
    _on_duty: OnDuty,
}

impl<'a> Seat<'a> {
    /// The seat that was claimed, in the thread that drives.
    fn of(run: &'a Run) -> Self {
        Seat { run, _on_duty: run.duty.begin() }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.run.set(|control| {
            control.seated = false;
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
        let next = in_quarantine::forget_stale(&self.state.shared, &self.state, open, &lower)?;
        *lower = next.unwrap_or(Bound::Unbounded);
        Ok(())
    }

    /// Notes what has come to be since `before`, to be persisted once it is durable.
    pub(crate) fn note(&self, before: &Progress) {
        let progress = self.progress.lock().clone();
        if progress != *before {
            let ticket = self.state.shared.flusher.ticket();
            self.unsaved.lock().get_or_insert((ticket, progress));
        }
    }

    /// Persists what was noted once a flush that started after it is done (O3).
    pub(crate) fn save_when_durable(&self) -> Result<()> {
        let shared = &self.state.shared;
        let Some((ticket, progress)) = self.unsaved.lock().clone() else {
            return Ok(());
        };
        if !shared.flusher.is_durable(ticket) {
            shared.flusher.touch();
            return Ok(());
        }
        save_progress(shared, &self.overlay, &progress)?;
        *self.unsaved.lock() = None;
        Ok(())
    }

    /// Goes on to another stage, durably: what the stage before did has to be durable before it is said to be done.
    pub(crate) fn advance(&self, to: Progress) -> Result<()> {
        self.state.shared.flush()?;
        save_progress(&self.state.shared, &self.overlay, &to)?;
        self.set_progress(to);
        Ok(())
    }

    /// As it was persisted.
    pub(crate) fn set_progress(&self, progress: Progress) {
        *self.progress.lock() = progress;
        *self.unsaved.lock() = None;
    }

    /// Where the next process has to look for what old writers left, if it need not look everywhere. Takes the
    /// backlog: nobody writes any more.
    fn place(&self) -> Option<Place> {
        let backlog = &self.state.backlog;
        if backlog.wants_pass() || backlog.is_in_hand() {
            return None;
        }
        let passed = match self.pass.lock().clone() {
            None => Place::End,
            Some(Bound::Unbounded) => return None,
            Some(Bound::Included(from)) => Place::From(from),
            Some(Bound::Excluded(last)) => Place::after(&last),
        };
        Some(match (backlog.take_first(), passed) {
            (Some(first), Place::From(from)) => Place::From(first.min(from)),
            (Some(first), Place::End) => Place::From(first),
            (None, passed) => passed,
        })
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

fn load_progress(shared: &Shared, overlay: &str) -> Result<Progress> {
    let key = Progress::key(overlay);
    let Some(bytes) = shared.engine.tree(TREE)?.get(&key)? else {
        return Ok(Progress::start());
    };
    Progress::from_bytes(&key, &bytes).or_else(|e| {
        // Losing it costs time only: everything derived is made again, from the first key on.
        tracing::warn!(target: "exuvia", error = %e, "the backfill starts again");
        let lost = Progress::reverting();
        if !shared.settings.read_only {
            // Rule 3: whatever the damaged value said, it must not be read again.
            save_progress(shared, overlay, &lost)?;
            place::forget(&*shared.engine, overlay)?;
            shared.flush()?;
        }
        Ok(lost)
    })
}

/// Where the pass over an overlay goes on after an orderly close. Without that it has to look everywhere, since what old
/// code wrote in another process is not in this one's queue.
fn load_pass(
    shared: &Shared,
    state: &TableState,
    overlay: &str,
    stage: Stage,
) -> Result<Option<Bound<Vec<u8>>>> {
    let place = place::load(&*shared.engine, overlay)?;
    if place.is_some() {
        state.backlog.set_written_down();
    }
    Ok(match place.filter(|_| stage != Stage::Reverting) {
        Some(Place::From(from)) => Some(Bound::Included(from)),
        Some(Place::End) => None,
        None => {
            state.backlog.demand_pass();
            None
        }
    })
}

/// Writes progress. The caller has flushed what it claims.
pub(crate) fn save_progress(shared: &Shared, overlay: &str, progress: &Progress) -> Result<()> {
    let key = Progress::key(overlay);
    shared.engine.tree(TREE)?.put(&key, &progress.to_bytes(&key)?)?;
    shared.flusher.touch();
    Ok(())
}

fn forget(shared: &Shared, overlay: &str) -> Result<()> {
    shared.engine.tree(TREE)?.delete(&Progress::key(overlay))?;
    place::forget(&*shared.engine, overlay)
}
