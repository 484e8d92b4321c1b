//! Memory, and beside it, if `EXUVIA_TEST_ENGINE` names one, an engine with files that does everything too and is the
//! one that is read. So the tests that hook into calls, and take crash images from memory, run on every engine:
//!
//! `EXUVIA_TEST_ENGINE=fjall cargo test --workspace --test it -- invariants:: ordering:: traps:: --skip invariant_09`
//!
//! `.ci/run` names all the modules that run so.
//!
//! What is skipped makes thousands of stores, and looks at crash images of memory only.

use std::ops::Bound::Unbounded;
use std::sync::{Arc, Mutex};

use exuvia::engine::{
    Capabilities, Check, Engine, EngineKind, EngineResult, KeyRange, MemoryEngine, Outcome, Page, Tree,
    Value, Write,
};

use crate::kit::scratch::Scratch;

/// Clones share everything.
#[derive(Clone)]
pub struct Mirror {
    pub memory: MemoryEngine,
    beside: Option<Arc<Beside>>,
}

struct Beside {
    engine: Arc<dyn Engine>,
    // Removed after the engine is closed.
    _scratch: Option<Scratch>,
    /// One write at a time, so that both have them in one order.
    turn: Mutex<()>,
}

struct MirrorTree {
    memory: Arc<dyn Tree>,
    beside: Option<(Arc<dyn Tree>, Arc<Beside>)>,
}

impl Mirror {
    /// Of what `memory` holds.
    pub fn of(memory: MemoryEngine) -> Self {
        let beside = std::env::var("EXUVIA_TEST_ENGINE").ok().map(|name| {
            let kind = EngineKind::from_name(&name).expect("EXUVIA_TEST_ENGINE names an engine");
            let scratch = Scratch::new("mirror");
            let engine = kind.open(scratch.path().join("engine"), 16 << 20).unwrap();
            for name in memory.trees().unwrap() {
                let mut page = Page::new();
                memory
                    .tree(&name)
                    .unwrap()
                    .scan((Unbounded, Unbounded), false, usize::MAX, &mut page)
                    .unwrap();
                let tree = engine.tree(&name).unwrap();
                page.iter().for_each(|(key, value)| tree.put(key, value).unwrap());
            }
            Arc::new(Beside { engine, _scratch: Some(scratch), turn: Mutex::default() })
        });
        Self { memory, beside }
    }

    /// Of what an engine's directory holds; it stays there.
    pub fn on_disk(kind: EngineKind, directory: &std::path::Path) -> Self {
        let memory = MemoryEngine::recording();
        let engine = kind.open(directory, 16 << 20).unwrap();
        for name in engine.trees().unwrap() {
            let mut page = Page::new();
            let tree = engine.tree(&name).unwrap();
            tree.scan((Unbounded, Unbounded), false, usize::MAX, &mut page).unwrap();
            let copy = memory.tree(&name).unwrap();
            page.iter().for_each(|(key, value)| copy.put(key, value).unwrap());
        }
        let beside = Beside { engine, _scratch: None, turn: Mutex::default() };
        Self { memory, beside: Some(Arc::new(beside)) }
    }

    /// A call that changes something, on both.
    fn both<R: PartialEq + std::fmt::Debug>(
        &self,
        call: impl Fn(&dyn Engine) -> EngineResult<R>,
    ) -> EngineResult<R> {
        let Some(beside) = &self.beside else {
            return call(&self.memory);
        };
        let _turn = beside.turn.lock().unwrap();
        let answer = call(&*beside.engine)?;
        assert_eq!(call(&self.memory)?, answer, "two engines, two answers");
        Ok(answer)
    }

    fn read(&self) -> &dyn Engine {
        self.beside.as_ref().map_or(&self.memory, |beside| &*beside.engine)
    }
}

impl MirrorTree {
    fn both<R: PartialEq + std::fmt::Debug>(
        &self,
        call: impl Fn(&dyn Tree) -> EngineResult<R>,
    ) -> EngineResult<R> {
        let Some((tree, beside)) = &self.beside else {
            return call(&*self.memory);
        };
        let _turn = beside.turn.lock().unwrap();
        let answer = call(&**tree)?;
        assert_eq!(call(&*self.memory)?, answer, "two engines, two answers");
        Ok(answer)
    }

    fn read(&self) -> &dyn Tree {
        self.beside.as_ref().map_or(&*self.memory, |(tree, _)| &**tree)
    }
}

impl Tree for MirrorTree {
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        self.read().get(key)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()> {
        self.both(|tree| tree.put(key, value))
    }

    fn delete(&self, key: &[u8]) -> EngineResult<()> {
        self.both(|tree| tree.delete(key))
    }

    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool> {
        self.both(|tree| tree.compare_and_swap(key, old, new))
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        self.read().scan(range, reverse, limit, page)
    }
}

impl Engine for Mirror {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        let Some(beside) = &self.beside else {
            return self.memory.tree(name);
        };
        let _turn = beside.turn.lock().unwrap();
        let tree = beside.engine.tree(name)?;
        let memory = self.memory.tree(name)?;
        Ok(Arc::new(MirrorTree { memory, beside: Some((tree, Arc::clone(beside))) }))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        self.read().trees()
    }

    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        self.both(|engine| engine.drop_tree(name))
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        self.both(|engine| engine.commit(checks, writes))
    }

    fn flush(&self) -> EngineResult<()> {
        self.both(|engine| engine.flush())
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        self.memory.bytes_on_disk()
    }
}
