//! Reverting: after a restart with other code, derived entries go back to what they came from.

use std::ops::Bound;
use std::sync::Arc;

use super::{PAGE_RECORDS, Stepped, TableBackfill};
use crate::engine::{Page, Value};
use crate::error::Result;
use crate::form::envelope::{self, Entry, Flags};
use crate::pace::Calls;
use crate::state::catalog::Progress;
use crate::state::route::{Open, Route};

impl TableBackfill<'_> {
    pub(super) fn revert(
        &mut self,
        calls: &mut Calls,
        route: &Route,
        open: &Open,
        batch: usize,
        stepped: &mut Stepped,
    ) -> Result<()> {
        let cursor = self.table.progress.lock().cursor.clone();
        let mut page = Page::new();
        let bound = if cursor.is_empty() { Bound::Unbounded } else { Bound::Excluded(cursor.as_slice()) };
        let limit = batch.clamp(16, PAGE_RECORDS);
        let end = self.scan(calls, &*open.overlay.tree, bound, limit, &mut page)?;
        for (key, value) in page {
            if self.run.stopping() {
                return Ok(());
            }
            stepped.records += 1;
            if self.revert_entry(calls, route, open, &key, value)?.is_none() {
                stepped.moved = true;
                return Ok(());
            }
            self.table.progress.lock().cursor = key.to_vec();
        }
        if end {
            self.page.clear();
            self.page_end = false;
            self.table.state.backlog.demand_pass();
            self.table.advance(Progress::start())?;
        }
        Ok(())
    }

    /// Takes one derived entry back to what it came from. What a writer changes meanwhile is not derived.
    fn revert_entry(
        &mut self,
        calls: &mut Calls,
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
            self.quarantine(calls, route, open, key, Some(old.bytes()), back, None)?.map(|_| ())
        } else if !old.is_derived() {
            Some(())
        } else {
            let back = old.companion().map(|(v, bytes)| envelope::seal(key, Flags::NONE, v, bytes, None));
            let swap = || overlay.compare_and_swap(key, Some(old.bytes()), back.as_deref());
            self.call(calls, route, swap)?.map(|_| ())
        };
        Ok(done)
    }
}
