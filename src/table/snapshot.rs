//! All tables of a store at one moment.

use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::measure::observe::Operation;
use crate::migration::core::Lease;
use crate::record::key::{self, Key};
use crate::record::version::Version;
use crate::state::route::TableState;
use crate::table::materialize::materialize;
use crate::table::pinned::{AtMoment, Pinned, pin};
use crate::table::scan::{Moment, Scan};
use crate::table::typed::{Table, encode_key};

/// All tables of a store at one moment: made by [`Store::snapshot`](crate::Store::snapshot). Clones share it.
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

impl Snapshot {
    /// `tables`: all of a store.
    pub(crate) fn take(lease: &Arc<Lease>, tables: Vec<Arc<TableState>>) -> Result<Self> {
        let shared = &lease.0.shared;
        let Some(pinned) = pin(shared, &tables)? else {
            let subject = format!("engine {}", shared.engine.name());
            return Err(Error::state(subject, "it has no snapshots; read in a transaction"));
        };
        let tables = tables.into_iter().zip(pinned).collect();
        Ok(Self { lease: Arc::clone(lease), tables })
    }

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
