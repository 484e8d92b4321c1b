//! A typed handle on one table at one view. Types stop here: below it everything is bytes.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use crate::core::Lease;
use crate::envelope;
use crate::error::Result;
use crate::key::{self, Key, KeyPrefix};
use crate::lineage::{self, CastFailure, Stored};
use crate::quarantine::Quarantined;
use crate::resolve::Form;
use crate::route::{Found, Looked, TableState};
use crate::scan::{Moment, Scan};
use crate::stats::Operation;
use crate::version::Version;
use crate::write::Encoder;

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

    /// The records of a range in key order; double-ended.
    ///
    /// For a page of results at a time, go on after the last key that was seen:
    ///
    /// ```
    /// use std::ops::Bound::{Excluded, Unbounded};
    /// use exuvia::{Result, Table, Version};
    ///
    /// fn page<V: Version>(users: &Table<u64, V>, after: u64, limit: usize) -> Result<Vec<(u64, V)>> {
    ///     users.scan((Excluded(after), Unbounded)).take(limit).collect()
    /// }
    /// ```
    ///
    /// Reads pages as it goes. On an engine with snapshots (fjall) all of it is of the moment of its first record, and stays
    /// so until it is dropped; on any other (sled, memory) each record is of one moment and the scan as a whole is not: a
    /// record that is written while it goes on is seen or not, and one that is moved from key to key may be
    /// seen twice or not at all. An error ends the scan, as its last item.
    pub fn scan(&self, range: impl RangeBounds<K>) -> Scan<K, V> {
        self.scan_bytes(key::encode_bounds(&range), Moment::First)
    }

    /// The records whose key begins with `prefix`, in key order. Otherwise as [`Table::scan`].
    ///
    /// A prefix is the beginning of a string (`"no"`) or of bytes (`&b"no"[..]`), or the first members of a tuple, as
    /// a shorter tuple (`&("north".to_owned(),)`): see [`KeyPrefix`].
    pub fn scan_prefix<P: KeyPrefix<K> + ?Sized>(&self, prefix: &P) -> Scan<K, V> {
        self.scan_bytes(key::key_prefix_range(prefix), Moment::First)
    }

    /// The records whose upcast failed in the open migration of this table, with the reasons, in key order.
    ///
    /// A record leaves the quarantine by being overwritten or removed, or by [`restart`](crate::Migration::restart) with
    /// corrected code; until then its old form can be read at the old view. Reads pages as it goes, each of its own
    /// moment. An error ends it.
    pub fn quarantined(&self) -> impl Iterator<Item = Result<(K, String)>> + use<K, V> {
        Quarantined::new(Arc::clone(&self.state), Arc::clone(&self.lease))
    }

    /// The number of records. Scans the whole table.
    ///
    /// # Errors
    ///
    /// As [`Table::scan`].
    pub fn len(&self) -> Result<u64> {
        self.scan(..).count_records()
    }

    /// Whether there is no record. Costs at most one page of a scan.
    ///
    /// # Errors
    ///
    /// As [`Table::scan`].
    pub fn is_empty(&self) -> Result<bool> {
        self.peek().next().transpose().map(|first| first.is_none())
    }

    /// For a look at an end of the table, which needs no moment of its own.
    pub(crate) fn peek(&self) -> Scan<K, V> {
        self.scan_bytes((Bound::Unbounded, Bound::Unbounded), Moment::Own)
    }

    fn scan_bytes(&self, bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>), moment: Moment) -> Scan<K, V> {
        Scan::new(Arc::clone(&self.state), Arc::clone(&self.lease), bounds, moment)
    }

    #[inline]
    fn finish(&self, timer: crate::stats::Timer, operation: Operation, waited: Duration) {
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

/// Decodes what a read found, and casts it to `V`. User code runs here, under no lock.
#[inline]
pub(crate) fn materialize<V: Version>(state: &TableState, key: &[u8], found: Found) -> Result<Option<V>> {
    let Found::Form { entry, form, to, validate } = found else {
        return Ok(None);
    };
    let main = (entry.version(), entry.main());
    let result = match (form, entry.companion()) {
        (Form::Merge, Some((_, companion))) => lineage::merge_up::<V>(to, main, companion).map(|merged| {
            if merged.dropped {
                state.shared.recorder.merges_dropped.fetch_add(1, crate::sync::atomic::Ordering::Relaxed);
            }
            merged.record
        }),
        (Form::Companion, Some(companion)) => lineage::decode_at(companion),
        _ => lineage::decode_at(main),
    };
    let result = result.and_then(|record| {
        if validate {
            lineage::validate_at(&record, to, None)?;
        }
        Ok(Some(record))
    });
    result.map_err(|e| state.cast_failed(key, e))
}

/// What [`TableState::plain`] and [`materialize`] do to a record of a settled table, where it lies.
#[inline]
pub(crate) fn decode_plain<V: Version>(state: &TableState, key: &[u8], value: &[u8]) -> Result<Option<V>> {
    let header = match envelope::parse(key, value) {
        Ok(header) => header,
        Err(damage) => return Err(state.damaged(key, damage.0)),
    };
    if header.is_absence() {
        return Ok(None);
    }
    match lineage::decode_at((header.version, header.main(value))) {
        Ok(record) => Ok(Some(record)),
        Err(e) => Err(state.cast_failed(key, e)),
    }
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

    fn drops_fields(&self, target: u32) -> bool {
        lineage::drops_fields::<V>(target)
    }
}
