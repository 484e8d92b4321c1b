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
//! Each verb is one `State::change`: decide on the catalog, commit it durably, flip. The
//! background work is in `worker` (drives), `backfill` (what is done), `fold`,
//! `contract` and `sweep`.

mod abandon;
mod backfill;
mod behind;
mod close;
mod contract;
pub(crate) mod core;
mod fold;
#[cfg(test)]
mod heard_tests;
mod host;
mod plan;
mod retry;
mod run;
mod status;
mod sweep;
#[cfg(test)]
mod tests_sample;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use crate::error::{EngineError, Error, Result};
use crate::measure::observe::Activity;
use crate::migration::core::{Core, Lease};
use crate::pace::{Budget, Calls};
use crate::state::catalog::{MigrationEntry, Phase, Progress, Stage, Step, room};
use crate::state::change::Change;
use crate::state::ledger::Event;
use crate::state::route::{Frontier, Route};
use crate::sync::{Instant, thread};

pub use crate::state::catalog::Counts;
pub use abandon::{AbandonPlan, NewWrites};
pub use contract::ContractPlan;
pub(crate) use host::Called;
pub use plan::Plan;
pub(crate) use run::Run;
pub use run::Waiting;
pub(crate) use status::of as status;
pub use status::{Backfill, Status, TableStatus};
pub(crate) use worker::start as start_worker;

/// How long, and how often, whoever waits for a migration tries to start its thread, if the system refuses one.
const THREAD_PATIENCE: Duration = Duration::from_secs(2);
const THREAD_RETRY: Duration = Duration::from_millis(20);

/// A handle on a migration that was begun.
#[derive(Clone)]
pub struct Migration {
    lease: Arc<Lease>,
    name: String,
    why: String,
    by: String,
}

impl std::fmt::Debug for Migration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Migration").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Migration {
    pub(crate) fn new(lease: Arc<Lease>, name: &str) -> Result<Self> {
        lease.0.migration(name)?;
        Ok(Migration::of(lease, name))
    }

    /// A handle on a migration that is known to be there.
    fn of(lease: Arc<Lease>, name: &str) -> Self {
        Migration { lease, name: name.to_owned(), why: String::new(), by: String::new() }
    }

    /// Why, for the ledger: every verb that is called on this handle from here on says so in its entry. At most 1024
    /// bytes; [`Migration::by`] takes 256. A verb with longer texts is refused.
    ///
    /// ```no_run
    /// # fn main() -> exuvia::Result<()> {
    /// # let store = exuvia::Store::options().open_in(std::sync::Arc::new(exuvia::engine::MemoryEngine::new()))?;
    /// store.migration("split names")?.why("last names are wrong").by("ada").rollback()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "it is the answered handle that carries the reason"]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// By whom, for the ledger, as [`Migration::why`].
    #[must_use = "it is the answered handle that carries the name"]
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = by.into();
        self
    }

    fn event(&self, what: &'static str) -> Event {
        Event::new(what, &self.name).because(&self.why, &self.by)
    }

    /// The migration's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn core(&self) -> &Arc<Core> {
        &self.lease.0
    }

    fn run(&self) -> Result<Arc<Run>> {
        self.core().shared.check_writable()?;
        room::check_texts(&self.why, &self.by)?;
        let run = self.core().runs.lock().get(&self.name).cloned();
        // By the catalog: the run of a migration that a worker has just closed does not know it yet.
        let phase = self.core().migration(&self.name)?.phase()?;
        match run {
            Some(run) if !phase.is_closed() => Ok(run),
            _ => Err(self.refuse(format!("it is {phase}, and nothing can be done to it any more"))),
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
        status::of(self.core(), &self.name, &self.core().migration(&self.name)?)
    }

    /// Waits until the backfill is complete, or the migration closed.
    ///
    /// # Errors
    ///
    /// The backfill cannot get on by itself: it is paused, rolled back, lacks code or space, or failed. A failure of the
    /// engine that trying again may mend is one after some two seconds, in which it was tried six times. It goes on being tried,
    /// at least every ten seconds and whenever this is called, and goes on where it was: mend the cause, and wait again. So
    /// does a system that has no thread for the work.
    ///
    /// [`Error::Behind`] if old writers write faster than what they write is brought forward: the base is copied, and for five
    /// seconds in which they wrote no less was left than before, or more than 32 768 records came once more while all was
    /// looked through for what came before.
    pub fn wait(&self) -> Result<Status> {
        let mut known = self.tries();
        let run = self.core().runs.lock().get(&self.name).cloned();
        let mut awaiting = None;
        let mut threadless: Option<Instant> = None;
        let mut watch = behind::Watch::default();
        if known.is_some() {
            // Who waits again has mended something: that is tried now.
            self.run()?.set(|_| {});
        }
        loop {
            let status = self.status()?;
            match (&status.phase, &status.backfill) {
                (phase, _) if phase.is_closed() => return Ok(status),
                (Phase::Complete, _) => return Ok(status),
                (Phase::RolledBack, _) => {
                    return Err(self.refuse("it is rolled back, so nothing is in progress; resume it"));
                }
                (_, Backfill::Paused) => return Err(self.refuse("its backfill is paused; unpause it")),
                (_, Backfill::Waiting(Waiting::Retry { tries, .. })) if known == Some(*tries) => {}
                (_, Backfill::Waiting(Waiting::Thread { .. }))
                    if threadless.get_or_insert_with(Instant::now).elapsed() < THREAD_PATIENCE =>
                {
                    thread::sleep(THREAD_RETRY);
                    self.core().tend();
                }
                // Whoever was to start its worker is still on the way, or came to an end.
                (_, Backfill::Stopped) => {
                    if let Some(run) = &run {
                        worker::start(self.core(), run);
                    }
                }
                (_, Backfill::Waiting(waiting)) if waiting.needs_help() => return Err(self.stuck(waiting)),
                _ => known = None,
            }
            self.core().shared.check_usable()?;
            let backlog = run.as_ref().filter(|_| status.phase == Phase::Open).and_then(|run| run.backlog());
            if watch.is_behind(Instant::now(), backlog) {
                let records = backlog.map_or(0, |backlog| backlog.records);
                return Err(Error::Behind { migration: self.name.clone(), records });
            }
            if let (None, Some(run)) = (&awaiting, &run) {
                awaiting = Some(run.awaited()?);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Failures in a row that a caller was told of, or would be.
    fn tries(&self) -> Option<u32> {
        match self.core().runs.lock().get(&self.name)?.control().waiting {
            Some(Waiting::Retry { tries, .. }) => (tries >= retry::TRIES_PATIENT).then_some(tries),
            _ => None,
        }
    }

    fn stuck(&self, waiting: &Waiting) -> Error {
        if let Err(e) = self.core().shared.check_usable() {
            return e;
        }
        let what = match self.core().catalog().migration(&self.name).and_then(MigrationEntry::phase) {
            Ok(Phase::Folding) => "its folding",
            _ => "its backfill",
        };
        let failure = self.core().runs.lock().get(&self.name).and_then(|run| run.control().failure);
        match (waiting, failure) {
            (Waiting::Retry { .. }, Some(kind)) => {
                let message = format!(
                    "migration {}: {what} waits: {waiting}; mend the cause, and it goes on where it was",
                    self.name
                );
                EngineError::new(kind, message).into()
            }
            (Waiting::Failed { .. }, Some(kind)) => {
                let message = format!(
                    "migration {}: {what} ended: {waiting}; mend the cause, close the store and open it again, and it goes \
                     on where it was",
                    self.name
                );
                EngineError::new(kind, message).into()
            }
            _ => self.refuse(format!("{what} waits: {waiting}")),
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
            Ok(Change { event: self.event(what), flips: Vec::new(), result: () })
        });
        if changed.is_ok() {
            run.set(|control| control.paused = paused);
        }
        drop(seat);
        worker::start(self.core(), &run);
        changed
    }

    /// Changes the budget, at once. It is not persisted: a reopened store starts with that of its options.
    ///
    /// # Errors
    ///
    /// A migration that is closed; [`Error::Argument`] for a budget that is out of range.
    pub fn set_budget(&self, budget: Budget) -> Result<()> {
        budget.check()?;
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
        worker::start(core, &run);
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
        let mut calls = Calls::new(core.shared.recorder.background());
        let mut tables = Vec::new();
        for table in &run.tables {
            let casts = table.casts().ok_or_else(|| {
                self.refuse(format!(
                    "open table {} with the code of version {}",
                    table.step.table, table.step.to
                ))
            })?;
            tables.push(backfill::TableBackfill::new(run, table, casts));
        }
        let mut left = records;
        loop {
            let stepped = worker::step_first_unfinished(&mut tables, &mut calls, left.max(1));
            calls.record();
            let stepped = stepped?;
            left = left.saturating_sub(stepped.records);
            if stepped.caught_up {
                worker::completed(core, run)?;
                worker::tidy(run)?;
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
        worker::start(core, &run);
        result
    }

    fn restart_seated(&self, core: &Core, run: &Run, started: Instant) -> Result<()> {
        if !core.catalog().migration(&self.name)?.phase()?.is_forward() {
            return Err(self.refuse("it does not go forward; resume it, then restart"));
        }
        // Rule 3: lowered durably before anything is removed.
        for table in &run.tables {
            run::save_progress(&core.shared, &table.overlay, &Progress::reverting())?;
            table.state.backlog.forget_written(&core.shared, &table.overlay)?;
        }
        core.shared.flush()?;
        core.change(started, |catalog| {
            let entry = catalog.migration_mut(&self.name)?;
            if !entry.phase()?.is_forward() {
                return Err(Error::Conflict { subject: format!("migration {}", self.name) });
            }
            entry.set_phase(Phase::Open);
            Ok(Change { event: self.event("restart"), flips: Vec::new(), result: () })
        })?;
        let mut flips = Vec::new();
        for table in &run.tables {
            table.set_progress(Progress::reverting());
            *table.pass.lock() = None;
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
            let event = self.event(if back { "rollback" } else { "resume" });
            Ok(Change { event, flips, result: () })
        });
        if turned.is_ok() {
            run.set_activity(run::activity_of(target));
        }
        if turned.is_ok() && run.tables.is_empty() && !back {
            worker::complete_at_once(core, &run);
        }
        drop(seat);
        worker::start(core, &run);
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
        Ok(ContractPlan { migration: self.clone(), run, destroys })
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
        let destroys = entry.tables.iter().map(|Step { table, from, to, metadata_only }| match writes {
            _ if *metadata_only => format!(
                "table {table}: the right to read and write version {to}; no record is touched, and every write stays"
            ),
            NewWrites::Keep => format!(
                "table {table}: what only version {to} holds; every record stays as version {from} reads it"
            ),
            NewWrites::Discard => format!(
                "table {table}: every write since {} began; the table is exactly as it was then",
                self.name
            ),
        });
        let destroys = destroys.collect();
        Ok(AbandonPlan { migration: self.clone(), run, writes, destroys })
    }
}
