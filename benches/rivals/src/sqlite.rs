//! SQLite, in WAL mode, with `synchronous = NORMAL`, as its documentation advises for that mode (sqlite.org/wal.html,
//! sqlite.org/pragma.html#pragma_synchronous): a power cut may take the last transactions, and never the file.
//!
//! One connection writes, behind a lock, and readers have connections of their own. `begin` adds the new columns, which is a
//! change of the schema only; reads cast what has none yet. Then one `UPDATE` sets them for all rows, or one for so many keys at
//! a time, each in a transaction of its own. Writers wait for the transaction that is under way; readers do not.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use exuvia_bench::subjects::{Person, PersonV1, PersonV2, Scratch};
use exuvia_bench::{Ability, Contender, Failure, Refusal, StepKind, Steps, Subject};
use rusqlite::{Connection, OptionalExtension, Row, params};

const V1: &str = "SELECT key, name, height, note FROM people";
const V2: &str = "SELECT key, name, height, note, given, family, height_um, email FROM people";
const PUT_V1: &str = "INSERT OR REPLACE INTO people (key, name, height, note) VALUES (?1, ?2, ?3, ?4)";
const PUT_V2: &str = "INSERT OR REPLACE INTO people (key, note, given, family, height_um, email)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
/// The same cast as in Rust; a quarter of an inch has 6350 micrometres.
const UPDATE: &str = "UPDATE people SET
    given = substr(name, 1, instr(name, ' ') - 1), family = substr(name, instr(name, ' ') + 1),
    height_um = height * 6350, name = NULL, height = NULL
    WHERE given IS NULL AND key >= ?1 AND key < ?2";

pub struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    /// Keys in one `UPDATE`; `None`: all.
    batch: Option<i64>,
    record_bytes: usize,
    steps: OnceLock<Arc<Steps>>,
    scratch: Scratch,
}

fn failed(e: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(e.to_string())
}

fn open(path: &PathBuf) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // In KiB if negative: 256 MiB, of which each connection takes what it needs.
    connection.pragma_update(None, "cache_size", -(256 << 10))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// A row as a person, which is cast if its new columns are empty yet.
fn person(row: &Row<'_>, version: u32) -> Result<Person, Refusal> {
    let name: Option<String> = row.get(1).map_err(failed)?;
    let note: String = row.get(3).map_err(failed)?;
    if let Some(name) = name {
        let height = row.get(2).map_err(failed)?;
        let old = PersonV1 { name, height_quarter_inches: height, note };
        return Ok(if version == 1 { Person::V1(old) } else { Person::V2(PersonV2::from(old)) });
    }
    if version == 1 {
        // It was rewritten just now, and the version is about to change.
        return Err(Refusal::Closed("the row is of version 2 already".to_owned()));
    }
    let height_um: i64 = row.get(6).map_err(failed)?;
    Ok(Person::V2(PersonV2 {
        given: row.get(4).map_err(failed)?,
        family: row.get(5).map_err(failed)?,
        height_um: height_um as u64,
        note,
        email: row.get(7).map_err(failed)?,
    }))
}

impl Sqlite {
    fn new(within: &std::path::Path, batch: Option<i64>, record_bytes: usize) -> Result<Self, Failure> {
        let scratch = Scratch::new(within, "sqlite")?;
        let path = scratch.path().join("people.sqlite");
        let writer = open(&path).map_err(|e| Failure::subject("open", e))?;
        let table =
            "CREATE TABLE people (key INTEGER PRIMARY KEY, name TEXT, height INTEGER, note TEXT NOT NULL)";
        writer.execute(table, []).map_err(|e| Failure::subject("open", e))?;
        let (writer, readers, steps) = (Mutex::new(writer), Mutex::default(), OnceLock::new());
        Ok(Self { path, writer, readers, batch, record_bytes, steps, scratch })
    }

    fn read<R>(&self, read: impl FnOnce(&Connection) -> Result<R, Refusal>) -> Result<R, Refusal> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open(&self.path).map_err(failed)?,
        };
        let result = read(&connection);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(connection: &Connection, key: u64, person: &Person) -> Result<(), Refusal> {
        let put = if matches!(person, Person::V1(_)) { PUT_V1 } else { PUT_V2 };
        let mut put = connection.prepare_cached(put).map_err(failed)?;
        match person {
            Person::V1(p) => put.execute(params![key as i64, p.name, p.height_quarter_inches, p.note]),
            Person::V2(p) => {
                put.execute(params![key as i64, p.note, p.given, p.family, p.height_um as i64, p.email])
            }
        }
        .map(drop)
        .map_err(failed)
    }
}

impl Subject for Sqlite {
    type Record = Person;

    fn record(&self, key: u64, revision: u32, version: u32) -> Person {
        Person::make(key, revision, version, self.record_bytes)
    }

    fn load(&self, count: u64) -> Result<(), Failure> {
        let writer = self.writer();
        let failure = |e: &dyn std::fmt::Display| Failure::subject("load", e);
        writer.execute_batch("BEGIN").map_err(|e| failure(&e))?;
        for key in 0..count {
            Self::insert(&writer, key, &Person::make(key, 0, 1, self.record_bytes))
                .map_err(|e| failure(&e))?;
        }
        writer.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").map_err(|e| failure(&e))
    }

    fn get(&self, key: u64, version: u32) -> Result<Option<Person>, Refusal> {
        self.read(|connection| {
            let select = format!("{} WHERE key = ?1", if version == 1 { V1 } else { V2 });
            let mut select = connection.prepare_cached(&select).map_err(failed)?;
            let found = select.query_row([key as i64], |row| Ok(person(row, version))).optional();
            found.map_err(failed)?.transpose()
        })
    }

    fn put(&self, key: u64, record: &Person, _version: u32) -> Result<(), Refusal> {
        Self::insert(&self.writer(), key, record)
    }

    fn remove(&self, key: u64, _version: u32) -> Result<(), Refusal> {
        let writer = self.writer();
        let mut delete = writer.prepare_cached("DELETE FROM people WHERE key = ?1").map_err(failed)?;
        delete.execute([key as i64]).map(drop).map_err(failed)
    }

    fn scan(&self, from: u64, limit: usize, version: u32) -> Result<Vec<(u64, Person)>, Refusal> {
        self.read(|connection| {
            let select =
                format!("{} WHERE key >= ?1 ORDER BY key LIMIT ?2", if version == 1 { V1 } else { V2 });
            let mut select = connection.prepare_cached(&select).map_err(failed)?;
            let mut rows = select.query([from as i64, limit as i64]).map_err(failed)?;
            let mut found = Vec::with_capacity(limit);
            while let Some(row) = rows.next().map_err(failed)? {
                let key: i64 = row.get(0).map_err(failed)?;
                found.push((key as u64, person(row, version)?));
            }
            Ok(found)
        })
    }

    fn begin(&self, _to: u32) -> Result<(), Failure> {
        let columns = ["given TEXT", "family TEXT", "height_um INTEGER", "email TEXT"];
        let alter: String = columns.map(|column| format!("ALTER TABLE people ADD COLUMN {column};")).concat();
        let alter = format!("BEGIN; {alter} COMMIT");
        self.writer().execute_batch(&alter).map_err(|e| Failure::subject("begin", e))
    }

    fn wait(&self, limit: Duration) -> Result<bool, Failure> {
        let failure = |e: rusqlite::Error| Failure::subject("update", e);
        let begun = Instant::now();
        let end: i64 = {
            let writer = self.writer();
            let last = "SELECT coalesce(max(key), 0) FROM people";
            writer.query_row(last, [], |row| row.get(0)).map_err(failure)?
        };
        let mut from = 0;
        while from <= end {
            let to = self.batch.map_or(i64::MAX, |batch| from + batch);
            let since = Instant::now();
            {
                let writer = self.writer();
                let mut update = writer.prepare_cached(UPDATE).map_err(failure)?;
                update.execute([from, to]).map_err(failure)?;
            }
            if let Some(steps) = self.steps.get() {
                steps.ended(StepKind::EngineCall, since.elapsed());
            }
            if begun.elapsed() > limit {
                return Ok(false);
            }
            from = to;
        }
        Ok(true)
    }

    fn roll_back(&self) -> Result<Ability, Failure> {
        Ok(Ability::Cannot(
            "old columns are emptied; an UPDATE the other way would be a migration of its own",
        ))
    }

    fn contract(&self) -> Result<Ability, Failure> {
        Ok(Ability::Cannot("the emptied columns stay; to drop them rewrites the table"))
    }

    fn left_behind(&self, _version: u32) -> Result<Option<u64>, Failure> {
        let count = "SELECT count(*) FROM people WHERE given IS NULL";
        let count = self.writer().query_row(count, [], |row| row.get::<_, i64>(0));
        count.map(|count| Some(count as u64)).map_err(|e| Failure::subject("count", e))
    }

    fn bytes_on_disk(&self) -> Result<u64, Failure> {
        Ok(self.scratch.bytes())
    }

    fn watch(&self, steps: &Arc<Steps>) {
        let _once = self.steps.set(Arc::clone(steps));
    }
}

/// SQLite with so many keys in one `UPDATE`, or all.
pub fn sqlite(batch: Option<i64>, within: PathBuf, record_bytes: usize) -> Contender {
    let name = batch.map_or_else(|| "sqlite-one-update".to_owned(), |batch| format!("sqlite-batch-{batch}"));
    let about =
        "SQLite, WAL, synchronous=NORMAL (fsync at checkpoints only), one writer connection, cache 256 MiB";
    Contender::new(name, about, move || Sqlite::new(&within, batch, record_bytes))
}
