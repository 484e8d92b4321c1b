//! A typed handle on one table at one view. Types stop here: below it everything is bytes.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::measure::observe::Operation;
use crate::migration::Plan;
use crate::migration::core::Lease;
use crate::record::key::Key;
use crate::record::lineage::{self, CastFailure, Stored};
use crate::record::version::Version;
use crate::state::route::{Looked, TableState};
use crate::table::materialize::{decode_plain, materialize};
use crate::table::quarantined::Quarantined;
use crate::table::write::Encoder;

/// A longer buffer for keys is not kept.
const BUFFER_BYTES_MAX: usize = 4096;

/// A handle on a table, reading and writing at the view `V`.
///
/// Handles are cheap to clone and may be used from any thread. Handles at several views of one table may be
/// open at once, in one process.
pub struct Table<K, V> {
    state: Arc<TableState>,
    lease: Arc<Lease>,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), lease: Arc::clone(&self.lease), types: PhantomData }
    }
}

impl<K, V> std::fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("name", &self.state.name).finish_non_exhaustive()
    }
}

impl Plan {
    /// Adds a table, to be brought to the view of this handle.
    pub fn table<K: Key, V: Version>(self, table: &Table<K, V>) -> Self {
        self.add(&table.lease, &table.state, V::VERSION)
    }
}

impl<K: Key, V: Version> Table<K, V> {
    pub(crate) fn new(state: Arc<TableState>, lease: Arc<Lease>) -> Self {
        Self { state, lease, types: PhantomData }
    }

    /// The table's name. A rename changes it, also for handles that were opened before.
    pub fn name(&self) -> String {
        self.state.name.to_string()
    }

    pub(crate) fn state(&self) -> &Arc<TableState> {
        &self.state
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// The record under `key`, at this handle's view; an older one is upcast in memory.
    ///
    /// Costs one engine lookup, or two in an open migration if the record was not yet copied. Takes no lock.
    ///
    /// # Errors
    ///
    /// Damage, a failed cast, a record in quarantine, a retired view: of this key only. Never a wrong `None`.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let timer = self.state.shared.recorder.start();
        let result = with_key(key, |bytes| match self.state.look(bytes, V::VERSION) {
            Ok(Looked::Plain(None)) => Ok(None),
            Ok(Looked::Plain(Some(value))) => decode_plain(&self.state, bytes, &value),
            Ok(Looked::Resolved(found)) => materialize(&self.state, bytes, found),
            Err(e) => Err(e),
        });
        self.finish(timer, Operation::Get, Duration::ZERO);
        result
    }

    /// Writes a record, whatever was there.
    ///
    /// In an open migration both forms are written in one single-key write. When it is safe from a power
    /// failure is the store's [`crate::Durability`].
    ///
    /// # Errors
    ///
    /// A refused record (rules of the active version, a failed downcast, something that the stored version
    /// cannot hold), a size over the limit, a fenced or retired view. Nothing was written then.
    pub fn put(&self, key: &K, record: &V) -> Result<()> {
        let timer = self.state.shared.recorder.start();
        let mut waited = Duration::ZERO;
        let result = with_key(key, |bytes| self.state.put(bytes, &Typed(record), &mut waited));
        self.finish(timer, Operation::Put, waited);
        result
    }

    /// Removes the record under `key`, if there is one.
    ///
    /// # Errors
    ///
    /// A fenced or retired view, or a failing engine.
    pub fn remove(&self, key: &K) -> Result<()> {
        let timer = self.state.shared.recorder.start();
        let mut waited = Duration::ZERO;
        let result = with_key(key, |bytes| self.state.remove(bytes, V::VERSION, &mut waited));
        self.finish(timer, Operation::Remove, waited);
        result
    }

    /// The records whose upcast failed in the open migration of this table, with the reasons, in key order.
    ///
    /// A record leaves the quarantine by being overwritten or removed, or by [`restart`](crate::Migration::restart) with
    /// corrected code; until then its old form can be read at the old view. Reads pages as it goes, each of its own
    /// moment. An error ends it.
    pub fn quarantined(&self) -> impl Iterator<Item = Result<(K, String)>> + use<K, V> {
        Quarantined::new(Arc::clone(&self.state), Arc::clone(&self.lease))
    }

    #[inline]
    fn finish(&self, timer: crate::measure::stats::Timer, operation: Operation, waited: Duration) {
        let state = &self.state;
        state.shared.recorder.finish(timer, operation, state.activity(), waited, &state.name);
    }
}

#[inline]
pub(crate) fn encode_key<K: Key>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    key.encode(&mut bytes);
    bytes
}

/// Calls `with` with the encoded key, in a buffer of the thread that is used again. `with` may run user code that comes
/// here too: it then finds no buffer, and makes one.
#[inline]
fn with_key<K: Key, R>(key: &K, with: impl FnOnce(&[u8]) -> R) -> R {
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    // A thread that ends may have no buffer any more.
    let mut bytes = BUFFER.try_with(Cell::take).unwrap_or_default();
    bytes.clear();
    key.encode(&mut bytes);
    let result = with(&bytes);
    if bytes.capacity() <= BUFFER_BYTES_MAX {
        let _ended = BUFFER.try_with(|buffer| buffer.set(bytes));
    }
    result
}

/// A record as the byte level sees it.
pub(crate) struct Typed<'a, V>(pub(crate) &'a V);

impl<V: Version> Encoder for Typed<'_, V> {
    fn view(&self) -> u32 {
        V::VERSION
    }

    fn encode(&self, target: u32, last: Option<Stored<'_>>, out: &mut Vec<u8>) -> Result<(), CastFailure> {
        lineage::encode_at(self.0, target, last, out)
    }

    fn survives(&self, target: u32) -> Result<bool, CastFailure> {
        let (mut own, mut down, mut back) = (Vec::new(), Vec::new(), Vec::new());
        lineage::encode_at(self.0, V::VERSION, None, &mut own)?;
        lineage::encode_at(self.0, target, None, &mut down)?;
        let returned: V = lineage::decode_at((target, &down))?;
        lineage::encode_at(&returned, V::VERSION, None, &mut back)?;
        Ok(own == back)
    }

    fn validate(&self, active: u32, last: Option<Stored<'_>>) -> Result<(), CastFailure> {
        lineage::validate_at(self.0, active, last)
    }

    fn reads_back(&self, target: u32, bytes: &[u8]) -> Result<(), CastFailure> {
        lineage::reads_back::<V>((target, bytes))
    }

    fn drops_fields(&self, target: u32) -> bool {
        lineage::drops_fields::<V>(target)
    }
}
