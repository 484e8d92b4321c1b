//! Salvage: what is whole comes along, what is not is listed, and nothing older is taken for it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound::Unbounded;
use std::path::Path;

use exuvia::engine::{EngineKind, Page};
use exuvia::migration::NewWrites;
use exuvia::tools::salvage::Salvage;
use exuvia::{Error, Phase, Store, Table};

use crate::kit::errors::says;
use crate::kit::files::files_below;
use crate::kit::kinds::kinds;
use crate::kit::scene::{BASE, CATALOG, OVERLAY};
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

/// Twenty users, of whom the first ten were copied by an open migration, and some written since.
fn open_migration(kind: EngineKind, path: &Path) {
    let store = Store::options().engine(kind).open(path).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..20 {
        old.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    migration.step(10).unwrap();
    new.put(&1, &v2("Bob", "B1", 20, Some("b@x"))).unwrap();
    new.put(&15, &v2("Bob", "B15", 20, Some("b@x"))).unwrap();
    old.put(&16, &v1("Old O16", 40)).unwrap();
    new.remove(&17).unwrap();
    drop((old, new, migration));
    store.close().unwrap();
}

fn settled(kind: EngineKind, path: &Path, count: u64) {
    let store = Store::options().engine(kind).open(path).unwrap();
    for name in ["users", "others"] {
        let users: Table<u64, UserV1> = store.table(name).unwrap();
        for id in 0..count {
            users.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
        }
    }
    store.close().unwrap();
}

/// Flips a bit in the middle of values, below the store.
fn damage(kind: EngineKind, path: &Path, tree: &str, wanted: impl Fn(&[u8]) -> bool) -> usize {
    let engine = kind.open(path.join(kind.name()), 16 << 20).unwrap();
    let tree = engine.tree(tree).unwrap();
    let mut page = Page::new();
    tree.scan((Unbounded, Unbounded), false, 10_000, &mut page).unwrap();
    let mut damaged = 0;
    for (key, value) in page.iter().filter(|(key, _)| wanted(key)) {
        let mut value = value.to_vec();
        let middle = value.len() / 2;
        value[middle] ^= 0x10;
        tree.put(key, &value).unwrap();
        damaged += 1;
    }
    engine.flush().unwrap();
    damaged
}

fn id(id: u64) -> impl Fn(&[u8]) -> bool {
    move |key| *key == id.to_be_bytes()
}

fn lost(salvage: &Salvage) -> Vec<(Option<u64>, &str)> {
    let id = |key: &Vec<u8>| u64::from_be_bytes(key.as_slice().try_into().unwrap());
    salvage.lost.iter().map(|lost| (lost.key.as_ref().map(id), &*lost.reason)).collect()
}

type Views = (BTreeMap<u64, Result<Option<UserV1>, String>>, BTreeMap<u64, Result<Option<UserV2>, String>>);

fn views(store: &Store) -> Views {
    let (old, new): (Table<u64, UserV1>, Table<u64, UserV2>) =
        (store.table("users").unwrap(), store.table("users").unwrap());
    let at_old = (0..20).map(|id| (id, old.get(&id).map_err(|e| e.to_string())));
    (at_old.collect(), (0..20).map(|id| (id, new.get(&id).map_err(|e| e.to_string()))).collect())
}

fn open(path: &Path) -> Store {
    let store = Store::options().create(false).background(false).open(path).unwrap();
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    store
}

#[test]
fn a_whole_store_comes_along_whole_and_to_the_other_engine() {
    let scratch = Scratch::new("salvage-whole");
    for kind in kinds() {
        for to in kinds() {
            let name = format!("{}-{}", kind.name(), to.name());
            let (path, new) = (scratch.path().join(&name), scratch.path().join(format!("{name}-new")));
            open_migration(kind, &path);
            let before: Vec<_> = files_below(&path).iter().map(|file| fs::read(file).unwrap()).collect();
            let salvage = Store::salvage(&path, &new, (to != kind).then_some(to)).unwrap();
            assert!(salvage.is_complete(), "{salvage:?}");
            assert_eq!((salvage.engine, salvage.tables.as_slice()), (to, &["users".to_owned()][..]));
            let after: Vec<_> = files_below(&path).iter().map(|file| fs::read(file).unwrap()).collect();
            assert!(before == after, "the source is only read");
            assert_eq!(new.read_dir().unwrap().count(), 2, "its files and its mark");

            let (source, store) = (open(&path), open(&new));
            assert_eq!(views(&store), views(&source));
            let (was, is) = (source.ledger().unwrap(), store.ledger().unwrap());
            assert_eq!(was[..], is[..is.len() - 1]);
            assert_eq!(is.last().unwrap().what, "salvage");
            // The migration goes on, to its end.
            let migration = store.migration("split").unwrap();
            while migration.step(1000).unwrap().phase != Phase::Complete {}
            assert_eq!(views(&store), views(&source));
            migration.contract().unwrap().execute().unwrap();
            assert!(store.verify().unwrap().is_clean());
            says(&Store::salvage(&path, &new, None).unwrap_err(), &["open in another"]);
            source.close().unwrap();
            says(&Store::salvage(&path, &new, None).unwrap_err(), &["name a new directory"]);
        }
    }
}

/// Each tree with one record damaged, of every kind.
#[test]
fn a_damaged_record_costs_that_record_only() {
    let scratch = Scratch::new("salvage-one");
    for kind in kinds() {
        let original = scratch.path().join(kind.name());
        open_migration(kind, &original);
        let (old, new) = views(&open(&original));
        // Copied or not yet; changed since, or not.
        let below = [0, 1, 8, 10, 15, 16, 17, 19].map(|id| (BASE, id));
        let cases = below.into_iter().chain([1, 3, 15, 16, 17].map(|id| (OVERLAY, id)));
        for (tree, bad) in cases {
            let (path, to) = (scratch.path().join("damaged"), scratch.path().join("new"));
            copy(&original, &path);
            assert_eq!(damage(kind, &path, tree, id(bad)), 1, "{tree} {bad}");
            let salvage = Store::salvage(&path, &to, None).unwrap();
            let told = lost(&salvage);
            assert!(
                !told.is_empty() && told.iter().all(|(id, _)| *id == Some(bad)),
                "{tree} {bad}: {told:?}"
            );
            let store = open(&to);
            let (at_old, at_new) = views(&store);
            for id in (0..20).filter(|id| *id != bad) {
                assert_eq!(
                    (&at_old[&id], &at_new[&id]),
                    (&old[&id], &new[&id]),
                    "{tree} {bad}: {id} is affected"
                );
            }
            let (at_old, at_new) = (&at_old[&bad], &at_new[&bad]);
            match (tree, bad) {
                // What was written since the migration began is whole; what lay below it is of no account.
                (BASE, 1 | 15 | 16 | 17) => assert_eq!((at_old, at_new), (&old[&bad], &new[&bad])),
                // Of what the backfill had made the newer form is left, and the older one is an error, not an absence.
                (BASE, 0..10) => {
                    assert_eq!(at_new, &new[&bad]);
                    assert!(at_old.is_err(), "{bad}: {at_old:?}");
                }
                // Nothing is there, and above all nothing that is older.
                _ => assert_eq!((at_old, at_new), (&Ok(None), &Ok(None)), "{tree} {bad}"),
            }
            // And the migration can be ended: either way.
            let migration = store.migration("split").unwrap();
            if bad % 2 == 0 {
                while migration.step(1000).unwrap().phase != Phase::Complete {}
                migration.contract().unwrap().execute().unwrap();
            } else {
                migration.rollback().unwrap();
                migration.abandon(NewWrites::Discard).unwrap().execute().unwrap();
            }
            assert!(store.verify().unwrap().is_clean());
            drop((migration, store));
            for path in [path, to] {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for file in files_below(from) {
        let to = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    for empty in ["sled/blobs", "fjall/keyspaces"] {
        if from.join(empty).is_dir() {
            fs::create_dir_all(to.join(empty)).unwrap();
        }
    }
}

/// The catalog, the shapes, the ledger: what belongs to all.
#[test]
fn damage_to_the_stores_own_values_costs_no_record() {
    let scratch = Scratch::new("salvage-own");
    for kind in kinds() {
        let original = scratch.path().join(kind.name());
        open_migration(kind, &original);
        let expected = views(&open(&original));
        type Case = (&'static str, &'static str, fn(&[u8]) -> bool, &'static str);
        let cases: [Case; 3] = [
            ("catalog", CATALOG, |key| key == b"catalog", "the catalog"),
            ("shapes", CATALOG, |key| key.starts_with(b"shape/"), "the shape of version"),
            ("ledger", "ledger", |_| true, "ledger entries"),
        ];
        for (what, tree, wanted, said) in cases {
            let (path, to) = (scratch.path().join("damaged"), scratch.path().join("new"));
            copy(&original, &path);
            assert!(damage(kind, &path, tree, wanted) > 0, "{what}");
            let salvage = Store::salvage(&path, &to, None).unwrap();
            let told = lost(&salvage);
            // What the ledger's tree loses the catalog may still hold.
            assert!(what == "ledger" || told.iter().any(|(_, why)| why.contains(said)), "{told:?}");
            assert_eq!(views(&open(&to)), expected, "{what}");
            for path in [path, to] {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
}

/// A catalog that makes sense but for its checksum is taken as it reads, and that is said.
#[test]
fn a_catalog_with_a_wrong_name_is_taken_as_it_reads() {
    let scratch = Scratch::new("salvage-name");
    for kind in kinds() {
        let (path, to) =
            (scratch.path().join(kind.name()), scratch.path().join(format!("{}-new", kind.name())));
        open_migration(kind, &path);
        let expected = views(&open(&path));
        let engine = kind.open(path.join(kind.name()), 16 << 20).unwrap();
        let tree = engine.tree(CATALOG).unwrap();
        let mut bytes = tree.get(b"catalog").unwrap().unwrap().to_vec();
        while let Some(at) = bytes.windows(5).position(|name| name == b"split") {
            bytes[at] = b'x';
        }
        tree.put(b"catalog", &bytes).unwrap();
        engine.flush().unwrap();
        drop((tree, engine));
        says(&Store::open(&path).unwrap_err(), &["catalog is damaged"]);
        let salvage = Store::salvage(&path, &to, None).unwrap();
        let told = lost(&salvage);
        assert!(told.iter().any(|(_, why)| why.contains("it is taken as it reads")), "{told:?}");
        let store = open(&to);
        assert_eq!(views(&store), expected);
        store.migration("xplit").unwrap();
    }
}

/// No catalog at all: tables are made up from what their trees hold.
#[test]
fn a_store_without_a_catalog_is_made_up_from_its_records() {
    let scratch = Scratch::new("salvage-none");
    for kind in kinds() {
        let without = |path: &Path| {
            let engine = kind.open(path.join(kind.name()), 16 << 20).unwrap();
            engine.tree(CATALOG).unwrap().put(b"catalog", b"gone").unwrap();
            engine.flush().unwrap();
        };
        let (path, to) =
            (scratch.path().join(kind.name()), scratch.path().join(format!("{}-new", kind.name())));
        settled(kind, &path, 30);
        without(&path);
        says(&Store::open(&path).unwrap_err(), &["catalog is damaged"]);
        let salvage = Store::salvage(&path, &to, None).unwrap();
        assert_eq!(salvage.tables, ["others", "users"], "the ledger knows the names");
        assert_eq!((salvage.records, salvage.lost_count), (60, 1), "{salvage:?}");
        let store = open(&to);
        for name in ["users", "others"] {
            let table: Table<u64, UserV1> = store.table(name).unwrap();
            assert_eq!(table.len().unwrap(), 30);
            assert_eq!(table.get(&7).unwrap(), Some(v1("Ann N7", 30)));
            table.put(&7, &v1("Ann Again", 31)).unwrap();
        }

        let (path, to) =
            (scratch.path().join(format!("{}-open", kind.name())), scratch.path().join("open-new"));
        open_migration(kind, &path);
        let expected = views(&open(&path));
        without(&path);
        let salvage = Store::salvage(&path, &to, None).unwrap();
        assert_eq!(salvage.tables, ["users"]);
        let store = open(&to);
        assert_eq!(views(&store), expected, "both versions can be read");
        let migration = store.migration("salvaged users").unwrap();
        assert_eq!(migration.status().unwrap().phase, Phase::RolledBack, "nothing goes on by itself");
        migration.resume().unwrap();
        while migration.step(1000).unwrap().phase != Phase::Complete {}
        migration.contract().unwrap().execute().unwrap();
        assert!(store.verify().unwrap().is_clean());
        drop((migration, store));
        fs::remove_dir_all(to).unwrap();
    }
}

/// Damaged files, and not values: everything else that the engine can read comes along, or the engine's error.
#[test]
fn damaged_files_are_read_around_or_refused() {
    let scratch = Scratch::new("salvage-files");
    for kind in kinds() {
        let original = scratch.path().join(kind.name());
        settled(kind, &original, 400);
        // sled writes its snapshot at the second open; without one it takes damage for the torn end of its log.
        Store::open(&original).unwrap().close().unwrap();
        let mut brought = 0;
        for file in files_below(&original) {
            let name = file.strip_prefix(&original).unwrap();
            let whole = fs::read(&file).unwrap();
            let used = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for part in 1..5 {
                let (path, to) = (scratch.path().join("damaged"), scratch.path().join("new"));
                copy(&original, &path);
                let mut damaged = whole.clone();
                if used > 0 {
                    damaged[used * part / 5] ^= 0xff;
                }
                fs::write(path.join(name), damaged).unwrap();
                match Store::salvage(&path, &to, None) {
                    Ok(salvage) => {
                        brought += 1;
                        // Less than all is never taken for all. (fjall takes damage in a journal for its end.)
                        let journal = name.extension().is_some_and(|extension| extension == "jnl");
                        assert!(
                            salvage.records == 800 || !salvage.is_complete() || journal,
                            "{}",
                            name.display()
                        );
                        let store = open(&to);
                        assert_eq!(
                            store
                                .inventory()
                                .unwrap()
                                .iter()
                                .map(|t| t.records.values().sum::<u64>())
                                .sum::<u64>(),
                            salvage.records
                        );
                        if let Ok(users) = store.table::<u64, UserV1>("users") {
                            for (id, user) in users.scan(..).map(Result::unwrap) {
                                assert_eq!(user, v1(&format!("Ann N{id}"), 30), "{}", name.display());
                            }
                        }
                        drop(store);
                        fs::remove_dir_all(&to).unwrap();
                    }
                    Err(e) => {
                        assert!(
                            matches!(e, Error::Engine(_)) || e.is_corruption(),
                            "{}: {e:?}",
                            name.display()
                        );
                        assert!(!to.exists(), "nothing is left");
                    }
                }
                fs::remove_dir_all(&path).unwrap();
            }
        }
        assert!(brought > 0);
    }
}
