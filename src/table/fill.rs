//! Filling a table with many records at once, so that a crash leaves all of them or none.
//!
//! 1. The table is fenced in memory: it has to be empty, and stays so.
//! 2. A new generation is reserved, in memory. The catalog does not name it.
//! 3. Records go into it, in batches under a budget. Nobody reads there.
//! 4. Flush.
//! 5. One state change makes it the table's generation, and lifts the fence with its flip.
//! 6. The old generation, which is empty, is dropped by the sweep.
//!
//! Crash points: before 5 the generation is nobody's and is swept at the next open; after 5 the table is whole. A fill
//! that ends early lifts its fence and leaves its generation to the sweep.

use std::ops::Bound;
use std::sync::Arc;

use crate::engine::{NamedTree, Page};
use crate::error::{Error, Result};
use crate::migration::Called;
use crate::migration::core::Core;
use crate::pace::{Budget, Paced};
use crate::state::catalog::Generation;
use crate::state::change::Change;
use crate::state::ledger::Event;
use crate::state::route::{Fence, Kind, Route, TableState};
use crate::sync::Instant;

const MIGRATING: &str = "a migration of it is open; contract or abandon that before the table is filled";

/// A table that is being filled. Dropped before it is published, it leaves the table as it was.
pub(crate) struct Fill {
    core: Arc<Core>,
    state: Arc<TableState>,
    tree: NamedTree,
    generation: u64,
    /// Of the fenced route: another one means that a verb has been there.
    epoch: u64,
    started: Instant,
    paced: Paced<Called>,
    pub(crate) records: u64,
    published: bool,
}

impl Fill {
    /// Steps 1 and 2.
    pub(crate) fn begin(
        core: &Arc<Core>,
        state: &Arc<TableState>,
        view: u32,
        budget: Budget,
    ) -> Result<Fill> {
        core.shared.check_usable()?;
        let started = Instant::now();
        let route = state.route_owned();
        let refuse = |reason: &str| Err(Error::state(format!("table {}", state.name), reason));
        let (stored, tree) = match &route.kind {
            Kind::Settled { stored, tree } => (stored, tree),
            Kind::Dropped => return Err(state.dropped()),
            Kind::Open(_) | Kind::Folding(_) => return refuse(MIGRATING),
        };
        // A step that touches no record leaves the route settled.
        let name = core.name_of(state)?;
        if core.with_catalog(|catalog| catalog.table(&name).is_ok_and(|table| table.migration.is_some())) {
            return refuse(MIGRATING);
        }
        if *stored != view {
            let reason =
                format!("the table is written in version {stored}; fill it with a handle of that version");
            return Err(state.refuse_version(view, reason));
        }
        if route.fence.is_some() {
            return refuse("another caller fills it, or fenced it off");
        }
        let (generation, name) = core.reserve(state)?;
        let named = core.shared.named(&name).inspect_err(|_| {
            // If it was made all the same it is nobody's.
            core.release(&name);
            core.start_sweeper();
        })?;
        let mut fill = Fill {
            core: Arc::clone(core),
            state: Arc::clone(state),
            tree: named,
            generation,
            epoch: 0,
            started,
            paced: Called::paced(&core.shared, budget),
            records: 0,
            published: false,
        };
        let fenced = Route { fence: Some(Fence::Filling), ..Route::clone(&route) };
        match core.flip_if(state, route.epoch, fenced) {
            Some(epoch) => fill.epoch = epoch,
            None => return Err(Error::Conflict { subject: format!("table {}", state.name) }),
        }
        let mut first = Page::new();
        tree.tree.scan((Bound::Unbounded, Bound::Unbounded), false, 1, &mut first)?;
        if !first.is_empty() {
            return refuse("it is not empty; fill a new table, or clear this one first");
        }
        Ok(fill)
    }

    pub(crate) fn table(&self) -> &TableState {
        &self.state
    }

    /// Step 3, for one record: an envelope as a settled table has it. Answers `false`, and writes nothing, if the key
    /// is there already.
    #[cfg(any(feature = "sled", feature = "json"))]
    pub(crate) fn insert(&mut self, key: &[u8], envelope: &[u8]) -> Result<bool> {
        self.core.shared.check_usable()?;
        self.core.shared.check_one_form(key, envelope)?;
        let tree = &self.tree.tree;
        let inserted = self.paced.call(|| tree.insert_if_absent(key, envelope))?;
        self.records += u64::from(inserted);
        Ok(inserted)
    }

    /// Step 3 for a key that is known not to be there.
    pub(crate) fn append(&mut self, key: &[u8], envelope: &[u8]) -> Result<()> {
        self.core.shared.check_usable()?;
        let tree = &self.tree.tree;
        self.paced.call(|| tree.put(key, envelope))?;
        self.records += 1;
        Ok(())
    }

    /// Steps 4 and 5. Answers the number of records.
    pub(crate) fn publish(mut self, event: Event) -> Result<u64> {
        self.core.shared.flush()?;
        let (core, state) = (Arc::clone(&self.core), Arc::clone(&self.state));
        core.change(self.started, |catalog| {
            let name = core.name_of(&state)?;
            let table = catalog.table_without_migration(&name, "filled")?;
            if !state.epoch_is(self.epoch) {
                return Err(Error::Conflict { subject: format!("table {name}") });
            }
            table.generations = vec![Generation { id: self.generation, unswept: false }];
            let route = core.route_of(catalog, &name)?;
            let flips = vec![(Arc::clone(&state), route)];
            Ok(Change { event: event.count("records", self.records), flips, result: () })
        })?;
        self.published = true;
        Ok(self.records)
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if !self.published && self.epoch != 0 {
            let open = Route { fence: None, ..Route::clone(&self.state.route_owned()) };
            // If the epoch moved, the fence went with that flip.
            let _moved = self.core.flip_if(&self.state, self.epoch, open);
        }
        self.core.release(&self.tree.name);
        self.core.start_sweeper();
    }
}
