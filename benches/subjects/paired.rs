//! Two jobs in turn, many rounds, and the median of the rounds' ratios with its quartiles: what a shared machine does
//! meanwhile, it does to both.

use std::time::{Duration, Instant};

pub const ROUNDS: usize = 41;
pub const OPS_PER_ROUND: usize = 20_000;

/// Median and quartiles of the ratio of two jobs that are run in turn.
pub fn paired(name: &str, ours: impl FnMut(), raws: impl FnMut()) {
    paired_rounds(name, (ROUNDS, OPS_PER_ROUND), ours, raws);
}

/// Each job is run once more before it is timed: what it finds in the processor's caches is its own, and not sometimes
/// the other's.
pub fn paired_rounds(name: &str, rounds: (usize, usize), mut ours: impl FnMut(), mut raws: impl FnMut()) {
    compare(name, rounds, || (), warmed(&mut ours), warmed(&mut raws));
}

fn warmed(job: &mut impl FnMut()) -> impl FnMut() -> Duration {
    || {
        job();
        timed(job)
    }
}

fn timed(job: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    job();
    start.elapsed()
}

/// Before each round `fresh` makes what both jobs use up; it is not timed, and each job is run once.
pub fn paired_fresh(
    name: &str,
    rounds: (usize, usize),
    fresh: impl FnMut(),
    mut ours: impl FnMut(),
    mut raws: impl FnMut(),
) {
    compare(name, rounds, fresh, || timed(&mut ours), || timed(&mut raws));
}

fn compare(
    name: &str,
    (rounds, ops): (usize, usize),
    mut fresh: impl FnMut(),
    mut ours: impl FnMut() -> Duration,
    mut raws: impl FnMut() -> Duration,
) {
    let mut ratios = Vec::new();
    let (mut our_times, mut raw_times) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        fresh();
        // The order alternates, so that neither always runs in the other's wake.
        let (our_time, raw_time) = if round % 2 == 0 {
            let our_time = ours();
            (our_time, raws())
        } else {
            let raw_time = raws();
            (ours(), raw_time)
        };
        ratios.push(our_time.as_secs_f64() / raw_time.as_secs_f64());
        our_times.push(our_time);
        raw_times.push(raw_time);
    }
    ratios.sort_by(f64::total_cmp);
    our_times.sort();
    raw_times.sort();
    let per_op = |time: Duration| time.as_nanos() / ops as u128;
    let at = |share: usize| ratios.get(rounds * share / 4).copied().unwrap_or(f64::NAN);
    println!(
        "paired {name}: ratio {:.3} (quartiles {:.3} to {:.3}); exuvia {} ns, raw {} ns an operation",
        at(2),
        at(1),
        at(3),
        per_op(our_times[rounds / 2]),
        per_op(raw_times[rounds / 2]),
    );
}
