//! What the store measures: foreground latency by operation and activity, pauses, the migration's engine calls.
//!
//! A *pause* is the time that a foreground call waits at the store's gate, plus the time that it overlaps an
//! engine call that a background worker has in flight. What remains of a slow call is the engine's own doing
//! and is counted apart, as a stall.
//!
//! Recording costs two reads of the processor's clock and one uncontended lock on a shard of the calling
//! thread; pauses are computed only while a background worker is at work.

mod meter;

use std::array;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use hdrhistogram::Histogram as Hdr;
use parking_lot::Mutex;

use self::meter::{METERS, Meter};
use crate::caught::caught;
use crate::measure::name::Name;
use crate::measure::observe::{Activity, LedgerEntry, Observer, Operation, Pause, Work, WorkKind};
use crate::sync::Clock;

pub(crate) use self::meter::BackgroundMeter;

impl std::fmt::Display for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Activity::Idle => "idle",
            Activity::Backfill => "backfill",
            Activity::Complete => "complete",
            Activity::Rollback => "rollback",
            Activity::Contract => "contract",
            Activity::Fold => "fold",
            Activity::Sweep => "sweep",
        })
    }
}

/// A histogram of durations, exact to 1%, from 1 ns to one hour (longer ones count as one hour).
#[derive(Debug, Clone)]
pub struct Histogram(Option<Box<Hdr<u64>>>);

const HIGHEST_NS: u64 = 3_600_000_000_000;

impl Histogram {
    pub(crate) const fn empty() -> Self {
        Histogram(None)
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        self.record_ns(u64::try_from(duration.as_nanos()).unwrap_or(HIGHEST_NS));
    }

    #[inline]
    fn record_ns(&mut self, nanos: u64) {
        if self.0.is_none() {
            self.begin();
        }
        if let Some(hdr) = &mut self.0 {
            hdr.saturating_record(nanos.max(1));
        }
    }

    #[cold]
    fn begin(&mut self) {
        self.0 = Hdr::new_with_bounds(1, HIGHEST_NS, 2).ok().map(Box::new);
    }

    fn add(&mut self, other: &Histogram) {
        match (&mut self.0, &other.0) {
            (_, None) => {}
            (own @ None, Some(other)) => *own = Some(other.clone()),
            // Both have the same bounds, so this cannot fail.
            (Some(own), Some(other)) => own.add(&**other).unwrap_or(()),
        }
    }

    /// Number of recorded durations.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |hdr| hdr.len())
    }

    /// The duration at quantile `q` (0 to 1); zero if nothing was recorded.
    pub fn quantile(&self, q: f64) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |hdr| Duration::from_nanos(hdr.value_at_quantile(q)))
    }

    /// The longest duration.
    pub fn max(&self) -> Duration {
        self.0
            .as_ref()
            .filter(|hdr| !hdr.is_empty())
            .map_or(Duration::ZERO, |hdr| Duration::from_nanos(hdr.max()))
    }

    /// Recorded values as (upper bound of the bucket, count), ascending.
    pub fn buckets(&self) -> Vec<(Duration, u64)> {
        let Some(hdr) = &self.0 else { return Vec::new() };
        hdr.iter_recorded()
            .map(|step| (Duration::from_nanos(step.value_iterated_to()), step.count_at_value()))
            .collect()
    }
}

/// The most pieces of work that are kept for the observer. Each batch and verb tells it, so that more come together only where
/// every write flushes and nothing is migrated, or the observer is slow.
const UNTOLD_MAX: usize = 4096;
/// For how long one thread goes on telling it of them: whoever waits for that thread waits for the observer too.
const TELL_FOR: Duration = Duration::from_millis(10);

const SHARDS: usize = 8;
const OPERATIONS: usize = Operation::ALL.len();
const ACTIVITIES: usize = Activity::ALL.len();

struct Shard {
    latency: [[Histogram; ACTIVITIES]; OPERATIONS],
    pauses: [Histogram; ACTIVITIES],
}

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    /// This thread is calling an observer.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

#[inline]
fn shard_of_thread() -> usize {
    let shard = SHARD.get();
    if shard == usize::MAX { new_shard() } else { shard }
}

#[cold]
fn new_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    SHARD.get()
}

/// The collecting side, one for a store.
pub(crate) struct Recorder {
    /// Read raw, and turned into nanoseconds where one is counted.
    clock: Clock,
    anchor: u64,
    shards: [CachePadded<Mutex<Shard>>; SHARDS],
    meters: [CachePadded<Meter>; METERS],
    background: AtomicUsize,
    rare: Mutex<Rare>,
    pub(crate) overruns: AtomicU64,
    pub(crate) merges_dropped: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    observer_panics: AtomicU64,
    pub(crate) budget_ns: AtomicU64,
    observer: Option<Arc<dyn Observer>>,
    observe_from: Duration,
    /// Work that the observer is still to be told of: it may have ended under a lock.
    untold: Mutex<VecDeque<Work>>,
}

struct Rare {
    engine_calls: Histogram,
    batches: Histogram,
    flips: Histogram,
    stalls: Histogram,
}

/// A foreground operation under way.
pub(crate) struct Timer {
    /// By the recorder's clock.
    start: u64,
    /// Background engine time so far; `None` if nothing runs in the background.
    busy_ns: Option<u64>,
}

impl Recorder {
    pub(crate) fn new(observer: Option<Arc<dyn Observer>>, observe_from: Duration) -> Self {
        let empty = || Shard {
            latency: array::from_fn(|_| array::from_fn(|_| Histogram::empty())),
            pauses: array::from_fn(|_| Histogram::empty()),
        };
        let clock = Clock::new();
        Self {
            anchor: clock.raw(),
            clock,
            shards: array::from_fn(|_| CachePadded::new(Mutex::new(empty()))),
            meters: array::from_fn(|_| CachePadded::new(Meter::default())),
            background: AtomicUsize::new(0),
            rare: Mutex::new(Rare {
                engine_calls: Histogram::empty(),
                batches: Histogram::empty(),
                flips: Histogram::empty(),
                stalls: Histogram::empty(),
            }),
            overruns: AtomicU64::new(0),
            merges_dropped: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            observer_panics: AtomicU64::new(0),
            budget_ns: AtomicU64::new(1_000_000),
            observer,
            observe_from,
            untold: Mutex::default(),
        }
    }

    /// Calls the observer. What it is told of has happened, so its panic is only noted.
    fn notify(&self, call: impl FnOnce(&dyn Observer)) {
        let Some(observer) = &self.observer else { return };
        if let Err(text) = caught(|| call(&**observer)) {
            self.observer_panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(target: "exuvia", text, "an observer panicked");
        }
    }

    /// [`Recorder::notify`], of what the observer's own calls may cause too: it is not told of that, or it would never
    /// come to an end, or wait for a lock of its own.
    fn notify_once(&self, call: impl FnOnce(&dyn Observer)) {
        if !TELLING.get() {
            self.notify_alone(call);
        }
    }

    /// [`Recorder::notify`], and meanwhile this thread tells of nothing but state changes.
    fn notify_alone(&self, call: impl FnOnce(&dyn Observer)) {
        let before = TELLING.replace(true);
        self.notify(call);
        TELLING.set(before);
    }

    /// Tells the observer of a state change. To be called under no lock.
    pub(crate) fn changed(&self, entry: &LedgerEntry) {
        self.tell();
        self.notify_alone(|observer| observer.state_change(entry));
    }

    fn nanos(&self, at: u64) -> u64 {
        self.clock.delta_as_nanos(self.anchor, at)
    }

    #[inline]
    pub(crate) fn start(&self) -> Timer {
        let start = self.clock.raw();
        let busy_ns =
            (self.background.load(Ordering::Relaxed) > 0).then(|| self.background_ns(self.nanos(start)));
        Timer { start, busy_ns }
    }

    #[inline]
    pub(crate) fn finish(
        &self,
        timer: Timer,
        operation: Operation,
        activity: Activity,
        waited: Duration,
        table: &Name,
    ) {
        let end = self.clock.raw();
        let latency_ns = self.clock.delta_as_nanos(timer.start, end);
        let mut shard = self.shards.get(shard_of_thread()).map(|shard| shard.lock());
        if let Some(histogram) = shard
            .as_mut()
            .and_then(|shard| shard.latency.get_mut(operation as usize))
            .and_then(|by_activity| by_activity.get_mut(activity as usize))
        {
            histogram.record_ns(latency_ns);
        }
        drop(shard);
        if timer.busy_ns.is_some() || !waited.is_zero() {
            self.pause(&timer, end, Duration::from_nanos(latency_ns), operation, activity, waited, table);
        }
    }

    /// What of a call was a pause: counted while something is at work in the background, or a flip was in the way.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "what `finish` knows")]
    fn pause(
        &self,
        timer: &Timer,
        end: u64,
        latency: Duration,
        operation: Operation,
        activity: Activity,
        waited: Duration,
        table: &Name,
    ) {
        let overlap =
            timer.busy_ns.map_or(0, |before| self.background_ns(self.nanos(end)).saturating_sub(before));
        let pause = (Duration::from_nanos(overlap) + waited).min(latency);
        if let Some(shard) = self.shards.get(shard_of_thread())
            && let Some(histogram) = shard.lock().pauses.get_mut(activity as usize)
        {
            histogram.record(pause);
        }
        let budget = Duration::from_nanos(self.budget_ns.load(Ordering::Relaxed));
        let own = latency.saturating_sub(pause);
        if own > budget {
            self.rare.lock().stalls.record(own);
        }
        if pause >= self.observe_from && self.observer.is_some() {
            let table = &*table.to_string();
            let pause = Pause { table, operation, activity, pause, gate: waited, latency };
            self.notify_once(|observer| observer.pause(&pause));
        }
    }

    /// Claims a meter for a background worker.
    pub(crate) fn background(self: &Arc<Self>) -> BackgroundMeter {
        self.background.fetch_add(1, Ordering::Relaxed);
        let free = |meter: &Meter| !meter.taken.swap(true, Ordering::Acquire);
        // More workers than meters: the others are not metered. A meter has one writer.
        let slot = self.meters.iter().position(|meter| free(meter)).unwrap_or(METERS);
        BackgroundMeter { recorder: Arc::clone(self), slot }
    }

    /// Notes a piece of background work that ended just now, for the observer.
    #[inline]
    pub(crate) fn worked(&self, kind: WorkKind, took: Duration) {
        if self.observer.is_some() && took >= self.observe_from {
            let now = std::time::Instant::now();
            let began = now.checked_sub(took).unwrap_or(now);
            let mut untold = self.untold.lock();
            if untold.len() < UNTOLD_MAX {
                untold.push_back(Work { kind, began, took });
            }
        }
    }

    /// Tells the observer of the work that was noted, for [`TELL_FOR`]; the rest is told the next time. To be called under no
    /// lock.
    pub(crate) fn tell(&self) {
        if self.observer.is_none() || TELLING.get() {
            return;
        }
        let begun = std::time::Instant::now();
        while let Some(work) = self.next_untold() {
            self.notify_once(|observer| observer.work(&work));
            if begun.elapsed() >= TELL_FOR {
                break;
            }
        }
    }

    fn next_untold(&self) -> Option<Work> {
        self.untold.lock().pop_front()
    }

    fn background_ns(&self, now_ns: u64) -> u64 {
        self.meters.iter().map(|meter| meter.read(now_ns)).sum()
    }

    pub(crate) fn flip(&self, held: Duration) {
        self.rare.lock().flips.record(held);
        self.worked(WorkKind::Flip, held);
    }

    pub(crate) fn batch(&self, hold: Duration) {
        self.rare.lock().batches.record(hold);
        if hold > Duration::from_nanos(self.budget_ns.load(Ordering::Relaxed)) {
            self.overruns.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let mut latency: [[Histogram; ACTIVITIES]; OPERATIONS] =
            array::from_fn(|_| array::from_fn(|_| Histogram::empty()));
        let mut pauses: [Histogram; ACTIVITIES] = array::from_fn(|_| Histogram::empty());
        for shard in &self.shards {
            let shard = shard.lock();
            for (sum, part) in latency.iter_mut().flatten().zip(shard.latency.iter().flatten()) {
                sum.add(part);
            }
            for (sum, part) in pauses.iter_mut().zip(&shard.pauses) {
                sum.add(part);
            }
        }
        let rare = self.rare.lock();
        Stats {
            latency,
            pauses,
            engine_calls: rare.engine_calls.clone(),
            batches: rare.batches.clone(),
            flips: rare.flips.clone(),
            engine_stalls: rare.stalls.clone(),
            budget_overruns: self.overruns.load(Ordering::Relaxed),
            merges_dropped: self.merges_dropped.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            observer_panics: self.observer_panics.load(Ordering::Relaxed),
            flushes: 0,
        }
    }
}

/// A snapshot of the statistics since the store was opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stats {
    latency: [[Histogram; ACTIVITIES]; OPERATIONS],
    pauses: [Histogram; ACTIVITIES],
    /// Durations of the engine calls that background workers made.
    pub engine_calls: Histogram,
    /// Engine time of each background batch; the budget bounds it.
    pub batches: Histogram,
    /// How long the gate was held exclusively by each flip.
    pub flips: Histogram,
    /// What remained of slow foreground calls after their pause: the engine's own stalls. Only those above
    /// the budget, and only while a background worker was at work.
    pub engine_stalls: Histogram,
    /// Batches whose engine time was above the budget.
    pub budget_overruns: u64,
    /// Merges by the default rule that dropped what only the newer form held.
    pub merges_dropped: u64,
    /// Tries of transactions, batches and updates that came to nothing because another writer, or a change of a
    /// migration's state, came between.
    pub conflicts: u64,
    /// Calls of the observer that panicked.
    pub observer_panics: u64,
    /// Engine flushes made.
    pub flushes: u64,
}

impl Stats {
    /// Latency of an operation while an activity was going on.
    pub fn latency(&self, operation: Operation, activity: Activity) -> Histogram {
        let by_activity = self.latency.get(operation as usize);
        by_activity.and_then(|h| h.get(activity as usize)).cloned().unwrap_or(Histogram::empty())
    }

    /// Pauses of foreground calls while an activity was going on.
    pub fn pauses(&self, activity: Activity) -> Histogram {
        self.pauses.get(activity as usize).cloned().unwrap_or(Histogram::empty())
    }

    /// The longest pause of any foreground call.
    pub fn longest_pause(&self) -> Duration {
        self.pauses.iter().map(Histogram::max).max().unwrap_or_default()
    }
}
