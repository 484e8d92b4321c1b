//! One moment of an engine that has no snapshots, kept for as long as a copy needs it.
//!
//! Every write goes through here. While a freeze is on, a writer first saves what the key held, unless the key was saved
//! before or the copy has passed it; so the copy finds, for every key, the value of the moment at which the freeze began:
//!
//! 1. A freeze begins while no write is in flight (the caller holds the gate exclusively, and the catalog's mutex).
//! 2. What is saved first for a key is its value of that moment: a writer saves before it writes, so a writer that reads
//!    anything newer reads it after another one has saved, and then finds the key saved.
//! 3. The copy reads a page, and then, under the lock, takes what was saved of the page's range and passes it. A value
//!    that was written before the page was read had its predecessor saved by then, which takes its place; of a key that is
//!    written after that the page has the old value.
//!
//! Without a freeze this costs a write one load, and a read nothing but the call. With one, a write of a key that is not
//! passed costs one read more, and the old value is held in memory: [`SAVED_BYTES_MAX`] of them end the freeze, and never
//! the writer. Nothing here is stored, so a crash leaves nothing.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::{Capabilities, Check, Engine, EngineResult, KeyRange, Outcome, Page, Tree, Value, Write};
use crate::error::{EngineError, EngineErrorKind};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Most bytes of saved keys and values.
pub(crate) const SAVED_BYTES_MAX: usize = 256 << 20;

/// An engine without snapshots, and the moment of it that is kept, if one is.
pub(crate) struct Freezing {
    engine: Arc<dyn Engine>,
    moment: Arc<Moment>,
}

struct Moment {
    on: AtomicBool,
    freeze: Mutex<Freeze>,
    /// Of saved keys and values.
    bytes_max: usize,
}

#[derive(Default)]
struct Freeze {
    trees: HashMap<String, Kept>,
    bytes: usize,
    failed: Option<String>,
}

/// A tree of the moment.
#[derive(Default)]
struct Kept {
    /// The copy needs nothing up to here any more.
    passed: Option<Vec<u8>>,
    done: bool,
    saved: BTreeMap<Vec<u8>, Option<Value>>,
}

impl Kept {
    fn needs(&self, key: &[u8]) -> bool {
        let passed = self.done || self.passed.as_deref().is_some_and(|passed| key <= passed);
        !passed && !self.saved.contains_key(key)
    }
}

impl Freezing {
    pub(crate) fn new(engine: Arc<dyn Engine>, bytes_max: usize) -> Self {
        let moment = Moment { on: AtomicBool::new(false), freeze: Mutex::default(), bytes_max };
        Self { engine, moment: Arc::new(moment) }
    }

    /// Keeps these trees as they are now. Memory only: to be called with no write in flight. `false` if a moment is
    /// kept already.
    pub(crate) fn freeze(&self, trees: Vec<String>) -> bool {
        let mut freeze = self.moment.freeze.lock();
        if self.moment.on.load(Ordering::SeqCst) {
            return false;
        }
        *freeze = Freeze::default();
        freeze.trees = trees.into_iter().map(|tree| (tree, Kept::default())).collect();
        self.moment.on.store(true, Ordering::SeqCst);
        true
    }

    pub(crate) fn thaw(&self) {
        self.moment.on.store(false, Ordering::SeqCst);
        *self.moment.freeze.lock() = Freeze::default();
    }

    /// The next records of a tree as it was, at most about `limit`, appended to `page`. Answers whether that was all. Each
    /// call goes on after the one before.
    pub(crate) fn page(&self, tree: &str, limit: usize, page: &mut Page) -> EngineResult<bool> {
        let after = self.moment.freeze.lock().trees.get(tree).and_then(|kept| kept.passed.clone());
        let lower = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = Page::new();
        let end = self.engine.tree(tree)?.scan((lower, Bound::Unbounded), false, limit, &mut found)?;
        let mut freeze = self.moment.freeze.lock();
        if let Some(reason) = &freeze.failed {
            return Err(EngineError::new(EngineErrorKind::Limit, reason.clone()));
        }
        let Some(kept) = freeze.trees.get_mut(tree) else {
            return Err(EngineError::new(EngineErrorKind::Io, format!("tree {tree} is not kept")));
        };
        let last = found.last().map(|(key, _)| key.to_vec());
        let later = match &last {
            Some(last) if !end => {
                let mut later = kept.saved.split_off(last.as_slice());
                // The last key is of this page.
                if let Some(value) = later.remove(last.as_slice()) {
                    kept.saved.insert(last.clone(), value);
                }
                later
            }
            _ => BTreeMap::new(),
        };
        let saved = std::mem::replace(&mut kept.saved, later);
        kept.passed = last.or_else(|| kept.passed.take());
        kept.done = end;
        let freed: usize = saved.iter().map(|(key, value)| size(key, value.as_ref())).sum();
        freeze.bytes = freeze.bytes.saturating_sub(freed);
        drop(freeze);
        merge(found, saved, page);
        Ok(end)
    }
}

/// What was found, with what was saved in its place.
fn merge(found: Page, mut saved: BTreeMap<Vec<u8>, Option<Value>>, page: &mut Page) {
    let start = page.len();
    for (key, value) in found {
        match saved.remove(&*key) {
            None => page.push((key, value)),
            Some(Some(old)) => page.push((key, old)),
            // It was not there at that moment.
            Some(None) => {}
        }
    }
    let removed = saved.into_iter().filter_map(|(key, value)| Some((Value::from(key.as_slice()), value?)));
    page.extend(removed);
    if let Some(new) = page.get_mut(start..) {
        new.sort_by(|(a, _), (b, _)| a[..].cmp(&b[..]));
    }
}

fn size(key: &[u8], value: Option<&Value>) -> usize {
    key.len() + value.map_or(0, |value| value.len()) + 64
}

impl Moment {
    /// To be called before a write of `key`.
    #[inline]
    fn before(&self, tree: &str, key: &[u8], read: impl FnOnce() -> EngineResult<Option<Value>>) {
        if self.on.load(Ordering::Acquire) {
            self.save(tree, key, read);
        }
    }

    #[cold]
    fn save(&self, tree: &str, key: &[u8], read: impl FnOnce() -> EngineResult<Option<Value>>) {
        if !self.freeze.lock().trees.get(tree).is_some_and(|kept| kept.needs(key)) {
            return;
        }
        let old = read();
        let mut freeze = self.freeze.lock();
        let freeze = &mut *freeze;
        // Somebody else may have saved it, or the copy passed it, meanwhile.
        let Some(kept) = freeze.trees.get_mut(tree).filter(|kept| kept.needs(key)) else {
            return;
        };
        match old {
            Ok(old) => {
                freeze.bytes += size(key, old.as_ref());
                kept.saved.insert(key.to_vec(), old);
                if freeze.bytes <= self.bytes_max {
                    return;
                }
                freeze.failed = Some(format!(
                    "more than {} bytes were overwritten before the copy came to them, so it was given up; the store goes on: \
                     copy it when less is written, or with a larger budget, which lets a copy take less long",
                    self.bytes_max
                ));
            }
            Err(e) => freeze.failed = Some(format!("a record could not be kept for the copy: {e}")),
        }
        self.on.store(false, Ordering::SeqCst);
        freeze.trees.values_mut().for_each(|kept| kept.saved.clear());
    }
}

struct FreezingTree {
    tree: Arc<dyn Tree>,
    name: String,
    moment: Arc<Moment>,
}

impl FreezingTree {
    #[inline]
    fn before(&self, key: &[u8]) {
        self.moment.before(&self.name, key, || self.tree.get(key));
    }
}

impl Tree for FreezingTree {
    #[inline]
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        self.tree.get(key)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()> {
        self.before(key);
        self.tree.put(key, value)
    }

    fn delete(&self, key: &[u8]) -> EngineResult<()> {
        self.before(key);
        self.tree.delete(key)
    }

    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool> {
        self.before(key);
        self.tree.compare_and_swap(key, old, new)
    }

    fn insert_if_absent(&self, key: &[u8], value: &[u8]) -> EngineResult<bool> {
        self.before(key);
        self.tree.insert_if_absent(key, value)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        self.tree.scan(range, reverse, limit, page)
    }
}

impl Engine for Freezing {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        let (tree, moment) = (self.engine.tree(name)?, Arc::clone(&self.moment));
        Ok(Arc::new(FreezingTree { tree, name: name.to_owned(), moment }))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        self.engine.trees()
    }

    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        self.engine.drop_tree(name)
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        for write in writes {
            self.moment.before(&write.tree, &write.key, || self.engine.tree(&write.tree)?.get(&write.key));
        }
        self.engine.commit(checks, writes)
    }

    fn flush(&self) -> EngineResult<()> {
        self.engine.flush()
    }

    fn capabilities(&self) -> Capabilities {
        self.engine.capabilities()
    }

    fn is_pressed(&self) -> bool {
        self.engine.is_pressed()
    }

    fn check_files(&self) -> EngineResult<Vec<String>> {
        self.engine.check_files()
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        self.engine.bytes_on_disk()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MemoryEngine;

    #[test]
    fn more_than_may_be_saved_ends_the_copy_and_no_writer() {
        let freezing = Freezing::new(Arc::new(MemoryEngine::new()), 1000);
        let tree = freezing.tree("t").expect("opened");
        for key in 0..20_u8 {
            tree.put(&[key], &[1; 100]).expect("written");
        }
        let mut page = Page::new();
        assert!(freezing.freeze(vec!["t".to_owned()]));
        for key in 0..20_u8 {
            tree.put(&[key], &[2; 100]).expect("a writer is never refused for a copy's sake");
        }
        let failed = freezing.page("t", 64, &mut page).expect_err("the moment is lost");
        assert_eq!(failed.kind(), EngineErrorKind::Limit);
        assert!(failed.to_string().contains("more than 1000 bytes"), "{failed}");
        assert!(freezing.moment.freeze.lock().trees.values().all(|kept| kept.saved.is_empty()));
        assert!(page.is_empty());
        freezing.thaw();

        // The next one begins anew.
        assert!(freezing.freeze(vec!["t".to_owned()]));
        tree.put(&[3], &[3; 100]).expect("written");
        assert!(freezing.page("t", 64, &mut page).expect("kept"));
        assert!(page.len() == 20 && page.iter().all(|(_, value)| **value == [2; 100]));
    }
}
