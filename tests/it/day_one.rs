//! What a user expects on day one: plain types, bulk load, read-only open, pages, figures of space, handles.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::{
    CastError, Error, Migration, NewWrites, Origin, Plain, Plan, Result, Scan, Store, Table, Version,
};
use serde::{Deserialize, Serialize};

use crate::hook_engine::{Call, HookEngine};
use crate::scene::*;
use crate::scratch::Scratch;
use crate::types::*;

#[test]
fn handles_are_cloned_and_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + Sync + 'static>() {}
    shared::<Store>();
    shared::<Table<u64, UserV1>>();
    // A key or record that cannot be shared itself makes no difference to the handle.
    shared::<Table<String, Plain<Vec<u8>>>>();
    shared::<Migration>();
    sent::<Scan<u64, UserV1>>();
    sent::<Plan>();
    sent::<Error>();
}

/// The same record three times: without a lineage, with one, and the version after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    text: String,
    tags: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct NoteV1 {
    text: String,
    tags: Vec<String>,
}

impl Version for NoteV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct NoteV2 {
    text: String,
    tags: Vec<String>,
    stars: u8,
}

impl Version for NoteV2 {
    const VERSION: u32 = 2;
    type Previous = Plain<Note>;

    fn upcast(old: Plain<Note>) -> Result<Self, CastError> {
        let Note { text, tags } = old.into_inner();
        Ok(NoteV2 { text, tags, stars: 0 })
    }

    fn downcast(&self, _last: Option<Plain<Note>>) -> Result<Plain<Note>, CastError> {
        Ok(Plain(Note { text: self.text.clone(), tags: self.tags.clone() }))
    }
}

fn note(text: &str) -> Note {
    Note { text: text.to_owned(), tags: vec!["a".to_owned()] }
}

#[test]
fn a_plain_type_leaves_no_trace_in_the_store() {
    let engine = MemoryEngine::new();
    let store = open(&HookEngine::new(engine));
    let plain: Table<u64, Plain<Note>> = store.table("notes").unwrap();
    plain.put(&1, &note("one").into()).unwrap();
    assert_eq!(plain.get(&1).unwrap().unwrap().text, "one");
    // The same table by a version of one's own: same bytes, same shape.
    let own: Table<u64, NoteV1> = store.table("notes").unwrap();
    assert_eq!(own.get(&1).unwrap().unwrap().text, "one");
    own.put(&2, &NoteV1 { text: "two".into(), tags: vec![] }).unwrap();
    assert_eq!(plain.get(&2).unwrap(), Some(Plain(Note { text: "two".into(), tags: vec![] })));
    let mut bytes = (Vec::new(), Vec::new());
    Plain(note("x")).encode(&mut bytes.0).unwrap();
    NoteV1 { text: "x".into(), tags: vec!["a".into()] }.encode(&mut bytes.1).unwrap();
    assert_eq!(bytes.0, bytes.1);
    // And a migration from it.
    let new: Table<u64, NoteV2> = store.table("notes").unwrap();
    let migration = store.migration("stars").table(&new).paused().begin().unwrap();
    new.put(&3, &NoteV2 { text: "three".into(), tags: vec![], stars: 3 }).unwrap();
    complete(&migration);
    migration.rollback().unwrap();
    assert_eq!(plain.get(&3).unwrap().unwrap().into_inner().text, "three");
    migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
    assert_eq!(plain.len().unwrap(), 3);
    // Another type is refused, as ever.
    assert!(matches!(store.table::<u64, Plain<u32>>("notes"), Err(Error::Shape { .. })));
}

fn records(ids: impl Iterator<Item = u64>) -> impl Iterator<Item = (u64, UserV1)> {
    ids.map(|id| (id, first(id)))
}

#[test]
fn a_bulk_load_fills_an_empty_table_by_one_commit() {
    let s = scene(0);
    s.engine.reset();
    assert_eq!(s.old.bulk_load(records(0..3000)).unwrap(), 3000);
    assert_eq!(s.engine.count(Call::Cas, CATALOG), 1);
    s.check_scans_agree(0..3000);
    s.swept();
    assert_eq!(s.engine.record_trees(), ["1/3"]);
    assert!(s.store.verify().unwrap().is_clean());
    assert_eq!(s.ledger().last().unwrap(), "bulk load");
    // Durable without a flush of one's own.
    let store = open(&HookEngine::new(s.engine.inner().crash_image(|_| false)));
    assert_eq!(store.table::<u64, UserV1>("users").unwrap().len().unwrap(), 3000);
    // Only in the version that the table is written in.
    s.old.clear().unwrap();
    let refused = s.new.bulk_load([(1, first2(1))]).unwrap_err();
    assert!(matches!(refused, Error::Version { .. }), "{refused:?}");
    s.old.clear().unwrap();
    assert_eq!(s.old.bulk_load([]).unwrap(), 0);
    assert!(s.old.is_empty().unwrap());
}

#[test]
fn a_bulk_load_that_is_refused_changes_nothing() {
    let s = scene(0);
    let migration = |s: &Scene| {
        let migration = s.begin();
        let refused = s.old.bulk_load(records(0..3)).unwrap_err();
        assert!(refused.to_string().contains("a migration of it is open"), "{refused}");
        migration.rollback().unwrap();
        migration.abandon(NewWrites::Discard).unwrap().execute().unwrap();
    };
    let out_of_order = records([1, 2, 5, 4].into_iter());
    let twice = records([1, 2, 2].into_iter());
    let invalid = records(0..300).chain([(300, v1("Too Old", 201))]);
    for (refused, says) in [
        (s.old.bulk_load(out_of_order).unwrap_err(), "out of order"),
        (s.old.bulk_load(twice).unwrap_err(), "twice"),
        (s.old.bulk_load(invalid).unwrap_err(), "nobody is older than 200"),
    ] {
        assert!(refused.to_string().contains(says), "{refused}");
        assert!(s.old.is_empty().unwrap());
    }
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        s.old.bulk_load(records(0..10).inspect(|(id, _)| assert!(*id < 5)))
    }));
    assert!(panicked.is_err());
    // The fence is down again each time, and the trees are swept.
    s.old.put(&1, &first(1)).unwrap();
    assert!(s.old.bulk_load(records(5..9)).unwrap_err().to_string().contains("it is not empty"));
    s.old.remove(&1).unwrap();
    migration(&s);
    s.swept();
    assert_eq!(s.engine.record_trees().len(), 1);
    assert_eq!(s.old.bulk_load(records(0..3)).unwrap(), 3);
}

#[test]
fn a_tree_that_was_made_for_a_load_and_not_opened_is_swept() {
    let s = scene(0);
    s.engine.fail_after(Call::Open, "1/3", 1);
    let failed = s.old.bulk_load(records(0..3)).unwrap_err();
    assert!(matches!(failed, Error::Engine { .. }), "{failed:?}");
    s.swept();
    assert_eq!(s.engine.record_trees(), [BASE]);
    assert_eq!(s.old.bulk_load(records(0..3)).unwrap(), 3);
}

#[test]
fn others_beside_a_bulk_load_are_refused_or_make_it_fail() {
    let s = scene(0);
    let (old, store) = (s.old.clone(), s.store.clone());
    s.old
        .bulk_load(records(0..300).inspect(move |(id, _)| {
            assert_eq!(old.get(id).unwrap(), None, "readers go on, and find nothing");
            let refused = old.put(&7, &first(7)).unwrap_err();
            assert!(refused.to_string().contains("it is being filled"), "{refused}");
            assert!(old.remove(&7).is_err());
            let second = old.bulk_load([]).unwrap_err();
            assert!(second.to_string().contains("another caller fills it"), "{second}");
            if *id == 100 {
                // A sweep takes the tree for nobody's if nobody tells it.
                let other: Table<u64, UserV1> = store.table("other").unwrap();
                other.clear().unwrap();
                until("the sweep", || !store.is_sweeping());
                store.rename_table("users", "people").unwrap();
            }
        }))
        .unwrap();
    assert_eq!(s.old.len().unwrap(), 300);
    assert_eq!(s.old.name(), "people");
    s.old.clear().unwrap();
    // Another verb takes the fence away: then the load fails, and what was written beside it stays.
    let old = s.old.clone();
    let failed = s.old.bulk_load(records(0..300).inspect(move |(id, _)| {
        if *id == 100 {
            old.clear().unwrap();
            old.put(&7, &first(7)).unwrap();
        }
    }));
    assert!(matches!(failed, Err(Error::Conflict { .. })), "{failed:?}");
    assert_eq!(s.all_old().into_keys().collect::<Vec<_>>(), [7]);
    s.old.clear().unwrap();
    let store = s.store.clone();
    let failed = s.old.bulk_load(records(0..300).inspect(move |(id, _)| {
        if *id == 100 {
            store.drop_table("people").unwrap();
        }
    }));
    assert!(matches!(failed, Err(Error::Dropped { .. })), "{failed:?}");
    s.swept();
    assert_eq!(s.engine.record_trees().len(), 1, "the other table's");
}

#[test]
fn a_crash_in_a_bulk_load_leaves_the_table_empty_or_whole() {
    let mut nth = 1;
    let mut whole = 0;
    loop {
        let s = scene(0);
        s.store.flush().unwrap();
        s.engine.die_at(nth);
        let result = s.old.bulk_load(records(0..20));
        let ended = s.engine.clear() > 0;
        s.engine.die();
        for keep in [|_| false, |_| true, |n: usize| n.is_multiple_of(2)] {
            let engine = HookEngine::new(s.engine.inner().crash_image(keep));
            let store = open(&engine);
            let found = store.table::<u64, UserV1>("users").unwrap().len().unwrap();
            assert!(found == 20 || (found == 0 && result.is_err()), "call {nth}: {result:?}, {found}");
            whole += u32::from(found == 20 && result.is_err());
            until("the sweep", || !store.is_sweeping());
            assert_eq!(engine.record_trees().len(), 1);
            assert!(store.verify().unwrap().is_clean());
        }
        if ended {
            result.unwrap();
            break;
        }
        nth += 1;
        assert!(nth < 200);
    }
    assert!(nth > 20 && whole > 0);
}

#[test]
fn a_read_only_store_refuses_every_write_and_every_verb() {
    let s = scene(20);
    let migration = s.begin();
    migration.step(5).unwrap();
    s.new.put(&100, &v2("New", "N", 1, Some("n@x"))).unwrap();
    s.store.flush().unwrap();
    let engine = HookEngine::new(s.engine.inner().crash_image(|_| true));
    let store = options().read_only(true).open_in(Arc::new(engine.clone())).unwrap();
    let (old, new): (Table<u64, UserV1>, Table<u64, UserV2>) =
        (store.table("users").unwrap(), store.table("users").unwrap());
    assert_eq!((old.len().unwrap(), new.len().unwrap()), (21, 21));
    assert_eq!(new.get(&100).unwrap(), s.new.get(&100).unwrap());
    let migration = store.open_migration("split").unwrap();
    assert_eq!(store.migrations().unwrap().len(), 1);
    let refusals: Vec<(&str, Result<()>)> = vec![
        ("put", old.put(&1, &first(1))),
        ("put at to", new.put(&1, &first2(1))),
        ("remove", old.remove(&1)),
        ("clear", old.clear()),
        ("bulk load", old.bulk_load([]).map(|_| ())),
        ("rename", store.rename_table("users", "people")),
        ("drop", store.drop_table("users")),
        ("begin", store.migration("m").table(&new).begin().map(|_| ())),
        ("pause", migration.pause()),
        ("unpause", migration.unpause()),
        ("step", migration.step(1).map(|_| ())),
        ("restart", migration.restart()),
        ("rollback", migration.rollback()),
        ("resume", migration.resume()),
        ("contract", migration.contract().map(|_| ())),
        ("abandon", migration.abandon(NewWrites::Keep).map(|_| ())),
    ];
    for (what, refused) in refusals {
        assert!(matches!(refused, Err(Error::ReadOnly)), "{what}: {refused:?}");
    }
    let made = store.table::<u64, UserV1>("new").unwrap_err();
    assert!(made.to_string().contains("read-only"), "{made}");
    assert!(store.verify().unwrap().is_clean());
    store.inventory().unwrap();
    store.ledger().unwrap();
    store.flush().unwrap();
    store.close().unwrap();
    assert_eq!(engine.writes("*"), 0);
    assert_eq!(engine.count(Call::Flush, "*") + engine.count(Call::Flush, ""), 0);
    let empty = options().read_only(true).open_in(Arc::new(MemoryEngine::new()));
    assert!(empty.is_err(), "nothing is made where there is nothing");
}

#[test]
fn a_read_only_open_of_a_directory_makes_nothing() {
    let scratch = Scratch::new("read-only");
    let place = scratch.path().join("store");
    let refused = Store::options().read_only(true).open(&place).unwrap_err();
    assert!(matches!(refused, Error::Path { .. }), "{refused:?}");
    assert!(!place.exists());
    let store = Store::open(&place).unwrap();
    store.table::<u64, UserV1>("users").unwrap().put(&1, &first(1)).unwrap();
    store.close().unwrap();
    let store = Store::options().read_only(true).open(&place).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    assert_eq!(users.get(&1).unwrap(), Some(first(1)));
    assert!(matches!(users.put(&2, &first(2)), Err(Error::ReadOnly)));
    assert!(matches!(Store::open(&place), Err(Error::Locked { .. })));
    let space = store.space().unwrap();
    assert!(space.bytes_on_disk > 0);
    assert!(cfg!(not(unix)) || space.bytes_free.unwrap() > 0);
}

fn poisoned(ids: std::ops::Range<u64>) -> Scene {
    let s = scene(10);
    for id in ids {
        s.old.put(&id, &v1("Alone", 5)).unwrap();
    }
    s
}

#[test]
fn the_quarantine_is_listed_with_reasons_and_what_was_repaired_is_not() {
    let s = poisoned(100..900);
    assert_eq!(s.new.quarantined().count(), 0, "no migration is open");
    let migration = s.begin();
    complete(&migration);
    let listed = || s.new.quarantined().map(Result::unwrap).collect::<Vec<_>>();
    let all = listed();
    assert_eq!(all.iter().map(|(id, _)| *id).collect::<Vec<_>>(), (100..900).collect::<Vec<_>>());
    assert!(all.iter().all(|(_, reason)| reason.contains("has no last name")));
    s.new.put(&100, &first2(100)).unwrap();
    s.old.put(&101, &first(101)).unwrap();
    s.old.remove(&102).unwrap();
    s.new.put(&899, &first2(899)).unwrap();
    assert_eq!(listed().iter().map(|(id, _)| *id).collect::<Vec<_>>(), (103..899).collect::<Vec<_>>());
    // At either view, and while rolled back.
    migration.rollback().unwrap();
    assert_eq!(s.old.quarantined().count(), 796);
    s.engine.fail(Call::Scan, "quarantine/users", 2);
    let broken: Vec<_> = s.old.quarantined().collect();
    // A page of 256, of which three are repaired; then the error, and nothing more.
    assert!(broken.last().unwrap().is_err());
    assert_eq!(broken.len(), 256 - 3 + 1);
}

#[test]
fn stale_entries_of_the_quarantine_go_when_there_is_nothing_else_to_do() {
    let s = poisoned(100..900);
    let migration = s.begin();
    complete(&migration);
    for id in (100..900).filter(|id| id % 2 == 0) {
        s.new.put(&id, &first2(id)).unwrap();
    }
    let entries = || s.engine.dump("quarantine/users").len();
    assert_eq!(entries(), 800);
    // A step looks at one page, whatever the quarantine's size.
    s.engine.reset();
    migration.step(1).unwrap();
    assert!(s.engine.count(Call::Scan, "quarantine/users") <= 1);
    assert!(entries() >= 800 - 256);
    for _ in 0..8 {
        migration.step(1).unwrap();
    }
    assert_eq!(entries(), 400);
    assert_eq!(s.new.quarantined().count(), 400);
    // What is in quarantine keeps its reason.
    let reason = s.new.get(&101).unwrap_err().to_string();
    assert!(reason.contains("has no last name"), "{reason}");
    // The worker does the same by itself.
    for id in 100..900 {
        s.new.put(&id, &first2(id)).unwrap();
    }
    migration.unpause().unwrap();
    until("the worker tidies up", || entries() == 0);
    s.contract(&migration);
}

#[test]
fn pages_by_key_give_every_record_once() {
    let s = scene(100);
    let migration = s.begin();
    migration.step(50).unwrap();
    let mut seen = BTreeMap::new();
    let mut after = Unbounded;
    loop {
        let page: Vec<(u64, UserV1)> = s.old.scan((after, Unbounded)).take(7).collect::<Result<_>>().unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Excluded(*last);
        for (id, user) in page {
            assert!(seen.insert(id, user).is_none());
        }
    }
    assert_eq!(seen, s.all_old());
}

#[test]
fn prefixes_of_strings_bytes_and_tuples() {
    let store = open(&HookEngine::new(MemoryEngine::new()));
    let words: Table<String, Plain<u8>> = store.table("words").unwrap();
    let bytes: Table<Vec<u8>, Plain<u8>> = store.table("bytes").unwrap();
    let pairs: Table<(String, u32), Plain<u8>> = store.table("pairs").unwrap();
    for word in ["", "n", "no", "nob", "np", "o", "no\0", "\u{10ffff}"] {
        words.put(&word.to_owned(), &Plain(0)).unwrap();
        bytes.put(&word.as_bytes().to_vec(), &Plain(0)).unwrap();
        pairs.put(&(word.to_owned(), 1), &Plain(0)).unwrap();
        pairs.put(&(word.to_owned(), 2), &Plain(0)).unwrap();
    }
    bytes.put(&vec![0xff, 0xff], &Plain(0)).unwrap();
    let found: Vec<String> = words.scan_prefix("no").map(|next| next.unwrap().0).collect();
    assert_eq!(found, ["no", "no\0", "nob"]);
    let found: Vec<Vec<u8>> = bytes.scan_prefix(&b"no"[..]).map(|next| next.unwrap().0).collect();
    assert_eq!(found, [&b"no"[..], b"no\0", b"nob"]);
    assert_eq!(bytes.scan_prefix(&[0xff_u8][..]).count(), 1);
    let found: Vec<u32> = pairs.scan_prefix(&("no".to_owned(),)).map(|next| next.unwrap().0.1).collect();
    assert_eq!(found, [1, 2]);
    assert_eq!(words.scan_prefix("").count(), 8);
}

#[test]
fn the_inventory_counts_records_and_bytes() {
    let s = scene(10);
    let before = s.store.inventory().unwrap().remove(0);
    let expected: usize = (0..10).map(|id| 8 + bytes(&first(id)).len() + 6).sum();
    assert_eq!((before.records[&1], before.bytes), (10, expected as u64));
    let space = s.store.space().unwrap();
    assert!(space.bytes_on_disk >= before.bytes);
    assert_eq!(space.bytes_free, None);
}
