//! The backfill: three stages for each table, in small steps.
//!
//! 1. *Reverting* (only after a restart): derived entries go back to what they came from. The frontier was
//!    lowered durably before (rule 3).
//! 2. *Copying*: a page of the base after the cursor; upcast and validate outside all locks; insert where the
//!    overlay has nothing (invariant 5); raise the frontier after the batch. The cursor is persisted once a
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

use crate::catalog::{Stage, quarantine_tree};
use crate::core::Shared;
use crate::engine::{Check, EngineResult, Outcome, Page, Value, Write};
use crate::envelope::{self, Entry, Flags};
use crate::error::Result;
use crate::lineage::{CastFailure, Casts};
use crate::migration::run::{RunTable, save_progress};
use crate::migration::turns::{PAGE_RECORDS, give_turn};
use crate::quarantine;
use crate::route::{Frontier, Kind, Open, Route};
use crate::seeded::{Bug, bug};
use crate::stats::BackgroundMeter;

/// What one step did.
#[derive(Debug, Default)]
pub(crate) struct Stepped {
    pub(crate) records: usize,
    pub(crate) engine: Duration,
    /// The table needs no more work for now.
    pub(crate) caught_up: bool,
    /// The epoch moved: someone changed the state, and the worker has to look again.
    pub(crate) moved: bool,
}

/// The worker's place in one table. Losing it costs a page; the truth is in [`RunTable::progress`].
pub(crate) struct TableBackfill<'a> {
    table: &'a RunTable,
    shared: Arc<Shared>,
    casts: Casts,
    page: VecDeque<(Value, Value)>,
    page_end: bool,
    calls: Vec<Duration>,
    /// Whether it goes on without giving its turn away after each call, as work without a budget does.
    keeps_turns: bool,
}

impl<'a> TableBackfill<'a> {
    pub(crate) fn new(table: &'a RunTable, casts: Casts) -> Self {
        let shared = Arc::clone(&table.state.shared);
        let (page, calls) = (VecDeque::new(), Vec::new());
        Self { table, shared, casts, page, page_end: false, calls, keeps_turns: false }
    }

    /// For the steps to come.
    pub(crate) fn keep_turns(&mut self, keeps_turns: bool) {
        self.keeps_turns = keeps_turns;
    }

    /// Works through up to `batch` records.
    pub(crate) fn step(&mut self, meter: &BackgroundMeter, batch: usize) -> Result<Stepped> {
        let route = self.table.state.route_owned();
        let Kind::Open(open) = &route.kind else {
            return Ok(Stepped { moved: true, ..Stepped::default() });
        };
        let stage = self.table.progress.lock().stage()?;
        let mut stepped = Stepped::default();
        let result = match stage {
            Stage::Reverting => self.revert(meter, &route, open, batch, &mut stepped),
            Stage::Copying => self.copy(meter, &route, open, batch, &mut stepped),
            Stage::Forwarding => self.forward(meter, &route, open, batch, &mut stepped),
        };
        stepped.engine = self.calls.iter().sum();
        meter.record(&self.calls);
        self.calls.clear();
        result.map(|()| stepped)
    }

    /// Time inside the engine since the last step, for a caller that does not step.
    pub(crate) fn spent(&mut self) -> Duration {
        self.calls.drain(..).sum()
    }

    /// One engine call of the background: under the gate, metered, at the epoch of the step.
    fn call<R>(
        &mut self,
        meter: &BackgroundMeter,
        route: &Route,
        call: impl FnOnce() -> EngineResult<R>,
    ) -> Result<Option<R>> {
        let mut waited = Duration::ZERO;
        let state = &self.table.state;
        let mut took = Duration::ZERO;
        let result = state.gated(route.epoch, &mut waited, || {
            let (result, duration) = meter.call(call);
            took = duration;
            result
        });
        self.calls.push(took);
        if !self.keeps_turns {
            give_turn();
        }
        result
    }

    fn scan(
        &mut self,
        meter: &BackgroundMeter,
        tree: &dyn crate::engine::Tree,
        lower: Bound<&[u8]>,
        limit: usize,
        page: &mut Page,
    ) -> Result<bool> {
        let (end, took) = meter.call(|| tree.scan((lower, Bound::Unbounded), false, limit, page));
        self.calls.push(took);
        if end.is_err() && bug(Bug::ScanErrorSwallowed) {
            return Ok(true);
        }
        Ok(end?)
    }

    fn copy(
        &mut self,
        meter: &BackgroundMeter,
        route: &Route,
        open: &Open,
        batch: usize,
        stepped: &mut Stepped,
    ) -> Result<()> {
        self.save_when_durable()?;
        let mut last: Option<Value> = None;
        let mut quarantined = 0;
        while stepped.records < batch {
            if self.page.is_empty() {
                if self.page_end {
                    break;
                }
                // A page is not a batch: reading it is spread over the steps that use it up.
                if stepped.records > 0 && self.calls.iter().sum::<Duration>() > Duration::from_micros(200) {
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
                self.page_end = self.scan(meter, &*open.base.tree, lower, PAGE_RECORDS, &mut page)?;
                self.page = page.into();
                if let Some((key, _)) = self.page.back()
                    && bug(Bug::FrontierEarly)
                {
                    self.table.state.set_frontier(Frontier::After(key.to_vec()));
                }
                continue;
            }
            let Some((key, value)) = self.page.pop_front() else {
                break;
            };
            match self.copy_record(meter, route, open, &key, value)? {
                Some(failed) => quarantined += u64::from(failed),
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
        progress.counts.copied += stepped.records as u64;
        progress.counts.quarantined += quarantined;
        if let Some(last) = last.map(|key| key.to_vec()) {
            progress.cursor.clone_from(&last);
            if !stepped.moved {
                self.table.state.set_frontier(Frontier::After(last.clone()));
            }
            self.table.unsaved.lock().get_or_insert((self.shared.flusher.ticket(), last));
        }
        if self.page.is_empty() && self.page_end && !stepped.moved {
            progress.set_stage(Stage::Forwarding);
            let progress = progress.clone();
            // The last page has to be durable before "every base key has an overlay entry" is.
            self.shared.flush()?;
            save_progress(&self.shared, &self.table.overlay, &progress)?;
            self.table.state.set_frontier(Frontier::End);
            *self.table.unsaved.lock() = None;
        }
        Ok(())
    }

    /// Whether an empty cursor means "nothing copied yet" and not "the empty key was copied".
    fn started(&self, last: &Option<Value>) -> bool {
        last.is_some() || self.table.progress.lock().counts.copied > 0
    }

    /// Answers whether the record went to the quarantine; `None` if the epoch moved.
    fn copy_record(
        &mut self,
        meter: &BackgroundMeter,
        route: &Route,
        open: &Open,
        key: &[u8],
        value: Value,
    ) -> Result<Option<bool>> {
        let derived = match Entry::parse(key, value) {
            Ok(entry) if entry.is_tombstone() || entry.is_failed_marker() => {
                // In a base that is absence; the overlay needs no entry for it.
                return Ok(Some(false));
            }
            Ok(entry) => self.casts.upcast((entry.version(), entry.main())).map_err(|e| describe(&e)),
            Err(damage) => Err(format!("the stored value is damaged: {}", damage.0)),
        };
        let derived = derived.and_then(|main| {
            let value = envelope::seal(key, Flags::DERIVED, open.to, &main, None);
            self.shared.check_size(key, &value).map(|()| value).map_err(|e| e.to_string())
        });
        match derived {
            Ok(value) => {
                let overlay = Arc::clone(&open.overlay.tree);
                if bug(Bug::InsertUnchecked) {
                    return Ok(self.call(meter, route, || overlay.put(key, &value))?.map(|()| false));
                }
                let inserted = self.call(meter, route, || overlay.insert_if_absent(key, &value))?;
                Ok(inserted.map(|_| false))
            }
            Err(reason) => {
                let marker = envelope::seal(key, Flags::DERIVED.with(Flags::FAILED), open.to, &[], None);
                self.quarantine(meter, route, open, key, None, marker, Some(&reason))
            }
        }
    }

    /// Replaces the overlay's entry `old` and writes, or removes, the quarantine's, in one commit.
    #[expect(clippy::too_many_arguments, reason = "one commit has these parts")]
    fn quarantine(
        &mut self,
        meter: &BackgroundMeter,
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
            Write { tree, key: key.to_vec(), value: poison.filter(|_| !bug(Bug::ReasonForgotten)) },
            Write { tree: overlay, key: key.to_vec(), value: entry },
        ];
        if reason.is_none() {
            // A scan that sees only the first of them must not find a marker without its reason.
            writes.reverse();
        }
        let engine = Arc::clone(&self.shared.engine);
        let outcome = self.call(meter, route, || engine.commit(&checks, &writes))?;
        Ok(outcome.map(|outcome| outcome == Outcome::Applied))
    }

    /// Persists a cursor once a flush that started after its batch is done (rule 3).
    fn save_when_durable(&mut self) -> Result<()> {
        let Some((ticket, cursor)) = self.table.unsaved.lock().clone() else {
            return Ok(());
        };
        if !self.shared.flusher.is_durable(ticket) && !bug(Bug::CursorEarly) {
            self.shared.flusher.touch();
            return Ok(());
        }
        let mut progress = self.table.progress.lock().clone();
        progress.cursor = cursor;
        save_progress(&self.shared, &self.table.overlay, &progress)?;
        *self.table.unsaved.lock() = None;
        Ok(())
    }
}

fn describe(failure: &CastFailure) -> String {
    match failure.kind {
        crate::lineage::FailureKind::Cast(cast) => {
            format!("{cast} from version {} to {}: {}", failure.from, failure.to, failure.source)
        }
        _ => format!("version {}: {}", failure.from, failure.source),
    }
}
