//! Never more than a segment of log without a sync.
//!
//! sled takes `sync_file_range` for durable, says so in the headers of its segments, and at recovery trusts all of
//! its log but the last segments. A power failure with more than one segment waiting can leave a store that does not
//! open at all, also what was flushed long before (docs/reliability.md has the evidence). So log that waits is
//! counted, and synced before it can come to a segment:
//!
//! 1. Every write counts four times its size: a record is in the log once by itself, and again whenever its page is
//!    rewritten or moved.
//! 2. Above [`SOFT_BYTES`] a thread of the engine's own syncs, beside the writers.
//! 3. Above [`HARD_BYTES`], if that thread does not keep up, the writer itself syncs before it goes on.
//!
//! A sync starts from zero before it begins, so at most twice the hard limit waits, which is under a segment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::SEGMENT_BYTES;
use super::fence::{Access, Fence};
use super::files::Files;
use crate::engine::EngineResult;
use crate::error::EngineError;

const SOFT_BYTES: usize = SEGMENT_BYTES / 4;
const HARD_BYTES: usize = SEGMENT_BYTES / 8 * 3;
/// What sled adds to a record in its log, at most.
const RECORD_OVERHEAD: usize = 64;

/// All that a sync needs. Held by the engine and by its syncing thread.
pub(super) struct Pace {
    db: sled::Db,
    fence: Arc<Fence>,
    files: Files,
    waiting: AtomicUsize,
    /// One sync at a time: two would only wait for each other's disk.
    syncing: Mutex<()>,
    wanted: Mutex<bool>,
    wake: Condvar,
    stop: AtomicBool,
}

impl Pace {
    pub(super) fn new(db: sled::Db, fence: Arc<Fence>, files: Files) -> Self {
        Self {
            db,
            fence,
            files,
            waiting: AtomicUsize::new(0),
            syncing: Mutex::new(()),
            wanted: Mutex::new(false),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        }
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Counts a write that is about to be made, and sees to it that not too much waits.
    #[inline]
    pub(super) fn admit(&self, bytes: usize) -> EngineResult<()> {
        let bytes = 4 * (bytes + RECORD_OVERHEAD);
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= SOFT_BYTES { Ok(()) } else { self.over(before, before + bytes) }
    }

    #[cold]
    fn over(&self, before: usize, waiting: usize) -> EngineResult<()> {
        if waiting > HARD_BYTES {
            let _turn = self.syncing.lock();
            // Another writer may have synced while this one waited for its turn.
            if self.waiting.load(Ordering::Relaxed) > HARD_BYTES {
                return self.sync_now();
            }
        } else if before <= SOFT_BYTES {
            *self.wanted.lock() = true;
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Whether a sync is due or under way: what is written now brings the writers nearer to the hard limit.
    pub(super) fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > SOFT_BYTES || self.syncing.is_locked()
    }

    /// Makes durable what was written before the call.
    pub(super) fn sync(&self) -> EngineResult<()> {
        let _turn = self.syncing.lock();
        self.sync_now()
    }

    fn sync_now(&self) -> EngineResult<()> {
        self.waiting.store(0, Ordering::Relaxed);
        self.fence.call(Access::Write, "", || self.db.flush().map(drop))?;
        self.fence.check(Access::Write)?;
        self.files.sync().map_err(|e| {
            // The kernel reports a failed write-back once and forgets the pages: a second try would answer "durable"
            // for data that is gone. So there is none.
            let error = EngineError::io("flush", e);
            self.fence.stop(&error.to_string());
            error
        })
    }

    /// Starts the thread that syncs beside the writers.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let pace = Arc::clone(self);
        std::thread::Builder::new().name("exuvia-sled-sync".to_owned()).spawn(move || {
            while !pace.stop.load(Ordering::Acquire) {
                {
                    let mut wanted = pace.wanted.lock();
                    if !*wanted && !pace.stop.load(Ordering::Acquire) {
                        pace.wake.wait(&mut wanted);
                    }
                    *wanted = false;
                }
                // A failure stops the engine: the next call answers it.
                if pace.waiting.load(Ordering::Relaxed) > SOFT_BYTES && pace.sync().is_err() {
                    return;
                }
            }
        })
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        *self.wanted.lock() = true;
        self.wake.notify_all();
    }
}
