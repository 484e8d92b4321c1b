//! The life of a migration, verb by verb.

use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::{Error, LedgerEntry, NewWrites, Observer, Phase, Store, Table};
use parking_lot::Mutex;

use crate::types::*;

fn memory() -> Store {
    Store::options().open_in(Arc::new(MemoryEngine::new())).unwrap()
}

fn fill(users: &Table<u64, UserV1>, count: u64) {
    for id in 0..count {
        users.put(&id, &v1(&format!("Ann N{id}"), (id % 90) as u32)).unwrap();
    }
}

#[test]
fn from_begin_to_contract() {
    let store = memory();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    fill(&old, 1000);
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    assert_eq!(new.get(&7).unwrap(), Some(v2("Ann", "N7", 7, None)));
    let migration = store.migration("split").table(&new).why("names").by("me").paused().begin().unwrap();
    migration.step(100).unwrap();
    new.put(&3, &v2("Bob", "B", 4, Some("b@x"))).unwrap();
    old.put(&4, &v1("Old O", 5)).unwrap();
    old.put(&3, &v1("Bobby B", 6)).unwrap();
    old.remove(&5).unwrap();
    assert_eq!(new.get(&3).unwrap(), Some(v2("Bobby", "B", 6, Some("b@x"))));
    assert_eq!(old.len().unwrap(), 999);
    assert_eq!(new.len().unwrap(), 999);
    migration.rollback().unwrap();
    assert_eq!(old.get(&3).unwrap(), Some(v1("Bobby B", 6)));
    assert_eq!(new.get(&5).unwrap(), None);
    migration.resume().unwrap();
    migration.unpause().unwrap();
    let status = migration.wait().unwrap();
    assert_eq!(status.phase, Phase::Complete);
    assert_eq!(new.scan(..).rev().count(), 999);
    let plan = migration.contract().unwrap();
    println!("{plan}");
    plan.execute().unwrap();
    assert_eq!(new.get(&3).unwrap(), Some(v2("Bobby", "B", 6, Some("b@x"))));
    assert_eq!(new.len().unwrap(), 999);
    assert!(old.get(&3).is_err());
    while store.is_sweeping() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(store.verify().unwrap().is_clean(), "{:?}", store.verify());
    for entry in store.ledger().unwrap() {
        println!("{entry:?}");
    }
    println!("{:?}", store.inventory().unwrap());
}

#[test]
fn abandon_keeps_or_discards() {
    for writes in [NewWrites::Keep, NewWrites::Discard] {
        let store = memory();
        let old: Table<u64, UserV1> = store.table("users").unwrap();
        fill(&old, 300);
        let new: Table<u64, UserV2> = store.table("users").unwrap();
        let migration = store.migration("split").table(&new).begin().unwrap();
        migration.wait().unwrap();
        new.put(&3, &v2("Bob", "B", 4, Some("b@x"))).unwrap();
        new.put(&1000, &v2("New", "N", 4, Some("b@x"))).unwrap();
        new.remove(&5).unwrap();
        migration.rollback().unwrap();
        migration.abandon(writes).unwrap().execute().unwrap();
        let keep = writes == NewWrites::Keep;
        assert_eq!(old.get(&3).unwrap(), Some(if keep { v1("Bob B", 4) } else { v1("Ann N3", 3) }));
        assert_eq!(old.get(&5).unwrap().is_some(), !keep);
        assert_eq!(old.get(&1000).unwrap().is_some(), keep);
        assert_eq!(old.len().unwrap(), 300);
        assert!(store.verify().unwrap().is_clean());
        let again = store.migration("split again").table(&new).begin().unwrap();
        again.wait().unwrap();
        again.contract().unwrap().execute().unwrap();
        assert_eq!(new.len().unwrap(), 300);
    }
}

/// Holds up whoever closes a migration, right after the new state is in force.
#[derive(Default)]
struct Door(Mutex<()>);

impl Observer for Door {
    fn state_change(&self, entry: &LedgerEntry) {
        if entry.what == "abandon" {
            drop(self.0.lock());
        }
    }
}

/// Found by the model: `abandon` had answered, and a verb after it was told of a conflict.
#[test]
fn after_an_abandon_that_answered_a_verb_is_told_that_the_migration_is_closed() {
    let door = Arc::new(Door::default());
    let options = Store::options().observer(Arc::clone(&door) as Arc<dyn Observer>);
    let store = options.open_in(Arc::new(MemoryEngine::new())).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    fill(&old, 3);
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.migration("split").table(&new).begin().unwrap();
    migration.rollback().unwrap();
    let held = door.0.lock();
    // Folding is the worker's, which is held up now; it does not hold up this thread.
    migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
    let restart = std::thread::scope(|scope| {
        let restart = scope.spawn(|| migration.restart());
        // A verb that waits for the worker must not wait for ever.
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(held);
        restart.join().unwrap()
    });
    assert!(matches!(restart, Err(Error::State { .. })), "{restart:?}");
}
