//! The demo's table in a real store: [`crate::subject::Rollout`] by way of the public interface of the crate.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use exuvia::engine::EngineKind;
use exuvia::migration::Backfill;
use exuvia::{Error, Migration, Store, Table, Version};

use crate::failure::Failure;
use crate::subject::{Progress, Refusal, Rollout, Step, Subject};
use crate::types::{Airport, AirportV1, AirportV2, AirportV3, View};

/// The table's name.
const TABLE: &str = "airports";

/// Opens an empty store for the demo.
pub(crate) fn open(path: &Path, engine: EngineKind, cache_bytes: u64) -> Result<Arc<dyn Rollout>, Failure> {
    let options = Store::options().engine(engine).cache_bytes(cache_bytes);
    let store = options.open(path).map_err(|e| Failure::opening(path, e))?;
    // The first handle creates the table, at its version.
    let v1 = store.table(TABLE)?;
    let (v2, v3) = (store.table(TABLE)?, store.table(TABLE)?);
    Ok(Arc::new(Airports { store, v1, v2, v3 }))
}

/// One table with a handle at each view, as three releases of a program would have one each.
struct Airports {
    store: Store,
    v1: Table<u64, AirportV1>,
    v2: Table<u64, AirportV2>,
    v3: Table<u64, AirportV3>,
}

impl Airports {
    fn migration(&self, step: Step) -> Result<Migration, Failure> {
        Ok(self.store.migration(step.name())?)
    }
}

impl Subject for Airports {
    fn get(&self, key: u64, view: View) -> Result<Option<Airport>, Refusal> {
        Ok(match view {
            View::V1 => self.v1.get(&key)?.map(Airport::V1),
            View::V2 => self.v2.get(&key)?.map(Airport::V2),
            View::V3 => self.v3.get(&key)?.map(Airport::V3),
        })
    }

    fn put(&self, key: u64, airport: &Airport) -> Result<(), Refusal> {
        match airport {
            Airport::V1(v1) => self.v1.put(&key, v1)?,
            Airport::V2(v2) => self.v2.put(&key, v2)?,
            Airport::V3(v3) => self.v3.put(&key, v3)?,
        }
        Ok(())
    }

    fn remove(&self, key: u64, view: View) -> Result<(), Refusal> {
        match view {
            View::V1 => self.v1.remove(&key)?,
            View::V2 => self.v2.remove(&key)?,
            View::V3 => self.v3.remove(&key)?,
        }
        Ok(())
    }

    fn scan(&self, from: u64, limit: usize, view: View) -> Result<Vec<(u64, Airport)>, Refusal> {
        match view {
            View::V1 => scan(&self.v1, from, limit, Airport::V1),
            View::V2 => scan(&self.v2, from, limit, Airport::V2),
            View::V3 => scan(&self.v3, from, limit, Airport::V3),
        }
    }
}

fn scan<V: Version>(
    table: &Table<u64, V>,
    from: u64,
    limit: usize,
    airport: impl Fn(V) -> Airport,
) -> Result<Vec<(u64, Airport)>, Refusal> {
    let mut found = Vec::with_capacity(limit);
    for record in table.scan(from..).take(limit) {
        let (key, record) = record?;
        found.push((key, airport(record)));
    }
    Ok(found)
}

impl Rollout for Airports {
    fn flush(&self) -> Result<(), Failure> {
        Ok(self.store.flush()?)
    }

    fn begin(&self, step: Step) -> Result<(), Failure> {
        let plan = self.store.plan(step.name()).why(step.why());
        let plan = match step.to() {
            View::V1 => plan.table(&self.v1),
            View::V2 => plan.table(&self.v2),
            View::V3 => plan.table(&self.v3),
        };
        plan.paused().begin()?;
        Ok(())
    }

    fn start_backfill(&self, step: Step) -> Result<(), Failure> {
        Ok(self.migration(step)?.unpause()?)
    }

    fn progress(&self, step: Step) -> Result<Progress, Failure> {
        let status = self.migration(step)?.status()?;
        if let Backfill::Waiting(waiting) = &status.backfill
            && waiting.needs_help()
        {
            return Err(Failure::Store(format!("the backfill does not get on: {waiting}")));
        }
        let copied: u64 = status.tables.iter().map(|table| table.counts.copied).sum();
        let quarantined: u64 = status.tables.iter().map(|table| table.counts.quarantined).sum();
        if quarantined > 0 {
            return Err(Failure::Store(format!("{quarantined} records could not be upcast")));
        }
        // Writers at the old view go on, so there is always something new to bring forward; that ends with the
        // contract. What they wrote while nobody brought anything forward has to be done, though.
        let behind = status.tables.iter().any(|table| table.backlog_unknown);
        let complete = status.fraction >= 1.0 && !behind;
        let total = if status.fraction > 0.0 { (copied as f64 / status.fraction) as u64 } else { 0 };
        Ok(Progress { done: copied, total: total.max(copied), complete })
    }

    fn rollback(&self, step: Step) -> Result<(), Failure> {
        Ok(self.migration(step)?.rollback()?)
    }

    fn resume(&self, step: Step) -> Result<(), Failure> {
        Ok(self.migration(step)?.resume()?)
    }

    fn contract(&self, step: Step) -> Result<(), Failure> {
        Ok(self.migration(step)?.contract()?.execute()?)
    }

    fn swept(&self, _step: Step) -> Result<bool, Failure> {
        if self.store.is_sweeping() {
            return Ok(false);
        }
        let ledger = self.store.ledger()?;
        let last = ledger.iter().rev().find(|entry| matches!(entry.what.as_str(), "contract" | "sweep"));
        match last {
            Some(entry) if entry.what == "sweep" => Ok(true),
            _ => Err(Failure::Store("the sweep ended before its work was done".to_owned())),
        }
    }

    fn size_bytes(&self) -> Result<u64, Failure> {
        Ok(self.store.bytes_on_disk()?)
    }

    fn longest_pause(&self) -> Result<Duration, Failure> {
        Ok(self.store.stats()?.longest_pause())
    }

    fn close(&self) -> Result<(), Failure> {
        Ok(self.store.clone().close()?)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Version { .. } => Refusal::Closed(error.to_string()),
            _ => Refusal::Failed(error.to_string()),
        }
    }
}
