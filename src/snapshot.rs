//! Reads of one moment, on engines that have snapshots.
//!
//! A [`Pinned`] is a route whose trees are those of an engine's snapshot: the rules of reading are the same for it. Route
//! and frontier are taken first, then the snapshot, and if the epoch moved meanwhile all of it again (rule 1). From there
//! on nothing that the route leads to changes any more, whatever verb comes, so no read checks the epoch.

use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use crate::core::{Lease, Shared};
use crate::engine::{self, EngineResult, KeyRange, Page, Tree, Value};
use crate::error::{EngineError, EngineErrorKind, Error, Result};
use crate::key::{self, Key};
use crate::lookup::{Held, Lookup};
use crate::route::{Frontier, Kind, NamedTree, Open, Route, TableState};
use crate::scan::{Moment, Scan};
use crate::stats::Operation;
use crate::store::Store;
use crate::table::{Table, encode_key, materialize};
use crate::version::Version;

/// A table at one moment.
pub(crate) struct Pinned {
    pub(crate) route: Route,
    pub(crate) frontier: Frontier,
}

/// A tree at one moment.
struct PinnedTree {
    name: Arc<str>,
    moment: Arc<dyn engine::Snapshot>,
}

impl PinnedTree {
    fn refuse<T>(&self) -> EngineResult<T> {
        let message = format!("tree \"{}\" is read in a snapshot, which nobody writes", self.name);
        Err(EngineError::new(EngineErrorKind::Io, message))
    }
}

impl Tree for PinnedTree {
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        self.moment.get(&self.name, key)
    }

    fn put(&self, _key: &[u8], _value: &[u8]) -> EngineResult<()> {
        self.refuse()
    }

    fn delete(&self, _key: &[u8]) -> EngineResult<()> {
        self.refuse()
    }

    fn compare_and_swap(&self, _key: &[u8], _old: Option<&[u8]>, _new: Option<&[u8]>) -> EngineResult<bool> {
        self.refuse()
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        self.moment.scan(&self.name, range, reverse, limit, page)
    }
}

/// A lookup at one moment. The frontier is not asked: it goes on.
struct AtMoment;

impl Lookup for AtMoment {
    const FRONTIER: bool = false;

    fn get(&mut self, tree: &NamedTree, key: &[u8], _held: Held) -> EngineResult<Option<Value>> {
        tree.tree.get(key)
    }
}

impl Pinned {
    fn new(mut route: Route, frontier: Frontier, moment: &Arc<dyn engine::Snapshot>) -> Self {
        let pin = |named: &mut NamedTree| {
            let (name, moment) = (Arc::clone(&named.name), Arc::clone(moment));
            named.tree = Arc::new(PinnedTree { name, moment });
        };
        match &mut route.kind {
            Kind::Settled { tree, .. } => pin(tree),
            Kind::Open(Open { base, overlay, .. }) | Kind::Folding(Open { base, overlay, .. }) => {
                pin(base);
                pin(overlay);
            }
            Kind::Dropped => {}
        }
        Self { route, frontier }
    }
}

/// Tables at one moment, all the same; `None` on an engine that has no snapshots.
fn pin(shared: &Shared, tables: &[Arc<TableState>]) -> Result<Option<Vec<Arc<Pinned>>>> {
    if !shared.limits.snapshots {
        return Ok(None);
    }
    loop {
        shared.check_usable()?;
        let places: Vec<(Arc<Route>, Frontier)> =
            tables.iter().map(|table| (table.route_owned(), Frontier::clone(&table.frontier()))).collect();
        let Some(moment) = shared.engine.snapshot()? else {
            return Ok(None);
        };
        if tables.iter().zip(&places).all(|(table, (route, _))| table.holds(route.epoch)) {
            let pinned = |(route, frontier): (Arc<Route>, _)| {
                Arc::new(Pinned::new(Route::clone(&route), frontier, &moment))
            };
            return Ok(Some(places.into_iter().map(pinned).collect()));
        }
    }
}

/// One table at one moment, if the engine has snapshots.
pub(crate) fn pin_table(table: &Arc<TableState>) -> Result<Option<Arc<Pinned>>> {
    Ok(pin(&table.shared, std::slice::from_ref(table))?.and_then(|mut pinned| pinned.pop()))
}

/// All tables of a store at one moment: made by [`Store::snapshot`]. Clones share it.
///
/// It sees no later write, and goes on through every change of a migration's state. It keeps alive what it can see, also
/// what was overwritten or dropped since: let go of it when it is no longer needed.
#[derive(Clone)]
pub struct Snapshot {
    lease: Arc<Lease>,
    tables: Arc<[(Arc<TableState>, Arc<Pinned>)]>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("tables", &self.tables.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// All tables at this moment, for reads that must agree with each other and need not be the newest.
    ///
    /// # Errors
    ///
    /// [`Error::State`] on an engine that has no snapshots (sled, memory): read in a [`Store::transaction`] there.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let core = self.core();
        let tables: Vec<Arc<TableState>> = core.tables.read().values().cloned().collect();
        let Some(pinned) = pin(&core.shared, &tables)? else {
            let subject = format!("engine {}", core.shared.engine.name());
            return Err(Error::state(subject, "it has no snapshots; read in a transaction"));
        };
        let tables = tables.into_iter().zip(pinned).collect();
        Ok(Snapshot { lease: Arc::clone(self.lease()), tables })
    }
}

impl Snapshot {
    /// As [`Table::get`], at the snapshot's moment.
    ///
    /// # Errors
    ///
    /// As [`Table::get`]; [`Error::State`] for a table of another store, or one that is younger than the snapshot.
    pub fn get<K: Key, V: Version>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>> {
        let state = table.state();
        let timer = state.shared.recorder.start();
        let bytes = encode_key(key);
        let pinned = self.pinned(state)?;
        let result = state.read_once(&pinned.route, &bytes, V::VERSION, &mut AtMoment);
        let result = result.and_then(|found| materialize(state, &bytes, found));
        let activity = state.activity();
        state.shared.recorder.finish(timer, Operation::Get, activity, Duration::ZERO, &state.name);
        result
    }

    /// As [`Table::scan`], at the snapshot's moment.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    pub fn scan<K: Key, V: Version>(
        &self,
        table: &Table<K, V>,
        range: impl RangeBounds<K>,
    ) -> Result<Scan<K, V>> {
        let pinned = Moment::Taken(Arc::clone(self.pinned(table.state())?));
        let (state, lease) = (Arc::clone(table.state()), Arc::clone(&self.lease));
        Ok(Scan::new(state, lease, key::encode_bounds(&range), pinned))
    }

    fn pinned(&self, state: &Arc<TableState>) -> Result<&Arc<Pinned>> {
        state.shared.check_usable()?;
        let found = self.tables.iter().find(|(known, _)| Arc::ptr_eq(known, state));
        found.map(|(_, pinned)| pinned).ok_or_else(|| {
            let reason = "it is not in the snapshot: it was created later, or is of another store";
            Error::state(format!("table {}", state.name), reason)
        })
    }
}
