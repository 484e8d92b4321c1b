//! Any engine, without its writes: what a store that was opened read-only stands on.
//!
//! Here and not in the calls above, so that there is one place which nothing gets past: a write that somebody forgot
//! to refuse by a better word ends here.

use std::sync::Arc;

use super::{
    Capabilities, Check, Engine, EngineResult, KeyRange, Outcome, Page, Snapshot, Tree, Value, Write,
};
use crate::error::{EngineError, EngineErrorKind};

pub(crate) struct ReadOnly(pub(crate) Arc<dyn Engine>);

struct ReadOnlyTree {
    /// `None` where there is none of this name: an empty tree, which is not made for being looked at.
    tree: Option<Arc<dyn Tree>>,
}

fn refused<T>() -> EngineResult<T> {
    Err(EngineError::new(EngineErrorKind::ReadOnly, "the store was opened read-only"))
}

impl Tree for ReadOnlyTree {
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        self.tree.as_ref().map_or(Ok(None), |tree| tree.get(key))
    }

    fn put(&self, _key: &[u8], _value: &[u8]) -> EngineResult<()> {
        refused()
    }

    fn delete(&self, _key: &[u8]) -> EngineResult<()> {
        refused()
    }

    fn compare_and_swap(&self, _key: &[u8], _old: Option<&[u8]>, _new: Option<&[u8]>) -> EngineResult<bool> {
        refused()
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        self.tree.as_ref().map_or(Ok(true), |tree| tree.scan(range, reverse, limit, page))
    }
}

impl Engine for ReadOnly {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        let known = self.0.trees()?.iter().any(|tree| tree == name);
        let tree = if known { Some(self.0.tree(name)?) } else { None };
        Ok(Arc::new(ReadOnlyTree { tree }))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        self.0.trees()
    }

    fn drop_tree(&self, _name: &str) -> EngineResult<()> {
        refused()
    }

    /// A transaction that only reads has its reads checked.
    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        if writes.is_empty() { self.0.commit(checks, writes) } else { refused() }
    }

    /// There is nothing to make durable.
    fn flush(&self) -> EngineResult<()> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn snapshot(&self) -> EngineResult<Option<Arc<dyn Snapshot>>> {
        self.0.snapshot()
    }

    fn is_pressed(&self) -> bool {
        self.0.is_pressed()
    }

    fn check_files(&self) -> EngineResult<Vec<String>> {
        self.0.check_files()
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        self.0.bytes_on_disk()
    }
}
