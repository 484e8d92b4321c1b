//! Exuvia as a subject.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

#[cfg(any(feature = "sled", feature = "fjall"))]
use exuvia::engine::EngineKind;
use exuvia::engine::MemoryEngine;
use exuvia::measure::{Observer, Work, WorkKind};
use exuvia::{Error, Migration, Options, Phase, Store, Table, Version};

use super::super::steps::{StepKind, Steps};
use super::super::subject::{Ability, Failure, Refusal, Subject};
use super::super::suite::Contender;
use super::record::{Person, PersonV1, PersonV2};

const TABLE: &str = "people";
const MIGRATION: &str = "names in parts";

/// How often the end of background work is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A store with one table of people, with a handle at each version.
#[derive(Debug)]
pub struct Exuvia {
    store: Store,
    v1: Table<u64, PersonV1>,
    v2: Table<u64, PersonV2>,
    record_bytes: usize,
    watcher: Arc<Watcher>,
    /// After the store, which has its files in it.
    #[cfg(any(feature = "sled", feature = "fjall"))]
    _scratch: Option<super::Scratch>,
}

/// Notes what the store's background does.
#[derive(Debug, Default)]
struct Watcher(OnceLock<Arc<Steps>>);

impl Observer for Watcher {
    fn work(&self, work: &Work) {
        let kind = match work.kind {
            WorkKind::Flush => StepKind::Flush,
            WorkKind::Flip => StepKind::Flip,
            WorkKind::Drop => StepKind::Drop,
            _ => StepKind::EngineCall,
        };
        if let Some(steps) = self.0.get() {
            steps.ended_before(kind, work.began.elapsed(), work.took);
        }
    }
}

impl Exuvia {
    /// A new store by these options, in a new directory in `within`, or in memory. Its durability is that of the options.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn open(options: Options, within: Option<PathBuf>, record_bytes: usize) -> Result<Self, Failure> {
        let failed = |e: Error| Failure::subject("open", e);
        let watcher = Arc::new(Watcher::default());
        let options = options.observer(Arc::clone(&watcher) as Arc<dyn Observer>);
        #[cfg(any(feature = "sled", feature = "fjall"))]
        let (store, _scratch) = match within {
            Some(within) => {
                let scratch = super::Scratch::new(&within, "exuvia")?;
                (options.open(scratch.path().join("store")).map_err(failed)?, Some(scratch))
            }
            None => (options.open_in(Arc::new(MemoryEngine::new())).map_err(failed)?, None),
        };
        #[cfg(not(any(feature = "sled", feature = "fjall")))]
        let store = {
            let _nowhere = within;
            options.open_in(Arc::new(MemoryEngine::new())).map_err(failed)?
        };
        let v1 = store.table(TABLE).map_err(failed)?;
        let v2 = store.table(TABLE).map_err(failed)?;
        Ok(Self {
            store,
            v1,
            v2,
            record_bytes,
            watcher,
            #[cfg(any(feature = "sled", feature = "fjall"))]
            _scratch,
        })
    }

    fn migration(&self) -> Result<Migration, Failure> {
        self.store.migration(MIGRATION).map_err(|e| Failure::subject("migration", e))
    }
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Version { .. } => Refusal::Closed(error.to_string()),
        _ => Refusal::Failed(error.to_string()),
    }
}

fn some<V: Version>(
    table: &Table<u64, V>,
    from: u64,
    limit: usize,
    person: impl Fn(V) -> Person,
) -> Result<Vec<(u64, Person)>, Refusal> {
    let mut found = Vec::with_capacity(limit);
    for record in table.scan(from..).take(limit) {
        let (key, record) = record.map_err(refusal)?;
        found.push((key, person(record)));
    }
    Ok(found)
}

impl Subject for Exuvia {
    type Record = Person;

    fn record(&self, key: u64, revision: u32, version: u32) -> Person {
        Person::make(key, revision, version, self.record_bytes)
    }

    fn load(&self, count: u64) -> Result<(), Failure> {
        let failed = |e: Error| Failure::subject("load", e);
        for key in 0..count {
            self.v1.put(&key, &PersonV1::make(key, 0, self.record_bytes)).map_err(failed)?;
        }
        self.store.flush().map_err(failed)
    }

    fn get(&self, key: u64, version: u32) -> Result<Option<Person>, Refusal> {
        match version {
            1 => self.v1.get(&key).map(|found| found.map(Person::V1)),
            _ => self.v2.get(&key).map(|found| found.map(Person::V2)),
        }
        .map_err(refusal)
    }

    fn put(&self, key: u64, record: &Person, _version: u32) -> Result<(), Refusal> {
        match record {
            Person::V1(person) => self.v1.put(&key, person),
            Person::V2(person) => self.v2.put(&key, person),
        }
        .map_err(refusal)
    }

    fn remove(&self, key: u64, version: u32) -> Result<(), Refusal> {
        if version == 1 { self.v1.remove(&key) } else { self.v2.remove(&key) }.map_err(refusal)
    }

    fn scan(&self, from: u64, limit: usize, version: u32) -> Result<Vec<(u64, Person)>, Refusal> {
        match version {
            1 => some(&self.v1, from, limit, Person::V1),
            _ => some(&self.v2, from, limit, Person::V2),
        }
    }

    fn begin(&self, _to: u32) -> Result<(), Failure> {
        let begun = self.store.plan(MIGRATION).table(&self.v2).begin();
        begun.map(drop).map_err(|e| Failure::subject("begin", e))
    }

    fn wait(&self, limit: Duration) -> Result<bool, Failure> {
        let (migration, begun) = (self.migration()?, Instant::now());
        loop {
            let status = migration.status().map_err(|e| Failure::subject("wait", e))?;
            if status.phase == Phase::Complete {
                return Ok(true);
            }
            if let exuvia::migration::Backfill::Waiting(waiting) = &status.backfill
                && waiting.needs_help()
            {
                return Err(Failure::subject("wait", waiting));
            }
            if begun.elapsed() > limit {
                return Ok(false);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn roll_back(&self) -> Result<Ability, Failure> {
        self.migration()?.rollback().map_err(|e| Failure::subject("rollback", e))?;
        Ok(Ability::Done)
    }

    fn resume(&self) -> Result<Ability, Failure> {
        self.migration()?.resume().map_err(|e| Failure::subject("resume", e))?;
        Ok(Ability::Done)
    }

    fn contract(&self) -> Result<Ability, Failure> {
        let plan = self.migration()?.contract();
        plan.and_then(exuvia::migration::ContractPlan::execute)
            .map_err(|e| Failure::subject("contract", e))?;
        Ok(Ability::Done)
    }

    fn sweep(&self, limit: Duration) -> Result<bool, Failure> {
        let begun = Instant::now();
        while self.store.is_sweeping() {
            if begun.elapsed() > limit {
                return Ok(false);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(true)
    }

    fn left_behind(&self, version: u32) -> Result<Option<u64>, Failure> {
        let tables = self.store.inventory().map_err(|e| Failure::subject("inventory", e))?;
        let older = tables.iter().flat_map(|table| &table.records).filter(|(stored, _)| **stored < version);
        Ok(Some(older.map(|(_, count)| *count).sum()))
    }

    fn bytes_on_disk(&self) -> Result<u64, Failure> {
        self.store.bytes_on_disk().map_err(|e| Failure::subject("bytes on disk", e))
    }

    fn watch(&self, steps: &Arc<Steps>) {
        // The first list is the only one: a subject is watched once.
        let _set = self.watcher.0.set(Arc::clone(steps));
    }
}

/// Exuvia in memory, with default options: no disk, so it shows what the store itself costs.
pub fn exuvia_memory(record_bytes: usize) -> Contender {
    let open = move || Exuvia::open(Store::options(), None, record_bytes);
    Contender::new("exuvia-memory", "in memory, default budget", open)
}

/// Exuvia on sled, with these options, in `within`.
#[cfg(feature = "sled")]
pub fn exuvia_sled(options: &Options, within: PathBuf, record_bytes: usize) -> Contender {
    on_disk("exuvia-sled", options.clone().engine(EngineKind::Sled), within, record_bytes)
}

/// Exuvia on fjall, with these options, in `within`.
#[cfg(feature = "fjall")]
pub fn exuvia_fjall(options: &Options, within: PathBuf, record_bytes: usize) -> Contender {
    on_disk("exuvia-fjall", options.clone().engine(EngineKind::Fjall), within, record_bytes)
}

#[cfg(any(feature = "sled", feature = "fjall"))]
fn on_disk(name: &str, options: Options, within: PathBuf, record_bytes: usize) -> Contender {
    let about = options.to_string();
    Contender::new(name, about, move || Exuvia::open(options.clone(), Some(within.clone()), record_bytes))
}
