//! How far a migration has come is kept and right: over an orderly close, over a death, and in the ledger.

use std::path::Path;
use std::sync::Arc;

use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::measure::{LedgerEntry, Observer};
use exuvia::{Budget, Migration, Phase, Result, Store, Table};
use parking_lot::Mutex;

use crate::kit::hook_engine::{Beside, Call, HookEngine};
use crate::kit::scene::*;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

/// Records of the stores on disk, and how many one process takes on.
const RECORDS: u64 = 60;
const AT_A_TIME: usize = 16;

fn kinds() -> Vec<EngineKind> {
    vec![
        #[cfg(feature = "sled")]
        EngineKind::Sled,
        #[cfg(feature = "fjall")]
        EngineKind::Fjall,
    ]
}

fn open_at(path: &Path, kind: EngineKind) -> (Store, Table<u64, UserV1>, Table<u64, UserV2>) {
    let options = options().engine(kind).cache_bytes(16 << 20).free_bytes_min(0).background(false);
    let store = options.open(path).unwrap();
    let (old, new) = (store.table("users").unwrap(), store.table("users").unwrap());
    (store, old, new)
}

fn copied(migration: &Migration) -> u64 {
    migration.status().unwrap().tables[0].counts.copied
}

/// Opens the store again and again for one step, and closes it in order, until the backfill is complete. Answers how
/// often; every other time nobody calls `close`.
fn by_steps(path: &Path, kind: EngineKind) -> usize {
    for run in 1..=100 {
        let (store, old, new) = open_at(path, kind);
        let migration = store.migration("split").unwrap();
        let status = migration.step(AT_A_TIME).unwrap();
        drop((old, new, migration));
        if run % 2 == 0 {
            drop(store)
        } else {
            store.close().unwrap()
        }
        if status.phase == Phase::Complete {
            return run;
        }
    }
    panic!("{kind:?}: it never finishes");
}

#[test]
fn a_program_that_runs_for_a_few_records_at_a_time_finishes() {
    let enough = RECORDS as usize / AT_A_TIME + 3;
    for kind in kinds() {
        let scratch = Scratch::new("a-few-at-a-time");
        let path = scratch.path().join("store");
        let (store, old, new) = open_at(&path, kind);
        for id in 0..RECORDS {
            old.put(&id, &first(id)).unwrap();
        }
        store.plan("split").table(&new).paused().begin().unwrap();
        drop((old, new));
        store.close().unwrap();
        let runs = by_steps(&path, kind);
        // The copy, and a pass over as many entries of the overlay.
        assert!(runs <= 2 * enough, "{kind:?}: copied in {runs} runs");

        // What old writers left is brought forward by a pass, which goes on, too.
        let (store, old, new) = open_at(&path, kind);
        for id in 0..RECORDS {
            old.put(&id, &v1("Old Writer", 9)).unwrap();
        }
        drop((old, new));
        store.close().unwrap();
        let runs = by_steps(&path, kind);
        assert!(runs <= enough, "{kind:?}: brought forward in {runs} runs");
        let (store, old, new) = open_at(&path, kind);
        let migration = store.migration("split").unwrap();
        let counts = migration.status().unwrap().tables[0].counts;
        assert_eq!((counts.copied, counts.brought_forward), (RECORDS, RECORDS), "{kind:?}");

        // A restart goes back entry by entry, and then copies again.
        migration.restart().unwrap();
        drop((old, new, migration));
        store.close().unwrap();
        let runs = by_steps(&path, kind);
        assert!(runs <= 3 * enough, "{kind:?}: reverted and copied in {runs} runs");
        let (store, _old, new) = open_at(&path, kind);
        let migration = store.migration("split").unwrap();
        assert_eq!(migration.status().unwrap().phase, Phase::Complete);
        migration.contract().unwrap().execute().unwrap();
        assert!(new.scan(..).all(|user| user.unwrap().1.first == "Old"));
        assert!(store.verify().unwrap().is_clean());
    }
}

/// By the worker, at whatever moment the store is closed: what is seen then is there when it is opened.
#[test]
fn a_worker_goes_on_where_it_was_at_an_orderly_close() {
    let s = scene(400);
    let engine = s.engine.clone();
    s.begin();
    let slow = Budget::default().core_share(0.05);
    let mut seen = 0;
    drop(s);
    for _ in 0..5 {
        let store = options().budget(slow).free_bytes_min(0).open_in(Arc::new(engine.clone())).unwrap();
        let migration = store.migration("split").unwrap();
        let at_open = copied(&migration);
        assert!(at_open >= seen, "{seen} records were copied at the close, and {at_open} at the next open");
        let _new: Table<u64, UserV2> = store.table("users").unwrap();
        if migration.status().unwrap().phase == Phase::Complete {
            break;
        }
        migration.unpause().unwrap();
        until("some records", || copied(&migration) > at_open || copied(&migration) == 400);
        seen = copied(&migration);
        drop(migration);
        store.close().unwrap();
    }
    assert!(seen > 0);
}

/// The cursor and the counts are of one moment: records that are copied once more are not counted once more.
#[test]
fn a_death_between_two_flushes_counts_no_record_twice() {
    let s = scene(40);
    // One of them fails.
    s.old.put(&7, &v1("Single", 5)).unwrap();
    let migration = s.begin();
    for _ in 0..3 {
        migration.step(5).unwrap();
    }
    s.store.flush().unwrap();
    // Saves the first of the three.
    migration.step(5).unwrap();
    s.store.flush().unwrap();
    // All that was written survives, then only what was flushed.
    for kept in [true, false] {
        let image = s.engine.inner().crash_image(|_| kept);
        let engine = HookEngine::new(image);
        let store = open(&engine);
        let _new: Table<u64, UserV2> = store.table("users").unwrap();
        let migration = store.migration("split").unwrap();
        assert!(copied(&migration) < 40);
        let counts = complete(&migration).tables[0].counts;
        assert_eq!((counts.copied, counts.quarantined), (40, 1));
        let ledger = store.ledger().unwrap();
        let done = ledger.iter().find(|entry| entry.what == "complete").unwrap();
        assert_eq!(done.counts[0], ("users copied".to_owned(), 40));
    }
}

/// What a close wrote down of the pass is believed until old code writes again: of a death after that nobody knows what it
/// left.
#[test]
fn a_pass_begins_again_after_a_death() {
    let s = scene(40);
    let migration = s.begin();
    complete(&migration);
    drop(migration);
    let engine = s.engine.clone();
    drop(s);
    // Closed in order, and complete: nothing is walked through.
    let store = open(&engine);
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    let _new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.migration("split").unwrap();
    assert_eq!(migration.status().unwrap().phase, Phase::Complete);
    engine.reset();
    migration.step(1).unwrap();
    assert_eq!(engine.count(Call::Scan, OVERLAY), 0);
    // An old writer, and no close.
    old.put(&3, &v1("Old Writer", 9)).unwrap();
    store.flush().unwrap();
    let image = engine.inner().crash_image(|_| false);
    let engine = HookEngine::new(image);
    let store = open(&engine);
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.migration("split").unwrap();
    assert_eq!(migration.status().unwrap().phase, Phase::Open);
    complete(&migration);
    assert_eq!(raw(&engine.dump(OVERLAY)[3_u64.to_be_bytes().as_slice()]).version, 2);
    assert_eq!(new.get(&3).unwrap().unwrap().first, "Old");
}

/// What is damaged is the place of a walk: the walk begins again, and everything else is as it was.
#[test]
fn a_damaged_place_costs_time_only() {
    let s = scene(20);
    complete(&s.begin());
    let engine = s.engine.clone();
    drop(s);
    let key = b"place/1/3";
    let catalog = engine.raw(CATALOG);
    let good = catalog.get(key).unwrap().expect("a place").to_vec();
    for at in 0..good.len() {
        let image = MemoryEngine::recording();
        for (tree, key, value) in crate::kit::format::dump(&engine) {
            use exuvia::engine::Engine as _;
            image.tree(&tree).unwrap().put(&key, &value).unwrap();
        }
        let engine = HookEngine::new(image);
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        engine.raw(CATALOG).put(key, &damaged).unwrap();
        let store = open(&engine);
        let new: Table<u64, UserV2> = store.table("users").unwrap();
        assert_eq!(complete(&store.migration("split").unwrap()).phase, Phase::Complete);
        let damage = store.verify().unwrap().damage;
        assert!(damage.len() == 1 && damage[0].contains("only time is lost"), "{damage:?}");
        drop((new, store));
        assert!(open(&engine).verify().unwrap().is_clean());
    }
}

/// A sweep that a close cuts short goes on behind what it has done.
#[test]
fn a_sweep_goes_on_where_it_was_at_an_orderly_close() {
    let s = scene(0);
    let migration = s.begin();
    for id in 0..1500 {
        s.new.put(&id, &first2(id)).unwrap();
    }
    complete(&migration);
    let engine = s.engine.clone();
    let first = engine.dump(OVERLAY)[0_u64.to_be_bytes().as_slice()].clone();
    let closing = Beside::new();
    let (store, table) = (s.store.clone(), s.new.clone());
    let close = closing.hook(move || store.close());
    engine.before(Call::Cas, OVERLAY, 20, move || {
        close();
        until("the close", || table.get(&1).is_err());
    });
    s.contract(&migration);
    s.swept();
    closing.join().unwrap();
    let place = || engine.dump(CATALOG).contains_key(b"place/1/3".as_slice());
    let left = || engine.dump(OVERLAY).values().filter(|bytes| raw(bytes).companion.is_some()).count();
    assert!(place() && (1..1500).contains(&left()));
    // What nobody would sweep again: a companion behind the place.
    engine.raw(OVERLAY).put(&0_u64.to_be_bytes(), &first).unwrap();
    let store = open(&engine);
    until("the sweep", || !store.is_sweeping());
    assert_eq!((left(), place()), (1, false));
}

/// Closes the store when it is told of a change.
struct Closer {
    store: Mutex<Option<Store>>,
    at: &'static str,
    answered: Mutex<Option<Result<()>>>,
}

impl Observer for Closer {
    fn state_change(&self, entry: &LedgerEntry) {
        if entry.what == self.at
            && let Some(store) = self.store.lock().take()
        {
            *self.answered.lock() = Some(store.close());
        }
    }
}

fn closed_at(what: &'static str, engine: &HookEngine, verb: impl FnOnce(&Store)) {
    let closer = Arc::new(Closer { store: Mutex::new(None), at: what, answered: Mutex::new(None) });
    let observer: Arc<dyn Observer> = Arc::clone(&closer) as _;
    let store = options().observer(observer).open_in(Arc::new(engine.clone())).unwrap();
    *closer.store.lock() = Some(store.clone());
    verb(&store);
    closer.answered.lock().take().expect("it was told of it").unwrap();
}

#[test]
fn a_restart_that_closes_the_store_is_done_all_the_same() {
    let s = scene(50);
    let engine = s.engine.clone();
    let migration = s.begin();
    complete(&migration);
    drop((s, migration));
    closed_at("restart", &engine, |store| {
        let _new: Table<u64, UserV2> = store.table("users").unwrap();
        store.migration("split").unwrap().restart().unwrap();
    });
    let store = options().background(false).open_in(Arc::new(engine.clone())).unwrap();
    // What its cast made is made again.
    assert_eq!(copied(&store.migration("split").unwrap()), 0);
}

/// Where a pass over the overlay would go on is no place for the sweep of it to begin at.
#[test]
fn a_crash_after_a_contract_leaves_nothing_unswept() {
    let engine = HookEngine::new(MemoryEngine::recording());
    let quiet = || options().background(false);
    let s = scene_with(quiet(), engine.clone(), 50);
    let migration = s.begin();
    complete(&migration);
    s.new.put(&5, &v2("Ann", "New", 3, None)).unwrap();
    s.old.put(&30, &v1("Old Writer", 9)).unwrap();
    s.store.clone().close().unwrap();
    drop((s, migration));
    let store = quiet().open_in(Arc::new(engine.clone())).unwrap();
    let _new: Table<u64, UserV2> = store.table("users").unwrap();
    store.migration("split").unwrap().contract().unwrap().execute().unwrap();
    let image = engine.inner().crash_image(|_| false);
    let store = options().open_in(Arc::new(image)).unwrap();
    until("the sweep", || !store.is_sweeping());
    assert_eq!(store.inventory().unwrap()[0].companions, 0);
}
