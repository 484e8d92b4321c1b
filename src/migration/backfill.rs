//! The backfill: three stages for each table, in small steps.
//!
//! 1. *Reverting* (only after a restart): derived entries go back to what they came from. The frontier was
//!    lowered durably before (O3).
//! 2. *Copying*: a page of the base after the cursor; upcast and validate outside all locks; insert where the
//!    overlay has nothing (I5); raise the frontier after the batch. The cursor is persisted once a
//!    flush that started after the batch is done.
//! 3. *Forwarding*: overlay entries whose main form is `from` are brought to `to`, by compare-and-set: those in
//!    the backlog, or after a reopen or an overflow all that a pass over the overlay finds.
//!
//! A record whose upcast fails goes to the quarantine, marker and reason in one commit; the rest goes on. Every
//! engine write is made under the gate if the epoch is that of the step; if it moved, the step ends.

mod forward;
mod revert;

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Check, EngineResult, Outcome, Page, Value, Write};
use crate::error::Result;
use crate::form::envelope::{self, Entry, Flags};
use crate::migration::run::{Run, RunTable};
use crate::pace::{Calls, PAGE_RECORDS};
use crate::record::lineage::{CastFailure, Casts};
use crate::state::catalog::{Stage, quarantine_tree};
use crate::state::quarantine;
use crate::state::route::{Frontier, Kind, Open, Route};
use crate::state::shared::Shared;

/// What one step did.
#[derive(Debug, Default)]
pub(crate) struct Stepped {
    pub(crate) records: usize,
    /// The table needs no more work for now.
    pub(crate) caught_up: bool,
    /// The epoch moved: someone changed the state, and the worker has to look again.
    pub(crate) moved: bool,
}

/// What a copy found under a key of the base.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    /// A remainder of an earlier migration, and no record.
    Nothing,
    Record,
    /// A record that is in quarantine.
    Failed,
}

/// The worker's place in one table. Losing it costs a page; the truth is in [`RunTable::progress`].
pub(crate) struct TableBackfill<'a> {
    /// Asked before each record whether somebody waits for the seat: a cast may take long.
    run: &'a Run,
    table: &'a RunTable,
    shared: Arc<Shared>,
    casts: Casts,
    page: VecDeque<(Value, Value)>,
    page_end: bool,
}

impl<'a> TableBackfill<'a> {
    pub(crate) fn new(run: &'a Run, table: &'a RunTable, casts: Casts) -> Self {
        let shared = Arc::clone(&table.state.shared);
        Self { run, table, shared, casts, page: VecDeque::new(), page_end: false }
    }

    /// Works through up to `batch` records.
    pub(crate) fn step(&mut self, calls: &mut Calls, batch: usize) -> Result<Stepped> {
        let route = self.table.state.route_owned();
        let Kind::Open(open) = &route.kind else {
            return Ok(Stepped { moved: true, ..Stepped::default() });
        };
        self.table.save_when_durable()?;
        let before = self.table.progress.lock().clone();
        let stage = before.stage()?;
        let mut stepped = Stepped::default();
        let result = match stage {
            Stage::Reverting => self.revert(calls, &route, open, batch, &mut stepped),
            Stage::Copying => self.copy(calls, &route, open, batch, &mut stepped),
            Stage::Forwarding => self.forward(calls, &route, open, batch, &mut stepped),
        };
        self.table.note(&before);
        result.map(|()| stepped)
    }

    /// One engine call of the background: under the gate, metered, at the epoch of the step.
    fn call<R>(
        &mut self,
        calls: &mut Calls,
        route: &Route,
        call: impl FnOnce() -> EngineResult<R>,
    ) -> Result<Option<R>> {
        let mut waited = Duration::ZERO;
        let result = self.table.state.gated(route.epoch, &mut waited, || calls.make(call));
        calls.give_turn();
        result
    }

    fn scan(
        &self,
        calls: &mut Calls,
        tree: &dyn crate::engine::Tree,
        lower: Bound<&[u8]>,
        limit: usize,
        page: &mut Page,
    ) -> Result<bool> {
        let end = calls.make(|| tree.scan((lower, Bound::Unbounded), false, limit, page));
        Ok(end?)
    }

    fn copy(
        &mut self,
        calls: &mut Calls,
        route: &Route,
        open: &Open,
        batch: usize,
        stepped: &mut Stepped,
    ) -> Result<()> {
        let mut last: Option<Value> = None;
        let mut counts = self.table.progress.lock().counts;
        while stepped.records < batch && !self.run.stopping() {
            if self.page.is_empty() {
                if self.page_end {
                    break;
                }
                // A page is not a batch: reading it is spread over the steps that use it up.
                if stepped.records > 0 && calls.engine() > Duration::from_micros(200) {
                    break;
                }
                let cursor = last
                    .as_ref()
                    .map_or_else(|| self.table.progress.lock().cursor.clone(), |key| key.to_vec());
                let lower = if cursor.is_empty() && !self.started(&last) {
                    Bound::Unbounded
                } else {
                    Bound::Excluded(cursor.as_slice())
                };
                let mut page = Page::with_capacity(PAGE_RECORDS);
                self.page_end = self.scan(calls, &*open.base.tree, lower, PAGE_RECORDS, &mut page)?;
                self.page = page.into();
                continue;
            }
            let Some((key, value)) = self.page.pop_front() else {
                break;
            };
            match self.copy_record(calls, route, open, &key, value)? {
                Some(passed) => {
                    counts.copied += u64::from(passed != Passed::Nothing);
                    counts.quarantined += u64::from(passed == Passed::Failed);
                }
                None => {
                    stepped.moved = true;
                    self.page.clear();
                    self.page_end = false;
                    break;
                }
            }
            stepped.records += 1;
            last = Some(key);
        }
        let mut progress = self.table.progress.lock();
        progress.counts = counts;
        if let Some(last) = last.map(|key| key.to_vec()) {
            progress.cursor.clone_from(&last);
            if !stepped.moved {
                self.table.state.set_frontier(Frontier::After(last));
            }
        }
        if self.page.is_empty() && self.page_end && !stepped.moved {
            let mut copied = progress.clone();
            drop(progress);
            copied.set_stage(Stage::Forwarding);
            self.table.advance(copied)?;
            self.table.state.set_frontier(Frontier::End);
        }
        Ok(())
    }

    /// Whether an empty cursor means "nothing copied yet" and not "the empty key was copied".
    fn started(&self, last: &Option<Value>) -> bool {
        last.is_some() || self.table.progress.lock().counts.copied > 0
    }

    /// `None` if the epoch moved.
    fn copy_record(
        &mut self,
        calls: &mut Calls,
        route: &Route,
        open: &Open,
        key: &[u8],
        value: Value,
    ) -> Result<Option<Passed>> {
        let derived = match Entry::parse(key, value) {
            Ok(entry) if entry.is_tombstone() || entry.is_failed_marker() => {
                // In a base that is absence; the overlay needs no entry for it.
                return Ok(Some(Passed::Nothing));
            }
            Ok(entry) => {
                let version = self.table.state.read_as(entry.version(), open.to);
                self.casts
                    .upcast((version, entry.main()), self.table.state.checks_writes())
                    .map_err(|e| describe(&e))
            }
            Err(damage) => Err(format!("the stored value is damaged: {}", damage.0)),
        };
        let derived = derived.and_then(|main| {
            let value = envelope::seal(key, Flags::DERIVED, open.to, &main, None);
            self.shared.check_one_form(key, &value).map(|()| value).map_err(|e| e.to_string())
        });
        match derived {
            Ok(value) => {
                let overlay = Arc::clone(&open.overlay.tree);
                let inserted = self.call(calls, route, || overlay.insert_if_absent(key, &value))?;
                Ok(inserted.map(|_| Passed::Record))
            }
            Err(reason) => {
                let marker = envelope::seal(key, Flags::DERIVED.with(Flags::FAILED), open.to, &[], None);
                let made = self.quarantine(calls, route, open, key, None, marker, Some(&reason))?;
                if made != Some(false) {
                    return Ok(made.map(|_| Passed::Failed));
                }
                // The overlay has an entry: a writer's, or this marker, made by a process that died before it had saved that.
                let there = open.overlay.tree.get(key)?.map(|value| Entry::parse(key, value));
                let failed = matches!(there, Some(Ok(entry)) if entry.is_failed());
                Ok(Some(if failed { Passed::Failed } else { Passed::Record }))
            }
        }
    }

    /// Replaces the overlay's entry `old` and writes, or removes, the quarantine's, in one commit.
    #[expect(clippy::too_many_arguments, reason = "one commit has these parts")]
    fn quarantine(
        &mut self,
        calls: &mut Calls,
        route: &Route,
        open: &Open,
        key: &[u8],
        old: Option<&[u8]>,
        entry: Vec<u8>,
        reason: Option<&str>,
    ) -> Result<Option<bool>> {
        let overlay = open.overlay.name.to_string();
        let entry = if entry.is_empty() { None } else { Some(entry) };
        let poison = reason.map(|reason| quarantine::to_bytes(key, reason)).transpose()?;
        if let Some(reason) = reason {
            tracing::warn!(target: "exuvia", table = %self.table.state.name, reason, "record quarantined");
        }
        let tree = quarantine_tree(&self.table.state.name);
        let checks = [Check { tree: overlay.clone(), key: key.to_vec(), expected: old.map(<[u8]>::to_vec) }];
        let mut writes = [
            Write { tree, key: key.to_vec(), value: poison },
            Write { tree: overlay, key: key.to_vec(), value: entry },
        ];
        if reason.is_none() {
            // A scan that sees only the first of them must not find a marker without its reason.
            writes.reverse();
        }
        let engine = Arc::clone(&self.shared.engine);
        let outcome = self.call(calls, route, || engine.commit(&checks, &writes))?;
        Ok(outcome.map(|outcome| outcome == Outcome::Applied))
    }
}

fn describe(failure: &CastFailure) -> String {
    match failure.kind {
        crate::record::lineage::FailureKind::Cast(cast) => {
            format!("{cast} from version {} to {}: {}", failure.from, failure.to, failure.source)
        }
        _ => format!("version {}: {}", failure.from, failure.source),
    }
}
