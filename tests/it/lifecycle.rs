//! The life of a migration, verb by verb.

use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::{NewWrites, Phase, Store, Table};

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
