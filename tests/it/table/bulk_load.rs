//! Bulk loads: an empty table is filled by one state change, or not at all.

use exuvia::migration::NewWrites;
use exuvia::{Error, Table};

use crate::kit::hook_engine::{Call, HookEngine};
use crate::kit::scene::*;
use crate::kit::types::*;

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
