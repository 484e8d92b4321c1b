//! Reverting: after a restart with other code, derived entries go back to what they came from.

use std::ops::Bound;
use std::sync::Arc;

use super::{PAGE_RECORDS, Stepped, TableBackfill};
use crate::catalog::Progress;
use crate::engine::{Page, Value};
use crate::envelope::{self, Entry, Flags};
use crate::error::Result;
use crate::migration::run::save_progress;
use crate::route::{Open, Route};
use crate::stats::BackgroundMeter;

impl TableBackfill<'_> {
    pub(super) fn revert(
        &mut self,
        meter: &BackgroundMeter,
        route: &Route,
        open: &Open,
        batch: usize,
        stepped: &mut Stepped,
    ) -> Result<()> {
        let lower = self.table.pass.lock().clone().unwrap_or(Bound::Unbounded);
        let mut page = Page::new();
        let bound = lower.as_ref().map(Vec::as_slice);
        let limit = batch.clamp(16, PAGE_RECORDS);
        let end = self.scan(meter, &*open.overlay.tree, bound, limit, &mut page)?;
        let next = page.last().map(|(key, _)| Bound::Excluded(key.to_vec()));
        for (key, value) in page {
            stepped.records += 1;
            if self.revert_entry(meter, route, open, &key, value)?.is_none() {
                stepped.moved = true;
                return Ok(());
            }
        }
        if !end {
            *self.table.pass.lock() = next;
        } else {
            *self.table.pass.lock() = None;
            self.page.clear();
            self.page_end = false;
            self.table.state.backlog.demand_pass();
            let progress = {
                let mut progress = self.table.progress.lock();
                *progress = Progress::start();
                progress.clone()
            };
            self.shared.flush()?;
            save_progress(&self.shared, &self.table.overlay, &progress)?;
        }
        Ok(())
    }

    /// Takes one derived entry back to what it came from. What a writer changes meanwhile is not derived.
    fn revert_entry(
        &mut self,
        meter: &BackgroundMeter,
        route: &Route,
        open: &Open,
        key: &[u8],
        value: Value,
    ) -> Result<Option<()>> {
        let Ok(old) = Entry::parse(key, value) else {
            return Ok(Some(()));
        };
        let overlay = Arc::clone(&open.overlay.tree);
        let done = if old.is_failed() {
            let back = if old.is_derived() {
                Vec::new()
            } else {
                envelope::seal(key, Flags::NONE, old.version(), old.main(), old.companion())
            };
            self.quarantine(meter, route, open, key, Some(old.bytes()), back, None)?.map(|_| ())
        } else if !old.is_derived() {
            Some(())
        } else {
            let back = old.companion().map(|(v, bytes)| envelope::seal(key, Flags::NONE, v, bytes, None));
            let swap = || overlay.compare_and_swap(key, Some(old.bytes()), back.as_deref());
            self.call(meter, route, swap)?.map(|_| ())
        };
        Ok(done)
    }
}
