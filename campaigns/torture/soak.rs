//! Soak: mixed load for a long time, while a migration begins, rolls back, resumes and contracts over and over.
//!
//! 1. Threads of the load own the keys that their number divides, with a model of each in memory; they read, write,
//!    remove, update and scan at both views of an open migration, in batches and transactions too, and hold every answer
//!    against the model. They are paced, so that latency is of the store and not of its queue.
//! 2. One thread drives: begin, rollback under load, resume, contract, version after version; every third migration is
//!    abandoned once with its new writes kept. After the newest version the table is dropped and made again, with every
//!    record compared first, and the verification run.
//! 3. One thread samples memory, files, threads and latency, one line of JSON each time.
//!
//! At the end every record is compared at every view, the store verified, closed, opened and compared again. The verdict
//! compares the last quarter of the samples with the second.

mod records;
mod sample;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use exuvia::engine::EngineKind;
use exuvia::migration::NewWrites;
use exuvia::{Budget, Error, Store};
use serde_json::{Value, json};

use self::records::{Fields, Handle, NEWEST, handle};
use self::sample::{Latencies, Taken};
use crate::rng::Rng;

const TABLE: &str = "records";
const THREADS: u64 = 2;

pub struct Soak {
    pub kind: EngineKind,
    pub seed: u64,
    pub time: Duration,
    pub every: Duration,
    pub keys: u64,
    /// Operations a second, of all threads.
    pub rate: u64,
    /// The backfill's pause budget.
    pub pause: Duration,
    /// The engine's cache, in bytes.
    pub cache: u64,
    pub directory: PathBuf,
    pub samples: PathBuf,
}

/// What one thread's keys must read as.
type Model = BTreeMap<u64, Fields>;

/// What the load has to know of the migration.
#[derive(Clone)]
struct Views {
    handles: Vec<Arc<dyn Handle>>,
}

struct Shared {
    store: Store,
    views: RwLock<Views>,
    /// Held shared by every call of the load, and exclusively while the table is made anew.
    gate: RwLock<()>,
    /// Calls at the old view may be refused.
    contracting: AtomicBool,
    stop: AtomicBool,
    models: Vec<Mutex<Model>>,
    latencies: Vec<Mutex<Latencies>>,
    calls: AtomicU64,
    refused: AtomicU64,
    migrations: AtomicU64,
    tables: AtomicU64,
    failure: Mutex<Option<String>>,
}

type Outcome<T = ()> = Result<T, String>;

fn text(e: &Error) -> String {
    e.to_string()
}

impl Soak {
    /// Answers how many calls and migrations were made, or what went wrong.
    pub fn run(&self) -> Outcome<BTreeMap<String, u64>> {
        let shared = Arc::new(self.start().map_err(|e| text(&e))?);
        let mut file =
            std::fs::File::create(&self.samples).map_err(|e| format!("{}: {e}", self.samples.display()))?;
        let started = Instant::now();
        let mut samples = Vec::new();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let shared = &shared;
                scope.spawn(move || shared.guarded("load", || self.load(shared, thread)));
            }
            scope.spawn(|| shared.guarded("driver", || self.drive(&shared)));
            while started.elapsed() < self.time && !shared.stop.load(Ordering::SeqCst) {
                std::thread::sleep(self.every.min(self.time.saturating_sub(started.elapsed())));
                let sample = self.sample(&shared, started);
                // The file is for people; what is compared is in memory.
                if let Err(e) = writeln!(file, "{sample}").and_then(|()| file.flush()) {
                    eprintln!("{}: {e}", self.samples.display());
                }
                samples.push(sample);
            }
            shared.stop.store(true, Ordering::SeqCst);
        });
        if let Some(failure) = shared.failure.lock().unwrap().take() {
            return Err(failure);
        }
        let count = |n: &AtomicU64| n.load(Ordering::SeqCst);
        let counts = BTreeMap::from([
            ("calls".to_owned(), count(&shared.calls)),
            ("refused while contracting".to_owned(), count(&shared.refused)),
            ("migrations".to_owned(), count(&shared.migrations)),
            ("tables".to_owned(), count(&shared.tables)),
            ("samples".to_owned(), samples.len() as u64),
        ]);
        shared.compare_all()?;
        let Shared { store, models, views, .. } =
            Arc::try_unwrap(shared).map_err(|_| "a thread still holds the store".to_owned())?;
        drop(views);
        store.close().map_err(|e| text(&e))?;
        self.reopened(&models)?;
        let grown = sample::verdict(&samples);
        if grown.is_empty() { Ok(counts) } else { Err(grown.join("; ")) }
    }

    fn start(&self) -> exuvia::Result<Shared> {
        let store = self.open()?;
        let mut rng = Rng::new(self.seed);
        let models: Vec<Mutex<Model>> = (0..THREADS)
            .map(|thread| {
                let keys = (0..self.keys).filter(|key| key % THREADS == thread);
                Mutex::new(keys.map(|key| (key, fields(&mut rng))).collect())
            })
            .collect();
        let views = RwLock::new(Views { handles: vec![fill(&store, &models)?] });
        let latencies = (0..THREADS).map(|_| Mutex::new(Latencies::new())).collect();
        Ok(Shared {
            store,
            views,
            gate: RwLock::default(),
            contracting: AtomicBool::default(),
            stop: AtomicBool::default(),
            models,
            latencies,
            calls: AtomicU64::default(),
            refused: AtomicU64::default(),
            migrations: AtomicU64::default(),
            tables: AtomicU64::new(1),
            failure: Mutex::default(),
        })
    }

    fn open(&self) -> exuvia::Result<Store> {
        // Without rests: on a busy machine a backfill that gives way takes hours, and nothing would begin again.
        let budget = Budget::default().pause_max(self.pause).core_share(1.0);
        let options = Store::options().engine(self.kind).cache_bytes(self.cache).budget(budget);
        options.free_bytes_min(0).open(&self.directory)
    }

    fn reopened(&self, models: &[Mutex<Model>]) -> Outcome {
        let store = self.open().map_err(|e| text(&e))?;
        let status = store.migrations().map_err(|e| text(&e))?;
        let open = status.iter().find(|status| !status.phase.is_closed());
        let stored = open.map(|status| (status.tables[0].from, status.tables[0].to));
        let active = store.inventory().map_err(|e| text(&e))?[0].active;
        let (from, to) = stored.unwrap_or((active, active));
        for view in from..=to {
            let handle = handle(&store, TABLE, view).map_err(|e| text(&e))?;
            compare(&*handle, models, &format!("after the reopen, view {view}"))?;
        }
        check(&store)
    }

    fn sample(&self, shared: &Shared, started: Instant) -> Value {
        let mut latency = Latencies::new();
        shared.latencies.iter().for_each(|thread| latency.drain(&mut thread.lock().unwrap()));
        let taken = Taken::now();
        let (files, file_bytes) = sample::files(&self.directory);
        let count = |n: &AtomicU64| n.load(Ordering::SeqCst);
        json!({
            "seconds": started.elapsed().as_secs_f64(),
            "rss_kib": taken.rss_kib,
            "anonymous_kib": taken.anonymous_kib,
            "threads": taken.threads,
            "open_files": taken.open_files,
            "files": files,
            "file_bytes": file_bytes,
            "calls": count(&shared.calls),
            "migrations": count(&shared.migrations),
            "tables": count(&shared.tables),
            "latency": latency.json(),
        })
    }

    /// The load of one thread.
    fn load(&self, shared: &Shared, thread: u64) -> Outcome {
        let mut rng = Rng::new(self.seed).fork(thread + 1);
        let each = Duration::from_secs_f64(THREADS as f64 / self.rate.max(1) as f64);
        let mut due = Instant::now();
        while !shared.stop.load(Ordering::Relaxed) {
            // What was missed while the process was held up is not caught up with: that would be a burst.
            let now = Instant::now();
            due = (due + each).max(now.checked_sub(Duration::from_millis(50)).unwrap_or(now));
            if due > now + Duration::from_millis(1) {
                std::thread::sleep(due - now);
            }
            let _gate = shared.gate.read().unwrap();
            let views = shared.views.read().unwrap().clone();
            let contracting = shared.contracting.load(Ordering::SeqCst);
            let view = rng.within(0, views.handles.len() as u64 - 1) as usize;
            let key = rng.within(0, self.keys / THREADS - 1) * THREADS + thread;
            let mut model = shared.models[thread as usize].lock().unwrap();
            let begun = Instant::now();
            let (call, result) = one_call(shared, &*views.handles[view], key, &mut model, &mut rng);
            let took = begun.elapsed();
            drop(model);
            shared.latencies[thread as usize].lock().unwrap().record(call, took);
            shared.calls.fetch_add(1, Ordering::Relaxed);
            match result {
                Ok(None) => {}
                Ok(Some(wrong)) => return Err(format!("{} of key {key}: {wrong}", sample::CALLS[call])),
                Err(Error::Version { .. })
                    if view == 0 && (contracting || shared.contracting.load(Ordering::SeqCst)) =>
                {
                    shared.refused.fetch_add(1, Ordering::Relaxed);
                }
                // Nothing was changed.
                Err(Error::Conflict { .. }) => {}
                Err(e) => return Err(format!("{} of key {key}: {e}", sample::CALLS[call])),
            }
        }
        Ok(())
    }

    fn drive(&self, shared: &Shared) -> Outcome {
        let mut rng = Rng::new(self.seed).fork(1000);
        let ended = || shared.stop.load(Ordering::SeqCst);
        let mut number = 0;
        loop {
            for from in 1..NEWEST {
                number += 1;
                if ended() {
                    return Ok(());
                }
                self.migrate(shared, from, number, &mut rng)
                    .map_err(|e| format!("migration {number}: {e}"))?;
            }
            if ended() {
                return Ok(());
            }
            let _alone = shared.gate.write().unwrap();
            shared.compare_all()?;
            shared.views.write().unwrap().handles.clear();
            shared.store.drop_table(TABLE).map_err(|e| text(&e))?;
            let first = fill(&shared.store, &shared.models).map_err(|e| text(&e))?;
            shared.views.write().unwrap().handles.push(first);
            shared.tables.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// From this version to the next, with rollbacks on the way. Ends early, with the migration open, if it is told to.
    fn migrate(&self, shared: &Shared, from: u32, number: u64, rng: &mut Rng) -> exuvia::Result<()> {
        let store = &shared.store;
        let new = handle(store, TABLE, from + 1)?;
        let mut rest = |least: u64, most: u64| {
            let until = Instant::now() + Duration::from_millis(rng.within(least, most));
            while Instant::now() < until && !shared.stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            shared.stop.load(Ordering::Relaxed)
        };
        let abandoned = number.is_multiple_of(3);
        for (attempt, abandon) in [(1, true), (2, false)] {
            if abandon && !abandoned {
                continue;
            }
            let plan = new.plan(store.plan(&format!("{number}.{attempt}")));
            let migration = plan.begin()?;
            shared.views.write().unwrap().handles.push(Arc::clone(&new));
            shared.migrations.fetch_add(1, Ordering::SeqCst);
            if rest(100, 1200) {
                return Ok(());
            }
            migration.rollback()?;
            if rest(100, 600) {
                return Ok(());
            }
            if abandon {
                // From the moment it folds the new view reads by upcast, and its writes must survive the way back.
                shared.views.write().unwrap().handles.truncate(1);
                drop(shared.gate.write().unwrap());
                migration.abandon(NewWrites::Keep)?.execute()?;
                continue;
            }
            migration.resume()?;
            // Old writers undo `complete` all the time. What a contract needs is that the base is copied.
            let contract = loop {
                match migration.contract() {
                    Err(Error::State { .. }) if !rest(20, 40) => {}
                    Err(Error::State { .. }) => return Ok(()),
                    plan => break plan?,
                }
            };
            if rest(50, 400) {
                return Ok(());
            }
            shared.contracting.store(true, Ordering::SeqCst);
            contract.execute()?;
            shared.views.write().unwrap().handles.remove(0);
            // Whoever took the old handle before is done.
            drop(shared.gate.write().unwrap());
            shared.contracting.store(false, Ordering::SeqCst);
        }
        Ok(())
    }
}

impl Shared {
    /// Runs a thread's work; the first failure stops all.
    fn guarded(&self, what: &str, work: impl FnOnce() -> Outcome) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let failure = match result {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            Err(_) => "a panic".to_owned(),
        };
        self.failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(format!("{what}: {failure}"));
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Every record at every view that there is. The load rests.
    fn compare_all(&self) -> Outcome {
        for (number, handle) in self.views.read().unwrap().handles.iter().enumerate() {
            compare(&**handle, &self.models, &format!("view {number}"))?;
        }
        check(&self.store)
    }
}

fn check(store: &Store) -> Outcome {
    let report = store.verify().map_err(|e| text(&e))?;
    if !report.is_clean() {
        return Err(format!("damage: {:?}", report.damage));
    }
    store.ledger().map(drop).map_err(|e| text(&e))
}

fn fields(rng: &mut Rng) -> Fields {
    Fields { n: rng.next() >> 8, length: rng.within(50, 300) as usize }
}

/// Makes the table at version 1, with what the models hold.
fn fill(store: &Store, models: &[Mutex<Model>]) -> exuvia::Result<Arc<dyn Handle>> {
    let table = handle(store, TABLE, 1)?;
    let mut all = Model::new();
    models.iter().for_each(|model| all.extend(model.lock().unwrap().iter()));
    table.load(&all.into_iter().collect::<Vec<_>>())?;
    Ok(table)
}

fn compare(handle: &dyn Handle, models: &[Mutex<Model>], how: &str) -> Outcome {
    let mut all = Model::new();
    models.iter().for_each(|model| all.extend(model.lock().unwrap().iter()));
    let found = handle.scan(0, usize::MAX).map_err(|e| format!("{how}: {e}"))?;
    if found.len() != all.len() {
        return Err(format!("{how}: {} records, and the model has {}", found.len(), all.len()));
    }
    for ((key, record), (expected_key, expected)) in found.into_iter().zip(all) {
        if (key, record) != (expected_key, Some(expected)) {
            return Err(format!(
                "{how}: key {key} is {record:?}, and key {expected_key} must be {expected:?}"
            ));
        }
    }
    Ok(())
}

/// One call of the load; answers its kind, and what was wrong with its answer, if anything.
fn one_call(
    shared: &Shared,
    handle: &dyn Handle,
    key: u64,
    model: &mut Model,
    rng: &mut Rng,
) -> (usize, exuvia::Result<Option<String>>) {
    let wrong = |found: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        Some(format!("{found:?} and not {expected:?}"))
    };
    let new = fields(rng);
    match rng.within(0, 99) {
        0..45 => {
            let (found, expected) = (handle.get(key), model.get(&key).copied().map(Some));
            (0, found.map(|found| if found == expected { None } else { wrong(&found, &expected) }))
        }
        45..78 => (
            1,
            handle.put(key, new).map(|()| {
                model.insert(key, new);
                None
            }),
        ),
        78..86 => (
            2,
            handle.remove(key).map(|()| {
                model.remove(&key);
                None
            }),
        ),
        86..92 => {
            let change = |old: Fields| Fields { n: old.n + 1, length: old.length };
            let changed = handle.update(key, &change);
            (
                3,
                changed.map(|()| {
                    model.entry(key).and_modify(|old| *old = change(*old));
                    None
                }),
            )
        }
        92..95 => {
            let found = handle.scan(key, 30);
            let own = |records: Vec<(u64, Option<Fields>)>| {
                let last = records.last().map_or(u64::MAX, |(key, _)| *key);
                let mine: Vec<_> =
                    records.into_iter().filter(|(k, _)| k % THREADS == key % THREADS).collect();
                let expected: Vec<_> = model.range(key..=last).map(|(key, f)| (*key, Some(*f))).collect();
                if mine == expected { None } else { wrong(&mine, &expected) }
            };
            (4, found.map(own))
        }
        _ => {
            let (other, second) = (key ^ THREADS, fields(rng));
            let result = if rng.chance(50) {
                let mut batch = shared.store.batch();
                handle.batch_put(&mut batch, key, new);
                handle.batch_put(&mut batch, other, second);
                batch.commit().map(|()| None)
            } else {
                let expected = model.get(&key).copied().map(Some);
                shared.store.transaction(|tx| {
                    let found = handle.tx_get(tx, key)?;
                    handle.tx_put(tx, key, new)?;
                    handle.tx_put(tx, other, second)?;
                    exuvia::Result::Ok(if found == expected { None } else { wrong(&found, &expected) })
                })
            };
            if result.is_ok() {
                model.extend([(key, new), (other, second)]);
            }
            (5, result)
        }
    }
}

/// Where a soak's samples go by default.
pub fn samples_beside(state: &Path, kind: EngineKind) -> PathBuf {
    state.with_file_name(format!("soak-{}.jsonl", kind.name()))
}
