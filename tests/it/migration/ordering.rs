//! Section 8 of the design, rule by rule: each interleaving that loses or resurrects data without its rule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use exuvia::migration::{Backfill, NewWrites};
use exuvia::{CastError, Error, Origin, Phase, Table, Version};
use serde::{Deserialize, Serialize};

use crate::kit::hook_engine::{Beside, Call, HookEngine, PATIENCE, elsewhere};
use crate::kit::scene::*;
use crate::kit::types::*;

/// Between a reader's miss in the overlay and its lookup in the base, a whole contract passes and the base is
/// emptied and dropped; between its look at the frontier and at the overlay, a restart lowers the frontier and
/// removes the entry. Both readers, by get and by scan, start again and find the record; an old reader gets the
/// error that its view is retired, never an absence.
#[test]
fn rule_01_a_read_starts_again_if_the_epoch_moved() {
    for scan in [false, true] {
        let s = scene(20);
        let migration = s.begin();
        let (m, store, engine) = (migration.clone(), s.store.clone(), s.engine.clone());
        let call = if scan { Call::Scan } else { Call::Get };
        let old = s.old.clone();
        s.engine.before(call, BASE, 1, move || {
            elsewhere("the contract", move || {
                complete(&m);
                // An old reader is at the same point.
                engine.clone().before(call, BASE, 1, move || {
                    m.contract().unwrap().execute().unwrap();
                    until("the sweep", || !store.is_sweeping());
                    assert!(!engine.record_trees().contains(&BASE.to_owned()));
                });
                let found = if scan { old.scan(..).next().unwrap().map(|_| None) } else { old.get(&13) };
                assert!(matches!(found, Err(Error::Version { version: 1, .. })), "{found:?}");
            });
        });
        if scan {
            assert_eq!(s.all_new().len(), 20);
        } else {
            assert_eq!(s.new.get(&13).unwrap(), Some(first2(13)));
        }
        assert_eq!(s.engine.clear(), 0);

        let s = scene(16);
        let migration = s.begin();
        complete(&migration);
        let (engine, m) = (s.engine.clone(), migration.clone());
        s.engine.before(call, OVERLAY, 1, move || {
            elsewhere("the restart", move || {
                m.restart().unwrap();
                m.step(16).unwrap();
                assert!(engine.dump(OVERLAY).is_empty(), "every derived entry is gone");
            });
        });
        if scan {
            assert_eq!(s.all_new().len(), 16);
        } else {
            assert_eq!(s.new.get(&13).unwrap(), Some(first2(13)));
        }
    }
}

/// A write that was prepared by one state and finds another is prepared again: an old writer that a contract
/// overtook is refused, one that an abandon overtook writes to the base. While a write is in the engine, no
/// flip takes place.
#[test]
fn rule_02_a_write_holds_the_gate_and_encodes_again_if_the_epoch_moved() {
    let s = scene(20);
    let migration = s.begin();
    complete(&migration);
    let m = migration.clone();
    s.engine.before_key(Call::Get, OVERLAY, 3, move || m.contract().unwrap().execute().unwrap());
    let refused = s.old.put(&3, &v1("Too Late", 1));
    assert!(matches!(refused, Err(Error::Version { version: 1, .. })), "{refused:?}");
    assert_eq!(s.new.get(&3).unwrap(), Some(first2(3)));

    let s = scene(20);
    let migration = s.begin();
    s.new.put(&3, &v2("New", "N", 1, None)).unwrap();
    let (m, store) = (migration.clone(), s.store.clone());
    s.engine.before_key(Call::Get, OVERLAY, 3, move || {
        m.rollback().unwrap();
        m.abandon(NewWrites::Discard).unwrap().execute().unwrap();
        // The overlay that the writer is about to look into is gone.
        until("the sweep", || !store.is_sweeping());
    });
    s.old.put(&3, &v1("In Time", 1)).unwrap();
    assert_eq!(s.old.get(&3).unwrap(), Some(v1("In Time", 1)));
    assert_eq!(s.entry(BASE, 3).unwrap().main, bytes(&v1("In Time", 1)));

    let s = scene(20);
    let migration = s.begin();
    let m = migration.clone();
    let verb = Arc::new(Mutex::new(None));
    let handle = Arc::clone(&verb);
    let flips = s.store.stats().unwrap().flips.count();
    let engine = s.engine.clone();
    s.engine.before_key(Call::Put, OVERLAY, 3, move || {
        let (committed, commit) = channel();
        engine.after(Call::Flush, "*", 1, move || committed.send(()).unwrap());
        let verb = thread::spawn(move || m.rollback_fenced());
        commit.recv_timeout(PATIENCE).unwrap();
        thread::sleep(Duration::from_millis(20));
        assert!(!verb.is_finished(), "a flip beside a write");
        *handle.lock().unwrap() = Some(verb);
    });
    s.new.put(&3, &v2("Before", "B", 1, None)).unwrap();
    verb.lock().unwrap().take().unwrap().join().unwrap().unwrap();
    assert_eq!(s.store.stats().unwrap().flips.count(), flips + 1);
    assert_eq!(s.old.get(&3).unwrap(), Some(v1("Before B", 1)));
    assert!(s.new.put(&4, &v2("After", "A", 1, None)).is_err());
}

/// All records at both views, from a crash image.
fn check_image(engine: &HookEngine, keep: impl FnMut(usize) -> bool, count: u64, what: &str) {
    let store = open(&HookEngine::new(engine.inner().crash_image(keep)));
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..count {
        assert_eq!(new.get(&id).unwrap(), Some(first2(id)), "{what}, key {id}");
        assert_eq!(old.get(&id).unwrap(), Some(first(id)), "{what}, key {id}");
    }
    assert_eq!(new.len().unwrap(), count, "{what}");
}

/// A backfill in small steps, with a flush now and then, and a restart of it: whichever single write of those
/// that were not flushed survives a loss of power, alone or as the only one that does not, every record can be
/// read. So no cursor was persisted before its page, and no entry removed before the lowered frontier.
#[test]
fn rule_03_the_frontier_is_lowered_durably_and_persisted_only_after_its_page() {
    const COUNT: u64 = 12;
    let s = scene(COUNT);
    let migration = s.begin();
    s.store.flush().unwrap();
    let check = |what: &str| {
        let lost = s.engine.inner().unflushed();
        for only in 0..lost {
            check_image(&s.engine, |n| n == only, COUNT, &format!("{what}, only write {only} of {lost}"));
        }
        for without in 0..=lost {
            check_image(
                &s.engine,
                |n| n != without,
                COUNT,
                &format!("{what}, without write {without} of {lost}"),
            );
        }
        check_image(&s.engine, |_| false, COUNT, what);
    };
    for step in 0..4 {
        migration.step(3).unwrap();
        check(&format!("copying, step {step}"));
        if step % 2 == 1 {
            s.store.flush().unwrap();
        }
    }
    complete(&migration);
    check("complete");
    migration.restart().unwrap();
    check("restart");
    migration.step(7).unwrap();
    check("reverting");
    migration.step(20).unwrap();
    check("copying again");
    complete(&migration);
    check("complete again");
}

/// A backfill worker that loses power between persisting its cursor and the rest goes on from the cursor. The
/// cursor is written while the same worker copies on: at each such write, nothing that it claims is in doubt.
#[test]
fn rule_03_a_persisted_cursor_claims_only_what_was_flushed() {
    let s = scene(40);
    let migration = s.begin();
    let failures = Arc::new(Mutex::new(0));
    for nth in 1..6 {
        let (engine, failures) = (s.engine.clone(), Arc::clone(&failures));
        s.engine.after(Call::Put, CATALOG, nth, move || {
            let last = engine.inner().unflushed() - 1;
            check_image(&engine, |n| n == last, 40, "only the cursor survives");
            *failures.lock().unwrap() += 1;
        });
    }
    // One step copies all in one go, but looks at what is durable only at its start: many small steps by one
    // caller are what a worker makes.
    let (store, m) = (s.store.clone(), migration.clone());
    for _ in 0..13 {
        m.step(3).unwrap();
        store.flush().unwrap();
    }
    complete(&migration);
    s.engine.clear();
    assert!(*failures.lock().unwrap() >= 1, "the cursor was persisted at least once");
}

/// While the overlay is folded, entries go from it to the base under the reader: whichever tree a get or a scan
/// looks at first, the key that moves between its two looks is seen. And the frontier counts as zero: a new
/// reader finds in the base what is no longer in the overlay.
#[test]
fn rule_03_while_folding_the_overlay_is_read_before_the_base_and_the_frontier_is_zero() {
    for scan in [false, true] {
        let s = scene(20);
        let migration = s.begin();
        complete(&migration);
        // 1000 and 1001 are not in the base: the fold moves them in two commits.
        for id in [1000, 1001] {
            s.new.put(&id, &v2("New", "N", 1, None)).unwrap();
        }
        migration.rollback().unwrap();
        let (at_first, first_reached) = channel();
        let (release_first, first_released) = channel::<()>();
        let (at_second, second_reached) = channel();
        let (release_second, second_released) = channel::<()>();
        s.engine.before_key(Call::Commit, OVERLAY, 1000, move || {
            at_first.send(()).unwrap();
            first_released.recv_timeout(PATIENCE).unwrap();
        });
        s.engine.before_key(Call::Commit, OVERLAY, 1001, move || {
            at_second.send(()).unwrap();
            second_released.recv_timeout(PATIENCE).unwrap();
        });
        let plan = migration.abandon(NewWrites::Keep).unwrap();
        let fold = thread::spawn(move || plan.execute());
        first_reached.recv_timeout(PATIENCE).unwrap();
        assert!((0..20).all(|id| s.entry(OVERLAY, id).is_none()), "what is derived has gone");
        for id in 0..20 {
            assert_eq!(s.new.get(&id).unwrap(), Some(first2(id)), "the frontier counts as zero");
        }
        assert_eq!(s.all_new().len(), 22);
        let moving = move || {
            release_first.send(()).unwrap();
            second_reached.recv_timeout(PATIENCE).unwrap();
        };
        let call = if scan { Call::Scan } else { Call::Get };
        s.engine.after(call, "1/*", 1, moving);
        if scan {
            assert_eq!(s.old.scan(..).filter(|r| r.is_ok()).count(), 22);
        } else {
            assert_eq!(s.old.get(&1000).unwrap(), Some(v1("New N", 1)));
        }
        assert!(s.entry(OVERLAY, 1000).is_none() && s.entry(BASE, 1000).is_some(), "it moved meanwhile");
        release_second.send(()).unwrap();
        fold.join().unwrap().unwrap();
        assert_eq!(s.all_old().len(), 22);
    }
}

/// A worker at work is gone when rollback, restart, pause or contract returns or goes on: from the verb's commit
/// on, none of its writes reaches the overlay. The same for a step by hand beside a rollback, and beside an
/// abandon that leaves it nothing to step through.
#[test]
fn rule_04_one_worker_and_verbs_join_it_first() {
    let s = scene(3000);
    let migration = s.store.plan("split").table(&s.new).begin().unwrap();
    until("the worker", || s.engine.count(Call::Cas, OVERLAY) > 20);
    migration.rollback().unwrap();
    let written = s.engine.writes(OVERLAY);
    assert!(s.engine.dump(OVERLAY).len() < 3000, "the rollback came too late for this test");
    thread::sleep(Duration::from_millis(30));
    assert_eq!(s.engine.writes(OVERLAY), written, "a write after the rollback");
    assert_eq!(migration.status().unwrap().backfill, Backfill::Stopped);

    let s = scene(40);
    let migration = s.begin();
    // The page is read, nothing of it is written: whichever of the two is first, the rollback is the last.
    let (m, rollback) = (migration.clone(), Beside::new());
    s.engine.after(Call::Scan, BASE, 1, rollback.hook(move || m.rollback()));
    let m = migration.clone();
    let _ = elsewhere("the step", move || m.step(1000));
    rollback.join().unwrap();
    let written = s.engine.writes(OVERLAY);
    assert_eq!(phase(&migration), Phase::RolledBack);
    assert!(matches!(migration.step(1000), Err(Error::State { .. })));
    assert_eq!(s.engine.writes(OVERLAY), written, "a write after the rollback");

    let s = scene(40);
    let migration = s.begin();
    let (m, abandon) = (migration.clone(), Beside::new());
    s.engine.after(
        Call::Scan,
        BASE,
        1,
        abandon.hook(move || {
            m.rollback()?;
            m.abandon(NewWrites::Discard)?.execute()
        }),
    );
    let m = migration.clone();
    let _ = elsewhere("the step", move || m.step(1000));
    abandon.join().unwrap();
    assert!(migration.step(1000).is_err());
    assert_eq!(s.all_new().len(), 40);
}

/// A restart beside a step by hand that is just completing the copy: whatever the order, the step's last word
/// ("every key of the base has an overlay entry") does not outlive the restart that removes entries.
#[test]
fn rule_04_a_restart_waits_for_a_step() {
    let s = scene(20);
    let migration = s.begin();
    let m = migration.clone();
    let restart = Arc::new(Mutex::new(None));
    let handle = Arc::clone(&restart);
    // The flush before the step persists that the copy is whole.
    s.engine.before(Call::Flush, "*", 1, move || {
        *handle.lock().unwrap() = Some(thread::spawn(move || m.restart()));
        // The restart persists the lowered frontier now, unless it waits for the step.
        thread::sleep(Duration::from_millis(30));
    });
    migration.step(20).unwrap();
    restart.lock().unwrap().take().unwrap().join().unwrap().unwrap();
    migration.step(16).unwrap();
    assert!(s.engine.dump(OVERLAY).len() < 20, "derived entries are being removed");
    s.store.flush().unwrap();
    check_image(&s.engine, |_| true, 20, "after the restart");
}

/// Someone starts the worker while a contract is proving. When the migration is closed, the worker ends: the
/// last handle that goes lets go of the engine.
#[test]
fn rule_04_a_worker_ends_with_its_migration() {
    let s = scene(20);
    let migration = s.begin();
    complete(&migration);
    let (m, unpause) = (migration.clone(), Beside::new());
    s.engine.before(Call::Scan, BASE, 1, unpause.hook(move || m.unpause()));
    // One of the two may have had to give way.
    if migration.contract().unwrap().execute().is_err() {
        unpause.join().unwrap();
        s.contract(&migration);
    } else {
        let _ = unpause.join();
    }
    drop(unpause);
    s.swept();
    let engine = Arc::new(s.engine.clone());
    let held = Arc::downgrade(&engine);
    let Scene { engine: hooks, store, old, new } = s;
    drop((store, old, new, migration));
    drop(engine);
    assert!(held.upgrade().is_none());
    // Nobody calls the engine any more.
    hooks.reset();
    until("the worker's end", || hooks.handles() == 1);
}

/// The sweep after a contract is at work in the generation that the next migration freezes as its base: begin
/// waits until the sweeper is gone, not until it is done, and then nothing changes the base any more. What was
/// not swept (tombstones, companions, marks) does not show at any view.
#[test]
fn rule_05_begin_joins_the_sweep_of_the_generation_that_becomes_its_base() {
    let s = scene(200);
    let migration = s.begin();
    for id in 0..100 {
        s.new.put(&id, &v2("New", "N", 1, Some("n@x"))).unwrap();
    }
    for id in (0..200).step_by(4) {
        s.new.remove(&id).unwrap();
    }
    complete(&migration);
    let before = s.all_new();
    let (reached, at) = channel();
    let (release, released) = channel::<()>();
    // The sweeper hangs between two of its writes, where it holds no gate.
    let engine = s.engine.clone();
    s.engine.before(Call::Cas, OVERLAY, 10, move || {
        engine.before(Call::Scan, OVERLAY, 1, move || {
            reached.send(()).unwrap();
            released.recv_timeout(PATIENCE).unwrap();
        });
    });
    s.contract(&migration);
    at.recv_timeout(PATIENCE).unwrap();
    let v3: Table<u64, UserV3> = s.store.table("users").unwrap();
    let begun = Arc::new(AtomicBool::new(false));
    let (store, flag, handle) = (s.store.clone(), Arc::clone(&begun), v3.clone());
    let begin = thread::spawn(move || {
        let migration = store.plan("born").table(&handle).paused().begin().unwrap();
        flag.store(true, Ordering::SeqCst);
        migration
    });
    thread::sleep(Duration::from_millis(30));
    let begins = s.ledger().iter().filter(|what| *what == "begin").count();
    assert_eq!(begins, 1, "begin was committed beside a sweeper");
    assert!(!begun.load(Ordering::SeqCst), "begin while a sweeper is in the engine");
    release.send(()).unwrap();
    let migration = begin.join().unwrap();
    let base = s.engine.dump(OVERLAY);
    let unswept =
        base.values().filter(|value| raw(value).flags != 0 || raw(value).companion.is_some()).count();
    assert!(unswept > 50, "begin did not wait for the sweep to be done: {unswept}");
    assert_eq!(s.all_new(), before);
    complete(&migration);
    s.swept();
    assert_eq!(s.engine.dump(OVERLAY), base, "the base is frozen");
    assert_eq!(s.all_new(), before);
    let born: BTreeMap<u64, UserV3> = v3.scan(..).map(Result::unwrap).collect();
    assert!(born.keys().eq(before.keys()));
    migration.contract().unwrap().execute().unwrap();
    assert_eq!(v3.len().unwrap(), before.len() as u64);
}

/// Transactions come later; what is there of this rule: a verb over two tables is one flip, so nobody sees one
/// table before and the other after it; and a put at `from` is conditional on the overlay entry that it read,
/// so that a new writer's record that comes in between is kept as the companion and not erased.
#[test]
fn rule_06_one_gate_for_several_tables_and_puts_at_from_check_their_entry() {
    let s = scene(10);
    let accounts: Table<u64, UserV1> = s.store.table("accounts").unwrap();
    accounts.put(&1, &first(1)).unwrap();
    let accounts: Table<u64, UserV2> = s.store.table("accounts").unwrap();
    let migration = s.store.plan("both").table(&s.new).table(&accounts).paused().begin().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    // Odd while a verb is at work.
    let verbs = Arc::new(AtomicU64::new(0));
    let (users, end, seen) = (s.new.clone(), Arc::clone(&stop), Arc::clone(&verbs));
    let writer = thread::spawn(move || {
        let mut torn = 0;
        let mut rounds = 0u64;
        while !end.load(Ordering::Relaxed) {
            let record = v2("New", "N", 1, None);
            let before = seen.load(Ordering::SeqCst);
            let found = [users.put(&1, &record), accounts.put(&1, &record), users.put(&1, &record)];
            let refused = found.map(|result| result.is_err());
            // With at most one flip in this time, a fence cannot be up, down and up again, nor the reverse.
            if seen.load(Ordering::SeqCst) == before {
                torn += u64::from(refused == [true, false, true] || refused == [false, true, false]);
                rounds += 1;
            }
        }
        (torn, rounds)
    });
    let flips = s.store.stats().unwrap().flips.count();
    s.engine.reset();
    for _ in 0..50 {
        for verb in [exuvia::Migration::rollback_fenced, exuvia::Migration::resume] {
            verbs.fetch_add(1, Ordering::SeqCst);
            verb(&migration).unwrap();
            verbs.fetch_add(1, Ordering::SeqCst);
        }
    }
    assert_eq!(s.store.stats().unwrap().flips.count() - flips, 100, "one flip for each verb");
    assert_eq!(s.engine.count(Call::Cas, CATALOG), 100, "one commit for each verb");
    stop.store(true, Ordering::Relaxed);
    let (torn, rounds) = writer.join().unwrap();
    assert!(torn == 0 && rounds > 0, "{torn} of {rounds} rounds saw a flip of one table only");

    let new = s.new.clone();
    // The other table took two ids before the overlay was made.
    s.engine.before_key(Call::Cas, "1/5", 5, move || new.put(&5, &v2("New", "N", 1, Some("n@x"))).unwrap());
    s.old.put(&5, &v1("Old O", 2)).unwrap();
    assert_eq!(s.engine.clear(), 0);
    assert_eq!(s.new.get(&5).unwrap(), Some(v2("Old", "O", 2, Some("n@x"))), "the e-mail was erased");
}

/// Contract beside rollback, contract beside contract, contract beside restart: one of them wins, the other
/// gets a typed error, and the state is wholly the winner's, its fences too.
#[test]
fn rule_07_verbs_compare_and_set_what_they_read() {
    // A rollback while the contract proves.
    let s = scene(20);
    let migration = s.begin();
    complete(&migration);
    let (m, rollback) = (migration.clone(), Beside::new());
    s.engine.before(Call::Scan, BASE, 1, rollback.hook(move || m.rollback_fenced()));
    let contract = migration.contract().unwrap().execute();
    let rollback = rollback.join();
    assert_eq!(u32::from(contract.is_ok()) + u32::from(rollback.is_ok()), 1, "{contract:?}, {rollback:?}");
    let back = rollback.is_ok();
    assert_eq!(phase(&migration), if back { Phase::RolledBack } else { Phase::Contracted });
    assert_eq!(s.old.put(&1, &v1("Unfenced U", 1)).is_ok(), back);
    assert_eq!(s.new.put(&1, &v2("Fenced", "F", 1, None)).is_err(), back);

    // The same, but the rollback comes while the failed contract is lifting its fence.
    let s = scene(20);
    let migration = s.begin();
    s.old.put(&7, &v1("Nameless", 1)).unwrap();
    complete(&migration);
    let plan = migration.contract().unwrap();
    let (engine, m, rollback) = (s.engine.clone(), migration.clone(), Beside::new());
    let hook = rollback.hook(move || m.rollback_fenced());
    s.engine.before(Call::Scan, BASE, 1, move || engine.before(Call::Open, OVERLAY, 1, hook));
    assert!(plan.execute().is_err());
    // A fence that is lifted without asking the engine leaves no gap for the rollback.
    if s.engine.clear() == 0 { rollback.join() } else { migration.rollback_fenced() }.unwrap();
    assert!(
        s.new.put(&1, &v2("Fenced", "F", 1, None)).is_err(),
        "the contract took the rollback's fence down"
    );
    s.old.put(&1, &v1("Unfenced U", 1)).unwrap();

    // Two contracts.
    let s = scene(20);
    let migration = s.begin();
    complete(&migration);
    let (m, other) = (migration.clone(), Beside::new());
    s.engine.before(Call::Scan, BASE, 1, other.hook(move || m.contract()?.execute()));
    let first = migration.contract().unwrap().execute();
    assert_eq!(u32::from(first.is_ok()) + u32::from(other.join().is_ok()), 1, "{first:?}");
    assert_eq!(phase(&migration), Phase::Contracted);
    s.swept();
    assert_eq!(s.all_new().len(), 20);
    assert_eq!(s.ledger().iter().filter(|what| *what == "contract").count(), 1);
}

/// A restart, and the removal of derived entries that it begins, comes between a contract's proof and its
/// commit: the proof would hold no more, and the contract must not drop the base. One of them wins.
#[test]
fn rule_07_a_restart_takes_nothing_from_under_a_contract() {
    for complete_first in [true, false] {
        let s = scene(16);
        let migration = s.begin();
        // Copied to the last record; the phase is still open, and a restart leaves it so.
        migration.step(16).unwrap();
        if complete_first {
            complete(&migration);
        }
        let plan = migration.contract().unwrap();
        let (m, restart) = (migration.clone(), Beside::new());
        let begin_again = move || {
            m.restart()?;
            m.step(16).map(|_| ())
        };
        s.engine.raw("quarantine/users");
        s.engine.before(Call::Scan, "quarantine/users", 1, restart.hook(begin_again));
        let contract = plan.execute();
        let restart = restart.join();
        assert_eq!(u32::from(contract.is_ok()) + u32::from(restart.is_ok()), 1, "{contract:?}, {restart:?}");
        s.swept();
        assert_eq!(s.all_new().len(), 16);
        assert!(contract.is_ok() || s.all_old().len() == 16);
    }
}

/// One foreground write hangs in the engine while a rollback wants to flip: all others go on, at both views,
/// as long as it hangs. When it is done, the flip gets through.
#[test]
fn rule_08_a_flip_behind_a_slow_engine_call_does_not_queue_the_world() {
    let s = scene(20);
    let migration = s.begin();
    let (hanging, at) = channel();
    let (release, released) = channel::<()>();
    s.engine.before_key(Call::Put, OVERLAY, 1, move || {
        hanging.send(()).unwrap();
        released.recv_timeout(PATIENCE).unwrap();
    });
    let new = s.new.clone();
    let slow = thread::spawn(move || new.put(&1, &v2("Slow", "S", 1, None)));
    at.recv_timeout(PATIENCE).unwrap();
    let m = migration.clone();
    let (durable, flushed) = channel();
    s.engine.after(Call::Flush, "*", 1, move || durable.send(()).unwrap());
    let verb = thread::spawn(move || m.rollback());
    flushed.recv_timeout(PATIENCE).unwrap();
    let (old, new) = (s.old.clone(), s.new.clone());
    elsewhere("others beside a flip that waits", move || {
        for round in 0..100 {
            for id in 2..6 {
                new.put(&id, &v2("Other", "O", round, None)).unwrap();
                old.put(&(id + 6), &v1("Other O", round)).unwrap();
                assert!(old.get(&id).unwrap().is_some());
            }
            thread::sleep(Duration::from_micros(200));
        }
    });
    assert!(!verb.is_finished(), "a flip beside a write");
    release.send(()).unwrap();
    slow.join().unwrap().unwrap();
    verb.join().unwrap().unwrap();
    assert_eq!(phase(&migration), Phase::RolledBack);
}

/// Overlays of migrations that were begun, abandoned, contracted, over reopens: no two have the same tree.
#[test]
fn rule_09_generation_ids_are_never_used_again() {
    let mut s = scene(5);
    let mut used: BTreeSet<String> = s.engine.record_trees().into_iter().collect();
    for round in 0..6 {
        let name = format!("round {round}");
        let migration = s.store.plan(&name).table(&s.new).paused().begin().unwrap();
        s.new.put(&1, &v2("New", "N", 1, None)).unwrap();
        let trees: BTreeSet<String> = s.engine.record_trees().into_iter().collect();
        let fresh: Vec<_> = trees.difference(&used).cloned().collect();
        assert_eq!(fresh.len(), 1, "{name}: {trees:?}, used before: {used:?}");
        used.extend(fresh);
        migration.rollback().unwrap();
        let writes = if round % 2 == 0 { NewWrites::Discard } else { NewWrites::Keep };
        migration.abandon(writes).unwrap().execute().unwrap();
        s.swept();
        if round % 3 == 2 {
            let Scene { engine, store, old, new } = s;
            drop((old, new, migration));
            store.close().unwrap();
            let engine = HookEngine::new(engine.inner().clone());
            let store = open(&engine);
            let old = store.table("users").unwrap();
            let new = store.table("users").unwrap();
            s = Scene { engine, store, old, new };
        }
    }
    assert_eq!(s.all_new().len(), 5);
}

/// A table's creation dies after its tree was made and before its commit. The next open sweeps that tree; the
/// table is created again while it does, and must not get the very tree that is being dropped.
#[test]
fn rule_09_a_tree_that_a_crash_left_over_is_not_given_out_while_it_is_swept() {
    let s = scene(1);
    s.engine.fail(Call::Cas, CATALOG, 1);
    assert!(s.store.table::<u64, UserV1>("accounts").is_err());
    s.engine.die();
    let engine = HookEngine::new(s.engine.inner().clone());
    let left = engine.record_trees();
    assert_eq!(left.len(), 2, "{left:?}");
    let (reached, at) = channel();
    let (release, released) = channel::<()>();
    engine.before(Call::Drop, "*", 1, move || {
        reached.send(()).unwrap();
        released.recv_timeout(PATIENCE).unwrap();
    });
    let store = open(&engine);
    at.recv_timeout(PATIENCE).unwrap();
    let accounts: Table<u64, UserV1> = store.table("accounts").unwrap();
    accounts.put(&1, &first(1)).unwrap();
    release.send(()).unwrap();
    until("the sweep", || !store.is_sweeping());
    assert_eq!(accounts.get(&1).unwrap(), Some(first(1)));
    assert_eq!(accounts.len().unwrap(), 1);
}

/// What a refused change made is dropped in the background: the next must not be given the same.
#[test]
fn rule_09_the_tree_of_a_refused_begin_is_no_other_migration_s() {
    let s = scene_with(
        options().background(false),
        HookEngine::new(exuvia::engine::MemoryEngine::recording()),
        10,
    );
    let _old: Table<u64, UserV1> = s.store.table("others").unwrap();
    let others: Table<u64, UserV2> = s.store.table("others").unwrap();
    // The overlay of one table is made, that of the other cannot be.
    let known = s.engine.record_trees();
    s.engine.fail(Call::Open, "3/6", 1);
    let begin = || s.store.plan("both").table(&s.new).table(&others).paused().begin();
    begin().unwrap_err();
    assert!(s.engine.failed().is_some());
    let made = s.engine.record_trees().into_iter().filter(|tree| !known.contains(tree));
    assert_eq!(made.collect::<Vec<_>>(), ["1/5"]);
    begin().unwrap();
    s.engine.reset();
    s.new.put(&1, &first2(1)).unwrap();
    assert_eq!((s.engine.writes("1/5"), s.engine.writes("1/7")), (0, 1));
}

/// Power is lost right after the commit that closes a migration, and that commit is the only write since the
/// last flush that survives: every record is there, also what an old writer wrote last and what was folded.
#[test]
fn rule_10_flush_before_the_commit_that_closes_a_migration() {
    for end in ["contract", "keep", "discard"] {
        let s = scene(20);
        let migration = s.begin();
        complete(&migration);
        s.old.put(&3, &v1("Last L", 1)).unwrap();
        s.new.put(&4, &v2("New", "N", 1, None)).unwrap();
        s.new.remove(&5).unwrap();
        let closing = if end == "keep" { 2 } else { 1 };
        if end != "contract" {
            migration.rollback().unwrap();
            s.new.put(&6, &v2("Latest", "L", 1, None)).unwrap();
        }
        let image = Arc::new(Mutex::new(None));
        let (engine, taken) = (s.engine.clone(), Arc::clone(&image));
        s.engine.after(Call::Cas, CATALOG, closing, move || {
            let last = engine.inner().unflushed() - 1;
            *taken.lock().unwrap() = Some(engine.inner().crash_image(|n| n == last));
        });
        match end {
            "contract" => s.contract(&migration),
            "keep" => migration.abandon(NewWrites::Keep).unwrap().execute().unwrap(),
            _ => migration.abandon(NewWrites::Discard).unwrap().execute().unwrap(),
        }
        let engine = HookEngine::new(image.lock().unwrap().take().unwrap());
        let store = open(&engine);
        assert!(store.migration("split").unwrap().status().unwrap().phase.is_closed());
        let new: Table<u64, UserV2> = store.table("users").unwrap();
        let found: BTreeMap<_, _> = new.scan(..).map(Result::unwrap).collect();
        if end == "discard" {
            assert_eq!(found, (0..20).map(|id| (id, first2(id))).collect());
        } else {
            assert_eq!(found, s.all_new(), "{end}");
            assert_eq!(found.len(), 19);
            assert_eq!(found.get(&3), Some(&v2("Last", "L", 1, None)));
        }
    }
}

/// What happened up to the last close, an unfinished flush included, is made durable when a store is opened,
/// before anything is built on it: an abandon whose flush failed is found at the next open, the overlay is
/// swept, and then power is lost such that everything survives but the abandon's own commit. The same for the
/// base after a contract.
#[test]
fn rule_10_what_an_open_finds_is_flushed_before_the_sweep_builds_on_it() {
    for contract in [false, true] {
        let s = scene(20);
        let migration = s.begin();
        complete(&migration);
        for id in 0..20 {
            s.new.put(&id, &v2("New", "N", 1, None)).unwrap();
        }
        let closed = if contract {
            s.engine.fail(Call::Flush, "*", 2);
            migration.contract().unwrap().execute()
        } else {
            migration.rollback().unwrap();
            // The first flush comes before the commit, the second after it.
            s.engine.fail(Call::Flush, "*", 2);
            migration.abandon(NewWrites::Discard).unwrap().execute()
        };
        assert!(closed.is_err());
        s.engine.die();
        let inner = s.engine.inner().clone();
        assert_eq!(inner.unflushed(), 1, "the closing commit");
        let engine = HookEngine::new(inner.clone());
        let store = open(&engine);
        until("the sweep", || !store.is_sweeping());
        assert!(store.migration("split").unwrap().status().unwrap().phase.is_closed());
        let lost = inner.unflushed();
        assert!(contract || lost > 20, "the sweep wrote");
        for without in 0..lost {
            let store = open(&HookEngine::new(inner.crash_image(|n| n != without)));
            let closed = store.migration("split").unwrap().status().unwrap().phase.is_closed();
            let new: Table<u64, UserV2> = store.table("users").unwrap();
            let kept = contract || !closed;
            for id in 0..20 {
                let want = if kept { v2("New", "N", 1, None) } else { first2(id) };
                assert_eq!(new.get(&id).unwrap(), Some(want), "without write {without} of {lost}, key {id}");
            }
        }
    }
}

/// Between two pages of a scan, and in the middle of one, the state changes: rollback, restart, contract. The
/// scan goes on after its last key: every record once, in order, none missing.
#[test]
fn rule_11_a_scan_takes_one_epoch_per_page_and_goes_on_after_its_last_key() {
    for reverse in [false, true] {
        for inside in [false, true] {
            let s = scene(700);
            let migration = s.begin();
            migration.step(350).unwrap();
            s.new.remove(&10).unwrap();
            s.old.remove(&680).unwrap();
            let mut scan = s.new.scan(..);
            let mut keys = Vec::new();
            let mut changes: Vec<(usize, Box<dyn FnOnce() + Send>)> = Vec::new();
            let m = migration.clone();
            changes.push((5, Box::new(move || m.rollback().unwrap())));
            let m = migration.clone();
            changes.push((
                100,
                Box::new(move || {
                    m.resume().unwrap();
                    complete(&m);
                }),
            ));
            let m = migration.clone();
            changes.push((
                300,
                Box::new(move || {
                    m.restart().unwrap();
                    m.step(200).unwrap();
                }),
            ));
            let m = migration.clone();
            changes.push((
                560,
                Box::new(move || {
                    complete(&m);
                    m.contract().unwrap().execute().unwrap();
                }),
            ));
            changes.reverse();
            loop {
                if changes.last().is_some_and(|(at, _)| *at <= keys.len()) {
                    let (_, change) = changes.pop().unwrap();
                    if inside {
                        // After the page's first look, before its second.
                        s.engine.after(Call::Scan, OVERLAY, 1, move || elsewhere("a verb", change));
                    } else {
                        change();
                    }
                }
                match if reverse { scan.next_back() } else { scan.next() } {
                    Some(record) => keys.push(record.unwrap().0),
                    None => break,
                }
            }
            let mut want: Vec<u64> = (0..700).filter(|id| ![10, 680].contains(id)).collect();
            if reverse {
                want.reverse();
            }
            assert!(keys == want, "reverse {reverse}, inside a page {inside}: {} records", keys.len());
        }
    }
}

/// The backfill is complete; an old writer writes: the status says open again, with the backlog, in this
/// process and after a reopen; the ledger's `complete` stays a fact of the past. Complete again, it says so.
#[test]
fn rule_12_a_from_write_after_complete_makes_it_incomplete_visibly() {
    let s = scene(40);
    let migration = s.begin();
    assert_eq!(complete(&migration).phase, Phase::Complete);
    s.new.put(&1, &v2("New", "N", 1, None)).unwrap();
    assert_eq!(phase(&migration), Phase::Complete, "a new writer leaves nothing to do");
    s.old.put(&2, &v1("Old O", 1)).unwrap();
    let status = migration.status().unwrap();
    assert_eq!((status.phase, status.tables[0].backlog), (Phase::Open, 1));
    for id in 20..30 {
        s.old.put(&id, &v1("Old O", 1)).unwrap();
    }
    drop((s.old, s.new, migration));
    s.store.close().unwrap();
    let engine = HookEngine::new(s.engine.inner().clone());
    let store = open(&engine);
    let migration = store.migration("split").unwrap();
    let status = migration.status().unwrap();
    assert_eq!((status.phase, status.tables[0].backlog_unknown), (Phase::Open, true));
    let _code: Table<u64, UserV2> = store.table("users").unwrap();
    // In steps that are smaller than the overlay: the pass over it goes on where it was, and as long as it is
    // under way the migration is not complete.
    let forward = |id: u64| raw(&engine.dump(OVERLAY)[id.to_be_bytes().as_slice()]).version == 2;
    let mut steps = 0;
    while migration.step(16).unwrap().phase != Phase::Complete {
        steps += 1;
        assert!(steps < 10, "the pass does not get on");
    }
    assert!((0..40).all(forward), "complete, and a record was left behind");
}

/// Restarted, with more native entries at the start of the overlay than a step looks at: stepping gets on.
#[test]
fn rule_12_a_restart_in_small_steps_comes_to_its_end() {
    let s = scene(60);
    let migration = s.begin();
    for id in 0..40 {
        s.new.put(&id, &v2("New", "N", 1, None)).unwrap();
    }
    complete(&migration);
    migration.restart().unwrap();
    let mut steps = 0;
    while migration.step(4).unwrap().phase != Phase::Complete {
        steps += 1;
        assert!(steps < 200, "the restart does not get on");
    }
    assert_eq!(s.all_new().len(), 60);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FeetV1 {
    height: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FeetV2 {
    height: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct MetresV3 {
    metres: u64,
}

impl Version for FeetV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for FeetV2 {
    const VERSION: u32 = 2;
    type Previous = FeetV1;
    const SAME_BYTES: bool = true;

    fn upcast(old: FeetV1) -> Result<Self, CastError> {
        Ok(FeetV2 { height: old.height })
    }

    fn downcast(&self, _last: Option<FeetV1>) -> Result<FeetV1, CastError> {
        Ok(FeetV1 { height: self.height })
    }
}

impl Version for MetresV3 {
    const VERSION: u32 = 3;
    type Previous = FeetV2;

    fn upcast(old: FeetV2) -> Result<Self, CastError> {
        Ok(MetresV3 { metres: u64::from(old.height) * 3 })
    }

    fn downcast(&self, _last: Option<FeetV2>) -> Result<FeetV2, CastError> {
        Ok(FeetV2 { height: u32::try_from(self.metres / 3).map_err(|e| CastError::new(e.to_string()))? })
    }
}

/// After a migration by metadata alone the table is at version 2 and its records are still of version 1. A
/// migration from 2 to 3 reads them by upcasting, `verify` finds nothing wrong with them, a rollback and a fold
/// leave them readable at 2, and a contract ends with version 3 only.
#[test]
fn rule_13_a_base_may_hold_records_older_than_from() {
    for keep in [true, false] {
        let engine = HookEngine::new(exuvia::engine::MemoryEngine::new());
        let store = open(&engine);
        let one: Table<u64, FeetV1> = store.table("peaks").unwrap();
        for id in 0..20 {
            one.put(&id, &FeetV1 { height: id as u32 }).unwrap();
        }
        let two: Table<u64, FeetV2> = store.table("peaks").unwrap();
        let rename = store.plan("rename").table(&two).begin().unwrap();
        rename.wait().unwrap();
        rename.contract().unwrap().execute().unwrap();
        two.put(&3, &FeetV2 { height: 300 }).unwrap();
        let versions: BTreeSet<u8> = engine.dump(BASE).values().map(|value| raw(value).version).collect();
        assert_eq!(versions, BTreeSet::from([1, 2]));
        assert!(store.verify().unwrap().is_clean());

        let three: Table<u64, MetresV3> = store.table("peaks").unwrap();
        let migration = store.plan("metres").table(&three).paused().begin().unwrap();
        let height = |id: u64| if id == 3 { 300 } else { id as u32 };
        let check = || {
            for id in 0..20 {
                assert_eq!(two.get(&id).unwrap(), Some(FeetV2 { height: height(id) }));
                assert_eq!(three.get(&id).unwrap(), Some(MetresV3 { metres: u64::from(height(id)) * 3 }));
            }
            assert_eq!((two.len().unwrap(), three.len().unwrap()), (20, 20));
            assert!(store.verify().unwrap().is_clean(), "{:?}", store.verify());
        };
        check();
        migration.step(10).unwrap();
        check();
        complete(&migration);
        check();
        migration.rollback().unwrap();
        check();
        if keep {
            migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
            check();
            two.put(&3, &FeetV2 { height: 300 }).unwrap();
            check();
        } else {
            migration.resume().unwrap();
            complete(&migration);
            migration.contract().unwrap().execute().unwrap();
            until("the sweep", || !store.is_sweeping());
            let trees = engine.record_trees();
            let versions: BTreeSet<u8> =
                engine.dump(trees.last().unwrap()).values().map(|value| raw(value).version).collect();
            assert_eq!(versions, BTreeSet::from([3]));
            assert_eq!(three.len().unwrap(), 20);
            assert!(store.verify().unwrap().is_clean());
        }
    }
}

/// Rule 3, for who only counts: a record that the backfill copies, or the fold moves, between the two looks.
#[test]
fn an_inventory_counts_a_record_that_moves_meanwhile_and_counts_it_once() {
    let count = |s: &Scene| s.store.inventory().unwrap()[0].records.values().sum::<u64>();
    let s = scene(300);
    let migration = s.begin();
    s.new.put(&7, &first2(7)).unwrap();
    for tree in [BASE, OVERLAY] {
        let m = migration.clone();
        s.engine.after(Call::Scan, tree, 1, move || drop(m.step(20).unwrap()));
        assert_eq!(count(&s), 300, "copied after the look at {tree}");
    }
    complete(&migration);
    migration.rollback().unwrap();
    for id in 0..300 {
        s.old.put(&id, &first(id)).unwrap();
    }
    let fold = StandingFold::start(&s.engine, &migration, 0);
    s.engine.after(Call::Scan, OVERLAY, 1, move || fold.end());
    assert_eq!(count(&s), 300, "folded after the look at the overlay");
    assert_eq!(count(&s), 300);
}
