//! A table in memory that behaves as the store has to, and one that does not, to test the demo itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use exuvia::Version;
use parking_lot::Mutex;

use crate::failure::Failure;
use crate::subject::{Progress, Refusal, Rollout, Step, Subject};
use crate::types::{Airport, AirportV2, AirportV3, View};

/// What a [`Fake`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// A writer at an old view drops the fields that it cannot see.
    DropsUnseen,
    /// Every thousandth removal is forgotten.
    ForgetsRemovals,
    /// The last of many records is missing from a scan.
    ShortScan,
    /// Every ten thousandth read fails.
    Fails,
    /// Every thousandth operation takes 50 ms.
    Stalls,
    /// A read at any view panics at some time.
    Panics,
}

/// Every record at the newest view; the older ones are its downcasts, old writes are merged.
pub(crate) struct Fake {
    fault: Fault,
    calls: AtomicU64,
    records: Mutex<BTreeMap<u64, AirportV3>>,
    verbs: Mutex<Vec<String>>,
    done: AtomicU64,
}

impl Fake {
    pub(crate) fn new(fault: Fault) -> Self {
        let (records, verbs) = (Mutex::default(), Mutex::default());
        Self { fault, calls: AtomicU64::new(0), records, verbs, done: AtomicU64::new(0) }
    }

    /// The verbs that were called, in their order.
    pub(crate) fn verbs(&self) -> Vec<String> {
        self.verbs.lock().clone()
    }

    fn nth(&self, fault: Fault, n: u64) -> bool {
        self.fault == fault && self.calls.fetch_add(1, Ordering::Relaxed) % n == n - 1
    }

    fn verb(&self, verb: &str, step: Step) -> Result<(), Failure> {
        self.verbs.lock().push(format!("{verb} {}", step.name()));
        Ok(())
    }

    fn slow(&self) {
        if self.nth(Fault::Stalls, 1000) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn at(v3: &AirportV3, view: View) -> Result<Airport, Refusal> {
    let failed = |e: exuvia::CastError| Refusal::Failed(e.to_string());
    Ok(match view {
        View::V3 => Airport::V3(v3.clone()),
        View::V2 => Airport::V2(v3.downcast(None).map_err(failed)?),
        View::V1 => Airport::V1(v3.downcast(None).and_then(|v2| v2.downcast(None)).map_err(failed)?),
    })
}

fn merged(old: Option<&AirportV3>, airport: &Airport) -> Option<AirportV3> {
    let Some(old) = old else {
        return match airport.clone() {
            Airport::V1(v1) => AirportV2::upcast(v1).and_then(AirportV3::upcast).ok(),
            Airport::V2(v2) => AirportV3::upcast(v2).ok(),
            Airport::V3(v3) => Some(v3),
        };
    };
    match airport.clone() {
        Airport::V1(v1) => {
            let v2 = AirportV2::merge(v1, old.downcast(None).ok()?).ok()??;
            AirportV3::merge(v2, old.clone()).ok()?
        }
        Airport::V2(v2) => AirportV3::merge(v2, old.clone()).ok()?,
        Airport::V3(v3) => Some(v3),
    }
}

impl Subject for Fake {
    fn get(&self, key: u64, view: View) -> Result<Option<Airport>, Refusal> {
        self.slow();
        if self.nth(Fault::Fails, 10_000) {
            return Err(Refusal::Failed("made to fail".to_owned()));
        }
        assert!(!self.nth(Fault::Panics, 1000), "made to panic");
        self.records.lock().get(&key).map(|v3| at(v3, view)).transpose()
    }

    fn put(&self, key: u64, airport: &Airport) -> Result<(), Refusal> {
        let mut records = self.records.lock();
        let old = records.get(&key).filter(|_| self.fault != Fault::DropsUnseen);
        let new = merged(old, airport).ok_or_else(|| Refusal::Failed("the merge failed".to_owned()))?;
        records.insert(key, new);
        Ok(())
    }

    fn remove(&self, key: u64, _view: View) -> Result<(), Refusal> {
        if !self.nth(Fault::ForgetsRemovals, 10) {
            self.records.lock().remove(&key);
        }
        Ok(())
    }

    fn scan(&self, from: u64, limit: usize, view: View) -> Result<Vec<(u64, Airport)>, Refusal> {
        let records = self.records.lock();
        let mut found = Vec::new();
        for (key, v3) in records.range(from..).take(limit) {
            found.push((*key, at(v3, view)?));
        }
        if self.fault == Fault::ShortScan && found.len() > 1 {
            found.remove(0);
        }
        Ok(found)
    }
}

impl Rollout for Fake {
    fn flush(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn begin(&self, step: Step) -> Result<(), Failure> {
        self.done.store(0, Ordering::Relaxed);
        self.verb("begin", step)
    }

    fn start_backfill(&self, step: Step) -> Result<(), Failure> {
        self.verb("backfill", step)
    }

    fn progress(&self, _step: Step) -> Result<Progress, Failure> {
        let total = self.records.lock().len() as u64;
        let done = self.done.fetch_add(total / 10 + 1, Ordering::Relaxed).min(total);
        Ok(Progress { done, total, complete: done == total })
    }

    fn rollback(&self, step: Step) -> Result<(), Failure> {
        self.verb("rollback", step)
    }

    fn resume(&self, step: Step) -> Result<(), Failure> {
        self.verb("resume", step)
    }

    fn contract(&self, step: Step) -> Result<(), Failure> {
        self.verb("contract", step)
    }

    fn swept(&self, _step: Step) -> Result<bool, Failure> {
        Ok(true)
    }

    fn size_bytes(&self) -> Result<u64, Failure> {
        Ok(self.records.lock().len() as u64 * 150)
    }

    fn longest_pause(&self) -> Result<Duration, Failure> {
        Ok(Duration::from_micros(12))
    }

    fn close(&self) -> Result<(), Failure> {
        self.verbs.lock().push("close".to_owned());
        Ok(())
    }
}
