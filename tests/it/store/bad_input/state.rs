//! Damage and strangers among what the store writes for itself: catalog, progress, shapes, ledger; and lineages that do
//! not fit a table.

use std::sync::Arc;

use exuvia::engine::{Engine, MemoryEngine};
use exuvia::{CastError, Error, Origin, Phase, Result, Store, Table, Version};
use serde::{Deserialize, Serialize};

use crate::kit::errors::says;
use crate::kit::format::{self, Bytes, dump, envelope, load, migrating, sealed, settled, store_of, user_v1};
use crate::kit::kinds::kinds;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

fn open(engine: &MemoryEngine) -> Result<Store> {
    Store::options().open_in(Arc::new(engine.clone()))
}

fn ids(records: u64) -> Vec<(u64, Vec<u8>)> {
    let record = |id: u64| envelope(&id.to_be_bytes(), 0, 1, &user_v1(&format!("Ann N{id}"), id), None);
    (0..records).map(|id| (id, record(id))).collect()
}

fn expect(id: u64) -> UserV1 {
    v1(&format!("Ann N{id}"), id as u32)
}

/// An open that has to fail, and to change nothing.
fn refused(engine: &MemoryEngine) -> Error {
    let before = dump(engine);
    let e = open(engine).map(drop).unwrap_err();
    assert_eq!(dump(engine), before, "a refused open changed something: {e}");
    e
}

fn with_catalog(bytes: &[u8]) -> MemoryEngine {
    let engine = store_of(&settled(), &ids(5));
    engine.tree("catalog").unwrap().put(b"catalog", bytes).unwrap();
    engine
}

#[test]
fn catalogs_made_by_hand_are_read() {
    let store = open(&store_of(&settled(), &ids(5))).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    assert_eq!(users.get(&3).unwrap(), Some(expect(3)));
    for (code, phase) in [(1, Phase::Open), (2, Phase::Complete), (3, Phase::RolledBack), (4, Phase::Folding)]
    {
        let store = open(&store_of(&migrating(code), &ids(5))).unwrap();
        assert_eq!(store.tables(), ["users"]);
        let status = store.migrations().unwrap().remove(0);
        assert_eq!((status.name.as_str(), status.why.as_str(), status.by.as_str()), ("split", "names", "me"));
        // Complete shows only while nothing is left to bring forward, which a reopen has to find out; and folding five
        // records may be done by now.
        let seen = [phase, Phase::Open, Phase::Abandoned];
        assert!(seen.contains(&status.phase), "{phase:?}: {:?}", status.phase);
    }
}

#[test]
fn a_damaged_catalog_stops_the_open_and_changes_nothing() {
    let good = migrating(1).bytes();
    let mut bad: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    bad.extend((0..good.len() * 8).map(|bit| {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    }));
    // Whole by its checksum, but not what a catalog is.
    bad.push(sealed(b"catalog", 1, b""));
    bad.push(sealed(b"catalog", 1, &[settled().content(), vec![0]].concat()));
    bad.push(sealed(b"other key", 1, &settled().content()));
    for generations in [vec![], vec![2, 3, 4]] {
        bad.push(format::Catalog { generations, ..settled() }.bytes());
    }
    for bytes in bad {
        let e = refused(&with_catalog(&bytes));
        assert!(e.is_corruption(), "{e:?}");
        says(&e, &["catalog", "restore the store from a copy", "nothing was changed"]);
    }
}

/// A migration that names a table without an overlay, an overlay without a migration, a table that is not there.
#[test]
fn a_catalog_that_contradicts_itself_is_damage() {
    let bad = [
        format::Catalog { generations: vec![2], ..migrating(1) },
        format::Catalog { generations: vec![2, 3], ..settled() },
        format::Catalog { floor: 3, ..settled() },
        format::Catalog { oldest: 2, ..settled() },
        format::Catalog { generations: vec![2, 2], ..migrating(1) },
        format::Catalog { next_id: 3, generations: vec![2, 3], ..migrating(1) },
    ];
    for catalog in bad {
        let e = refused(&store_of(&catalog, &ids(5)));
        assert!(e.is_corruption(), "{e:?}");
        says(&e, &["catalog", "users"]);
    }
}

#[test]
fn unknown_formats_and_phases_are_named() {
    let format = |bytes: &[u8], words: &[&str]| {
        let e = refused(&with_catalog(bytes));
        assert!(matches!(e, Error::Format { .. }), "{e:?}");
        says(&e, words);
    };
    format(&sealed(b"catalog", 3, b"whatever comes"), &["format 3", "reads format 2", "newer release"]);
    for code in [0, 7, 255] {
        let code_said = format!("phase code {code}");
        format(&migrating(code).bytes(), &[&code_said, "split", "newer release"]);
    }
    let other = format::Catalog { engine: "lsm", ..settled() };
    format(&other.bytes(), &["\"lsm\"", "\"memory\"", "open it with"]);
}

/// An engine that holds something, but no catalog, is not an empty store: opening it would sweep what it holds.
#[test]
fn a_missing_catalog_is_not_an_empty_store() {
    let engine = store_of(&settled(), &ids(5));
    engine.tree("catalog").unwrap().delete(b"catalog").unwrap();
    let e = refused(&engine);
    says(&e, &["catalog", "missing", "restore"]);

    let foreign = load(&vec![("somebody's".to_owned(), b"k".to_vec(), b"v".to_vec())]);
    says(&refused(&foreign), &["catalog", "missing"]);
}

/// An engine would make the tree anew, and the table would be empty.
#[test]
fn a_missing_tree_is_not_an_empty_table() {
    for kind in kinds() {
        let scratch = Scratch::new("missing-tree");
        let open = || Store::options().engine(kind).open(scratch.path());
        let store = open().unwrap();
        drop(store.table::<u64, UserV1>("users").unwrap());
        store.close().unwrap();
        open().unwrap().close().unwrap();
        let engine = crate::kit::trees::on_disk(kind, &scratch);
        engine.drop_tree("1/2").unwrap();
        engine.flush().unwrap();
        drop(engine);
        let e = open().map(drop).unwrap_err();
        assert!(e.is_corruption(), "{e:?}");
        says(&e, &["1/2", "users", "missing", "restore"]);
    }
}

#[test]
fn a_damaged_progress_costs_time_only() {
    let key = b"progress/1/3";
    let content = |stage: u8, cursor: &[u8]| {
        let bytes = Bytes::default().raw(&[stage]).number(cursor.len() as u64).raw(cursor);
        bytes.number(3).number(0).number(0).number(0).0
    };
    let good = sealed(key, 1, &content(2, &2_u64.to_be_bytes()));
    let mut bad: Vec<Vec<u8>> = (0..good.len()).step_by(5).map(|len| good[..len].to_vec()).collect();
    bad.extend((0..good.len()).map(|at| {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        flipped
    }));
    bad.push(sealed(key, 1, &content(9, b"")));
    bad.push(sealed(key, 2, b"?"));
    bad.push(sealed(b"progress/1/4", 1, &content(3, b"")));
    for bytes in bad {
        let engine = store_of(&migrating(1), &ids(20));
        engine.tree("catalog").unwrap().put(key, &bytes).unwrap();
        // What the damaged value had claimed, and an application's write.
        let two = format::user_v2("Ann", "N0", 0, None);
        let derived = envelope(&0_u64.to_be_bytes(), format::DERIVED, 2, &two, None);
        engine.tree("1/3").unwrap().put(&0_u64.to_be_bytes(), &derived).unwrap();
        let native = format::user_v2("Bob", "B", 1, Some("b@x"));
        let native = envelope(&1_u64.to_be_bytes(), 0, 2, &native, Some((1, &user_v1("Bob B", 1))));
        engine.tree("1/3").unwrap().put(&1_u64.to_be_bytes(), &native).unwrap();

        let store = open(&engine).unwrap();
        let new: Table<u64, UserV2> = store.table("users").unwrap();
        let status = store.migration("split").unwrap();
        // Made by hand it was paused.
        status.unpause().unwrap();
        assert_eq!(status.wait().unwrap().phase, Phase::Complete);
        assert_eq!(new.len().unwrap(), 20);
        assert_eq!(new.get(&1).unwrap(), Some(v2("Bob", "B", 1, Some("b@x"))));
        let inventory = store.inventory().unwrap().remove(0);
        assert_eq!((inventory.records, inventory.derived), ([(2, 20)].into(), 19));
        assert!(store.verify().unwrap().is_clean());
    }
}

/// Three changes of state, so that one entry has left the catalog's outbox.
fn with_ledger() -> MemoryEngine {
    let engine = MemoryEngine::recording();
    let store = open(&engine).unwrap();
    for name in ["one", "two", "three", "users"] {
        store.table::<u64, UserV1>(name).unwrap();
    }
    store.close().unwrap();
    engine
}

#[test]
fn a_damaged_ledger_is_named_and_stops_nothing_else() {
    let first = 0_u64.to_be_bytes();
    let good = with_ledger().tree("ledger").unwrap().get(&first).unwrap().unwrap().to_vec();
    type Inflict<'a> = &'a dyn Fn(&dyn exuvia::engine::Tree);
    let damage: [(Inflict<'_>, &str); 5] = [
        (&|ledger| ledger.put(&first, &good[..good.len() - 1]).unwrap(), "checksum"),
        (&|ledger| ledger.delete(&first).unwrap(), "missing"),
        (
            &|ledger| {
                // The checksum is right, the hash is not.
                let mut content = good[1..good.len() - 4].to_vec();
                content[4] ^= 1;
                ledger.put(&first, &sealed(&first, 1, &content)).unwrap();
            },
            "hash",
        ),
        (&|ledger| ledger.put(&first, &sealed(&first, 9, b"")).unwrap(), "format 9"),
        (&|ledger| ledger.put(&9_u64.to_be_bytes(), b"more").unwrap(), "longer"),
    ];
    for (damage, word) in damage {
        let engine = with_ledger();
        damage(&*engine.tree("ledger").unwrap());
        let store = open(&engine).unwrap();
        let report = store.verify().unwrap();
        assert_eq!(report.damage_count, 1);
        assert!(report.damage[0].contains("ledger") && report.damage[0].contains(word), "{report:?}");
        says(&store.ledger().unwrap_err(), &["ledger", word]);
        let users: Table<u64, UserV1> = store.table("users").unwrap();
        users.put(&1, &expect(1)).unwrap();
        store.table::<u64, UserV1>("another").unwrap();
        assert_eq!(users.get(&1).unwrap(), Some(expect(1)));
    }
}

#[test]
fn a_damaged_shape_is_named_and_stops_nothing_else() {
    let engine = with_ledger();
    let key = dump(&engine).into_iter().find(|(_, key, _)| key.starts_with(b"shape/")).unwrap().1;
    engine.tree("catalog").unwrap().put(&key, b"\x01garbage").unwrap();
    let store = open(&engine).unwrap();
    let report = store.verify().unwrap();
    // Four tables have this shape.
    assert_eq!(report.damage_count, 4);
    assert!(report.damage[0].contains("shape"), "{report:?}");
    store.table::<u64, UserV1>("users").unwrap().put(&1, &expect(1)).unwrap();
}

/// A type that says of itself to be version 1 of a user, with another field.
#[derive(Debug, Serialize, Deserialize)]
struct ChangedV1 {
    name: String,
    age: u64,
}

impl Version for ChangedV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;
    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }
    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

/// A lineage that begins at version 4.
#[derive(Debug, Serialize, Deserialize)]
struct LateV4 {
    name: String,
}

impl Version for LateV4 {
    const VERSION: u32 = 4;
    type Previous = Origin;
    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }
    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

#[test]
fn a_type_that_changed_without_a_new_version_is_refused() {
    let engine = MemoryEngine::recording();
    let store = open(&engine).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    users.put(&1, &expect(1)).unwrap();
    let before = dump(&engine);
    let e = store.table::<u64, ChangedV1>("users").unwrap_err();
    assert!(matches!(e, Error::Shape { version: 1, .. }), "{e:?}");
    says(&e, &["users", "age", "u32", "u64", "next version"]);
    assert_eq!(dump(&engine), before);
    assert_eq!(users.get(&1).unwrap(), Some(expect(1)));
}

#[test]
fn versions_that_the_table_is_past_or_not_yet_at_are_refused() {
    let engine = MemoryEngine::recording();
    let store = open(&engine).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    old.put(&1, &expect(1)).unwrap();
    let version = |result: Result<()>, found: u32, words: &[&str]| {
        let e = result.unwrap_err();
        assert!(matches!(e, Error::Version { version, .. } if version == found), "{e:?}");
        says(&e, words);
    };
    // Older than the lineage: both are named.
    let late = || store.table::<u64, LateV4>("users").map(drop);
    version(late(), 1, &["records of version 1", "oldest type of this lineage is version 4"]);

    let new: Table<u64, UserV3> = store.table("users").unwrap();
    let migration = store.plan("born").table(&new).begin().unwrap();
    migration.wait().unwrap();
    migration.contract().unwrap().execute().unwrap();
    // Retired, at a handle that was open and at one that is opened.
    let words = &["retired", "version 3 is the oldest that can still be read", "use a program that knows"];
    version(old.get(&1).map(drop), 1, words);
    version(old.put(&1, &expect(2)), 1, words);
    version(old.remove(&1), 1, words);
    version(old.scan(..).next().unwrap().map(drop), 1, words);
    version(store.table::<u64, UserV1>("users").map(drop), 1, words);
    version(store.table::<u64, UserV2>("users").map(drop), 2, words);
    drop((old, migration));
    assert_eq!(new.get(&1).unwrap().unwrap().born, 2025);

    // A program that knows version 1 only, on a store of version 3.
    while store.is_sweeping() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let before = dump(&engine);
    let again = open(&engine).unwrap();
    version(again.table::<u64, UserV1>("users").map(drop), 1, words);
    drop(again);
    assert_eq!(dump(&engine), before);
}
