//! More closed migrations than the catalog keeps: the older ones lie under keys of their own, and nothing is lost by that.

use std::collections::BTreeSet;
use std::ops::Range;

use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::migration::NewWrites;
use exuvia::{Error, Phase, Result, Store, Table};

use crate::kit::hook_engine::HookEngine;
use crate::kit::scene::{CATALOG, open};
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

/// What the catalog keeps of what is closed.
const KEPT: usize = 32;

fn name(number: usize) -> String {
    format!("migration {number:03}")
}

fn views(store: &Store) -> (Table<u64, UserV1>, Table<u64, UserV2>) {
    let old = store.table("users").unwrap();
    (old, store.table("users").unwrap())
}

/// One migration after the other, each of a new table, and each third abandoned.
fn close_many(store: &Store, numbers: Range<usize>) {
    for number in numbers {
        close_one(store, number).unwrap();
    }
}

fn close_one(store: &Store, number: usize) -> Result<()> {
    let old: Table<u64, UserV1> = store.table("users")?;
    old.put(&1, &v1("Ann N1", 1))?;
    let new: Table<u64, UserV2> = store.table("users")?;
    let migration = store.plan(&name(number)).table(&new).why("often").by("us").begin()?;
    migration.wait()?;
    if number.is_multiple_of(3) {
        migration.rollback()?;
        migration.abandon(NewWrites::Discard)?.execute()?;
    } else {
        migration.contract()?.execute()?;
    }
    store.drop_table("users")
}

fn check(store: &Store, count: usize) {
    let listed = store.migrations().unwrap();
    assert_eq!(listed.len(), count);
    for (number, status) in listed.iter().enumerate() {
        let phase = if number.is_multiple_of(3) { Phase::Abandoned } else { Phase::Contracted };
        assert_eq!((&status.name, status.phase), (&name(number), phase));
        assert_eq!((status.why.as_str(), status.by.as_str()), ("often", "us"));
        assert_eq!((status.tables[0].from, status.tables[0].to), (1, 2));
        assert_eq!(store.migration(&name(number)).unwrap().status().unwrap().phase, phase);
    }
    let first = store.migration(&name(0)).unwrap();
    assert!(matches!(first.resume(), Err(Error::State { .. })));
    let (old, new) = views(store);
    let again = store.plan(&name(1)).table(&new).begin().unwrap_err();
    assert!(again.to_string().contains("there was a migration of this name"), "{again}");
    assert!(matches!(store.migration("another"), Err(Error::State { .. })));
    assert!(store.verify().unwrap().is_clean());
    drop((old, new));
    store.drop_table("users").unwrap();
}

#[test]
fn a_store_lists_all_its_migrations_however_many_were_closed() {
    const COUNT: usize = 3 * KEPT;
    let engine = HookEngine::new(MemoryEngine::new());
    let store = open(&engine);
    close_many(&store, 0..COUNT / 2);
    let half = engine.dump(CATALOG)[b"catalog".as_slice()].len();
    close_many(&store, COUNT / 2..COUNT);
    let whole = engine.dump(CATALOG)[b"catalog".as_slice()].len();
    assert!(whole < half + half / 8, "the catalog grew from {half} to {whole} bytes");
    check(&store, COUNT);
    store.close().unwrap();
    check(&open(&engine), COUNT);
}

#[test]
fn they_go_with_copies_backups_and_what_is_salvaged() {
    const COUNT: usize = KEPT + 5;
    for kind in [EngineKind::Sled, EngineKind::Fjall].into_iter().filter(|kind| kind.is_built_in()) {
        let scratch = Scratch::new("closed");
        let at = |name: &str| scratch.path().join(name);
        let store = Store::options().engine(kind).open(at("store")).unwrap();
        close_many(&store, 0..COUNT);
        store.backup(at("backup")).unwrap();
        store.close().unwrap();
        Store::restore(at("backup"), at("restored")).unwrap();
        let salvaged = Store::salvage(at("store"), at("salvaged"), None).unwrap();
        assert!(salvaged.lost.is_empty(), "{:?}", salvaged.lost);
        for name in ["store", "restored", "salvaged"] {
            check(&Store::open(at(name)).unwrap(), COUNT);
        }
    }
}

/// A crash at every call of the `begin` that puts one aside, and of what it leaves to the background.
#[test]
fn a_crash_while_one_is_put_aside_loses_none() {
    let mut outcomes = BTreeSet::new();
    for nth in 1..=24 {
        let engine = HookEngine::new(MemoryEngine::new());
        let store = open(&engine);
        close_many(&store, 0..KEPT + 1);
        let (old, new) = views(&store);
        engine.die_at(nth);
        let begun = store.plan("last").table(&new).paused().begin();
        outcomes.insert(begun.is_ok());
        drop((begun, old, new, store));
        let store = open(&HookEngine::new(engine.inner().clone()));
        let names: BTreeSet<String> =
            store.migrations().unwrap().into_iter().map(|status| status.name).collect();
        for number in 0..=KEPT {
            assert!(names.contains(&name(number)), "call {nth}: {} is lost", name(number));
        }
        let (_old, new) = views(&store);
        let again = store.plan(&name(0)).table(&new).begin().unwrap_err();
        assert!(again.to_string().contains("there was a migration of this name"), "call {nth}: {again}");
        assert!(store.verify().unwrap().is_clean());
    }
    assert_eq!(outcomes.len(), 2, "the last call was not one of a begin that had ended");
}

#[test]
fn damage_of_one_is_named_and_stops_nothing_else() {
    let engine = HookEngine::new(MemoryEngine::new());
    let store = open(&engine);
    close_many(&store, 0..KEPT + 2);
    let key = [b"closed/".as_slice(), name(0).as_bytes()].concat();
    let mut bytes = engine.dump(CATALOG)[&key].clone();
    *bytes.last_mut().unwrap() ^= 1;
    engine.raw(CATALOG).put(&key, &bytes).unwrap();
    let damage = store.verify().unwrap().damage;
    assert!(damage.len() == 1 && damage[0].contains("a closed migration"), "{damage:?}");
    // The others are listed.
    let listed: Vec<String> = store.migrations().unwrap().into_iter().map(|status| status.name).collect();
    assert_eq!(listed, (1..KEPT + 2).map(name).collect::<Vec<_>>());
    let (old, new) = views(&store);
    let again = store.plan(&name(0)).table(&new).begin().unwrap_err();
    assert!(again.is_corruption(), "its name is used: {again}");
    drop((old, new));
    store.drop_table("users").unwrap();
    assert!(store.migration(&name(0)).unwrap_err().is_corruption());
    store.stats().unwrap();
    close_many(&store, KEPT + 2..KEPT + 4);
}
