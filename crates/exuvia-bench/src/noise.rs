//! Whether the machine was quiet enough to tell.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::latency::Latencies;
use super::report::SubjectReport;

/// How long one sleep of the calibration is.
const NAP: Duration = Duration::from_millis(1);

/// Wake-ups that are later than this, at p99 and at the longest, are noise: a stall as long could be the machine's.
const LATE_P99: Duration = Duration::from_millis(1);
const LATE_MAX: Duration = Duration::from_millis(5);

/// More processor time than this that others took is noise.
const OTHERS_CPU: f64 = 0.05;

/// The idle p99 of a subject that differs between rounds by more than this factor is noise.
const IDLE_FACTOR: f64 = 2.0;

/// How late a thread wakes up that does nothing else, on a machine with no load of the harness.
///
/// Costs `time`.
pub fn calibrate(clock: &Arc<dyn Clock>, time: Duration) -> Latencies {
    let mut lateness = Latencies::default();
    let end = clock.now() + time;
    while clock.now() < end {
        let due = clock.now() + NAP;
        clock.sleep_until(due);
        lateness.record(clock.now().saturating_sub(due));
    }
    lateness
}

/// What is known of the noise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noise {
    /// Nothing below speaks against the results.
    pub quiet: bool,
    /// Why not, in words.
    pub reasons: Vec<String>,
}

/// Judges by the calibrations, the time that others took, and how much idle phases differ between rounds.
pub(crate) fn judge(calibrations: &[Latencies], subjects: &[SubjectReport]) -> Noise {
    let mut reasons = Vec::new();
    let noisy = |late: &&Latencies| late.quantile(0.99) > LATE_P99 || late.max() > LATE_MAX;
    let late = calibrations.iter().filter(noisy).count();
    if late > 0 {
        let worst = calibrations.iter().map(Latencies::max).max().unwrap_or_default();
        reasons.push(format!(
            "in {late} of {} calibrations a thread that does nothing else woke up late, at worst by {:.1} ms",
            calibrations.len(),
            worst.as_secs_f64() * 1e3
        ));
    }
    for subject in subjects {
        let busy =
            subject.rounds.iter().filter(|round| round.others_cpu.is_some_and(|share| share > OTHERS_CPU));
        let most = subject.rounds.iter().filter_map(|round| round.others_cpu).fold(0.0, f64::max);
        if busy.count() > 0 {
            reasons.push(format!(
                "{}: other programs, or the host, took up to {:.0}% of the processors' time",
                subject.name,
                most * 100.0
            ));
        }
        let idle = subject.figures("idle", |phase| phase.all().quantile(0.99).as_secs_f64());
        let (low, high) = idle.iter().fold((f64::INFINITY, 0.0f64), |(l, h), p99| (l.min(*p99), h.max(*p99)));
        if idle.len() > 1 && high > low * IDLE_FACTOR {
            reasons.push(format!(
                "{}: the p99 of its idle phase is {:.2} ms in one round and {:.2} ms in another",
                subject.name,
                low * 1e3,
                high * 1e3
            ));
        }
    }
    Noise { quiet: reasons.is_empty(), reasons }
}
