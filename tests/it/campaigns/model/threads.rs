//! The model beside a worker at full speed and many threads. What happens when is open here, so only what always
//! holds is checked: each thread has keys of its own, and reads at every view what it wrote, whatever the
//! backfill does and whichever version is active; a scan is in order and of known keys; contract loses nothing.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use exuvia::engine::{Engine, EngineKind, MemoryEngine};
use exuvia::{Budget, Phase as Found, Store};

use super::machine::{Opened, answer, mix};
use super::op::{self, Op};
use super::reference::*;

const THREADS: u64 = 3;
const KEYS: Key = 48;

/// Rows that every version takes, whichever is active.
fn tame(table: usize, view: u32, random: u64) -> Row {
    op::row(table, view, [random as u8 % 3, (random >> 8) as u8 % 3, (random >> 16) as u8 % 4])
}

/// One thread's operations on its own keys; answers what the world of these keys is then.
fn work(store: &Store, mut world: World, own: u64, seed: u64, stop: &AtomicBool) -> World {
    let mut opened = Opened::of(store.clone());
    let mut random = seed;
    let mut round = 0;
    while round < 200 || !stop.load(Ordering::Relaxed) {
        round += 1;
        random = mix(random);
        let table = (random % 2) as usize;
        let view = 1 + (random >> 1) as u32 % 2;
        let key = ((random >> 8) % u64::from(KEYS) / THREADS * THREADS + own) as Key;
        let made = match random >> 20 & 7 {
            0..3 => {
                let row = tame(table, view, random >> 24);
                opened.make(&Op::Put { table, key, view, row }).map(|()| world.put(table, key, view, row))
            }
            3 => opened.make(&Op::Remove { table, key, view }).map(|()| world.remove(table, key, view)),
            4 if random >> 30 & 7 == 0 => {
                let mut before = None;
                let mut scan =
                    opened.scan(table, view, (Bound::Unbounded, Bound::Unbounded)).expect("a scan");
                while let Some(next) = scan.next(false) {
                    let (key, row) = next.expect("a scan ends without an error");
                    assert!(before < Some(key) && key < KEYS, "{before:?} then {key}");
                    before = Some(key);
                    if u64::from(key) % THREADS == own {
                        let expected = world.read(table, key, view);
                        assert!(
                            world.narrow(table, key, view, &Answer::Found(row)),
                            "{row:?}, not {expected:?}"
                        );
                    }
                }
                continue;
            }
            _ => {
                let read = opened.get(table, key, view);
                let expected = world.read(table, key, view);
                let fits = world.narrow(table, key, view, &answer(&read));
                assert!(fits, "table {table}, key {key}, view {view}: {read:?} and not {expected:?}");
                continue;
            }
        };
        let plan = made.expect("a write that no rule refuses");
        world = plan.after.expect("the reference makes it too");
    }
    world
}

fn race(engine: Arc<dyn Engine>, seed: u64) {
    let options = Store::options().budget(Budget::unlimited()).free_bytes_min(0);
    let store = options.open_in(engine).expect("a store");
    let mut opened = Opened::of(store.clone());
    let mut world = World::new([1, 1]);
    for key in 0..KEYS {
        for table in 0..2 {
            let random = mix(seed ^ u64::from(key) << 8 ^ table as u64);
            let row = tame(table, 1, random);
            opened.make(&Op::Put { table, key, view: 1, row }).expect("a put");
            world = world.put(table, key, 1, row).after.expect("a put");
        }
    }
    opened.make(&Op::Begin { index: 0, tables: vec![(0, 2), (1, 2)], one_way: false }).expect("begin");
    world = world.begin(0, &[(0, 2), (1, 2)], false).after.expect("begin");
    let migration = store.migration(&migration_name(0)).expect("it is open");
    migration.unpause().expect("unpause");

    let stop = AtomicBool::new(false);
    let worlds: Vec<World> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|own| {
                let (store, world, stop) = (&store, world.clone(), &stop);
                scope.spawn(move || work(store, world, own, mix(seed ^ own << 32), stop))
            })
            .collect();
        let mut random = seed;
        for _ in 0..12 {
            random = mix(random);
            let done = match random % 4 {
                0 => migration.rollback().and_then(|()| migration.resume()),
                1 => migration.restart(),
                2 => migration.pause().and_then(|()| migration.unpause()),
                // `wait` would wait for as long as old code writes.
                _ => migration.status().map(drop),
            };
            done.expect("a verb that fits");
            std::thread::sleep(std::time::Duration::from_micros(random >> 40 & 0x3ff));
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("its asserts hold")).collect()
    });
    assert_eq!(migration.wait().expect("it completes").phase, Found::Complete);
    let check = |opened: &mut Opened, views: std::ops::RangeInclusive<u32>| {
        for (table, key) in (0..2).flat_map(|table| (0..KEYS).map(move |key| (table, key))) {
            for view in views.clone() {
                let read = opened.get(table, key, view);
                let expected = worlds[(u64::from(key) % THREADS) as usize].read(table, key, view);
                assert!(
                    expected.contains(&answer(&read)),
                    "key {key}, view {view}: {read:?}, not {expected:?}"
                );
            }
        }
    };
    check(&mut opened, 1..=3);
    migration.contract().expect("a plan").execute().expect("contract");
    check(&mut opened, 2..=3);
    opened.settle();
    check(&mut opened, 2..=3);
    let report = store.verify().expect("a report");
    assert!(report.is_clean(), "{:?}", report.damage);
    store.ledger().expect("the ledger's chain holds");
}

fn races(each: impl Fn(u64, u64)) {
    let seed = super::seed();
    for number in 0..u64::from(super::cases(3).div_ceil(20).max(3)) {
        eprintln!("seed {seed}, race {number}");
        each(number, mix(seed.wrapping_add(number)));
    }
}

#[test]
fn memory() {
    races(|_, seed| race(Arc::new(MemoryEngine::new()), seed));
}

fn on_disk(kind: EngineKind) {
    let root = super::scratch(&format!("races-{}", kind.name()));
    races(|number, seed| {
        let directory = root.join(number.to_string());
        race(kind.open(&directory, 16 << 20).expect("an engine"), seed);
    });
    std::fs::remove_dir_all(&root).expect("its own directory");
}

#[test]
fn sled() {
    on_disk(EngineKind::Sled);
}

#[cfg(feature = "fjall")]
#[test]
fn fjall() {
    on_disk(EngineKind::Fjall);
}
