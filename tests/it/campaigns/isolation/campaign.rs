//! Transactions of several threads, at both views of two tables, while a migration of them begins, is rolled back, resumed
//! and restarted, and ends either way. The histories are checked for anomalies; so are the moments that snapshots show.
//!
//! `EXUVIA_TEST_HISTORIES` makes more of them, `EXUVIA_TEST_SEED` others.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::migration::NewWrites;
use exuvia::{CastError, Durability, Error, Origin, Result, Store, Table, Version};
use serde::{Deserialize, Serialize};

use super::{Item, Key, Step, Transaction, check};
use crate::campaigns::linear::program::Rng;
use crate::kit::scratch::Scratch;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Plain1 {
    items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Counted2 {
    items: Vec<Item>,
    /// What version 1 cannot see: who wrote at this version last.
    last: Option<Item>,
}

impl Version for Plain1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for Counted2 {
    const VERSION: u32 = 2;
    type Previous = Plain1;

    fn upcast(old: Plain1) -> Result<Self, CastError> {
        Ok(Counted2 { items: old.items, last: None })
    }

    fn downcast(&self, _last: Option<Plain1>) -> Result<Plain1, CastError> {
        Ok(Plain1 { items: self.items.clone() })
    }

    fn merge(old: Plain1, last: Counted2) -> Result<Option<Self>, CastError> {
        Ok(Some(Counted2 { items: old.items, last: last.last }))
    }
}

const KEYS: usize = 4;

#[derive(Clone)]
struct Tables {
    old: [Table<u64, Plain1>; 2],
    new: [Table<u64, Counted2>; 2],
}

impl Tables {
    fn open(store: &Store) -> Result<Self> {
        Ok(Self { old: [store.table("a")?, store.table("b")?], new: [store.table("a")?, store.table("b")?] })
    }

    /// A list, through whatever reads: a transaction or a snapshot.
    fn place(key: Key) -> (usize, u64) {
        (key % 2, (key / 2) as u64)
    }

    fn read(&self, tx: &mut exuvia::Transaction, view: u32, key: Key) -> Result<Vec<Item>> {
        let (table, number) = Self::place(key);
        Ok(if view == 1 {
            tx.get(&self.old[table], &number)?.map_or_else(Vec::new, |record| record.items)
        } else {
            tx.get(&self.new[table], &number)?.map_or_else(Vec::new, |record| record.items)
        })
    }

    fn append(&self, tx: &mut exuvia::Transaction, view: u32, key: Key, item: Item) -> Result<Vec<Item>> {
        let (table, number) = Self::place(key);
        let seen = self.read(tx, view, key)?;
        let items = [seen.as_slice(), &[item]].concat();
        if view == 1 {
            tx.put(&self.old[table], &number, &Plain1 { items })?;
        } else {
            // Before a migration there is no place for more.
            tx.put(&self.new[table], &number, &Counted2 { items, last: None })?;
        }
        Ok(seen)
    }
}

struct History {
    clock: AtomicU64,
    items: AtomicU32,
    done: Mutex<Vec<Transaction>>,
}

impl History {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn add(&self, begun: u64, steps: Vec<Step>, committed: bool) {
        let ended = self.now();
        self.done.lock().unwrap().push(Transaction { steps, committed, begun, ended });
    }
}

/// Makes one transaction. Some give up at their end.
fn transact(store: &Store, tables: &Tables, history: &History, rng: &mut Rng) {
    let plan: Vec<(u32, Key, bool)> =
        (0..1 + rng.below(4)).map(|_| (1 + rng.below(2) as u32, rng.below(KEYS), rng.below(5) < 2)).collect();
    let (gives_up, begun) = (rng.chance(12), history.now());
    let mut steps = Vec::new();
    let made = store.transaction::<_, Error>(|tx| {
        steps.clear();
        for (view, key, appends) in plan.iter().copied() {
            if appends {
                let item = history.items.fetch_add(1, Ordering::SeqCst);
                let seen = tables.append(tx, view, key, item)?;
                steps.extend([Step::Read(key, seen), Step::Append(key, item)]);
            } else {
                steps.push(Step::Read(key, tables.read(tx, view, key)?));
            }
        }
        if gives_up {
            return Err(Error::Closed);
        }
        Ok(())
    });
    match &made {
        Ok(()) | Err(Error::Closed | Error::Conflict { .. } | Error::Version { .. }) => {}
        Err(e) => panic!("{e}"),
    }
    history.add(begun, steps, made.is_ok());
}

/// What a snapshot shows is what a transaction that only reads could have seen.
fn look(store: &Store, tables: &Tables, history: &History) {
    let begun = history.now();
    let Ok(snapshot) = store.snapshot() else { return };
    let list = |key: Key| -> Result<Step> {
        let (table, number) = Tables::place(key);
        let found = snapshot.get(&tables.new[table], &number)?;
        Ok(Step::Read(key, found.map_or_else(Vec::new, |record| record.items)))
    };
    history.add(begun, (0..KEYS).map(list).collect::<Result<_>>().unwrap(), true);
}

fn operate(store: &Store, tables: &Tables, rng: &mut Rng) -> Result<()> {
    let migration = store.plan("m").table(&tables.new[0]).table(&tables.new[1]).begin()?;
    for _ in 0..2 + rng.below(3) {
        thread::sleep(Duration::from_micros(rng.below(1500) as u64));
        match rng.below(3) {
            0 => migration.restart()?,
            _ => {
                if rng.chance(2) {
                    migration.rollback()?;
                } else {
                    migration.rollback_fenced()?;
                }
                thread::sleep(Duration::from_micros(rng.below(800) as u64));
                migration.resume()?;
            }
        }
    }
    if rng.chance(2) {
        migration.wait()?;
        migration.contract()?.execute()
    } else {
        migration.rollback()?;
        migration.abandon(NewWrites::Keep)?.execute()
    }
}

fn history(store: &Store, seed: u64, transactions: usize) -> Vec<Transaction> {
    let tables = Tables::open(store).unwrap();
    let history = Arc::new(History { clock: 0.into(), items: 1.into(), done: Mutex::default() });
    let mut threads = Vec::new();
    for client in 0..3_u64 {
        let (store, tables, history) = (store.clone(), tables.clone(), Arc::clone(&history));
        threads.push(thread::spawn(move || {
            let mut rng = Rng::new(seed << 8 | client);
            for _ in 0..transactions {
                transact(&store, &tables, &history, &mut rng);
                if rng.chance(5) {
                    look(&store, &tables, &history);
                }
            }
        }));
    }
    operate(store, &tables, &mut Rng::new(seed << 8 | 0xFF)).unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let begun = history.now();
    let lists = store.transaction::<_, Error>(|tx| {
        (0..KEYS).map(|key| Ok(Step::Read(key, tables.read(tx, 2, key)?))).collect::<Result<Vec<_>>>()
    });
    history.add(begun, lists.unwrap(), true);
    std::mem::take(&mut *history.done.lock().unwrap())
}

fn histories(usual: u64, transactions: usize, open: impl Fn(u64) -> Store) {
    let from_environment =
        |name: &str, usual: u64| std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap());
    let first = from_environment("EXUVIA_TEST_SEED", 1);
    let (mut committed, mut all) = (0, 0);
    for seed in first..first + from_environment("EXUVIA_TEST_HISTORIES", usual) {
        let store = open(seed);
        let made = history(&store, seed, transactions);
        if let Err(anomaly) = check(&made) {
            let numbered: Vec<(usize, &Transaction)> = made.iter().enumerate().collect();
            panic!("seed {seed}: {anomaly:?}\n{numbered:#?}");
        }
        committed += made.iter().filter(|transaction| transaction.committed).count();
        all += made.len();
    }
    // A history in which nothing happens is not worth a check.
    assert!(committed * 2 > all, "{committed} of {all} were committed");
    println!("{committed} of {all} transactions were committed");
}

fn options() -> exuvia::Options {
    Store::options()
        .cache_bytes(16 << 20)
        .durability(Durability::Buffered { interval: Duration::from_millis(20) })
}

#[test]
fn transactions_in_memory_are_strictly_serializable() {
    histories(30, 60, |_| options().open_in(Arc::new(MemoryEngine::new())).unwrap());
}

#[test]
fn transactions_on_sled_are_strictly_serializable() {
    let scratch = Scratch::new("isolation-sled");
    let open =
        |seed: u64| options().engine(EngineKind::Sled).open(scratch.path().join(seed.to_string())).unwrap();
    histories(5, 100, open);
}

#[cfg(feature = "fjall")]
#[test]
fn transactions_on_fjall_are_strictly_serializable_and_snapshots_of_one_moment() {
    let scratch = Scratch::new("isolation-fjall");
    let open =
        |seed: u64| options().engine(EngineKind::Fjall).open(scratch.path().join(seed.to_string())).unwrap();
    histories(5, 100, open);
}
