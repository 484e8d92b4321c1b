//! What is measured: records, their codec, and the same operations on the raw engine and on the store.
//!
//! Both sides use the codec of the store, limits included, visit the same records, and are set alike.

#![allow(dead_code, reason = "each bench uses some of it")]

pub mod paired;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use exuvia::{Budget, CastError, Migration, Origin, Store, Table, Version};
use serde::{Deserialize, Serialize};

/// About 150 bytes.
#[derive(Serialize, Deserialize, Clone)]
pub struct ItemV1 {
    name: String,
    feet: f64,
    note: String,
    tags: Vec<u32>,
}

#[derive(Serialize, Deserialize, Clone)]
pub struct ItemV2 {
    name: String,
    metres: f64,
    note: String,
    tags: Vec<u32>,
    checked: bool,
}

impl Version for ItemV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for ItemV2 {
    const VERSION: u32 = 2;
    type Previous = ItemV1;

    fn upcast(old: ItemV1) -> Result<Self, CastError> {
        Ok(ItemV2 { name: old.name, metres: old.feet * 0.25, note: old.note, tags: old.tags, checked: false })
    }

    fn downcast(&self, _last: Option<ItemV1>) -> Result<ItemV1, CastError> {
        let (name, note, tags) = (self.name.clone(), self.note.clone(), self.tags.clone());
        Ok(ItemV1 { name, feet: self.metres * 4.0, note, tags })
    }
}

pub fn item(id: u64) -> ItemV1 {
    let tags = (0..4).map(|n| (id as u32).wrapping_mul(31).wrapping_add(n)).collect();
    ItemV1 { name: format!("item number {id}"), feet: id as f64, note: "n".repeat(100), tags }
}

/// Keys in an order that no cache foresees, the same for both sides.
pub fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % count
    })
}

pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exuvia-bench-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn raw(path: &Path, count: u64) -> (sled::Db, sled::Tree) {
    // As the engine sets it, but that here sled itself flushes.
    let config = sled::Config::new().path(path).cache_capacity(256 << 20).segment_size(4 << 20);
    let config = config.mode(sled::Mode::HighThroughput).flush_every_ms(Some(500));
    // A thread of sled's may hold the lock of a database that was just closed.
    let db = (0..1000)
        .find_map(|_| config.open().map_err(|_| std::thread::sleep(Duration::from_millis(1))).ok())
        .expect("raw engine opens");
    let tree = db.open_tree("items").expect("tree opens");
    for id in 0..count {
        tree.insert(id.to_be_bytes(), encode(&item(id))).expect("raw put");
    }
    (db, tree)
}

/// The same codec as the store's, limits included.
pub fn encode<V: Version>(record: &V) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(192);
    record.encode(&mut bytes).expect("encodes");
    bytes
}

pub fn decode<V: Version>(bytes: &[u8]) -> V {
    V::decode(bytes).expect("decodes")
}

pub fn exuvia(path: &Path, count: u64) -> (Store, Table<u64, ItemV1>, Table<u64, ItemV2>) {
    let store = Store::open(path).expect("store opens");
    let old: Table<u64, ItemV1> = store.table("items").expect("table opens");
    for id in 0..count {
        old.put(&id, &item(id)).expect("put");
    }
    let new = store.table("items").expect("table opens");
    (store, old, new)
}

/// An open migration that does nothing yet, and has no budget.
pub fn begin<V: Version>(store: &Store, name: &str, to: &Table<u64, V>) -> Migration {
    let migration = store.plan(name).table(to).paused().begin().expect("begins");
    migration.set_budget(Budget::unlimited()).expect("budget");
    migration
}

/// The same, complete.
pub fn backfill<V: Version>(store: &Store, name: &str, to: &Table<u64, V>) -> Migration {
    let migration = begin(store, name, to);
    migration.unpause().expect("runs");
    migration.wait().expect("completes");
    migration
}

pub fn raw_get(tree: &sled::Tree, id: u64) -> Option<ItemV1> {
    tree.get(id.to_be_bytes()).expect("raw get").map(|bytes| decode(&bytes))
}

pub fn raw_put(tree: &sled::Tree, id: u64, record: &ItemV1) {
    tree.insert(id.to_be_bytes(), encode(record)).expect("raw put");
}

pub fn raw_scan(tree: &sled::Tree, count: usize) {
    for entry in tree.range(1000u64.to_be_bytes()..).take(count) {
        black_box(decode::<ItemV1>(&entry.expect("raw scan").1));
    }
}

pub fn our_scan(table: &Table<u64, ItemV1>, count: usize) {
    for entry in table.scan(1000..).take(count) {
        black_box(entry.expect("scan"));
    }
}

/// Exchanges two records: two reads and two writes.
pub fn our_exchange(store: &Store, table: &Table<u64, ItemV1>, a: u64, b: u64) {
    let done = store.transaction::<_, exuvia::Error>(|tx| {
        let read = tx.get(table, &a)?.zip(tx.get(table, &b)?).expect("both are there");
        tx.put(table, &a, &read.1)?;
        tx.put(table, &b, &read.0)
    });
    done.expect("transaction");
}

/// The same on the raw engine, as four operations.
pub fn raw_exchange(tree: &sled::Tree, a: u64, b: u64) {
    let read = raw_get(tree, a).zip(raw_get(tree, b)).expect("both are there");
    raw_put(tree, a, &read.1);
    raw_put(tree, b, &read.0);
}

/// Pairs of different keys.
pub fn pairs(keys: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    keys.chunks_exact(2).map(|pair| (pair[0], pair[1])).filter(|(a, b)| a != b)
}
