//! Raw fjall, set as the engine sets it, and brought to the same state.
//!
//! The engine lets no memtable be full by fjall's own measure and seals them itself; so does this side, at the same
//! size and by the same count. Both sides are settled before they are measured: what they hold is one sorted run, written
//! by the same merge, whatever the timing of the merges during the load was.

use std::cell::Cell;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use exuvia::engine::{EngineKind, FjallOptions};
use exuvia::{Store, Table, Version};
use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::subjects::{ItemV1, decode, encode, item};

/// Bytes that a record takes in a memtable besides its key and value, as the engine counts.
const MEMTABLE_OVERHEAD: usize = 100;

pub fn database(path: &Path) -> Database {
    let builder = Database::builder(path).cache_size(256 << 20).worker_threads(1);
    builder.max_journaling_size(64 << 20).open().expect("raw engine opens")
}

pub fn options() -> KeyspaceCreateOptions {
    let merges = Leveled::default().with_l0_threshold(FjallOptions::RUNS_MERGED);
    KeyspaceCreateOptions::default().max_memtable_size(u64::MAX).compaction_strategy(Arc::new(merges))
}

pub struct Raw {
    // Before the database: a keyspace is let go of first.
    keyspace: Keyspace,
    db: Database,
    filled: Cell<u64>,
}

impl Raw {
    pub fn open(path: &Path) -> Self {
        let db = database(path);
        let keyspace = db.keyspace("items", options).expect("keyspace opens");
        Self { keyspace, db, filled: Cell::new(0) }
    }

    pub fn load(path: &Path, count: u64) -> Self {
        let raw = Self::open(path);
        (0..count).for_each(|id| raw.put(id, &item(id)));
        drop(raw);
        settle(path);
        Self::open(path)
    }

    pub fn put(&self, id: u64, record: &ItemV1) {
        let (key, value) = (id.to_be_bytes(), encode(record));
        let bytes = (key.len() + value.len() + MEMTABLE_OVERHEAD) as u64;
        if self.filled.get() >= FjallOptions::MEMTABLE_BYTES {
            self.filled.set(0);
            self.keyspace.rotate_memtable().expect("raw memtable is sealed");
        }
        self.filled.set(self.filled.get() + bytes);
        self.keyspace.insert(key, value).expect("raw put");
    }

    /// All records at once, sorted, past the journal.
    pub fn ingest(&self, count: u64) {
        let mut ingestion = self.keyspace.start_ingestion().expect("ingestion begins");
        for id in 0..count {
            ingestion.write(id.to_be_bytes(), encode(&item(id))).expect("raw ingestion");
        }
        ingestion.finish().expect("ingestion ends");
    }

    pub fn flush(&self) {
        self.db.persist(fjall::PersistMode::SyncData).expect("raw flush");
    }

    pub fn get<V: Version>(&self, id: u64) -> Option<V> {
        self.keyspace.get(id.to_be_bytes()).expect("raw get").map(|bytes| decode(&bytes))
    }

    pub fn exchange(&self, a: u64, b: u64) {
        let read = self.get::<ItemV1>(a).zip(self.get::<ItemV1>(b)).expect("both are there");
        self.put(a, &read.1);
        self.put(b, &read.0);
    }

    pub fn scan(&self, count: usize) {
        for entry in self.keyspace.range(1000u64.to_be_bytes()..).take(count) {
            black_box(decode::<ItemV1>(&entry.into_inner().expect("raw scan").1));
        }
    }
}

/// Merges all that a database holds into one sorted run for each keyspace.
pub fn settle(path: &Path) {
    let db = database(path);
    for name in db.list_keyspace_names() {
        let keyspace = db.keyspace(&name, options).expect("keyspace opens");
        keyspace.rotate_memtable_and_wait().expect("memtable is written");
        keyspace.major_compact().expect("keyspace is merged");
    }
}

pub fn store(path: &Path) -> (Store, Table<u64, ItemV1>) {
    let store = Store::options().engine(EngineKind::Fjall).open(path).expect("store opens");
    let table = store.table("items").expect("table opens");
    (store, table)
}

pub fn load_store(path: &Path, count: u64) -> (Store, Table<u64, ItemV1>) {
    let (opened, table) = store(path);
    (0..count).for_each(|id| table.put(&id, &item(id)).expect("put"));
    drop((opened, table));
    settle(&path.join("fjall"));
    store(path)
}
