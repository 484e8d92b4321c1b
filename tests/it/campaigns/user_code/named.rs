//! What the matrix does not come to: slow casts and how soon they are interrupted, rings, threads that end or cannot begin.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use exuvia::engine::EngineErrorKind;
use exuvia::engine::MemoryEngine;
use exuvia::measure::{LedgerEntry, Observer, Pause, Work};
use exuvia::migration::{Backfill, NewWrites, Waiting};
use exuvia::{Budget, CastError, Error, Migration, Origin, Phase, Store, Table, Version};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::kit::hook_engine::{Call, HookEngine, elsewhere};
use crate::kit::scene::{OVERLAY, complete, first, options, phase, scene, scene_with, until};
use crate::kit::types::*;

type Cast = Arc<dyn Fn() + Send + Sync>;

/// What every upcast of [`Two`] does first, by the number in the record; tests have numbers of their own.
static CASTS: Mutex<Vec<(u64, Cast)>> = Mutex::new(Vec::new());

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct One(u64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Two(u64, u8);

impl Version for One {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for Two {
    const VERSION: u32 = 2;
    type Previous = One;

    fn upcast(previous: One) -> Result<Self, CastError> {
        let cast =
            CASTS.lock().iter().find(|(number, _)| *number == previous.0).map(|(_, cast)| Arc::clone(cast));
        if let Some(cast) = cast {
            cast();
        }
        Ok(Two(previous.0, 0))
    }

    fn downcast(&self, _: Option<One>) -> Result<One, CastError> {
        Ok(One(self.0))
    }
}

/// Upcasts of records with this number, from here on.
struct Casting(u64);

impl Casting {
    fn set(number: u64, cast: impl Fn() + Send + Sync + 'static) -> Casting {
        CASTS.lock().push((number, Arc::new(cast)));
        Casting(number)
    }
}

impl Drop for Casting {
    fn drop(&mut self) {
        CASTS.lock().retain(|(number, _)| *number != self.0);
    }
}

/// 500 records with one number.
fn numbered(store: &Store, table: &str, number: u64) -> (Table<u64, One>, Table<u64, Two>) {
    let old: Table<u64, One> = store.table(table).unwrap();
    for id in 0..500 {
        old.put(&id, &One(number)).unwrap();
    }
    (old, store.table(table).unwrap())
}

fn memory() -> Store {
    options().open_in(Arc::new(MemoryEngine::new())).unwrap()
}

/// Verbs beside casts that take long: how many casts begin after one was called.
fn casts_after(
    verb: impl FnOnce(&Store, &Migration, &Table<u64, One>) + Send + 'static,
    number: u64,
) -> usize {
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = Arc::clone(&slow);
    let _casting = Casting::set(number, move || {
        counted.fetch_add(1, Ordering::SeqCst);
        if is_slow.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let store = memory();
    let (old, new) = numbered(&store, "t", number);
    let migration = store.plan("m").table(&new).begin().unwrap();
    until("a cast", || begun.load(Ordering::SeqCst) > 0);
    let before = begun.load(Ordering::SeqCst);
    elsewhere("the verb", move || verb(&store, &migration, &old));
    slow.store(false, Ordering::SeqCst);
    begun.load(Ordering::SeqCst) - before
}

#[test]
fn a_verb_waits_for_one_cast_and_not_for_a_batch_of_them() {
    // The one under way when it was called may have been the next; a resume and a restart begin to cast again.
    assert!(casts_after(|_, migration, _| migration.rollback().unwrap(), 1) <= 1);
    assert!(casts_after(|_, migration, _| migration.pause().unwrap(), 2) <= 1);
    assert!(casts_after(|store, _, _| store.clone().close().unwrap(), 3) <= 1);
}

/// Old writers' records are brought forward beside the backfill, and by the proof of a contract.
#[test]
fn a_rollback_waits_for_one_cast_of_what_old_writers_left() {
    for proof in [false, true] {
        let (begun, slow) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, is_slow) = (Arc::clone(&begun), Arc::clone(&slow));
        let _casting = Casting::set(4, move || {
            if is_slow.load(Ordering::SeqCst) {
                counted.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let store = memory();
        let (old, new) = numbered(&store, "t", 4);
        let migration = store.plan("m").table(&new).begin().unwrap();
        migration.wait().unwrap();
        migration.pause().unwrap();
        for id in 0..100 {
            old.put(&id, &One(4)).unwrap();
        }
        slow.store(true, Ordering::SeqCst);
        let contracting = migration.clone();
        let contract = proof.then(|| thread::spawn(move || contracting.contract().unwrap().execute()));
        if !proof {
            migration.unpause().unwrap();
        }
        until("a cast", || begun.load(Ordering::SeqCst) > 0);
        let before = begun.load(Ordering::SeqCst);
        let rolling = migration.clone();
        elsewhere("a rollback", move || rolling.rollback().unwrap());
        assert!(begun.load(Ordering::SeqCst) - before <= 1, "proof: {proof}");
        if let Some(contract) = contract {
            assert!(matches!(contract.join().unwrap(), Err(Error::Conflict { .. })));
        }
        // No fence is left.
        old.put(&1, &One(4)).unwrap();
        slow.store(false, Ordering::SeqCst);
        migration.resume().unwrap();
        migration.unpause().unwrap();
        migration.wait().unwrap();
        migration.contract().unwrap().execute().unwrap();
        assert!(store.verify().unwrap().is_clean());
    }
}

#[test]
fn a_contract_that_is_known_to_fail_fences_nobody_off() {
    let bad = Arc::new(AtomicBool::new(true));
    let is_bad = Arc::clone(&bad);
    let _casting = Casting::set(5, move || assert!(!is_bad.load(Ordering::SeqCst), "not this one"));
    let store = memory();
    let (old, new) = numbered(&store, "t", 6);
    old.put(&77, &One(5)).unwrap();
    let migration = store.plan("m").table(&new).begin().unwrap();
    migration.wait().unwrap();
    let flips = || store.stats().unwrap().flips.count();
    let before = flips();
    let refused = migration.contract().unwrap().execute().unwrap_err();
    assert!(
        refused.to_string().contains("it is in quarantine: ") && refused.to_string().contains("not this one"),
        "{refused}"
    );
    assert_eq!(flips(), before, "a fence was raised for it");
    // What was overwritten since is in nobody's way.
    new.put(&77, &Two(6, 0)).unwrap();
    migration.contract().unwrap().execute().unwrap();
    assert!(flips() > before);
}

#[test]
fn whoever_waits_beside_old_writers_that_are_faster_is_told() {
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = Arc::clone(&slow);
    let _casting = Casting::set(7, move || {
        if is_slow.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let store = memory();
    let (old, new) = (store.table::<u64, One>("t").unwrap(), store.table::<u64, Two>("t").unwrap());
    let migration = store.plan("m").table(&new).begin().unwrap();
    migration.wait().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, stopped) = (old.clone(), Arc::clone(&stop));
    let writing = thread::spawn(move || {
        for id in (0_u64..).take_while(|_| !stopped.load(Ordering::SeqCst)) {
            writer.put(&(id % 1000), &One(7)).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
    });
    until("the backlog", || migration.status().unwrap().tables[0].backlog > 10);
    let waiting = migration.clone();
    match elsewhere("a wait", move || waiting.wait()) {
        Err(Error::Behind { migration, records }) => assert!(migration == "m" && records > 0, "{records}"),
        other => panic!("{other:?}"),
    }
    stop.store(true, Ordering::SeqCst);
    writing.join().unwrap();
    slow.store(false, Ordering::SeqCst);
    assert_eq!(elsewhere("a wait", move || migration.wait()).unwrap().phase, Phase::Complete);
}

#[test]
fn a_transaction_that_takes_longer_than_the_time_between_two_flips_comes_to_its_end() {
    let s = scene(10);
    let migration = s.begin();
    complete(&migration);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let flipping = thread::spawn(move || {
        let mut flips = 0;
        while !stopped.load(Ordering::SeqCst) {
            migration.rollback().unwrap();
            migration.resume().unwrap();
            thread::sleep(Duration::from_millis(5));
            flips += 2;
        }
        flips
    });
    let mut tries = 0;
    let done = s.store.transaction::<_, Error>(|tx| {
        tries += 1;
        let record = tx.get(&s.new, &1)?;
        thread::sleep(Duration::from_millis(60));
        tx.put(&s.new, &2, &record.unwrap())
    });
    stop.store(true, Ordering::SeqCst);
    assert!(flipping.join().unwrap() > 0);
    done.unwrap();
    // Others may have flipped while it waited for its turn, on a machine that is busy.
    assert!(tries < 32, "{tries} tries");
}

/// What holds others' flips off does not hold off its own.
#[test]
fn a_transaction_may_change_the_state_whether_or_not_it_holds_that_off() {
    let s = scene(10);
    let migration = s.begin();
    complete(&migration);
    elsewhere("the transaction", move || {
        let mut tries = 0;
        let done = s.store.transaction::<_, Error>(|tx| {
            tries += 1;
            let record = tx.get(&s.new, &1)?;
            // Its own verbs overtake it, first three times without a hold and then with one.
            match tries {
                1 | 3 | 5 => migration.rollback()?,
                2 | 4 | 6 => migration.resume()?,
                _ => {}
            }
            tx.put(&s.new, &2, &record.unwrap())
        });
        done.unwrap();
        assert_eq!(tries, 7);
        migration.rollback().unwrap();
    });
}

/// A flip goes before a transaction that takes too long.
#[test]
fn a_transaction_holds_a_rollback_off_for_a_while_only() {
    let s = scene(10);
    let migration = s.begin();
    complete(&migration);
    let (held, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_held, may_go_on) = (Arc::clone(&held), Arc::clone(&go_on));
    let (store, new, own) = (s.store.clone(), s.new.clone(), migration.clone());
    let transaction = thread::spawn(move || {
        let mut tries = 0;
        store.transaction::<_, Error>(|tx| {
            tries += 1;
            let record = tx.get(&new, &1)?;
            if tries <= 3 {
                if tries % 2 == 1 { own.rollback()? } else { own.resume()? }
            }
            if tries == 4 {
                is_held.store(true, Ordering::SeqCst);
                until("the rollback", || may_go_on.load(Ordering::SeqCst));
            }
            tx.put(&new, &2, &record.unwrap())
        })
    });
    until("the hold", || held.load(Ordering::SeqCst));
    let resuming = migration.clone();
    elsewhere("a resume", move || resuming.resume().unwrap());
    go_on.store(true, Ordering::SeqCst);
    transaction.join().unwrap().unwrap();
}

#[test]
fn a_worker_that_a_panic_ends_is_seen() {
    let engine = HookEngine::new(MemoryEngine::recording());
    let store = options().open_in(Arc::new(engine.clone())).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..50 {
        old.put(&id, &first(id)).unwrap();
    }
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let panicked = AtomicU64::new(0);
    engine.watch(move |call, tree| {
        if call == Call::Cas && tree == OVERLAY && panicked.fetch_add(1, Ordering::SeqCst) == 20 {
            panic!("the engine has a fault");
        }
    });
    let migration = store.plan("split").table(&new).begin().unwrap();
    let waiting = migration.clone();
    let told = elsewhere("a wait", move || waiting.wait()).unwrap_err();
    assert!(told.to_string().contains("panicked: the engine has a fault; unpause"), "{told}");
    let backfill = migration.status().unwrap().backfill;
    assert!(matches!(backfill, Backfill::Waiting(Waiting::Failed { .. })), "{backfill:?}");
    migration.unpause().unwrap();
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    migration.contract().unwrap().execute().unwrap();
    assert_eq!(new.len().unwrap(), 50);
}

/// In any driver: here it is a step, whose caller sees the panic.
#[test]
fn what_a_panic_took_out_of_the_backlog_is_brought_forward() {
    let s = scene(10);
    let migration = s.begin();
    complete(&migration);
    s.old.put(&3, &v1("Old Writer", 9)).unwrap();
    let panicked = AtomicU64::new(0);
    s.engine.watch(move |call, tree| {
        if call == Call::Cas && tree == OVERLAY && panicked.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("the engine has a fault");
        }
    });
    assert!(catch_unwind(AssertUnwindSafe(|| migration.step(10))).is_err());
    complete(&migration);
    assert_eq!(migration.status().unwrap().tables[0].counts.brought_forward, 1);
}

/// A worker tells of each call of a batch when that is done.
#[test]
fn a_verb_does_not_wait_until_a_slow_observer_has_heard_of_everything() {
    /// From its 5000th piece of work on, until it may be fast again.
    #[derive(Default)]
    struct Slow(AtomicUsize, AtomicBool);

    impl Observer for Slow {
        fn work(&self, _: &Work) {
            if self.0.fetch_add(1, Ordering::SeqCst) >= 5000 && !self.1.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    let slow = Arc::new(Slow::default());
    let observer: Arc<dyn Observer> = Arc::clone(&slow) as _;
    let options =
        options().observer(observer).observe_pauses_from(Duration::ZERO).budget(Budget::unlimited());
    let s = scene_with(options, HookEngine::new(MemoryEngine::recording()), 10_000);
    let migration = s.begin();
    migration.unpause().unwrap();
    let told = || slow.0.load(Ordering::SeqCst);
    until("it is slow", || told() > 5002);
    let before = told();
    let own = migration.clone();
    elsewhere("a rollback", move || own.rollback().unwrap());
    let told = told() - before;
    slow.1.store(true, Ordering::SeqCst);
    assert!(told < 50, "{told} pieces of work were told of first");
}

/// It may hold a lock of its own while it is told of something.
#[test]
fn pauses_of_an_observer_s_own_calls_are_not_told_to_it() {
    #[derive(Default)]
    struct Reads {
        table: Mutex<Option<Table<u64, UserV1>>>,
        reading: AtomicBool,
        told: AtomicUsize,
    }

    impl Observer for Reads {
        fn pause(&self, _: &Pause<'_>) {
            if self.reading.load(Ordering::SeqCst) {
                self.told.fetch_add(1, Ordering::SeqCst);
            }
        }

        fn state_change(&self, entry: &LedgerEntry) {
            let table = self.table.lock().clone();
            if let Some(table) = table.filter(|_| entry.what == "complete") {
                self.reading.store(true, Ordering::SeqCst);
                // By the worker, which is at work in the background.
                table.get(&1).unwrap();
                self.reading.store(false, Ordering::SeqCst);
            }
        }
    }

    let reads = Arc::new(Reads::default());
    let observer: Arc<dyn Observer> = Arc::clone(&reads) as _;
    let options = options().observer(observer).observe_pauses_from(Duration::ZERO);
    let s = scene_with(options, HookEngine::new(MemoryEngine::recording()), 10);
    *reads.table.lock() = Some(s.old.clone());
    let migration = s.begin();
    migration.unpause().unwrap();
    migration.wait().unwrap();
    migration.pause().unwrap();
    assert_eq!(reads.told.load(Ordering::SeqCst), 0);
    reads.table.lock().take();
}

#[test]
fn a_flush_that_panics_stops_the_store_and_hangs_nobody() {
    let engine = HookEngine::new(MemoryEngine::recording());
    let store = options().open_in(Arc::new(engine.clone())).unwrap();
    let _table: Table<u64, UserV1> = store.table("users").unwrap();
    engine.watch(|call, _| assert!(call != Call::Flush, "the engine has a fault"));
    let (first, second) = (store.clone(), store.clone());
    assert!(matches!(elsewhere("a flush", move || first.flush()), Err(Error::Poisoned { .. })));
    assert!(matches!(elsewhere("a flush", move || second.flush()), Err(Error::Poisoned { .. })));
    assert!(matches!(elsewhere("a close", move || store.close()), Err(Error::Poisoned { .. })));
}

/// Two workers, each of which calls a verb of the other's migration: one is refused, or both would wait for ever.
#[test]
fn user_code_of_two_migrations_does_not_wait_in_a_ring() {
    for stores in [1, 2] {
        let stores: Vec<Store> = (0..stores).map(|_| memory()).collect();
        let (left, right) = (&stores[0], &stores[stores.len() - 1]);
        let answers = Arc::new(Mutex::new(Vec::new()));
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let mut castings = Vec::new();
        let mut migrations = Vec::new();
        for (own, other, number) in [((left, "a"), (right, "b"), 8), ((right, "b"), (left, "a"), 9)] {
            let (_old, new) = numbered(own.0, own.1, number);
            migrations.push(own.0.plan(own.1).table(&new).paused().begin().unwrap());
            let (other, name) = (other.0.clone(), other.1);
            let (answers, barrier, once) =
                (Arc::clone(&answers), Arc::clone(&barrier), AtomicBool::new(false));
            castings.push(Casting::set(number, move || {
                if !once.swap(true, Ordering::SeqCst) {
                    barrier.wait();
                    let answer = other.migration(name).and_then(|migration| migration.pause());
                    answers.lock().push(answer);
                }
            }));
        }
        for migration in &migrations {
            migration.unpause().unwrap();
        }
        until("both answers", || answers.lock().len() == 2);
        drop(castings);
        let refused = answers.lock().iter().filter(|answer| answer.is_err()).count();
        assert!(refused <= 1, "{:?}", answers.lock());
        for migration in migrations {
            elsewhere("to its end", move || {
                migration.unpause().unwrap();
                migration.wait().unwrap();
                migration.contract().unwrap().execute().unwrap();
            });
        }
        answers.lock().clear();
    }
}

/// The worker of one migration contracts another, whose casts, in the thread that proves it, call a verb of the first.
#[test]
fn user_code_does_not_wait_in_a_ring_over_a_proof() {
    let store = memory();
    let (old_b, new_b) = numbered(&store, "b", 11);
    let b = store.plan("b").table(&new_b).paused().begin().unwrap();
    complete(&b);
    old_b.put(&7, &One(12)).unwrap();
    let (from_proof, from_worker) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (calls, told) = (store.clone(), Arc::clone(&from_proof));
    let _proven = Casting::set(12, move || {
        if thread::current().name() == Some("exuvia-prove") {
            told.lock().push(calls.migration("a").and_then(|migration| migration.pause()));
        }
    });
    let (calls, once) = (store.clone(), AtomicBool::new(false));
    let told = Arc::clone(&from_worker);
    let _contracts = Casting::set(13, move || {
        if !once.swap(true, Ordering::SeqCst) {
            let contract = calls.migration("b").and_then(|migration| migration.contract());
            told.lock().push(contract.and_then(|plan| plan.execute()));
        }
    });
    let (_old_a, new_a) = numbered(&store, "a", 13);
    let a = store.plan("a").table(&new_a).begin().unwrap();
    until("the contract", || from_worker.lock().len() == 1);
    from_worker.lock().remove(0).unwrap();
    assert!(matches!(from_proof.lock()[..], [Err(Error::State { .. })]), "{:?}", from_proof.lock());
    assert_eq!(elsewhere("a wait", move || a.wait()).unwrap().phase, Phase::Complete);
}

/// An observer, on a thread of the store's own, lets go of the last handle.
#[test]
fn the_last_handle_may_go_in_user_code() {
    #[derive(Default)]
    struct Holder(Mutex<Option<Table<u64, UserV1>>>);

    impl Observer for Holder {
        fn work(&self, _: &Work) {
            if thread::current().name().is_some_and(|name| name.starts_with("exuvia-")) {
                drop(self.0.lock().take());
            }
        }
    }

    let scratch = crate::kit::scratch::Scratch::new("last-handle");
    let path = scratch.path().join("store");
    let holder = Arc::new(Holder::default());
    let observer: Arc<dyn Observer> = Arc::clone(&holder) as _;
    let options = || Store::options().observe_pauses_from(Duration::ZERO);
    let store = options().observer(observer).open(&path).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..200 {
        old.put(&id, &first(id)).unwrap();
    }
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    drop(store.plan("split").table(&new).begin().unwrap());
    *holder.0.lock() = Some(old);
    drop((store, new));
    until("it is closed", || holder.0.lock().is_none());
    let mut store = None;
    until("its directory is free", || {
        store = options().open(&path).ok();
        store.is_some()
    });
    let store = store.unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    store.migration("split").unwrap().wait().unwrap();
    assert_eq!(new.len().unwrap(), 200);
}

/// A child that the system gives no thread.
#[cfg(all(target_os = "linux", feature = "control"))]
#[test]
fn a_verb_is_done_without_a_thread_and_its_work_is_when_there_is_one() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use crate::kit::scratch::{child, child_argument};

    const TEST: &str =
        "campaigns::user_code::named::a_verb_is_done_without_a_thread_and_its_work_is_when_there_is_one";
    if child_argument().is_none() {
        let scratch = crate::kit::scratch::Scratch::new("threads");
        let out = child(TEST, &scratch.path().display().to_string()).output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success() && said.contains("it is done"), "{said}\n{complained}");
        return;
    }
    let path = std::path::PathBuf::from(child_argument().unwrap());
    let free = getrlimit(Resource::As);
    // No room for a stack, and those that are there are in use.
    let (idle, threads) = (Arc::new(AtomicBool::new(false)), Mutex::new(Vec::with_capacity(1000)));
    let refuse = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let used = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
        let limit = Rlimit { current: Some(used + (1 << 20)), maximum: free.maximum };
        setrlimit(Resource::As, limit).unwrap();
        idle.store(true, Ordering::SeqCst);
        let idles = || {
            let idle = Arc::clone(&idle);
            let idles = move || {
                while idle.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
            };
            thread::Builder::new().spawn(idles)
        };
        // Some of the store's may be ending still.
        for _ in 0..5 {
            while let Ok(thread) = idles() {
                threads.lock().push(thread);
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    let allow = || {
        idle.store(false, Ordering::SeqCst);
        threads.lock().drain(..).for_each(|thread| thread.join().unwrap());
        setrlimit(Resource::As, free).unwrap();
    };
    let store = Store::options().cache_bytes(8 << 20).free_bytes_min(0).open(path.join("store")).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..500 {
        old.put(&id, &first(id)).unwrap();
    }
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    // Some memory for what is done without threads.
    drop(vec![1_u8; 900 << 10]);
    let no_thread = |migration: &Migration| {
        let backfill = migration.status().unwrap().backfill;
        assert!(matches!(backfill, Backfill::Waiting(Waiting::Thread { .. })), "{backfill:?}");
    };
    refuse();
    let begun = store.plan("split").table(&new).begin();
    let told = begun.as_ref().map(no_thread);
    allow();
    told.as_ref().unwrap();
    let migration = begun.unwrap();
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    migration.rollback().unwrap();
    refuse();
    let resumed = migration.resume();
    let waited = migration.wait();
    let written = old.put(&1, &first(1));
    allow();
    // It may have the stack of the worker before it.
    resumed.unwrap();
    let refused = matches!(waited, Err(Error::State { .. }));
    assert!(refused || waited.as_ref().is_ok_and(|status| status.phase == Phase::Complete), "{waited:?}");
    written.unwrap();
    // Nobody does anything: it goes on by itself.
    until("it is done", || phase(&migration) == Phase::Complete);
    migration.rollback().unwrap();
    migration.abandon(NewWrites::Keep).unwrap().execute().unwrap();
    store.close().unwrap();
    refuse();
    let opened = Store::open(path.join("store")).map(drop);
    allow();
    let refused = matches!(&opened, Err(Error::Engine(e)) if e.kind() == EngineErrorKind::Threads);
    assert!(refused, "{opened:?}");
    let store = Store::open(path.join("store")).unwrap();
    assert_eq!(store.table::<u64, UserV1>("users").unwrap().len().unwrap(), 500);
    println!("it is done");
}
