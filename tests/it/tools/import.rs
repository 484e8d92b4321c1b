//! Import of a sled database that a program kept by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use exuvia::engine::MemoryEngine;
use exuvia::laws::Cast;
use exuvia::tools::import::SledImport;
use exuvia::{Budget, CastError, Error, Store, Table};

use crate::kit::errors::says;
use crate::kit::files::files;
use crate::kit::scene::{bytes, until};
use crate::kit::scratch::{Scratch, child, child_argument};
use crate::kit::types::*;

fn name(id: u64) -> UserV1 {
    v1(&format!("Ann N{id}"), (id % 90) as u32)
}

/// Closes a database, and waits until sled's last thread has let go of its file.
fn close(db: sled::Db, path: &Path) {
    drop(db);
    let log = fs::File::open(path.join("db")).unwrap();
    until("the end of sled", || log.try_lock().is_ok());
}

/// A database as such programs keep them: sled's defaults, keys big endian, values by bincode.
fn database(path: &Path, tree: &str, records: u64) {
    let db = sled::open(path).unwrap();
    let users = db.open_tree(tree).unwrap();
    for id in 0..records {
        users.insert(id.to_be_bytes(), bytes(&name(id))).unwrap();
    }
    db.insert("owner", "ada").unwrap();
    db.flush().unwrap();
    drop(users);
    close(db, path);
}

fn key(bytes: &[u8]) -> Result<u64, CastError> {
    let bytes = bytes.try_into().map_err(|_| CastError::new("a key has 8 bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn import(path: &Path) -> SledImport {
    SledImport::new(path).tree("users").budget(Budget::unlimited())
}

fn memory() -> Store {
    Store::options().open_in(std::sync::Arc::new(MemoryEngine::new())).unwrap()
}

fn all(table: &Table<u64, UserV1>) -> BTreeMap<u64, UserV1> {
    table.scan(..).map(Result::unwrap).collect()
}

#[test]
fn encoded_values_become_version_1_and_migrate() {
    let scratch = Scratch::new("import");
    let (source, path) = (scratch.path().join("old"), scratch.path().join("store"));
    database(&source, "users", 1000);
    let store = Store::open(&path).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    let imported = import(&source).why("adopted").by("ada").as_encoded(&users, key).unwrap();
    assert_eq!((imported.records, imported.skipped), (1000, 0));
    assert_eq!(all(&users), (0..1000).map(|id| (id, name(id))).collect());
    users.put(&7, &v1("Eve E", 1)).unwrap();
    assert_eq!(users.get(&7).unwrap(), Some(v1("Eve E", 1)));

    let entry = store.ledger().unwrap().pop().unwrap();
    assert_eq!((entry.what.as_str(), entry.why.as_str(), entry.by.as_str()), ("import", "adopted", "ada"));
    assert_eq!(entry.counts, [("skipped".to_owned(), 0), ("records".to_owned(), 1000)]);
    until("the sweep of the empty generation", || !store.is_sweeping());
    let e = import(&source).as_encoded(&users, key).unwrap_err();
    says(&e, &["table users", "not empty"]);

    let new: Table<u64, UserV2> = store.table("users").unwrap();
    store.plan("split").table(&new).begin().unwrap().wait().unwrap();
    assert_eq!(new.get(&8).unwrap(), Some(v2("Ann", "N8", 8, None)));
    assert!(store.verify().unwrap().is_clean());
    drop((users, new));
    store.close().unwrap();
    // The source is as it was for its own program.
    let db = sled::open(&source).unwrap();
    assert_eq!((db.open_tree("users").unwrap().len(), db.len()), (1000, 1));
}

#[test]
fn raw_values_are_read_by_the_callers_function() {
    let scratch = Scratch::new("import-raw");
    let source = scratch.path().join("old");
    let db = sled::Config::new().path(&source).segment_size(64 * 1024).open().unwrap();
    for (key, age) in [("ann", "30"), ("bob", "31"), ("eve", "old"), ("zoe", "201")] {
        db.insert(key, age).unwrap();
    }
    close(db, &source);
    let read = |key: &[u8], value: &[u8]| {
        let key = String::from_utf8_lossy(key).into_owned();
        let age = String::from_utf8_lossy(value).parse().map_err(|e| CastError::new(format!("age: {e}")))?;
        Ok((key.clone(), v1(&key, age)))
    };
    let store = memory();
    let users: Table<String, UserV1> = store.table("users").unwrap();
    let e = SledImport::new(&source).into_table(&users, read).unwrap_err();
    assert!(matches!(&e, Error::Cast { cast: Cast::Import, key, .. } if key == b"eve"), "{e:?}");
    says(&e, &["table users", "\"eve\"", "age: invalid digit", "skip bad"]);
    assert!(users.is_empty().unwrap());
    users.put(&"x".to_owned(), &v1("X", 1)).unwrap();
    users.remove(&"x".to_owned()).unwrap();

    let imported = SledImport::new(&source).skip_bad().into_table(&users, read).unwrap();
    assert_eq!((imported.records, imported.skipped), (2, 2));
    let bad: Vec<(&[u8], &str)> =
        imported.bad.iter().map(|b| (b.key.as_slice(), b.reason.as_str())).collect();
    assert_eq!(bad[0].0, b"eve");
    assert_eq!(bad[1], (b"zoe".as_slice(), "nobody is older than 200"), "the rules of the type bind");
    assert_eq!(users.len().unwrap(), 2);
}

#[test]
fn values_of_bincode_1_and_two_records_of_one_key() {
    let scratch = Scratch::new("import-bincode1");
    let source = scratch.path().join("old");
    let db = sled::open(&source).unwrap();
    let age = 44u32.to_le_bytes();
    let value = [&3u64.to_le_bytes()[..], b"Ann", &age].concat();
    for key in ["5", "05"] {
        db.insert(key, value.as_slice()).unwrap();
    }
    close(db, &source);
    let store = memory();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    let read = |key: &[u8], value: &[u8]| {
        let id = String::from_utf8_lossy(key).parse().map_err(|_| CastError::new("no number"))?;
        Ok((id, exuvia::codec::decode_bincode1(value)?))
    };
    let imported = SledImport::new(&source).skip_bad().into_table(&users, read).unwrap();
    assert_eq!((imported.records, imported.bad[0].key.as_slice()), (1, b"5".as_slice()));
    assert!(imported.bad[0].reason.contains("the same key"));
    assert_eq!(users.get(&5).unwrap(), Some(v1("Ann", 44)));
}

#[test]
fn nonsense_is_refused_and_left_alone() {
    let scratch = Scratch::new("import-nonsense");
    let path = scratch.path();
    let store = Store::open(path.join("store")).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    let try_import = |source: &Path| import(source).as_encoded(&users, key).unwrap_err();

    let missing = path.join("missing");
    says(&try_import(&missing), &["missing", "not the directory of a sled database"]);
    assert!(!missing.exists());
    let other = path.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter.txt"), "dear reader").unwrap();
    let before = files(&other);
    says(&try_import(&other), &["not the directory of a sled database"]);
    says(&try_import(&other.join("letter.txt")), &["not the directory of a sled database"]);
    assert_eq!(files(&other), before);
    for own in [path.join("store"), path.join("store").join("sled")] {
        says(&try_import(&own), &["store of exuvia", "copy the store"]);
    }

    let source = path.join("old");
    database(&source, "people", 3);
    says(&try_import(&source), &["no tree \"users\"", "people"]);
    let open = sled::open(&source).unwrap();
    assert!(matches!(try_import(&source), Error::Locked { .. }));
    close(open, &source);
    let conf = fs::read(source.join("conf")).unwrap();
    let older = String::from_utf8_lossy(&conf).replace("version: 0.34", "version: 0.31");
    for (conf, word) in [(older.as_bytes(), "0.31"), (b"garbage and more", "damaged"), (b"", "damaged")] {
        fs::write(source.join("conf"), conf).unwrap();
        says(&try_import(&source), &["cannot be imported", word, "sled 0.34"]);
    }
    fs::write(source.join("conf"), conf).unwrap();
    assert!(users.is_empty().unwrap());
    let imported = import(&source).tree("people").as_encoded(&users, key).unwrap();
    assert_eq!(imported.records, 3);
}

#[test]
fn while_it_runs_the_table_is_empty_and_not_written() {
    let scratch = Scratch::new("import-beside");
    let source = scratch.path().join("old");
    database(&source, "users", 20);
    let store = memory();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let beside = |bytes: &[u8]| {
        assert!(users.is_empty().unwrap());
        let e = users.put(&1, &name(1)).unwrap_err();
        says(&e, &["table users", "being filled"]);
        says(&import(&source).as_encoded(&users, key).unwrap_err(), &["open"]);
        // What others do meanwhile is not disturbed, and does not sweep what is being filled.
        store.table::<u64, UserV1>(&format!("other {}", bytes[7])).unwrap();
        key(bytes)
    };
    assert_eq!(import(&source).as_encoded(&users, beside).unwrap().records, 20);
    assert_eq!(users.len().unwrap(), 20);

    // A migration that begins meanwhile wins, and nothing of the import is seen.
    let more: Table<u64, UserV1> = store.table("more").unwrap();
    let more2: Table<u64, UserV2> = store.table("more").unwrap();
    let e = import(&source).as_encoded(&more, |bytes| {
        if bytes[7] == 5 {
            store.plan("split").table(&more2).begin().unwrap();
            more.put(&1000, &name(1000)).unwrap();
        }
        key(bytes)
    });
    says(&e.unwrap_err(), &["table more", "migration split is open", "cannot be filled"]);
    assert_eq!(all(&more), [(1000, name(1000))].into());
    drop(new);
}

/// A process that is killed while it imports leaves an empty table, or a whole one.
#[test]
fn a_killed_import_leaves_all_or_nothing() {
    const RECORDS: u64 = 3000;
    let test = "tools::import::a_killed_import_leaves_all_or_nothing";
    if let Some(root) = child_argument() {
        let root = Path::new(&root);
        let store = Store::open(root.join("store")).unwrap();
        let users: Table<u64, UserV1> = store.table("users").unwrap();
        println!("\nimporting");
        let stop: u64 = std::env::var("EXUVIA_TEST_STOP").unwrap().parse().unwrap();
        import(&root.join("old"))
            .as_encoded(&users, |bytes| {
                if key(bytes)? == stop {
                    std::process::abort();
                }
                key(bytes)
            })
            .unwrap();
        std::process::abort();
    }
    for stop in [0, 1500, RECORDS - 1, RECORDS] {
        let scratch = Scratch::new("import-killed");
        database(&scratch.path().join("old"), "users", RECORDS);
        let mut killed = child(test, scratch.path().to_str().unwrap());
        let status = killed.env("EXUVIA_TEST_STOP", stop.to_string()).stderr(Stdio::null()).status().unwrap();
        assert!(!status.success());
        let store = Store::open(scratch.path().join("store")).unwrap();
        let users: Table<u64, UserV1> = store.table("users").unwrap();
        let whole = stop == RECORDS;
        assert_eq!(users.len().unwrap(), if whole { RECORDS } else { 0 }, "killed at {stop}");
        until("the sweep", || !store.is_sweeping());
        assert!(store.verify().unwrap().is_clean());
        if !whole {
            let again = import(&scratch.path().join("old")).as_encoded(&users, key).unwrap();
            assert_eq!((again.records, users.len().unwrap()), (RECORDS, RECORDS));
        }
    }
}
