//! Pacing of a caller's own long work: single engine calls, with rests between batches of them.

use std::sync::Arc;
use std::time::Duration;

use crate::core::Shared;
use crate::engine::EngineResult;
use crate::migration::pacer::{Budget, Measured, Pacer};
use crate::migration::turns::Steps;
use crate::migration::worker;
use crate::stats::BackgroundMeter;
use crate::sync::thread;

/// As many calls as a batch has, then a rest: as a backfill, but in the caller's thread.
pub(crate) struct Paced {
    shared: Arc<Shared>,
    meter: BackgroundMeter,
    budget: Budget,
    pacer: Pacer,
    steps: Steps,
    calls: Vec<Duration>,
}

impl Paced {
    pub(crate) fn new(shared: &Arc<Shared>, budget: Budget) -> Self {
        let meter = shared.recorder.background();
        Self {
            shared: Arc::clone(shared),
            meter,
            budget,
            pacer: Pacer::new(),
            steps: Steps::new(),
            calls: Vec::new(),
        }
    }

    /// Makes one engine call; every so often it rests first.
    pub(crate) fn call<R>(&mut self, call: impl FnOnce() -> EngineResult<R>) -> EngineResult<R> {
        if self.calls.len() >= self.pacer.batch() {
            self.rest();
        }
        let (result, took) = self.meter.call(call);
        self.calls.push(took);
        result
    }

    fn rest(&mut self) {
        let spent = self.steps.end();
        let engine = self.calls.iter().sum();
        self.meter.record(&self.calls);
        self.shared.recorder.batch(engine);
        self.shared.flusher.touch();
        let measured = Measured { records: self.calls.len(), engine, spent };
        self.calls.clear();
        let rest = self.pacer.rest_after(&self.budget, &measured);
        let stopped = || self.shared.check_usable().is_err();
        worker::give_way_within(&self.budget, &self.shared, stopped);
        thread::sleep(rest);
        self.steps.begin();
    }
}
