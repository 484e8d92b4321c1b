//! An engine around another one that can hold up or fail calls, so that a test decides how threads interleave.
#![allow(dead_code, reason = "a kit: not every test needs all of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use exuvia::engine::{
    Capabilities, Check, Engine, EngineResult, KeyRange, MemoryEngine, Outcome, Page, Tree, Value, Write,
};
use exuvia::engine::{EngineError, EngineErrorKind};
use parking_lot::{Condvar, Mutex};

use crate::kit::mirror::Mirror;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Get,
    Put,
    Delete,
    /// `compare_and_swap` and `insert_if_absent`.
    Swap,
    Scan,
    Open,
    List,
    Drop,
    /// Its tree is that of the first write.
    Commit,
    Flush,
}

/// A call into the engine, before (`done` is false) or after it was made.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub kind: Kind,
    pub tree: &'a str,
    pub key: &'a [u8],
    pub done: bool,
}

type Hook = dyn Fn(&Call<'_>) -> EngineResult<()> + Send + Sync;

/// Hooks are asked before and after every call; the first error is the call's. Clones share everything.
#[derive(Clone)]
pub struct Hooked {
    inner: Mirror,
    hooks: Arc<Mutex<Vec<Arc<Hook>>>>,
    value_bytes_max: Arc<AtomicUsize>,
}

impl Hooked {
    pub fn new(inner: MemoryEngine) -> Self {
        Self {
            inner: Mirror::of(inner),
            hooks: Arc::default(),
            value_bytes_max: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }

    /// The engine in memory, past all hooks: to be looked at, and for crash images.
    pub fn inner(&self) -> &MemoryEngine {
        &self.inner.memory
    }

    /// A tree past all hooks, to be written to.
    pub fn raw(&self, tree: &str) -> Arc<dyn Tree> {
        self.inner.tree(tree).unwrap()
    }

    /// Limits values, for stores that are opened from here on.
    pub fn limit_values(&self, bytes: usize) {
        self.value_bytes_max.store(bytes, Ordering::Relaxed);
    }

    pub fn hook(&self, hook: impl Fn(&Call<'_>) -> EngineResult<()> + Send + Sync + 'static) {
        self.hooks.lock().push(Arc::new(hook));
    }

    pub fn clear(&self) {
        self.hooks.lock().clear();
    }

    /// Fails every call that `which` picks, until [`Hooked::clear`].
    pub fn fail(&self, which: impl Fn(&Call<'_>) -> bool + Send + Sync + 'static) {
        self.hook(move |call| match which(call) {
            true => Err(EngineError::new(EngineErrorKind::Io, "a test failed this call")),
            false => Ok(()),
        });
    }

    /// Holds up the `nth` call (from 1) that `which` picks.
    pub fn block(&self, nth: usize, which: impl Fn(&Call<'_>) -> bool + Send + Sync + 'static) -> Block {
        let block = Block::default();
        let (inner, seen) = (Arc::clone(&block.inner), AtomicUsize::new(0));
        self.hook(move |call| {
            if which(call) && seen.fetch_add(1, Ordering::Relaxed) + 1 == nth {
                let (state, changed) = &*inner;
                let mut state = state.lock();
                state.reached = true;
                changed.notify_all();
                while !state.released {
                    changed.wait(&mut state);
                }
            }
            Ok(())
        });
        block
    }

    fn ask(&self, call: &Call<'_>) -> EngineResult<()> {
        let hooks = self.hooks.lock().clone();
        hooks.iter().try_for_each(|hook| hook(call))
    }

    fn around<R>(
        &self,
        kind: Kind,
        tree: &str,
        key: &[u8],
        call: impl FnOnce() -> EngineResult<R>,
    ) -> EngineResult<R> {
        self.ask(&Call { kind, tree, key, done: false })?;
        let result = call()?;
        self.ask(&Call { kind, tree, key, done: true })?;
        Ok(result)
    }
}

/// A call that is being held up; it goes on when this is released or dropped.
#[derive(Default)]
pub struct Block {
    inner: Arc<(Mutex<BlockState>, Condvar)>,
}

#[derive(Default)]
struct BlockState {
    reached: bool,
    released: bool,
}

impl Block {
    /// Waits until a call is held up here.
    pub fn reached(&self) {
        let (state, changed) = &*self.inner;
        let mut state = state.lock();
        while !state.reached {
            assert!(
                !changed.wait_for(&mut state, Duration::from_secs(20)).timed_out(),
                "the call never came"
            );
        }
    }

    pub fn release(&self) {
        let (state, changed) = &*self.inner;
        state.lock().released = true;
        changed.notify_all();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.release();
    }
}

struct HookedTree {
    engine: Hooked,
    name: String,
    inner: Arc<dyn Tree>,
}

impl Tree for HookedTree {
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        self.engine.around(Kind::Get, &self.name, key, || self.inner.get(key))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()> {
        self.engine.around(Kind::Put, &self.name, key, || self.inner.put(key, value))
    }

    fn delete(&self, key: &[u8]) -> EngineResult<()> {
        self.engine.around(Kind::Delete, &self.name, key, || self.inner.delete(key))
    }

    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool> {
        self.engine.around(Kind::Swap, &self.name, key, || self.inner.compare_and_swap(key, old, new))
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        self.engine.around(Kind::Scan, &self.name, b"", || self.inner.scan(range, reverse, limit, page))
    }
}

impl Engine for Hooked {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        let inner = self.around(Kind::Open, name, b"", || self.inner.tree(name))?;
        Ok(Arc::new(HookedTree { engine: self.clone(), name: name.to_owned(), inner }))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        self.around(Kind::List, "", b"", || self.inner.trees())
    }

    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        self.around(Kind::Drop, name, b"", || self.inner.drop_tree(name))
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        let (tree, key) = writes.first().map_or(("", &b""[..]), |w| (w.tree.as_str(), w.key.as_slice()));
        self.around(Kind::Commit, tree, key, || self.inner.commit(checks, writes))
    }

    fn flush(&self) -> EngineResult<()> {
        self.around(Kind::Flush, "", b"", || self.inner.flush())
    }

    fn capabilities(&self) -> Capabilities {
        let value_bytes_max = self.value_bytes_max.load(Ordering::Relaxed);
        Capabilities { value_bytes_max, ..self.inner.capabilities() }
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        self.inner.bytes_on_disk()
    }
}
