//! What old writers wrote in an open migration, for the backfill to bring forward.

use crate::error::Result;
use crate::state::shared::Shared;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, SegQueue};

/// Keys that old writers wrote and the backfill has to bring forward.
///
/// Bounded, and so large as what is in it: when it overflows, the worker makes a pass over the whole overlay instead.
pub(crate) struct Backlog {
    keys: SegQueue<Vec<u8>>,
    overflowed: AtomicBool,
    /// Keys were taken out and are not brought forward yet.
    in_hand: AtomicBool,
    /// A close wrote down what was left to do, and no old code has written since.
    written_down: AtomicBool,
    forgetting: Mutex<()>,
    /// Writes that it was told of, and passes that were begun: so that one can tell whether it is worked off.
    pushed: AtomicU64,
    passes: AtomicU64,
}

/// Writers that come at the same time may each be one over it.
const BACKLOG_KEYS_MAX: usize = 32 * 1024;

impl Backlog {
    pub(crate) fn new() -> Self {
        Self {
            keys: SegQueue::new(),
            overflowed: AtomicBool::new(false),
            in_hand: AtomicBool::new(false),
            written_down: AtomicBool::new(false),
            forgetting: Mutex::default(),
            pushed: AtomicU64::new(0),
            passes: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_written_down(&self) {
        self.written_down.store(true, Ordering::Release);
    }

    /// To be called before old code writes, and before anything is reverted: what an earlier close wrote down of this
    /// overlay would be wrong then. Once, that costs a flush.
    #[inline]
    pub(crate) fn forget_written(&self, shared: &Shared, overlay: &str) -> Result<()> {
        if !self.written_down.load(Ordering::Acquire) {
            return Ok(());
        }
        let _no_write_before_it_is_durable = self.forgetting.lock();
        if self.written_down.load(Ordering::Acquire) {
            {
                // As any write: none comes after a close.
                let _hold = shared.gate.shared();
                shared.check_usable()?;
                crate::state::catalog::place::forget(&*shared.engine, overlay)?;
            }
            shared.flush()?;
            self.written_down.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// How many writes it was told of, and how many passes were begun.
    pub(crate) fn history(&self) -> (u64, u64) {
        (self.pushed.load(Ordering::Relaxed), self.passes.load(Ordering::Relaxed))
    }

    pub(crate) fn push(&self, key: &[u8]) {
        self.pushed.fetch_add(1, Ordering::Relaxed);
        if self.keys.len() < BACKLOG_KEYS_MAX {
            self.keys.push(key.to_vec());
        } else {
            self.overflowed.store(true, Ordering::Release);
        }
    }

    /// Takes a key; the backlog is not empty before [`Backlog::settle`] says that it was brought forward.
    pub(crate) fn pop(&self) -> Option<Vec<u8>> {
        self.in_hand.store(true, Ordering::Release);
        self.keys.pop()
    }

    /// What was taken is brought forward, or back in the queue.
    pub(crate) fn settle(&self) {
        self.in_hand.store(false, Ordering::Release);
    }

    pub(crate) fn len(&self) -> u64 {
        self.keys.len() as u64
    }

    /// Asks for a pass over the whole overlay.
    pub(crate) fn demand_pass(&self) {
        self.overflowed.store(true, Ordering::Release);
    }

    pub(crate) fn wants_pass(&self) -> bool {
        self.overflowed.load(Ordering::Acquire)
    }

    /// A pass begins: what is written from here on is queued again.
    pub(crate) fn begin_pass(&self) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.overflowed.store(false, Ordering::Release);
        while self.keys.pop().is_some() {}
    }

    pub(crate) fn is_in_hand(&self) -> bool {
        self.in_hand.load(Ordering::Acquire)
    }

    /// Takes everything, and answers the first key.
    pub(crate) fn take_first(&self) -> Option<Vec<u8>> {
        std::iter::from_fn(|| self.keys.pop()).min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.wants_pass() && self.keys.is_empty() && !self.is_in_hand()
    }
}
