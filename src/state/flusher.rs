//! Group flush: one engine flush serves everyone whose write was made before it started.
//!
//! A failed flush leaves unknown what is durable, so it poisons the store: asking the system again may answer
//! "done" for pages that it has thrown away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::caught::caught;
use crate::engine::Engine;
use crate::error::{EngineError, EngineErrorKind, Error, Result};
use crate::measure::observe::WorkKind;
use crate::measure::stats::Recorder;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex};

pub(crate) struct Flusher {
    engine: Arc<dyn Engine>,
    recorder: Arc<Recorder>,
    rounds: Mutex<Rounds>,
    ended: Condvar,
    dirty: AtomicBool,
    stop: AtomicBool,
}

#[derive(Default)]
struct Rounds {
    started: u64,
    done: u64,
    running: bool,
    failed: Option<String>,
}

/// A point in time: durable once a flush that started after it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Flusher {
    pub(crate) fn new(engine: Arc<dyn Engine>, recorder: Arc<Recorder>) -> Self {
        Self {
            engine,
            recorder,
            rounds: Mutex::default(),
            ended: Condvar::new(),
            dirty: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    /// Notes that something was written.
    #[inline]
    pub(crate) fn touch(&self) {
        if !self.dirty.load(Ordering::Relaxed) {
            self.dirty.store(true, Ordering::Relaxed);
        }
    }

    /// Whether anything was written since the last flush began.
    #[cfg(all(any(feature = "sled", feature = "fjall"), not(exuvia_shuttle)))]
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Relaxed)
    }

    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.rounds.lock().started)
    }

    pub(crate) fn is_durable(&self, ticket: Ticket) -> bool {
        self.rounds.lock().done > ticket.0
    }

    /// Engine flushes made so far.
    pub(crate) fn count(&self) -> u64 {
        self.rounds.lock().done
    }

    /// Returns when everything written before the call is durable.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut rounds = self.rounds.lock();
        let wanted = rounds.started + 1;
        loop {
            if let Some(reason) = &rounds.failed {
                return Err(Error::Poisoned { reason: reason.clone() });
            }
            if rounds.done >= wanted {
                return Ok(());
            }
            if rounds.running {
                self.ended.wait(&mut rounds);
                continue;
            }
            rounds.running = true;
            rounds.started += 1;
            let round = rounds.started;
            drop(rounds);
            self.dirty.store(false, Ordering::Relaxed);
            let begun = Instant::now();
            let result = caught(|| self.engine.flush()).unwrap_or_else(|text| {
                Err(EngineError::new(EngineErrorKind::Poisoned, format!("the engine panicked: {text}")))
            });
            self.recorder.worked(WorkKind::Flush, begun.elapsed());
            rounds = self.rounds.lock();
            rounds.running = false;
            self.ended.notify_all();
            match result {
                Ok(()) => rounds.done = round,
                // Nothing was left undone: the close has flushed before.
                Err(e) if e.kind() == EngineErrorKind::Closed => return Err(e.into()),
                Err(e) => {
                    rounds.failed = Some(format!("a flush failed, and what it left undone is unknown: {e}"));
                    return Err(e.into());
                }
            }
        }
    }

    /// The body of the background thread: flushes what was written, every `interval`, until stopped,
    /// or until a flush failed, here or elsewhere: the answer is why. Calls `tend` each time.
    pub(crate) fn run(&self, interval: Duration, tend: impl Fn()) -> Option<String> {
        let mut rounds = self.rounds.lock();
        while !self.stop.load(Ordering::Acquire) {
            // Woken by every flush that ends; but only the interval counts, or each verb would cost two flushes.
            let due = Instant::now() + interval;
            while !self.stop.load(Ordering::Acquire) && rounds.failed.is_none() {
                if self.ended.wait_until(&mut rounds, due).timed_out() {
                    break;
                }
            }
            if rounds.failed.is_some() {
                break;
            }
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            drop(rounds);
            let flushed = if self.dirty.load(Ordering::Relaxed) { self.flush() } else { Ok(()) };
            self.recorder.tell();
            tend();
            rounds = self.rounds.lock();
            if flushed.is_err() {
                break;
            }
        }
        rounds.failed.clone()
    }

    pub(crate) fn stop(&self) {
        // Under the lock, or the thread could look just before and sleep just after.
        let _rounds = self.rounds.lock();
        self.stop.store(true, Ordering::Release);
        self.ended.notify_all();
    }
}
