//! Opening and closing sled, neither of which is over when its call returns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::fence;
pub(super) use super::fence::Ending;
use crate::engine::EngineResult;
use crate::error::EngineErrorKind;

/// How long an open waits for a handle of this process that is being dropped on another thread.
const REOPEN_WAIT: Duration = Duration::from_secs(2);
/// How long closing waits for sled after a failure.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Directories that this process closed lately. sled's threads may hold the lock of one for a moment longer.
static CLOSED: Mutex<Vec<(PathBuf, Instant)>> = Mutex::new(Vec::new());

/// Opens sled, and waits a little where this process itself has the directory's lock still.
pub(super) fn open(config: &sled::Config, directory: &Path, place: &str) -> EngineResult<sled::Db> {
    let begun = Instant::now();
    loop {
        let error = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(e)) => fence::translate(place, e),
            Err(panic) => fence::from_panic(place, &*panic),
        };
        let own =
            || CLOSED.lock().iter().any(|(closed, at)| closed == directory && at.elapsed() < REOPEN_WAIT);
        if error.kind() != EngineErrorKind::Locked || begun.elapsed() > REOPEN_WAIT || !own() {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Drops all that is `held` of sled, which makes it write what it still holds. That may fail (then it is silent),
/// panic, or, after a failure, wait for ever.
pub(super) fn close<T: Send + 'static>(held: T, ending: &Ending, directory: &Path) {
    let close = move || drop(catch_unwind(AssertUnwindSafe(|| drop(held))));
    match ending {
        Ending::Plain => close(),
        Ending::Wary => {
            let (done, closed) = mpsc::channel();
            let closing = std::thread::Builder::new().name("exuvia-sled-close".to_owned()).spawn(move || {
                close();
                let _nobody_may_be_waiting = done.send(());
            });
            if closing.is_ok() {
                let _in_time_or_not = closed.recv_timeout(CLOSE_WAIT);
            }
        }
    }
    let mut closed = CLOSED.lock();
    closed.retain(|(known, at)| at.elapsed() < REOPEN_WAIT && known != directory);
    closed.push((directory.to_owned(), Instant::now()));
}
