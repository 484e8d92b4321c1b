//! Between sled and everything above it: no panic of sled's gets past here, and after a failure that sled cannot
//! be trusted to have survived, no call of ours gets to sled.

use std::any::Any;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::EngineResult;
pub(super) use crate::engine::stops::Access;
use crate::engine::stops::{self, Stops};
use crate::error::{EngineError, EngineErrorKind};

/// Catches panics, translates errors, and remembers the failure after which the engine is unusable.
pub(super) struct Fence {
    stops: Stops,
    /// Shares sled's global error; keeps no file open.
    config: sled::Config,
}

impl Fence {
    pub(super) fn new(config: sled::Config) -> Self {
        Self { stops: Stops::default(), config }
    }

    /// Every call into sled. `tree` is only looked at after a failure.
    #[inline]
    pub(super) fn call<T>(
        &self,
        access: Access,
        tree: &str,
        call: impl FnOnce() -> sled::Result<T>,
    ) -> EngineResult<T> {
        self.stops.check(access)?;
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(access, tree, error)),
            Err(panic) => Err(self.panicked(tree, &*panic)),
        }
    }

    /// For the calls of ours that go around sled to its files.
    pub(super) fn check(&self, access: Access) -> EngineResult<()> {
        self.stops.check(access)
    }

    /// The engine is done for, for a reason that sled does not know of.
    pub(super) fn stop(&self, reason: &str) {
        self.stops.stop(Access::Read, reason);
    }

    /// Nothing more is to be written, for a reason that sled does not know of; what is in memory is sound.
    pub(super) fn stop_writes(&self, reason: &str) {
        self.stops.stop(Access::Write, reason);
    }

    /// What closing may ask of sled.
    pub(super) fn ending(&self) -> Ending {
        // With a global error set sled does no more I/O, and waits for none.
        if self.config.global_error().is_err() {
            Ending::Plain
        } else if self.stops.reads_stopped() {
            Ending::Wary
        } else {
            Ending::Plain
        }
    }

    #[cold]
    fn failed(&self, access: Access, tree: &str, error: sled::Error) -> EngineError {
        // The state that sled is in after a failed write shows in its global error. Without one it may have left
        // a log buffer with a writer that never leaves it (it does when a blob file cannot be written), and then
        // any later wait for that buffer, in a read of an evicted page too, is for ever.
        let stopped = match (&error, access) {
            (sled::Error::Io(e), _) if self.is_of_a_read(e) => None,
            (sled::Error::Io(_), Access::Write) if self.config.global_error().is_err() => Some(Access::Write),
            (sled::Error::Io(_), Access::Write) | (sled::Error::ReportableBug(_), _) => Some(Access::Read),
            _ => None,
        };
        let error = translate(&place(tree), error);
        if let Some(access) = stopped {
            self.stops.stop(access, &error.to_string());
        }
        error
    }

    /// Whether a write failed at reading the page that it was to change: sled had written nothing yet, so only
    /// that page is lost.
    fn is_of_a_read(&self, error: &std::io::Error) -> bool {
        is_damage(error) && self.config.get_path().join("blobs").is_dir()
    }

    #[cold]
    fn panicked(&self, tree: &str, panic: &(dyn Any + Send)) -> EngineError {
        let error = from_panic(&place(tree), panic);
        self.stops.stop(Access::Read, &error.to_string());
        error
    }
}

/// How an engine may be closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Drop it.
    Plain,
    /// Drop it, but do not count on that to return.
    Wary,
}

fn place(tree: &str) -> String {
    if tree.is_empty() { "sled".to_owned() } else { format!("sled, tree \"{tree}\"") }
}

/// Whether a file is not what the log says that it is.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound)
}

pub(super) fn locked() -> EngineError {
    EngineError::new(EngineErrorKind::Locked, "the directory is open in another process or handle")
}

/// sled's error as ours.
pub(super) fn translate(place: &str, error: sled::Error) -> EngineError {
    match error {
        sled::Error::Io(e)
            if e.kind() == ErrorKind::Other && e.to_string().contains("could not acquire lock") =>
        {
            locked()
        }
        sled::Error::Io(e) if is_damage(&e) => EngineError::new(
            EngineErrorKind::Corrupt,
            format!("{place}: a file is missing or too short: {e}"),
        ),
        sled::Error::Io(e) => EngineError::io(place, e),
        // sled's own text has a debug dump of an empty backtrace in it.
        sled::Error::Corruption { at: Some(at), .. } => {
            EngineError::new(EngineErrorKind::Corrupt, format!("{place}: damaged data in the file at {at:?}"))
        }
        sled::Error::Corruption { at: None, .. } => {
            EngineError::new(EngineErrorKind::Corrupt, format!("{place}: damaged data in the file"))
        }
        // Another version of sled, or a settings file that makes no sense.
        sled::Error::Unsupported(what) => {
            EngineError::new(EngineErrorKind::Corrupt, format!("{place}: {what}"))
        }
        sled::Error::ReportableBug(what) => {
            EngineError::new(EngineErrorKind::Corrupt, format!("{place}: an internal failure: {what}"))
        }
        sled::Error::CollectionNotFound(_) => {
            EngineError::new(EngineErrorKind::Io, format!("{place}: the tree was dropped; open it again"))
        }
    }
}

pub(super) fn from_panic(place: &str, panic: &(dyn Any + Send)) -> EngineError {
    stops::from_panic("sled", place, panic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence() -> Fence {
        Fence::new(sled::Config::new())
    }

    #[test]
    fn a_panic_is_a_typed_error_and_the_first_reason_stays() {
        let fence = fence();
        let first = fence.call(Access::Read, "t", || -> sled::Result<()> { panic!("page {} is odd", 7) });
        let first = first.unwrap_err();
        assert_eq!(first.kind(), EngineErrorKind::Corrupt);
        assert!(first.to_string().contains("page 7 is odd"), "{first}");
        for access in [Access::Read, Access::Write] {
            let later =
                fence.call(access, "u", || -> sled::Result<()> { unreachable!("sled is not asked again") });
            let later = later.unwrap_err();
            assert_eq!(later.kind(), EngineErrorKind::Poisoned);
            assert!(later.to_string().contains("page 7 is odd"), "{later}");
        }
        assert_eq!(fence.ending(), Ending::Wary);
    }

    #[test]
    fn a_damaged_page_stops_nothing_else_but_a_failed_write_does() {
        let fence = fence();
        let corrupt = || Err::<(), _>(sled::Error::Corruption { at: None, bt: () });
        assert_eq!(fence.call(Access::Write, "t", corrupt).unwrap_err().kind(), EngineErrorKind::Corrupt);
        assert!(fence.call(Access::Write, "t", || Ok(())).is_ok());
        let full = || Err::<(), _>(sled::Error::Io(ErrorKind::StorageFull.into()));
        // Without sled's global error there is no telling what it left behind.
        assert_eq!(fence.call(Access::Write, "t", full).unwrap_err().kind(), EngineErrorKind::NoSpace);
        assert_eq!(fence.call(Access::Read, "t", || Ok(())).unwrap_err().kind(), EngineErrorKind::Poisoned);
    }
}
