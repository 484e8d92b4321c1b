//! Looks at everything beside quick verbs: the right answer or "try again", and nothing about the medium.

use std::sync::Arc;

use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::migration::NewWrites;
use exuvia::{Error, Store, Table};

use crate::kit::scene::*;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

const RECORDS: u64 = 300;

/// Every verb that makes a tree nobody's, one after the other.
fn one_round(store: &Store, number: u64) -> exuvia::Result<()> {
    let old: Table<u64, UserV1> = store.table("users")?;
    let new: Table<u64, UserV2> = store.table("users")?;
    for (way, keep) in [("discarded", NewWrites::Discard), ("kept", NewWrites::Keep)] {
        let migration = store.plan(&format!("{way} {number}")).table(&new).paused().begin()?;
        new.put(&(number % RECORDS), &v2("New", "N", 1, None))?;
        migration.step(100)?;
        migration.rollback()?;
        migration.abandon(keep)?.execute()?;
    }
    let other: Table<u64, UserV1> = store.table("other")?;
    other.put(&1, &first(1))?;
    other.clear()?;
    other.bulk_load((0..20).map(|id| (id, first(id))))?;
    store.drop_table("other")?;
    drop(old);
    Ok(())
}

/// The answer, or that the state changes too fast for one.
fn seen<R>(what: &str, look: exuvia::Result<R>) -> Option<R> {
    match look {
        Ok(seen) => Some(seen),
        Err(Error::Conflict { subject })
            if subject.contains("faster than it can be looked at; try again") =>
        {
            None
        }
        Err(e) => panic!("{what}: {e}"),
    }
}

fn beside_quick_verbs(store: &Store, rounds: u64) {
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    for id in 0..RECORDS {
        old.put(&id, &first(id)).unwrap();
    }
    std::thread::scope(|scope| {
        let verbs = scope.spawn(|| {
            for number in 0..rounds {
                one_round(store, number).unwrap_or_else(|e| panic!("round {number}: {e}"));
            }
        });
        let mut answered = 0;
        while !verbs.is_finished() {
            if let Some(tables) = seen("inventory", store.inventory()) {
                let users = tables.iter().find(|of| of.table == "users").unwrap();
                assert_eq!((users.records.values().sum::<u64>(), users.damaged), (RECORDS, 0), "{users:?}");
                answered += 1;
            }
            if let Some(report) = seen("verify", store.verify()) {
                assert!(report.is_clean(), "{:?}", report.damage);
                answered += 1;
            }
            store.ledger().unwrap();
            store.migrations().unwrap();
            store.stats().unwrap();
            store.space().unwrap();
            store.plan("planned").table(&new).expected_bytes().unwrap();
            let copy = MemoryEngine::new();
            store.copy_in(&copy).unwrap();
        }
        verbs.join().unwrap();
        assert!(answered > 0);
    });
    // Nothing that only a look had made, and nothing that was kept for one.
    until("the sweep", || !store.is_sweeping());
}

fn on_disk(kind: EngineKind) {
    let scratch = Scratch::new("looking");
    let options = options().engine(kind).cache_bytes(16 << 20).free_bytes_min(0);
    let store = options.open(scratch.path().join("store")).unwrap();
    beside_quick_verbs(&store, 8);
}

#[test]
fn looks_beside_quick_verbs_in_memory() {
    let engine = MemoryEngine::new();
    let store = options().open_in(Arc::new(engine.clone())).unwrap();
    beside_quick_verbs(&store, 40);
    use exuvia::engine::Engine as _;
    let mut left = engine.trees().unwrap();
    left.retain(|tree| tree.contains('/') && !tree.starts_with("quarantine/"));
    assert_eq!(left.len(), 1, "{left:?}");
}

#[cfg(feature = "sled")]
#[test]
fn looks_beside_quick_verbs_on_sled() {
    on_disk(EngineKind::Sled);
}

#[cfg(feature = "fjall")]
#[test]
fn looks_beside_quick_verbs_on_fjall() {
    on_disk(EngineKind::Fjall);
}

#[test]
fn the_inventory_counts_records_and_bytes() {
    let s = scene(10);
    let before = s.store.inventory().unwrap().remove(0);
    let expected: usize = (0..10).map(|id| 8 + bytes(&first(id)).len() + 6).sum();
    assert_eq!((before.records[&1], before.bytes), (10, expected as u64));
    let space = s.store.space().unwrap();
    assert!(space.bytes_on_disk >= before.bytes);
    assert_eq!(space.bytes_free, None);
}
