//! The harness, tested with fakes on a simulated clock: what it reports is compared with what was done to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::*;

/// What a [`Fake`] does wrong, or slowly.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// From `at` on, nobody gets on for `long`; a step of the migration is noted as under way, or not.
    Stall {
        at: Duration,
        long: Duration,
        noted: bool,
    },
    /// Every operation takes this long, whatever it is.
    Slow(Duration),
    /// The backfill leaves out every 1000th record.
    DropsEvery1000th,
    /// It loses one record in the backfill.
    LosesOne,
    /// Everything is right to the eye, but 7 records are still stored in the old form.
    LeavesBehind,
    /// Every 500th write is acknowledged and not made.
    ForgetsWrites,
    /// A scan leaves out one of its records.
    ShortScan,
    /// What was written since `begin` cannot be read after a rollback.
    LosesWritesAtRollback,
    /// It is closed for so long while it begins.
    Closed(Duration),
    /// It has no rollback.
    NoRollback,
    /// Its backfill never ends.
    Endless,
    /// A read panics at some time.
    Panics,
}

/// Records as (key, revision, version), in memory, on the harness' clock.
struct Fake {
    fault: Fault,
    clock: Arc<dyn Clock>,
    /// An operation's own time.
    service: Duration,
    records: Mutex<BTreeMap<u64, (u64, u32, u32)>>,
    calls: AtomicU64,
    closed_until: Mutex<Duration>,
    steps: Mutex<Option<Arc<Steps>>>,
    backfill_since: Mutex<Option<Duration>>,
}

const BACKFILL: Duration = Duration::from_secs(2);

impl Fake {
    fn new(fault: Fault, clock: &Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self::unshared(fault, clock))
    }

    fn unshared(fault: Fault, clock: &Arc<dyn Clock>) -> Self {
        Self {
            fault,
            clock: Arc::clone(clock),
            service: Duration::from_micros(50),
            records: Mutex::default(),
            calls: AtomicU64::new(0),
            closed_until: Mutex::default(),
            steps: Mutex::default(),
            backfill_since: Mutex::default(),
        }
    }

    /// The time of an operation; nobody holds a lock meanwhile.
    fn serve(&self) -> Result<(), Refusal> {
        let now = self.clock.now();
        if now < *self.closed_until.lock() {
            return Err(Refusal::Closed("begin is under way".to_owned()));
        }
        let end = match self.fault {
            Fault::Stall { at, long, .. } if (at..at + long).contains(&now) => at + long,
            Fault::Slow(service) => now + service,
            _ => now + self.service,
        };
        self.clock.sleep_until(end);
        Ok(())
    }

    fn nth(&self, n: u64) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed) % n == n - 1
    }
}

impl Subject for Fake {
    type Record = (u64, u32, u32);

    fn record(&self, key: u64, revision: u32, version: u32) -> Self::Record {
        (key, revision, version)
    }

    fn load(&self, count: u64) -> Result<(), Failure> {
        assert_eq!(std::thread::current().name(), Some("loader"), "a thread that ends with the load");
        self.records.lock().extend((0..count).map(|key| (key, (key, 0, 1))));
        Ok(())
    }

    fn get(&self, key: u64, version: u32) -> Result<Option<Self::Record>, Refusal> {
        self.serve()?;
        assert!(self.fault != Fault::Panics || !self.nth(2000), "made to panic");
        Ok(self.records.lock().get(&key).map(|(key, revision, _)| (*key, *revision, version)))
    }

    fn put(&self, key: u64, record: &Self::Record, _version: u32) -> Result<(), Refusal> {
        self.serve()?;
        if self.fault != Fault::ForgetsWrites || !self.nth(500) {
            self.records.lock().insert(key, *record);
        }
        Ok(())
    }

    fn remove(&self, key: u64, _version: u32) -> Result<(), Refusal> {
        self.serve()?;
        self.records.lock().remove(&key);
        Ok(())
    }

    fn scan(&self, from: u64, limit: usize, version: u32) -> Result<Vec<(u64, Self::Record)>, Refusal> {
        self.serve()?;
        let records = self.records.lock();
        let read = |(key, (id, revision, stored)): (&u64, &(u64, u32, u32))| {
            // A record that the backfill left out is seen as it is stored.
            let stored = if self.fault == Fault::DropsEvery1000th { *stored } else { version };
            (*key, (*id, *revision, stored))
        };
        let mut found: Vec<_> = records.range(from..).take(limit).map(read).collect();
        if self.fault == Fault::ShortScan && found.len() > 1 {
            found.remove(found.len() / 2);
        }
        Ok(found)
    }

    fn begin(&self, _to: u32) -> Result<(), Failure> {
        let now = self.clock.now();
        *self.backfill_since.lock() = Some(now);
        if let Fault::Closed(long) = self.fault {
            *self.closed_until.lock() = now + long;
        }
        Ok(())
    }

    fn wait(&self, limit: Duration) -> Result<bool, Failure> {
        if self.fault == Fault::Endless {
            self.clock.sleep_until(self.clock.now() + limit);
            return Ok(false);
        }
        let begun = self.backfill_since.lock().unwrap_or_default();
        if let (Fault::Stall { at, long, noted: true }, Some(steps)) = (self.fault, &*self.steps.lock())
            && self.clock.now() < at
        {
            steps.note(Step { kind: StepKind::Flush, began: at, ended: at + long });
        }
        self.clock.sleep_until(begun + BACKFILL);
        let mut records = self.records.lock();
        for (key, (_, _, version)) in records.iter_mut() {
            if self.fault != Fault::DropsEvery1000th || key % 1000 != 0 {
                *version = 2;
            }
        }
        if self.fault == Fault::LosesOne {
            records.remove(&77);
        }
        Ok(true)
    }

    fn roll_back(&self) -> Result<Ability, Failure> {
        if self.fault == Fault::NoRollback {
            return Ok(Ability::Cannot("it keeps no older form"));
        }
        if self.fault == Fault::LosesWritesAtRollback {
            self.records.lock().values_mut().for_each(|record| record.1 = 0);
        }
        Ok(Ability::Done)
    }

    fn resume(&self) -> Result<Ability, Failure> {
        Ok(Ability::Done)
    }

    fn contract(&self) -> Result<Ability, Failure> {
        Ok(Ability::Done)
    }

    fn sweep(&self, _limit: Duration) -> Result<bool, Failure> {
        Ok(true)
    }

    fn left_behind(&self, _version: u32) -> Result<Option<u64>, Failure> {
        Ok(Some(if self.fault == Fault::LeavesBehind { 7 } else { 0 }))
    }

    fn bytes_on_disk(&self) -> Result<u64, Failure> {
        Ok(self.records.lock().len() as u64 * 150)
    }

    fn watch(&self, steps: &Arc<Steps>) {
        *self.steps.lock() = Some(Arc::clone(steps));
    }
}

fn settings() -> Settings {
    Settings {
        records: 3000,
        pace: Pace::Open { rate: 2000, arrivals: Arrivals::Fixed },
        warm_up: Duration::from_secs(1),
        phase: Duration::from_secs(2),
        settle: Duration::from_millis(200),
        limit: Duration::from_secs(30),
        ..Settings::default()
    }
}

fn try_measure(fault: Fault, settings: &Settings) -> Result<Round, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::new());
    measure(&Fake::new(fault, &clock), settings, &clock, 0, &|_| {})
}

fn measured(fault: Fault) -> Round {
    try_measure(fault, &settings()).expect("measured")
}

fn phase<'a>(round: &'a Round, name: &str) -> &'a PhaseResult {
    round.phases.iter().find(|phase| phase.name == name).expect("phase")
}

fn ms(latency: Duration) -> f64 {
    latency.as_secs_f64() * 1e3
}

#[test]
fn a_store_that_does_all_of_its_work_is_verified_and_every_phase_is_there() {
    let round = measured(Fault::None);
    assert!(round.checks.verified, "{:?}", round.checks);
    assert_eq!(round.phases.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), PHASES);
    for phase in &round.phases {
        let (rate, max) = (phase.rate(), phase.all().max());
        assert!((rate / 2000.0 - 1.0).abs() < 0.03, "{}: {rate} operations/s", phase.name);
        assert!((ms(max) - 0.05).abs() < 0.001, "{}: {max:?}", phase.name);
    }
    assert!(round.checks.compared > 2000 && round.checks.checked > 10_000, "{:?}", round.checks);
    assert_eq!((round.checks.closed, round.checks.undone), (0, 0));
    assert_eq!((round.stalls.migration, round.stalls.own), (0, 0));
    assert!((round.backfill_records_per_s - 1500.0).abs() < 2.0, "{}", round.backfill_records_per_s);
    let points: u64 = round.series.iter().map(|point| point.count).sum();
    let operations: u64 = round.phases.iter().map(|phase| phase.all().count()).sum();
    assert_eq!(points, operations, "every operation is in the time series once");
}

/// 200 ms, one second into the backfill (after a warm-up of one second and two seconds idle).
const STALL_AT: Duration = Duration::from_millis(4000);
const STALL: Duration = Duration::from_millis(200);

/// A round with that stall in it.
pub(crate) fn stalled() -> Round {
    measured(Fault::Stall { at: STALL_AT, long: STALL, noted: true })
}

#[test]
fn an_injected_stall_is_reported_as_itself() {
    for noted in [true, false] {
        let round = measured(Fault::Stall { at: STALL_AT, long: STALL, noted });
        let max = ms(phase(&round, "backfill").all().max());
        assert!((max / 200.0 - 1.0).abs() < 0.01, "the longest is {max} ms");
        let stall = &round.stalls.longest[0];
        assert!((stall.longest_us as f64 / 200e3 - 1.0).abs() < 0.01, "{stall:?}");
        assert!((stall.length_us as f64 / 200e3 - 1.0).abs() < 0.01, "{stall:?}");
        assert!(stall.began_us.abs_diff(4_000_000) <= 2_000, "{stall:?}");
        assert_eq!((stall.phase.as_str(), stall.calls), ("backfill", 4), "each thread has one call in it");
        let counts = (round.stalls.migration, round.stalls.own);
        if noted {
            assert_eq!(counts, (1, 0));
            let (kind, us) = stall.step.expect("the step");
            assert!(kind == StepKind::Flush && us.abs_diff(200_000) < 2_000, "{stall:?}");
        } else {
            assert_eq!((counts, stall.step), ((0, 1), None));
        }
        for other in ["idle", "begin", "after", "contract"] {
            assert!(phase(&round, other).all().max() < Duration::from_millis(1), "{other} had no stall");
        }
    }
}

#[test]
fn everybody_who_would_have_come_during_a_stall_counts() {
    let round = measured(Fault::Stall { at: STALL_AT, long: STALL, noted: true });
    let backfill = phase(&round, "backfill").all();
    let waited =
        backfill.buckets().iter().filter(|(l, _)| *l > Duration::from_millis(1)).map(|(_, n)| n).sum::<u64>();
    // 2000 operations a second for 200 ms; those of a closed loop would have been four.
    assert!((390..=410).contains(&waited), "{waited} operations waited");
    // They came at even distances, so the mean of what they waited is half of the stall.
    let sum: f64 =
        backfill.buckets().iter().filter(|(l, _)| ms(*l) > 1.0).map(|(l, n)| ms(*l) * *n as f64).sum();
    assert!((sum / waited as f64 / 100.0 - 1.0).abs() < 0.03, "{} ms", sum / waited as f64);
    // And the series shows it from its beginning on: 200 ms at first, then 100 ms, and 2.5 ms for the 50 calls of 50 us
    // that had to be done before by the same thread.
    let max_at =
        |at_ms| round.series.iter().find(|p| p.at_ms == at_ms).map_or(0.0, |p| p.max_ns as f64 / 1e6);
    assert!((max_at(4000) - 200.0).abs() < 2.0 && (max_at(4100) - 102.5).abs() < 1.0, "{}", max_at(4100));
    assert!(max_at(3900) < 1.0 && max_at(4300) < 1.0);
}

#[test]
fn a_store_that_is_slower_than_its_load_does_not_look_fast() {
    // 4 threads at 4 ms are 1000 operations a second, and 2000 are due: after t seconds the next one is t / 2 late.
    let round = try_measure(Fault::Slow(Duration::from_millis(4)), &settings()).expect("measured");
    let (idle, sweep) = (phase(&round, "idle").all(), phase(&round, "sweep").all());
    assert!(idle.quantile(0.5) > Duration::from_millis(900), "{:?}", idle.quantile(0.5));
    assert!(sweep.quantile(0.5) > Duration::from_secs(4), "{:?}", sweep.quantile(0.5));
    assert!(round.checks.verified, "slow is not wrong: {:?}", round.checks);
    let closed = Settings { pace: Pace::Closed, ..settings() };
    let closed = try_measure(Fault::Slow(Duration::from_millis(4)), &closed).expect("measured");
    let rate = phase(&closed, "idle").rate();
    assert!((rate / 1000.0 - 1.0).abs() < 0.02, "its peak is {rate} operations/s");
}

#[test]
fn the_peak_of_a_store_is_what_its_threads_can_do() {
    let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::new());
    let subject = Fake::new(Fault::Slow(Duration::from_millis(4)), &clock);
    let rate = super::round::peak(&subject, &settings(), &clock).expect("measured");
    assert!((990..=1010).contains(&rate), "4 threads at 4 ms are 1000 operations/s, and not {rate}");
}

#[test]
fn a_share_of_the_peak_becomes_a_rate_in_every_round() {
    let contender = Contender::new("slow", "none", || {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Ok(Fake::unshared(Fault::Slow(Duration::from_millis(4)), &clock))
    });
    let short = Duration::from_millis(200);
    let pace = Pace::OfPeak { percent: 10, arrivals: Arrivals::Fixed };
    let settings = Settings { records: 20, pace, warm_up: short, phase: short, settle: short, ..settings() };
    let report = run(&[contender.named("slower")], &settings, 1, &|_| {}).expect("measured");
    let subject = report.subjects.first().expect("a subject");
    let rate = subject.rounds.first().and_then(|round| round.rate).expect("a rate");
    // A busy machine may be slower. None is faster, but that each of 4 threads may have one operation on the window's edge.
    assert!((1..=102).contains(&rate), "a tenth of 1000 operations/s, and not {rate}");
    assert!(report.verified(), "{report}");
    assert_eq!(subject.name, "slower");
    assert!(report.to_string().contains(&format!("{rate} operations/s were due")), "{report}");
}

#[test]
fn what_could_not_be_done_in_time_is_counted() {
    // So slow that the queue at the end is longer than the time that is left for it.
    let round = try_measure(Fault::Slow(Duration::from_millis(20)), &settings()).expect("measured");
    assert!(round.checks.undone > 0);
    let counted: u64 = round.phases.iter().map(|phase| phase.all().count()).sum();
    let end = round.phases.last().expect("phases").ended_us as f64 / 1e6;
    assert!((counted as f64 / (end * 2000.0) - 1.0).abs() < 0.01, "{counted} of those due in {end} s");
}

#[test]
fn a_store_that_skips_work_is_caught() {
    for (fault, expected) in [
        (Fault::DropsEvery1000th, 3),
        (Fault::LosesOne, 1),
        (Fault::ForgetsWrites, 1),
        (Fault::ShortScan, 1),
        (Fault::LosesWritesAtRollback, 1),
        (Fault::Panics, 1),
    ] {
        let round = measured(fault);
        assert!(!round.checks.verified, "{fault:?} is not caught");
        assert!(
            round.checks.wrong >= expected && !round.checks.differences.is_empty(),
            "{fault:?}: {:?}",
            round.checks
        );
    }
    let round = measured(Fault::LeavesBehind);
    assert_eq!((round.checks.verified, round.checks.left_behind, round.checks.wrong), (false, Some(7), 0));
}

#[test]
fn the_time_that_a_store_is_closed_is_latency() {
    let round = measured(Fault::Closed(Duration::from_millis(150)));
    let max = ms(phase(&round, "begin").all().max());
    assert!((150.0..152.0).contains(&max), "{max} ms");
    assert!(round.checks.closed > 100 && round.checks.verified, "{:?}", round.checks);
    assert_eq!(round.checks.undone, 0, "all of them were done in the end");
}

#[test]
fn a_store_without_a_rollback_says_so_and_has_no_such_phase() {
    let round = measured(Fault::NoRollback);
    assert!(round.checks.verified);
    assert!(!round.phases.iter().any(|phase| ["rollback", "resume"].contains(&phase.name.as_str())));
    let rollback = round.verbs.iter().find(|verb| verb.verb == "rollback").expect("the verb");
    assert_eq!(rollback.cannot.as_deref(), Some("it keeps no older form"));
    let report = Report::new(settings(), vec![SubjectReport::new("fake", "none", vec![round])], vec![]);
    assert!(report.to_string().contains("rollback: cannot (it keeps no older form)"), "{report}");
}

#[test]
fn a_backfill_that_never_ends_and_settings_that_cannot_be_are_failures() {
    assert!(matches!(try_measure(Fault::Endless, &settings()), Err(Failure::Subject { verb: "wait", .. })));
    for wrong in [
        Settings { threads: 0, ..settings() },
        Settings { records: 3, ..settings() },
        Settings { pace: Pace::Open { rate: 0, arrivals: Arrivals::Fixed }, ..settings() },
        Settings { to: 1, ..settings() },
        Settings { pace: Pace::OfPeak { percent: 101, arrivals: Arrivals::Fixed }, ..settings() },
        // The peak has to be found on another one.
        Settings { pace: Pace::OfPeak { percent: 50, arrivals: Arrivals::Fixed }, ..settings() },
    ] {
        assert!(matches!(try_measure(Fault::None, &wrong), Err(Failure::Setting(_))), "{wrong:?}");
    }
}

#[test]
fn every_ycsb_mix_runs_and_is_checked() {
    for letter in ['a', 'b', 'c', 'd', 'e', 'f'] {
        let mix = Mix::ycsb(letter).expect("a mix");
        let operations: Vec<Operation> = mix.shares.iter().map(|(operation, _)| *operation).collect();
        let arrivals = Arrivals::Poisson;
        let pace = Pace::Open { rate: 1000, arrivals };
        let round = try_measure(Fault::None, &Settings { mix, pace, ..settings() }).expect("measured");
        assert!(round.checks.verified && round.checks.checked > 3000, "{letter}: {:?}", round.checks);
        for phase in &round.phases {
            assert!(operations.iter().all(|operation| phase.operations.contains_key(operation)), "{letter}");
        }
        let inserts = operations.contains(&Operation::Insert);
        assert_eq!(round.checks.compared > 3000, inserts, "{letter}: {:?}", round.checks);
    }
}

#[test]
fn the_same_seed_measures_the_same() {
    let (one, two) = (measured(Fault::None), measured(Fault::None));
    let other = try_measure(Fault::None, &Settings { seed: 2, ..settings() }).expect("measured");
    let counts = |round: &Round| {
        round
            .phases
            .iter()
            .map(|p| p.operations.iter().map(|(o, l)| (*o, l.count())).collect())
            .collect::<Vec<Vec<_>>>()
    };
    assert_eq!((counts(&one), one.checks.compared), (counts(&two), two.checks.compared));
    assert_ne!(counts(&one), counts(&other));
}

#[test]
fn a_report_comes_back_from_json_and_merges_with_its_like() {
    let subject = |name: &str, fault| SubjectReport::new(name, "none", vec![measured(fault)]);
    let one = Report::new(settings(), vec![subject("a", Fault::None)], vec![]);
    let back = Report::from_json(&one.to_json().expect("json")).expect("report");
    assert_eq!(back.to_string(), one.to_string());
    let stall = Fault::Stall { at: STALL_AT, long: STALL, noted: true };
    let seeded = Settings { seed: 9, ..settings() };
    let two = Report::new(seeded, vec![subject("a", stall), subject("b", Fault::None)], vec![]);
    let merged = back.merge(two.clone()).expect("merges");
    assert_eq!(merged.subjects.iter().map(|s| s.rounds.len()).collect::<Vec<_>>(), [2, 1]);
    let max = merged.subjects[0].latency_ms("backfill", 1.0).expect("phase");
    assert!(
        (max.high / 200.0 - 1.0).abs() < 0.01 && max.low < 1.0 && (max.median / 100.0 - 1.0).abs() < 0.01
    );
    let differs = Settings { records: 5000, ..settings() };
    assert!(two.merge(Report::new(differs, vec![], vec![])).is_err(), "other settings are not mixed");
    assert!(Report::from_json("{\"schema\":99}").is_err() && Report::from_json("[]").is_err());
}

#[test]
fn noise_is_noticed() {
    // The clock is simulated, so what others do to the real machine meanwhile has no part in it.
    let still = |fault| Round { others_cpu: None, ..measured(fault) };
    let of = |rounds| SubjectReport::new("a", "", rounds);
    let quiet = || of(vec![still(Fault::None)]);
    let mut calm = Latencies::default();
    (0..500).for_each(|_| calm.record(Duration::from_micros(60)));
    let mut late = calm.clone();
    late.record(Duration::from_millis(20));
    let report = |calibration, subjects| Report::new(settings(), subjects, vec![calibration]);
    assert!(report(calm.clone(), vec![quiet()]).noise.quiet);
    assert!(!report(late, vec![quiet()]).noise.quiet);
    let mut busy = quiet();
    busy.rounds[0].others_cpu = Some(0.3);
    assert!(!report(calm.clone(), vec![busy]).noise.quiet);
    let mut uneven = quiet();
    uneven.rounds.push(still(Fault::Slow(Duration::from_millis(1))));
    let text = report(calm, vec![uneven]).to_string();
    assert!(text.contains("TOO NOISY") && text.contains("p99 of its idle phase"), "{text}");
}
