//! The loop of every pass, and the same pace for a caller's own long work.

use std::time::Duration;

use super::pacer::{Measured, Pacer};
use super::turns::{self, Steps};
use super::{Budget, Host};
use crate::error::Result;
use crate::measure::stats::BackgroundMeter;

/// The engine calls of one batch: metered, and added up.
pub(crate) struct Calls {
    meter: BackgroundMeter,
    took: Vec<Duration>,
    /// Whether the thread keeps its core, as work without a budget does.
    keeps_turns: bool,
}

impl Calls {
    pub(crate) fn new(meter: BackgroundMeter) -> Self {
        Self { meter, took: Vec::new(), keeps_turns: false }
    }

    /// Makes one engine call.
    pub(crate) fn make<R>(&mut self, call: impl FnOnce() -> R) -> R {
        let (result, took) = self.meter.call(call);
        self.took.push(took);
        result
    }

    pub(crate) fn count(&self) -> usize {
        self.took.len()
    }

    /// How long they were in the engine.
    pub(crate) fn engine(&self) -> Duration {
        self.took.iter().sum()
    }

    /// Lets a thread go first that waits for this core. To be called after each record, and not under the gate.
    pub(crate) fn give_turn(&self) {
        if !self.keeps_turns {
            turns::give_turn();
        }
    }

    /// Records the batch, and begins the next. Answers how long it was in the engine.
    pub(crate) fn record(&mut self) -> Duration {
        let engine = self.engine();
        self.meter.record(&self.took);
        self.took.clear();
        engine
    }
}

/// What a step of a pass did.
pub(crate) enum Step {
    /// So many records, and there is more.
    Did(usize),
    /// Nothing that counts; look again after this long.
    Idle(Duration),
    /// The last of it.
    Done,
    /// What there is: the pass has to end here.
    Stopped,
}

/// One thread's work at the pace that its budget allows.
pub(crate) struct Paced<H> {
    host: H,
    budget: Budget,
    calls: Calls,
    pacer: Pacer,
    steps: Steps,
}

impl<H: Host> Paced<H> {
    pub(crate) fn new(host: H, meter: BackgroundMeter) -> Self {
        let budget = host.budget();
        Self { host, budget, calls: Calls::new(meter), pacer: Pacer::new(), steps: Steps::new() }
    }

    /// Calls `step` with the records of a batch until it is done, fails, or is stopped. Answers whether it was done.
    pub(crate) fn drive(&mut self, mut step: impl FnMut(usize, &mut Calls) -> Result<Step>) -> Result<bool> {
        loop {
            self.give_way();
            if self.host.stopping() {
                return Ok(false);
            }
            let (stepped, spent) = self.steps.timed(|| step(self.pacer.batch(), &mut self.calls));
            let engine = self.calls.record();
            let rest = match stepped? {
                Step::Idle(rest) => rest,
                Step::Did(records) => self.rest_after(&Measured { records, engine, spent }),
                step @ (Step::Done | Step::Stopped) => {
                    self.host.batch(engine);
                    return Ok(matches!(step, Step::Done));
                }
            };
            self.rest(rest);
        }
    }

    /// Makes one engine call of a caller that goes on by itself; every so often it rests first.
    pub(crate) fn call<R>(&mut self, call: impl FnOnce() -> R) -> R {
        let records = self.calls.count();
        if records >= self.pacer.batch() {
            let spent = self.steps.end();
            let engine = self.calls.record();
            let rest = self.rest_after(&Measured { records, engine, spent });
            self.rest(rest);
            self.give_way();
            self.steps.begin();
        }
        self.calls.make(call)
    }

    /// Rests while the medium is behind, so that what little may wait for it is left to the foreground. Without a budget the work
    /// is asked for speed and for nothing else, and would only wait for the disk, again and again.
    fn give_way(&mut self) {
        self.budget = self.host.budget();
        self.calls.keeps_turns = self.budget == Budget::unlimited();
        if !self.calls.keeps_turns {
            turns::rest_while(|| self.host.is_pressed() && !self.host.stopping());
        }
    }

    fn rest_after(&mut self, measured: &Measured) -> Duration {
        self.host.batch(measured.engine);
        let rest = self.pacer.rest_after(&self.budget, measured);
        #[cfg(test)]
        let rest = self.budget.rest.unwrap_or(rest);
        rest
    }

    fn rest(&self, rest: Duration) {
        if !rest.is_zero() {
            self.host.rest(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::sync::Arc;

    use super::*;
    use crate::measure::stats::Recorder;

    /// Notes what is asked of it; somebody waits from its third rest on.
    #[derive(Default)]
    struct Noted {
        rests: RefCell<Vec<Duration>>,
        batches: Cell<usize>,
        stopping: Cell<bool>,
    }

    impl Host for &Noted {
        fn budget(&self) -> Budget {
            Budget::default().resting(Duration::from_secs(3600))
        }

        fn stopping(&self) -> bool {
            self.stopping.get()
        }

        fn rest(&self, at_most: Duration) {
            self.rests.borrow_mut().push(at_most);
            self.stopping.set(self.rests.borrow().len() == 3);
        }

        fn is_pressed(&self) -> bool {
            false
        }

        fn batch(&self, _engine: Duration) {
            self.batches.set(self.batches.get() + 1);
        }
    }

    fn paced(host: &Noted) -> Paced<&Noted> {
        Paced::new(host, Arc::new(Recorder::new(None, Duration::MAX)).background())
    }

    #[test]
    fn a_pass_that_is_stopped_in_a_rest_is_called_no_more() {
        let (host, mut steps) = (Noted::default(), 0);
        let done = paced(&host).drive(|_, calls| {
            steps += 1;
            calls.make(|| ());
            Ok(if steps == 2 { Step::Idle(Duration::from_millis(7)) } else { Step::Did(1) })
        });
        assert!(!done.unwrap());
        let hour = Duration::from_secs(3600);
        assert_eq!(*host.rests.borrow(), [hour, Duration::from_millis(7), hour], "all rests are the host's");
        assert_eq!((steps, host.batches.get()), (3, 2), "an idle step is no batch");
        let again = paced(&host).drive(|_, _| panic!("somebody waits"));
        assert!(!again.unwrap());
    }

    #[test]
    fn what_is_over_rests_no_more() {
        let host = Noted::default();
        assert!(paced(&host).drive(|_, _| Ok(Step::Done)).unwrap());
        assert!(!paced(&host).drive(|_, _| Ok(Step::Stopped)).unwrap());
        let failed = paced(&host).drive(|_, _| Err(crate::Error::Closed));
        assert!(matches!(failed, Err(crate::Error::Closed)));
        assert!(host.rests.borrow().is_empty());
    }

    #[test]
    fn a_caller_rests_between_batches_of_its_calls() {
        let (host, batch) = (Noted::default(), Pacer::new().batch());
        let mut paced = paced(&host);
        (0..batch).for_each(|_| paced.call(|| ()));
        assert_eq!(host.batches.get(), 0);
        paced.call(|| ());
        assert_eq!((host.batches.get(), host.rests.borrow().len()), (1, 1));
    }
}
