//! Records that are damaged, of a version that nobody knows, or too large.

use std::sync::Arc;

use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::{Error, Phase, Result, Store, Table};

use crate::kit::errors::says;
use crate::kit::format::{self, dump, envelope, user_v1};
use crate::kit::hook_engine::HookEngine;
use crate::kit::kinds::kinds;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

const RECORDS: u64 = 40;
const VICTIM: u64 = 17;

fn record(id: u64) -> UserV1 {
    v1(&format!("Ann N{id}"), (id % 90) as u32)
}

fn open(engine: &HookEngine) -> Store {
    Store::options().open_in(Arc::new(engine.clone())).unwrap()
}

fn filled() -> HookEngine {
    let engine = HookEngine::new(MemoryEngine::recording());
    let store = open(&engine);
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..RECORDS {
        users.put(&id, &record(id)).unwrap();
    }
    drop(users);
    store.close().unwrap();
    engine
}

fn corrupt<T: std::fmt::Debug>(result: Result<T>) {
    let e = result.unwrap_err();
    let Error::Corrupt { table, key, .. } = &e else {
        panic!("{e:?}");
    };
    assert_eq!((table.as_str(), key.as_slice()), ("users", VICTIM.to_be_bytes().as_slice()));
    assert!(e.is_corruption());
    says(&e, &["other records are not affected", "exuvia verify", "restore or overwrite"]);
}

/// The victim is an error; every other record is there; a scan gives what comes before it, then the error, then
/// nothing more.
fn only_the_victim_is_lost(users: &Table<u64, UserV1>) {
    corrupt(users.get(&VICTIM));
    for id in (0..RECORDS).filter(|id| *id != VICTIM) {
        assert_eq!(users.get(&id).unwrap(), Some(record(id)));
    }
    let mut up = users.scan(..);
    for id in 0..VICTIM {
        assert_eq!(up.next().unwrap().unwrap(), (id, record(id)));
    }
    corrupt(up.next().unwrap());
    assert!(up.next().is_none());
    let mut down = users.scan(..).rev();
    for id in (VICTIM + 1..RECORDS).rev() {
        assert_eq!(down.next().unwrap().unwrap(), (id, record(id)));
    }
    corrupt(down.next().unwrap());
    assert!(down.next().is_none());
    corrupt(users.len());
}

/// Every damage that a test does to a value: each bit, each length, and more.
fn damages(good: &[u8]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    for bit in 0..good.len() * 8 {
        let mut flipped = good.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        all.push(flipped);
    }
    all.push([good, &[0]].concat());
    all.push(envelope(&(VICTIM + 1).to_be_bytes(), 0, 1, &user_v1("Ann N", 1), None));
    all
}

#[test]
fn a_damaged_record_is_an_error_of_its_key_only() {
    let engine = filled();
    let tree = engine.raw("1/2");
    let key = VICTIM.to_be_bytes();
    let good = tree.get(&key).unwrap().unwrap().to_vec();
    for (number, bad) in damages(&good).into_iter().enumerate() {
        tree.put(&key, &bad).unwrap();
        let store = open(&engine);
        let users: Table<u64, UserV1> = store.table("users").unwrap();
        if number % 16 == 0 {
            only_the_victim_is_lost(&users);
            let report = store.verify().unwrap();
            assert_eq!((report.damage_count, report.records), (1, RECORDS - 1));
            assert!(report.damage[0].starts_with("table users, key 0x0000000000000011: "), "{report:?}");
        }
        corrupt(users.get(&VICTIM));
        assert_eq!(tree.get(&key).unwrap().as_deref(), Some(&bad[..]), "looking changes nothing");
        users.put(&VICTIM, &record(VICTIM)).unwrap();
        assert_eq!(users.get(&VICTIM).unwrap(), Some(record(VICTIM)), "overwriting mends it");
    }
}

#[test]
fn a_damaged_record_on_disk_is_an_error_of_its_key_only() {
    kinds().for_each(a_damaged_record_on_disk_is_an_error_of_its_key_only_on);
}

fn a_damaged_record_on_disk_is_an_error_of_its_key_only_on(kind: EngineKind) {
    let scratch = Scratch::new("damaged");
    let path = scratch.path().join("store");
    let options = || Store::options().engine(kind).cache_bytes(16 << 20);
    {
        let store = options().open(&path).unwrap();
        let users: Table<u64, UserV1> = store.table("users").unwrap();
        for id in 0..RECORDS {
            users.put(&id, &record(id)).unwrap();
        }
    }
    let key = VICTIM.to_be_bytes();
    let damage = |change: fn(&mut Vec<u8>)| {
        let engine = kind.open(path.join(kind.name()), 16 << 20).unwrap();
        let tree = engine.tree("1/2").unwrap();
        let mut value = tree.get(&key).unwrap().unwrap().to_vec();
        change(&mut value);
        tree.put(&key, &value).unwrap();
        engine.flush().unwrap();
    };
    for change in [|value: &mut Vec<u8>| value[5] ^= 1, |value: &mut Vec<u8>| value.truncate(3)] {
        damage(change);
        let store = options().open(&path).unwrap();
        let users: Table<u64, UserV1> = store.table("users").unwrap();
        only_the_victim_is_lost(&users);
        users.put(&VICTIM, &record(VICTIM)).unwrap();
        assert!(store.verify().unwrap().is_clean());
    }
}

/// In an open migration: a damaged base record goes to the quarantine, a damaged overlay entry is an error at both
/// views; neither holds up the backfill, and a contract waits for them.
#[test]
fn damaged_records_under_a_migration() {
    let engine = filled();
    let other = 21_u64;
    let key = VICTIM.to_be_bytes();
    engine.raw("1/2").put(&key, b"\x10garbage").unwrap();
    let store = open(&engine);
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    while migration.step(64).unwrap().phase != Phase::Complete {}
    let overlay = engine.raw("1/3");
    let good = overlay.get(&other.to_be_bytes()).unwrap().unwrap().to_vec();
    overlay.put(&other.to_be_bytes(), &good[..good.len() - 1]).unwrap();

    corrupt(old.get(&VICTIM));
    let e = new.get(&VICTIM).unwrap_err();
    assert!(matches!(e, Error::Quarantined { .. }), "{e:?}");
    says(&e, &["damaged", "overwrite or remove it"]);
    for result in [new.get(&other).map(drop), old.get(&other).map(drop)] {
        assert!(result.unwrap_err().is_corruption());
    }
    for id in (0..RECORDS).filter(|id| ![VICTIM, other].contains(id)) {
        assert_eq!(old.get(&id).unwrap(), Some(record(id)));
        assert_eq!(new.get(&id).unwrap().unwrap().last, format!("N{id}"));
    }
    let refused = migration.contract().and_then(|plan| plan.execute()).unwrap_err();
    says(&refused, &["quarantine"]);
    new.put(&VICTIM, &v2("Ann", "Mended", 3, None)).unwrap();
    let refused = migration.contract().and_then(|plan| plan.execute()).unwrap_err();
    says(&refused, &["damaged"]);
    old.put(&other, &v1("Ann Mended", 4)).unwrap();
    while migration.step(64).unwrap().phase != Phase::Complete {}
    migration.contract().unwrap().execute().unwrap();
    assert_eq!(new.len().unwrap(), RECORDS);
    assert!(store.verify().unwrap().is_clean());
}

/// A record whose envelope is whole but of another version than the code knows, or whose bytes are another type's.
#[test]
fn a_record_that_is_not_of_its_version_is_refused() {
    let engine = filled();
    let key = VICTIM.to_be_bytes();
    let tree = engine.raw("1/2");
    let v3 = format::Bytes::default().text("Ann").text("N").number(50).flag(false).number(0).0;
    let good = user_v1("Ann N17", 17);
    let bad: [(Vec<u8>, &str); 5] = [
        (envelope(&key, 0, 3, &v3, None), "version 3"),
        (envelope(&key, 0, 0, &good, None), "version 0"),
        (envelope(&key, 0, 1, &v3, None), "version 1"),
        (envelope(&key, 0, 1, &[&good[..], &[0]].concat(), None), "version 1"),
        (envelope(&key, 0, 1, &[], None), "version 1"),
    ];
    for (value, words) in bad {
        tree.put(&key, &value).unwrap();
        let store = open(&engine);
        let users: Table<u64, UserV1> = store.table("users").unwrap();
        let errors = [users.get(&VICTIM).unwrap_err(), users.scan(..).find_map(Result::err).unwrap()];
        for e in errors {
            assert!(matches!(e, Error::Version { .. } | Error::Codec { .. }), "{e:?}");
            says(&e, &["users", words]);
        }
        assert_eq!(users.get(&1).unwrap(), Some(record(1)));
        assert_eq!(tree.get(&key).unwrap().as_deref(), Some(&value[..]));
    }
}

#[test]
fn a_key_of_another_type_is_an_error_of_the_scan() {
    // Of a catalog that does not know the type yet.
    let key = 3_u64.to_be_bytes();
    let record = envelope(&key, 0, 1, &user_v1("Ann A", 1), None);
    let engine = HookEngine::new(format::store_of(&format::settled(), &[(3, record)]));
    let store = open(&engine);
    let by_text: Table<String, UserV1> = store.table("users").unwrap();
    let e = by_text.scan(..).next().unwrap().unwrap_err();
    assert!(e.is_corruption());
    says(&e, &["the key does not decode", "another key type"]);
}

#[test]
fn keys_and_values_over_the_limit_are_refused_and_nothing_is_written() {
    kinds().for_each(keys_and_values_over_the_limit_are_refused_and_nothing_is_written_on);
}

fn keys_and_values_over_the_limit_are_refused_and_nothing_is_written_on(kind: EngineKind) {
    let scratch = Scratch::new("limits");
    // The longest key, and the longest value.
    let (key_max, value_max) = match kind {
        EngineKind::Sled => (2048, 48 << 10),
        _ => (16 << 10, 1 << 20),
    };
    let store =
        Store::options().engine(kind).cache_bytes(16 << 20).open(scratch.path().join("store")).unwrap();
    let users: Table<String, UserV1> = store.table("users").unwrap();
    let limit = |result: Result<()>, words: &[&str]| {
        let e = result.unwrap_err();
        assert!(matches!(e, Error::Limit { size, limit, .. } if size > limit), "{e:?}");
        says(&e, words);
    };
    let (long, big) = ("k".repeat(key_max), "n".repeat(value_max));
    // A text ends with two bytes.
    let bytes = format!("{} bytes in a key", key_max + 2);
    users.put(&"a".to_owned(), &v1("Ann A", 1)).unwrap();
    limit(users.put(&long, &v1("Ann A", 1)), &[&bytes, &key_max.to_string(), "nothing was written"]);
    limit(users.remove(&long), &[&bytes]);
    assert!(users.get(&long).unwrap().is_none());
    limit(users.put(&"a".to_owned(), &v1(&big, 1)), &["in a record", "nothing was written"]);
    assert_eq!(users.get(&"a".to_owned()).unwrap(), Some(v1("Ann A", 1)));

    // With both forms a record is larger: what fits at version 1 may not fit beside its new form.
    let half = "n".repeat(value_max * 5 / 8);
    users.put(&"b".to_owned(), &v1(&format!("{half} B"), 1)).unwrap();
    let new: Table<String, UserV2> = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).begin().unwrap();
    migration.wait().unwrap();
    if kind == EngineKind::Sled {
        limit(new.put(&"a".to_owned(), &v2(&half, "A", 1, None)), &["all its forms together"]);
        limit(
            users.put(&"a".to_owned(), &v1(&format!("{half} A"), 1)),
            &["while a migration", "a second form"],
        );
        assert_eq!(new.get(&"a".to_owned()).unwrap(), Some(v2("Ann", "A", 1, None)));
    }
    limit(new.put(&"a".to_owned(), &v2(&big, "A", 1, None)), &["bytes in a record"]);
    limit(users.put(&"a".to_owned(), &v1(&big, 1)), &["bytes in a record"]);
    assert_eq!(new.get(&"a".to_owned()).unwrap(), Some(v2("Ann", "A", 1, None)));
    assert_eq!(new.get(&"b".to_owned()).unwrap(), Some(v2(&half, "B", 1, None)));
    assert_eq!(users.len().unwrap(), 2);

    // The codec's own limit binds on every engine.
    let memory = open(&HookEngine::new(MemoryEngine::new()));
    let users: Table<u64, UserV1> = memory.table("users").unwrap();
    let e = users.put(&1, &v1(&"n".repeat(17 << 20), 1)).unwrap_err();
    says(&e, &["over the limit of 16 MiB"]);
    assert!(users.is_empty().unwrap());
    let e = memory.table::<u64, UserV1>(&"t".repeat(257)).unwrap_err();
    says(&e, &["257 bytes in the name of a table are over the limit of 256"]);
    assert_eq!(memory.tables(), ["users"]);
}

#[test]
fn a_damaged_quarantine_entry_is_named() {
    let engine = filled();
    let key = VICTIM.to_be_bytes();
    let store = open(&engine);
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    users.put(&VICTIM, &v1("Single", 1)).unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    store.plan("split").table(&new).begin().unwrap().wait().unwrap();
    says(&new.get(&VICTIM).unwrap_err(), &["has no last name"]);
    let tree = engine.raw("quarantine/users");
    let good = tree.get(&key).unwrap().unwrap().to_vec();
    for bad in damages(&good) {
        tree.put(&key, &bad).unwrap();
        assert!(new.get(&VICTIM).unwrap_err().is_corruption());
        assert_eq!(users.get(&VICTIM).unwrap(), Some(v1("Single", 1)));
    }
    let report = store.verify().unwrap();
    assert!(report.damage[0].starts_with("quarantine of users, key 0x"), "{report:?}");
    assert!(dump(engine.inner()).len() > RECORDS as usize);
}
