//! Trying again after a failure of the engine: for ever, because it may mend, with rests that grow; and for how long a
//! caller that waits is left to wait.

use std::time::Duration;

use crate::error::{EngineErrorKind, Error};
use crate::migration::run::{Run, Waiting};

const REST_FIRST: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(10);
/// Failures in a row, with nothing done between them, after which a caller is told: some two seconds after the first.
pub(super) const TRIES_PATIENT: u32 = 6;

/// The failures in a row of one worker.
pub(super) struct Retries {
    tries: u32,
    rest: Duration,
}

impl Retries {
    pub(super) fn new() -> Self {
        Self { tries: 0, rest: REST_FIRST }
    }

    /// Something was done: what comes is a first failure again.
    pub(super) fn got_on(&mut self) {
        *self = Self::new();
    }

    /// Notes the failure for those who look, and rests.
    pub(super) fn rest(&mut self, run: &Run, work: &str, e: &Error) {
        self.tries += 1;
        let (tries, reason) = (self.tries, e.to_string());
        tracing::warn!(target: "exuvia", error = %e, tries, "{work} failed; it goes on where it was");
        run.set(|control| {
            control.failure = kind(e);
            control.waiting = Some(Waiting::Retry { reason, tries });
        });
        run.sleep(self.rest);
        self.rest = (self.rest * 2).min(REST_MAX);
    }
}

/// Notes a failure that trying again does not mend.
pub(super) fn failed(run: &Run, work: &str, e: &Error) {
    tracing::error!(target: "exuvia", error = %e, "{work} ended");
    run.set(|control| {
        control.failure = kind(e);
        control.waiting = Some(Waiting::Failed { reason: e.to_string() });
    });
}

fn kind(e: &Error) -> Option<EngineErrorKind> {
    match e {
        Error::Engine(e) => Some(e.kind()),
        Error::Poisoned { .. } => Some(EngineErrorKind::Poisoned),
        _ => None,
    }
}

/// An error that trying again may mend. An engine that stopped has to be opened again.
pub(super) fn is_transient(e: &Error) -> bool {
    use EngineErrorKind::{Corrupt, Limit, Moved, Poisoned};
    match e {
        Error::Engine(e) => !matches!(e.kind(), Corrupt | Limit | Moved | Poisoned),
        Error::Conflict { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineError;

    #[test]
    fn what_passes_by_itself_is_tried_again_and_nothing_else() {
        let engine = |kind| Error::from(EngineError::new(kind, "injected"));
        assert!(is_transient(&engine(EngineErrorKind::Io)));
        // Somebody else's verb or write came between: another look, and it is another state.
        assert!(is_transient(&Error::Conflict { subject: "migration m".to_owned() }));
        use EngineErrorKind::{Corrupt, Limit, Moved, Poisoned};
        for kind in [Corrupt, Limit, Moved, Poisoned] {
            assert!(!is_transient(&engine(kind)), "{kind:?}");
        }
        assert!(!is_transient(&Error::state("table t", "it is dropped")));
    }
}
