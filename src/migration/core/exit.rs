//! A process that ends while a store is open, as one in a `static` is for ever: nothing closes it, and what its engine
//! still has in memory would go with the process.
//!
//! A thread's own values are dropped when it ends, and on most systems those of the thread that ends the process too. So
//! the thread that opens a store leaves one that flushes it. That is a net, and no promise: [`Durability`] says what is.
//!
//! Not on Windows: there the engines' threads are gone when it comes to that, and a flush would wait for them for ever. So it
//! would in a process that was forked, which has this thread only, and the files of the other: it is left alone.
//!
//! [`Durability`]: crate::Durability

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use crate::state::shared::Shared;

/// The stores that a thread has opened, and the number of the process that it was in.
struct Opened(RefCell<Vec<(u32, Weak<Shared>)>>);

thread_local! {
    static OPENED: Opened = const { Opened(RefCell::new(Vec::new())) };
}

impl Drop for Opened {
    fn drop(&mut self) {
        let process = std::process::id();
        for (_, shared) in self.0.take().into_iter().filter(|(opened_by, _)| *opened_by == process) {
            // A panic here would end the process, at best.
            drop(catch_unwind(AssertUnwindSafe(|| {
                shared.upgrade().iter().for_each(|shared| shared.flush_at_exit());
            })));
        }
    }
}

/// Has the store flushed when this thread ends, if it is still open then.
pub(crate) fn flush_at_exit(shared: &Arc<Shared>) {
    // A store that is opened while the thread ends has to do without.
    let _it_may_be_ending = OPENED.try_with(|opened| {
        let mut opened = opened.0.borrow_mut();
        opened.retain(|(_, shared)| shared.strong_count() > 0);
        opened.push((std::process::id(), Arc::downgrade(shared)));
    });
}
