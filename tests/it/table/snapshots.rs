//! Snapshots, and scans of one moment, on the engine that has them.

use std::sync::Arc;

use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::{Error, Options, Store, Table};

use crate::kit::scene::*;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

fn open_fjall(dir: &Scratch) -> (Store, Table<u64, UserV1>, Table<u64, UserV2>) {
    let options: Options = options().engine(EngineKind::Fjall);
    let store = options.open(dir.path()).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..100 {
        old.put(&id, &first(id)).unwrap();
    }
    let new = store.table("users").unwrap();
    (store, old, new)
}

/// A snapshot taken in any state of a table goes on to answer as of its moment, through every later write and verb; and
/// a scan that has begun is such a snapshot.
#[test]
fn a_snapshot_and_a_scan_are_of_one_moment_through_every_verb() {
    let dir = Scratch::new("snapshots");
    let (store, old, new) = open_fjall(&dir);
    let mut snapshots = Vec::new();
    let mut scans = Vec::new();
    let mut take = |changed: u64| {
        snapshots.push((store.snapshot().unwrap(), changed));
        let mut scan = new.scan(..);
        assert_eq!(scan.next().unwrap().unwrap().0, 0);
        scans.push((scan, changed));
    };
    let is = |id: u64, changed: u64| if id < changed { v2("Eva", "New", 1, None) } else { first2(id) };
    take(0);
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    take(0);
    migration.step(30).unwrap();
    new.put(&0, &v2("Eva", "New", 1, None)).unwrap();
    take(1);
    old.put(&1, &v1("Eva New", 1)).unwrap();
    complete(&migration);
    take(2);
    migration.rollback().unwrap();
    take(2);
    migration.resume().unwrap();
    complete(&migration);
    migration.contract().unwrap().execute().unwrap();
    take(2);
    for id in 0..100 {
        new.remove(&id).unwrap();
    }
    until("the sweep", || !store.is_sweeping());
    for (at, (snapshot, changed)) in snapshots.iter().enumerate() {
        for id in 0..100 {
            assert_eq!(snapshot.get(&new, &id).unwrap(), Some(is(id, *changed)), "{at}, key {id}");
        }
        let found: Vec<_> = snapshot.scan(&new, 10..).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, (10..100).map(|id| (id, is(id, *changed))).collect::<Vec<_>>(), "{at}");
    }
    for (scan, changed) in scans {
        let found: Vec<_> = scan.map(Result::unwrap).collect();
        assert_eq!(found, (1..100).map(|id| (id, is(id, changed))).collect::<Vec<_>>());
    }
    assert!(new.is_empty().unwrap());
    let later: Table<u64, UserV1> = store.table("later").unwrap();
    assert!(matches!(snapshots[0].0.get(&later, &1), Err(Error::State { .. })));
}

#[test]
fn an_engine_without_snapshots_says_so() {
    let store = options().open_in(Arc::new(MemoryEngine::new())).unwrap();
    let e = store.snapshot().unwrap_err();
    assert!(matches!(&e, Error::State { .. }) && e.to_string().contains("transaction"), "{e}");
}

/// A store that is open for reading only has transactions that only read.
#[test]
fn a_transaction_reads_a_read_only_store() {
    let dir = Scratch::new("read-only-tx");
    let (store, ..) = open_fjall(&dir);
    store.close().unwrap();
    let store = Store::options().read_only(true).open(dir.path()).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    let read = store.transaction::<_, Error>(|tx| Ok((tx.get(&users, &1)?, tx.get(&users, &2)?)));
    assert_eq!(read.unwrap(), (Some(first(1)), Some(first(2))));
    let wrote = store.transaction::<_, Error>(|tx| tx.put(&users, &1, &first(1)));
    assert!(matches!(wrote, Err(Error::ReadOnly)), "{wrote:?}");
}
