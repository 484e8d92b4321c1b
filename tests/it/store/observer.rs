//! The observer is told of background work: what it was, when, and for how long; and statistics by what was going on.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use exuvia::engine::MemoryEngine;
use exuvia::measure::{Activity, Observer, Operation, Work, WorkKind};
use exuvia::{Error, Table};
use parking_lot::Mutex;

use crate::kit::hook_engine::{Call, HookEngine};
use crate::kit::scene::{OVERLAY, complete, first, first2, options, scene};
use crate::kit::types::*;

#[derive(Default)]
struct Watcher(Mutex<Vec<Work>>);

impl Observer for Watcher {
    fn work(&self, work: &Work) {
        self.0.lock().push(*work);
    }
}

const SLOW: Duration = Duration::from_millis(3);

/// A migration on an engine where flushes, drops and writes of the backfill take 3 ms.
fn observed(from: Duration) -> Vec<Work> {
    let begun = Instant::now();
    let engine = HookEngine::new(MemoryEngine::recording());
    let watcher = Arc::new(Watcher::default());
    let observer: Arc<dyn Observer> = Arc::clone(&watcher) as _;
    let options = options().observer(observer).observe_pauses_from(from);
    let store = options.open_in(Arc::new(engine.clone())).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..10 {
        old.put(&id, &first(id)).unwrap();
    }
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    engine.watch(|call, tree| {
        if matches!(call, Call::Flush | Call::Drop) || (call == Call::Cas && tree == OVERLAY) {
            thread::sleep(SLOW);
        }
    });
    let migration = store.plan("split").table(&new).begin().unwrap();
    migration.wait().unwrap();
    migration.contract().unwrap().execute().unwrap();
    while store.is_sweeping() {
        thread::sleep(Duration::from_millis(1));
    }
    store.close().unwrap();
    let works = watcher.0.lock().clone();
    for work in &works {
        assert!(work.began >= begun && work.began + work.took <= Instant::now(), "{work:?}");
    }
    works
}

#[test]
fn work_that_took_long_is_told_of_by_its_kind() {
    let works = observed(Duration::from_millis(2));
    for kind in [WorkKind::EngineCall, WorkKind::Flush, WorkKind::Drop] {
        let slow = works.iter().filter(|work| work.kind == kind && work.took >= SLOW).count();
        let least = if kind == WorkKind::EngineCall { 10 } else { 1 };
        assert!(slow >= least, "{slow} of {kind:?} among {works:?}");
    }
    assert!(works.iter().all(|work| work.took >= Duration::from_millis(2)), "nothing below the threshold");
}

#[test]
fn every_flip_is_told_of_if_the_threshold_is_zero() {
    let works = observed(Duration::ZERO);
    // One by begin, one by contract.
    assert!(works.iter().filter(|work| work.kind == WorkKind::Flip).count() >= 2, "{works:?}");
}

/// Operations count for what was going on with their table; those of several tables for the one that is migrated.
#[test]
fn latencies_are_told_by_what_was_going_on() {
    let s = scene(100);
    let others: Table<u64, UserV1> = s.store.table("others").unwrap();
    let counts = |activity| {
        let stats = s.store.stats().unwrap();
        let count = |operation| stats.latency(operation, activity).count();
        (count(Operation::Get), count(Operation::Transaction))
    };
    let one_of_each = || {
        s.new.get(&1).unwrap();
        let both = s.store.transaction(|tx| {
            tx.put(&others, &1, &first(1))?;
            tx.put(&s.new, &1, &first2(1))
        });
        both.map_err(|e: Error| e).unwrap();
    };
    one_of_each();
    assert_eq!(counts(Activity::Idle), (1, 1));
    let migration = s.begin();
    let expect = |activity| {
        let before = counts(activity);
        one_of_each();
        let after = counts(activity);
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1), "{activity}");
    };
    expect(Activity::Backfill);
    complete(&migration);
    expect(Activity::Complete);
    migration.rollback().unwrap();
    expect(Activity::Rollback);
    migration.resume().unwrap();
    complete(&migration);
    expect(Activity::Complete);
    s.contract(&migration);
    s.swept();
    expect(Activity::Idle);
}
