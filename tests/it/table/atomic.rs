//! Operations on one key that read before they write: none of them loses what another wrote in between.

use exuvia::engine::MemoryEngine;
use exuvia::migration::NewWrites;
use exuvia::{CastError, Error, Origin, Result, Table, Version};
use serde::{Deserialize, Serialize};

use crate::kit::hook_engine::{Call, HookEngine};
use crate::kit::scene::*;
use crate::kit::types::*;

/// Version 2 drops the note, and hands it back to old readers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Noted {
    name: String,
    note: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Bare {
    name: String,
}

impl Version for Noted {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for Bare {
    const VERSION: u32 = 2;
    type Previous = Noted;
    const DROPS_FIELDS: bool = true;

    fn upcast(old: Noted) -> Result<Self, CastError> {
        Ok(Bare { name: old.name })
    }

    fn downcast(&self, last: Option<Noted>) -> Result<Noted, CastError> {
        Ok(Noted { name: self.name.clone(), note: last.map(|last| last.note).unwrap_or_default() })
    }
}

fn noted(name: &str, note: &str) -> Noted {
    Noted { name: name.to_owned(), note: note.to_owned() }
}

fn bare(name: &str) -> Bare {
    Bare { name: name.to_owned() }
}

/// While folding, a new writer whose type drops a field takes that field from what it read; an old writer that comes
/// between its look and its write must not lose the field. Where the overlay has an entry, and where it has none.
#[test]
fn a_put_beside_a_fold_keeps_a_dropped_field_that_was_written_under_it() {
    let engine = HookEngine::new(MemoryEngine::new());
    let store = open(&engine);
    let old: Table<u64, Noted> = store.table("notes").unwrap();
    for id in 0..4 {
        old.put(&id, &noted("Ann", "first")).unwrap();
    }
    let new: Table<u64, Bare> = store.table("notes").unwrap();
    let migration = store.plan("bare").table(&new).paused().begin().unwrap();
    new.put(&1000, &bare("Zoe")).unwrap();
    new.put(&2000, &bare("Eva")).unwrap();
    migration.rollback().unwrap();
    let fold = StandingFold::start(&engine, &migration, 1000);

    for (id, call, tree) in [(1, Call::Cas, BASE), (2000, Call::Commit, OVERLAY)] {
        let writer = old.clone();
        engine.before_key(call, tree, id, move || writer.put(&id, &noted("Ann", "second")).unwrap());
        new.put(&id, &bare("Bob")).unwrap();
        assert_eq!(old.get(&id).unwrap(), Some(noted("Bob", "second")), "key {id}");
    }
    assert_eq!(engine.clear(), 0, "every hook was reached");
    fold.end();
    for id in [1, 2000] {
        assert_eq!(old.get(&id).unwrap(), Some(noted("Bob", "second")), "key {id}");
    }
    assert_eq!(old.get(&1000).unwrap(), Some(noted("Zoe", "")));
}

/// Both kinds of writers count the same records up, with and without a migration: no increment is lost.
#[test]
fn updates_beside_each_other_lose_nothing() {
    let s = scene_in(HookEngine::new(MemoryEngine::new()), 0);
    let in_every_state = |add: &dyn Fn()| {
        let migration = s.begin();
        add();
        complete(&migration);
        add();
        migration.rollback().unwrap();
        add();
        migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
        add();
    };
    const EACH: u32 = 8;
    let add = || {
        std::thread::scope(|scope| {
            for at in 0..4 {
                let (old, new) = (&s.old, &s.new);
                scope.spawn(move || {
                    for n in 0..EACH {
                        let id = u64::from(n % 2);
                        if at % 2 == 0 {
                            let one = |user: Option<UserV1>| Some(v1("Ann A", user.map_or(1, |u| u.age + 1)));
                            old.update(&id, one).unwrap();
                        } else {
                            let one = |user: Option<UserV2>| {
                                Some(v2("Ann", "A", user.map_or(1, |user| user.age + 1), None))
                            };
                            new.update(&id, one).unwrap();
                        }
                    }
                });
            }
        });
    };
    in_every_state(&add);
    let sum: u32 = s.old.scan(..).map(|record| record.unwrap().1.age).sum();
    assert_eq!(sum, 4 * 4 * EACH);
    // Nothing made of nothing writes nothing; nothing made of something removes it.
    s.engine.reset();
    assert_eq!(s.old.update(&7, |user| user).unwrap(), None);
    assert_eq!(s.engine.writes("1/*"), 0);
    assert_eq!(s.old.update(&0, |_| None).unwrap(), None);
    assert_eq!(s.old.get(&0).unwrap(), None);
}

/// Of several that insert a record one does; of several that swap it, one; in every state of a table.
#[test]
fn one_of_many_inserts_or_swaps() {
    let s = scene_in(HookEngine::new(MemoryEngine::new()), 4);
    let check = |what: &str, id: u64| {
        assert!(!s.old.insert_if_absent(&1, &v1("Not Me", 1)).unwrap(), "{what}: it is there");
        let users: Vec<UserV1> = (0..4).map(|n| v1(&format!("Ann N{n}"), n)).collect();
        let won = |race: &(dyn Fn(&UserV1) -> bool + Sync)| {
            let count = |user| usize::from(race(user));
            std::thread::scope(|scope| {
                let threads: Vec<_> = users.iter().map(|user| scope.spawn(move || count(user))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
            })
        };
        assert_eq!(won(&|user| s.old.insert_if_absent(&id, user).unwrap()), 1, "{what}");
        let old = s.old.get(&id).unwrap().unwrap();
        let swaps = |user: &UserV1| s.old.compare_and_swap(&id, Some(&old), Some(user)).unwrap();
        // Whoever swaps it for itself is no bar to the others.
        let swapped = won(&swaps);
        assert!((1..=2).contains(&swapped), "{what}: {swapped}");
        let now = s.new.get(&id).unwrap();
        assert!(!s.new.compare_and_swap(&id, None, now.as_ref()).unwrap(), "{what}: it is there");
        assert!(s.new.compare_and_swap(&id, now.as_ref(), None).unwrap(), "{what}");
        assert!(s.new.compare_and_swap(&id, None, None).unwrap(), "{what}");
        assert_eq!(s.old.get(&id).unwrap(), None, "{what}");
    };
    check("settled", 100);
    // A record that was upcast is the same as one that was written so.
    assert!(s.new.compare_and_swap(&2, Some(&first2(2)), Some(&first2(2))).unwrap());
    let migration = s.begin();
    check("open", 101);
    assert!(s.new.compare_and_swap(&2, Some(&first2(2)), Some(&first2(2))).unwrap());
    complete(&migration);
    check("complete", 102);
    migration.rollback().unwrap();
    check("rolled back", 103);
    let fold = StandingFold::start(&s.engine, &migration, 2);
    check("folding", 104);
    fold.end();
    check("abandoned", 100);
    s.check_scans_agree(0..4);
}

/// A record that cannot be read is not absent.
#[test]
fn a_record_that_cannot_be_read_is_not_absent() {
    let s = scene(0);
    s.old.put(&1, &v1("Single", 1)).unwrap();
    s.old.put(&2, &first(2)).unwrap();
    s.engine.raw(BASE).put(&2u64.to_be_bytes(), b"nonsense").unwrap();
    assert!(s.old.insert_if_absent(&2, &first(2)).unwrap_err().is_corruption());
    assert!(s.old.update(&2, |_| Some(first(2))).unwrap_err().is_corruption());
    let migration = s.begin();
    s.engine.raw(BASE).delete(&2u64.to_be_bytes()).unwrap();
    migration.step(1000).unwrap();
    let e = s.new.insert_if_absent(&1, &first2(1)).unwrap_err();
    assert!(matches!(e, Error::Quarantined { .. }), "{e:?}");
    assert!(!s.old.insert_if_absent(&1, &first(1)).unwrap());
}

/// Beside each other, poppers take each record once, from both ends; and the ends are those of the merged table.
#[test]
fn each_record_is_popped_once() {
    let s = scene(40);
    let (migration, at) = (s.begin(), |end: Option<(u64, UserV1)>| end.map(|(id, _)| id));
    migration.step(10).unwrap();
    s.new.remove(&0).unwrap();
    s.new.put(&50, &first2(50)).unwrap();
    assert_eq!((at(s.old.first().unwrap()), at(s.old.last().unwrap())), (Some(1), Some(50)));
    assert_eq!(s.new.pop_first().unwrap(), Some((1, first2(1))));
    assert_eq!(s.new.pop_last().unwrap(), Some((50, first2(50))));
    let popped = std::thread::scope(|scope| {
        let pop = |last: bool| {
            let mut taken = Vec::new();
            loop {
                let next = if last { s.new.pop_last() } else { s.new.pop_first() };
                let Some((id, user)) = next.unwrap() else {
                    return taken;
                };
                assert_eq!(user, first2(id));
                taken.push(id);
            }
        };
        let threads = [false, true, false].map(|last| scope.spawn(move || pop(last)));
        threads.map(|thread| thread.join().unwrap())
    });
    for (taken, last) in popped.iter().zip([false, true, false]) {
        assert!(taken.is_sorted_by(|a, b| if last { a > b } else { a < b }), "{taken:?}");
    }
    let mut all: Vec<u64> = popped.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (2..40).collect::<Vec<_>>());
    assert_eq!((s.old.first().unwrap(), s.old.pop_last().unwrap()), (None, None));
}

/// A writer that cannot see a field keeps it, also as it was written between that writer's look and its write.
#[test]
fn a_dropped_field_is_kept_as_it_was_written_last() {
    let engine = HookEngine::new(MemoryEngine::recording());
    let store = open(&engine);
    let old: Table<u64, Noted> = store.table("notes").unwrap();
    let new: Table<u64, Bare> = store.table("notes").unwrap();
    old.put(&1, &noted("old", "first")).unwrap();
    let written_between = |tree: &str, note: &str| {
        let (writer, record) = (old.clone(), noted("old", note));
        engine.after_key(Call::Get, tree, 1, move || writer.put(&1, &record).unwrap());
        new.put(&1, &bare("new")).unwrap();
        assert_eq!(engine.clear(), 0);
        assert_eq!(old.get(&1).unwrap(), Some(noted("new", note)));
    };
    written_between(BASE, "settled");
    let migration = store.plan("drop").table(&new).paused().begin().unwrap();
    written_between(OVERLAY, "open");
    complete(&migration);
    written_between(OVERLAY, "complete");
}
