//! The store's engines, as they are used.

use std::ops::Bound;
use std::sync::Arc;

use exuvia::engine::{
    Engine, FjallEngine, FjallOptions, Outcome, Page, SledEngine, SledOptions, Tree, Write,
};

use super::rig::{Change, Kind, Opened, Pairs, Rig, TREES};

pub const ENGINE: Kind = Kind {
    name: "exuvia-engine",
    what: "the sled engine",
    longest_value: 48 << 10,
    longest_key: 2 << 10,
    batches: true,
    open: |path, sizes| {
        let options = SledOptions::new().cache_bytes(sizes.cache);
        rigged(Arc::new(SledEngine::open(path, options).map_err(|e| format!("open: {e}"))?))
    },
};

/// Memtables are as small as segments of sled's log, so that files are written and merged while crashes are taken.
pub const FJALL: Kind = Kind {
    name: "exuvia-fjall",
    what: "the fjall engine",
    longest_value: 48 << 10,
    longest_key: 2 << 10,
    batches: true,
    open: |path, sizes| {
        let options = FjallOptions::new().cache_bytes(sizes.cache).memtable_bytes(sizes.segment as u64);
        rigged(Arc::new(FjallEngine::open(path, options).map_err(|e| format!("open: {e}"))?))
    },
};

struct Rigged {
    engine: Arc<dyn Engine>,
    trees: Vec<Arc<dyn Tree>>,
}

fn rigged(engine: Arc<dyn Engine>) -> Opened {
    let trees = (0..TREES).map(|n| engine.tree(&name(n)).map_err(|e| format!("tree: {e}")));
    let trees = trees.collect::<Result<_, _>>()?;
    Ok(Box::new(Rigged { engine, trees }))
}

fn name(tree: usize) -> String {
    format!("tree{tree}")
}

impl Rig for Rigged {
    fn put(&self, tree: usize, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.trees[tree].put(key, value).map_err(|e| format!("put: {e}"))
    }

    fn delete(&self, tree: usize, key: &[u8]) -> Result<(), String> {
        self.trees[tree].delete(key).map_err(|e| format!("delete: {e}"))
    }

    fn get(&self, tree: usize, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let found = self.trees[tree].get(key).map_err(|e| format!("get: {e}"))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, tree: usize) -> Result<Pairs, String> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut page = Page::new();
        let end = self.trees[tree].scan(all, false, usize::MAX, &mut page);
        if !end.map_err(|e| format!("scan: {e}"))? {
            return Err("scan: it has no end".to_owned());
        }
        Ok(page.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
    }

    fn flush(&self) -> Result<(), String> {
        self.engine.flush().map_err(|e| format!("flush: {e}"))
    }

    fn swap(&self, tree: usize, key: &[u8], old: &[u8], new: &[u8]) -> Result<(), String> {
        match self.trees[tree].compare_and_swap(key, Some(old), Some(new)) {
            Ok(true) => Ok(()),
            Ok(false) => Err("swap: the old value was not there".to_owned()),
            Err(e) => Err(format!("swap: {e}")),
        }
    }

    fn batch(&self, tree: usize, changes: &[Change]) -> Result<(), String> {
        let write =
            |(key, value): &Change| Write { tree: name(tree), key: key.clone(), value: value.clone() };
        let writes: Vec<Write> = changes.iter().map(write).collect();
        match self.engine.commit(&[], &writes) {
            Ok(Outcome::Applied) => Ok(()),
            Ok(Outcome::Conflict) => Err("commit: a conflict without a check".to_owned()),
            Err(e) => Err(format!("commit: {e}")),
        }
    }
}
