//! Copies of a store that is in use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::{Budget, Error, Phase, Store, Table};

use crate::kit::errors::says;
use crate::kit::kinds::kinds;
use crate::kit::scratch::{Scratch, child, child_argument};
use crate::kit::types::*;

fn name(id: u64, round: u64) -> UserV1 {
    v1(&format!("Ann N{id}-{round}"), 30)
}

fn all(store: &Store, table: &str) -> BTreeMap<u64, UserV1> {
    let users: Table<u64, UserV1> = store.table(table).unwrap();
    users.scan(..).map(Result::unwrap).collect()
}

/// From every engine to every other: records, the ledger's chain, an open migration with both its forms.
#[test]
fn a_copy_is_the_store_in_another_engine() {
    let scratch = Scratch::new("copy");
    for from in kinds() {
        let path = scratch.path().join(from.name());
        let store = Store::options().engine(from).open(&path).unwrap();
        let old: Table<u64, UserV1> = store.table("users").unwrap();
        for id in 0..500 {
            old.put(&id, &name(id, 1)).unwrap();
        }
        let new: Table<u64, UserV2> = store.table("users").unwrap();
        let migration = store.plan("split").table(&new).paused().begin().unwrap();
        migration.step(200).unwrap();
        new.put(&3, &v2("Eve", "E", 9, Some("e@x"))).unwrap();
        old.put(&3, &v1("Eve F", 9)).unwrap();
        old.remove(&4).unwrap();
        for to in kinds() {
            let copy = scratch.path().join(format!("{}-{}", from.name(), to.name()));
            let report = store.copy_to(&copy, to).unwrap();
            assert!(report.is_clean());
            assert!(matches!(store.copy_to(&copy, to), Err(Error::Path { .. } | Error::Locked { .. })));
            let copied = Store::options().open(&copy).unwrap();
            assert_eq!(copied.engine_kind(), Some(to));
            assert_eq!(all(&copied, "users"), all(&store, "users"));
            let ledger = copied.ledger().unwrap();
            assert_eq!(ledger[..ledger.len() - 1], store.ledger().unwrap());
            assert_eq!(ledger.last().unwrap().what, "copy");
            let new2: Table<u64, UserV2> = copied.table("users").unwrap();
            let migration = copied.migration("split").unwrap();
            migration.unpause().unwrap();
            assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
            assert_eq!(new2.get(&3).unwrap(), Some(v2("Eve", "F", 9, Some("e@x"))));
            assert_eq!((new2.get(&4).unwrap(), new2.len().unwrap()), (None, 499));
            migration.contract().unwrap().execute().unwrap();
            assert!(copied.verify().unwrap().is_clean());
        }
        assert_eq!(migration.status().unwrap().phase, Phase::Open, "the source is as it was");
    }
}

/// Ends the writer also when an assertion ends the test: it would be waited for otherwise.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A writer counts up, key after key, round after round, now and then with a key removed: at any one moment the table is
/// some rounds of one number, then one less, and every copy has to be such a moment, not before its beginning.
fn copies_are_of_one_moment(store: &Store, copy: impl Fn(usize) -> Store) {
    const KEYS: u64 = 400;
    let (a, b): (Table<u64, UserV1>, Table<u64, UserV1>) =
        (store.table("a").unwrap(), store.table("b").unwrap());
    for id in 0..KEYS {
        a.put(&id, &name(id, 0)).unwrap();
        b.put(&id, &name(id, 0)).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1.. {
                for id in 0..KEYS {
                    for table in [&a, &b] {
                        if round % 3 == 0 && id % 7 == 0 {
                            table.remove(&id).unwrap();
                        } else {
                            table.put(&id, &name(id, round)).unwrap();
                        }
                    }
                    // A key that is there in one round of two: before and after all others.
                    if id == KEYS / 2 {
                        let extra = 10_000 + round / 2;
                        if round % 2 == 0 {
                            a.put(&extra, &name(extra, round)).unwrap()
                        } else {
                            a.remove(&extra).unwrap()
                        }
                    }
                    if stop.load(Ordering::Relaxed) {
                        return round;
                    }
                }
            }
            0
        });
        let stopping = Stop(&stop);
        for number in 0..5 {
            let began =
                a.get(&1).unwrap().map_or(0, |user| user.name.rsplit_once('-').unwrap().1.parse().unwrap());
            let copied = copy(number);
            let (a, b) = (all(&copied, "a"), all(&copied, "b"));
            // What each key must hold if the round `round` has come just past `at` (in a; b follows).
            let removed = |id: u64, round: u64| round > 0 && round.is_multiple_of(3) && id.is_multiple_of(7);
            let want = |id: u64, round: u64| (!removed(id, round)).then(|| name(id, round));
            let fits = |table: &BTreeMap<u64, UserV1>, round: u64, at: u64| {
                (0..KEYS)
                    .all(|id| table.get(&id).cloned() == want(id, if id < at { round } else { round - 1 }))
            };
            let round_of = |user: &UserV1| user.name.rsplit_once('-').unwrap().1.parse::<u64>().unwrap();
            let newest = a.range(..KEYS).map(|(_, user)| round_of(user)).max().unwrap();
            let moment = (newest.max(1)..=newest + 1).find_map(|round| {
                (0..=KEYS).find(|at| {
                    fits(&a, round, *at) && (fits(&b, round, *at) || fits(&b, round, at.saturating_sub(1)))
                })
            });
            assert!(moment.is_some(), "copy {number} is of no moment");
            assert!(a.range(KEYS..).count() <= 1, "one of two comes and goes");
            assert!(newest >= began, "and that is not before the copy");
        }
        drop(stopping);
        assert!(writer.join().unwrap() > 1);
    });
}

#[test]
fn a_copy_under_load_is_of_one_moment_in_memory() {
    let store = Store::options().open_in(Arc::new(MemoryEngine::new())).unwrap();
    copies_are_of_one_moment(&store, |_| {
        let engine = MemoryEngine::new();
        assert!(store.copy_in(&engine).unwrap().is_clean());
        Store::options().open_in(Arc::new(engine)).unwrap()
    });
}

#[test]
fn a_copy_under_load_is_of_one_moment_on_disk() {
    let scratch = Scratch::new("copy-load");
    for kind in kinds() {
        let options = Store::options().engine(kind).budget(Budget::unlimited());
        let store = options.open(scratch.path().join(kind.name())).unwrap();
        copies_are_of_one_moment(&store, |number| {
            let path = scratch.path().join(format!("{}-{number}", kind.name()));
            store.copy_to(&path, kind).unwrap();
            Store::open(&path).unwrap()
        });
    }
}

#[test]
fn what_cannot_be_copied_is_said() {
    let scratch = Scratch::new("copy-refused");
    let store = Store::open(scratch.path().join("store")).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    users.put(&1, &name(1, 1)).unwrap();
    let foreign = scratch.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letter.txt"), "dear reader").unwrap();
    says(&store.copy_to(&foreign, EngineKind::Sled).unwrap_err(), &["foreign", "not of a store"]);
    let full = MemoryEngine::new();
    store.copy_in(&full).unwrap();
    says(&store.copy_in(&full).unwrap_err(), &["not empty"]);
    // What a copy that died has left is made anew.
    let half = scratch.path().join("half");
    std::fs::create_dir_all(half.join("sled")).unwrap();
    std::fs::write(half.join("sled").join("db"), "half").unwrap();
    std::fs::write(half.join("EXUVIA.new"), "exuvia store, format 1\nengine sled\n").unwrap();
    store.copy_to(&half, EngineKind::Sled).unwrap();
    assert_eq!(all(&Store::open(&half).unwrap(), "users"), all(&store, "users"));
}

/// A process that is killed in the middle of a copy leaves its own store whole, and at the destination no store, but a
/// place for the next copy.
#[test]
fn a_killed_copy_is_no_store_and_is_made_anew() {
    const RECORDS: u64 = 2000;
    let test = "tools::copy::a_killed_copy_is_no_store_and_is_made_anew";
    if let Some(root) = child_argument() {
        let root = std::path::PathBuf::from(root);
        let store = Store::options().open(root.join("store")).unwrap();
        store.copy_to(root.join("copy"), store.engine_kind().unwrap()).unwrap();
        return;
    }
    for kind in kinds() {
        let scratch = Scratch::new("copy-killed");
        let (path, copy) = (scratch.path().join("store"), scratch.path().join("copy"));
        let store = Store::options().engine(kind).open(&path).unwrap();
        let users: Table<u64, UserV1> = store.table("users").unwrap();
        for id in 0..RECORDS {
            users.put(&id, &name(id, 1)).unwrap();
        }
        let expected = all(&store, "users");
        drop(users);
        store.close().unwrap();

        // The default budget lets a copy of so many records last for long after its engine is there.
        let mut running = child(test, scratch.path().to_str().unwrap()).spawn().unwrap();
        while !copy.join(kind.name()).exists() {
            assert!(running.try_wait().unwrap().is_none(), "it ended before it was seen");
            std::thread::yield_now();
        }
        running.kill().unwrap();
        running.wait().unwrap();
        assert!(!copy.join("EXUVIA").exists(), "it was killed in the middle");
        let looked = Store::options().create(false).open(&copy);
        says(&looked.unwrap_err(), &["there is no store here"]);
        let store = Store::open(&path).unwrap();
        assert_eq!(all(&store, "users"), expected);
        assert!(store.verify().unwrap().is_clean());
        store.copy_to(&copy, kind).unwrap();
        let copied = Store::options().create(false).open(&copy).unwrap();
        assert_eq!(all(&copied, "users"), expected);
    }
}
