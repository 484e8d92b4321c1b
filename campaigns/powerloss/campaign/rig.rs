//! What the power-loss test needs of a store. One implementation per store, none of them here.

use std::path::Path;

/// One change of a key: `None` deletes.
pub type Change = (Vec<u8>, Option<Vec<u8>>);
/// All keys of a tree with their values.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A store under test, with [`TREES`] ordered trees.
pub trait Rig: Send + Sync {
    fn put(&self, tree: usize, key: &[u8], value: &[u8]) -> Result<(), String>;
    fn delete(&self, tree: usize, key: &[u8]) -> Result<(), String>;
    fn get(&self, tree: usize, key: &[u8]) -> Result<Option<Vec<u8>>, String>;
    fn scan(&self, tree: usize) -> Result<Pairs, String>;
    /// All that returned before this was called must survive a power failure after it has returned.
    fn flush(&self) -> Result<(), String>;

    /// Replaces `old` by `new`; the caller knows that `old` is there.
    fn swap(&self, tree: usize, key: &[u8], old: &[u8], new: &[u8]) -> Result<(), String>;
    /// Applies the changes as one: after a crash all of them or none.
    fn batch(&self, tree: usize, changes: &[Change]) -> Result<(), String>;
    /// Called now and then by one of the workload's threads, for what goes on beside the changes.
    fn meanwhile(&self) -> Result<(), String> {
        Ok(())
    }
}

pub const TREES: usize = 2;

/// What a rig may be told about sizes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub segment: usize,
    pub cache: u64,
}

pub type Opened = Result<Box<dyn Rig>, String>;

/// A named way to open a store.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub what: &'static str,
    /// What it takes at most, in bytes.
    pub longest_value: u64,
    pub longest_key: usize,
    /// Whether it has batches that are all or nothing.
    pub batches: bool,
    pub open: fn(&Path, Sizes) -> Opened,
}
