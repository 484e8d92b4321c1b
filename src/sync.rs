//! Every lock, atomic, thread and clock that decides an order of events, by one name each.
//!
//! Normally these are the types of `parking_lot`, the standard library, `arc-swap`, `crossbeam-queue` and `quanta`, and
//! this module is nothing but their names. Built with `--cfg exuvia_shuttle` they are stand-ins whose every use is a point
//! at which the scheduler of `shuttle` may go on with another thread (`sync/controlled.rs`), so that the modules as they
//! are can be run in chosen interleavings: see `schedules/`.
//!
//! Not in here, because nothing above depends on their order: the statistics (`stats.rs`), the sockets of `control`, and
//! what only the engines with files use.

#[cfg(exuvia_shuttle)]
mod controlled;

#[cfg(exuvia_shuttle)]
pub(crate) use controlled::{
    ArcSwap, Clock, Condvar, Guard, Instant, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    SegQueue, atomic, thread,
};
#[cfg(not(exuvia_shuttle))]
pub(crate) use {
    arc_swap::{ArcSwap, Guard},
    crossbeam_queue::SegQueue,
    parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
    quanta::{Clock, Instant},
    std::sync::atomic,
    std::thread,
};
