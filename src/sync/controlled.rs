//! The stand-ins of `sync.rs` under the scheduler of `shuttle`.
//!
//! Locks and atomics are shuttle's, with the interfaces of those that they stand for. A pointer swap and a queue are one
//! event each: a point of the scheduler, and then a look that nobody can come between. Time does not pass by itself:
//! whoever sleeps or waits for a while gives its turn away and finds the while over. So nothing waits for ever that would
//! have waited for a while, and a store at rest is not taken for a deadlock.
//!
//! shuttle has one order of all events (every atomic is sequentially consistent). What weaker orders could do is argued
//! in docs/lab/reliability.md.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(crate) use shuttle::sync::atomic;
use shuttle::sync::atomic::{AtomicBool, Ordering};
pub(crate) use shuttle::sync::{RwLockReadGuard, RwLockWriteGuard};

/// A point at which another thread may go on.
#[derive(Debug, Default)]
struct Point(AtomicBool);

impl Point {
    fn pass(&self) {
        self.0.load(Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, held: Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)) }
    }
}

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only while a condition variable has it.
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("a guard in use holds its lock")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("a guard in use holds its lock")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

/// A wait for a while: it was over.
pub(crate) struct TimedOut;

impl TimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        true
    }
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(shuttle::sync::Condvar::new())
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if let Some(held) = guard.held.take() {
            guard.held = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _while: Duration) -> TimedOut {
        drop(guard.held.take());
        thread::yield_now();
        guard.held = guard.mutex.lock().held;
        TimedOut
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _at: std::time::Instant) -> TimedOut {
        self.wait_for(guard, Duration::ZERO)
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shuttle::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.0.try_read().ok()
    }

    pub(crate) fn try_write_for(&self, _while: Duration) -> Option<RwLockWriteGuard<'_, T>> {
        self.0.try_write().ok()
    }
}

/// A pointer that is read and replaced as a whole.
pub(crate) struct ArcSwap<T> {
    point: Point,
    pointer: std::sync::Mutex<Arc<T>>,
}

/// What an [`ArcSwap`] pointed to.
pub(crate) struct Guard<P>(P);

impl<P> Deref for Guard<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.0
    }
}

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self { point: Point::default(), pointer: std::sync::Mutex::new(Arc::new(value)) }
    }

    pub(crate) fn load(&self) -> Guard<Arc<T>> {
        Guard(self.load_full())
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        self.point.pass();
        Arc::clone(&self.pointer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        self.point.pass();
        let mut pointer = self.pointer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *pointer, value);
        drop(pointer);
        drop(old);
    }
}

/// A queue without a bound.
pub(crate) struct SegQueue<T> {
    point: Point,
    items: std::sync::Mutex<VecDeque<T>>,
}

impl<T> SegQueue<T> {
    pub(crate) fn new() -> Self {
        Self { point: Point::default(), items: std::sync::Mutex::default() }
    }

    fn items(&self) -> std::sync::MutexGuard<'_, VecDeque<T>> {
        self.point.pass();
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, item: T) {
        self.items().push_back(item);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.items().pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.items().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A clock that is a microsecond further each time somebody looks: the same in every run of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

impl Instant {
    pub(crate) fn now() -> Self {
        std::thread_local! {
            // All threads of a schedule are one thread of the system.
            static LOOKS: Cell<u64> = const { Cell::new(0) };
        }
        LOOKS.set(LOOKS.get() + 1);
        Self(LOOKS.get())
    }

    pub(crate) fn duration_since(&self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Self::now().duration_since(*self)
    }
}

/// The same clock, read raw: see `quanta::Clock`.
#[derive(Debug)]
pub(crate) struct Clock;

impl Clock {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn raw(&self) -> u64 {
        Instant::now().0
    }

    pub(crate) fn delta_as_nanos(&self, from: u64, to: u64) -> u64 {
        to.saturating_sub(from) * 1000
    }
}

pub(crate) mod thread {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    pub(crate) use shuttle::thread::{ThreadId, current, yield_now};

    /// Gives the turn away, so that a thread that waits by sleeping does not keep the others from what it waits for.
    pub(crate) fn sleep(_while: Duration) {
        yield_now();
    }

    pub(crate) struct Builder(shuttle::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(shuttle::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        pub(crate) fn spawn<R: Send + 'static>(
            self,
            body: impl FnOnce() -> R + Send + 'static,
        ) -> std::io::Result<JoinHandle<R>> {
            let finished = Arc::new(AtomicBool::new(false));
            let at_its_end = Arc::clone(&finished);
            let inner = self.0.spawn(move || {
                let result = body();
                at_its_end.store(true, Ordering::SeqCst);
                result
            })?;
            Ok(JoinHandle { inner, finished })
        }
    }

    pub(crate) struct JoinHandle<R> {
        inner: shuttle::thread::JoinHandle<R>,
        finished: Arc<AtomicBool>,
    }

    impl<R> JoinHandle<R> {
        pub(crate) fn join(self) -> std::thread::Result<R> {
            self.inner.join()
        }

        pub(crate) fn is_finished(&self) -> bool {
            self.finished.load(Ordering::SeqCst)
        }
    }
}
