//! What is around a pass of this store: who may stop it, its budget, and what is measured.

use std::sync::Arc;
use std::time::Duration;

use crate::migration::run::Run;
use crate::pace::{Budget, Host, Paced, Stop};
use crate::state::shared::Shared;

/// Whoever drives a migration: stopped by a verb that waits for the seat.
pub(super) struct Seated<'a> {
    pub(super) run: &'a Run,
    pub(super) shared: &'a Shared,
}

impl<'a> Seated<'a> {
    /// The pace of a thread that drives `run`.
    pub(super) fn paced(run: &'a Run, shared: &'a Shared) -> Paced<Self> {
        Paced::new(Seated { run, shared }, shared.recorder.background())
    }
}

impl Host for Seated<'_> {
    fn budget(&self) -> Budget {
        self.run.control().budget
    }

    fn stopping(&self) -> bool {
        self.run.stopping()
    }

    fn rest(&self, at_most: Duration) {
        self.run.sleep(at_most);
    }

    fn is_pressed(&self) -> bool {
        self.shared.engine.is_pressed()
    }

    fn batch(&self, engine: Duration) {
        self.shared.recorder.batch(engine);
    }
}

/// The sweeper.
pub(super) struct Sweeping<'a> {
    pub(super) stop: &'a Stop,
    pub(super) shared: &'a Shared,
}

impl Host for Sweeping<'_> {
    fn budget(&self) -> Budget {
        self.shared.settings.budget
    }

    fn stopping(&self) -> bool {
        self.stop.is_asked()
    }

    fn rest(&self, at_most: Duration) {
        self.stop.rest(at_most);
    }

    fn is_pressed(&self) -> bool {
        self.shared.engine.is_pressed()
    }

    fn batch(&self, engine: Duration) {
        self.shared.recorder.batch(engine);
        self.shared.flusher.touch();
    }
}

/// A caller's own thread, which copies or fills: stopped by a close.
pub(crate) struct Called {
    shared: Arc<Shared>,
    budget: Budget,
}

impl Called {
    pub(crate) fn paced(shared: &Arc<Shared>, budget: Budget) -> Paced<Self> {
        Paced::new(Called { shared: Arc::clone(shared), budget }, shared.recorder.background())
    }
}

impl Host for Called {
    fn budget(&self) -> Budget {
        self.budget
    }

    fn stopping(&self) -> bool {
        self.shared.check_usable().is_err()
    }

    fn is_pressed(&self) -> bool {
        self.shared.engine.is_pressed()
    }

    fn batch(&self, engine: Duration) {
        self.shared.recorder.batch(engine);
        self.shared.flusher.touch();
    }
}
