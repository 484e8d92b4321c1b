//! One tree, live and at the moment of a snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fjall::{Keyspace, Readable};

use super::fence::{self, Access, Fence};
use super::{CAPABILITIES, KEY_BYTES_MAX, Shared, hidden, keys};
use crate::engine::{EngineResult, KeyRange, Page, Snapshot, Tree, Value, arguments};

/// So many full memtables of a tree may wait to be written. At four fjall itself lets writers wait, by a tenth of a
/// second at a time, and for ever if its threads have failed.
const SEALED_MAX: usize = 3;
/// So many sorted runs may wait to be merged. At thirty fjall itself lets writers wait.
const RUNS_MAX: usize = 24;

/// All trees by name.
pub(super) type Trees = HashMap<String, Arc<Records>>;

/// A keyspace of fjall's.
pub(super) struct Records {
    pub(super) keyspace: Keyspace,
    pub(super) name: String,
    /// Bytes in the memtable that is being filled, about.
    filled: AtomicU64,
    /// fjall goes on reading from a dropped keyspace, and takes batches for it.
    dropped: AtomicBool,
}

impl Records {
    pub(super) fn new(name: String, keyspace: Keyspace) -> Self {
        let filled = AtomicU64::new(hidden::memtable_bytes(&keyspace));
        Self { keyspace, name, filled, dropped: AtomicBool::new(false) }
    }

    pub(super) fn number(&self) -> u64 {
        hidden::number(&self.keyspace)
    }

    /// To be called with all stripes held.
    pub(super) fn set_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
    }

    pub(super) fn check(&self) -> EngineResult<()> {
        if self.dropped.load(Ordering::Acquire) {
            return Err(fence::dropped(&format!("fjall, tree \"{}\"", self.name)));
        }
        Ok(())
    }

    /// Whether fjall is about to let writers of this tree wait.
    pub(super) fn is_behind(&self) -> bool {
        // Runs come from memtables only, so it is soon enough to count them when one waits.
        let sealed = hidden::sealed_memtables(&self.keyspace);
        sealed >= SEALED_MAX || sealed > 0 && hidden::unmerged_runs(&self.keyspace) >= RUNS_MAX
    }

    /// Counts a write that is about to be made. Answers, to one caller, that the memtable is full before it.
    #[inline]
    pub(super) fn fill(&self, bytes: u64, limit: u64) -> bool {
        let full = |filled: u64| filled >= limit;
        full(self.filled.fetch_add(bytes, Ordering::Relaxed))
            && full(self.filled.swap(bytes, Ordering::Relaxed))
    }

    /// The value under a stored key.
    #[inline]
    pub(super) fn find(&self, fence: &Fence, stored: &[u8]) -> EngineResult<Option<fjall::Slice>> {
        fence.call(Access::Read, &self.name, || self.keyspace.get(stored))
    }

    /// Makes one write, with its stripe held.
    pub(super) fn write(&self, fence: &Fence, stored: &[u8], value: Option<&[u8]>) -> EngineResult<()> {
        self.check()?;
        fence.call(Access::Write, &self.name, || match value {
            Some(value) => self.keyspace.insert(stored, value),
            None => self.keyspace.remove(stored),
        })
    }
}

/// Appends up to `limit` records of `found`; none if one of them fails.
fn read_page<I>(found: &mut I, reverse: bool, limit: usize, page: &mut Page) -> fjall::Result<bool>
where
    I: DoubleEndedIterator<Item = fjall::Guard>,
{
    let start = page.len();
    for _ in 0..limit {
        let Some(record) = (if reverse { found.next_back() } else { found.next() }) else {
            return Ok(true);
        };
        match record.into_inner() {
            Ok((key, value)) => page.push((keys::given(key), Value::from_fjall(value))),
            Err(e) => {
                page.truncate(start);
                return Err(e);
            }
        }
    }
    Ok(false)
}

pub(super) struct FjallTree {
    // Before `shared`, so that the store's own handle of this tree outlives this one.
    pub(super) records: Arc<Records>,
    pub(super) shared: Arc<Shared>,
}

impl Tree for FjallTree {
    #[inline]
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        let (records, shared) = (&*self.records, &*self.shared);
        records.check()?;
        if !arguments::may_hold(KEY_BYTES_MAX, key) {
            return Ok(None);
        }
        let key = keys::stored(key);
        let before = shared.stripes.before_read();
        let mut found = records.find(&shared.fence, &key)?;
        if !shared.stripes.was_quiet(before) {
            let _no_commit_of_this_key = shared.stripes.hold_one(records.number(), &key);
            found = records.find(&shared.fence, &key)?;
        }
        Ok(found.map(Value::from_fjall))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()> {
        arguments::check_write(&CAPABILITIES, key, Some(value))?;
        let key = keys::stored(key);
        self.shared.admit(&self.records, &key, Some(value))?;
        let _held = self.shared.stripes.hold_one(self.records.number(), &key);
        self.records.write(&self.shared.fence, &key, Some(value))
    }

    fn delete(&self, key: &[u8]) -> EngineResult<()> {
        arguments::check_write(&CAPABILITIES, key, None)?;
        let key = keys::stored(key);
        self.shared.admit(&self.records, &key, None)?;
        let _held = self.shared.stripes.hold_one(self.records.number(), &key);
        self.records.write(&self.shared.fence, &key, None)
    }

    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool> {
        arguments::check_write(&CAPABILITIES, key, new)?;
        let key = keys::stored(key);
        let (records, shared) = (&*self.records, &*self.shared);
        shared.admit(records, &key, new)?;
        let _held = shared.stripes.hold_one(records.number(), &key);
        records.check()?;
        if records.find(&shared.fence, &key)?.as_deref() != old {
            return Ok(false);
        }
        // Writing what is there already would be a write for nothing.
        if old != new {
            records.write(&shared.fence, &key, new)?;
        }
        Ok(true)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        let (records, shared) = (&*self.records, &*self.shared);
        records.check()?;
        let Some(range) = arguments::range(KEY_BYTES_MAX, range) else {
            return Ok(true);
        };
        let bounds = keys::stored_range(range);
        let start = page.len();
        let before = shared.stripes.before_read();
        let done = shared.fence.call(Access::Read, &records.name, || {
            read_page(&mut records.keyspace.range(bounds.clone()), reverse, limit, page)
        })?;
        if shared.stripes.was_quiet(before) {
            return Ok(done);
        }
        page.truncate(start);
        let (snapshot, _trees) = shared.moment()?;
        shared.fence.call(Access::Read, &records.name, || {
            read_page(&mut snapshot.range(&records.keyspace, bounds), reverse, limit, page)
        })
    }
}

/// A moment of the whole store. The trees of that moment are kept with it, also those that are dropped later.
pub(super) struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    trees: Arc<Trees>,
    shared: Arc<Shared>,
}

impl FjallSnapshot {
    pub(super) fn new(shared: &Arc<Shared>) -> EngineResult<Self> {
        let (snapshot, trees) = shared.moment()?;
        Ok(Self { snapshot, trees, shared: Arc::clone(shared) })
    }
}

impl Snapshot for FjallSnapshot {
    fn get(&self, tree: &str, key: &[u8]) -> EngineResult<Option<Value>> {
        let Some(records) = self.trees.get(tree).filter(|_| arguments::may_hold(KEY_BYTES_MAX, key)) else {
            return Ok(None);
        };
        let key = keys::stored(key);
        let found =
            self.shared.fence.call(Access::Read, tree, || self.snapshot.get(&records.keyspace, &key))?;
        Ok(found.map(Value::from_fjall))
    }

    fn scan(
        &self,
        tree: &str,
        range: KeyRange<'_>,
        reverse: bool,
        limit: usize,
        page: &mut Page,
    ) -> EngineResult<bool> {
        let found = self.trees.get(tree).zip(arguments::range(KEY_BYTES_MAX, range));
        let Some((records, range)) = found else {
            return Ok(true);
        };
        let bounds = keys::stored_range(range);
        self.shared.fence.call(Access::Read, tree, || {
            read_page(&mut self.snapshot.range(&records.keyspace, bounds), reverse, limit, page)
        })
    }
}
