//! A request to stop, which wakes who rests.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// Shared by a pass and whoever may stop it.
#[derive(Default)]
pub(crate) struct Stop {
    asked: Mutex<bool>,
    woken: Condvar,
}

impl Stop {
    pub(crate) fn ask(&self) {
        *self.asked.lock() = true;
        self.woken.notify_all();
    }

    pub(crate) fn is_asked(&self) -> bool {
        *self.asked.lock()
    }

    /// Rests until it is asked, at most so long.
    pub(crate) fn rest(&self, at_most: Duration) {
        let mut asked = self.asked.lock();
        if !*asked {
            self.woken.wait_for(&mut asked, at_most);
        }
    }
}
