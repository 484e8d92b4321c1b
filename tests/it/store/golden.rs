//! Stores that were written once, by the code of their day, are read by today's: tests/golden/*.dump.
//!
//! A dump holds a line for each value: tree, key and value, the latter two in hexadecimal. A dump is never written
//! again. A new one is made when its test runs for the first time with `EXUVIA_BLESS=1`; what a format has become is a
//! new dump, beside the old one. The values are the same on every engine; an engine's own files are the engine's affair.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::migration::{Backfill, NewWrites};
use exuvia::{Budget, Durability, Error, Migration, Phase, Store, Table};

use crate::kit::format::{Dump, dump, load};
use crate::kit::hooks::{Hooked, Kind};
use crate::kit::types::*;

const BASE: &str = "1/2";
const OVERLAY: &str = "1/3";

type Old = Table<u64, UserV1>;
type New = Table<u64, UserV2>;

/// The directory of each catalog format; the newest last.
const FORMATS: [&str; 2] = ["", "2/"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.dump"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn read(name: &str) -> Dump {
    let text = fs::read_to_string(path(name)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let value = |line: &str| {
        let [tree, key, value] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{name}: {line}");
        };
        (tree.to_owned(), unhex(key), unhex(value))
    };
    lines.map(value).collect()
}

/// What has no time of day in it: two runs of the same code write it alike.
fn timeless(dump: &Dump) -> Vec<&(String, Vec<u8>, Vec<u8>)> {
    dump.iter().filter(|(tree, key, _)| tree != "ledger" && key != b"catalog").collect()
}

/// The golden stores of this name, one for each format, in engines. `make` is what made them: today's code still writes
/// the same bytes.
fn golden(name: &str, make: impl FnOnce() -> Dump) -> impl Iterator<Item = Hooked> {
    let made = make();
    let names = FORMATS.map(|format| format!("{format}{name}"));
    let newest = &names[FORMATS.len() - 1];
    if !path(newest).exists() {
        assert!(
            std::env::var_os("EXUVIA_BLESS").is_some(),
            "{newest}.dump is missing; EXUVIA_BLESS=1 makes it"
        );
        let lines = made.iter().map(|(tree, key, value)| format!("{tree} {} {}\n", hex(key), hex(value)));
        fs::write(path(newest), lines.collect::<String>()).unwrap();
    }
    names.into_iter().map(move |name| {
        let golden = read(&name);
        assert_eq!(
            timeless(&made),
            timeless(&golden),
            "{name}: what is written has changed; it needs a new format number and a dump of its own"
        );
        Hooked::new(load(&golden))
    })
}

fn open(engine: &Hooked) -> Store {
    let interval = std::time::Duration::from_secs(3600);
    let options = Store::options().durability(Durability::Buffered { interval }).budget(Budget::unlimited());
    options.open_in(Arc::new(engine.clone())).unwrap()
}

fn fresh() -> (Hooked, Store) {
    let engine = Hooked::new(MemoryEngine::recording());
    let store = open(&engine);
    (engine, store)
}

fn step_to_the_end(migration: &Migration) {
    while migration.step(64).unwrap().phase != Phase::Complete {}
}

fn all_old(users: &Old) -> BTreeMap<u64, UserV1> {
    users.scan(..).map(Result::unwrap).collect()
}

fn all_new(users: &New) -> BTreeMap<u64, UserV2> {
    users.scan(..).map(Result::unwrap).collect()
}

fn told(store: &Store) -> Vec<String> {
    store.ledger().unwrap().into_iter().map(|entry| entry.what).collect()
}

fn settle(store: &Store) {
    while store.is_sweeping() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn made_settled() -> Dump {
    let (engine, store) = fresh();
    let users: Old = store.table("users").unwrap();
    for id in 1..=3 {
        users.put(&id, &v1(&format!("Ann N{id}"), 30 + id as u32)).unwrap();
    }
    dump(engine.inner())
}

#[test]
fn settled() {
    golden("settled", made_settled).for_each(|engine| check_settled(&open(&engine)));
}

fn check_settled(store: &Store) {
    let users: Old = store.table("users").unwrap();
    let expected = (1..=3).map(|id| (id, v1(&format!("Ann N{id}"), 30 + id as u32))).collect();
    assert_eq!(all_old(&users), expected);
    let ledger = store.ledger().unwrap();
    assert_eq!(ledger.len(), 1);
    assert_eq!((ledger[0].what.as_str(), ledger[0].subject.as_str()), ("create table", "users"));
    assert_eq!(ledger[0].counts, [("version".to_owned(), 1)]);
    assert!(ledger[0].at_ms > 1_700_000_000_000);
    assert!(store.verify().unwrap().is_clean());
    let inventory = store.inventory().unwrap().remove(0);
    assert_eq!((inventory.active, inventory.floor, inventory.records), (1, 1, [(1, 3)].into()));
}

/// Half copied: the cursor is at a record in the middle.
fn made_copying() -> Dump {
    let (engine, store) = fresh();
    let old: Old = store.table("users").unwrap();
    for id in 1..=6 {
        old.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    let new: New = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).why("names").by("me").paused().begin().unwrap();
    migration.step(2).unwrap();
    store.flush().unwrap();
    migration.step(2).unwrap();
    dump(engine.inner())
}

#[test]
fn copying() {
    golden("copying", made_copying).for_each(|engine| check_copying(&engine));
}

fn check_copying(engine: &Hooked) {
    let store = open(engine);
    let new: New = store.table("users").unwrap();
    let status = store.migrations().unwrap().remove(0);
    assert_eq!((status.phase, status.backfill), (Phase::Open, Backfill::Paused));
    assert_eq!((status.name.as_str(), status.why.as_str(), status.by.as_str()), ("split", "names", "me"));
    assert_eq!((status.tables[0].from, status.tables[0].to, status.one_way), (1, 2, false));
    // The cursor is as far as a flush had made durable.
    assert_eq!(status.tables[0].counts.copied, 2);
    assert_eq!(new.len().unwrap(), 6);
    step_to_the_end(&store.migration("split").unwrap());
    let inventory = store.inventory().unwrap().remove(0);
    assert_eq!((inventory.records, inventory.derived), ([(2, 6)].into(), 6));
    assert!(store.verify().unwrap().is_clean());
}

/// Every kind of overlay entry that a migration with a way back can hold, under a key of its own.
fn open_migration() -> (Hooked, Store, Migration) {
    let (engine, store) = fresh();
    let old: Old = store.table("users").unwrap();
    for id in [2, 9, 10] {
        old.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    old.put(&4, &v1("Single", 30)).unwrap();
    let new: New = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).why("names").by("me").paused().begin().unwrap();
    step_to_the_end(&migration);
    for id in [1, 6, 8] {
        new.put(&id, &v2("Bob", &format!("B{id}"), 40, Some("b@x"))).unwrap();
    }
    for (id, name) in [(3, "Old O3"), (7, "Lonely"), (8, "Alone")] {
        old.put(&id, &v1(name, 50)).unwrap();
    }
    while migration.step(64).unwrap().tables[0].backlog > 0 {}
    old.put(&5, &v1("Old O5", 50)).unwrap();
    old.put(&6, &v1("Old O6", 50)).unwrap();
    new.remove(&9).unwrap();
    old.remove(&10).unwrap();
    (engine, store, migration)
}

fn made_open() -> Dump {
    dump(open_migration().0.inner())
}

fn old_of_open() -> BTreeMap<u64, UserV1> {
    let users = [
        (1, v1("Bob B1", 40)),
        (2, v1("Ann N2", 30)),
        (3, v1("Old O3", 50)),
        (4, v1("Single", 30)),
        (5, v1("Old O5", 50)),
        (6, v1("Old O6", 50)),
        (7, v1("Lonely", 50)),
        (8, v1("Alone", 50)),
    ];
    users.into()
}

fn new_of_open() -> BTreeMap<u64, UserV2> {
    let users = [
        (1, v2("Bob", "B1", 40, Some("b@x"))),
        (2, v2("Ann", "N2", 30, None)),
        (3, v2("Old", "O3", 50, None)),
        (5, v2("Old", "O5", 50, None)),
        (6, v2("Old", "O6", 50, Some("b@x"))),
    ];
    users.into()
}

fn check_open(store: &Store) {
    let (old, new): (Old, New) = (store.table("users").unwrap(), store.table("users").unwrap());
    assert_eq!(all_old(&old), old_of_open());
    let expected = new_of_open();
    for id in 0..12 {
        match new.get(&id) {
            Err(Error::Quarantined { reason, .. }) => {
                assert!([4, 7, 8].contains(&id) && reason.contains("has no last name"), "{id}: {reason}");
            }
            found => assert_eq!(found.unwrap().as_ref(), expected.get(&id), "{id}"),
        }
    }
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn every_kind_of_overlay_entry() {
    golden("open", made_open).for_each(|engine| check_every_kind_of_overlay_entry(&engine));
}

fn check_every_kind_of_overlay_entry(engine: &Hooked) {
    // Byte 0 of each: the format in the high nibble, the flags in the low one.
    let golden = read("open");
    let first = |id: u64| {
        let value = golden.iter().find(|(tree, key, _)| tree == OVERLAY && **key == id.to_be_bytes());
        (value.unwrap().2[0], value.unwrap().2[1])
    };
    let kinds: Vec<(u8, u8)> = (1..=10).map(first).collect();
    let expected = [
        (0x12, 2),
        (0x14, 2),
        (0x16, 2),
        (0x1c, 2),
        (0x10, 1),
        (0x12, 1),
        (0x18, 1),
        (0x1a, 1),
        (0x11, 2),
        (0x11, 1),
    ];
    assert_eq!(kinds, expected);

    let store = open(engine);
    check_open(&store);
    let status = store.migrations().unwrap().remove(0);
    assert_eq!(status.backfill, Backfill::Paused);
    let counts = status.tables[0].counts;
    assert_eq!((counts.copied, status.fenced), (4, false));
    assert_eq!(told(&store), ["create table", "begin", "complete"]);
    // It can be brought to its end.
    let (old, new): (Old, New) = (store.table("users").unwrap(), store.table("users").unwrap());
    for id in [4, 7, 8] {
        new.put(&id, &v2("Mended", "M", 1, None)).unwrap();
    }
    let migration = store.migration("split").unwrap();
    step_to_the_end(&migration);
    migration.contract().unwrap().execute().unwrap();
    assert!(old.get(&1).is_err());
    let mended = [4, 7, 8].map(|id| (id, v2("Mended", "M", 1, None)));
    assert_eq!(all_new(&new), new_of_open().into_iter().chain(mended).collect());
    settle(&store);
    assert!(store.verify().unwrap().is_clean());
}

fn made_one_way() -> Dump {
    let (engine, store) = fresh();
    let old: Old = store.table("users").unwrap();
    old.put(&1, &v1("Ann N1", 30)).unwrap();
    let new: New = store.table("users").unwrap();
    store.plan("split").table(&new).one_way().paused().begin().unwrap();
    new.put(&2, &v2("Bob Bill", "B", 40, Some("b@x"))).unwrap();
    dump(engine.inner())
}

#[test]
fn one_way() {
    golden("one-way", made_one_way).for_each(|engine| check_one_way(&open(&engine)));
}

fn check_one_way(store: &Store) {
    let (old, new): (Old, New) = (store.table("users").unwrap(), store.table("users").unwrap());
    assert!(store.migrations().unwrap()[0].one_way);
    assert_eq!(new.get(&2).unwrap(), Some(v2("Bob Bill", "B", 40, Some("b@x"))));
    assert!(matches!(old.get(&2), Err(Error::Version { .. })));
    assert_eq!(old.get(&1).unwrap(), Some(v1("Ann N1", 30)));
    assert!(store.verify().unwrap().is_clean());
}

fn made_rolled_back() -> Dump {
    let (engine, _store, migration) = open_migration();
    migration.rollback_fenced().unwrap();
    dump(engine.inner())
}

#[test]
fn rolled_back() {
    golden("rolled-back", made_rolled_back).for_each(|engine| check_rolled_back(&open(&engine)));
}

fn check_rolled_back(store: &Store) {
    check_open(store);
    let status = store.migrations().unwrap().remove(0);
    assert_eq!((status.phase, status.fenced), (Phase::RolledBack, true));
    assert_eq!(told(store).last().unwrap(), "rollback");
    let new: New = store.table("users").unwrap();
    let fenced = new.put(&1, &v2("Bob", "B", 1, None)).unwrap_err();
    assert!(fenced.to_string().contains("fenced"), "{fenced}");
    store.migration("split").unwrap().resume().unwrap();
    new.put(&1, &v2("Bob", "B", 1, None)).unwrap();
}

/// Abandoned with new writes kept, and nothing folded yet.
fn made_folding() -> Dump {
    let (engine, _store, migration) = open_migration();
    migration.rollback().unwrap();
    engine.fail(|call| {
        let moves = matches!(call.kind, Kind::Commit | Kind::Swap | Kind::Delete);
        moves && [BASE, OVERLAY].contains(&call.tree)
    });
    let plan = migration.abandon(NewWrites::Keep).unwrap();
    let abandon = std::thread::spawn(move || plan.execute());
    let folding = || {
        let status = migration.status().unwrap();
        status.phase == Phase::Folding && matches!(status.backfill, Backfill::Waiting(_))
    };
    while !folding() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let dumped = dump(engine.inner());
    engine.clear();
    abandon.join().unwrap().unwrap();
    dumped
}

#[test]
fn folding() {
    golden("folding", made_folding).for_each(|engine| check_folding(&engine));
}

fn check_folding(engine: &Hooked) {
    let store = open(engine);
    let old: Old = store.table("users").unwrap();
    assert_eq!(all_old(&old), old_of_open(), "whether or not it is folded yet");
    // A fold needs no code, so it goes on by itself.
    let status = store.migration("split").unwrap().wait().unwrap();
    assert_eq!(status.phase, Phase::Abandoned);
    assert_eq!(all_old(&old), old_of_open());
    assert_eq!(told(&store)[3..], ["rollback", "fold", "abandon"]);
    settle(&store);
    assert!(store.verify().unwrap().is_clean());
    let inventory = store.inventory().unwrap().remove(0);
    assert_eq!((inventory.records, inventory.tombstones), ([(1, 8)].into(), 0));
}

/// Closed, and nothing swept: companions and tombstones are still there, and so is the old base.
fn made_contracted() -> Dump {
    let (engine, store, migration) = open_migration();
    let new: New = store.table("users").unwrap();
    for id in [4, 7, 8] {
        new.remove(&id).unwrap();
    }
    step_to_the_end(&migration);
    // The sweep fails at once.
    engine.fail(|call| {
        let swap = call.tree == OVERLAY && matches!(call.kind, Kind::Swap | Kind::Delete);
        swap || (call.tree == BASE && call.kind == Kind::Delete)
    });
    migration.contract().unwrap().execute().unwrap();
    settle(&store);
    dump(engine.inner())
}

#[test]
fn contracted() {
    golden("contracted", made_contracted).for_each(|engine| check_contracted(&engine));
}

fn check_contracted(engine: &Hooked) {
    // Read before it is swept, and after.
    let sweep = engine.block(1, |call| call.tree == OVERLAY && call.kind == Kind::Scan && !call.done);
    let store = open(engine);
    sweep.reached();
    let new: New = store.table("users").unwrap();
    assert_eq!(store.migrations().unwrap()[0].phase, Phase::Contracted);
    for (id, user) in new_of_open() {
        assert_eq!(new.get(&id).unwrap(), Some(user));
    }
    assert_eq!(new.get(&4).unwrap(), None);
    sweep.release();
    settle(&store);
    assert_eq!(all_new(&new), new_of_open());
    let inventory = store.inventory().unwrap().remove(0);
    assert_eq!((inventory.floor, inventory.companions, inventory.tombstones), (2, 0, 0));
    assert!(matches!(store.table::<u64, UserV1>("users"), Err(Error::Version { .. })));
    assert!(store.verify().unwrap().is_clean());
    let left = dump(engine.inner());
    assert!(left.iter().all(|(tree, _, _)| tree != BASE), "the old base is swept");
}

fn made_abandoned() -> Dump {
    let (engine, _store, migration) = open_migration();
    migration.rollback().unwrap();
    engine.fail(|call| call.tree == OVERLAY && call.kind == Kind::Delete);
    migration.abandon(NewWrites::Discard).unwrap().execute().unwrap();
    dump(engine.inner())
}

#[test]
fn abandoned() {
    golden("abandoned", made_abandoned).for_each(|engine| check_abandoned(&open(&engine)));
}

fn check_abandoned(store: &Store) {
    let old: Old = store.table("users").unwrap();
    assert_eq!(store.migrations().unwrap()[0].phase, Phase::Abandoned);
    assert_eq!(all_old(&old).into_keys().collect::<Vec<_>>(), [2, 4, 9, 10]);
    settle(store);
    assert!(store.verify().unwrap().is_clean());
}

/// The examples of docs/format.md are values of the golden stores, byte for byte.
///
/// ```text
/// example: open, tree 1/3, key 0000000000000001
/// 12 02          what these bytes are
/// ```
#[test]
fn the_examples_of_the_format_document() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/format.md")).unwrap();
    let mut examples = 0;
    for block in text.split("```text\nexample: ").skip(1) {
        let block = block.split("```").next().unwrap();
        let (title, lines) = block.split_once('\n').unwrap();
        let [name, tree, key] = title.split(", ").collect::<Vec<_>>()[..] else {
            panic!("{title}");
        };
        let (tree, key) = (tree.strip_prefix("tree ").unwrap(), key.strip_prefix("key ").unwrap());
        // A key is in hexadecimal, or as text in quotation marks.
        let key = key
            .strip_prefix('"')
            .map_or_else(|| unhex(key), |key| key.trim_end_matches('"').as_bytes().to_vec());
        let bytes: String =
            lines.lines().flat_map(|line| line.split("  ").next().unwrap_or("").split(' ')).collect();
        let stored = read(name).into_iter().find(|(t, k, _)| t == tree && *k == key);
        let stored = stored.unwrap_or_else(|| panic!("{title}: there is no such value")).2;
        assert_eq!(bytes, hex(&stored), "{title}");
        examples += 1;
    }
    assert!(examples >= 8, "{examples} examples");
}
