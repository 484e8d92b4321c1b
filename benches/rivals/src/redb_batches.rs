//! redb, with a migration in hand-written batches.
//!
//! redb has one writer at a time. A put is a write transaction without durability (`Durability::None`), and a commit with
//! `Durability::Immediate` every 500 ms makes all before it durable, as its documentation describes for many small writes. The
//! migration is a write transaction for each batch of keys. Readers never wait.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use exuvia_bench::subjects::{Person, Scratch, decode, encode};
use exuvia_bench::{Contender, Failure, Refusal, StepKind, Steps, Subject};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::ticker::Ticker;

const TABLE: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("people");

pub struct Redb {
    // Before the database: its thread holds that.
    _flusher: Ticker,
    database: Arc<Database>,
    batch: u64,
    record_bytes: usize,
    steps: OnceLock<Arc<Steps>>,
    scratch: Scratch,
}

fn failed(e: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(e.to_string())
}

fn flush(database: &Database) {
    // An empty commit makes those before it durable. A failure would show in every later write.
    let _durable = database.begin_write().map(redb::WriteTransaction::commit);
}

impl Redb {
    fn new(within: &Path, batch: u64, record_bytes: usize) -> Result<Self, Failure> {
        let scratch = Scratch::new(within, "redb")?;
        let database =
            Database::builder().set_cache_size(256 << 20).create(scratch.path().join("people.redb"));
        let database = Arc::new(database.map_err(|e| Failure::subject("open", e))?);
        let flusher = Ticker::new(Duration::from_millis(500), &database, flush);
        Ok(Self { _flusher: flusher, database, batch, record_bytes, steps: OnceLock::new(), scratch })
    }

    fn write<R>(
        &self,
        write: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::None).map_err(failed)?;
        let result = {
            let mut table = transaction.open_table(TABLE).map_err(failed)?;
            write(&mut table)?
        };
        transaction.commit().map_err(failed)?;
        Ok(result)
    }

    /// Rewrites the next batch of keys from `from` on; the key after it, or `None` at the end.
    fn rewrite(&self, from: u64) -> Result<Option<u64>, Refusal> {
        self.write(|table| {
            let mut page = Vec::new();
            for entry in table.range(from..).map_err(failed)?.take(self.batch as usize) {
                let (key, value) = entry.map_err(failed)?;
                page.push((key.value(), value.value().to_vec()));
            }
            for (key, value) in &page {
                if value.first() == Some(&1) {
                    let new = encode(&decode(value, 2)?)?;
                    table.insert(key, new.as_slice()).map_err(failed)?;
                }
            }
            Ok(page.last().map(|(key, _)| key + 1))
        })
    }
}

impl Subject for Redb {
    type Record = Person;

    fn record(&self, key: u64, revision: u32, version: u32) -> Person {
        Person::make(key, revision, version, self.record_bytes)
    }

    fn load(&self, count: u64) -> Result<(), Failure> {
        let loaded = self.write(|table| {
            for key in 0..count {
                let value = encode(&Person::make(key, 0, 1, self.record_bytes))?;
                table.insert(key, value.as_slice()).map_err(failed)?;
            }
            Ok(())
        });
        loaded.map_err(|e| Failure::subject("load", e))?;
        flush(&self.database);
        Ok(())
    }

    fn get(&self, key: u64, version: u32) -> Result<Option<Person>, Refusal> {
        let table = self.database.begin_read().map_err(failed)?.open_table(TABLE).map_err(failed)?;
        let found = table.get(key).map_err(failed)?;
        found.map(|value| decode(value.value(), version)).transpose()
    }

    fn put(&self, key: u64, record: &Person, _version: u32) -> Result<(), Refusal> {
        let value = encode(record)?;
        self.write(|table| table.insert(key, value.as_slice()).map(drop).map_err(failed))
    }

    fn remove(&self, key: u64, _version: u32) -> Result<(), Refusal> {
        self.write(|table| table.remove(key).map(drop).map_err(failed))
    }

    fn scan(&self, from: u64, limit: usize, version: u32) -> Result<Vec<(u64, Person)>, Refusal> {
        let table = self.database.begin_read().map_err(failed)?.open_table(TABLE).map_err(failed)?;
        let mut found = Vec::with_capacity(limit);
        for entry in table.range(from..).map_err(failed)?.take(limit) {
            let (key, value) = entry.map_err(failed)?;
            found.push((key.value(), decode(value.value(), version)?));
        }
        Ok(found)
    }

    fn begin(&self, _to: u32) -> Result<(), Failure> {
        // New code reads old values by casting them.
        Ok(())
    }

    fn wait(&self, limit: Duration) -> Result<bool, Failure> {
        let (begun, mut from) = (Instant::now(), 0);
        loop {
            let since = Instant::now();
            let next = self.rewrite(from).map_err(|e| Failure::subject("the loop", e))?;
            if let Some(steps) = self.steps.get() {
                steps.ended(StepKind::EngineCall, since.elapsed());
            }
            match next {
                None => return Ok(true),
                Some(_) if begun.elapsed() > limit => return Ok(false),
                Some(next) => from = next,
            }
        }
    }

    fn left_behind(&self, _version: u32) -> Result<Option<u64>, Failure> {
        let count = || -> Result<u64, Refusal> {
            let table = self.database.begin_read().map_err(failed)?.open_table(TABLE).map_err(failed)?;
            let mut count = 0;
            for entry in table.iter().map_err(failed)? {
                count += u64::from(entry.map_err(failed)?.1.value().first() == Some(&1));
            }
            Ok(count)
        };
        count().map(Some).map_err(|e| Failure::subject("count", e))
    }

    fn bytes_on_disk(&self) -> Result<u64, Failure> {
        Ok(self.scratch.bytes())
    }

    fn watch(&self, steps: &Arc<Steps>) {
        let _once = self.steps.set(Arc::clone(steps));
    }
}

/// redb with batches of so many keys.
pub fn redb(batch: u64, within: PathBuf, record_bytes: usize) -> Contender {
    let about = "redb, puts without durability and a durable commit every 500 ms, cache 256 MiB";
    Contender::new(format!("redb-batch-{batch}"), about, move || Redb::new(&within, batch, record_bytes))
}
