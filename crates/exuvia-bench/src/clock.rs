//! Time, as the harness sees it: the system's, or a simulated one for tests of subjects and of the harness itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A clock that threads can wait for. Times are counted from the clock's own beginning.
pub trait Clock: Send + Sync {
    /// The time.
    fn now(&self) -> Duration;

    /// Returns when it is `at`, or at once if it is later already.
    fn sleep_until(&self, at: Duration);

    /// One more thread takes part. Called before the thread is started, by who starts it.
    fn join(&self) {}

    /// A thread takes part no longer, or waits for something else than the clock.
    fn leave(&self) {}
}

/// Takes part in a clock until dropped.
pub(crate) struct Part(Arc<dyn Clock>);

impl Part {
    pub(crate) fn of(clock: &Arc<dyn Clock>) -> Self {
        clock.join();
        Part(Arc::clone(clock))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The system's monotonic clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock that begins now.
    pub fn new() -> Self {
        SystemClock(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep_until(&self, at: Duration) {
        // It never spins: on few cores, a generator that spins takes the time that the store needs.
        if let Some(wait) = at.checked_sub(self.0.elapsed()) {
            std::thread::sleep(wait);
        }
    }
}

/// A clock that moves only when every thread that takes part waits for it, and then to the earliest time that one of them
/// waits for. Computing takes no time on it, so what is measured by it is exact, and the same on every machine.
///
/// Whatever a subject waits for has to be waited for on this clock: a lock that is held by a thread that sleeps stops it.
#[derive(Debug, Default)]
pub struct SimulatedClock {
    state: Mutex<Simulation>,
}

#[derive(Debug, Default)]
struct Simulation {
    now: Duration,
    threads: usize,
    /// By the time that they wait for, and in the order in which they began to.
    sleepers: BTreeMap<(Duration, u64), Arc<Condvar>>,
    tickets: u64,
}

impl Simulation {
    fn go_on(&mut self) {
        if self.sleepers.len() >= self.threads
            && let Some(((at, _), sleeper)) = self.sleepers.pop_first()
        {
            self.now = self.now.max(at);
            sleeper.notify_one();
        }
    }
}

impl SimulatedClock {
    /// A clock at zero, of which the calling thread is a part.
    pub fn new() -> Self {
        let clock = Self::default();
        clock.join();
        clock
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Duration {
        self.state.lock().now
    }

    fn sleep_until(&self, at: Duration) {
        let mut state = self.state.lock();
        if at <= state.now {
            return;
        }
        state.tickets += 1;
        let own = (at, state.tickets);
        let called = Arc::new(Condvar::new());
        state.sleepers.insert(own, Arc::clone(&called));
        state.go_on();
        while state.sleepers.contains_key(&own) {
            called.wait(&mut state);
        }
    }

    fn join(&self) {
        self.state.lock().threads += 1;
    }

    fn leave(&self) {
        let mut state = self.state.lock();
        state.threads = state.threads.saturating_sub(1);
        if !state.sleepers.is_empty() {
            state.go_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_time_moves_to_the_earliest_sleeper() {
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::new());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = [30u64, 10, 20]
            .into_iter()
            .map(|ms| {
                let (part, clock, seen) = (Part::of(&clock), Arc::clone(&clock), Arc::clone(&seen));
                std::thread::spawn(move || {
                    let _part = part;
                    for turn in 1..=3 {
                        clock.sleep_until(Duration::from_millis(ms * turn));
                        seen.lock().push(clock.now().as_millis() as u64);
                    }
                })
            })
            .collect();
        clock.leave();
        threads.into_iter().for_each(|thread| thread.join().expect("thread"));
        assert_eq!(*seen.lock(), [10, 20, 20, 30, 30, 40, 60, 60, 90]);
    }
}
