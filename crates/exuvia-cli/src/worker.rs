//! One thread of the foreground.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::latency::Latencies;
use crate::load::{CATCH_UP_MAX, Shared};
use crate::model::{State, check};
use crate::subject::Refusal;
use crate::types::{Airport, AirportV2, AirportV3, View};

use exuvia::Version;
use exuvia_bench::{Random, Schedule};

/// Of 100 operations, so many write, so many remove and so many scan; the rest read one record.
const PUTS: u64 = 25;
const REMOVES: u64 = 3;
const SCANS: u64 = 2;

/// How many records a scan asks for.
const SCAN_RECORDS: usize = 16;

/// An operation, made ready before it is due.
#[derive(Debug)]
enum Operation {
    Get { key: u64, view: View },
    Put { key: u64, airport: Box<Airport>, after: State },
    Remove { key: u64, view: View },
    Scan { from: u64, view: View },
}

/// What an operation gave.
#[expect(clippy::large_enum_variant, reason = "a box would be allocated within the measured time")]
enum Answer {
    Record(Option<Airport>),
    Records(Vec<(u64, Airport)>),
    Done,
}

/// A thread and its keys.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    owner: u64,
    random: Random,
    latencies: Latencies,
    /// When operations are due, counted from `start`.
    schedule: Schedule,
    start: Instant,
}

impl Worker {
    /// The thread that owns the keys with the remainder `owner`.
    pub(crate) fn new(shared: Arc<Shared>, owner: u64) -> Self {
        let random = Random::new(shared.source.seed(), u64::MAX, owner);
        let (start, schedule) = shared.pace.schedule(owner);
        Self { shared, owner, random, latencies: Latencies::default(), schedule, start }
    }

    /// Works until told to stop.
    pub(crate) fn run(mut self) -> Latencies {
        wake_in_time();
        let mut due = self.new_timetable();
        loop {
            if let Some(since) = self.shared.halt.since()
                && (due > since || since.elapsed() > CATCH_UP_MAX)
            {
                self.leave_undone(due, since);
                if !self.shared.halt.wait() {
                    return self.latencies;
                }
                due = self.new_timetable();
            }
            self.step(due);
            due = self.next_due();
        }
    }

    /// The first time of a timetable that starts now.
    fn new_timetable(&mut self) -> Instant {
        (self.start, self.schedule) = self.shared.pace.schedule(self.owner);
        self.next_due()
    }

    fn next_due(&mut self) -> Instant {
        self.start + self.schedule.next_due().unwrap_or_default()
    }

    /// Counts what was due before the halt and will not be done.
    fn leave_undone(&mut self, mut due: Instant, since: Instant) {
        let phase = self.shared.phase.load(Ordering::Acquire);
        while due <= since {
            self.latencies.record(phase, due.elapsed());
            self.shared.counts.undone.fetch_add(1, Ordering::Relaxed);
            due = self.next_due();
        }
    }

    /// One operation: made ready, done when due, measured, then checked.
    fn step(&mut self, due: Instant) {
        let operation = match self.prepare() {
            Ok(operation) => operation,
            Err(e) => return self.shared.differs(format!("a record could not be made: {e}")),
        };
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let answer = self.execute(&operation);
        let latency = due.elapsed();
        self.latencies.record(self.shared.phase.load(Ordering::Acquire), latency);
        match answer {
            Ok(answer) => self.settle(operation, answer),
            Err(Refusal::Closed(_)) => {
                self.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(Refusal::Failed(reason)) => self.shared.differs(format!("{operation:?} failed: {reason}")),
        }
    }

    fn prepare(&mut self) -> Result<Operation, exuvia::CastError> {
        let kind = self.random.below(100);
        let view = self.shared.view(&mut self.random);
        let any = self.random.below(self.shared.source.records());
        let Some(own) = self.own_key() else {
            return Ok(Operation::Get { key: any, view });
        };
        Ok(match kind {
            0..PUTS => self.prepare_put(own, view)?,
            k if k < PUTS + REMOVES => Operation::Remove { key: own, view },
            k if k < PUTS + REMOVES + SCANS => Operation::Scan { from: any, view },
            _ => Operation::Get { key: any, view },
        })
    }

    fn prepare_put(&mut self, key: u64, view: View) -> Result<Operation, exuvia::CastError> {
        let some = |n: u64| u16::try_from(n).ok().filter(|n| *n != 0);
        let runways = some(self.random.below(7));
        let opened = Some(self.random.below(120)).filter(|n| *n != 0).and_then(|n| some(1900 + n));
        let after = self.state(key).written(view, runways, opened);
        let v1 = self.shared.source.record(key, after.revision());
        let v2 = |v1| AirportV2::upcast(v1).map(|v2| AirportV2 { runways, ..v2 });
        let airport = match view {
            View::V1 => Airport::V1(v1),
            View::V2 => Airport::V2(v2(v1)?),
            View::V3 => Airport::V3(AirportV3 { opened, ..AirportV3::upcast(v2(v1)?)? }),
        };
        Ok(Operation::Put { key, airport: Box::new(airport), after })
    }

    /// Draws one of the keys that this thread may write, if it has any.
    fn own_key(&mut self) -> Option<u64> {
        let keys = self.shared.shards.get(self.owner as usize).map_or(0, |shard| shard.lock().keys());
        (keys > 0).then(|| self.random.below(keys) * self.owners() + self.owner)
    }

    fn owners(&self) -> u64 {
        self.shared.shards.len() as u64
    }

    fn owns(&self, key: u64) -> bool {
        key % self.owners() == self.owner
    }

    fn state(&self, key: u64) -> State {
        let shard = self.shared.shards.get(self.owner as usize);
        shard.map_or(State::LOADED, |shard| shard.lock().state(key))
    }

    fn set(&self, key: u64, state: State) {
        if let Some(shard) = self.shared.shards.get(self.owner as usize) {
            shard.lock().set(key, state);
        }
    }

    fn execute(&self, operation: &Operation) -> Result<Answer, Refusal> {
        let subject = &self.shared.subject;
        match operation {
            Operation::Get { key, view } => subject.get(*key, *view).map(Answer::Record),
            Operation::Put { key, airport, .. } => subject.put(*key, airport).map(|()| Answer::Done),
            Operation::Remove { key, view } => subject.remove(*key, *view).map(|()| Answer::Done),
            Operation::Scan { from, view } => subject.scan(*from, SCAN_RECORDS, *view).map(Answer::Records),
        }
    }

    /// Notes what was written, or checks what was read.
    fn settle(&self, operation: Operation, answer: Answer) {
        match (operation, answer) {
            (Operation::Put { key, after, .. }, _) => self.set(key, after),
            (Operation::Remove { key, .. }, _) => self.set(key, self.state(key).removed()),
            (Operation::Get { key, view }, Answer::Record(found)) => self.check(key, view, found.as_ref()),
            (Operation::Scan { from, view }, Answer::Records(found)) => self.check_scan(from, view, &found),
            (operation, _) => self.shared.differs(format!("{operation:?} got another operation's answer")),
        }
    }

    /// Another thread's key may have been written meanwhile; its code, which nobody changes, is checked still.
    fn check(&self, key: u64, view: View, found: Option<&Airport>) {
        let source = &self.shared.source;
        let checked = if self.owns(key) {
            self.shared.counts.checked.fetch_add(1, Ordering::Relaxed);
            check(source, key, self.state(key), view, found)
        } else {
            match found.map(Airport::icao) {
                Some(icao) if icao != source.icao(key) => Err(format!("key {key} at {view} holds {icao}")),
                _ => Ok(()),
            }
        };
        if let Err(difference) = checked {
            self.shared.differs(difference);
        }
    }

    /// The keys have to rise, none that exists may be missing, and each record has to be right.
    fn check_scan(&self, from: u64, view: View, found: &[(u64, Airport)]) {
        let full = found.len() >= SCAN_RECORDS;
        let end = match found.last() {
            Some((last, _)) if full => last + 1,
            _ => self.shared.source.records(),
        };
        let mut found = found.iter().peekable();
        for key in from..end {
            let here = found.next_if(|(at, _)| *at == key).map(|(_, airport)| airport);
            if here.is_some() || self.owns(key) {
                self.check(key, view, here);
            }
        }
        if let Some((key, _)) = found.next() {
            self.shared.differs(format!("the scan from {from} at {view} gave key {key} out of order"));
        }
    }
}

/// Lets the system wake this thread within microseconds of the time that it asked for. Linux otherwise puts
/// wake-ups together and is up to 50 µs late.
fn wake_in_time() {
    #[cfg(target_os = "linux")]
    if rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000)).is_err() {
        // Then the generator's floor, which is measured, is higher.
    }
}
