//! An engine that dies: after a given number of writes every call fails, as if the process were gone. What it
//! wrote until then is in the recording memory engine below it, for [`MemoryEngine::crash_image`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use exuvia::engine::{
    Capabilities, Check, Engine, EngineResult, KeyRange, MemoryEngine, Outcome, Page, Tree, Value, Write,
};
use exuvia::engine::{EngineError, EngineErrorKind};

const IMMORTAL: i64 = i64::MAX / 2;

#[derive(Clone)]
pub struct Doomed {
    pub inner: MemoryEngine,
    /// One more than the writes and flushes that will still be made.
    left: Arc<AtomicI64>,
}

struct DoomedTree {
    inner: Arc<dyn Tree>,
    left: Arc<AtomicI64>,
}

fn alive(left: &AtomicI64, cost: i64) -> EngineResult<()> {
    if left.fetch_sub(cost, Ordering::SeqCst) > cost {
        return Ok(());
    }
    // Below zero for good: a later call must not find it alive.
    left.store(-1, Ordering::SeqCst);
    Err(EngineError::new(EngineErrorKind::Poisoned, "the process is dead"))
}

impl Doomed {
    pub fn new(inner: MemoryEngine) -> Self {
        Self { inner, left: Arc::new(AtomicI64::new(IMMORTAL)) }
    }

    /// Dies after so many more writes.
    pub fn doom(&self, writes: u8) {
        self.left.store(i64::from(writes) + 1, Ordering::SeqCst);
    }

    pub fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) <= 0
    }

    /// Ends every handle's power to write, at once.
    pub fn kill(&self) {
        self.left.store(-1, Ordering::SeqCst);
    }
}

impl Tree for DoomedTree {
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        alive(&self.left, 0)?;
        self.inner.get(key)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()> {
        alive(&self.left, 1)?;
        self.inner.put(key, value)
    }

    fn delete(&self, key: &[u8]) -> EngineResult<()> {
        alive(&self.left, 1)?;
        self.inner.delete(key)
    }

    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool> {
        alive(&self.left, 1)?;
        self.inner.compare_and_swap(key, old, new)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        alive(&self.left, 0)?;
        self.inner.scan(range, reverse, limit, page)
    }
}

impl Engine for Doomed {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        alive(&self.left, 0)?;
        Ok(Arc::new(DoomedTree { inner: self.inner.tree(name)?, left: Arc::clone(&self.left) }))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        alive(&self.left, 0)?;
        self.inner.trees()
    }

    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        alive(&self.left, 1)?;
        self.inner.drop_tree(name)
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        alive(&self.left, 1)?;
        self.inner.commit(checks, writes)
    }

    fn flush(&self) -> EngineResult<()> {
        alive(&self.left, 1)?;
        self.inner.flush()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        self.inner.bytes_on_disk()
    }
}
