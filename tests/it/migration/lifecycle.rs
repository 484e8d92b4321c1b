//! The life of a migration, verb by verb.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use exuvia::engine::MemoryEngine;
use exuvia::measure::{LedgerEntry, Observer};
use exuvia::migration::NewWrites;
use exuvia::{CastError, Error, Phase, Store, Table, Version};
use parking_lot::Mutex;

use crate::kit::hook_engine::{Beside, Call, HookEngine, PATIENCE, elsewhere};
use crate::kit::scene::*;
use crate::kit::types::*;

fn memory() -> Store {
    Store::options().open_in(Arc::new(MemoryEngine::new())).unwrap()
}

fn fill(users: &Table<u64, UserV1>, count: u64) {
    for id in 0..count {
        users.put(&id, &v1(&format!("Ann N{id}"), (id % 90) as u32)).unwrap();
    }
}

#[test]
fn from_begin_to_contract() {
    let store = memory();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    fill(&old, 1000);
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    assert_eq!(new.get(&7).unwrap(), Some(v2("Ann", "N7", 7, None)));
    let migration = store.plan("split").table(&new).why("names").by("me").paused().begin().unwrap();
    assert_eq!(migration.name(), "split");
    migration.step(100).unwrap();
    new.put(&3, &v2("Bob", "B", 4, Some("b@x"))).unwrap();
    old.put(&4, &v1("Old O", 5)).unwrap();
    old.put(&3, &v1("Bobby B", 6)).unwrap();
    old.remove(&5).unwrap();
    assert_eq!(new.get(&3).unwrap(), Some(v2("Bobby", "B", 6, Some("b@x"))));
    assert_eq!(old.len().unwrap(), 999);
    assert_eq!(new.len().unwrap(), 999);
    migration.rollback().unwrap();
    assert_eq!(old.get(&3).unwrap(), Some(v1("Bobby B", 6)));
    assert_eq!(new.get(&5).unwrap(), None);
    migration.resume().unwrap();
    migration.unpause().unwrap();
    let status = migration.wait().unwrap();
    assert_eq!(status.phase, Phase::Complete);
    assert_eq!(new.scan(..).rev().count(), 999);
    let plan = migration.contract().unwrap();
    assert!(!plan.destroys().is_empty());
    let says: Vec<String> = plan.destroys().iter().map(|line| format!("  {line}")).collect();
    let says = says.join("\n");
    assert_eq!(plan.to_string(), format!("contract of migration split will destroy, for good:\n{says}\n"));
    plan.execute().unwrap();
    assert_eq!(new.get(&3).unwrap(), Some(v2("Bobby", "B", 6, Some("b@x"))));
    assert_eq!(new.len().unwrap(), 999);
    assert!(old.get(&3).is_err());
    while store.is_sweeping() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(store.verify().unwrap().is_clean(), "{:?}", store.verify());
}

#[test]
fn abandon_keeps_or_discards() {
    for writes in [NewWrites::Keep, NewWrites::Discard] {
        let store = memory();
        let old: Table<u64, UserV1> = store.table("users").unwrap();
        fill(&old, 300);
        let new: Table<u64, UserV2> = store.table("users").unwrap();
        let migration = store.plan("split").table(&new).begin().unwrap();
        migration.wait().unwrap();
        new.put(&3, &v2("Bob", "B", 4, Some("b@x"))).unwrap();
        new.put(&1000, &v2("New", "N", 4, Some("b@x"))).unwrap();
        new.remove(&5).unwrap();
        migration.rollback().unwrap();
        let plan = migration.abandon(writes).unwrap();
        let keep = writes == NewWrites::Keep;
        let says = if keep {
            "table users: what only version 2 holds; every record stays as version 1 reads it"
        } else {
            "table users: every write since split began; the table is exactly as it was then"
        };
        assert_eq!(plan.destroys(), [says]);
        let shown = format!("abandoning migration split will destroy, for good:\n  {says}\n");
        assert_eq!(plan.to_string(), shown);
        plan.execute().unwrap();
        let ledger = store.ledger().unwrap();
        let count = if keep { ("records folded", 3) } else { ("tables whose new writes are discarded", 1) };
        assert_eq!(ledger.last().unwrap().what, "abandon");
        assert_eq!(ledger.last().unwrap().counts, [(count.0.to_owned(), count.1)]);
        assert_eq!(old.get(&3).unwrap(), Some(if keep { v1("Bob B", 4) } else { v1("Ann N3", 3) }));
        assert_eq!(old.get(&5).unwrap().is_some(), !keep);
        assert_eq!(old.get(&1000).unwrap().is_some(), keep);
        assert_eq!(old.len().unwrap(), 300);
        assert!(store.verify().unwrap().is_clean());
        let again = store.plan("split again").table(&new).begin().unwrap();
        again.wait().unwrap();
        again.contract().unwrap().execute().unwrap();
        assert_eq!(new.len().unwrap(), 300);
    }
}

/// Holds up whoever closes a migration, right after the new state is in force.
#[derive(Default)]
struct Door(Mutex<()>);

impl Observer for Door {
    fn state_change(&self, entry: &LedgerEntry) {
        if entry.what == "abandon" {
            drop(self.0.lock());
        }
    }
}

/// Found by the model: `abandon` had answered, and a verb after it was told of a conflict.
#[test]
fn after_an_abandon_that_answered_a_verb_is_told_that_the_migration_is_closed() {
    let door = Arc::new(Door::default());
    let options = Store::options().observer(Arc::clone(&door) as Arc<dyn Observer>);
    let store = options.open_in(Arc::new(MemoryEngine::new())).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    fill(&old, 3);
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).begin().unwrap();
    migration.rollback().unwrap();
    let held = door.0.lock();
    // Folding is the worker's, which is held up now; it does not hold up this thread.
    migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
    let restart = std::thread::scope(|scope| {
        let restart = scope.spawn(|| migration.restart());
        // A verb that waits for the worker must not wait for ever.
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(held);
        restart.join().unwrap()
    });
    assert!(matches!(restart, Err(Error::State { .. })), "{restart:?}");
}

/// A version that takes much more room than the one before.
#[derive(serde::Serialize, serde::Deserialize)]
struct Wide(u32, String);

impl Version for Wide {
    const VERSION: u32 = 2;
    type Previous = UserV1;

    fn upcast(old: UserV1) -> Result<Self, CastError> {
        Ok(Wide(old.age, "x".repeat(500)))
    }

    fn downcast(&self, _last: Option<UserV1>) -> Result<UserV1, CastError> {
        Ok(v1("Ann N", self.0))
    }
}

#[test]
fn what_a_migration_is_expected_to_need_is_enough_and_not_far_from_it() {
    let store = memory();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    fill(&old, 1000);
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let expected = store.plan("split").table(&new).expected_bytes().unwrap();
    let before = store.space().unwrap().bytes_on_disk;
    store.plan("split").table(&new).begin().unwrap().wait().unwrap();
    let needed = store.space().unwrap().bytes_on_disk - before;
    assert!((needed..2 * needed).contains(&expected), "{expected} bytes were expected, {needed} needed");
}

#[test]
fn the_table_that_grows_most_says_what_is_expected() {
    let store = memory();
    let narrow: Table<u64, UserV1> = store.table("grows").unwrap();
    fill(&narrow, 200);
    let wide: Table<u64, Wide> = store.table("grows").unwrap();
    fill(&store.table("users").unwrap(), 200);
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let alone = store.plan("both").table(&wide).expected_bytes().unwrap();
    assert!(alone > 10 * store.space().unwrap().bytes_on_disk, "{alone}");
    assert_eq!(store.plan("both").table(&wide).table(&new).expected_bytes().unwrap(), alone);
    assert_eq!(store.plan("both").table(&new).table(&wide).expected_bytes().unwrap(), alone);
    // Nothing is known of a table that holds nothing: as much again as there is.
    store.table::<u64, UserV1>("empty").unwrap();
    let empty: Table<u64, Wide> = store.table("empty").unwrap();
    let on_disk = store.space().unwrap().bytes_on_disk;
    assert_eq!(store.plan("both").table(&empty).expected_bytes().unwrap(), on_disk);
}

/// The store's size times (keys, new forms and the most that an envelope adds) by (what the base holds of them).
#[test]
fn what_is_expected_is_the_growth_of_a_record_at_the_size_of_the_store() {
    const ENVELOPE_MAX: u64 = 20;
    let s = scene(5);
    let on_disk = s.store.space().unwrap().bytes_on_disk;
    let base: u64 = s.engine.dump(BASE).iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
    let forms: u64 = (0..5).map(|id| 8 + bytes(&first2(id)).len() as u64 + ENVELOPE_MAX).sum();
    let expected = s.store.plan("split").table(&s.new).expected_bytes().unwrap();
    assert_eq!(expected, on_disk * forms / base);
}

#[test]
fn a_begin_that_cannot_be_is_refused_and_says_why_and_changes_nothing() {
    let (store, other) = (memory(), memory());
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    fill(&old, 5);
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let newest: Table<u64, UserV3> = store.table("users").unwrap();
    let ids: Table<u64, UserV1> = other.table("users").unwrap();
    fill(&ids, 5);
    let foreign: Table<u64, UserV2> = other.table("users").unwrap();
    let refused = |plan: exuvia::Plan, says: &str| {
        let (ledger, inventory) = (store.ledger().unwrap(), store.inventory().unwrap());
        let error = plan.begin().unwrap_err();
        assert!(matches!(error, Error::State { .. } | Error::Version { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(store.ledger().unwrap(), ledger);
        assert_eq!(format!("{:?}", store.inventory().unwrap()), format!("{inventory:?}"));
    };
    let plan = || store.plan("split");
    refused(plan(), "it names no table; add one");
    refused(plan().table(&new).table(&foreign), "the handle belongs to another store");
    refused(plan().table(&old), "the table is already at version 1; nothing to migrate");
    refused(plan().table(&new).table(&new), "it names table users twice");
    refused(plan().table(&new).table(&newest), "it names table users twice");
    let migration = plan().table(&new).paused().begin().unwrap();
    refused(plan().table(&new), "there was a migration of this name, it is open; choose another");
    refused(store.plan("again").table(&newest), "migration split is open; contract or abandon it first");
    migration.step(100).unwrap();
    migration.contract().unwrap().execute().unwrap();
    while store.is_sweeping() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    refused(plan().table(&newest), "there was a migration of this name, it is contracted; choose another");
    store.plan("again").table(&newest).begin().unwrap().wait().unwrap();
    assert_eq!(newest.len().unwrap(), 5);
}

/// Declared to be stored as the version before, with a field more.
#[derive(serde::Serialize, serde::Deserialize)]
struct Longer {
    name: String,
    age: u32,
    score: u8,
}

impl Version for Longer {
    const VERSION: u32 = 2;
    type Previous = UserV1;
    const SAME_BYTES: bool = true;

    fn upcast(old: UserV1) -> Result<Self, CastError> {
        Ok(Longer { name: old.name, age: old.age, score: 0 })
    }

    fn downcast(&self, _last: Option<UserV1>) -> Result<UserV1, CastError> {
        Ok(UserV1 { name: self.name.clone(), age: self.age })
    }
}

/// Found by a mutant: such a migration keeps no older forms, so old code would read the new records' bytes as its own.
#[test]
fn same_bytes_that_are_not_are_refused_by_begin() {
    let store = memory();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    fill(&old, 5);
    let longer: Table<u64, Longer> = store.table("users").unwrap();
    let (ledger, inventory) = (store.ledger().unwrap(), store.inventory().unwrap());
    let error = store.plan("longer").table(&longer).begin().unwrap_err();
    let Error::Shape { table, version: 2, difference } = &error else { panic!("{error:?}") };
    assert_eq!(table, "users");
    assert!(difference.contains("SAME_BYTES is declared") && difference.contains("score"), "{difference}");
    assert_eq!(store.ledger().unwrap(), ledger);
    assert_eq!(format!("{:?}", store.inventory().unwrap()), format!("{inventory:?}"));
    old.put(&7, &v1("Ann N7", 7)).unwrap();
    assert_eq!((old.len().unwrap(), longer.len().unwrap()), (6, 6));
}

/// What the status and the ledger say was done. A merge that drops what only the newer form held is never silent.
#[test]
fn what_is_done_is_counted_where_the_docs_say_so() {
    let store = memory();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    fill(&old, 5);
    let wide: Table<u64, Wide> = store.table("users").unwrap();
    let migration = store.plan("wide").table(&wide).paused().begin().unwrap();
    let counts = || migration.status().unwrap().tables[0].counts;
    migration.step(3).unwrap();
    assert_eq!(counts().copied, 3);
    complete(&migration);
    // The old form says something else than the newer one: the default merge drops what was the newer one's own.
    wide.put(&1, &Wide(10, "own".to_owned())).unwrap();
    old.put(&1, &v1("Ann N", 11)).unwrap();
    // It says the same: nothing is dropped.
    wide.put(&2, &Wide(20, "own".to_owned())).unwrap();
    old.put(&2, &v1("Ann N", 20)).unwrap();
    old.put(&3, &v1("Ann N", 30)).unwrap();
    assert_eq!(migration.step(2).unwrap().tables[0].backlog, 1, "a step does no more than it was asked for");
    complete(&migration);
    let now = counts();
    assert_eq!((now.copied, now.brought_forward, now.merges_dropped, now.quarantined), (5, 3, 1, 0));
    assert_eq!(store.stats().unwrap().merges_dropped, 1);
    assert_eq!(wide.get(&1).unwrap().unwrap().1, "x".repeat(500));
    assert_eq!(wide.get(&2).unwrap().unwrap().1, "own");
    old.put(&3, &v1("Ann N", 31)).unwrap();
    old.put(&0, &v1("Ann N", 32)).unwrap();
    old.remove(&4).unwrap();
    migration.contract().unwrap().execute().unwrap();
    let ledger = store.ledger().unwrap();
    let contract = ledger.iter().find(|entry| entry.what == "contract").unwrap();
    let verified = ("users verified".to_owned(), 4);
    let forwarded = ("users brought forward".to_owned(), 2);
    assert_eq!(contract.counts, [verified, forwarded]);
}

/// By the cursor's place between the first key and the last: exact where keys are dense.
#[test]
fn the_status_says_how_much_is_done() {
    let s = scene(1000);
    assert!(!s.old.is_empty().unwrap() && !s.new.is_empty().unwrap());
    // From key 300 on, so that the first is not zero.
    (0..300).for_each(|id| s.old.remove(&id).unwrap());
    let migration = s.begin();
    let fraction = || migration.status().unwrap().fraction;
    assert_eq!(fraction(), 0.0);
    let mut copied = 0;
    for records in [200, 200, 200] {
        let before = copied;
        copied = migration.step(records).unwrap().tables[0].counts.copied;
        assert!(copied > before);
        let is = copied as f64 / 700.0;
        assert!((fraction() - is).abs() < 0.01, "{copied} of 700: {}", fraction());
    }
    complete(&migration);
    assert_eq!(fraction(), 1.0);
}

/// The one key of an empty array is no bytes, as is the cursor of a backfill that has not begun.
#[test]
fn a_record_under_the_empty_key_is_read_before_it_is_copied_and_is_copied() {
    let engine = HookEngine::new(MemoryEngine::recording());
    let store = open(&engine);
    let old: Table<[u8; 0], UserV1> = store.table("users").unwrap();
    old.put(&[], &first(1)).unwrap();
    let keys: Vec<_> = engine.dump(BASE).into_keys().collect();
    assert_eq!(keys, [Vec::<u8>::new()]);
    let new: Table<[u8; 0], UserV2> = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    for copied in [0, 1, 1] {
        assert_eq!(new.get(&[]).unwrap(), Some(first2(1)));
        assert_eq!(new.scan(..).count(), 1);
        assert_eq!(migration.status().unwrap().tables[0].counts.copied, copied);
        complete(&migration);
    }
}

/// The proof goes through tables of many pages, and finds what is missing on each.
#[test]
fn a_contract_proves_every_record_of_a_large_table() {
    let s = scene(1000);
    let migration = s.begin();
    complete(&migration);
    let overlay = s.engine.raw(OVERLAY);
    for id in [0_u64, 3, 500, 996, 999] {
        let entry = overlay.get(&id.to_be_bytes()).unwrap().unwrap().to_vec();
        overlay.delete(&id.to_be_bytes()).unwrap();
        let e = migration.contract().unwrap().execute().unwrap_err();
        assert!(e.to_string().contains(&format!("{id:016x}")), "{id}: {e}");
        overlay.put(&id.to_be_bytes(), &entry).unwrap();
    }
    s.contract(&migration);
    let ledger = s.store.ledger().unwrap();
    let contract = ledger.iter().find(|entry| entry.what == "contract").unwrap();
    assert_eq!(contract.counts[0], ("users verified".to_owned(), 1000));
}

#[test]
fn a_wait_that_would_not_end_is_refused() {
    let s = scene(5);
    let migration = s.begin();
    let refused = |said: &str| {
        let waiter = migration.clone();
        let e = elsewhere("a wait", move || waiter.wait()).unwrap_err();
        assert!(e.to_string().contains(said), "{e}");
    };
    refused("its backfill is paused; unpause it");
    migration.rollback().unwrap();
    refused("nothing is in progress; resume it");
    migration.resume().unwrap();
    migration.unpause().unwrap();
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    // Complete is the end of a wait, paused or not.
    migration.pause().unwrap();
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
}

/// A close waits for the worker, wherever that is.
#[test]
fn nothing_is_at_work_after_a_close() {
    let s = scene(300);
    let migration = s.begin();
    let closing = Beside::new();
    let (store, table) = (s.store.clone(), s.new.clone());
    let ended = Arc::new(AtomicBool::new(false));
    let (end, (told, waits)) = (Arc::clone(&ended), std::sync::mpsc::channel());
    let close = closing.hook(move || {
        let closed = store.close();
        end.store(true, Ordering::SeqCst);
        closed
    });
    // A scan is made under no gate. What is seen here is judged below: a panic would be the worker's.
    s.engine.before(Call::Scan, BASE, 2, move || {
        close();
        until("the close", || table.get(&1).is_err());
        told.send(!ended.load(Ordering::SeqCst)).unwrap();
    });
    migration.unpause().unwrap();
    assert!(waits.recv_timeout(PATIENCE).unwrap());
    closing.join().unwrap();
    assert!(s.engine.dump(OVERLAY).len() < 300);
}

/// What is kept of the backfill's way goes with the migration.
#[test]
fn a_closed_migration_leaves_no_progress_behind() {
    let s = scene(5);
    let kept = || s.engine.dump(CATALOG).keys().filter(|key| key.starts_with(b"progress/")).count();
    for (name, contracts) in [("first", false), ("second", true)] {
        let migration = s.store.plan(name).table(&s.new).paused().begin().unwrap();
        complete(&migration);
        assert_eq!(kept(), 1);
        if contracts {
            s.contract(&migration);
        } else {
            migration.rollback().unwrap();
            migration.abandon(NewWrites::Discard).unwrap().execute().unwrap();
        }
        assert_eq!(kept(), 0);
    }
}

#[test]
fn records_that_go_to_the_quarantine_are_counted() {
    let s = scene(5);
    for id in [1, 3] {
        s.old.put(&id, &v1("Nolastname", 1)).unwrap();
    }
    let migration = s.begin();
    let counts = || migration.status().unwrap().tables[0].counts;
    complete(&migration);
    assert_eq!((counts().copied, counts().quarantined), (5, 2));
    for id in [2, 4] {
        s.old.put(&id, &v1("Nolastname", 1)).unwrap();
    }
    complete(&migration);
    assert_eq!((counts().brought_forward, counts().quarantined), (0, 4));
}

/// In each stage: taking back what is derived, copying, and the pass that brings forward what old code wrote.
#[test]
fn a_step_after_a_restart_does_no_more_than_it_was_asked_for() {
    let s = scene(64);
    let migration = s.begin();
    complete(&migration);
    for id in 0..64 {
        s.old.put(&id, &first(id)).unwrap();
        s.new.remove(&(100 + id)).unwrap();
    }
    for id in 200..264 {
        s.new.put(&id, &first2(id)).unwrap();
        s.old.put(&id, &first(id)).unwrap();
    }
    complete(&migration);
    let counts = |status: &exuvia::migration::Status| status.tables[0].counts;
    let derived = || s.engine.dump(OVERLAY).values().filter(|bytes| raw(bytes).flags & DERIVED != 0).count();
    assert_eq!(derived(), 64);
    for id in 200..264 {
        s.old.put(&id, &first(id)).unwrap();
    }
    migration.restart().unwrap();
    assert_eq!(derived(), 64);
    let mut before = counts(&migration.step(16).unwrap());
    assert_eq!(derived(), 48);
    for _ in 0..100 {
        let status = migration.step(16).unwrap();
        let now = counts(&status);
        assert!(now.copied <= before.copied + 16, "{before:?} {now:?}");
        assert!(now.brought_forward <= before.brought_forward + 16, "{before:?} {now:?}");
        before = now;
        if status.phase == Phase::Complete {
            break;
        }
    }
    assert_eq!(phase(&migration), Phase::Complete);
    assert_eq!(s.all_new().len(), 128);
}

/// The proof of a contract looks at every record: it is made at a lower priority than the caller's, which stays as it is.
#[test]
#[cfg(target_os = "linux")]
fn a_contract_proves_at_a_low_priority() {
    // The nineteenth field; the second is the thread's name, in brackets.
    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields = stat.rsplit(')').next().unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }
    let s = scene(5);
    let migration = s.begin();
    complete(&migration);
    let own = nice();
    assert!(own < 19, "nothing is lower");
    let (seen, at) = std::sync::mpsc::channel();
    s.engine.before(Call::Scan, OVERLAY, 1, move || seen.send(nice()).unwrap());
    s.contract(&migration);
    assert!(at.recv().unwrap() > own);
    assert_eq!(nice(), own);
}
