//! When operations are due. Pure: times in, times out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::random::Random;

/// How operations arrive in an open loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// At equal distances.
    Fixed,
    /// At exponentially distributed distances, as from many callers who know nothing of each other.
    Poisson,
}

/// What decides when the next operation starts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// Open loop: so many operations are due in a second, of all threads together, whether or not those before them
    /// are done. Latencies are counted from when an operation was due.
    Open {
        /// Operations a second.
        rate: u64,
        /// How they arrive.
        arrivals: Arrivals,
    },
    /// Closed loop: each thread starts its next operation when the one before is done. It finds the peak
    /// throughput. Its latencies leave out whoever would have waited, so they are not to be compared with any
    /// open loop's.
    Closed,
    /// Open loop at a share of the subject's own peak, which [`run`](super::run) finds before each round: the closed
    /// loop's rate of a subject that was opened and loaded for that alone. [`Round::rate`](super::Round::rate) says what
    /// came of it.
    OfPeak {
        /// Percent of the peak, 1 to 100.
        percent: u64,
        /// How operations arrive.
        arrivals: Arrivals,
    },
}

/// The timetable of one thread.
#[derive(Debug, Clone)]
pub struct Schedule {
    start: Duration,
    pace: Pace,
    thread: u64,
    threads: u64,
    count: u64,
    random: Random,
    seconds: f64,
}

impl Schedule {
    /// The timetable of thread `thread` of `threads`, from `start` on. With fixed distances the threads take turns, so that
    /// all operations together are evenly spread.
    pub fn new(pace: Pace, start: Duration, thread: u64, threads: u64, seed: u64) -> Self {
        let threads = threads.max(1);
        let random = Random::new(seed, u64::MAX - 1, thread);
        Self { start, pace, thread, threads, count: 0, random, seconds: 0.0 }
    }

    /// When the next operation is due; `None` in a closed loop, where it is due at once.
    pub fn next_due(&mut self) -> Option<Duration> {
        let Pace::Open { rate, arrivals } = self.pace else { return None };
        let rate = rate.max(1);
        let count = self.count;
        self.count += 1;
        let offset = match arrivals {
            // From the count and not from the last one, so that no rounding adds up.
            Arrivals::Fixed => {
                let nth = u128::from(count) * u128::from(self.threads) + u128::from(self.thread);
                let ns = nth * 1_000_000_000 / u128::from(rate);
                Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
            }
            Arrivals::Poisson => {
                self.seconds += self.random.exponential() * self.threads as f64 / rate as f64;
                Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::MAX)
            }
        };
        Some(self.start.saturating_add(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_arrivals_of_all_threads_are_evenly_spread_and_do_not_drift() {
        let (start, pace) = (Duration::from_secs(5), Pace::Open { rate: 3000, arrivals: Arrivals::Fixed });
        let mut due: Vec<Duration> = (0..3)
            .flat_map(|thread| {
                let mut schedule = Schedule::new(pace, start, thread, 3, 1);
                (0..1000).filter_map(move |_| schedule.next_due()).collect::<Vec<_>>()
            })
            .collect();
        due.sort();
        for (n, due) in due.iter().enumerate() {
            let exact = start + Duration::from_nanos(n as u64 * 1_000_000_000 / 3000);
            assert_eq!(*due, exact, "operation {n}");
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_an_exponential() {
        let pace = Pace::Open { rate: 1000, arrivals: Arrivals::Poisson };
        let mut schedule = Schedule::new(pace, Duration::ZERO, 0, 4, 7);
        let due: Vec<f64> =
            (0..100_000).filter_map(|_| schedule.next_due()).map(|d| d.as_secs_f64()).collect();
        let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // One of four threads at 1000 a second: 4 ms apart. An exponential's deviation equals its mean.
        assert!((mean - 0.004).abs() < 0.004 * 0.02, "mean {mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "deviation {}", variance.sqrt());
    }

    #[test]
    fn a_closed_loop_has_no_timetable() {
        assert_eq!(Schedule::new(Pace::Closed, Duration::ZERO, 0, 1, 1).next_due(), None);
    }
}
