//! Where a migration stands: a value to look at.

use std::time::Duration;

use crate::error::Result;
use crate::migration::core::Core;
use crate::migration::retry::TRIES_PATIENT;
use crate::migration::run::Waiting;
use crate::migration::worker;
use crate::state::catalog::{Counts, MigrationEntry, Phase};

/// Where a migration stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The migration.
    pub name: String,
    /// Why it was begun.
    pub why: String,
    /// By whom.
    pub by: String,
    /// Its phase. `Complete` only while nothing of old writers is left to bring forward.
    pub phase: Phase,
    /// It cannot be rolled back.
    pub one_way: bool,
    /// Writers of the new version are refused since the rollback.
    pub fenced: bool,
    /// What its background worker does.
    pub backfill: Backfill,
    /// Its tables.
    pub tables: Vec<TableStatus>,
    /// Estimated share of the records that are copied, 0 to 1, by the position of the cursor among the keys.
    pub fraction: f64,
    /// Records copied in a second, since the present worker started.
    pub records_per_s: Option<f64>,
    /// Estimated time to completion.
    pub eta: Option<Duration>,
}

/// One table of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableStatus {
    /// The table.
    pub table: String,
    /// The version that it comes from.
    pub from: u32,
    /// The version that it goes to.
    pub to: u32,
    /// No record is rewritten.
    pub metadata_only: bool,
    /// What was done so far.
    pub counts: Counts,
    /// Records of old writers that wait to be brought forward; at least so many.
    pub backlog: u64,
    /// The backlog is not known exactly (after a reopen, or too many): a pass over the overlay finds it.
    pub backlog_unknown: bool,
}

/// What the background worker does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backfill {
    /// It runs.
    Running,
    /// A caller paused it.
    Paused,
    /// It cannot get on.
    Waiting(Waiting),
    /// It has nothing to do in this phase.
    Stopped,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Waiting::Code { table } => {
                write!(f, "no handle with the code of the new version of table {table} is open; open one")
            }
            Waiting::Space { free, floor } => {
                write!(f, "{free} bytes are free and {floor} must stay free; make room, it goes on by itself")
            }
            Waiting::Background => {
                f.write_str("the store was opened without background work; open it with it, and it goes on")
            }
            Waiting::Thread { reason } => write!(f, "{reason}; it is tried again"),
            Waiting::Retry { reason, tries } => {
                let times = if *tries == 1 { String::new() } else { format!(" {tries} times in a row") };
                write!(f, "the engine failed{times}, it is tried again: {reason}")
            }
            Waiting::Failed { reason } => write!(f, "it failed: {reason}"),
        }
    }
}

impl Waiting {
    /// Whether somebody has to do something before it gets on: false only while a failure of the engine is young enough
    /// (less than six failures in a row, some two seconds) that trying again may have mended it soon.
    pub fn needs_help(&self) -> bool {
        !matches!(self, Waiting::Retry { tries, .. } if *tries < TRIES_PATIENT)
    }
}

pub(crate) fn of(core: &Core, name: &str, entry: &MigrationEntry) -> Result<Status> {
    let run = core.runs.lock().get(name).cloned();
    let mut status = Status {
        name: name.to_owned(),
        why: entry.why.clone(),
        by: entry.by.clone(),
        phase: entry.phase()?,
        one_way: entry.one_way,
        fenced: entry.fenced,
        backfill: Backfill::Stopped,
        tables: Vec::new(),
        fraction: 1.0,
        records_per_s: None,
        eta: None,
    };
    for step in &entry.tables {
        let part = run.as_ref().and_then(|run| run.tables.iter().find(|t| t.step.table == step.table));
        status.tables.push(TableStatus {
            table: step.table.clone(),
            from: step.from,
            to: step.to,
            metadata_only: step.metadata_only,
            counts: part.map(|t| t.progress.lock().counts).unwrap_or_default(),
            backlog: part.map_or(0, |t| t.state.backlog.len()),
            backlog_unknown: part.is_some_and(|t| t.state.backlog.wants_pass() || t.pass.lock().is_some()),
        });
    }
    let Some(run) = run.filter(|_| !status.phase.is_closed()) else {
        return Ok(status);
    };
    status.phase = run.visible_phase(entry)?;
    status.fraction = worker::fraction(&run);
    let control = run.control();
    status.backfill = match control.waiting {
        _ if !status.phase.is_forward() && status.phase != Phase::Folding => Backfill::Stopped,
        Some(waiting) => Backfill::Waiting(waiting),
        None if control.paused && status.phase != Phase::Folding => Backfill::Paused,
        None if control.running => Backfill::Running,
        None => Backfill::Stopped,
    };
    if let (true, Some((at, copied, fraction))) = (control.running, control.started) {
        let now: u64 = status.tables.iter().map(|t| t.counts.copied).sum();
        let shares = (fraction, status.fraction);
        (status.records_per_s, status.eta) = speed(at.elapsed(), now.saturating_sub(copied), shares);
    }
    Ok(status)
}

/// Records a second, and the time to the end, of a worker that copied so many records since it started, from the first share
/// of all to the second.
fn speed(since: Duration, copied: u64, (from, to): (f64, f64)) -> (Option<f64>, Option<Duration>) {
    let seconds = since.as_secs_f64();
    if seconds <= 0.0 {
        return (None, None);
    }
    let rate = (to - from) / seconds;
    let eta = (rate > 0.0).then(|| Duration::try_from_secs_f64((1.0 - to) / rate).ok()).flatten();
    (Some(copied as f64 / seconds), eta)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_of_what_was_done_and_the_rest_takes_as_long() {
        let second = Duration::from_secs(1);
        assert_eq!(speed(2 * second, 100, (0.25, 0.5)), (Some(50.0), Some(4 * second)));
        assert_eq!(speed(10 * second, 30, (0.0, 1.0)), (Some(3.0), Some(Duration::ZERO)));
        // Nothing is known at once, and nothing of the end while no share was won, or records were taken back.
        assert_eq!(speed(Duration::ZERO, 0, (0.0, 0.0)), (None, None));
        assert_eq!(speed(2 * second, 8, (0.5, 0.5)), (Some(4.0), None));
        assert_eq!(speed(2 * second, 0, (0.5, 0.25)), (Some(0.0), None));
        // More than can be told.
        assert_eq!(speed(second, 1, (0.0, 1e-300)), (Some(1.0), None));
    }
}
