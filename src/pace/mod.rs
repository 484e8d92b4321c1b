//! How background work shares the machine with the foreground: one loop for every pass over many records.
//!
//! A pass is a step that is called again and again, each time with a number of records. [`Paced::drive`] calls it: it lets the
//! foreground have a medium that is behind, measures what the step took of a core and of the engine, and rests. Around it
//! is a [`Host`]: whoever started the pass, with its budget and the means to stop it.
//!
//! **The invariant.** Whoever waits for a pass to stop is heard within [`HEARD_WITHIN`] plus the record in hand. So nothing here
//! sleeps for longer without a look at [`Host::stopping`], and a step looks before each record. A pass that was stopped is called
//! no more, and what it has done stays done.
//!
//! | module | what |
//! |---|---|
//! | [`paced`] | the loop, and the same for a caller that comes with one engine call at a time |
//! | [`budget`] | what a pass may take |
//! | [`pacer`] | a pure decision: what the last batch cost → how large the next is, and how long to rest before it |
//! | [`stop`] | a request to stop that wakes who rests |
//! | [`turns`] | how a thread shares a core, and what it took of one |
//!
//! Whoever works in the background may use this folder; what the work is it does not know. It uses errors, `sync` and the
//! statistics, and nothing else of the crate.

mod budget;
mod paced;
mod pacer;
mod stop;
mod turns;

use std::time::Duration;

pub use budget::Budget;
pub(crate) use paced::{Calls, Paced, Step};
pub(crate) use stop::Stop;
pub(crate) use turns::{PAGE_RECORDS, lower_priority};

use crate::sync::thread;

/// How long a request to stop may go unheard, beside what a record takes.
pub(crate) const HEARD_WITHIN: Duration = Duration::from_millis(5);

/// What is around a pass: who may stop it, and what it shares the machine with.
pub(crate) trait Host {
    /// Looked at before each step, so it can be changed meanwhile.
    fn budget(&self) -> Budget;

    /// Whether somebody waits for the pass to stop.
    fn stopping(&self) -> bool;

    /// Rests at most so long, and no longer than until [`Host::stopping`]. A host that can be woken does better than to look
    /// again and again.
    fn rest(&self, at_most: Duration) {
        rest_in_slices(at_most, || self.stopping(), thread::sleep);
    }

    /// Whether the medium is behind.
    fn is_pressed(&self) -> bool;

    /// A batch is done, which was so long in the engine.
    fn batch(&self, engine: Duration);
}

fn rest_in_slices(at_most: Duration, stopping: impl Fn() -> bool, mut sleep: impl FnMut(Duration)) {
    let mut left = at_most;
    while !left.is_zero() && !stopping() {
        let slice = left.min(HEARD_WITHIN);
        sleep(slice);
        left -= slice;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn no_slice_of_a_rest_is_longer_than_a_request_may_go_unheard() {
        let (slept, looks) = (RefCell::new(Vec::new()), Cell::new(0));
        let look = |ends: usize| {
            looks.set(looks.get() + 1);
            slept.borrow().len() >= ends
        };
        let rest = Duration::from_millis(252);
        rest_in_slices(rest, || look(usize::MAX), |slice| slept.borrow_mut().push(slice));
        assert_eq!(slept.borrow().iter().sum::<Duration>(), rest);
        assert!(slept.borrow().iter().all(|slice| *slice <= HEARD_WITHIN));
        assert_eq!(looks.get(), slept.borrow().len(), "a look before each");
        slept.borrow_mut().clear();
        rest_in_slices(rest, || look(3), |slice| slept.borrow_mut().push(slice));
        assert_eq!(slept.borrow().len(), 3, "it ends with the request");
    }
}
