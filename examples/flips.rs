//! What a rollback costs: engine flushes for each, and how long the gate is held by its flip, beside two writers.
//!
//! `cargo run --release --example flips -- 10000 1000000 1000000:10000`: so many records and, after a colon, so many writes since
//! the begin, before the first rollback.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use exuvia::{CastError, Origin, Store, Table, Version};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct ItemV1 {
    name: String,
}

#[derive(Serialize, Deserialize)]
struct ItemV2 {
    name: String,
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
        Ok(ItemV2 { name: old.name, checked: false })
    }

    fn downcast(&self, _last: Option<ItemV1>) -> Result<ItemV1, CastError> {
        Ok(ItemV1 { name: self.name.clone() })
    }
}

const TURNS: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut counts = Vec::new();
    for argument in std::env::args().skip(1) {
        let (records, writes) = argument.split_once(':').unwrap_or((&argument, "0"));
        counts.push((records.parse::<u64>()?, writes.parse::<u64>()?));
    }
    for (records, writes) in if counts.is_empty() { vec![(10_000, 0), (1_000_000, 0)] } else { counts } {
        let path = std::env::temp_dir().join(format!("exuvia-flips-{}", std::process::id()));
        let store = Store::open(&path)?;
        let old: Table<u64, ItemV1> = store.table("items")?;
        for id in 0..records {
            old.put(&id, &ItemV1 { name: format!("item {id}") })?;
        }
        let new: Table<u64, ItemV2> = store.table("items")?;
        let migration = store.plan("checked").table(&new).paused().begin()?;
        migration.step(usize::try_from(records / 2)?)?;
        for n in 0..writes {
            new.put(&(n * 7919 % records), &ItemV2 { name: format!("written {n}"), checked: true })?;
        }
        let stop = AtomicBool::new(false);
        let mut calls = Vec::new();
        let flushes = store.stats()?.flushes;
        std::thread::scope(|scope| -> Result<(), Box<dyn std::error::Error>> {
            for writer in 0..2u64 {
                let (new, stop) = (&new, &stop);
                scope.spawn(move || {
                    for n in 0.. {
                        let name = format!("written {n}");
                        if new.put(&(n * 7919 % records), &ItemV2 { name, checked: writer == 0 }).is_err()
                            || stop.load(Ordering::Relaxed)
                        {
                            return;
                        }
                        std::thread::sleep(Duration::from_micros(100));
                    }
                });
            }
            let turned = (|| {
                for _ in 0..TURNS {
                    let start = Instant::now();
                    migration.rollback()?;
                    calls.push(start.elapsed());
                    migration.resume()?;
                }
                Ok(())
            })();
            stop.store(true, Ordering::Relaxed);
            turned
        })?;
        calls.sort();
        let stats = store.stats()?;
        println!(
            "{records:>8} records, {writes:>8} writes: {:.2} flushes a turn; gate held p50 {:?}, p99 {:?}, max {:?}; rollback call p50 {:?}",
            (stats.flushes - flushes) as f64 / (2 * TURNS) as f64,
            stats.flips.quantile(0.5),
            stats.flips.quantile(0.99),
            stats.flips.max(),
            calls[TURNS / 2],
        );
        drop((old, new, migration, store));
        std::fs::remove_dir_all(&path)?;
    }
    Ok(())
}
