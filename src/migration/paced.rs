//! Pacing of a caller's own long work: single engine calls, with rests between batches of them.

use std::sync::Arc;
use std::time::Duration;

use crate::core::Shared;
use crate::engine::EngineResult;
use crate::migration::pacer::{self, Budget, Decision, Measured};
use crate::migration::worker;
use crate::stats::BackgroundMeter;
use crate::sync::{Instant, thread};

/// As many calls as a batch has, then a rest: as a backfill, but in the caller's thread.
pub(crate) struct Paced {
    shared: Arc<Shared>,
    meter: BackgroundMeter,
    budget: Budget,
    batch: usize,
    begun: Instant,
    calls: Vec<Duration>,
}

impl Paced {
    pub(crate) fn new(shared: &Arc<Shared>, budget: Budget) -> Self {
        let meter = shared.recorder.background();
        Self {
            shared: Arc::clone(shared),
            meter,
            budget,
            batch: 16,
            begun: Instant::now(),
            calls: Vec::new(),
        }
    }

    /// Makes one engine call; every so often it rests first.
    pub(crate) fn call<R>(&mut self, call: impl FnOnce() -> EngineResult<R>) -> EngineResult<R> {
        if self.calls.len() >= self.batch {
            self.rest();
        }
        let (result, took) = self.meter.call(call);
        self.calls.push(took);
        result
    }

    fn rest(&mut self) {
        let (engine, elapsed) = (self.calls.iter().sum(), self.begun.elapsed());
        self.meter.record(&self.calls);
        self.shared.recorder.batch(engine);
        self.shared.flusher.touch();
        let measured = Measured { records: self.calls.len(), engine, elapsed };
        let Decision { batch, rest } = pacer::decide(&self.budget, self.batch, &measured);
        self.batch = batch;
        self.calls.clear();
        worker::give_way_within(&self.budget, &self.shared, || self.shared.check_usable().is_err());
        thread::sleep(rest);
        self.begun = Instant::now();
    }
}
