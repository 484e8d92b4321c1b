//! fjall by hand: a loop over all keys, or its compaction filter, which rewrites records when they are compacted anyway, as in
//! the example of lazy migration of its repository.
//!
//! fjall has no compare-and-swap, so the loop and the writers take locks by key. The filter needs none: a compaction gives a new
//! version of what it read, at the old place in time, so newer writes win. What the filter has not passed yet is cast as it is
//! read; `wait` asks for a compaction of everything, or it would be done some day.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use exuvia_bench::subjects::{Person, Scratch, decode, encode, key_of};
use exuvia_bench::{Contender, Failure, Refusal, StepKind, Steps, Subject};
use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::ticker::Ticker;

const STRIPES: usize = 64;
const PAGE: usize = 256;

pub struct Fjall {
    // Before the database: its thread holds that.
    _flusher: Ticker,
    database: Arc<Database>,
    people: Keyspace,
    /// By compaction filter, and not by a loop.
    lazy: bool,
    /// The filter may rewrite.
    on: Arc<AtomicBool>,
    /// Records that the loop rewrites in a second, at most.
    records_per_s: Option<u64>,
    locks: Vec<Mutex<()>>,
    record_bytes: usize,
    steps: OnceLock<Arc<Steps>>,
    scratch: Scratch,
}

fn failed(e: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(e.to_string())
}

struct Upcasts(Arc<AtomicBool>);

struct Upcast(bool);

impl Factory for Upcasts {
    fn name(&self) -> &str {
        "upcast"
    }

    fn make_filter(&self, _context: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Upcast(self.0.load(Ordering::Acquire)))
    }
}

impl CompactionFilter for Upcast {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _context: &Context) -> CompactionFilterResult {
        if !self.0 {
            return Ok(Verdict::Keep);
        }
        let value = item.value()?;
        if value.first() != Some(&1) {
            return Ok(Verdict::Keep);
        }
        // What cannot be cast stays as it is; there is no such record here.
        let new = decode(&value, 2).and_then(|person| encode(&person));
        Ok(new.map_or(Verdict::Keep, |new| Verdict::ReplaceValue(new.into())))
    }
}

impl Fjall {
    fn new(
        within: &Path,
        lazy: bool,
        records_per_s: Option<u64>,
        record_bytes: usize,
    ) -> Result<Self, Failure> {
        let scratch = Scratch::new(within, "fjall")?;
        let on = Arc::new(AtomicBool::new(false));
        let mut builder = Database::builder(scratch.path()).cache_size(256 << 20);
        if lazy {
            let upcasts: Arc<dyn Factory> = Arc::new(Upcasts(Arc::clone(&on)));
            builder = builder.with_compaction_filter_factories(Arc::new(move |_| Some(Arc::clone(&upcasts))));
        }
        let database = Arc::new(builder.open().map_err(|e| Failure::subject("open", e))?);
        let people = database.keyspace("people", KeyspaceCreateOptions::default);
        let people = people.map_err(|e| Failure::subject("open", e))?;
        let flusher = Ticker::new(Duration::from_millis(500), &database, |database: &Database| {
            // A failure poisons the database, and shows in every later write.
            let _durable = database.persist(PersistMode::SyncData);
        });
        let locks = (0..STRIPES).map(|_| Mutex::default()).collect();
        let steps = OnceLock::new();
        Ok(Self {
            _flusher: flusher,
            database,
            people,
            lazy,
            on,
            records_per_s,
            locks,
            record_bytes,
            steps,
            scratch,
        })
    }

    fn lock(&self, key: u64) -> MutexGuard<'_, ()> {
        let stripe = &self.locks[key as usize % STRIPES];
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, from: u64) -> Result<Vec<(u64, fjall::Slice)>, Refusal> {
        let entries = self.people.range(from.to_be_bytes()..).take(PAGE);
        let entry = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().map_err(failed)?;
            Ok((key_of(&key)?, value))
        };
        entries.map(entry).collect()
    }

    fn rewrite(&self, key: u64) -> Result<(), Refusal> {
        let begun = Instant::now();
        {
            let _nobody_writes = self.lock(key);
            let Some(old) = self.people.get(key.to_be_bytes()).map_err(failed)? else { return Ok(()) };
            if old.first() == Some(&1) {
                let new = encode(&decode(&old, 2)?)?;
                self.people.insert(key.to_be_bytes(), new).map_err(failed)?;
            }
        }
        let took = begun.elapsed();
        if let Some(steps) = self.steps.get().filter(|_| took > Duration::from_micros(100)) {
            steps.ended(StepKind::EngineCall, took);
        }
        Ok(())
    }

    fn run_loop(&self, limit: Duration) -> Result<bool, Refusal> {
        let (begun, mut from, mut done) = (Instant::now(), 0, 0u64);
        loop {
            let page = self.page(from)?;
            let Some((last, _)) = page.last() else { return Ok(true) };
            from = last + 1;
            done += page.len() as u64;
            for (key, value) in &page {
                if value.first() == Some(&1) {
                    self.rewrite(*key)?;
                }
            }
            if begun.elapsed() > limit {
                return Ok(false);
            }
            if let Some(rate) = self.records_per_s {
                let due = Duration::from_secs_f64(done as f64 / rate.max(1) as f64);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
        }
    }

    fn compact(&self) -> Result<bool, Refusal> {
        let begun = Instant::now();
        // What is still in memory comes to a table first.
        self.people.rotate_memtable_and_wait().map_err(failed)?;
        self.people.major_compact().map_err(failed)?;
        if let Some(steps) = self.steps.get() {
            steps.ended(StepKind::EngineCall, begun.elapsed());
        }
        Ok(true)
    }
}

impl Subject for Fjall {
    type Record = Person;

    fn record(&self, key: u64, revision: u32, version: u32) -> Person {
        Person::make(key, revision, version, self.record_bytes)
    }

    fn load(&self, count: u64) -> Result<(), Failure> {
        let put = |key: u64| {
            let value = encode(&Person::make(key, 0, 1, self.record_bytes))?;
            self.people.insert(key.to_be_bytes(), value).map_err(failed)
        };
        (0..count).try_for_each(put).map_err(|e| Failure::subject("load", e))?;
        self.database.persist(PersistMode::SyncAll).map_err(|e| Failure::subject("load", e))
    }

    fn get(&self, key: u64, version: u32) -> Result<Option<Person>, Refusal> {
        let found = self.people.get(key.to_be_bytes()).map_err(failed)?;
        found.map(|value| decode(&value, version)).transpose()
    }

    fn put(&self, key: u64, record: &Person, _version: u32) -> Result<(), Refusal> {
        let value = encode(record)?;
        let _alone = (!self.lazy).then(|| self.lock(key));
        self.people.insert(key.to_be_bytes(), value).map_err(failed)
    }

    fn remove(&self, key: u64, _version: u32) -> Result<(), Refusal> {
        let _alone = (!self.lazy).then(|| self.lock(key));
        self.people.remove(key.to_be_bytes()).map_err(failed)
    }

    fn scan(&self, from: u64, limit: usize, version: u32) -> Result<Vec<(u64, Person)>, Refusal> {
        let mut found = Vec::with_capacity(limit);
        for guard in self.people.range(from.to_be_bytes()..).take(limit) {
            let (key, value) = guard.into_inner().map_err(failed)?;
            found.push((key_of(&key)?, decode(&value, version)?));
        }
        Ok(found)
    }

    fn begin(&self, _to: u32) -> Result<(), Failure> {
        self.on.store(true, Ordering::Release);
        Ok(())
    }

    fn wait(&self, limit: Duration) -> Result<bool, Failure> {
        let done = if self.lazy { self.compact() } else { self.run_loop(limit) };
        done.map_err(|e| Failure::subject("the rewrite", e))
    }

    fn left_behind(&self, _version: u32) -> Result<Option<u64>, Failure> {
        let mut count = 0;
        for guard in self.people.iter() {
            let value = guard.value().map_err(|e| Failure::subject("count", e))?;
            count += u64::from(value.first() == Some(&1));
        }
        Ok(Some(count))
    }

    fn bytes_on_disk(&self) -> Result<u64, Failure> {
        Ok(self.scratch.bytes())
    }

    fn watch(&self, steps: &Arc<Steps>) {
        let _once = self.steps.set(Arc::clone(steps));
    }
}

/// fjall with the loop by hand, at most so many records a second.
pub fn fjall_loop(records_per_s: Option<u64>, within: PathBuf, record_bytes: usize) -> Contender {
    let rate = records_per_s.map_or_else(|| "no".to_owned(), |rate| rate.to_string());
    let about = format!("fjall by hand, fsync every 500 ms, cache 256 MiB, limit of {rate} records/s");
    let open = move || Fjall::new(&within, false, records_per_s, record_bytes);
    Contender::new("fjall-bare-loop", about, open)
}

/// fjall with a compaction filter.
pub fn fjall_lazy(within: PathBuf, record_bytes: usize) -> Contender {
    let about =
        "fjall, compaction filter and one compaction of everything, fsync every 500 ms, cache 256 MiB";
    Contender::new("fjall-lazy-filter", about, move || Fjall::new(&within, true, None, record_bytes))
}
