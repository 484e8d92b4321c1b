//! The pause benchmark on a small fixed case, so that regressions show: `cargo bench --bench pause`.
//!
//! Criterion is told, for 20 000 records of 150 bytes at 5000 operations a second from 2 threads, how long a `begin`, a rollback
//! and a resume took, what the backfill took, and the p99 of the foreground meanwhile. Each sample is a whole round (some
//! seconds), so there are few; its figures are for comparison with those of the same machine, and `exuvia bench` is
//! for real ones.

use std::time::Duration;

use criterion::{Criterion, SamplingMode};
use exuvia::Store;
use exuvia_bench::subjects::exuvia_sled;
use exuvia_bench::{Arrivals, Pace, Report, Settings, run};

/// Rounds, and criterion's samples.
const SAMPLES: usize = 10;

fn settings(records: u64) -> Settings {
    Settings {
        records,
        pace: Pace::Open { rate: 5_000, arrivals: Arrivals::Fixed },
        threads: 2,
        warm_up: Duration::from_millis(100),
        phase: Duration::from_millis(300),
        settle: Duration::from_millis(50),
        limit: Duration::from_secs(120),
        ..Settings::default()
    }
}

fn measured(records: u64) -> Report {
    let contenders = [exuvia_sled(&Store::options(), std::env::temp_dir(), 150)];
    let report = run(&contenders, &settings(records), 1, &|_| {}).expect("measured");
    assert!(report.verified(), "{report}");
    report
}

/// A figure of a report, in ms.
type Figure = fn(&Report) -> Option<f64>;

const FIGURES: [(&str, Figure); 6] = [
    ("begin", |r| Some(r.subjects.first()?.verb_ms("begin")?.median)),
    ("rollback", |r| Some(r.subjects.first()?.verb_ms("rollback")?.median)),
    ("resume", |r| Some(r.subjects.first()?.verb_ms("resume")?.median)),
    ("foreground p99, idle", |r| Some(r.subjects.first()?.latency_ms("idle", 0.99)?.median)),
    ("foreground p99, backfill", |r| Some(r.subjects.first()?.latency_ms("backfill", 0.99)?.median)),
    ("backfill of 1000 records", |r| Some(1e6 / r.subjects.first()?.backfill_records_per_s().median)),
];

fn main() {
    // With `--test`, as in continuous integration, it is enough that everything can be run.
    let short = std::env::args().any(|argument| argument == "--test");
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("pause");
    group.sample_size(SAMPLES).sampling_mode(SamplingMode::Flat);
    // As short as can be, so that a sample is one round.
    group.warm_up_time(Duration::from_nanos(1)).measurement_time(Duration::from_nanos(1));
    let rounds = if short { 1 } else { SAMPLES };
    let mut reports = Vec::new();
    for (name, figure) in FIGURES {
        let mut next = 0;
        group.bench_function(name, |bencher| {
            // All figures come from the same rounds, which the first one that is asked for makes; a sample is the next round's.
            bencher.iter_custom(|iterations| {
                while reports.len() < rounds {
                    reports.push(measured(if short { 2_000 } else { 20_000 }));
                }
                let mut sum = 0.0;
                for _ in 0..iterations {
                    sum += reports.get(next % rounds).and_then(figure).unwrap_or_default();
                    next += 1;
                }
                Duration::from_secs_f64(sum / 1e3)
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
