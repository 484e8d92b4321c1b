//! What background workers spend inside engine calls, readable while a call is in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

use super::Recorder;
use crate::measure::observe::WorkKind;

pub(super) const METERS: usize = 4;

/// How long a background worker has been inside engine calls, readable while one is in flight.
///
/// A seqlock with one writer: `sequence` is odd while the two fields change.
#[derive(Default)]
pub(super) struct Meter {
    sequence: AtomicU64,
    total_ns: AtomicU64,
    /// Start of the call in flight; zero if none.
    since_ns: AtomicU64,
    /// A worker has it.
    pub(super) taken: AtomicBool,
}

impl Meter {
    fn set(&self, total_ns: u64, since_ns: u64) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.total_ns.store(total_ns, Ordering::Relaxed);
        self.since_ns.store(since_ns, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    pub(super) fn read(&self, now_ns: u64) -> u64 {
        let (mut total, mut since) = (0, 0);
        // Bounded: a worker that lost its processor in mid-change must not make a foreground call spin.
        for _ in 0..16 {
            let before = self.sequence.load(Ordering::Acquire);
            total = self.total_ns.load(Ordering::Relaxed);
            since = self.since_ns.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                break;
            }
        }
        if since == 0 { total } else { total + now_ns.saturating_sub(since) }
    }
}

/// The writing side of a meter; given back when dropped.
pub(crate) struct BackgroundMeter {
    pub(super) recorder: Arc<Recorder>,
    pub(super) slot: usize,
}

impl BackgroundMeter {
    /// Runs one engine call of the background, metered. Answers its duration too.
    pub(crate) fn call<R>(&self, call: impl FnOnce() -> R) -> (R, Duration) {
        let clock = &self.recorder.clock;
        let start = clock.raw();
        let elapsed_ns = || clock.delta_as_nanos(start, clock.raw());
        let Some(meter) = self.recorder.meters.get(self.slot) else {
            let result = call();
            let took = Duration::from_nanos(elapsed_ns());
            self.recorder.worked(WorkKind::EngineCall, took);
            return (result, took);
        };
        let total = meter.total_ns.load(Ordering::Relaxed);
        meter.set(total, self.recorder.nanos(start).max(1));
        let result = call();
        let took_ns = elapsed_ns();
        meter.set(total + took_ns, 0);
        let took = Duration::from_nanos(took_ns);
        self.recorder.worked(WorkKind::EngineCall, took);
        (result, took)
    }

    /// Records the engine calls of one batch, and tells the observer of the long ones.
    pub(crate) fn record(&self, calls: &[Duration]) {
        let mut rare = self.recorder.rare.lock();
        for call in calls {
            rare.engine_calls.record(*call);
        }
        drop(rare);
        self.recorder.tell();
    }
}

impl Drop for BackgroundMeter {
    fn drop(&mut self) {
        if let Some(meter) = self.recorder.meters.get(self.slot) {
            meter.taken.store(false, Ordering::Release);
        }
        self.recorder.background.fetch_sub(1, Ordering::Relaxed);
        self.recorder.tell();
    }
}
