//! The foreground: an open loop of reads and writes at a fixed rate, every one of them checked.
//!
//! 1. Each thread has a timetable, that of the pause benchmark ([`Schedule`]): operation *n* is due whether or not the one
//!    before it was quick. A latency is counted **from the moment at which the operation was due**, so that a
//!    stall is charged to every operation that had to wait for it, and not just to the one that met it.
//! 2. Until an operation is due its thread sleeps. It never spins: on two cores, generators that spin take the
//!    time that the store needs. The price is that waking up counts too; what it amounts to is measured with a
//!    store that does nothing ([`Nothing`]) and printed beside the results.
//! 3. Keys are uniform over all records. Reads may touch any key; a thread writes only keys whose remainder by
//!    the number of threads is its own, so that it knows exactly what each of them holds.
//! 4. An operation counts for the phase in which it ended. So a verb's phase has to last somewhat longer than
//!    the verb, for those who waited for it to end in it.
//! 5. When the traffic is halted, what was due before is still done. Should that take longer than
//!    [`CATCH_UP_MAX`], the rest is counted with the time that it has waited so far, and not done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use exuvia_bench::{Arrivals, Pace as Timing, Random, Schedule};

use crate::failure::Failure;
use crate::latency::Latencies;
use crate::model::Shard;
use crate::source::Source;
use crate::subject::{Refusal, Subject};
use crate::types::{Airport, View};
use crate::worker::Worker;

/// How long a halted thread goes on with what was due before.
pub(crate) const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// How many differences are kept to be shown; all are counted.
const DIFFERENCES_SHOWN: usize = 20;

/// How fast, by how many threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Operations in a second, of all threads together.
    pub(crate) rate: u64,
    /// Threads, at least one.
    pub(crate) threads: usize,
}

impl Pace {
    /// The timetable of one thread, from now on; its times are counted from the beginning that it answers.
    pub(crate) fn schedule(self, thread: u64) -> (Instant, Schedule) {
        let pace = Timing::Open { rate: self.rate, arrivals: Arrivals::Fixed };
        // Nothing is due in the first moment, in which the threads are being started.
        let start = Duration::from_millis(1);
        (Instant::now(), Schedule::new(pace, start, thread, self.threads as u64, 0))
    }
}

/// What the threads and their coordinator share.
pub(crate) struct Shared {
    pub(crate) subject: Arc<dyn Subject>,
    pub(crate) source: Arc<Source>,
    pub(crate) pace: Pace,
    /// What each thread knows about its keys. The coordinator looks only while the traffic is halted.
    pub(crate) shards: Vec<Mutex<Shard>>,
    /// The number of the current phase.
    pub(crate) phase: AtomicUsize,
    /// The open views, one bit each.
    views: AtomicU8,
    pub(crate) halt: Halt,
    pub(crate) counts: Counts,
    differences: Mutex<Vec<String>>,
}

/// What the threads count.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Reads whose whole result was compared with the model.
    pub(crate) checked: AtomicU64,
    /// Differences from the model, and failures.
    pub(crate) wrong: AtomicU64,
    /// Operations at a view that was closed just then.
    pub(crate) refused: AtomicU64,
    /// Operations that were due but not done (rule 5).
    pub(crate) undone: AtomicU64,
}

impl Shared {
    /// Draws one of the open views.
    pub(crate) fn view(&self, random: &mut Random) -> View {
        let open = self.views.load(Ordering::Acquire);
        let views = [View::V1, View::V2, View::V3].into_iter().filter(|view| open & bit(*view) != 0);
        let nth = random.below(u64::from(open.count_ones()));
        views.into_iter().nth(nth as usize).unwrap_or(View::V1)
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

fn bit(view: View) -> u8 {
    1 << view as u8
}

/// Halts and releases the threads.
#[derive(Debug, Default)]
pub(crate) struct Halt {
    /// Read before each operation; the rest is looked at only when it is set.
    asked: AtomicBool,
    state: Mutex<HaltState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct HaltState {
    since: Option<Instant>,
    stop: bool,
    halted: usize,
}

impl Halt {
    /// Since when the threads are asked to halt or stop.
    pub(crate) fn since(&self) -> Option<Instant> {
        if self.asked.load(Ordering::Acquire) { self.state.lock().since } else { None }
    }

    /// Waits, halted, for the release; `false` means to stop for good.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        state.halted += 1;
        self.changed.notify_all();
        while state.since.is_some() && !state.stop {
            self.changed.wait(&mut state);
        }
        state.halted -= 1;
        self.changed.notify_all();
        !state.stop
    }

    fn ask(&self, stop: bool) {
        let mut state = self.state.lock();
        state.since.get_or_insert_with(Instant::now);
        state.stop |= stop;
        self.asked.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Waits until as many threads are halted as are alive: a store that panics must not hang the demo.
    fn wait_for(&self, alive: impl Fn() -> usize) {
        let mut state = self.state.lock();
        while state.halted < alive() {
            self.changed.wait_for(&mut state, Duration::from_millis(100));
        }
    }

    fn release(&self) {
        let mut state = self.state.lock();
        self.asked.store(false, Ordering::Release);
        state.since = None;
        self.changed.notify_all();
        // Who is released has left before the next halt can be asked for.
        while state.halted > 0 {
            self.changed.wait(&mut state);
        }
    }
}

/// A running foreground.
pub(crate) struct Load {
    shared: Arc<Shared>,
    phases: Vec<String>,
    threads: Vec<JoinHandle<Latencies>>,
}

impl Load {
    /// Starts the threads. The store has to hold every record of `source` as loaded.
    pub(crate) fn start(
        subject: Arc<dyn Subject>,
        source: Arc<Source>,
        pace: Pace,
        phase: &str,
        views: &[View],
    ) -> Result<Self, Failure> {
        let owners = pace.threads.max(1) as u64;
        let shards = (0..owners).map(|owner| Mutex::new(Shard::loaded(owner, owners, source.records())));
        let shared = Arc::new(Shared {
            subject,
            pace,
            shards: shards.collect(),
            source,
            phase: AtomicUsize::new(0),
            views: AtomicU8::new(0),
            halt: Halt::default(),
            counts: Counts::default(),
            differences: Mutex::default(),
        });
        let mut load = Self { shared, phases: Vec::new(), threads: Vec::new() };
        load.phase(phase);
        load.views(views);
        for owner in 0..owners {
            let worker = Worker::new(Arc::clone(&load.shared), owner);
            let thread = std::thread::Builder::new().name(format!("foreground-{owner}"));
            let thread = thread.spawn(move || worker.run());
            load.threads
                .push(thread.map_err(|e| Failure::Store(format!("a thread cannot be started: {e}")))?);
        }
        Ok(load)
    }

    /// From here on, operations count for the phase of this name, which may have run before.
    pub(crate) fn phase(&mut self, name: &str) {
        let phase = self.phases.iter().position(|known| known == name).unwrap_or_else(|| {
            self.phases.push(name.to_owned());
            self.phases.len() - 1
        });
        self.shared.phase.store(phase, Ordering::Release);
    }

    /// From here on, operations are spread over these views.
    pub(crate) fn views(&self, views: &[View]) {
        let open = views.iter().fold(0, |open, view| open | bit(*view));
        self.shared.views.store(open, Ordering::Release);
    }

    /// Halts the traffic and waits until no operation is under way.
    pub(crate) fn halt(&self) {
        self.shared.halt.ask(false);
        self.shared.halt.wait_for(|| self.threads.iter().filter(|thread| !thread.is_finished()).count());
    }

    /// Lets the traffic go on, with a new timetable.
    pub(crate) fn release(&self) {
        self.shared.halt.release();
    }

    /// What each thread knows about its keys; exact while the traffic is halted.
    pub(crate) fn shards(&self) -> &[Mutex<Shard>] {
        &self.shared.shards
    }

    /// Counts a difference that the coordinator found.
    pub(crate) fn differs(&self, difference: String) {
        self.shared.differs(difference);
    }

    /// How many differences and failures there were so far.
    pub(crate) fn wrong(&self) -> u64 {
        self.shared.counts.wrong.load(Ordering::Relaxed)
    }

    /// Stops the threads and puts together what they measured.
    pub(crate) fn stop(mut self) -> Outcome {
        self.shared.halt.ask(true);
        let mut latencies = Latencies::default();
        for thread in std::mem::take(&mut self.threads) {
            match thread.join() {
                Ok(measured) => latencies.add(measured),
                Err(_) => self.shared.differs("a foreground thread panicked".to_owned()),
            }
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.shared.counts;
        Outcome {
            phases: std::mem::take(&mut self.phases),
            latencies,
            checked: count(&counts.checked),
            wrong: count(&counts.wrong),
            refused: count(&counts.refused),
            undone: count(&counts.undone),
            differences: std::mem::take(&mut *self.shared.differences.lock()),
        }
    }
}

impl Drop for Load {
    /// Stops the threads if an error ended the run before [`Load::stop`].
    fn drop(&mut self) {
        self.shared.halt.ask(true);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// What a foreground measured and found.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The names of the phases, in the order in which they first ran.
    pub(crate) phases: Vec<String>,
    /// Their latencies, by their place in `phases`.
    pub(crate) latencies: Latencies,
    /// Reads whose whole result was compared with the model.
    pub(crate) checked: u64,
    /// Differences from the model, and failures.
    pub(crate) wrong: u64,
    /// Operations at a view that was closed just then.
    pub(crate) refused: u64,
    /// Operations that were due but not done.
    pub(crate) undone: u64,
    /// The first differences.
    pub(crate) differences: Vec<String>,
}

/// A store that does nothing: what is measured with it is the generator's own.
pub(crate) struct Nothing;

impl Subject for Nothing {
    fn get(&self, _key: u64, _view: View) -> Result<Option<Airport>, Refusal> {
        Err(Refusal::Closed(String::new()))
    }

    fn put(&self, _key: u64, _airport: &Airport) -> Result<(), Refusal> {
        Err(Refusal::Closed(String::new()))
    }

    fn remove(&self, _key: u64, _view: View) -> Result<(), Refusal> {
        Err(Refusal::Closed(String::new()))
    }

    fn scan(&self, _from: u64, _limit: usize, _view: View) -> Result<Vec<(u64, Airport)>, Refusal> {
        Err(Refusal::Closed(String::new()))
    }
}
