//! Interleavings and failures that once lost something: verbs beside each other, beside a closing store, and
//! beside an engine that fails.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use exuvia::engine::{Engine, MemoryEngine};
use exuvia::migration::{Backfill, NewWrites};
use exuvia::{Budget, CastError, Durability, Error, Origin, Phase, Store, Table, Version};
use serde::{Deserialize, Serialize};

use crate::kit::hooks::{Hooked, Kind};
use crate::kit::types::*;
use crate::migration::both_forms::{Text, Texts};

/// The trees of the first table of a store, and of the overlay of its first migration.
const BASE: &str = "1/2";
const OVERLAY: &str = "1/3";

type Old = Table<u64, UserV1>;
type New = Table<u64, UserV2>;

fn engine() -> Hooked {
    Hooked::new(MemoryEngine::recording())
}

fn open(engine: &Hooked) -> Store {
    let options = Store::options().durability(Durability::Buffered { interval: Duration::from_secs(3600) });
    options.budget(Budget::unlimited()).open_in(Arc::new(engine.clone())).unwrap()
}

fn filled(engine: &Hooked, records: u64) -> (Store, Old, New) {
    let store = open(engine);
    let old: Old = store.table("users").unwrap();
    for id in 0..records {
        old.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    let new: New = store.table("users").unwrap();
    (store, old, new)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs `work` beside the test, and says whether it has ended after a moment.
fn beside<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> (thread::JoinHandle<R>, bool) {
    let handle = thread::spawn(work);
    let start = Instant::now();
    while !handle.is_finished() && start.elapsed() < Duration::from_millis(200) {
        thread::sleep(Duration::from_millis(2));
    }
    let finished = handle.is_finished();
    (handle, finished)
}

#[test]
fn a_pass_over_the_overlay_survives_the_end_of_its_worker() {
    let engine = engine();
    let (store, old, new) = filled(&engine, 0);
    store.plan("split").table(&new).paused().begin().unwrap();
    for id in 0..600 {
        old.put(&id, &v1(&format!("Bob B{id}"), 30)).unwrap();
    }
    drop((old, new));
    store.close().unwrap();

    let store = open(&engine);
    let _new: New = store.table("users").unwrap();
    let migration = store.migration("split").unwrap();
    // The first step begins the pass; each step is a worker of its own.
    for _ in 0..100 {
        if migration.step(16).unwrap().phase == Phase::Complete {
            break;
        }
    }
    let inventory = store.inventory().unwrap();
    assert_eq!(inventory[0].records, [(2, 600)].into(), "complete means that nothing was left behind");
    assert_eq!(migration.status().unwrap().phase, Phase::Complete);
}

#[test]
fn a_restart_gets_on_in_small_steps_over_native_entries() {
    let engine = engine();
    let (store, _old, new) = filled(&engine, 20);
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    for id in 0..100 {
        new.put(&id, &v2("Bob", "B", 30, None)).unwrap();
    }
    while migration.step(64).unwrap().phase != Phase::Complete {}
    migration.restart().unwrap();
    let done = (0..100).any(|_| migration.step(16).unwrap().phase == Phase::Complete);
    assert!(done, "it goes round and round over the first entries");
}

#[test]
fn an_abandon_that_comes_too_late_leaves_the_worker_alive() {
    for writes in [NewWrites::Keep, NewWrites::Discard] {
        let engine = engine();
        let (store, old, new) = filled(&engine, 100);
        let migration = store.plan("split").table(&new).begin().unwrap();
        migration.rollback().unwrap();
        let plan = migration.abandon(writes).unwrap();
        migration.resume().unwrap();
        migration.wait().unwrap();
        assert!(plan.execute().is_err());
        old.put(&1, &v1("Bob B", 3)).unwrap();
        eventually("the old writer's record is brought forward", || {
            store.inventory().unwrap()[0].records == [(2, 100)].into()
        });
    }
}

#[test]
fn no_worker_is_left_behind_by_an_unpause_beside_a_contract() {
    let engine = engine();
    let held: Arc<dyn Engine> = Arc::new(engine.clone());
    let weak = Arc::downgrade(&held);
    let store = Store::options().open_in(held).unwrap();
    let old: Old = store.table("users").unwrap();
    for id in 0..100 {
        old.put(&id, &v1("Ann N", 30)).unwrap();
    }
    let new: New = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    migration.step(1000).unwrap();
    let plan = migration.contract().unwrap();
    let block = engine.block(1, |call| call.kind == Kind::Scan && call.tree == BASE);
    let contract = thread::spawn(move || plan.execute());
    block.reached();
    let unpaused = migration.clone();
    let (unpause, _) = beside(move || unpaused.unpause());
    block.release();
    let _ = (contract.join().unwrap(), unpause.join().unwrap());
    assert_eq!(new.len().unwrap(), 100);
    drop((old, new, migration, store));
    eventually("the engine is let go", || weak.upgrade().is_none());
}

#[test]
fn a_restart_beside_a_contract_takes_nothing_from_under_it() {
    let engine = engine();
    let (store, _old, new) = filled(&engine, 100);
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    migration.step(1000).unwrap();
    // Rolled back and resumed, the phase is `open` again, as it is after a restart.
    migration.rollback().unwrap();
    migration.resume().unwrap();
    let plan = migration.contract().unwrap();
    // After the proof, before the commit.
    engine.raw("quarantine/users");
    let block = engine.block(1, |call| call.kind == Kind::Scan && call.tree == "quarantine/users");
    let contract = thread::spawn(move || plan.execute());
    block.reached();
    let other = migration.clone();
    let (restart, restarted) = beside(move || other.restart());
    if restarted {
        let _ = migration.step(50);
    }
    block.release();
    let _ = (contract.join().unwrap(), restart.join().unwrap());
    for id in 0..100 {
        assert!(new.get(&id).unwrap().is_some(), "{id} is lost");
    }
}

#[test]
fn a_rollback_and_resume_beside_a_contract_leave_no_old_record_behind() {
    let engine = engine();
    let (store, old, new) = filled(&engine, 100);
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    new.put(&7, &v2("Ann", "N7", 30, Some("a@b"))).unwrap();
    migration.step(1000).unwrap();
    migration.rollback().unwrap();
    migration.resume().unwrap();
    let plan = migration.contract().unwrap();
    engine.raw("quarantine/users");
    let block = engine.block(1, |call| call.kind == Kind::Scan && call.tree == "quarantine/users");
    let contract = thread::spawn(move || plan.execute());
    block.reached();
    let other = migration.clone();
    let (turned, finished) = beside(move || other.rollback().and_then(|()| other.resume()));
    if finished {
        old.put(&7, &v1("Bob B", 3)).unwrap();
    }
    block.release();
    let _ = (contract.join().unwrap(), turned.join().unwrap());
    let email = new.get(&7).unwrap().unwrap().email;
    assert_eq!(email.as_deref(), Some("a@b"), "the merge was skipped");
}

#[test]
fn a_step_beside_a_restart_does_not_raise_the_frontier() {
    let engine = engine();
    let (store, _old, new) = filled(&engine, 100);
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    let block = engine.block(10, |call| call.kind == Kind::Swap && call.tree == OVERLAY && call.done);
    let stepping = migration.clone();
    let step = thread::spawn(move || stepping.step(10));
    block.reached();
    let other = migration.clone();
    let (restart, _) = beside(move || other.restart());
    block.release();
    step.join().unwrap().unwrap();
    restart.join().unwrap().unwrap();
    // Takes the derived entries away, and copies nothing yet.
    migration.step(10).unwrap();
    for id in 0..100 {
        assert!(new.get(&id).unwrap().is_some(), "{id} is not seen");
    }
}

#[test]
fn a_failed_background_flush_stops_the_writers() {
    let engine = engine();
    let interval = Duration::from_millis(2);
    let store =
        Store::options().durability(Durability::Buffered { interval }).open_in(Arc::new(engine.clone()));
    let store = store.unwrap();
    let old: Old = store.table("users").unwrap();
    engine.fail(|call| call.kind == Kind::Flush);
    old.put(&1, &v1("Ann N", 1)).unwrap();
    eventually("writes are refused", || old.put(&2, &v1("Ann N", 1)).is_err());
    assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
}

#[test]
fn a_record_that_grows_too_large_is_quarantined_and_the_others_go_on() {
    let engine = engine();
    engine.limit_values(4000);
    let store = open(&engine);
    let old: Table<u64, Text> = store.table("texts").unwrap();
    let text = |text: &str| Text(text.to_owned());
    (0..10).for_each(|id| old.put(&id, &text("short")).unwrap());
    let new: Table<u64, Texts> = store.table("texts").unwrap();
    let migration = store.plan("texts").table(&new).begin().unwrap();
    migration.wait().unwrap();
    // Its upcast alone is over the limit.
    let long = Text(format!("thrice {}", "n".repeat(1500)));
    old.put(&3, &long).unwrap();
    old.put(&4, &text("Bob")).unwrap();
    eventually("the other record comes forward", || {
        store.inventory().unwrap()[0].records.get(&1) == Some(&1)
    });
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    assert_eq!(old.get(&3).unwrap(), Some(long));
    assert!(matches!(new.get(&3), Err(Error::Quarantined { .. })));
    assert!(migration.contract().unwrap().execute().is_err(), "it is not resolved");
    old.remove(&3).unwrap();
    migration.contract().unwrap().execute().unwrap();
}

#[test]
fn a_damaged_record_that_was_replaced_does_not_stop_a_contract() {
    let engine = engine();
    let (store, _old, new) = filled(&engine, 10);
    let tree = engine.raw(BASE);
    let mut page = Vec::new();
    tree.scan((Bound::Unbounded, Bound::Unbounded), false, 10, &mut page).unwrap();
    tree.put(&page[3].0, b"damaged").unwrap();
    let migration = store.plan("split").table(&new).begin().unwrap();
    assert_eq!(migration.wait().unwrap().tables[0].counts.quarantined, 1);
    assert!(migration.contract().unwrap().execute().is_err());
    new.put(&3, &v2("Bob", "B", 3, None)).unwrap();
    migration.contract().unwrap().execute().unwrap();
    assert_eq!(new.len().unwrap(), 10);
}

#[test]
fn the_fence_comes_down_beside_a_failing_engine() {
    let engine = engine();
    let (store, old, new) = filled(&engine, 100);
    let migration = store.plan("split").table(&new).begin().unwrap();
    migration.wait().unwrap();
    let plan = migration.contract().unwrap();
    engine.fail(|call| call.tree == BASE && matches!(call.kind, Kind::Scan | Kind::Open));
    assert!(plan.execute().is_err());
    old.put(&1, &v1("Bob B", 3)).unwrap();
    engine.clear();
    migration.wait().unwrap();
    migration.contract().unwrap().execute().unwrap();
}

#[test]
fn a_sweep_that_cannot_begin_is_no_failure_of_a_verb() {
    let engine = engine();
    let (store, _old, new) = filled(&engine, 100);
    let migration = store.plan("split").table(&new).begin().unwrap();
    migration.wait().unwrap();
    // From the contract's commit on.
    let committed = AtomicBool::new(false);
    engine.fail(move |call| {
        committed.fetch_or(call.kind == Kind::Swap && call.tree == "catalog", Ordering::SeqCst);
        call.kind == Kind::List && committed.load(Ordering::SeqCst)
    });
    migration.contract().unwrap().execute().unwrap();
    assert_eq!(migration.status().unwrap().phase, Phase::Contracted);
    assert_eq!(new.len().unwrap(), 100);
}

#[test]
fn waiting_for_a_backfill_without_its_code_says_so() {
    let engine = engine();
    let (store, old, new) = filled(&engine, 100);
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    engine.fail(|call| call.tree == OVERLAY && call.kind == Kind::Swap);
    migration.unpause().unwrap();
    drop((old, new, migration));
    store.close().unwrap();
    engine.clear();
    let store = open(&engine);
    let migration = store.migration("split").unwrap();
    assert!(matches!(migration.status().unwrap().backfill, Backfill::Waiting(_)));
    let (wait, finished) = beside(move || migration.wait());
    assert!(finished, "it waits for ever");
    assert!(wait.join().unwrap().is_err());
}

#[test]
fn a_writer_whose_overlay_was_dropped_tries_again() {
    let engine = engine();
    let (store, old, new) = filled(&engine, 10);
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    migration.rollback().unwrap();
    let block = engine.block(1, |call| call.kind == Kind::Get && call.tree == OVERLAY && !call.done);
    let writer = old.clone();
    let put = thread::spawn(move || writer.put(&1, &v1("Bob B", 3)));
    block.reached();
    migration.abandon(NewWrites::Discard).unwrap().execute().unwrap();
    eventually("the overlay is gone", || !engine.inner().trees().unwrap().iter().any(|tree| tree == OVERLAY));
    block.release();
    put.join().unwrap().unwrap();
    assert_eq!(old.get(&1).unwrap(), Some(v1("Bob B", 3)));
}

#[test]
fn close_waits_for_a_write_in_flight_and_flushes_it() {
    let engine = engine();
    let (store, old, _new) = filled(&engine, 10);
    let block = engine.block(1, |call| call.kind == Kind::Put && call.tree == BASE && !call.done);
    let writer = old.clone();
    let put = thread::spawn(move || writer.put(&77, &v1("Bob B", 3)));
    block.reached();
    let (close, _) = beside(move || store.close());
    block.release();
    let written = put.join().unwrap();
    close.join().unwrap().unwrap();
    engine.clear();
    let after = Hooked::new(engine.inner().crash_image(|_| false));
    let store = open(&after);
    let old: Old = store.table("users").unwrap();
    assert_eq!(old.get(&77).unwrap().is_some(), written.is_ok(), "acknowledged before the last flush");
}

#[test]
fn progress_is_kept_where_every_write_is_durable() {
    let engine = engine();
    let options = Store::options().durability(Durability::EveryWrite).free_bytes_min(0);
    let slow = Budget::default().pause_max(Duration::from_micros(10)).core_share(0.01);
    let store = options.budget(slow).open_in(Arc::new(engine.clone())).unwrap();
    let old: Old = store.table("users").unwrap();
    let tree = engine.raw(BASE);
    old.put(&0, &v1("Ann N", 3)).unwrap();
    for id in 1..3000 {
        old.put(&id, &v1("Ann N", 3)).unwrap();
    }
    drop(tree);
    let new: New = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).begin().unwrap();
    let catalog = engine.raw("catalog");
    eventually("the cursor is saved", || catalog.get(b"progress/1/3").unwrap().is_some());
    assert!(
        migration.status().unwrap().tables[0].counts.copied < 3000,
        "the test is too fast to say anything"
    );
}

#[test]
fn a_damaged_overlay_entry_can_be_overwritten_by_both_views() {
    let engine = engine();
    let (store, old, new) = filled(&engine, 10);
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    migration.step(100).unwrap();
    let tree = engine.raw(OVERLAY);
    let mut page = Vec::new();
    tree.scan((Bound::Unbounded, Bound::Unbounded), false, 10, &mut page).unwrap();
    for (id, write) in [(3, true), (4, false)] {
        tree.put(&page[id].0, b"damaged").unwrap();
        let key = id as u64;
        assert!(old.get(&key).unwrap_err().is_corruption() && new.get(&key).unwrap_err().is_corruption());
        if write {
            old.put(&key, &v1("Bob B", 3)).unwrap();
        } else {
            new.put(&key, &v2("Bob", "B", 3, None)).unwrap();
        }
        assert_eq!(old.get(&key).unwrap(), Some(v1("Bob B", 3)));
        assert_eq!(new.get(&key).unwrap(), Some(v2("Bob", "B", 3, None)));
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SameV1 {
    count: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SameV2 {
    count: u32,
}

impl Version for SameV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for SameV2 {
    const VERSION: u32 = 2;
    type Previous = SameV1;
    const SAME_BYTES: bool = true;

    fn upcast(old: SameV1) -> Result<Self, CastError> {
        Ok(SameV2 { count: old.count })
    }

    fn downcast(&self, _last: Option<SameV1>) -> Result<SameV1, CastError> {
        Ok(SameV1 { count: self.count })
    }
}

#[test]
fn a_fenced_rollback_binds_a_table_without_an_overlay_too() {
    let engine = engine();
    let store = open(&engine);
    let old: Table<u64, SameV1> = store.table("counts").unwrap();
    let new: Table<u64, SameV2> = store.table("counts").unwrap();
    let migration = store.plan("same").table(&new).begin().unwrap();
    new.put(&1, &SameV2 { count: 1 }).unwrap();
    migration.rollback_fenced().unwrap();
    assert!(matches!(new.put(&1, &SameV2 { count: 2 }), Err(Error::Version { .. })));
    assert!(matches!(new.remove(&1), Err(Error::Version { .. })));
    old.put(&1, &SameV1 { count: 3 }).unwrap();
    migration.resume().unwrap();
    new.put(&1, &SameV2 { count: 4 }).unwrap();
    migration.contract().unwrap().execute().unwrap();
    assert!(old.get(&1).is_err());
    assert_eq!(new.get(&1).unwrap(), Some(SameV2 { count: 4 }));
}

/// Calls a verb from the thread that tells it of a state change.
struct Meddler {
    migration: parking_lot::Mutex<Option<exuvia::Migration>>,
    refused: std::sync::atomic::AtomicBool,
}

impl exuvia::measure::Observer for Meddler {
    fn state_change(&self, entry: &exuvia::measure::LedgerEntry) {
        let migration = self.migration.lock().clone();
        if let (Some(migration), "complete") = (migration, entry.what.as_str()) {
            // Meanwhile the test asks for a rollback.
            thread::sleep(Duration::from_millis(100));
            self.refused.store(migration.pause().is_err(), std::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[test]
fn an_observer_that_calls_a_verb_from_the_worker_is_refused_and_blocks_nobody() {
    let engine = engine();
    let migration = parking_lot::Mutex::new(None);
    let meddler = Arc::new(Meddler { migration, refused: false.into() });
    let observer: Arc<dyn exuvia::measure::Observer> = Arc::clone(&meddler) as _;
    let store = Store::options().observer(observer).open_in(Arc::new(engine.clone())).unwrap();
    let old: Old = store.table("users").unwrap();
    old.put(&1, &v1("Ann N", 3)).unwrap();
    let new: New = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    *meddler.migration.lock() = Some(migration.clone());
    migration.unpause().unwrap();
    migration.wait().unwrap();
    let other = migration.clone();
    let rollback = thread::spawn(move || other.rollback());
    eventually("the rollback is done", || rollback.is_finished());
    rollback.join().unwrap().unwrap();
    eventually("the observer was answered", || meddler.refused.load(std::sync::atomic::Ordering::Relaxed));
    meddler.migration.lock().take();
}

#[test]
fn a_state_change_under_a_verification_is_no_damage() {
    let engine = engine();
    let (store, _old, new) = filled(&engine, 10);
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    migration.step(5).unwrap();
    // The ledger grows by two between the look at the catalog and its end.
    let block = engine.block(1, |call| call.kind == Kind::Scan && call.tree == "ledger" && !call.done);
    let verifying = store.clone();
    let verify = thread::spawn(move || verifying.verify());
    block.reached();
    migration.rollback().unwrap();
    migration.resume().unwrap();
    block.release();
    let report = verify.join().unwrap().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

#[test]
fn a_rollback_comes_through_under_slow_writers() {
    let engine = engine();
    let (store, _old, new) = filled(&engine, 10);
    let migration = store.plan("split").table(&new).begin().unwrap();
    migration.wait().unwrap();
    engine.hook(|call| {
        if call.kind == Kind::Put && call.tree == OVERLAY && !call.done {
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    });
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|id| {
            let (new, stop) = (new.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    new.put(&id, &v2("Bob", "B", 3, None)).unwrap();
                }
            })
        })
        .collect();
    let other = migration.clone();
    let rollback = thread::spawn(move || other.rollback());
    let start = Instant::now();
    while !rollback.is_finished() && start.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(2));
    }
    let finished = rollback.is_finished();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    rollback.join().unwrap().unwrap();
    assert!(finished, "the flip never got the gate");
}

/// A model of one key: what each thread last wrote to its own keys is what both views must show, whatever the
/// verbs beside it do.
#[test]
fn writers_lose_nothing_beside_a_storm_of_verbs() {
    let engine = engine();
    let (store, old, new) = filled(&engine, 300);
    let migration = store.plan("split").table(&new).begin().unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let spawn = |offset: u64, at_to: bool| {
        let (old, new, stop) = (old.clone(), new.clone(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut last = std::collections::BTreeMap::new();
            let mut round = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                let key = offset + u64::from(round.wrapping_mul(7)) % 30 * 10;
                let age = round % 200;
                let written = match (at_to, round % 5) {
                    (true, 0) => new.remove(&key).map(|()| None),
                    (false, 0) => old.remove(&key).map(|()| None),
                    (true, _) => new.put(&key, &v2("Bob", "B", age, Some("b@x"))).map(|()| Some(age)),
                    (false, _) => old.put(&key, &v1("Bob B", age)).map(|()| Some(age)),
                };
                match written {
                    Ok(age) => {
                        last.insert(key, age);
                    }
                    // A contract's fence: nothing was written.
                    Err(Error::Version { .. }) if !at_to => {}
                    Err(e) => panic!("{e}"),
                }
                if let Some(age) = last.get(&key) {
                    let seen = new.get(&key).unwrap().map(|record| record.age);
                    assert_eq!(seen, *age, "key {key}");
                }
            }
            last
        })
    };
    let writers: Vec<_> = (0..4).map(|offset| spawn(offset, offset % 2 == 0)).collect();
    let verbs: Vec<_> = (0..3u32)
        .map(|at| {
            let (migration, stop) = (migration.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut round = at;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    round = round.wrapping_mul(1_103_515_245).wrapping_add(12345);
                    let _ = match round >> 16 & 7 {
                        0 => migration.rollback(),
                        1 | 2 => migration.resume(),
                        3 => migration.restart(),
                        4 => migration.pause(),
                        5 => migration.unpause(),
                        6 => migration.step(20).map(|_| ()),
                        // Its proof is cut short by the other verbs, mostly.
                        _ => migration.contract().map(drop),
                    };
                }
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(800));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    verbs.into_iter().for_each(|verb| verb.join().unwrap());
    let _ = (migration.resume(), migration.unpause());
    let mut last = std::collections::BTreeMap::new();
    writers.into_iter().for_each(|writer| last.append(&mut writer.join().unwrap()));
    let check = |what: &str| {
        for id in 0..300 {
            let expected = last.get(&id).copied().unwrap_or(Some(30));
            assert_eq!(new.get(&id).unwrap().map(|record| record.age), expected, "{what}: key {id}");
        }
    };
    check("after the storm");
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    check("complete");
    for id in 0..300 {
        let expected = last.get(&id).copied().unwrap_or(Some(30));
        assert_eq!(old.get(&id).unwrap().map(|record| record.age), expected, "key {id} at the old view");
    }
    migration.contract().unwrap().execute().unwrap();
    check("contracted");
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}
