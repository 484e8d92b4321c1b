//! The migration that a program writes by hand on sled: a loop over all keys.
//!
//! Every value begins with one byte, the version that it is written in. `begin` only says that the new code is there: it
//! reads older records by casting them, and writes the new version. The loop reads each record, casts it and swaps it by
//! compare-and-swap, so that it overwrites no newer write. It keeps nothing of the old version: there is no way back.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use exuvia::Version;

use super::super::steps::{StepKind, Steps};
use super::super::subject::{Failure, Refusal, Subject};
use super::super::suite::Contender;
use super::Scratch;
use super::record::{Person, PersonV1, PersonV2};

/// What is read at once, so that no iterator is held open for long.
const PAGE: usize = 256;

/// Steps that are shorter are not noted.
const NOTED_FROM: Duration = Duration::from_micros(100);

/// How the loop writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// One key at a time, by compare-and-swap: the fastest that hurts nobody.
    Single,
    /// So many keys in an `apply_batch`, which overwrites what was written between the read and the batch unless writers are
    /// kept out; here they are, by a lock that every writer takes shared.
    Batch(usize),
}

impl Writes {
    /// Records that are read at once: enough for a batch.
    fn page(self) -> usize {
        match self {
            Writes::Single => PAGE,
            Writes::Batch(size) => size.max(PAGE),
        }
    }
}

/// Options of [`BareSled`].
#[derive(Debug, Clone)]
pub struct BareSledOptions {
    /// sled's cache.
    pub cache_bytes: u64,
    /// sled's own flush runs this often.
    pub flush_every: Duration,
    /// Records that the loop rewrites in a second, at most; `None`: as many as it can.
    pub records_per_s: Option<u64>,
    /// How it writes.
    pub writes: Writes,
}

impl Default for BareSledOptions {
    /// As the defaults of a store of Exuvia: 256 MiB, a flush every 500 ms. 20 000 records a second, one at a time.
    fn default() -> Self {
        Self {
            cache_bytes: 256 << 20,
            flush_every: Duration::from_millis(500),
            records_per_s: Some(20_000),
            writes: Writes::Single,
        }
    }
}

/// A sled database with one tree of people.
pub struct BareSled {
    db: sled::Db,
    tree: sled::Tree,
    options: BareSledOptions,
    record_bytes: usize,
    /// The version that is migrated to; 1: none.
    to: AtomicU32,
    /// Taken shared by writers, and exclusively around a batch.
    batches: parking_lot::RwLock<()>,
    steps: OnceLock<Arc<Steps>>,
    scratch: Scratch,
}

impl std::fmt::Debug for BareSled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareSled").field("options", &self.options).finish_non_exhaustive()
    }
}

fn failed(error: sled::Error) -> Refusal {
    Refusal::Failed(error.to_string())
}

/// A person as the value of a key: the version, then the record by the codec that Exuvia uses.
///
/// # Errors
///
/// None: a person of either version can be encoded.
pub fn encode(person: &Person) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::with_capacity(192);
    let encoded = match person {
        Person::V1(person) => {
            bytes.push(1);
            person.encode(&mut bytes)
        }
        Person::V2(person) => {
            bytes.push(2);
            person.encode(&mut bytes)
        }
    };
    encoded.map(|()| bytes).map_err(|e| Refusal::Failed(e.to_string()))
}

/// The person in a value, cast to version 2 if `version` asks for it.
///
/// # Errors
///
/// Bytes that are no person, or a record of version 2 where version 1 is asked for: that one is gone.
pub fn decode(value: &[u8], version: u32) -> Result<Person, Refusal> {
    let person = match value.split_first() {
        Some((1, bytes)) => PersonV1::decode(bytes).map(Person::V1),
        Some((2, bytes)) => PersonV2::decode(bytes).map(Person::V2),
        _ => return Err(Refusal::Failed("a value without a version".to_owned())),
    };
    match (person.map_err(|e| Refusal::Failed(e.to_string()))?, version) {
        (Person::V1(old), 2..) => Ok(Person::V2(PersonV2::from(old))),
        (Person::V2(_), ..2) => Err(Refusal::Failed("the old form of this record is gone".to_owned())),
        (person, _) => Ok(person),
    }
}

/// A key as its bytes in order.
pub fn key_of(bytes: &[u8]) -> Result<u64, Refusal> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| Refusal::Failed("a key has 8 bytes".to_owned()))
}

impl BareSled {
    /// A new database in a new directory in `within`.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn open(options: BareSledOptions, within: &Path, record_bytes: usize) -> Result<Self, Failure> {
        let scratch = Scratch::new(within, "bare-sled")?;
        let flush_ms = u64::try_from(options.flush_every.as_millis()).unwrap_or(500);
        let config = sled::Config::new().path(scratch.path()).cache_capacity(options.cache_bytes);
        // The mode and segments that Exuvia's engine uses, so that only the migration differs.
        let config =
            config.mode(sled::Mode::HighThroughput).segment_size(4 << 20).flush_every_ms(Some(flush_ms));
        let db = config.open().map_err(|e| Failure::subject("open", e))?;
        let tree = db.open_tree("people").map_err(|e| Failure::subject("open", e))?;
        let (to, batches, steps) = (AtomicU32::new(1), parking_lot::RwLock::new(()), OnceLock::new());
        Ok(Self { db, tree, options, record_bytes, to, batches, steps, scratch })
    }

    fn step<R>(&self, kind: StepKind, run: impl FnOnce() -> R) -> R {
        let begun = Instant::now();
        let result = run();
        let took = begun.elapsed();
        if let Some(steps) = self.steps.get().filter(|_| took >= NOTED_FROM) {
            steps.ended(kind, took);
        }
        result
    }

    fn rewrite(&self, page: &[(sled::IVec, sled::IVec)]) -> Result<(), Refusal> {
        if let Writes::Batch(size) = self.options.writes {
            for part in page.chunks(size.max(1)) {
                self.rewrite_batch(part)?;
            }
            return Ok(());
        }
        for (key, old) in page {
            let mut current = Some(old.clone());
            while let Some(old) = current.filter(|value| value.first() == Some(&1)) {
                let new = encode(&decode(&old, 2)?)?;
                let swapped =
                    self.step(StepKind::EngineCall, || self.tree.compare_and_swap(key, Some(old), Some(new)));
                current = match swapped.map_err(failed)? {
                    Ok(()) => None,
                    // A writer was faster; what it wrote is new already, unless it is gone.
                    Err(conflict) => conflict.current,
                };
            }
        }
        Ok(())
    }

    fn rewrite_batch(&self, page: &[(sled::IVec, sled::IVec)]) -> Result<(), Refusal> {
        self.step(StepKind::EngineCall, || {
            let _nobody_writes = self.batches.write();
            let mut batch = sled::Batch::default();
            for (key, _) in page {
                let Some(old) = self.tree.get(key).map_err(failed)? else { continue };
                if old.first() == Some(&1) {
                    batch.insert(key, encode(&decode(&old, 2)?)?);
                }
            }
            self.tree.apply_batch(batch).map_err(failed)
        })
    }

    fn writing(&self) -> Option<parking_lot::RwLockReadGuard<'_, ()>> {
        matches!(self.options.writes, Writes::Batch(_)).then(|| self.batches.read())
    }
}

impl Subject for BareSled {
    type Record = Person;

    fn record(&self, key: u64, revision: u32, version: u32) -> Person {
        Person::make(key, revision, version, self.record_bytes)
    }

    fn load(&self, count: u64) -> Result<(), Failure> {
        let put = |key: u64| {
            let value = encode(&Person::make(key, 0, 1, self.record_bytes))?;
            self.tree.insert(key.to_be_bytes(), value).map(drop).map_err(failed)
        };
        (0..count).try_for_each(put).map_err(|e| Failure::subject("load", e))?;
        self.db.flush().map(drop).map_err(|e| Failure::subject("load", e))
    }

    fn get(&self, key: u64, version: u32) -> Result<Option<Person>, Refusal> {
        let found = self.tree.get(key.to_be_bytes()).map_err(failed)?;
        found.map(|value| decode(&value, version)).transpose()
    }

    fn put(&self, key: u64, record: &Person, _version: u32) -> Result<(), Refusal> {
        let value = encode(record)?;
        let _writing = self.writing();
        self.tree.insert(key.to_be_bytes(), value).map(drop).map_err(failed)
    }

    fn remove(&self, key: u64, _version: u32) -> Result<(), Refusal> {
        let _writing = self.writing();
        self.tree.remove(key.to_be_bytes()).map(drop).map_err(failed)
    }

    fn scan(&self, from: u64, limit: usize, version: u32) -> Result<Vec<(u64, Person)>, Refusal> {
        let mut found = Vec::with_capacity(limit);
        for entry in self.tree.range(from.to_be_bytes()..).take(limit) {
            let (key, value) = entry.map_err(failed)?;
            found.push((key_of(&key)?, decode(&value, version)?));
        }
        Ok(found)
    }

    fn begin(&self, to: u32) -> Result<(), Failure> {
        self.to.store(to, Ordering::Release);
        Ok(())
    }

    fn wait(&self, limit: Duration) -> Result<bool, Failure> {
        let wrong = |e: Refusal| Failure::subject("the loop", e);
        let (begun, mut done, mut from) = (Instant::now(), 0u64, Vec::new());
        loop {
            let range = self.tree.range(from.clone()..).take(self.options.writes.page());
            let page: Vec<_> = range.collect::<Result<_, _>>().map_err(|e| wrong(failed(e)))?;
            let Some((last, _)) = page.last() else { return Ok(true) };
            // The key after the last one.
            from = last.iter().copied().chain([0]).collect();
            self.rewrite(&page).map_err(wrong)?;
            done += page.len() as u64;
            if begun.elapsed() > limit {
                return Ok(false);
            }
            if let Some(rate) = self.options.records_per_s {
                let due = Duration::from_secs_f64(done as f64 / rate.max(1) as f64);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
        }
    }

    fn left_behind(&self, version: u32) -> Result<Option<u64>, Failure> {
        let mut count = 0;
        for value in self.tree.iter().values() {
            let value = value.map_err(|e| Failure::subject("the last look", e))?;
            count += u64::from(value.first().is_none_or(|stored| u32::from(*stored) < version));
        }
        Ok(Some(count))
    }

    fn bytes_on_disk(&self) -> Result<u64, Failure> {
        Ok(self.scratch.bytes())
    }

    fn watch(&self, steps: &Arc<Steps>) {
        // A subject is watched once.
        let _set = self.steps.set(Arc::clone(steps));
    }
}

/// The loop by hand on sled, by these options, in `within`.
pub fn bare_sled(options: BareSledOptions, within: PathBuf, record_bytes: usize) -> Contender {
    let name = match options.writes {
        Writes::Single => "sled-bare-loop".to_owned(),
        Writes::Batch(size) => format!("sled-batch-{size}"),
    };
    let rate = options.records_per_s.map_or_else(|| "no".to_owned(), |rate| rate.to_string());
    let about = format!(
        "sled by hand, flush every {:?}, cache {} MiB, limit of {rate} records/s",
        options.flush_every,
        options.cache_bytes >> 20
    );
    Contender::new(name, about, move || BareSled::open(options.clone(), &within, record_bytes))
}
