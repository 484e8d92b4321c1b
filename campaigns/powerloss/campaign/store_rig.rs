//! The whole store: two tables of two versions, with migrations begun, rolled back, resumed and abandoned while
//! both versions write.
//!
//! Only flushes that are asked for count, so those of the background are put off for longer than a run takes.
//! What is read back is read at both views, and the store verifies itself.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use exuvia::engine::EngineKind;
use exuvia::migration::NewWrites;
use exuvia::{Budget, CastError, Durability, Origin, Phase, Store, Table, Version};
use serde::{Deserialize, Serialize};

use super::rig::{Change, Kind, Opened, Pairs, Rig, Sizes, TREES};
use super::rng::Rng;

/// Two forms of a record lie side by side while a migration is open, so a record may have less than half of what
/// the engine takes. A key ends in two bytes of its own.
pub const STORE: Kind = Kind {
    name: "exuvia-store",
    what: "the store, with migrations",
    longest_value: 23 << 10,
    longest_key: (2 << 10) - 2,
    batches: false,
    open: |path, sizes| open(path, sizes, EngineKind::Sled),
};

pub const ON_FJALL: Kind = Kind {
    name: "exuvia-store-fjall",
    what: "the store on fjall, with migrations",
    open: |path, sizes| open(path, sizes, EngineKind::Fjall),
    ..STORE
};

#[derive(Serialize, Deserialize)]
struct Old {
    bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct New {
    sum: u64,
    bytes: Vec<u8>,
}

impl New {
    fn of(bytes: Vec<u8>) -> Self {
        let sum = bytes.iter().copied().map(u64::from).sum();
        New { sum, bytes }
    }
}

impl Version for Old {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(previous: Origin) -> Result<Self, CastError> {
        previous.never()
    }

    fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for New {
    const VERSION: u32 = 2;
    type Previous = Old;

    fn upcast(previous: Old) -> Result<Self, CastError> {
        Ok(New::of(previous.bytes))
    }

    fn downcast(&self, _: Option<Old>) -> Result<Old, CastError> {
        let bytes = self.bytes.clone();
        Ok(Old { bytes })
    }
}

struct Rigged {
    store: Store,
    old: Vec<Table<Vec<u8>, Old>>,
    new: Vec<Table<Vec<u8>, New>>,
    /// Which view writes next.
    turn: AtomicUsize,
    seed: u64,
}

fn said<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String + '_ {
    move |error| format!("{what}: {error}")
}

fn open(path: &Path, sizes: Sizes, kind: EngineKind) -> Opened {
    let late = Durability::Buffered { interval: Duration::from_secs(3600) };
    let options = Store::options().durability(late).cache_bytes(sizes.cache);
    let options = options.budget(Budget::unlimited()).free_bytes_min(0);
    let store = options.engine(kind).open(path).map_err(said("open"))?;
    let name = |n: usize| format!("table{n}");
    let old = (0..TREES).map(|n| store.table(&name(n)).map_err(said("table at version 1")));
    let old = old.collect::<Result<_, _>>()?;
    let new = (0..TREES).map(|n| store.table(&name(n)).map_err(said("table at version 2")));
    let new = new.collect::<Result<_, _>>()?;
    let seed = store.ledger().map_err(said("ledger"))?.len() as u64;
    Ok(Box::new(Rigged { store, old, new, turn: AtomicUsize::new(0), seed }))
}

impl Rig for Rigged {
    fn put(&self, tree: usize, key: &[u8], value: &[u8]) -> Result<(), String> {
        let (key, bytes) = (key.to_vec(), value.to_vec());
        if self.turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            self.old[tree].put(&key, &Old { bytes }).map_err(said("put at 1"))
        } else {
            self.new[tree].put(&key, &New::of(bytes)).map_err(said("put at 2"))
        }
    }

    fn delete(&self, tree: usize, key: &[u8]) -> Result<(), String> {
        let key = key.to_vec();
        if self.turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            self.old[tree].remove(&key).map_err(said("remove at 1"))
        } else {
            self.new[tree].remove(&key).map_err(said("remove at 2"))
        }
    }

    fn get(&self, tree: usize, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let key = key.to_vec();
        let old = self.old[tree].get(&key).map_err(said("get at 1"))?;
        let new = self.new[tree].get(&key).map_err(said("get at 2"))?;
        let (old, new) = (old.map(|o| o.bytes), new.map(|n| n.bytes));
        if old == new { Ok(new) } else { Err("the two views read different records".to_owned()) }
    }

    fn scan(&self, tree: usize) -> Result<Pairs, String> {
        let report = self.store.verify().map_err(said("verify"))?;
        if !report.is_clean() {
            return Err(format!("verify: {:?}", report.damage));
        }
        if report.quarantined > 0 {
            return Err(format!("verify: {} records in quarantine", report.quarantined));
        }
        let mut pairs = Pairs::new();
        for record in self.new[tree].scan(..) {
            let (key, record) = record.map_err(said("scan"))?;
            if New::of(record.bytes.clone()).sum != record.sum {
                return Err("a record's sum is not that of its bytes".to_owned());
            }
            pairs.push((key, record.bytes));
        }
        Ok(pairs)
    }

    fn flush(&self) -> Result<(), String> {
        self.store.flush().map_err(said("flush"))
    }

    fn swap(&self, tree: usize, key: &[u8], _: &[u8], new: &[u8]) -> Result<(), String> {
        self.put(tree, key, new)
    }

    fn batch(&self, _: usize, _: &[Change]) -> Result<(), String> {
        Err("tables have no batches".to_owned())
    }

    /// One step in the life of a migration, in one of three calls.
    fn meanwhile(&self) -> Result<(), String> {
        let mut rng = Rng::new(self.seed).fork(self.turn.load(Ordering::Relaxed) as u64);
        let (skip, go_on) = (!rng.chance(35), rng.chance(60));
        if skip {
            return Ok(());
        }
        let known = self.store.migrations().map_err(said("migrations"))?;
        let Some(open) = known.iter().find(|status| !status.phase.is_closed()) else {
            let mut plan = self.store.plan(&format!("m{}", known.len()));
            for table in &self.new {
                plan = plan.table(table);
            }
            return plan.begin().map(drop).map_err(said("begin"));
        };
        let migration = self.store.migration(&open.name).map_err(said("open migration"))?;
        match open.phase {
            Phase::Complete => migration.rollback().map_err(said("rollback")),
            Phase::Open if !go_on => migration.rollback().map_err(said("rollback")),
            Phase::RolledBack if go_on => migration.resume().map_err(said("resume")),
            Phase::RolledBack => {
                let plan = migration.abandon(NewWrites::Keep).map_err(said("abandon"))?;
                plan.execute().map_err(said("abandon"))
            }
            _ => Ok(()),
        }
    }
}
