//! Tables of one moment, on engines that have snapshots.
//!
//! A [`Pinned`] is a route whose trees are those of an engine's snapshot: the rules of reading are the same for it. Route
//! and frontier are taken first, then the snapshot, and if the epoch moved meanwhile all of it again (O1). From there
//! on nothing that the route leads to changes any more, whatever verb comes, so no read checks the epoch.

use std::sync::Arc;

use crate::engine::{self, EngineResult, KeyRange, NamedTree, Page, Tree, Value};
use crate::error::{EngineError, EngineErrorKind, Result};
use crate::form::lookup::{Held, Lookup};
use crate::state::route::{Frontier, Kind, Open, Route, TableState};
use crate::state::shared::Shared;

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
pub(crate) struct AtMoment;

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
pub(crate) fn pin(shared: &Shared, tables: &[Arc<TableState>]) -> Result<Option<Vec<Arc<Pinned>>>> {
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
