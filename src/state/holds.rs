//! A transaction that state changes overtook again and again holds off the next one, for one try and not for long.
//!
//! A flip moves the epochs by which a transaction read, so that it has to begin anew; one that takes longer than the time
//! between two flips would never come to its end. After some such tries the next one is made under a [`Hold`]: flips
//! wait until it ends, and [`HOLD_MAX`] at most. Nothing depends on it but who goes first.
//!
//! A flip waits before it takes any lock. A hold waits for flips that are under way, which wait for no hold any more; a flip
//! by the thread that holds, out of the transaction's own closure, does not wait, and the try is given up as without a hold.

use std::time::Duration;

use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Instant, Mutex};

/// The longest that a flip waits for transactions.
pub(crate) const HOLD_MAX: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(crate) struct Holds {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    holders: Vec<ThreadId>,
    /// Transactions that wait for the flips under way to end.
    wanting: usize,
    /// Flips under way.
    flips: usize,
}

impl State {
    fn is_held_off(&self, me: ThreadId) -> bool {
        self.wanting > 0 || self.holders.iter().any(|holder| *holder != me)
    }
}

impl Holds {
    /// No flip begins until the answer is dropped, or one has waited long enough.
    pub(crate) fn hold(&self) -> Hold<'_> {
        let mut state = self.state.lock();
        state.wanting += 1;
        self.wait(&mut state, |state| state.flips > 0);
        state.wanting -= 1;
        let thread = thread::current().id();
        state.holders.push(thread);
        Hold { holds: self, thread }
    }

    /// To be called before a flip, under no lock: no hold begins until the answer is dropped.
    pub(crate) fn flip(&self) -> Flipping<'_> {
        let me = thread::current().id();
        let mut state = self.state.lock();
        self.wait(&mut state, |state| state.is_held_off(me));
        // What could not end in time is overtaken now, and holds off nobody else.
        state.holders.clear();
        state.flips += 1;
        Flipping { holds: self }
    }

    /// Waits while `busy` says so, not longer than [`HOLD_MAX`].
    fn wait(&self, state: &mut crate::sync::MutexGuard<'_, State>, busy: impl Fn(&State) -> bool) {
        let begun = Instant::now();
        while busy(state) {
            let left = HOLD_MAX.saturating_sub(begun.elapsed());
            if left.is_zero() || self.changed.wait_for(state, left).timed_out() {
                return;
            }
        }
    }
}

/// A try that holds flips off while this is there.
#[must_use = "flips are held off while this is there"]
pub(crate) struct Hold<'a> {
    holds: &'a Holds,
    thread: ThreadId,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut state = self.holds.state.lock();
        // It may have been overtaken.
        if let Some(at) = state.holders.iter().position(|holder| *holder == self.thread) {
            state.holders.swap_remove(at);
        }
        drop(state);
        self.holds.changed.notify_all();
    }
}

/// A flip is under way while this is there.
#[must_use = "holds wait while this is there"]
pub(crate) struct Flipping<'a> {
    holds: &'a Holds,
}

impl Drop for Flipping<'_> {
    fn drop(&mut self) {
        self.holds.state.lock().flips -= 1;
        self.holds.changed.notify_all();
    }
}
