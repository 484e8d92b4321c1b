//! Transactions and batches: all or nothing, at one moment, beside every change of a migration's state.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::measure::{Activity, Operation};
use exuvia::migration::NewWrites;
use exuvia::{Error, Store, Table};

use crate::kit::hook_engine::{Call, HookEngine};
use crate::kit::scene::*;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

type Done = Result<(), Error>;

/// Two transactions read two keys, and each writes the one that the other does not: one of them has to try again.
#[test]
fn write_skew_is_prevented() {
    let s = scene(0);
    let (old, tries) = (&s.old, Cell::new(0));
    for id in [1, 2] {
        old.put(&id, &v1("On Duty", 1)).unwrap();
    }
    let leave = |own: u64, other: u64, meanwhile: &dyn Fn()| {
        s.store.transaction::<_, Error>(|tx| {
            let both = [tx.get(old, &own)?, tx.get(old, &other)?];
            meanwhile();
            if both.iter().flatten().all(|user| user.age == 1) {
                tx.put(old, &own, &v1("Off Duty", 0))?;
            }
            Ok(())
        })
    };
    let meanwhile = || {
        if tries.replace(tries.get() + 1) == 0 {
            leave(2, 1, &|| ()).unwrap();
        }
    };
    leave(1, 2, &meanwhile).unwrap();
    assert_eq!(tries.get(), 2);
    assert_eq!((old.get(&1).unwrap().unwrap().age, old.get(&2).unwrap().unwrap().age), (1, 0));
    assert_eq!(s.store.stats().unwrap().conflicts, 1);
}

/// Every verb moves the epoch: a transaction that began before it is tried again, whatever it read and wrote, and one
/// that only wrote too.
#[test]
fn rule_06_a_transaction_that_spans_a_change_of_state_is_tried_again() {
    let s = scene(20);
    let moved = |what: &str, reads: bool, verb: &dyn Fn()| {
        let tries = Cell::new(0);
        let done: Done = s.store.transaction(|tx| {
            if reads {
                assert_eq!(tx.get(&s.new, &3)?, Some(first2(3)), "{what}");
            } else {
                tx.put(&s.new, &2, &first2(2))?;
            }
            if tries.replace(tries.get() + 1) == 0 {
                verb();
            }
            tx.put(&s.new, &3, &first2(3))
        });
        done.unwrap();
        assert_eq!((tries.get(), s.new.get(&3).unwrap()), (2, Some(first2(3))), "{what}");
    };
    for (round, reads) in [true, false, true, false].into_iter().enumerate() {
        let migration = Cell::new(None);
        let name = format!("split {round}");
        moved("begin", reads, &|| {
            migration.set(Some(s.store.plan(&name).table(&s.new).paused().begin().unwrap()));
        });
        let migration = migration.take().unwrap();
        complete(&migration);
        moved("restart", reads, &|| migration.restart().unwrap());
        moved("rollback", reads, &|| migration.rollback().unwrap());
        match round {
            0 => moved("keep", reads, &|| {
                migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
            }),
            1 | 2 => moved("discard", reads, &|| {
                migration.abandon(NewWrites::Discard).unwrap().execute().unwrap();
            }),
            _ => {
                moved("resume", reads, &|| migration.resume().unwrap());
                complete(&migration);
                moved("contract", reads, &|| s.contract(&migration));
            }
        }
    }
    assert!(s.store.verify().unwrap().is_clean(), "{:?}", s.store.verify());
}

/// An old writer's transaction keeps what it cannot see, also if that is written after it sealed its own record.
#[test]
fn rule_06_a_put_at_from_checks_its_overlay_entry() {
    let s = scene(4);
    let migration = s.begin();
    let tries = Cell::new(0);
    let done: Done = s.store.transaction(|tx| {
        tx.put(&s.old, &1, &v1("Eva Old", 5))?;
        tx.put(&s.old, &2, &v1("Eva Two", 5))?;
        if tries.replace(tries.get() + 1) == 0 {
            s.new.put(&1, &v2("Zoe", "New", 4, Some("z@x"))).unwrap();
        }
        Ok(())
    });
    done.unwrap();
    assert_eq!(tries.get(), 2);
    assert_eq!(s.new.get(&1).unwrap(), Some(v2("Eva", "Old", 5, Some("z@x"))));
    // The backfill is told: it brings both forward.
    complete(&migration);
    for id in [1, 2] {
        assert_eq!(s.entry(OVERLAY, id).unwrap().version, 2, "key {id}");
    }
    s.contract(&migration);
    assert_eq!(s.new.get(&1).unwrap(), Some(v2("Eva", "Old", 5, Some("z@x"))));
}

/// A transaction reads what it wrote, at every view of the table, and nobody else does until it commits.
#[test]
fn a_transaction_reads_its_own_writes_at_every_view() {
    let s = scene(4);
    let check = |what: &str, email_survives: bool| {
        let done: Done = s.store.transaction(|tx| {
            let email = email_survives.then_some("e@x");
            tx.put(&s.new, &1, &v2("Eva", "One", 1, email))?;
            assert_eq!(tx.get(&s.old, &1)?, Some(v1("Eva One", 1)), "{what}");
            assert_eq!(tx.get(&s.new, &1)?, Some(v2("Eva", "One", 1, email)), "{what}");
            tx.put(&s.old, &1, &v1("Zoe Two", 2))?;
            assert_eq!(tx.get(&s.new, &1)?, Some(v2("Zoe", "Two", 2, email)), "{what}");
            assert_eq!(s.old.get(&1).unwrap(), Some(first(1)), "{what}: not yet for others");
            tx.remove(&s.new, &2)?;
            assert_eq!((tx.get(&s.old, &2)?, tx.get(&s.new, &2)?), (None, None), "{what}");
            tx.remove(&s.old, &1)?;
            tx.put(&s.old, &1, &first(1))?;
            assert_eq!(tx.get(&s.new, &1)?, Some(first2(1)), "{what}");
            tx.put(&s.old, &2, &first(2))
        });
        done.unwrap();
        s.check_scans_agree(0..4);
        assert_eq!(s.old.get(&1).unwrap(), Some(first(1)), "{what}");
    };
    check("settled", false);
    let migration = s.begin();
    check("open", true);
    complete(&migration);
    check("complete", true);
    s.new.put(&1000, &v2("New", "N", 1, None)).unwrap();
    migration.rollback().unwrap();
    check("rolled back", true);
    let fold = StandingFold::start(&s.engine, &migration, 1);
    check("folding", false);
    fold.end();
    check("abandoned", false);
    assert_eq!(s.old.get(&1000).unwrap(), Some(v1("New N", 1)));
    assert!(s.store.verify().unwrap().is_clean(), "{:?}", s.store.verify());
}

/// Any loss of power leaves all of a transaction or nothing of it, over tables and trees, in every state of a table.
#[test]
fn invariant_09_a_transaction_is_whole_or_absent_after_a_crash() {
    for state in ["settled", "open", "folding"] {
        let s = scene(4);
        let others: Table<u64, UserV1> = s.store.table("others").unwrap();
        let migration = (state != "settled").then(|| s.begin());
        let fold = migration.as_ref().filter(|_| state == "folding").map(|migration| {
            s.new.put(&1, &first2(1)).unwrap();
            migration.rollback().unwrap();
            StandingFold::start(&s.engine, migration, 1)
        });
        s.store.flush().unwrap();
        let before = s.engine.inner().unflushed();
        let done: Done = s.store.transaction(|tx| {
            tx.put(&s.old, &1, &v1("Eva One", 1))?;
            tx.remove(&s.old, &2)?;
            tx.put(&others, &9, &v1("Zoe Nine", 9))
        });
        done.unwrap();
        assert_eq!(s.engine.inner().unflushed(), before + 1, "one write");
        for kept in [false, true] {
            let image = HookEngine::new(s.engine.inner().crash_image(|n| n < before || kept));
            let store = options().background(false).open_in(Arc::new(image)).unwrap();
            let users: Table<u64, UserV1> = store.table("users").unwrap();
            let others: Table<u64, UserV1> = store.table("others").unwrap();
            let found = (users.get(&1).unwrap(), users.get(&2).unwrap(), others.get(&9).unwrap());
            let expected = if kept {
                (Some(v1("Eva One", 1)), None, Some(v1("Zoe Nine", 9)))
            } else {
                (Some(first(1)), Some(first(2)), None)
            };
            assert_eq!(found, expected, "{state}, {kept}");
        }
        if let Some(fold) = fold {
            fold.end();
            assert_eq!(s.old.get(&1).unwrap(), Some(v1("Eva One", 1)));
        }
    }
}

/// A transaction that is always overtaken ends with a typed error, after a bounded number of tries.
#[test]
fn tries_are_bounded_and_end_in_a_typed_error() {
    let s = scene(2);
    let tries = Cell::new(0u32);
    let done: Done = s.store.transaction(|tx| {
        tries.set(tries.get() + 1);
        tx.get(&s.old, &1)?;
        s.old.put(&1, &v1("Over Taken", tries.get() % 100)).unwrap();
        tx.put(&s.old, &0, &v1("Never Written", 1))
    });
    let e = done.unwrap_err();
    assert!(matches!(&e, Error::Conflict { subject } if subject == "a transaction on users"), "{e:?}");
    assert!(e.to_string().contains("nothing was written"), "{e}");
    assert_eq!((tries.get(), s.store.stats().unwrap().conflicts), (64, 64));
    assert_eq!(s.old.get(&0).unwrap(), Some(first(0)));
}

/// What a closure answers or panics with writes nothing; and an error that it made of reads that do not fit each other
/// is nobody's business: the transaction is tried again.
#[test]
fn an_error_or_a_panic_writes_nothing_and_an_error_is_of_one_moment() {
    #[derive(Debug)]
    enum Own {
        Differ(u32, u32),
        #[expect(dead_code, reason = "shown by a failing test")]
        Store(Error),
    }
    impl From<Error> for Own {
        fn from(e: Error) -> Self {
            Own::Store(e)
        }
    }
    let s = scene(0);
    let set = |age| {
        let mut batch = s.store.batch();
        [1, 2].iter().for_each(|id| batch.put(&s.old, id, v1("Same Age", age)));
        batch.commit().unwrap();
    };
    set(1);
    let tries = Cell::new(0);
    let compare = |expected: u32| {
        s.store.transaction::<(), Own>(|tx| {
            tx.put(&s.old, &3, &v1("Never Written", 3))?;
            let a = tx.get(&s.old, &1)?.unwrap().age;
            if tries.replace(tries.get() + 1) == 0 {
                set(2);
            }
            let b = tx.get(&s.old, &2)?.unwrap().age;
            if a == b && a == expected { Ok(()) } else { Err(Own::Differ(a, b)) }
        })
    };
    assert!(matches!(compare(7), Err(Own::Differ(2, 2))), "what it read in its second try");
    assert_eq!(tries.get(), 2);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        s.store.transaction::<(), Error>(|tx| {
            tx.put(&s.old, &3, &v1("Never Written", 3))?;
            panic!("in the closure");
        })
    }));
    assert!(panic.is_err());
    assert_eq!(s.old.len().unwrap(), 2);
    set(3);
}

/// Reads are remembered: a second read of a key is no second lookup and sees nothing newer. A transaction that only reads
/// writes nothing, and one on one key is one single-key call.
#[test]
fn a_transaction_costs_what_it_touches() {
    let s = scene(4);
    let calls = |body: &dyn Fn(&mut exuvia::Transaction) -> Done| {
        s.engine.reset();
        s.store.transaction(body).unwrap();
        let profile = s.engine.profile();
        let of = |call| profile.get(&call).copied().unwrap_or(0);
        [of(Call::Get), of(Call::Put), of(Call::Delete), of(Call::Cas), of(Call::Commit)]
    };
    let get = |tx: &mut exuvia::Transaction, id: u64| tx.get(&s.old, &id).map(drop);
    let put = |tx: &mut exuvia::Transaction, id: u64| tx.put(&s.old, &id, &first(id));
    assert_eq!(calls(&|tx| get(tx, 1).and_then(|()| get(tx, 1))), [1, 0, 0, 0, 0]);
    assert_eq!(calls(&|tx| get(tx, 1).and_then(|()| get(tx, 2))), [2, 0, 0, 0, 1]);
    assert_eq!(s.engine.writes("1/*"), 0);
    assert_eq!(calls(&|tx| put(tx, 1)), [0, 1, 0, 0, 0]);
    assert_eq!(calls(&|tx| tx.remove(&s.old, &1)), [0, 0, 1, 0, 0]);
    assert_eq!(calls(&|tx| get(tx, 1).and_then(|()| put(tx, 1))), [1, 0, 0, 1, 0]);
    assert_eq!(calls(&|tx| put(tx, 1).and_then(|()| put(tx, 2))), [0, 0, 0, 0, 1]);
    let migration = s.begin();
    // The overlay and the frozen base are asked, and the overlay's key alone is checked.
    assert_eq!(calls(&|tx| get(tx, 1).and_then(|()| put(tx, 1))), [2, 0, 0, 1, 0]);
    assert_eq!(calls(&|tx| put(tx, 1)), [1, 0, 0, 1, 0]);
    s.new.put(&1000, &v2("New", "N", 1, None)).unwrap();
    migration.rollback().unwrap();
    let fold = StandingFold::start(&s.engine, &migration, 1);
    assert_eq!(calls(&|tx| get(tx, 2).and_then(|()| put(tx, 2))), [3, 0, 0, 1, 0], "no overlay entry");
    assert_eq!(calls(&|tx| put(tx, 1)), [1, 0, 0, 0, 1], "an overlay entry");
    fold.end();
    s.check_scans_agree(0..4);
}

/// More than the engine commits at once is refused before anything is written.
#[test]
fn a_transaction_over_the_engine_s_limits_is_refused() {
    let dir = Scratch::new("tx-limits");
    let store = Store::open(dir.path()).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    let batch = |count: u64, bytes: usize| {
        let mut batch = store.batch();
        (0..count).for_each(|id| batch.put(&users, &id, v1(&"n".repeat(bytes), 1)));
        assert_eq!(batch.len() as u64, count);
        assert!(!batch.is_empty());
        batch.commit()
    };
    for (count, bytes, unit) in [(1025, 1, "writes"), (10, 40_000, "bytes")] {
        let e = batch(count, bytes).unwrap_err();
        assert!(matches!(&e, Error::Limit { what, .. } if what.starts_with(unit)), "{e:?}");
        assert!(users.is_empty().unwrap());
    }
    batch(1024, 1).unwrap();
    batch(6, 40_000).unwrap();
    assert_eq!(users.len().unwrap(), 1024);
}

/// A batch is one commit over tables and views; the last write to a key counts. In an open migration what an old
/// writer's batch cannot see is kept, also if it is written just before the commit.
#[test]
fn a_batch_is_one_commit_and_keeps_what_it_cannot_see() {
    let s = scene(4);
    let others: Table<u64, UserV1> = s.store.table("others").unwrap();
    let mut batch = s.store.batch();
    assert!(batch.is_empty());
    batch.put(&s.old, &1, v1("Eva One", 1));
    batch.put(&others, &1, v1("Eva Other", 1));
    batch.remove(&s.old, &2);
    batch.put(&s.old, &3, v1("Not This", 3));
    batch.put(&s.new, &3, v2("But", "This", 3, None));
    s.engine.reset();
    batch.commit().unwrap();
    assert_eq!((s.engine.count(Call::Commit, "*"), s.engine.count(Call::Get, "*")), (1, 0));
    assert_eq!((s.old.get(&2).unwrap(), s.old.get(&3).unwrap()), (None, Some(v1("But This", 3))));
    assert_eq!(others.get(&1).unwrap(), Some(v1("Eva Other", 1)));

    let _migration = s.begin();
    let new = s.new.clone();
    s.engine.before(Call::Commit, "1/*", 1, move || new.put(&1, &v2("Zoe", "New", 4, Some("z@x"))).unwrap());
    let mut batch = s.store.batch();
    batch.put(&s.old, &1, v1("Eva Again", 5));
    batch.put(&s.old, &2, v1("Two Again", 5));
    batch.commit().unwrap();
    assert_eq!(s.new.get(&1).unwrap(), Some(v2("Eva", "Again", 5, Some("z@x"))));
    assert_eq!(s.store.stats().unwrap().conflicts, 1);
    s.store.batch().commit().unwrap();
}

/// A table of another store, and a closed store, are typed errors.
#[test]
fn a_transaction_is_of_one_open_store() {
    let (s, other) = (scene(1), scene(1));
    let done: Done = s.store.transaction(|tx| tx.put(&other.old, &1, &first(1)));
    assert!(matches!(done, Err(Error::State { .. })), "{done:?}");
    let mut batch = s.store.batch();
    batch.put(&other.old, &1, first(1));
    assert!(matches!(batch.commit(), Err(Error::State { .. })));
    assert_eq!(other.old.get(&1).unwrap(), None);
    let store = s.store.clone();
    s.store.close().unwrap();
    let done: Done = store.transaction(|tx| tx.put(&s.old, &1, &first(1)));
    assert!(matches!(done, Err(Error::Closed)), "{done:?}");
}

#[test]
fn transactions_batches_and_updates_are_counted() {
    let store = options().open_in(Arc::new(MemoryEngine::new())).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    let done: Done = store.transaction(|tx| {
        tx.get(&users, &1)?;
        tx.put(&users, &1, &first(1))
    });
    done.unwrap();
    let mut batch = store.batch();
    batch.put(&users, &2, first(2));
    batch.commit().unwrap();
    users.update(&1, |user| user).unwrap();
    let stats = store.stats().unwrap();
    let count = |operation| stats.latency(operation, Activity::Idle).count();
    for operation in [Operation::Get, Operation::Transaction, Operation::Batch, Operation::Update] {
        assert_eq!(count(operation), 1, "{operation:?}");
    }
    assert_eq!((count(Operation::Put), stats.conflicts), (0, 0));
}
