//! Who waits for whom, where user code is between: so that a call out of it never waits for itself.
//!
//! Some work runs user code (a cast, an observer) and is waited for by others: the driving of a migration, the sweep, the
//! regular flush, the clients of the control socket. Each such work has a [`Duty`]; a thread that does it is *on duty*
//! ([`Duty::begin`]). Whoever waits for the work says so first ([`Duty::await_one`]), and is refused if the wait could not
//! end: if the thread is on that duty itself, or on one for which, over others, that duty's thread waits. So a call that user
//! code makes into the store, from whichever of its threads and also between stores, is done or refused at once.
//!
//! Threads of the application that user code starts and waits for are not seen.

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::sync::thread::{self, ThreadId};

#[cfg(test)]
#[path = "duty_tests.rs"]
mod tests;

/// Who is on which duty, and which duty waits for which. Short, and never held while anything else is done: no order of
/// events depends on it, so it is no lock of `sync`.
static BOARD: Mutex<Board> = Mutex::new(Board { last: 0, on: Vec::new(), waits: Vec::new() });

struct Board {
    last: u64,
    on: Vec<(ThreadId, u64)>,
    waits: Vec<(u64, u64)>,
}

impl Board {
    fn duties_of(&self, thread: ThreadId) -> Vec<u64> {
        self.on.iter().filter(|(on, _)| *on == thread).map(|(_, duty)| *duty).collect()
    }

    /// Whether what `duty` waits for, at whatever distance, is among `own`.
    fn leads_to(&self, duty: u64, own: &[u64]) -> bool {
        let mut seen = vec![duty];
        let mut next = 0;
        while let Some(duty) = seen.get(next).copied() {
            if own.contains(&duty) {
                return true;
            }
            let more = self.waits.iter().filter(|(waiter, _)| *waiter == duty).map(|(_, awaited)| *awaited);
            for awaited in more.collect::<Vec<_>>() {
                if !seen.contains(&awaited) {
                    seen.push(awaited);
                }
            }
            next += 1;
        }
        false
    }
}

/// Work that others may wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Duty(u64);

impl Duty {
    pub(crate) fn new() -> Self {
        let mut board = BOARD.lock();
        board.last += 1;
        Duty(board.last)
    }

    /// This thread does the work, until the answer is dropped; also in another thread than the one that it is for.
    pub(crate) fn begin(self) -> OnDuty {
        let thread = thread::current().id();
        BOARD.lock().on.push((thread, self.0));
        OnDuty { thread, duty: self.0 }
    }

    /// This thread waits for the work, until the answer is dropped; refused, for `subject`, if that would not end.
    pub(crate) fn await_one(self, subject: impl FnOnce() -> String) -> Result<Awaiting> {
        let mut board = BOARD.lock();
        let own = board.duties_of(thread::current().id());
        if own.is_empty() {
            return Ok(Awaiting(Vec::new()));
        }
        if board.leads_to(self.0, &own) {
            drop(board);
            let reason = "this was called by user code (a cast, an observer) from inside the work that it would have to wait \
                          for; call it from another thread, or later";
            return Err(Error::state(subject(), reason));
        }
        let waits: Vec<_> = own.iter().map(|own| (*own, self.0)).collect();
        board.waits.extend(&waits);
        Ok(Awaiting(waits))
    }
}

/// A thread is on duty while this is there.
#[derive(Debug)]
#[must_use = "the duty ends when this is dropped"]
pub(crate) struct OnDuty {
    thread: ThreadId,
    duty: u64,
}

impl Drop for OnDuty {
    fn drop(&mut self) {
        let mut board = BOARD.lock();
        let own = (self.thread, self.duty);
        if let Some(at) = board.on.iter().position(|on| *on == own) {
            board.on.swap_remove(at);
        }
    }
}

/// A thread may wait while this is there.
#[derive(Debug)]
#[must_use = "the wait is over when this is dropped"]
pub(crate) struct Awaiting(Vec<(u64, u64)>);

impl Drop for Awaiting {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let mut board = BOARD.lock();
        for wait in &self.0 {
            if let Some(at) = board.waits.iter().position(|known| known == wait) {
                board.waits.swap_remove(at);
            }
        }
    }
}
