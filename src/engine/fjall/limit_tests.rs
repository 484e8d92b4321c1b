//! At the most trees that there may be, with few of them.

use std::path::PathBuf;
use std::sync::Arc;

use super::{FjallEngine, FjallOptions, QUEUE_PLACES};
use crate::engine::Engine;
use crate::engine::EngineErrorKind;
use crate::migration::NewWrites;
use crate::{CastError, Error, Origin, Store, Table, Version};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exuvia-{name}-{}", std::process::id()));
        let _left_by_an_earlier_process = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct CountV1(u32);

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct CountV2(u64);

impl Version for CountV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for CountV2 {
    const VERSION: u32 = 2;
    type Previous = CountV1;

    fn upcast(old: CountV1) -> Result<Self, CastError> {
        if old.0 == 13 { Err(CastError::new("unlucky")) } else { Ok(Self(old.0.into())) }
    }

    fn downcast(&self, _last: Option<CountV1>) -> Result<CountV1, CastError> {
        u32::try_from(self.0).map(CountV1).map_err(|_| CastError::new("too large"))
    }
}

fn open(scratch: &Scratch, trees_max: usize) -> Store {
    let options = FjallOptions { trees_max, ..FjallOptions::new().cache_bytes(16 << 20) };
    let engine = FjallEngine::open(&scratch.0, options).expect("opened");
    Store::options().open_in(Arc::new(engine)).expect("opened")
}

fn is_limit<T>(result: crate::Result<T>) {
    let error = result.map(drop).expect_err("there is no room");
    assert!(matches!(&error, Error::Limit { .. }), "{error:?}");
    let said = error.to_string();
    for part in ["trees", "drop tables", "to an engine with more trees", "nothing was written"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[test]
fn at_the_limit_of_trees_tables_and_migrations_are_refused_and_nothing_is_lost() {
    let scratch = Scratch::new("trees");
    // The catalog's and the ledger's, those of two tables, and what is kept for a migration of one and a clear.
    let store = open(&scratch, 7);
    let first: Table<u64, CountV1> = store.table("first").expect("made");
    let second: Table<u64, CountV1> = store.table("second").expect("made");
    let check = |store: &Store| {
        for name in ["first", "second"] {
            let table: Table<u64, CountV1> = store.table(name).expect("there");
            assert_eq!(table.get(&1).expect("read"), Some(CountV1(7)), "{name}");
        }
        assert_eq!(store.tables(), ["first", "second"]);
        assert!(store.migrations().expect("read").is_empty());
        let report = store.verify().expect("verified");
        assert!(report.is_clean(), "{report:?}");
    };
    for table in [&first, &second] {
        table.put(&1, &CountV1(7)).expect("written");
    }
    let newer: Table<u64, CountV2> = store.table("first").expect("there");
    let newer_second: Table<u64, CountV2> = store.table("second").expect("there");
    for _ in 0..2 {
        is_limit(store.table::<u64, CountV1>("third"));
        is_limit(store.plan("widen").table(&newer).table(&newer_second).begin());
        check(&store);
    }
    drop((first, newer, newer_second));
    drop(second);
    store.close().expect("closed");

    let store = open(&scratch, 7);
    check(&store);
    // One of them has room, with its quarantine, and then there is room for no other, but for a clear.
    let newer: Table<u64, CountV2> = store.table("first").expect("there");
    let newer_second: Table<u64, CountV2> = store.table("second").expect("there");
    let migration = store.plan("first").table(&newer).paused().begin().expect("begun");
    is_limit(store.plan("widen").table(&newer_second).begin());
    // A name takes no tree.
    store.rename_table("second", "the second").expect("renamed");
    store.rename_table("the second", "second").expect("renamed");
    newer_second.clear().expect("cleared");
    newer_second.put(&1, &CountV2(7)).expect("written");
    migration.rollback().expect("rolled back");
    migration.abandon(NewWrites::Discard).expect("planned").execute().expect("abandoned");
    drop((newer, newer_second));
    while store.is_sweeping() {
        std::thread::yield_now();
    }
    is_limit(store.table::<u64, CountV1>("third"));
    // What the error says helps.
    store.drop_table("second").expect("dropped");
    while store.is_sweeping() {
        std::thread::yield_now();
    }
    let newer: Table<u64, CountV2> = store.table("first").expect("there");
    let migration = store.plan("widen").table(&newer).paused().begin().expect("begun");
    assert_eq!(newer.get(&1).expect("read"), Some(CountV2(7)));
    newer.put(&2, &CountV2(8)).expect("written");
    is_limit(store.table::<u64, CountV1>("third"));
    migration.rollback().expect("rolled back");
    migration.abandon(NewWrites::Discard).expect("planned").execute().expect("abandoned");
    while store.is_sweeping() {
        std::thread::yield_now();
    }
    store.table::<u64, CountV1>("third").expect("there is room again");
    assert!(store.verify().expect("verified").is_clean());
}

#[test]
fn a_backfill_without_room_for_a_quarantine_is_refused_and_goes_on_where_there_is_room() {
    let scratch = Scratch::new("quarantine");
    let counts = |store: &Store| (store.table::<u64, CountV1>("t"), store.table::<u64, CountV2>("t"));
    let store = open(&scratch, 7);
    let (old, new) = counts(&store);
    let (old, new) = (old.expect("made"), new.expect("there"));
    for id in 10..20 {
        old.put(&id, &CountV1(u32::try_from(id).expect("small"))).expect("written");
    }
    let migration = store.plan("widen").table(&new).paused().begin().expect("begun");
    drop((old, new, migration));
    store.close().expect("closed");
    // The catalog's and the ledger's, the base and the overlay: as a release that kept no room for a quarantine left it.
    let store = open(&scratch, 4);
    let (old, new) = counts(&store);
    let (old, new) = (old.expect("made"), new.expect("there"));
    let migration = store.migration("widen").expect("open");
    let full = migration.step(100).expect_err("there is no room");
    assert!(matches!(&full, Error::Engine(e) if e.kind() == EngineErrorKind::Limit), "{full:?}");
    assert_eq!((old.len().expect("read"), new.get(&12).expect("read")), (10, Some(CountV2(12))));
    assert_eq!(old.get(&13).expect("read"), Some(CountV1(13)));
    drop((old, new, migration));
    store.close().expect("closed");

    let store = open(&scratch, 5);
    let (old, new) = counts(&store);
    let (old, new) = (old.expect("there"), new.expect("there"));
    store.migration("widen").expect("open").step(100).expect("stepped");
    assert!(matches!(new.get(&13), Err(Error::Quarantined { .. })));
    assert_eq!((old.len().expect("read"), new.get(&19).expect("read")), (10, Some(CountV2(19))));
    assert!(store.verify().expect("verified").is_clean());
}

#[test]
fn more_trees_than_fjall_can_be_sure_to_open_are_refused_before_it_tries() {
    let scratch = Scratch::new("places");
    let open = || FjallEngine::open(&scratch.0, FjallOptions::new().cache_bytes(16 << 20));
    let engine = open().expect("opened");
    engine.tree("t").expect("made").put(b"k", b"v").expect("written");
    drop(engine);
    let trees: Vec<PathBuf> =
        (0..QUEUE_PLACES).map(|n| scratch.0.join("keyspaces").join((1000 + n).to_string())).collect();
    trees.iter().for_each(|tree| std::fs::create_dir(tree).expect("made"));
    for _ in 0..2 {
        let error = open().err().expect("refused");
        assert_eq!(error.kind(), EngineErrorKind::Limit, "{error}");
        assert!(error.to_string().contains("drop tables or copy it to another engine"), "{error}");
    }
    assert!(trees.iter().all(|tree| tree.exists()), "nothing was changed");
    trees.iter().for_each(|tree| std::fs::remove_dir(tree).expect("removed"));
    let engine = open().expect("opened");
    let found = engine.tree("t").expect("there").get(b"k").expect("read");
    assert_eq!(found.as_deref(), Some(&b"v"[..]));
}
