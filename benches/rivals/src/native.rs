//! native_db and its `migrate`, as its documentation has it: one transaction for the whole table.
//!
//! native_db has one writer at a time (it is built on redb), makes every commit durable, and offers no other. While `migrate`
//! runs, readers go on by their snapshot, and writers wait. Records that are written by the new code before `migrate` would make
//! it refuse, so the migration takes the writer's place before `begin` returns.

#![expect(clippy::result_large_err, reason = "native_db's own error is that large")]

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use exuvia_bench::subjects::{Person, PersonV1, PersonV2, Scratch};
use exuvia_bench::{Ability, Contender, Failure, Refusal, StepKind, Steps, Subject};
use native_db::{Builder, Database, Models, ToKey, native_db};
use native_model::{Model, native_model};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Debug, Clone)]
#[native_model(id = 1, version = 1)]
#[native_db]
struct RowV1 {
    #[primary_key]
    key: u64,
    person: PersonV1,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[native_model(id = 1, version = 2, from = RowV1)]
#[native_db]
struct RowV2 {
    #[primary_key]
    key: u64,
    person: PersonV2,
}

impl From<RowV1> for RowV2 {
    fn from(old: RowV1) -> Self {
        RowV2 { key: old.key, person: PersonV2::from(old.person) }
    }
}

impl From<RowV2> for RowV1 {
    fn from(new: RowV2) -> Self {
        let name = format!("{} {}", new.person.given, new.person.family);
        let height_quarter_inches = (new.person.height_um / 6350) as u32;
        RowV1 { key: new.key, person: PersonV1 { name, height_quarter_inches, note: new.person.note } }
    }
}

static MODELS: LazyLock<Models> = LazyLock::new(|| {
    let mut models = Models::new();
    // They are two models of one id, whatever the order; nothing can go wrong here but a mistake above.
    models.define::<RowV1>().expect("version 1");
    models.define::<RowV2>().expect("version 2");
    models
});

pub struct Native {
    database: Arc<Database<'static>>,
    record_bytes: usize,
    migration: Mutex<Option<Receiver<Result<(), String>>>>,
    steps: Arc<OnceLock<Arc<Steps>>>,
    scratch: Scratch,
}

fn failed(e: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(e.to_string())
}

impl Native {
    fn new(within: &Path, record_bytes: usize) -> Result<Self, Failure> {
        let scratch = Scratch::new(within, "native-db")?;
        let database =
            Builder::new().set_cache_size(256 << 20).create(&MODELS, scratch.path().join("people.native"));
        let database = Arc::new(database.map_err(|e| Failure::subject("open", e))?);
        Ok(Self { database, record_bytes, migration: Mutex::default(), steps: Arc::default(), scratch })
    }
}

impl Subject for Native {
    type Record = Person;

    fn record(&self, key: u64, revision: u32, version: u32) -> Person {
        Person::make(key, revision, version, self.record_bytes)
    }

    fn load(&self, count: u64) -> Result<(), Failure> {
        let load = || -> Result<(), native_db::db_type::Error> {
            let writing = self.database.rw_transaction()?;
            for key in 0..count {
                writing.insert(RowV1 { key, person: PersonV1::make(key, 0, self.record_bytes) })?;
            }
            writing.commit()
        };
        load().map_err(|e| Failure::subject("load", e))
    }

    fn get(&self, key: u64, version: u32) -> Result<Option<Person>, Refusal> {
        let reading = self.database.r_transaction().map_err(failed)?;
        if version > 1
            && let Some(row) = reading.get().primary::<RowV2>(key).map_err(failed)?
        {
            return Ok(Some(Person::V2(row.person)));
        }
        let old: Option<RowV1> = reading.get().primary(key).map_err(failed)?;
        Ok(old.map(|row| match version {
            1 => Person::V1(row.person),
            _ => Person::V2(PersonV2::from(row.person)),
        }))
    }

    fn put(&self, key: u64, record: &Person, _version: u32) -> Result<(), Refusal> {
        let writing = self.database.rw_transaction().map_err(failed)?;
        match record {
            Person::V1(_) if self.migration.lock().unwrap_or_else(PoisonError::into_inner).is_some() => {
                return Err(Refusal::Closed("the table was migrated".to_owned()));
            }
            Person::V1(person) => {
                writing.upsert(RowV1 { key, person: person.clone() }).map(drop).map_err(failed)?;
            }
            Person::V2(person) => {
                writing.upsert(RowV2 { key, person: person.clone() }).map(drop).map_err(failed)?;
            }
        }
        writing.commit().map_err(failed)
    }

    fn remove(&self, key: u64, version: u32) -> Result<(), Refusal> {
        let writing = self.database.rw_transaction().map_err(failed)?;
        if version == 1 {
            if self.migration.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return Err(Refusal::Closed("the table was migrated".to_owned()));
            }
            if let Some(row) = writing.get().primary::<RowV1>(key).map_err(failed)? {
                writing.remove(row).map_err(failed)?;
            }
        } else if let Some(row) = writing.get().primary::<RowV2>(key).map_err(failed)? {
            writing.remove(row).map_err(failed)?;
        }
        writing.commit().map_err(failed)
    }

    fn scan(&self, from: u64, limit: usize, version: u32) -> Result<Vec<(u64, Person)>, Refusal> {
        let reading = self.database.r_transaction().map_err(failed)?;
        let mut found = Vec::with_capacity(limit);
        if version > 1 {
            let scan = reading.scan().primary::<RowV2>().map_err(failed)?;
            for row in scan.range(from..).map_err(failed)?.take(limit) {
                let row = row.map_err(failed)?;
                found.push((row.key, Person::V2(row.person)));
            }
        }
        // The migration is one transaction: what is read has either all rows at version 1 or none.
        if found.is_empty() {
            let scan = reading.scan().primary::<RowV1>().map_err(failed)?;
            for row in scan.range(from..).map_err(failed)?.take(limit) {
                let RowV1 { key, person } = row.map_err(failed)?;
                let person = match version {
                    1 => Person::V1(person),
                    _ => Person::V2(PersonV2::from(person)),
                };
                found.push((key, person));
            }
        }
        Ok(found)
    }

    fn begin(&self, _to: u32) -> Result<(), Failure> {
        let ((holds, held), (done, result)) = (channel(), channel());
        let (database, steps) = (Arc::clone(&self.database), Arc::clone(&self.steps));
        std::thread::spawn(move || {
            let migrate = || -> Result<(), native_db::db_type::Error> {
                let writing = database.rw_transaction()?;
                let _waited_for = holds.send(());
                let since = Instant::now();
                writing.migrate::<RowV2>()?;
                writing.commit()?;
                if let Some(steps) = steps.get() {
                    steps.ended(StepKind::EngineCall, since.elapsed());
                }
                Ok(())
            };
            let _waited_for = done.send(migrate().map_err(|e| e.to_string()));
        });
        *self.migration.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        held.recv().map_err(|_| Failure::subject("begin", "the migration did not start"))
    }

    fn wait(&self, limit: Duration) -> Result<bool, Failure> {
        let migration = self.migration.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(result) = migration.as_ref() else { return Ok(true) };
        // Only looked at now and then: writers ask for the lock.
        let begun = Instant::now();
        let mut last = result.try_recv();
        drop(migration);
        while last == Err(std::sync::mpsc::TryRecvError::Empty) {
            if begun.elapsed() > limit {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
            let migration = self.migration.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(result) = migration.as_ref() {
                last = result.try_recv();
            }
        }
        match last {
            Ok(result) => result.map(|()| true).map_err(|e| Failure::subject("migrate", e)),
            Err(_) => Err(Failure::subject("migrate", "its thread ended without an answer")),
        }
    }

    fn roll_back(&self) -> Result<Ability, Failure> {
        Ok(Ability::Cannot("migrate goes forward only, and removes the old rows"))
    }

    fn left_behind(&self, _version: u32) -> Result<Option<u64>, Failure> {
        let reading = self.database.r_transaction().map_err(|e| Failure::subject("count", e))?;
        let count = reading.len().primary::<RowV1>().map_err(|e| Failure::subject("count", e))?;
        Ok(Some(count))
    }

    fn bytes_on_disk(&self) -> Result<u64, Failure> {
        Ok(self.scratch.bytes())
    }

    fn watch(&self, steps: &Arc<Steps>) {
        let _once = self.steps.set(Arc::clone(steps));
    }
}

/// native_db with its own migration.
pub fn native_db(within: PathBuf, record_bytes: usize) -> Contender {
    let about = "native_db, migrate in one transaction; every write durable by itself, it has no other, cache 256 MiB";
    Contender::new("native-db-migrate", about, move || Native::new(&within, record_bytes))
}
