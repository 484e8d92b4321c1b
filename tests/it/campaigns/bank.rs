//! Transfers between accounts, whose sum nobody may ever see change: beside all verbs of migrations, and in a copy that
//! is made meanwhile; on every engine.

use std::ops::Bound::Unbounded;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::migration::NewWrites;
use exuvia::{Durability, Error, Options, Plain, Result, Store, Table, Version};

use crate::kit::kinds::kinds;
use crate::kit::scene::until;
use crate::kit::scratch::Scratch;
use crate::kit::trees::on_disk;
use crate::kit::types::*;

const ACCOUNTS: u64 = 12;
/// In each account at the start; the most that a record of these tests may hold is twice as much.
const EACH: u32 = 100;
/// Records of a bulk load.
const LOADED: u64 = 150;
const SUM: u32 = ACCOUNTS as u32 * EACH;

fn options() -> Options {
    Store::options().durability(Durability::Buffered { interval: Duration::from_millis(20) })
}

/// The same on each engine.
fn on_each(test: impl Fn(&Store)) {
    let scratch = Scratch::new("bank");
    test(&options().open_in(Arc::new(MemoryEngine::new())).unwrap());
    for kind in kinds() {
        println!("{}", kind.name());
        test(&options().open_in(on_disk(kind, &scratch)).unwrap());
    }
}

/// Ends the threads of a test, also when it fails: who started them waits for them.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Numbers that are different enough.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }

    fn pair(&mut self) -> (u64, u64) {
        let from = self.below(ACCOUNTS);
        (from, (from + 1 + self.below(ACCOUNTS - 1)) % ACCOUNTS)
    }
}

/// Moves a year from one to the other, if there is one and room for it.
fn transfer<V: Version>(
    store: &Store,
    users: &Table<u64, V>,
    age: fn(&mut V) -> &mut u32,
    (from, to): (u64, u64),
) -> Result<()> {
    store.transaction(|tx| {
        let mut user = |id| Ok::<_, Error>(tx.get(users, id)?.expect("an account is never gone"));
        let (mut a, mut b) = (user(&from)?, user(&to)?);
        let (from_age, to_age) = (age(&mut a), age(&mut b));
        if *from_age > 0 && *to_age < 2 * EACH {
            (*from_age, *to_age) = (*from_age - 1, *to_age + 1);
            tx.put(users, &from, &a)?;
            tx.put(users, &to, &b)?;
        }
        Ok(())
    })
}

fn transfer_old(store: &Store, users: &Table<u64, UserV1>, accounts: (u64, u64)) -> Result<()> {
    transfer(store, users, |user| &mut user.age, accounts)
}

fn transfer_new(store: &Store, users: &Table<u64, UserV2>, accounts: (u64, u64)) -> Result<()> {
    transfer(store, users, |user| &mut user.age, accounts)
}

/// What a thread of a storm may be told: others were faster, or the old view is retired. Answers whether to go on.
fn go_on(result: Result<()>, retires: bool) -> bool {
    match result {
        Ok(()) | Err(Error::Conflict { .. }) => true,
        Err(Error::Version { .. }) if retires => false,
        Err(e) => panic!("{e:?}"),
    }
}

fn storm(store: &Store) {
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..ACCOUNTS {
        old.put(&id, &v1(&format!("Ann N{id}"), EACH)).unwrap();
    }
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let (stop, reads, transfers) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let running = || !stop.load(SeqCst);
    let seen = |sum: u32, by: &str| {
        assert_eq!(sum, SUM, "seen by {by}");
        reads.fetch_add(1, SeqCst);
        Ok(())
    };
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        scope.spawn(|| {
            let mut numbers = Numbers(1);
            while running() && go_on(transfer_old(store, &old, numbers.pair()), true) {
                transfers.fetch_add(1, SeqCst);
            }
        });
        scope.spawn(|| {
            let mut numbers = Numbers(2);
            while running() && go_on(transfer_new(store, &new, numbers.pair()), false) {
                transfers.fetch_add(1, SeqCst);
            }
        });
        scope.spawn(|| {
            let ids = || 0..ACCOUNTS;
            let mut old_is_there = true;
            while running() {
                let sum = store.transaction::<u32, Error>(|tx| {
                    ids().map(|id| Ok::<_, Error>(tx.get(&new, &id)?.expect("an account").age)).sum()
                });
                go_on(sum.and_then(|sum| seen(sum, "a transaction at v2")), false);
                if old_is_there {
                    let sum = store.transaction::<u32, Error>(|tx| {
                        ids().map(|id| Ok::<_, Error>(tx.get(&old, &id)?.expect("an account").age)).sum()
                    });
                    old_is_there = go_on(sum.and_then(|sum| seen(sum, "a transaction at v1")), true);
                }
                if store.engine_kind() == Some(EngineKind::Fjall) {
                    let snapshot = store.snapshot().unwrap();
                    let ages = |scan: exuvia::Scan<u64, UserV2>| {
                        scan.map(|found| Ok::<_, Error>(found?.1.age)).sum::<Result<u32>>()
                    };
                    let sum = snapshot.scan(&new, ..).and_then(ages);
                    go_on(sum.and_then(|sum| seen(sum, "a snapshot")), false);
                }
            }
        });
        let rest = || {
            let before = (reads.load(SeqCst), transfers.load(SeqCst));
            until("reads and transfers", || {
                reads.load(SeqCst) > before.0 + 3 && transfers.load(SeqCst) > before.1 + 20
            });
        };
        for round in 0..4 {
            let migration = store.plan(&format!("split {round}")).table(&new).begin().unwrap();
            rest();
            migration.rollback().unwrap();
            rest();
            migration.resume().unwrap();
            rest();
            if round == 3 {
                until("a contract", || {
                    migration.contract().and_then(exuvia::migration::ContractPlan::execute).is_ok()
                });
                break;
            }
            migration.rollback().unwrap();
            rest();
            let writes = if round == 1 { NewWrites::Discard } else { NewWrites::Keep };
            migration.abandon(writes).unwrap().execute().unwrap();
            rest();
        }
        let before = reads.load(SeqCst);
        until("a read after the contract", || reads.load(SeqCst) > before + 3);
        drop(stopping);
    });
    assert_eq!(new.scan(..).map(|found| found.unwrap().1.age).sum::<u32>(), SUM);
    assert!(store.verify().unwrap().is_clean());
}

/// Every transaction and every snapshot sees the same sum, whatever verb comes between.
#[test]
fn the_sum_of_all_accounts_stays_beside_a_storm_of_verbs() {
    on_each(storm);
}

fn copied(store: &Store) {
    let accounts: Table<u64, Plain<i64>> = store.table("accounts").unwrap();
    let pairs: Table<u64, Plain<i64>> = store.table("pairs").unwrap();
    let bulk: Table<u64, Plain<i64>> = store.table("bulk").unwrap();
    for id in 0..ACCOUNTS {
        accounts.put(&id, &Plain(100)).unwrap();
        pairs.put(&(2 * id), &Plain(0)).unwrap();
        pairs.put(&(2 * id + 1), &Plain(0)).unwrap();
    }
    let (stop, copies) = (AtomicBool::new(false), 4);
    let running = || !stop.load(SeqCst);
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        scope.spawn(|| {
            let mut numbers = Numbers(3);
            while running() {
                let ((from, to), cents) = (numbers.pair(), numbers.below(50) as i64);
                let done = store.transaction::<_, Error>(|tx| {
                    let a = tx.get(&accounts, &from)?.expect("an account").0;
                    let b = tx.get(&accounts, &to)?.expect("an account").0;
                    tx.put(&accounts, &from, &Plain(a - cents))?;
                    tx.put(&accounts, &to, &Plain(b + cents))
                });
                go_on(done, false);
            }
        });
        scope.spawn(|| {
            let mut numbers = Numbers(4);
            while running() {
                let (pair, value) = (numbers.below(ACCOUNTS), numbers.below(1000) as i64);
                let mut batch = store.batch();
                batch.put(&pairs, &(2 * pair), Plain(value));
                batch.put(&pairs, &(2 * pair + 1), Plain(-value));
                go_on(batch.commit(), false);
            }
        });
        scope.spawn(|| {
            while running() {
                assert_eq!(bulk.bulk_load((0..LOADED).map(|n| (n, Plain(1)))).unwrap(), LOADED);
                bulk.clear().unwrap();
            }
        });
        let mut loads = std::collections::BTreeSet::new();
        for _ in 0..copies {
            let engine = MemoryEngine::new();
            assert!(store.copy_in(&engine).unwrap().is_clean());
            let copy = options().open_in(Arc::new(engine)).unwrap();
            let values = |name: &str| -> Vec<i64> {
                let table: Table<u64, Plain<i64>> = copy.table(name).unwrap();
                table.scan(..).map(|found| found.unwrap().1.0).collect()
            };
            assert_eq!(values("accounts").iter().sum::<i64>(), 100 * ACCOUNTS as i64, "of one moment");
            for pair in values("pairs").chunks(2) {
                assert_eq!(pair.iter().sum::<i64>(), 0, "half a batch");
            }
            loads.insert(values("bulk").len() as u64);
        }
        drop(stopping);
        assert!(loads.iter().all(|records| [0, LOADED].contains(records)), "half a load: {loads:?}");
    });
}

/// A copy that is made beside transactions, batches and bulk loads is of one moment.
#[test]
fn a_copy_beside_writers_is_of_one_moment() {
    on_each(copied);
}

/// A copy makes no quarantine in its source.
#[test]
fn a_copy_leaves_no_trees_in_its_source() {
    use exuvia::engine::{Engine, Page};
    let source = MemoryEngine::new();
    let store = options().open_in(Arc::new(source.clone())).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    users.put(&1, &v1("Ann A", 30)).unwrap();
    let trees = || {
        let mut trees = source.trees().unwrap();
        trees.sort();
        trees
    };
    let before = trees();
    let copy = MemoryEngine::new();
    assert!(store.copy_in(&copy).unwrap().is_clean());
    assert_eq!(trees(), before);
    let mut page = Page::new();
    copy.tree("1/2").unwrap().scan((Unbounded, Unbounded), false, 9, &mut page).unwrap();
    assert_eq!(page.len(), 1);
}
