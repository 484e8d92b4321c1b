//! Forwarding: what old writers left in the overlay is brought to `to`.

use std::ops::Bound;
use std::sync::Arc;

use super::{Stepped, TableBackfill, describe};
use crate::engine::{Page, Value};
use crate::error::Result;
use crate::form::envelope::{self, Entry, Flags};
use crate::pace::{Calls, PAGE_RECORDS};
use crate::state::route::{Open, Route};

impl TableBackfill<'_> {
    pub(super) fn forward(
        &mut self,
        calls: &mut Calls,
        route: &Route,
        open: &Open,
        batch: usize,
        stepped: &mut Stepped,
    ) -> Result<()> {
        let backlog = &self.table.state.backlog;
        if backlog.is_in_hand() {
            // Whoever drove before panicked, and what was in its hand is nowhere.
            backlog.demand_pass();
            backlog.settle();
        }
        let lower = {
            let mut pass = self.table.pass.lock();
            if pass.is_none() && backlog.wants_pass() {
                *pass = Some(Bound::Unbounded);
                backlog.begin_pass();
            }
            pass.clone()
        };
        if let Some(lower) = lower {
            let mut page = Page::new();
            let bound = lower.as_ref().map(Vec::as_slice);
            let limit = batch.clamp(16, PAGE_RECORDS);
            let end = self.scan(calls, &*open.overlay.tree, bound, limit, &mut page)?;
            for (key, value) in page {
                if self.run.stopping() {
                    return Ok(());
                }
                stepped.records += 1;
                if self.bring_forward(calls, route, open, &key, value)?.is_none() {
                    stepped.moved = true;
                    return Ok(());
                }
                *self.table.pass.lock() = Some(Bound::Excluded(key.to_vec()));
            }
            if end {
                *self.table.pass.lock() = None;
            }
            return Ok(());
        }
        while stepped.records < batch && !self.run.stopping() {
            let Some(key) = self.table.state.backlog.pop() else {
                self.table.state.backlog.settle();
                stepped.caught_up = self.table.state.backlog.is_empty();
                return Ok(());
            };
            stepped.records += 1;
            let overlay = Arc::clone(&open.overlay.tree);
            let done = match overlay.get(&key) {
                Ok(Some(value)) => self.bring_forward(calls, route, open, &key, value),
                Ok(None) => Ok(Some(())),
                Err(e) => Err(e.into()),
            };
            if !matches!(done, Ok(Some(()))) {
                self.table.state.backlog.push(&key);
                self.table.state.backlog.settle();
                stepped.moved = true;
                return done.map(|_| ());
            }
        }
        self.table.state.backlog.settle();
        Ok(())
    }

    /// Brings one overlay entry from `from` to `to`, unless it is there already. `None` if the epoch moved.
    pub(crate) fn bring_forward(
        &mut self,
        calls: &mut Calls,
        route: &Route,
        open: &Open,
        key: &[u8],
        value: Value,
    ) -> Result<Option<()>> {
        let mut value = value;
        loop {
            let Ok(old) = Entry::parse(key, value) else {
                // Damage of this record: readers are told; it must not end the backfill of all others.
                tracing::error!(target: "exuvia", table = %self.table.state.name, "a damaged overlay entry");
                return Ok(Some(()));
            };
            if old.is_tombstone() || old.version() > open.from || old.is_failed() {
                return Ok(Some(()));
            }
            let main = (old.version(), old.main());
            let check = self.table.state.checks_writes();
            let cast = match old.companion() {
                Some((_, companion)) => {
                    self.casts.merge(main, companion, check).map(|m| (m.record, m.dropped, false))
                }
                None => self.casts.upcast(main, check).map(|record| (record, false, true)),
            };
            let cast = cast.map_err(|e| describe(&e)).and_then(|(record, dropped, derived)| {
                let flags = if derived { Flags::DERIVED } else { Flags::NONE };
                let new = envelope::seal(key, flags, open.to, &record, Some((open.from, old.main())));
                let fits = self.shared.check_forms(key, &new, record.len(), old.main().len());
                fits.map(|()| (new, dropped)).map_err(|e| e.to_string())
            });
            let done = match cast {
                Ok((new, dropped)) => {
                    let overlay = Arc::clone(&open.overlay.tree);
                    let swap = || overlay.compare_and_swap(key, Some(old.bytes()), Some(&new));
                    let done = self.call(calls, route, swap)?;
                    if done == Some(true) {
                        let mut progress = self.table.progress.lock();
                        progress.counts.brought_forward += 1;
                        progress.counts.merges_dropped += u64::from(dropped);
                        drop(progress);
                        if dropped {
                            let total = &self.shared.recorder.merges_dropped;
                            total.fetch_add(1, crate::sync::atomic::Ordering::Relaxed);
                        }
                    }
                    done
                }
                Err(reason) => {
                    let failed =
                        envelope::seal(key, Flags::FAILED, old.version(), old.main(), old.companion());
                    let done =
                        self.quarantine(calls, route, open, key, Some(old.bytes()), failed, Some(&reason))?;
                    if done == Some(true) {
                        self.table.progress.lock().counts.quarantined += 1;
                    }
                    done
                }
            };
            match done {
                None => return Ok(None),
                Some(true) => return Ok(Some(())),
                // A writer was here meanwhile: look again.
                Some(false) => match open.overlay.tree.get(key)? {
                    Some(next) => value = next,
                    None => return Ok(Some(())),
                },
            }
        }
    }
}
