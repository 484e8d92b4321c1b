//! The gate: one for the whole store. Every write holds it shared from its check of the epoch to the end of its
//! engine call; a flip holds it exclusively, to change memory only.
//!
//! A flip never queues the world behind one slow engine call: it tries for a bounded time and backs off
//! (O8). parking_lot 0.12 is fair in the long run, so neither side starves.

use std::time::Duration;

use crate::sync::{Instant, RwLock, RwLockReadGuard, thread};

/// How long a flip may make writers wait for one slow engine call before it steps back.
const TRY_FOR: Duration = Duration::from_micros(200);
const BACK_OFF: Duration = Duration::from_micros(500);

#[derive(Debug, Default)]
pub(crate) struct Gate {
    lock: RwLock<()>,
}

/// A shared hold; `waited` is zero unless a flip was in the way.
pub(crate) struct Shared<'a> {
    _guard: RwLockReadGuard<'a, ()>,
    pub(crate) waited: Duration,
}

impl Gate {
    #[inline]
    pub(crate) fn shared(&self) -> Shared<'_> {
        if let Some(guard) = self.lock.try_read() {
            return Shared { _guard: guard, waited: Duration::ZERO };
        }
        let start = Instant::now();
        let guard = self.lock.read();
        Shared { _guard: guard, waited: start.elapsed() }
    }

    /// Runs `flip` with the gate held exclusively, and answers how long it was held. `flip` changes memory
    /// only: no engine call, no fsync, no user code.
    pub(crate) fn exclusive<R>(&self, flip: impl FnOnce() -> R) -> (R, Duration) {
        loop {
            if let Some(guard) = self.lock.try_write_for(TRY_FOR) {
                let start = Instant::now();
                let result = flip();
                let held = start.elapsed();
                drop(guard);
                return (result, held);
            }
            thread::sleep(BACK_OFF);
        }
    }
}
