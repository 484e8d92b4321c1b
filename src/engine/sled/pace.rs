//! Never much log without a sync.
//!
//! sled takes `sync_file_range` for durable, says so in the headers of its segments, and at recovery trusts all of
//! its log up to the segment that the last header speaks of. A power failure while log that a header calls stable
//! still waits can leave a store that does not open at all, also what was flushed long before (docs/lab/reliability.md
//! has the evidence). So log that waits is kept short, by two rules.
//!
//! By count, so that the syncs are small and lie beside the writers:
//!
//! 1. Every write counts four times its size, a large one eleven times: a record is in the log once by itself, and again
//!    whenever its page, of up to seventeen such, is rewritten or moved.
//! 2. Above [`SOFT_BYTES`] a thread of the engine's own syncs. Little at a time: one of sled's threads then copies what
//!    waits to the system in one call, and a foreground thread that wakes up on its core waits for that. With four times
//!    as much it waited for up to 3 ms.
//! 3. Above [`HARD_BYTES`], if that thread does not keep up, the writer itself syncs before it goes on. Much later, so
//!    that a sync that the disk holds up for a tenth of a second holds up nobody else.
//!
//! By measure, as a write may rewrite a page of seventeen records, and many pages may come to it together. Say that
//! the last sync reached into segment *s*. The header of segment *k* calls stable what was written when *k - 1* was
//! full, which is less than all of *k - 1*, and gets to the disk with the first write of *k*. So *s + 2* is the
//! first whose header speaks of more than was synced.
//!
//! 4. When *s* is full and written, the thread syncs.
//! 5. When *s + 1* is too, every writer waits for a sync. *s + 2* is only in memory then, and as a whole there is
//!    room in it for the calls that are under way.
//! 6. sled's flush would write the beginning of *s + 2*: if *s* is full, the file is synced before it, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::SEGMENT_BYTES;
use super::fence::{Access, Fence};
use super::files::Files;
use crate::engine::EngineResult;
use crate::engine::owner::Owner;
use crate::error::EngineError;

const SOFT_BYTES: usize = SEGMENT_BYTES / 16;
const HARD_BYTES: usize = SEGMENT_BYTES;
/// Above this a write is a large one.
const LARGE_BYTES: usize = 4096;
/// What sled adds to a record in its log, at most.
pub(super) const RECORD_OVERHEAD: usize = 64;

/// The last position of the log that is on the disk, as far as sled knows.
#[inline]
fn stable_position(db: &sled::Db) -> i64 {
    // Not in sled's documentation, but public; the version is pinned.
    db.context.pagecache.log.stable_offset()
}

/// The segment of that.
#[inline]
fn stable_segment(db: &sled::Db) -> i64 {
    stable_position(db) / SEGMENT_BYTES as i64
}

/// Frees what sled has replaced: old pages, and the buffers of whole segments.
///
/// sled leaves that to epochs (crossbeam-epoch, after Fraser, "Practical lock-freedom", 2004), which free at most 512
/// objects in every 128 pinnings of a thread, and none while a thread is inside a flush. A backfill beside the syncs
/// replaces more than that, so garbage would grow with the table. It is freed here, beside the callers; it would
/// otherwise be freed inside one of their calls.
fn collect_garbage() {
    // Each round frees up to 512 objects; a sync comes with some ten thousand. Garbage is free to go two epochs later,
    // and the epoch moves on only when every caller has left the engine once, so there is a moment between rounds.
    const ROUNDS: usize = 64;
    const ROUNDS_AT_ONCE: usize = 4;
    const MOMENT: Duration = Duration::from_micros(20);
    for round in 0..ROUNDS {
        crossbeam_epoch::pin().flush();
        if round % ROUNDS_AT_ONCE == 0 {
            std::thread::sleep(MOMENT);
        } else {
            // A round may take a tenth of a millisecond: whoever waits for the core goes first.
            std::thread::yield_now();
        }
    }
}

/// All that a sync needs. Held by the engine and by its syncing thread.
pub(super) struct Pace {
    db: sled::Db,
    fence: Arc<Fence>,
    files: Files,
    owner: Owner,
    waiting: AtomicUsize,
    /// The segment, counted from the log's beginning, that the last sync reached into.
    synced: AtomicI64,
    /// One sync at a time: two would only wait for each other's disk.
    syncing: Mutex<()>,
    wanted: Mutex<bool>,
    wake: Condvar,
    stop: AtomicBool,
}

impl Pace {
    pub(super) fn new(db: sled::Db, fence: Arc<Fence>, files: Files, owner: Owner) -> Self {
        // What recovery left is synced before the first write: see the engine's `open`.
        let synced = AtomicI64::new(stable_segment(&db));
        Self {
            db,
            fence,
            files,
            owner,
            waiting: AtomicUsize::new(0),
            synced,
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
        let bytes = bytes * if bytes > LARGE_BYTES { 11 } else { 4 };
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let segments = self.segments_waiting();
        if before + bytes <= SOFT_BYTES && segments == 0 {
            Ok(())
        } else {
            self.over(before, bytes, segments)
        }
    }

    /// How many segments were written to their end since the last sync.
    #[inline]
    fn segments_waiting(&self) -> i64 {
        stable_segment(&self.db) - self.synced.load(Ordering::Acquire)
    }

    #[cold]
    fn over(&self, before: usize, bytes: usize, segments: i64) -> EngineResult<()> {
        if before + bytes > HARD_BYTES || segments > 1 {
            let _turn = self.syncing.lock();
            // Another writer may have synced while this one waited for its turn.
            if self.waiting.load(Ordering::Relaxed) > HARD_BYTES || self.segments_waiting() > 1 {
                self.sync_now()?;
                // The write itself comes after the sync.
                self.waiting.fetch_add(bytes, Ordering::Relaxed);
            }
        } else if before <= SOFT_BYTES || segments > 0 {
            let mut wanted = self.wanted.lock();
            if !*wanted {
                *wanted = true;
                self.wake.notify_one();
            }
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
        self.fence.check(Access::Write)?;
        self.owner.check().inspect_err(|e| self.fence.stop_writes(&e.to_string()))?;
        self.waiting.store(0, Ordering::Relaxed);
        if self.segments_waiting() > 0 {
            self.sync_files()?;
        }
        self.fence.call(Access::Write, "", || self.db.flush().map(drop))?;
        // sled leaves the buffer of the segment to this thread's own list of garbage, which is looked at when it has 64
        // entries: 256 MiB, for a thread that does nothing but flush.
        crossbeam_epoch::pin().flush();
        self.sync_files()
    }

    fn sync_files(&self) -> EngineResult<()> {
        self.fence.check(Access::Write)?;
        // Read before the sync: a mark must never ask for more than is durable.
        let stable = stable_position(&self.db);
        let reached = stable / SEGMENT_BYTES as i64;
        self.files.sync(stable + 1).map_err(|e| {
            // The kernel reports a failed write-back once and forgets the pages: a second try would answer "durable"
            // for data that is gone. So there is none.
            let error = EngineError::io("flush", e);
            self.fence.stop(&error.to_string());
            error
        })?;
        self.synced.store(reached, Ordering::Release);
        Ok(())
    }

    /// Before the engine is closed: all of it is durable, and marked. Nothing is written any more.
    pub(super) fn close(&self) -> EngineResult<()> {
        self.sync()?;
        self.files.sync_mark().map_err(|e| EngineError::io("close", e))
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
                let due = pace.waiting.load(Ordering::Relaxed) > SOFT_BYTES || pace.segments_waiting() > 0;
                if due && pace.sync().is_err() {
                    return;
                }
                if pace.stop.load(Ordering::Acquire) {
                    // Nobody is to wait for that at the end: what an open has read makes a tenth of a second's worth.
                    return;
                }
                collect_garbage();
            }
        })
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        *self.wanted.lock() = true;
        self.wake.notify_all();
    }
}
