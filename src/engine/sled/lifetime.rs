//! Opening and closing sled, neither of which is over when its call returns.

use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::fence;
pub(super) use super::fence::Ending;
use crate::engine::own_file;
use crate::engine::{EngineResult, threads};
use crate::error::{EngineError, EngineErrorKind};

/// How long an open waits for a lock that nobody is known to hold: a process that was just started has the files of its
/// parent until it runs its own program.
const OPEN_WAIT: Duration = Duration::from_millis(250);
/// How long closing waits for sled after a failure, and for its threads, which may have the file open for a moment longer.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Threads that sled and what is around it use at an open, of a store of whatever size.
const THREADS: usize = 8;

/// Opens sled.
pub(super) fn open(config: &sled::Config, place: &str) -> EngineResult<sled::Db> {
    // sled would wait for ever for what the first of its threads is to read.
    threads::check(place, THREADS)?;
    let begun = Instant::now();
    loop {
        let error = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(e)) => fence::translate(place, e),
            Err(panic) => fence::from_panic(place, &*panic),
        };
        if error.kind() != EngineErrorKind::Locked || begun.elapsed() > OPEN_WAIT {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes sled's own lock, on its log, and waits as [`open`] does. Not where there is no file to be locked.
pub(super) fn lock(log: &Path, place: &str) -> EngineResult<Option<File>> {
    let file = match File::open(log) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| EngineError::io(place, e))?,
    };
    match own_file::lock_within(&file, OPEN_WAIT) {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(fence::locked()),
        Err(TryLockError::Error(e)) => Err(EngineError::io(place, e)),
    }
}

/// Drops all that is `held` of sled, which makes it write what it still holds. That may fail (then it is silent),
/// panic, or, after a failure, wait for ever. Returns when the directory can be opened again, but for the last of these.
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
            if closing.is_err() || closed.recv_timeout(CLOSE_WAIT).is_err() {
                // It has the directory until the process ends.
                return;
            }
        }
    }
    // One that is moved or gone keeps nobody out.
    if let Ok(log) = File::open(directory.join("db")) {
        let _in_time_or_not = own_file::lock_within(&log, CLOSE_WAIT);
    }
}
