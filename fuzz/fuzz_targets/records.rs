//! Arbitrary bytes as stored values, below a store.
#![no_main]

#[path = "../../tests/it/kit/format.rs"]
mod format;
#[path = "../../tests/it/kit/types.rs"]
#[allow(dead_code)]
mod types;

use std::sync::Arc;

use exuvia::engine::Engine;
use exuvia::{Budget, Durability, Store, Table};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use types::{UserV1, UserV2, UserV3};

#[derive(Debug, Arbitrary)]
struct Input {
    phase: u8,
    values: Vec<Value>,
}

#[derive(Debug, Arbitrary)]
struct Value {
    tree: u8,
    key: u8,
    /// With the checksum and the format put right.
    whole: bool,
    bytes: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let phase = input.phase % 6;
    let catalog = if phase == 0 { format::settled() } else { format::migrating(phase.min(4)) };
    let engine = format::store_of(&catalog, &[]);
    for value in &input.values {
        let tree =
            ["1/2", "1/3", "quarantine/users"][usize::from(value.tree) % if phase == 0 { 1 } else { 3 }];
        let key = u64::from(value.key % 8).to_be_bytes();
        let mut bytes = value.bytes.clone();
        if value.whole {
            bytes = match bytes.as_slice() {
                [first, rest @ ..] if tree.starts_with('1') => format::sealed(&key, 0x10 | first & 15, rest),
                other => format::sealed(&key, 1, other),
            };
        }
        engine.tree(tree).unwrap().put(&key, &bytes).unwrap();
    }
    let interval = std::time::Duration::from_secs(3600);
    let options = Store::options().durability(Durability::Buffered { interval }).budget(Budget::unlimited());
    let store = options.open_in(Arc::new(engine.clone())).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let newest: Table<u64, UserV3> = store.table("users").unwrap();
    let look = || {
        for key in 0..9 {
            let _ = (old.get(&key), new.get(&key), newest.get(&key));
        }
        // A scan answers what the gets do, until an error ends it.
        for (key, user) in old.scan(..).map_while(Result::ok) {
            assert_eq!(old.get(&key).unwrap(), Some(user));
        }
        for (key, user) in new.scan(..).rev().map_while(Result::ok) {
            assert_eq!(new.get(&key).unwrap(), Some(user));
        }
        let _ = (old.len(), newest.scan(..).count(), store.inventory().unwrap());
        let _ = (store.verify(), store.stats(), store.ledger());
    };
    if phase != 4 && phase != 5 {
        look();
    }
    if let Ok(migration) = store.migration("split") {
        for _ in 0..8 {
            let _ = migration.step(4);
        }
        let _ = old.put(&1, &types::v1("Ann A", 1));
        let _ = new.put(&2, &types::v2("Bob", "B", 1, Some("b@x")));
        let _ = old.remove(&3);
        let _ = migration.step(4);
        let _ = (migration.rollback(), migration.resume(), migration.restart());
        if let Ok(plan) = migration.contract() {
            let _ = plan.execute();
        }
    }
    let _ = store.verify();
    drop((old, new, newest));
    let _ = store.close();
});
