//! No argument of a call can harm a store: every call, with keys, values and names of every length around each limit.
//!
//! A key over the limit cannot be there, so reads say that it is absent, and a range goes by the order also where its
//! bounds are longer than any key. Writes say `Limit`. After each call the store answers as before.

use std::collections::BTreeMap;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::RangeBounds;
use std::sync::Arc;

use exuvia::engine::{Engine, MemoryEngine, Outcome, Page, Tree};
use exuvia::engine::{EngineError, EngineErrorKind};
use exuvia::migration::NewWrites;
use exuvia::{Error, Store, Table, Version};

use crate::kit::kinds::kinds;
use crate::kit::scratch::Scratch;
use crate::kit::trees::{check, get, on_disk, pages, write};
use crate::kit::types::*;

/// Every engine of this binary, in a directory of the test's own.
fn engines(scratch: &Scratch) -> Vec<Arc<dyn Engine>> {
    let memory: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    kinds().map(|kind| on_disk(kind, scratch)).chain([memory]).collect()
}

/// Lengths around every limit that there is anywhere: ours, and those of the engines' own formats.
fn lengths(limits: &[usize]) -> Vec<usize> {
    let own = [255, 2 << 10, 16 << 10, 64 << 10, 1 << 20];
    let around =
        own.iter().chain(limits.iter().filter(|limit| **limit < usize::MAX)).flat_map(|at| at - 1..=at + 1);
    let mut all: Vec<usize> = around.chain([0, 1]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn is_limit<T: std::fmt::Debug>(what: &str, result: Result<T, EngineError>) {
    let error = result.expect_err(what);
    assert_eq!(error.kind(), EngineErrorKind::Limit, "{what}: {error}");
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys that lie next to every long one, as far as the engine takes them.
fn neighbours(engine: &dyn Engine, tree: &dyn Tree) -> Model {
    let longest = engine.capabilities().key_bytes_max.min(64 << 10);
    let mut model = Model::new();
    for byte in [0, b'k', 0xff] {
        for length in [1, 2, longest - 1, longest] {
            let mut key = vec![byte; length];
            model.insert(key.clone(), vec![1]);
            // One before it and one after it that differ at its end.
            if let Some(last) = key.last_mut() {
                *last = last.wrapping_add(1);
            }
            model.insert(key, vec![2]);
        }
    }
    model.insert(Vec::new(), vec![3]);
    model.iter().for_each(|(key, value)| tree.put(key, value).unwrap());
    model
}

#[test]
fn keys_of_every_length_in_every_call_of_every_engine() {
    let scratch = Scratch::new("arguments-keys");
    for engine in engines(&scratch) {
        let limit = engine.capabilities().key_bytes_max;
        let tree = engine.tree("t").unwrap();
        let model = neighbours(&*engine, &*tree);
        for length in lengths(&[limit]) {
            for byte in [0, b'k', 0xff] {
                let key = vec![byte; length];
                let what = format!("{}, a key of {length} times {byte:#x}", engine.name());
                reads(&*engine, &*tree, &model, &key, &what);
                if length > limit {
                    refused(&*engine, &*tree, &key, &what);
                } else {
                    written(&*engine, &*tree, &model, &key, &what);
                }
                assert!(
                    pages(&*tree, (Unbounded, Unbounded), false, 100).into_iter().eq(model.clone()),
                    "{what}"
                );
            }
        }
    }
}

fn reads(engine: &dyn Engine, tree: &dyn Tree, model: &Model, key: &[u8], what: &str) {
    let snapshot = engine.snapshot().unwrap();
    let expected = model.get(key).map(Vec::as_slice);
    assert_eq!(tree.get(key).expect(what).as_deref(), expected, "{what}");
    if let Some(snapshot) = &snapshot {
        assert_eq!(snapshot.get("t", key).expect(what).as_deref(), expected, "{what}");
        assert!(snapshot.get("none", key).expect(what).is_none(), "{what}");
    }
    let short = [0x6b, 0xff];
    let near = [Included(key), Excluded(key)];
    let far = [Unbounded, Included(&short[..]), Excluded(&short[..1]), Included(key), Excluded(key)];
    for range in near.iter().flat_map(|near| far.iter().flat_map(move |far| [(*near, *far), (*far, *near)])) {
        let (low, high): (Bound<&[u8]>, Bound<&[u8]>) = range;
        let inside = |key: &Vec<u8>| (low, high).contains(key.as_slice());
        let expected: Vec<&[u8]> = model.keys().filter(|key| inside(key)).map(Vec::as_slice).collect();
        for reverse in [false, true] {
            let mut read = Vec::new();
            let mut page = Page::new();
            assert!(tree.scan(range, reverse, 1000, &mut page).expect(what), "{what}");
            read.push(page);
            if let Some(snapshot) = &snapshot {
                let mut page = Page::new();
                assert!(snapshot.scan("t", range, reverse, 1000, &mut page).expect(what), "{what}");
                read.push(page);
            }
            for page in read {
                let mut found: Vec<&[u8]> = page.iter().map(|(key, _)| &**key).collect();
                if reverse {
                    found.reverse();
                }
                assert!(found == expected, "{what}: {} records and not {}", found.len(), expected.len());
            }
        }
    }
    // Checks without a write, and beside one.
    let absent = check("t", key, None);
    let is = |outcome: Result<Outcome, EngineError>| outcome.expect(what) == Outcome::Applied;
    assert_eq!(is(engine.commit(std::slice::from_ref(&absent), &[])), expected.is_none(), "{what}");
    assert!(!is(engine.commit(&[check("t", key, Some(b"else"))], &[])), "{what}");
    let pair = [write("u", b"a", Some(b"1")), write("u", b"b", Some(b"1"))];
    assert_eq!(is(engine.commit(&[absent], &pair)), expected.is_none(), "{what}");
    assert!(!is(engine.commit(&[check("t", key, Some(b"else"))], &pair)), "{what}");
    assert_eq!(is(engine.commit(&[check("t", key, None), check("t", b"x", None)], &[])), expected.is_none());
}

fn refused(engine: &dyn Engine, tree: &dyn Tree, key: &[u8], what: &str) {
    is_limit(what, tree.put(key, b"v"));
    is_limit(what, tree.delete(key));
    is_limit(what, tree.insert_if_absent(key, b"v"));
    for (old, new) in [(None, Some(&b"v"[..])), (Some(&b"v"[..]), None), (None, None)] {
        is_limit(what, tree.compare_and_swap(key, old, new));
    }
    for value in [None, Some(&b"v"[..])] {
        is_limit(what, engine.commit(&[], &[write("t", key, value)]));
        is_limit(what, engine.commit(&[check("t", key, None)], &[write("t", key, value)]));
        is_limit(what, engine.commit(&[], &[write("t", b"first", Some(b"v")), write("t", key, value)]));
    }
    assert_eq!(get(tree, b"first"), None, "{what}: half of a commit");
}

fn written(engine: &dyn Engine, tree: &dyn Tree, model: &Model, key: &[u8], what: &str) {
    tree.put(key, b"v").expect(what);
    assert_eq!(get(tree, key).unwrap(), b"v", "{what}");
    tree.delete(key).expect(what);
    assert!(tree.insert_if_absent(key, b"v").expect(what), "{what}");
    assert!(tree.compare_and_swap(key, Some(b"v"), Some(b"w")).expect(what), "{what}");
    let commit = engine.commit(&[check("t", key, Some(b"w"))], &[write("t", key, Some(b"x"))]);
    assert_eq!(commit.expect(what), Outcome::Applied, "{what}");
    let pair = [write("t", key, None), write("u", b"c", Some(b"1"))];
    assert_eq!(engine.commit(&[check("t", key, Some(b"x"))], &pair).expect(what), Outcome::Applied);
    assert_eq!(get(tree, key), None, "{what}");
    if let Some(value) = model.get(key) {
        tree.put(key, value).unwrap();
    }
}

#[test]
fn values_of_every_length_in_every_call_of_every_engine() {
    let scratch = Scratch::new("arguments-values");
    for engine in engines(&scratch) {
        let limits = engine.capabilities();
        let tree = engine.tree("t").unwrap();
        tree.put(b"there", b"v").unwrap();
        for length in lengths(&[limits.value_bytes_max, limits.commit_bytes_max.min(1 << 24)]) {
            let what = format!("{}, a value of {length}", engine.name());
            let value = vec![7; length];
            // What is compared may be of any length.
            assert!(!tree.compare_and_swap(b"there", Some(&value), None).expect(&what), "{what}");
            let conflict =
                engine.commit(&[check("t", b"there", Some(&value))], &[write("t", b"k", Some(b"v"))]);
            assert_eq!(conflict.expect(&what), Outcome::Conflict, "{what}");
            if length <= limits.value_bytes_max {
                tree.put(b"k", &value).expect(&what);
                assert!(tree.compare_and_swap(b"k", Some(&value), Some(&value)).expect(&what), "{what}");
                assert!(get(&*tree, b"k").unwrap() == value, "{what}");
                let pair = [write("t", b"k", Some(&value)), write("u", b"k", None)];
                let fits = length < limits.commit_bytes_max;
                assert_eq!(engine.commit(&[], &pair).is_ok(), fits, "{what}");
                tree.delete(b"k").expect(&what);
            } else {
                is_limit(&what, tree.put(b"k", &value));
                is_limit(&what, tree.insert_if_absent(b"k", &value));
                is_limit(&what, tree.compare_and_swap(b"there", Some(b"v"), Some(&value)));
                is_limit(&what, engine.commit(&[], &[write("t", b"k", Some(&value))]));
                let pair = [write("t", b"first", Some(b"v")), write("t", b"k", Some(&value))];
                is_limit(&what, engine.commit(&[], &pair));
            }
            assert!(
                pages(&*tree, (Unbounded, Unbounded), false, 9) == [(b"there".to_vec(), b"v".to_vec())],
                "{what}"
            );
        }
    }
}

/// The longest name of a tree; see `Engine::tree`.
const TREE_NAME_BYTES_MAX: usize = 1024;

#[test]
fn trees_of_every_length_of_name_in_every_call_of_every_engine() {
    let scratch = Scratch::new("arguments-trees");
    for engine in engines(&scratch) {
        engine.tree("t").unwrap().put(b"k", b"v").unwrap();
        for length in lengths(&[TREE_NAME_BYTES_MAX]) {
            let what = format!("{}, a tree whose name has {length} bytes", engine.name());
            let name = "n".repeat(length);
            let snapshot = engine.snapshot().unwrap();
            engine.drop_tree(&name).expect(&what);
            if let Some(snapshot) = &snapshot {
                assert!(snapshot.get(&name, b"k").expect(&what).is_none());
                assert!(
                    snapshot.scan(&name, (Unbounded, Unbounded), false, 9, &mut Page::new()).expect(&what)
                );
            }
            let pair = [write("t", b"other", Some(b"v")), write(&name, b"k", Some(b"v"))];
            if length <= TREE_NAME_BYTES_MAX {
                assert_eq!(engine.commit(&[], &pair).expect(&what), Outcome::Applied);
                assert_eq!(get(&*engine.tree(&name).expect(&what), b"k").unwrap(), b"v", "{what}");
                assert!(engine.trees().unwrap().contains(&name), "{what}");
                engine.drop_tree(&name).expect(&what);
            } else {
                is_limit(&what, engine.tree(&name).map(drop));
                is_limit(&what, engine.commit(&[], &pair));
                is_limit(&what, engine.commit(&[], &pair[1..]));
                is_limit(&what, engine.commit(&[check(&name, b"k", None)], &pair[..1]));
            }
            engine.tree("t").unwrap().delete(b"other").unwrap();
            let left = engine.trees().unwrap();
            assert!(left.iter().all(|tree| tree.len() <= 2), "{what}: {left:?}");
            assert_eq!(get(&*engine.tree("t").unwrap(), b"k").unwrap(), b"v", "{what}");
        }
    }
}

fn over<T: std::fmt::Debug>(what: &str, result: Result<T, Error>) {
    let error = result.expect_err(what);
    assert!(matches!(error, Error::Limit { .. }), "{what}: {error:?}");
}

/// Calls of a table with a key; `there`: whether the key may be.
fn typed_calls<V: Version + Clone + PartialEq + std::fmt::Debug>(
    store: &Store,
    table: &Table<String, V>,
    record: &V,
    key: &String,
    there: bool,
    what: &str,
) {
    let all = |table: &Table<String, V>| table.scan(..).map(|record| record.unwrap().0).collect::<Vec<_>>();
    let before = all(table);
    // What only reads.
    assert_eq!(table.get(key).expect(what), None, "{what}");
    let ordered = |range: (Bound<String>, Bound<String>)| {
        let expected: Vec<_> = before.iter().filter(|key| range.contains(*key)).cloned().collect();
        let found = |scan: exuvia::Scan<String, V>| scan.map(|record| record.unwrap().0).collect::<Vec<_>>();
        assert_eq!(found(table.scan(range.clone())), expected, "{what}");
        let mut backward: Vec<_> = table.scan(range.clone()).rev().map(|record| record.unwrap().0).collect();
        backward.reverse();
        assert_eq!(backward, expected, "{what}");
        if let Ok(snapshot) = store.snapshot() {
            assert_eq!(found(snapshot.scan(table, range).unwrap()), expected, "{what}");
            assert_eq!(snapshot.get(table, key).expect(what), None, "{what}");
        }
    };
    for near in [Included(key.clone()), Excluded(key.clone())] {
        ordered((near.clone(), Unbounded));
        ordered((Unbounded, near));
    }
    assert_eq!(table.scan_prefix(key.as_str()).count(), 0, "{what}");
    let two =
        store.transaction(|tx| Ok::<_, Error>((tx.get(table, key)?, tx.get(table, &"ada".to_owned())?)));
    assert!(matches!(two.expect(what), (None, Some(_))), "{what}");
    #[cfg(feature = "json")]
    {
        let rows = store.rows(&table.name(), None).unwrap();
        let json = serde_json::Value::from(key.as_str());
        assert!(rows.get(&json).expect(what).is_none(), "{what}");
        let ends = [rows.scan(Included(&json), Unbounded), rows.scan(Unbounded, Excluded(&json))];
        let found: usize = ends.map(|scan| scan.unwrap().filter(|row| row.is_ok()).count()).iter().sum();
        assert_eq!(found, before.len(), "{what}");
        assert_eq!(rows.scan_prefix(key).unwrap().count(), 0, "{what}");
    }
    assert!(!table.compare_and_swap(key, Some(record), None).expect(what), "{what}");
    // What writes.
    let mut batch = store.batch();
    batch.put(table, &"of a batch".to_owned(), record.clone());
    batch.put(table, key, record.clone());
    if there {
        table.put(key, record).expect(what);
        assert_eq!(table.get(key).expect(what).as_ref(), Some(record), "{what}");
        table.remove(key).expect(what);
        assert!(table.insert_if_absent(key, record).expect(what), "{what}");
        assert!(table.compare_and_swap(key, Some(record), None).expect(what), "{what}");
        batch.commit().expect(what);
        table.remove(key).expect(what);
        table.remove(&"of a batch".to_owned()).expect(what);
    } else {
        over(what, table.put(key, record));
        over(what, table.remove(key));
        over(what, table.insert_if_absent(key, record));
        over(what, table.update(key, |_| Some(record.clone())));
        over(what, table.compare_and_swap(key, None, Some(record)));
        over(what, batch.commit());
        let put = |tx: &mut exuvia::Transaction| {
            tx.put(table, &"of a transaction".to_owned(), record)?;
            tx.put(table, key, record)
        };
        over(what, store.transaction(put));
    }
    assert_eq!(all(table), before, "{what}");
}

fn stores(scratch: &Scratch) -> Vec<(&'static str, Store)> {
    let options = || Store::options().cache_bytes(16 << 20).free_bytes_min(0);
    let on_disk = kinds().map(|kind| {
        let path = scratch.path().join(format!("store-{}", kind.name()));
        (kind.name(), options().engine(kind).open(path).unwrap())
    });
    on_disk.chain([("memory", options().open_in(Arc::new(MemoryEngine::new())).unwrap())]).collect()
}

#[test]
fn keys_of_every_length_in_every_call_of_a_table() {
    let scratch = Scratch::new("arguments-typed");
    for (name, store) in stores(&scratch) {
        let limit = match name {
            "sled" => 2 << 10,
            "fjall" => 16 << 10,
            _ => usize::MAX,
        };
        let (old, new) = (v1("Ada Lovelace", 36), v2("Ada", "Lovelace", 36, None));
        let at_1: Table<String, UserV1> = store.table("users").unwrap();
        at_1.put(&"ada".to_owned(), &old).unwrap();
        at_1.put(&"zoe".to_owned(), &old).unwrap();
        let at_2: Table<String, UserV2> = store.table("users").unwrap();
        if limit < usize::MAX {
            let loaded: Table<String, UserV1> = store.table("loaded").unwrap();
            let records = ["a".to_owned(), "b".repeat(limit)].map(|key| (key, old.clone()));
            over("a bulk load", loaded.bulk_load(records));
            assert!(loaded.is_empty().unwrap());
        }
        for open in [false, true] {
            if open {
                let migration = store.plan("split").table(&at_2).begin().unwrap();
                migration.wait().unwrap();
            }
            for length in lengths(&[limit]).into_iter().filter(|length| *length > 0) {
                // The encoding of a string ends with two bytes.
                let there = length + 2 <= limit;
                for letter in ["A", "k", "\u{7f}"] {
                    let key = letter.repeat(length);
                    let what = format!("{name}, a key of {length} {letter:?}, open: {open}");
                    typed_calls(&store, &at_1, &old, &key, there, &what);
                    typed_calls(&store, &at_2, &new, &key, there, &what);
                }
            }
        }
    }
}

#[test]
fn names_and_texts_of_every_length_in_every_verb() {
    let scratch = Scratch::new("arguments-names");
    for (engine, store) in stores(&scratch) {
        let users: Table<String, UserV1> = store.table("users").unwrap();
        users.put(&"ada".to_owned(), &v1("Ada Lovelace", 36)).unwrap();
        let newer: Table<String, UserV2> = store.table("users").unwrap();
        let wrong = |what: &str, result: Result<(), Error>| {
            let error = result.expect_err(what);
            assert!(matches!(error, Error::State { .. }), "{what}: {error:?}");
        };
        for length in lengths(&[256, 1024]) {
            let what = format!("{engine}, a name of {length} bytes");
            let name = "n".repeat(length);
            wrong(&what, store.drop_table(&name));
            wrong(&what, store.migration(&name).map(drop));
            #[cfg(feature = "json")]
            wrong(&what, store.rows(&name, None).map(drop));
            let make = || store.table::<u64, UserV1>(&name).map(drop);
            let rename = || store.rename_table("users", &name);
            let begin = || store.plan(&name).table(&newer).begin();
            match length {
                0 => {
                    wrong(&what, make());
                    wrong(&what, rename());
                    wrong(&what, begin().map(drop));
                }
                1..=256 => {
                    make().expect(&what);
                    store.drop_table(&name).expect(&what);
                    rename().expect(&what);
                    store.rename_table(&name, "users").expect(&what);
                    let migration = begin().expect(&what);
                    migration.rollback().expect(&what);
                    migration.abandon(NewWrites::Discard).expect(&what).execute().expect(&what);
                }
                _ => {
                    over(&what, make());
                    over(&what, rename());
                    over(&what, begin());
                }
            }
            texts(&store, &newer, length, &what);
            assert_eq!(store.tables(), ["users"], "{what}");
            assert_eq!(newer.get(&"ada".to_owned()).unwrap(), Some(v2("Ada", "Lovelace", 36, None)));
        }
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

/// A reason and a name of so many bytes in every verb of a migration.
fn texts(store: &Store, newer: &Table<String, UserV2>, length: usize, what: &str) {
    let text = "t".repeat(length);
    let plan = || store.plan(&format!("of texts of {length}")).table(newer).paused();
    for (longest, with_text) in [(1024, true), (256, false)] {
        let begun = if with_text { plan().why(text.clone()) } else { plan().by(text.clone()) }.begin();
        if length > longest {
            over(what, begun);
        } else {
            let migration = begun.expect(what);
            migration.rollback().unwrap();
            migration.abandon(NewWrites::Discard).unwrap().execute().unwrap();
            return;
        }
    }
    let migration = plan().begin().expect(what);
    for said in [migration.clone().why(text.clone()), migration.clone().by(text)] {
        if length > 1024 {
            over(what, said.pause());
            over(what, said.unpause());
            over(what, said.restart());
            over(what, said.rollback());
            over(what, said.rollback_fenced());
            over(what, said.resume());
            over(what, said.step(1));
            over(what, said.contract());
            over(what, said.abandon(NewWrites::Keep));
        }
    }
    migration.rollback().expect(what);
    migration.abandon(NewWrites::Discard).unwrap().execute().unwrap();
}
