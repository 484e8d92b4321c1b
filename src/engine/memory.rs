//! An engine in memory: for tests, for tools, and as the plainest statement of what the trait asks.
//!
//! Each tree is a `BTreeMap` behind its own lock. A commit takes the locks of its trees in the order of their
//! names, so two commits cannot wait for each other, and holds them all while it checks and writes, so no reader
//! of any of these trees sees half of it.
//!
//! A *recording* engine also keeps what was written since the last flush. From that it makes the stores that a
//! loss of power could have left ([`MemoryEngine::crash_image`]): a testing aid, paid for only when asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{
    Capabilities, Check, Engine, EngineResult, KeyRange, Outcome, Page, Tree, Value, Write, arguments,
};
use crate::error::{EngineError, EngineErrorKind};
use crate::sync::{Mutex, RwLock, RwLockWriteGuard};

type Records = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// A store in memory. Clones share it; it is gone with the last one.
#[derive(Clone)]
pub struct MemoryEngine {
    shared: Arc<Shared>,
}

struct Shared {
    trees: RwLock<BTreeMap<String, Arc<MemoryTree>>>,
    /// Only while recording.
    journal: Option<Arc<Mutex<Journal>>>,
}

struct MemoryTree {
    name: String,
    /// `None` once the tree was dropped: handles that are still about get an error, and never the records of
    /// a later tree of the same name.
    records: RwLock<Option<Records>>,
    journal: Option<Arc<Mutex<Journal>>>,
}

/// Limits and abilities of an engine that does not record.
const CAPABILITIES: Capabilities = Capabilities {
    key_bytes_max: usize::MAX,
    value_bytes_max: usize::MAX,
    record_bytes_max: usize::MAX,
    commit_writes_max: usize::MAX,
    commit_bytes_max: usize::MAX,
    trees_max: usize::MAX,
    snapshots: false,
    durable: false,
    drops_at_once: false,
};

/// What a loss of power may lose. Locked last, while the locks of the trees written are held, so that the order
/// of its entries is the order of the writes.
#[derive(Default)]
struct Journal {
    flushed: BTreeMap<String, Records>,
    unflushed: Vec<Vec<Change>>,
}

/// One change; the changes of one commit are one entry of the journal.
#[derive(Clone)]
enum Change {
    Create(String),
    Drop(String),
    Set { tree: String, key: Arc<[u8]>, value: Option<Arc<[u8]>> },
}

fn apply(trees: &mut BTreeMap<String, Records>, change: &Change) {
    match change {
        Change::Create(name) => {
            trees.entry(name.clone()).or_default();
        }
        Change::Drop(name) => {
            trees.remove(name);
        }
        Change::Set { tree, key, value } => {
            let records = trees.entry(tree.clone()).or_default();
            match value {
                Some(value) => records.insert(key.clone(), value.clone()),
                None => records.remove(key),
            };
        }
    }
}

impl MemoryEngine {
    /// An empty store.
    pub fn new() -> Self {
        Self::with(None, BTreeMap::new())
    }

    /// An empty store that remembers what was not flushed yet, for [`crash_image`](Self::crash_image).
    ///
    /// A testing aid: every write is kept a second time until the next flush, and goes through one more lock.
    /// Such an engine calls itself durable, so that a store above it flushes as it would on a disk.
    pub fn recording() -> Self {
        Self::with(Some(Journal::default()), BTreeMap::new())
    }

    fn with(journal: Option<Journal>, trees: BTreeMap<String, Records>) -> Self {
        let journal = journal.map(|journal| Arc::new(Mutex::new(journal)));
        let trees = trees
            .into_iter()
            .map(|(name, records)| {
                let tree = MemoryTree {
                    name: name.clone(),
                    records: RwLock::new(Some(records)),
                    journal: journal.clone(),
                };
                (name, Arc::new(tree))
            })
            .collect();
        Self { shared: Arc::new(Shared { trees: RwLock::new(trees), journal }) }
    }

    /// The store that a loss of power could have left: what was flushed, and of the writes since then, oldest
    /// first, those for whose number `keep` answers `true`. A commit is one write: all of it or nothing.
    ///
    /// A prefix is what an engine with one log leaves; any other subset is harsher than that. The image is a
    /// recording engine of its own, with everything flushed. This engine is not changed.
    ///
    /// On an engine that does not record, the image is empty, as memory would be.
    pub fn crash_image(&self, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut flushed = BTreeMap::new();
        if let Some(journal) = &self.shared.journal {
            let journal = journal.lock();
            flushed.clone_from(&journal.flushed);
            for (_, changes) in journal.unflushed.iter().enumerate().filter(|(number, _)| keep(*number)) {
                changes.iter().for_each(|change| apply(&mut flushed, change));
            }
        }
        Self::with(Some(Journal { flushed: flushed.clone(), unflushed: Vec::new() }), flushed)
    }

    /// How many writes (a commit is one) a loss of power would put in doubt now. 0 unless recording.
    pub fn unflushed(&self) -> usize {
        self.shared.journal.as_ref().map_or(0, |journal| journal.lock().unflushed.len())
    }

    fn record(&self, changes: Vec<Change>) {
        if let Some(journal) = &self.shared.journal {
            journal.lock().unflushed.push(changes);
        }
    }

    fn open(&self, name: &str) -> Arc<MemoryTree> {
        if let Some(tree) = self.shared.trees.read().get(name) {
            return tree.clone();
        }
        let mut trees = self.shared.trees.write();
        // Another thread may have been faster.
        if let Some(tree) = trees.get(name) {
            return tree.clone();
        }
        let tree = Arc::new(MemoryTree {
            name: name.to_owned(),
            records: RwLock::new(Some(Records::new())),
            journal: self.shared.journal.clone(),
        });
        self.record(vec![Change::Create(name.to_owned())]);
        trees.insert(name.to_owned(), tree.clone());
        tree
    }
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

fn dropped(tree: &str) -> EngineError {
    EngineError::new(EngineErrorKind::Io, format!("tree \"{tree}\" was dropped; open it again"))
}

impl MemoryTree {
    fn change(&self, records: &mut Records, key: &[u8], value: Option<&[u8]>) {
        let change = set(records, &self.name, key, value, self.journal.is_some());
        if let (Some(journal), Some(change)) = (&self.journal, change) {
            journal.lock().unflushed.push(vec![change]);
        }
    }

    fn write(&self, key: &[u8], value: Option<&[u8]>) -> EngineResult<()> {
        let mut records = self.records.write();
        let records = records.as_mut().ok_or_else(|| dropped(&self.name))?;
        self.change(records, key, value);
        Ok(())
    }
}

/// Makes one change; answers it if it is to be recorded.
fn set(records: &mut Records, tree: &str, key: &[u8], value: Option<&[u8]>, record: bool) -> Option<Change> {
    let value: Option<Arc<[u8]>> = value.map(Arc::from);
    let change =
        record.then(|| Change::Set { tree: tree.to_owned(), key: Arc::from(key), value: value.clone() });
    match value {
        Some(value) => records.insert(Arc::from(key), value),
        None => records.remove(key),
    };
    change
}

impl Tree for MemoryTree {
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        let records = self.records.read();
        let records = records.as_ref().ok_or_else(|| dropped(&self.name))?;
        Ok(records.get(key).cloned().map(Value::from))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()> {
        self.write(key, Some(value))
    }

    fn delete(&self, key: &[u8]) -> EngineResult<()> {
        self.write(key, None)
    }

    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool> {
        let mut records = self.records.write();
        let records = records.as_mut().ok_or_else(|| dropped(&self.name))?;
        let matches = records.get(key).map(|value| &**value) == old;
        if matches {
            self.change(records, key, new);
        }
        Ok(matches)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        let records = self.records.read();
        let records = records.as_ref().ok_or_else(|| dropped(&self.name))?;
        let Some(range) = arguments::range(CAPABILITIES.key_bytes_max, range) else {
            return Ok(true);
        };
        let start = page.len();
        let found = records.range::<[u8], _>(range);
        let copy =
            |(key, value): (&Arc<[u8]>, &Arc<[u8]>)| (Value::from(key.clone()), Value::from(value.clone()));
        if reverse {
            page.extend(found.rev().take(limit).map(copy));
        } else {
            page.extend(found.take(limit).map(copy));
        }
        Ok(page.len() - start < limit)
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        arguments::check_name(name)?;
        Ok(self.open(name))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        Ok(self.shared.trees.read().keys().cloned().collect())
    }

    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        let mut trees = self.shared.trees.write();
        if let Some(tree) = trees.remove(name) {
            // Under the tree's lock, so that no write is recorded after its tree is gone.
            let mut records = tree.records.write();
            self.record(vec![Change::Drop(name.to_owned())]);
            *records = None;
        }
        Ok(())
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        arguments::check_writes(&CAPABILITIES, writes)?;
        let Some(checks) = arguments::checks(CAPABILITIES.key_bytes_max, checks)? else {
            return Ok(Outcome::Conflict);
        };
        let names: BTreeSet<&str> =
            checks.iter().map(|c| c.tree.as_str()).chain(writes.iter().map(|w| w.tree.as_str())).collect();
        let trees: Vec<(&str, Arc<MemoryTree>)> =
            names.into_iter().map(|name| (name, self.open(name))).collect();
        let mut locked: BTreeMap<&str, RwLockWriteGuard<'_, Option<Records>>> =
            trees.iter().map(|(name, tree)| (*name, tree.records.write())).collect();

        for check in &*checks {
            let records = locked.get(check.tree.as_str()).and_then(|records| records.as_ref());
            let records = records.ok_or_else(|| dropped(&check.tree))?;
            if records.get(&*check.key).map(|value| &**value) != check.expected.as_deref() {
                return Ok(Outcome::Conflict);
            }
        }
        // Nothing below may fail once the first record is written.
        if let Some((name, _)) = locked.iter().find(|(_, records)| records.is_none()) {
            return Err(dropped(name));
        }
        let mut changes = Vec::new();
        for write in writes {
            if let Some(Some(records)) = locked.get_mut(write.tree.as_str()).map(|records| records.as_mut()) {
                let record = self.shared.journal.is_some();
                changes.extend(set(records, &write.tree, &write.key, write.value.as_deref(), record));
            }
        }
        if !changes.is_empty() {
            self.record(changes);
        }
        Ok(Outcome::Applied)
    }

    /// Nothing survives the process. A recording engine counts everything written before the call as safe from
    /// [`crash_image`](MemoryEngine::crash_image).
    fn flush(&self) -> EngineResult<()> {
        if let Some(journal) = &self.shared.journal {
            let journal = &mut *journal.lock();
            for change in std::mem::take(&mut journal.unflushed).iter().flatten() {
                apply(&mut journal.flushed, change);
            }
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: self.shared.journal.is_some(), ..CAPABILITIES }
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        let trees: Vec<_> = self.shared.trees.read().values().cloned().collect();
        let bytes = |tree: &Arc<MemoryTree>| {
            let records = tree.records.read();
            records.iter().flatten().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>()
        };
        Ok(trees.iter().map(bytes).sum())
    }
}
