//! Whoever waits for background work is heard while that rests. Here it rests for an hour after each batch, so a verb that
//! returns was heard, and one that was not would not return.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::MemoryEngine;
use crate::migration::NewWrites;
use crate::migration::tests_sample::{One, Two};
use crate::sync::thread;
use crate::table::fill::Fill;
use crate::{Budget, Error, Migration, Phase, Store, Table};

/// More than any batch before the first rest.
const RECORDS: u64 = 200;

fn resting() -> Budget {
    Budget::default().resting(Duration::from_secs(3600))
}

struct Scene {
    store: Store,
    old: Table<u64, One>,
    migration: Migration,
}

impl Scene {
    /// A migration that is begun and paused; whatever is paced by the store's budget rests long.
    fn new() -> Self {
        let store = Store::options().budget(resting()).open_in(Arc::new(MemoryEngine::new())).unwrap();
        let old: Table<u64, One> = store.table("t").unwrap();
        (0..RECORDS).for_each(|key| old.put(&key, &One(1)).unwrap());
        let new: Table<u64, Two> = store.table("t").unwrap();
        let migration = store.plan("m").table(&new).paused().begin().unwrap();
        Scene { store, old, migration }
    }

    fn complete() -> Self {
        let scene = Scene::new();
        scene.migration.set_budget(Budget::unlimited()).unwrap();
        scene.migration.unpause().unwrap();
        scene.migration.wait().unwrap();
        scene.migration.set_budget(resting()).unwrap();
        scene
    }

    /// Returns when one more batch is done, after which the work rests.
    fn after_a_batch(&self, since: u64) {
        until(|| self.batches() > since);
    }

    fn batches(&self) -> u64 {
        self.store.stats().unwrap().batches.count()
    }
}

fn until(done: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("nothing was done for a minute");
}

/// Calls a verb that has to wait for work that rests.
fn heard<R: Send + 'static>(verb: impl FnOnce() -> R + Send + 'static) -> R {
    let calling = thread::spawn(verb);
    until(|| calling.is_finished());
    calling.join().unwrap()
}

#[test]
fn a_rollback_is_heard_by_the_backfill() {
    let scene = Scene::new();
    scene.migration.unpause().unwrap();
    scene.after_a_batch(0);
    let migration = scene.migration.clone();
    heard(move || migration.rollback()).unwrap();
    let status = scene.migration.status().unwrap();
    assert_eq!(status.phase, Phase::RolledBack);
    assert!((1..RECORDS).contains(&status.tables[0].counts.copied), "{status:?}");
}

#[test]
fn a_pause_is_heard_by_the_forwarding() {
    let scene = Scene::complete();
    scene.migration.pause().unwrap();
    (0..RECORDS).for_each(|key| scene.old.put(&key, &One(2)).unwrap());
    let before = scene.batches();
    scene.migration.unpause().unwrap();
    scene.after_a_batch(before);
    let migration = scene.migration.clone();
    heard(move || migration.pause()).unwrap();
    let counts = scene.migration.status().unwrap().tables[0].counts;
    assert!((1..RECORDS).contains(&counts.brought_forward), "{counts:?}");
}

#[test]
fn a_rollback_is_heard_by_the_proof_of_a_contract() {
    let scene = Scene::complete();
    let before = scene.batches();
    let plan = scene.migration.contract().unwrap();
    let contract = thread::spawn(move || plan.execute());
    scene.after_a_batch(before);
    let migration = scene.migration.clone();
    heard(move || migration.rollback()).unwrap();
    assert!(matches!(heard(move || contract.join().unwrap()), Err(Error::Conflict { .. })));
    assert_eq!(scene.migration.status().unwrap().phase, Phase::RolledBack);
}

#[test]
fn a_close_is_heard_by_the_fold() {
    let scene = Scene::complete();
    scene.migration.rollback().unwrap();
    (0..RECORDS).for_each(|key| scene.old.put(&key, &One(2)).unwrap());
    let before = scene.batches();
    let plan = scene.migration.abandon(NewWrites::Keep).unwrap();
    let abandon = thread::spawn(move || plan.execute());
    scene.after_a_batch(before);
    let store = scene.store.clone();
    heard(move || store.close()).unwrap();
    assert!(matches!(heard(move || abandon.join().unwrap()), Err(Error::Closed)));
}

#[test]
fn a_drop_of_a_table_is_heard_by_the_sweep() {
    let scene = Scene::complete();
    scene.migration.set_budget(Budget::unlimited()).unwrap();
    scene.migration.contract().unwrap().execute().unwrap();
    let core = Arc::clone(scene.store.core());
    heard(move || core.stop_sweeper());
    let before = scene.batches();
    scene.store.core().start_sweeper();
    scene.after_a_batch(before);
    assert!(scene.store.core().is_sweeping(), "there is more to sweep");
    let store = scene.store.clone();
    heard(move || store.drop_table("t")).unwrap();
}

#[test]
fn a_close_is_heard_by_a_caller_that_fills_a_table() {
    let store = Store::options().budget(resting()).open_in(Arc::new(MemoryEngine::new())).unwrap();
    let filling = thread::spawn({
        let store = store.clone();
        move || {
            let table: Table<u64, One> = store.table("t").unwrap();
            let mut fill = Fill::begin(store.core(), table.state(), 1, resting()).unwrap();
            (0..RECORDS).try_for_each(|key| fill.append(&key.to_be_bytes(), &[]))
        }
    });
    until(|| store.stats().unwrap().batches.count() > 0);
    store.close().unwrap();
    assert!(matches!(heard(move || filling.join().unwrap()), Err(Error::Closed)));
}
