//! Administration of tables: rename, drop, clear.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use exuvia::engine::MemoryEngine;
use exuvia::{Error, Result, Store, Table};

use crate::kit::hook_engine::{Call, HookEngine};
use crate::kit::scene::*;
use crate::kit::types::*;

fn reopened(engine: &MemoryEngine) -> Store {
    open(&HookEngine::new(engine.clone()))
}

fn is_dropped<T: std::fmt::Debug>(result: Result<T>) {
    assert!(matches!(&result, Err(Error::Dropped { .. })), "{result:?}");
}

#[test]
fn handles_follow_a_renamed_table() {
    let s = scene(5);
    s.store.rename_table("users", "people").unwrap();
    assert_eq!(s.store.tables(), ["people"]);
    assert_eq!(s.old.name(), "people");
    assert_eq!(s.old.get(&3).unwrap(), Some(first(3)));
    s.old.put(&7, &first(7)).unwrap();
    let again: Table<u64, UserV1> = s.store.table("people").unwrap();
    assert_eq!(again.len().unwrap(), 6);
    // A new table of the old name shares nothing with it.
    let other: Table<u64, UserV2> = s.store.table("users").unwrap();
    assert!(other.is_empty().unwrap());
    other.put(&1, &v2("Eve", "E", 1, None)).unwrap();
    assert_eq!(again.get(&1).unwrap(), Some(first(1)));
    // A migration that is begun by an old handle finds the table by its new name.
    let migration = s.begin();
    complete(&migration);
    assert_eq!(migration.status().unwrap().tables[0].table, "people");
    s.contract(&migration);
    assert_eq!(s.new.get(&7).unwrap(), Some(first2(7)));
    let refused = s.old.get(&7).unwrap_err().to_string();
    assert!(refused.contains("table people"), "{refused}");
    s.swept();
    assert!(s.store.verify().unwrap().is_clean());
    assert!(s.ledger().contains(&"rename table".to_owned()));
    s.store.flush().unwrap();
    let store = reopened(&s.engine.inner().crash_image(|_| false));
    assert_eq!(store.tables(), ["people", "users"]);
    assert_eq!(store.table::<u64, UserV2>("people").unwrap().len().unwrap(), 6);
}

#[test]
fn a_rename_is_refused_where_it_makes_no_sense() {
    let s = scene(1);
    let _other: Table<u64, UserV1> = s.store.table("other").unwrap();
    for (from, to, says) in [
        ("users", "other", "there is a table of this name already"),
        ("users", "users", "there is a table of this name already"),
        ("nobody", "somebody", "there is no table of this name"),
        ("users", "", "1 to 256 bytes"),
    ] {
        let refused = s.store.rename_table(from, to).unwrap_err();
        assert!(matches!(refused, Error::State { .. }), "{refused:?}");
        assert!(refused.to_string().contains(says), "{refused}");
    }
    assert!(s.store.drop_table("nobody").is_err());
    assert_eq!(s.store.tables(), ["other", "users"]);
}

#[test]
fn handles_of_a_dropped_table_say_so_for_good() {
    let s = scene(40);
    let mut scan = s.old.scan(..);
    scan.next().unwrap().unwrap();
    s.store.drop_table("users").unwrap();
    assert!(s.store.tables().is_empty());
    let check = || {
        is_dropped(s.old.get(&1));
        is_dropped(s.new.get(&1));
        is_dropped(s.old.put(&1, &first(1)));
        is_dropped(s.old.remove(&1));
        is_dropped(s.old.len());
        is_dropped(s.old.clear());
        is_dropped(s.store.plan("m").table(&s.new).begin().map(|_| ()));
    };
    check();
    // What the scan had read is answered; then comes the error, and never an end.
    is_dropped(scan.find(|next| next.is_err()).unwrap());
    let new: Table<u64, UserV2> = s.store.table("users").unwrap();
    assert!(new.is_empty().unwrap());
    new.put(&1, &v2("Eve", "E", 1, None)).unwrap();
    check();
    s.swept();
    assert_eq!(new.len().unwrap(), 1);
    // Ids are never used again.
    assert_eq!(s.engine.record_trees(), ["3/4"]);
    assert!(s.store.verify().unwrap().is_clean());
    let store = reopened(&s.engine.inner().crash_image(|_| true));
    assert_eq!(store.table::<u64, UserV2>("users").unwrap().len().unwrap(), 1);
}

#[test]
fn a_cleared_table_is_empty_at_a_cost_that_does_not_depend_on_its_size() {
    let cost = |count| {
        let s = scene(count);
        let (calls, caller) = (Arc::new(AtomicU64::new(0)), thread::current().id());
        let counted = Arc::clone(&calls);
        // Of this thread only: the sweep, which may be at work already, pays by the record.
        s.engine.watch(move |_, _| {
            let is_callers = thread::current().id() == caller;
            counted.fetch_add(u64::from(is_callers), Ordering::SeqCst);
        });
        s.old.clear().unwrap();
        assert!(s.old.is_empty().unwrap() && s.new.is_empty().unwrap());
        s.old.put(&7, &first(7)).unwrap();
        s.engine.unwatch();
        s.swept();
        assert_eq!(s.engine.record_trees(), ["1/3"]);
        assert_eq!(s.all_new().into_keys().collect::<Vec<_>>(), [7]);
        assert!(s.store.verify().unwrap().is_clean());
        let store = reopened(&s.engine.inner().crash_image(|_| true));
        assert_eq!(store.table::<u64, UserV1>("users").unwrap().len().unwrap(), 1);
        calls.load(Ordering::SeqCst)
    };
    let few = cost(1);
    assert!(few > 0);
    assert_eq!(few, cost(3000));
}

#[test]
fn an_open_migration_refuses_administration_and_names_itself() {
    let s = scene(3);
    let migration = s.begin();
    let check = || {
        let refusals = [s.store.rename_table("users", "people"), s.store.drop_table("users"), s.old.clear()];
        for refused in refusals.map(Result::unwrap_err) {
            assert!(matches!(refused, Error::State { .. }), "{refused:?}");
            assert!(refused.to_string().contains("migration split is open"), "{refused}");
        }
        assert_eq!(s.all_old().len(), 3);
    };
    check();
    complete(&migration);
    check();
    migration.rollback().unwrap();
    check();
    migration.resume().unwrap();
    complete(&migration);
    s.contract(&migration);
    s.new.clear().unwrap();
    s.store.rename_table("users", "people").unwrap();
    s.store.drop_table("people").unwrap();
}

/// A verb, a name for it, and what the store holds after it: tables and their records.
type Verb = (&'static str, fn(&Scene) -> Result<()>, &'static [(&'static str, u64)]);

const VERBS: [Verb; 3] = [
    ("rename", |s| s.store.rename_table("users", "people"), &[("people", 8)]),
    ("drop", |s| s.store.drop_table("users"), &[]),
    ("clear", |s| s.old.clear(), &[("users", 0)]),
];

#[test]
fn a_crash_at_any_call_leaves_the_state_before_or_after() {
    for (name, verb, after) in VERBS {
        let mut nth = 1;
        loop {
            let s = scene(8);
            s.store.flush().unwrap();
            s.engine.die_at(nth);
            let result = verb(&s);
            let ended = s.engine.clear() > 0;
            s.engine.die();
            for keep in [|_| false, |_| true, |n: usize| n.is_multiple_of(2)] {
                let store = reopened(&s.engine.inner().crash_image(keep));
                let found: Vec<(String, u64)> = store
                    .tables()
                    .into_iter()
                    .map(|table| {
                        let count = store.table::<u64, UserV1>(&table).unwrap().len().unwrap();
                        (table, count)
                    })
                    .collect();
                let is = |expected: &[(&str, u64)]| {
                    found.iter().map(|(name, count)| (name.as_str(), *count)).eq(expected.iter().copied())
                };
                let fits = is(after) || (result.is_err() && is(&[("users", 8)]));
                assert!(fits, "{name}, death at call {nth}: {result:?}, then {found:?}");
                until("the sweep", || !store.is_sweeping());
                assert!(store.verify().unwrap().is_clean(), "{name}, {nth}");
            }
            if ended {
                result.unwrap();
                break;
            }
            nth += 1;
            assert!(nth < 100);
        }
        assert!(nth > 3, "{name} makes more calls than that");
    }
}

#[test]
fn a_write_beside_a_clear_lands_before_or_after_it() {
    // At the engine's door with the old route when the table is cleared: it goes with the old records.
    let s = scene(3);
    let (cleared, store) = (Arc::new(AtomicBool::new(false)), s.old.clone());
    let (done, begun) = (Arc::clone(&cleared), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&begun);
    let clearing = std::thread::spawn({
        move || {
            until("the writer", || flag.load(Ordering::SeqCst));
            store.clear().unwrap();
            done.store(true, Ordering::SeqCst);
        }
    });
    let (engine, seen) = (s.engine.clone(), Arc::clone(&cleared));
    s.engine.before_key(Call::Put, BASE, 9, move || {
        begun.store(true, Ordering::SeqCst);
        until("the clear's commit", || engine.count(Call::Cas, CATALOG) > 0);
        assert!(!seen.load(Ordering::SeqCst), "the flip waits for the write");
    });
    s.engine.reset();
    s.old.put(&9, &first(9)).unwrap();
    clearing.join().unwrap();
    assert!(s.old.is_empty().unwrap());
    // Encoded by the old route, and not yet at the gate: it starts again and is kept.
    let s = scene(3);
    let table = s.old.clone();
    s.engine.after(Call::Get, BASE, 1, move || table.clear().unwrap());
    assert_eq!(s.old.get(&1).unwrap(), None, "a read starts again as well");
    s.old.put(&1, &first(1)).unwrap();
    assert_eq!(s.old.len().unwrap(), 1);
}

#[test]
fn no_acknowledged_write_after_a_clear_is_lost() {
    let s = scene(0);
    let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let (table, next, stop) = (s.old.clone(), Arc::clone(&next), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let id = next.fetch_add(1, Ordering::SeqCst);
                    table.put(&id, &first(id)).unwrap();
                }
            })
        })
        .collect();
    let mut kept_from = 0;
    for _ in 0..20 {
        let goal = next.load(Ordering::SeqCst) + 50;
        until("writes", || next.load(Ordering::SeqCst) > goal);
        s.old.clear().unwrap();
        // Every id from here on is taken after the clear.
        kept_from = next.load(Ordering::SeqCst);
    }
    stop.store(true, Ordering::SeqCst);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let kept = s.all_old();
    for id in kept_from..next.load(Ordering::SeqCst) {
        assert!(kept.contains_key(&id), "{id}");
    }
}

#[test]
fn makers_and_droppers_of_one_name_agree() {
    let s = scene(0);
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let store = s.store.clone();
            std::thread::spawn(move || {
                for round in 0..50_u64 {
                    let table: Table<u64, UserV1> = store.table("shared").unwrap();
                    match table.put(&round, &first(round)) {
                        Ok(()) | Err(Error::Dropped { .. }) => {}
                        Err(e) => panic!("{e:?}"),
                    }
                    if thread == 0 {
                        match store.drop_table("shared") {
                            Ok(()) | Err(Error::State { .. }) => {}
                            Err(e) => panic!("{e:?}"),
                        }
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let table: Table<u64, UserV1> = s.store.table("shared").unwrap();
    table.put(&1000, &first(1000)).unwrap();
    assert_eq!(table.get(&1000).unwrap(), Some(first(1000)));
    s.swept();
    assert!(s.store.verify().unwrap().is_clean());
}
