//! The load: threads that make operations by a timetable, and check every answer.
//!
//! 1. Operation *n* is due when the timetable says so, whether or not the one before it was quick. Its latency is counted **from
//!    the moment at which it was due**: a stall is charged to everybody who would have had to wait for it, and not just
//!    to the one call that met it. (Otherwise: coordinated omission. Tene, *How NOT to measure latency*, 2013.)
//! 2. Until an operation is due its thread sleeps, and never spins. How late threads wake up is measured and reported as lateness.
//! 3. Reads go to any key; a thread writes only keys whose remainder by the number of threads is its own (see `model`).
//! 4. An operation counts for the phase in which it waited longest between its due time and its end: so a stall counts for the phase
//!    that caused it, though those who waited end after it, and began before. In the time series it counts for the window in
//!    which it was due, so that a stall shows from its beginning on.
//! 5. When the load ends, what was due before is still done, for [`CATCH_UP_MAX`] at most; the rest is counted with the time that
//!    it has waited so far, as undone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::clock::{Clock, Part};
use super::latency::{ByOperation, Latencies, Series};
use super::model::Model;
use super::settings::Settings;
use super::stall::Slow;
use super::subject::{Failure, Subject};
use super::worker::Worker;

/// How long the threads go on at the end with what was due before.
pub(crate) const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// How many differences are kept to be shown; all are counted.
const DIFFERENCES_SHOWN: usize = 20;

/// Room for inserts, as a share of the records loaded, and at least.
const ROOM_SHARE: u64 = 2;
const ROOM_MIN: u64 = 1 << 16;

/// What the threads and their coordinator share.
pub(crate) struct Shared<S> {
    pub(crate) subject: Arc<S>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) model: Model,
    /// The number of each phase so far, and when it began.
    phases: RwLock<Vec<(usize, Duration)>>,
    /// The version at which operations are made.
    version: AtomicU32,
    /// When the load ends, in ns; `u64::MAX`: not yet.
    ends_ns: AtomicU64,
    pub(crate) counts: Counts,
    differences: Mutex<Vec<String>>,
}

/// What the threads count.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Records that were read and compared.
    pub(crate) checked: AtomicU64,
    /// Differences and failures.
    pub(crate) wrong: AtomicU64,
    /// Tries that the subject refused because it was closed.
    pub(crate) closed: AtomicU64,
    /// Operations that were due and not done.
    pub(crate) undone: AtomicU64,
}

impl<S> Shared<S> {
    /// The phase of an operation that was due and ended then.
    pub(crate) fn phase(&self, due: Duration, end: Duration) -> usize {
        phase_of(&self.phases.read(), due, end)
    }

    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// When the load ends, if that is known.
    pub(crate) fn ends(&self) -> Option<Duration> {
        let ns = self.ends_ns.load(Ordering::Acquire);
        (ns != u64::MAX).then(|| Duration::from_nanos(ns))
    }

    /// Counts a difference, and keeps the first few.
    pub(crate) fn differs(&self, difference: String) {
        self.counts.wrong.fetch_add(1, Ordering::Relaxed);
        let mut differences = self.differences.lock();
        if differences.len() < DIFFERENCES_SHOWN {
            differences.push(difference);
        }
    }
}

/// The phase, of those that began at these times, in which most of the time from `due` to `end` lies.
fn phase_of(phases: &[(usize, Duration)], due: Duration, end: Duration) -> usize {
    let mut until = end;
    let mut most: Option<(Duration, usize)> = None;
    for (number, began) in phases.iter().rev().filter(|(_, began)| *began <= end) {
        let within = until.saturating_sub(due.max(*began));
        if most.is_none_or(|(longest, _)| within > longest) {
            most = Some((within, *number));
        }
        if *began <= due {
            break;
        }
        until = until.min(*began);
    }
    most.map_or(0, |(_, number)| number)
}

/// What one thread measured, or all of them.
#[derive(Default)]
pub(crate) struct Measured {
    /// By the number of the phase.
    pub(crate) phases: Vec<ByOperation>,
    pub(crate) series: Series,
    pub(crate) slow: Vec<Slow>,
    /// How late threads were with operations that nothing held up but their own waking.
    pub(crate) lateness: Latencies,
}

impl Measured {
    fn add(&mut self, other: Measured) {
        if self.phases.len() < other.phases.len() {
            self.phases.resize_with(other.phases.len(), ByOperation::new);
        }
        for (sum, part) in self.phases.iter_mut().zip(other.phases) {
            for (operation, latencies) in part {
                sum.entry(operation).or_default().add(&latencies);
            }
        }
        self.series.add(&other.series);
        self.slow.extend(other.slow);
        self.lateness.add(&other.lateness);
    }
}

/// A running load.
pub(crate) struct Load<S> {
    pub(crate) shared: Arc<Shared<S>>,
    threads: Vec<JoinHandle<Measured>>,
}

impl<S: Subject + 'static> Load<S> {
    /// Starts the threads. The subject holds the records as loaded.
    pub(crate) fn start(
        subject: Arc<S>,
        clock: Arc<dyn Clock>,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let room = settings.records + (settings.records * ROOM_SHARE).max(ROOM_MIN);
        let shared = Arc::new(Shared {
            subject,
            clock: Arc::clone(&clock),
            settings: settings.clone(),
            model: Model::new(settings.records, room),
            phases: RwLock::new(vec![(0, clock.now())]),
            version: AtomicU32::new(1),
            ends_ns: AtomicU64::new(u64::MAX),
            counts: Counts::default(),
            differences: Mutex::default(),
        });
        let mut load = Self { shared, threads: Vec::new() };
        let start = clock.now();
        for thread in 0..settings.threads {
            let worker = Worker::new(Arc::clone(&load.shared), thread, start);
            let part = Part::of(&clock);
            let spawned = std::thread::Builder::new().name(format!("load-{thread}")).spawn(move || {
                let _part = part;
                worker.run()
            });
            load.threads.push(spawned.map_err(|e| Failure::Thread(e.to_string()))?);
        }
        Ok(load)
    }

    /// The phase of this number begins.
    pub(crate) fn enter(&self, phase: usize) {
        let now = self.shared.clock.now();
        self.shared.phases.write().push((phase, now));
    }

    /// From here on, operations are made at this version.
    pub(crate) fn switch(&self, version: u32) {
        self.shared.version.store(version, Ordering::Release);
    }

    /// Ends the load and puts together what was measured.
    pub(crate) fn stop(mut self) -> (Measured, Arc<Shared<S>>, Vec<String>) {
        let mut sum = Measured::default();
        for measured in self.join() {
            match measured {
                Ok(measured) => sum.add(measured),
                Err(()) => self.shared.differs("a thread of the load panicked".to_owned()),
            }
        }
        sum.slow.sort_by_key(|call| call.began);
        let differences = std::mem::take(&mut *self.shared.differences.lock());
        (sum, Arc::clone(&self.shared), differences)
    }
}

impl<S> Load<S> {
    fn join(&mut self) -> Vec<Result<Measured, ()>> {
        let clock = Arc::clone(&self.shared.clock);
        let now = u64::try_from(clock.now().as_nanos()).unwrap_or(u64::MAX - 1);
        self.shared.ends_ns.fetch_min(now, Ordering::AcqRel);
        // This thread waits for others now, and not for the clock.
        clock.leave();
        let measured = self.threads.drain(..).map(|thread| thread.join().map_err(drop)).collect();
        clock.join();
        measured
    }
}

impl<S> Drop for Load<S> {
    /// Ends the threads if an error ended the measurement.
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_counts_for_the_phase_in_which_it_waited_longest() {
        let ms = Duration::from_millis;
        let phases = [(0, ms(0)), (1, ms(100)), (2, ms(200)), (4, ms(210))];
        for (due, end, phase) in [
            (10, 20, 0),
            (99, 101, 1),
            (95, 101, 0),
            (150, 150, 1),
            (190, 205, 1),
            (199, 211, 2),
            (199, 300, 4),
            (50, 205, 1),
            (250, 260, 4),
        ] {
            assert_eq!(phase_of(&phases, ms(due), ms(end)), phase, "from {due} to {end} ms");
        }
        assert_eq!(phase_of(&[], ms(1), ms(2)), 0);
    }
}
