//! Between fjall and everything above it: no panic of fjall's gets past here, and after a failure that it cannot be
//! trusted to have survived, no call of ours gets to it.

use std::any::Any;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::Error as FjallError;

use super::hidden::LsmError;
use crate::engine::EngineResult;
pub(super) use crate::engine::stops::Access;
use crate::engine::stops::{self, Stops};
use crate::error::{EngineError, EngineErrorKind};
use crate::medium;

/// With fewer bytes free a failure in the background is put down to the full disk.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// Catches panics, translates errors, and remembers the failure after which the engine is unusable.
#[derive(Default)]
pub(super) struct Fence {
    /// Writes, after a failed write: what is in memory is sound. Reads too, after a panic: locks may be left behind.
    stops: Stops,
    directory: PathBuf,
}

impl Fence {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), ..Self::default() }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every call into fjall. `tree` is only looked at after a failure.
    #[inline]
    pub(super) fn call<T>(
        &self,
        access: Access,
        tree: &str,
        call: impl FnOnce() -> fjall::Result<T>,
    ) -> EngineResult<T> {
        self.check(access)?;
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(access, tree, error)),
            Err(panic) => {
                let error = from_panic(&place(tree), &*panic);
                self.stop(Access::Read, &error.to_string());
                Err(error)
            }
        }
    }

    #[inline]
    pub(super) fn check(&self, access: Access) -> EngineResult<()> {
        self.stops.check(access)
    }

    /// From here on calls of this kind are refused (writes wherever reads are).
    #[cold]
    pub(super) fn stop(&self, access: Access, reason: &str) {
        self.stops.stop(access, reason);
    }

    #[cold]
    fn failed(&self, access: Access, tree: &str, error: FjallError) -> EngineError {
        let stopped = match (&error, access) {
            // One of fjall's threads failed; it says why only to a logger.
            (FjallError::Poisoned, _) => true,
            (FjallError::Io(_) | FjallError::Storage(LsmError::Io(_)), Access::Write) => true,
            _ => false,
        };
        let unexplained = matches!(error, FjallError::Poisoned) && self.stops.reason().is_none();
        let mut error = translate(&place(tree), error);
        if unexplained && medium::free_bytes(&self.directory).is_some_and(|free| free < FREE_BYTES_MIN) {
            error = EngineError::io("a write in the background failed", ErrorKind::StorageFull.into());
        }
        if stopped {
            self.stop(Access::Write, &error.to_string());
        }
        error
    }
}

fn place(tree: &str) -> String {
    if tree.is_empty() { "fjall".to_owned() } else { format!("fjall, tree \"{tree}\"") }
}

/// fjall's error as ours.
pub(super) fn translate(place: &str, error: FjallError) -> EngineError {
    let corrupt = |what: String| EngineError::new(EngineErrorKind::Corrupt, format!("{place}: {what}"));
    match error {
        FjallError::Io(e) | FjallError::Storage(LsmError::Io(e)) => match e.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound => {
                corrupt(format!("a file is missing or too short: {e}"))
            }
            _ => EngineError::io(place, e),
        },
        FjallError::Locked => {
            EngineError::new(EngineErrorKind::Locked, "the directory is open in another process or handle")
        }
        FjallError::Poisoned => EngineError::new(
            EngineErrorKind::Poisoned,
            format!("{place}: a write in the background failed (a full disk, or a damaged file)"),
        ),
        FjallError::KeyspaceDeleted => dropped(place),
        FjallError::JournalRecovery(e) => corrupt(format!("the journal is damaged: {e:?}")),
        FjallError::InvalidVersion(Some(found)) => {
            corrupt(format!("the files are of another version of fjall: {found:?}"))
        }
        FjallError::InvalidVersion(None) => corrupt("its version file is damaged".to_owned()),
        FjallError::Storage(LsmError::ChecksumMismatch { .. }) => {
            corrupt("a damaged block in a file (its checksum is wrong)".to_owned())
        }
        FjallError::Storage(e) => corrupt(format!("damaged data in a file: {e:?}")),
        other => corrupt(format!("damaged data in a file: {other:?}")),
    }
}

pub(super) fn dropped(place: &str) -> EngineError {
    EngineError::new(EngineErrorKind::Io, format!("{place}: the tree was dropped; open it again"))
}

pub(super) fn from_panic(place: &str, panic: &(dyn Any + Send)) -> EngineError {
    stops::from_panic("fjall", place, panic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_typed_error_and_the_first_reason_stays() {
        let fence = Fence::default();
        let first = fence.call(Access::Read, "t", || -> fjall::Result<()> { panic!("block {} is odd", 7) });
        let first = first.unwrap_err();
        assert_eq!(first.kind(), EngineErrorKind::Corrupt);
        assert!(first.to_string().contains("block 7 is odd"), "{first}");
        for access in [Access::Read, Access::Write] {
            let later = fence.call(access, "u", || -> fjall::Result<()> { unreachable!("not asked again") });
            let later = later.unwrap_err();
            assert_eq!(later.kind(), EngineErrorKind::Poisoned);
            assert!(later.to_string().contains("block 7 is odd"), "{later}");
        }
    }

    #[test]
    fn a_damaged_block_stops_nothing_else_and_a_failed_write_stops_writes() {
        let fence = Fence::default();
        let corrupt = || Err::<(), _>(FjallError::Storage(LsmError::Unrecoverable));
        assert_eq!(fence.call(Access::Write, "t", corrupt).unwrap_err().kind(), EngineErrorKind::Corrupt);
        assert!(fence.call(Access::Write, "t", || Ok(())).is_ok());
        let full = || Err::<(), _>(FjallError::Io(ErrorKind::StorageFull.into()));
        assert_eq!(fence.call(Access::Write, "t", full).unwrap_err().kind(), EngineErrorKind::NoSpace);
        assert_eq!(fence.call(Access::Write, "t", || Ok(())).unwrap_err().kind(), EngineErrorKind::Poisoned);
        assert!(fence.call(Access::Read, "t", || Ok(())).is_ok(), "reads go on");
    }
}
