//! The foreground on stores in memory: right ones pass, wrong ones are found out, and stalls are charged in full.

use std::sync::Arc;
use std::time::Duration;

use crate::data::embedded;
use crate::fake::{Fake, Fault};
use crate::load::{Load, Nothing, Outcome, Pace};
use crate::source::Source;
use crate::subject::Subject;
use crate::types::{Airport, View};

const ALL: [View; 3] = [View::V1, View::V2, View::V3];

fn source(records: u64) -> Arc<Source> {
    Arc::new(Source::new(embedded(1000).expect("embedded"), Some(records), 150, 1))
}

fn loaded(fault: Fault, source: &Source) -> Arc<Fake> {
    let fake = Arc::new(Fake::new(fault));
    for key in 0..source.records() {
        fake.put(key, &Airport::V1(source.record(key, 0))).expect("put");
    }
    fake
}

fn run(fault: Fault, views: &[View], millis: u64) -> Outcome {
    let source = source(200);
    let pace = Pace { rate: 8000, threads: 3 };
    let load = Load::start(loaded(fault, &source), source, pace, "idle", views).expect("started");
    std::thread::sleep(Duration::from_millis(millis));
    load.stop()
}

#[test]
fn a_right_store_shows_no_difference() {
    let outcome = run(Fault::None, &ALL, 1000);
    assert_eq!((outcome.wrong, outcome.refused), (0, 0), "{:?}", outcome.differences);
    assert!(outcome.checked > 1000, "{} checked", outcome.checked);
}

#[test]
fn wrong_stores_are_found_out() {
    for fault in [Fault::DropsUnseen, Fault::ForgetsRemovals, Fault::ShortScan, Fault::Fails] {
        let outcome = run(fault, &ALL, 2000);
        assert!(outcome.wrong > 0 && !outcome.differences.is_empty(), "{fault:?}");
    }
}

#[test]
fn a_panic_in_the_store_is_a_difference_and_no_hang() {
    let source = source(200);
    let pace = Pace { rate: 8000, threads: 2 };
    let load = Load::start(loaded(Fault::Panics, &source), source, pace, "idle", &ALL).expect("started");
    std::thread::sleep(Duration::from_millis(500));
    load.halt();
    load.release();
    assert!(load.stop().wrong > 0);
}

#[test]
fn the_rate_is_kept_through_stalls_and_latency_counts_from_when_an_operation_was_due() {
    let source = source(200);
    let pace = Pace { rate: 4000, threads: 1 };
    let load =
        Load::start(loaded(Fault::Stalls, &source), source, pace, "idle", &[View::V1]).expect("started");
    std::thread::sleep(Duration::from_secs(2));
    let outcome = load.stop();
    let idle = outcome.latencies.phase(0);
    assert!((7000..9000).contains(&idle.ops), "{idle:?}");
    // One of some 1400 operations sleeps for 50 ms; 200 more become due meanwhile. A closed loop would have
    // shown one slow operation in 1400 and a p99 of microseconds.
    assert!(idle.max_us >= 50_000.0 && idle.p99_us > 10_000.0, "{idle:?}");
}

#[test]
fn a_halt_leaves_nothing_under_way_and_phases_can_come_again() {
    let source = source(200);
    let fake = loaded(Fault::None, &source);
    let pace = Pace { rate: 5000, threads: 4 };
    let mut load = Load::start(fake.clone(), source.clone(), pace, "idle", &[View::V1]).expect("started");
    for n in 0..6 {
        std::thread::sleep(Duration::from_millis(50));
        load.halt();
        let existing: u64 = load.shards().iter().map(|shard| shard.lock().existing()).sum();
        let found = fake.scan(0, usize::MAX, View::V1).expect("scan").len();
        assert_eq!(existing, found as u64);
        load.phase(if n % 2 == 0 { "backfill" } else { "idle" });
        load.views(&ALL);
        load.release();
    }
    let outcome = load.stop();
    assert_eq!(outcome.phases, ["idle", "backfill"]);
    assert!(outcome.latencies.phase(0).ops > 100 && outcome.latencies.phase(1).ops > 100);
    assert_eq!((outcome.wrong, outcome.undone), (0, 0), "{:?}", outcome.differences);
}

#[test]
fn more_threads_than_records_do_no_harm() {
    let source = source(2);
    let pace = Pace { rate: 2000, threads: 5 };
    let load = Load::start(loaded(Fault::None, &source), source, pace, "idle", &ALL).expect("started");
    std::thread::sleep(Duration::from_millis(200));
    let outcome = load.stop();
    assert_eq!(outcome.wrong, 0, "{:?}", outcome.differences);
    assert!(outcome.latencies.phase(0).ops > 100);
}

#[test]
fn the_generator_alone_is_measured_with_nothing_behind_it() {
    let source = source(1000);
    let pace = Pace { rate: 20_000, threads: 4 };
    let load = Load::start(Arc::new(Nothing), source, pace, "floor", &ALL).expect("started");
    std::thread::sleep(Duration::from_secs(2));
    let outcome = load.stop();
    let floor = outcome.latencies.phase(0);
    eprintln!("the generator's floor at {pace:?}: {floor:?}");
    assert_eq!(outcome.refused, floor.ops);
    assert!((36_000..44_000).contains(&floor.ops), "{floor:?}");
}
