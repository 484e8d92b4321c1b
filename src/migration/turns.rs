//! How a background thread shares a core with others, and what it took of one.
//!
//! On a machine with a core to spare a turn that is given away comes back in microseconds. On one whose cores all have
//! more work than they can do it comes back when everyone else has had their whole time, some milliseconds later; given
//! away after every record, that would leave the background a few hundred records a second, and its rests, if they were
//! in proportion to the time that passed, a tenth of that. So a long wait is answered by as long a time without one, and
//! rests go by the time that the thread had a core.

use std::time::Duration;

use crate::sync::{Instant, thread};

/// A turn that took longer to come back was not just an operation of someone else's.
#[cfg(not(exuvia_shuttle))]
const CROWDED: Duration = Duration::from_micros(500);
/// How much longer than the core's time a step counts at most.
const WAIT_SHARE_MAX: u32 = 4;

/// Lets a thread go first that waits for this core. After every record: a scheduler may leave a running thread its core
/// for longer than a whole batch takes, also before one of higher priority (Linux does, since EEVDF), and then a batch
/// is what a foreground call waits for.
#[cfg(not(exuvia_shuttle))]
pub(crate) fn give_turn() {
    thread_local! {
        static NEXT: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
    }
    let given = Instant::now();
    if NEXT.get().is_some_and(|next| given < next) {
        return;
    }
    thread::yield_now();
    NEXT.set(next_turn(given, Instant::now()));
}

/// From when on a turn is given away again, if that is not at once.
#[cfg(not(exuvia_shuttle))]
fn next_turn(given: Instant, back: Instant) -> Option<Instant> {
    let away = back - given;
    (away > CROWDED).then(|| back + away)
}

#[cfg(exuvia_shuttle)]
pub(crate) fn give_turn() {
    thread::yield_now();
}

/// Time that a step took, user code included; without most of the time for which it had no core, if that was long.
pub(crate) fn timed<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let (start, core) = (Instant::now(), core_time());
    let result = work();
    let elapsed = start.elapsed();
    let used = core.zip(core_time()).map(|(before, after)| after.saturating_sub(before));
    (result, used.map_or(elapsed, |used| elapsed.min(used * WAIT_SHARE_MAX)))
}

/// How long this thread has had a core, where the system tells.
#[cfg(all(target_os = "linux", not(exuvia_shuttle)))]
fn core_time() -> Option<Duration> {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().ok()
}

#[cfg(not(all(target_os = "linux", not(exuvia_shuttle))))]
fn core_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(exuvia_shuttle))]
    fn a_long_wait_is_answered_by_as_long_a_time_without_one() {
        let given = Instant::now();
        let after = |us| given + Duration::from_micros(us);
        assert_eq!(next_turn(given, given), None);
        assert_eq!(next_turn(given, after(500)), None, "an operation of someone else's");
        assert_eq!(next_turn(given, after(501)), Some(after(1002)));
        assert_eq!(next_turn(given, after(4000)), Some(after(8000)));
    }

    #[test]
    #[cfg(all(target_os = "linux", not(exuvia_shuttle)))]
    fn a_step_that_had_no_core_counts_little() {
        let ((), slept) = timed(|| thread::sleep(Duration::from_millis(200)));
        assert!(slept < Duration::from_millis(100), "{slept:?}");
        let (sum, worked) = timed(|| {
            let start = Instant::now();
            let mut sum = 0u64;
            while start.elapsed() < Duration::from_millis(20) {
                sum = sum.wrapping_mul(3) + 1;
            }
            sum
        });
        assert!(worked > Duration::ZERO && sum != 0, "{worked:?}");
    }
}
