//! How a background thread shares a core with others, and what it took of one.
//!
//! On a machine with a core to spare a turn that is given away comes back in microseconds. On one whose cores all have
//! more work than they can do it comes back when everyone else has had their whole time, some milliseconds later; given
//! away after every record, that would leave the background a few hundred records a second, and its rests, if they were
//! in proportion to the time that passed, a tenth of that. So a long wait is answered by as long a time without one, and
//! rests go by the time that the thread had a core.

use std::time::Duration;

use crate::sync::{Instant, thread};

/// Records that the background reads at once: a call that is not interrupted, and so well under a tenth of a millisecond.
pub(crate) const PAGE_RECORDS: usize = 32;

/// A turn that took longer to come back was not just an operation of someone else's.
#[cfg(not(exuvia_shuttle))]
const CROWDED: Duration = Duration::from_micros(500);

/// Lets a thread go first that waits for this core. After every record: a scheduler may leave a running thread its core
/// for longer than a whole batch takes, also before one of higher priority (Linux does, since EEVDF), and then a batch
/// is what a foreground call waits for.
#[cfg(not(exuvia_shuttle))]
pub(crate) fn give_turn() {
    let given = Instant::now();
    if NEXT.get().is_some_and(|next| given < next) {
        return;
    }
    thread::yield_now();
    NEXT.set(next_turn(given, Instant::now()));
}

#[cfg(not(exuvia_shuttle))]
thread_local! {
    /// From when on this thread gives its turn away again.
    static NEXT: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
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

/// The longest rest at once.
#[cfg(not(exuvia_shuttle))]
const PATIENCE_MAX: Duration = Duration::from_millis(250);
/// A thread rests at most so many times as long as it did something else.
#[cfg(not(exuvia_shuttle))]
const PATIENCE_SHARE: u32 = 4;
#[cfg(not(exuvia_shuttle))]
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// Rests as long as `busy` says so, within the thread's patience: it is used up by resting and comes back with work, so that
/// a cause that lasts slows the work down to a fifth, and does not end it.
#[cfg(not(exuvia_shuttle))]
pub(crate) fn rest_while(busy: impl Fn() -> bool) {
    thread_local! {
        /// How long the thread had worked when the last rest ended, and what was left of the patience.
        static LAST: std::cell::Cell<Option<(Duration, Duration)>> = const { std::cell::Cell::new(None) };
    }
    let begun = Instant::now();
    let patience = LAST.get().map_or(PATIENCE_MAX, |(at, left)| patience(left, worked().saturating_sub(at)));
    let mut rested = Duration::ZERO;
    while rested < patience && busy() {
        thread::sleep(LOOK_EVERY);
        rested = begun.elapsed();
    }
    LAST.set(Some((worked(), patience.saturating_sub(rested))));
}

/// How long this thread has worked; where the system does not tell, all of its time but for the rests counts.
#[cfg(not(exuvia_shuttle))]
fn worked() -> Duration {
    static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    core_time().unwrap_or_else(|| BEGAN.elapsed())
}

/// The patience after so much time without a rest.
#[cfg(not(exuvia_shuttle))]
fn patience(left: Duration, worked: Duration) -> Duration {
    PATIENCE_MAX.min(left.saturating_add(worked.saturating_mul(PATIENCE_SHARE)))
}

/// No engine of these runs is ever behind.
#[cfg(exuvia_shuttle)]
pub(crate) fn rest_while(busy: impl Fn() -> bool) {
    if busy() {
        thread::yield_now();
    }
}

/// Asks the system to prefer other threads to this one, where it knows a priority by thread. Moderately: a
/// worker that is starved while it holds one of the engine's locks would hold up the foreground.
pub(crate) fn lower_priority() {
    // In a chosen interleaving all threads are one thread of the system.
    #[cfg(all(target_os = "linux", not(exuvia_shuttle)))]
    {
        const NICER_BY: i32 = 5;
        // Relative to what the process has: one that was started at a low priority must not be raised here.
        let thread = Some(rustix::thread::gettid());
        if let Ok(nice) = rustix::process::getpriority_process(thread) {
            let _ = rustix::process::setpriority_process(thread, nice.saturating_add(NICER_BY).min(19));
        }
    }
}

/// What a step took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    /// How long the thread had a core; where the system does not tell, how long the step took.
    pub(crate) core: Duration,
    /// Since the end of the last step: rests, waits for a core or the medium, and this step.
    pub(crate) wall: Duration,
}

/// Measures step after step of one thread.
pub(crate) struct Steps {
    ended: Instant,
    begun: (Instant, Option<Duration>),
}

impl Steps {
    /// Before the first step.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { ended: now, begun: (now, core_time()) }
    }

    /// A step begins: what was since the last one was rest.
    pub(crate) fn begin(&mut self) {
        self.begun = (Instant::now(), core_time());
    }

    /// A step ends.
    pub(crate) fn end(&mut self) -> Spent {
        let (begun, before) = self.begun;
        let core = before.zip(core_time()).map(|(before, after)| after.saturating_sub(before));
        let spent = Spent { core: core.unwrap_or_else(|| begun.elapsed()), wall: self.ended.elapsed() };
        self.ended = Instant::now();
        spent
    }

    pub(crate) fn timed<R>(&mut self, step: impl FnOnce() -> R) -> (R, Spent) {
        self.begin();
        let result = step();
        (result, self.end())
    }
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

    /// A medium that is always behind: of any stretch of time a fifth is left for the work.
    #[test]
    #[cfg(not(exuvia_shuttle))]
    fn what_is_always_in_the_way_leaves_a_fifth_of_the_time() {
        let ms = Duration::from_millis;
        assert_eq!(patience(ms(250), ms(1)), ms(250), "it does not grow beyond a quarter of a second");
        assert_eq!(patience(ms(0), ms(0)), ms(0));
        let (mut left, mut worked, mut rested) = (ms(250), ms(0), ms(0));
        for _ in 0..1000 {
            worked += ms(2);
            rested += patience(left, ms(2));
            left = ms(0);
        }
        assert!(rested <= worked * 4 + ms(250), "{rested:?} beside {worked:?}");
        assert_eq!(patience(Duration::MAX, Duration::MAX), ms(250));
    }

    #[test]
    #[cfg(not(exuvia_shuttle))]
    fn rests_end_with_their_cause_and_with_the_patience() {
        let looks = std::cell::Cell::new(0);
        rest_while(|| {
            looks.set(looks.get() + 1);
            looks.get() < 3
        });
        assert_eq!(looks.get(), 3);
        // Would not come back.
        rest_while(|| true);
        rest_while(|| true);
    }

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
    #[cfg(not(exuvia_shuttle))]
    fn no_turn_is_given_away_until_it_is_time_and_then_one_is() {
        let (hour, now) = (Duration::from_secs(3600), Instant::now());
        let (past, future) = (now - Duration::from_millis(1), now + hour);
        NEXT.set(Some(future));
        give_turn();
        assert_eq!(NEXT.get(), Some(future), "the core is kept");
        NEXT.set(Some(past));
        give_turn();
        assert_ne!(
            NEXT.get(),
            Some(past),
            "a turn was given away, and the next one depends on how long it took"
        );
    }

    #[test]
    #[cfg(all(target_os = "linux", not(exuvia_shuttle)))]
    fn a_step_counts_for_the_time_that_it_had_a_core() {
        let mut steps = Steps::new();
        let rest = Duration::from_millis(100);
        thread::sleep(rest);
        let ((), slept) = steps.timed(|| thread::sleep(rest));
        assert!(slept.core < rest / 2 && slept.wall >= rest * 2, "{slept:?}");
        let work = Duration::from_millis(20);
        let (sum, worked) = steps.timed(|| {
            let (start, before) = (Instant::now(), core_time().unwrap());
            let mut sum = 0u64;
            while core_time().unwrap() - before < work && start.elapsed() < Duration::from_secs(5) {
                sum = sum.wrapping_mul(3) + 1;
            }
            sum
        });
        // All of it, up to the difference of two clocks.
        assert!(worked.core > work * 9 / 10 && sum != 0, "{worked:?}");
        assert!(worked.wall >= worked.core * 9 / 10, "{worked:?}");
    }
}
