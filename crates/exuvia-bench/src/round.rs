//! One round: one subject, loaded, migrated under load, and compared record by record.
//!
//! 1. Load the records; start the load; warm up.
//! 2. `idle`; `begin`; `backfill`, until the subject says that it is complete; `after`.
//! 3. `rollback`, held for as long as `idle`; `resume`, until it is complete again. Left out if the subject cannot.
//! 4. `contract`; `sweep`, until the remains are gone.
//! 5. End the load. Compare every record with the model, and ask the subject for records that it left in an older form.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::{Clock, Part};
use super::latency::{ByOperation, Latencies, Series, WINDOW};
use super::load::{Load, Shared};
use super::model::Expected;
use super::schedule::Pace;
use super::settings::Settings;
use super::stall::{self, Stall};
use super::steps::{Step, StepKind, Steps};
use super::subject::{Ability, Failure, Subject};

/// How many records are compared in one scan.
const PAGE: usize = 1024;

/// The most stalls that are kept of a round, the longest first.
const STALLS_MAX: usize = 50;

/// The names of the phases, in their order. What ends in the first counts for nothing.
pub const PHASES: [&str; 9] =
    ["warm-up", "idle", "begin", "backfill", "after", "rollback", "resume", "contract", "sweep"];

/// What was measured of one subject in one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// The round's number, from 0.
    pub round: u32,
    /// The seed of this round.
    pub seed: u64,
    /// Wall-clock time of its beginning, in ms since 1970.
    pub began_unix_ms: u64,
    /// Operations a second that were due; `None` in a closed loop.
    #[serde(default)]
    pub rate: Option<u64>,
    /// Seconds that the load of the records took.
    pub load_s: f64,
    /// The phases that took place, in their order.
    pub phases: Vec<PhaseResult>,
    /// The verbs, in their order.
    pub verbs: Vec<VerbResult>,
    /// Records that the backfill rewrote in a second, `begin` included.
    pub backfill_records_per_s: f64,
    /// Stalls: the longest, and how many.
    pub stalls: Stalls,
    /// Latencies by the window in which operations were due.
    pub series: Vec<Point>,
    /// Whether the work was done.
    pub checks: Checks,
    /// Bytes on disk: before the migration, when the backfill was complete, at the end.
    pub bytes: [u64; 3],
    /// How late threads woke up that nothing else held up: the generator's own part of every latency.
    pub lateness: Latencies,
    /// Share of the machine's processor time that others took, 0 to 1, if the system tells.
    pub others_cpu: Option<f64>,
    /// The windows themselves, for interval logs; not in the JSON.
    #[serde(skip)]
    pub(crate) windows: Series,
}

/// Latencies of one phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PhaseResult {
    /// Its name: one of [`PHASES`].
    pub name: String,
    /// When it began, in µs since the beginning of the round.
    pub began_us: u64,
    /// When it ended.
    pub ended_us: u64,
    /// Latencies by operation, from when each was due; as pairs (ns, count).
    pub operations: ByOperation,
}

impl PhaseResult {
    /// All operations together.
    pub fn all(&self) -> Latencies {
        let mut sum = Latencies::default();
        self.operations.values().for_each(|part| sum.add(part));
        sum
    }

    /// Operations that ended in a second.
    pub fn rate(&self) -> f64 {
        self.all().count() as f64 / (self.ended_us.saturating_sub(self.began_us).max(1) as f64 / 1e6)
    }
}

/// How a verb went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerbResult {
    /// Its name.
    pub verb: String,
    /// How long the call took, in µs.
    pub took_us: u64,
    /// Why the subject cannot do it, if so.
    pub cannot: Option<String>,
}

/// Stalls of a round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stalls {
    /// Calls from this long on were looked at, in µs.
    pub from_us: u64,
    /// Stalls after the warm-up with a step of the migration under way.
    pub migration: u64,
    /// Stalls with nothing of it under way: the engine's own, or the machine's.
    pub own: u64,
    /// The longest ones, longest first.
    pub longest: Vec<Stall>,
}

/// One point of a time series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// When the window began, in ms since the beginning of the round.
    pub at_ms: u64,
    /// Operations that were due in it.
    pub count: u64,
    /// Half of them took at most this, in ns.
    pub p50_ns: u64,
    /// 99 of 100 took at most this, in ns.
    pub p99_ns: u64,
    /// The longest, in ns.
    pub max_ns: u64,
}

/// Whether the work was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// Every record is what it has to be at the end, none is left behind, and nothing failed under load.
    pub verified: bool,
    /// Records compared at the end.
    pub compared: u64,
    /// Records that were read under load and compared.
    pub checked: u64,
    /// Differences and failures.
    pub wrong: u64,
    /// The first of them.
    pub differences: Vec<String>,
    /// Records that are still stored in an older form at the end; `None`: the subject cannot tell.
    pub left_behind: Option<u64>,
    /// Tries that were refused because the subject was closed. Their operations were tried again, and the time counts.
    pub closed: u64,
    /// Operations that were due and not done.
    pub undone: u64,
}

/// Measures a subject that is open and empty.
///
/// `tell` is called with the name of each phase as it begins. Costs the time of all phases; a subject that does not complete
/// within [`Settings::limit`] is a failure.
///
/// # Errors
///
/// Settings that cannot be used, or a subject that failed at a verb. What it got wrong is no error, but in [`Round::checks`].
pub fn measure<S: Subject + 'static>(
    subject: &Arc<S>,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    round: u32,
    tell: &dyn Fn(&str),
) -> Result<Round, Failure> {
    settings.check()?;
    if let Pace::OfPeak { .. } = settings.pace {
        let why = "a share of the peak needs a subject that can be opened twice; use `run` and a `Contender`";
        return Err(Failure::Setting(why.to_owned()));
    }
    let began_unix_ms = unix_ms();
    let steps = Arc::new(Steps::new(Arc::clone(clock)));
    subject.watch(&steps);
    tell("load");
    let begun = clock.now();
    load(subject, settings.records, clock)?;
    let load_s = clock.now().saturating_sub(begun).as_secs_f64();
    let before = subject.bytes_on_disk()?;
    let cpu = super::machine::CpuTimes::now();

    let load = Load::start(Arc::clone(subject), Arc::clone(clock), settings)?;
    let mut course =
        Course { subject, settings, clock, tell, steps: &steps, load, phases: vec![], verbs: vec![] };
    let (backfill_s, backfilled_bytes) = course.run()?;
    let Course { load, phases, verbs, .. } = course;
    let (measured, shared, differences) = load.stop();
    let others_cpu = super::machine::CpuTimes::now().zip(cpu).and_then(|(now, then)| now.others_since(&then));

    tell("verify");
    let checks = verify(&shared, settings.to, differences)?;
    let names: Vec<String> = PHASES.iter().map(|name| (*name).to_owned()).collect();
    let counted: Vec<_> = measured.slow.iter().filter(|call| call.phase > 0).copied().collect();
    let stalls = summary(stall::stalls(&counted, &steps.sorted(), &names), settings.stall_from);
    let mut latencies = measured.phases;
    let phases = phases.into_iter().map(|(number, began, ended)| PhaseResult {
        name: names.get(number).cloned().unwrap_or_default(),
        began_us: us(began),
        ended_us: us(ended),
        operations: latencies.get_mut(number).map(std::mem::take).unwrap_or_default(),
    });
    Ok(Round {
        round,
        seed: settings.seed,
        began_unix_ms,
        rate: match settings.pace {
            Pace::Open { rate, .. } => Some(rate),
            Pace::Closed | Pace::OfPeak { .. } => None,
        },
        load_s,
        phases: phases.collect(),
        verbs,
        backfill_records_per_s: settings.records as f64 / backfill_s.max(1e-9),
        stalls,
        series: points(&measured.series),
        checks,
        bytes: [before, backfilled_bytes, subject.bytes_on_disk()?],
        lateness: measured.lateness,
        others_cpu,
        windows: measured.series,
    })
}

/// Operations a second that a subject does in a closed loop, with nothing else going on. The subject is open and empty; it is
/// of no use afterwards.
pub(crate) fn peak<S: Subject + 'static>(
    subject: &Arc<S>,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<u64, Failure> {
    load(subject, settings.records, clock)?;
    let closed = Settings { pace: Pace::Closed, ..settings.clone() };
    let load = Load::start(Arc::clone(subject), Arc::clone(clock), &closed)?;
    let rest = |time: Duration| clock.sleep_until(clock.now() + time);
    rest(settings.warm_up);
    load.enter(number("idle"));
    let begun = clock.now();
    rest(settings.phase);
    load.enter(number("begin"));
    let took = clock.now().saturating_sub(begun);
    let (measured, ..) = load.stop();
    let idle = measured.phases.get(number("idle")).into_iter().flat_map(|phase| phase.values());
    let operations: u64 = idle.map(Latencies::count).sum();
    Ok((operations as f64 / took.as_secs_f64().max(1e-9)) as u64)
}

/// Loads the records from a thread of its own, which ends with it. glibc's `malloc` keeps what a thread has freed for that
/// thread, and puts it together when the thread asks for more than usual: after a million records that took up to 20 ms, in
/// the first verb of the thread that had loaded them, and held up whoever freed something of its arena.
fn load<S: Subject + 'static>(subject: &Arc<S>, records: u64, clock: &Arc<dyn Clock>) -> Result<(), Failure> {
    let (subject, part) = (Arc::clone(subject), Part::of(clock));
    let spawned = std::thread::Builder::new().name("loader".to_owned()).spawn(move || {
        let _part = part;
        subject.load(records)
    });
    let thread = spawned.map_err(|e| Failure::Thread(e.to_string()))?;
    // This thread waits for that one now, and not for the clock.
    clock.leave();
    let loaded = thread.join();
    clock.join();
    loaded.unwrap_or_else(|_| Err(Failure::subject("load", "it panicked")))
}

/// The number of a phase, by which its latencies are kept.
fn number(phase: &str) -> usize {
    PHASES.iter().position(|known| *known == phase).unwrap_or_default()
}

/// The phases of a round.
struct Course<'a, S> {
    subject: &'a Arc<S>,
    settings: &'a Settings,
    clock: &'a Arc<dyn Clock>,
    tell: &'a dyn Fn(&str),
    steps: &'a Arc<Steps>,
    load: Load<S>,
    /// Number, beginning and end of each phase.
    phases: Vec<(usize, Duration, Duration)>,
    verbs: Vec<VerbResult>,
}

impl<S: Subject + 'static> Course<'_, S> {
    /// Answers the seconds from `begin` to the end of the backfill, and the bytes on disk then.
    fn run(&mut self) -> Result<(f64, u64), Failure> {
        let (subject, from, to) = (Arc::clone(self.subject), 1, self.settings.to);
        self.enter("warm-up");
        self.rest(self.settings.warm_up);
        self.enter("idle");
        self.rest(self.settings.phase);

        self.enter("begin");
        let begun = self.clock.now();
        self.verb("begin", || subject.begin(to).map(|()| Ability::Done))?;
        self.load.switch(to);
        self.rest(self.settings.settle);
        self.enter("backfill");
        self.complete()?;
        let took = self.clock.now().saturating_sub(begun).as_secs_f64();
        let bytes = subject.bytes_on_disk()?;
        self.enter("after");
        self.rest(self.settings.phase);

        self.enter("rollback");
        if self.verb("rollback", || subject.roll_back())? {
            self.load.switch(from);
            self.rest(self.settings.phase);
            self.enter("resume");
            if !self.verb("resume", || subject.resume())? {
                return Err(Failure::subject(
                    "resume",
                    "it was rolled back, and cannot be taken forward again",
                ));
            }
            self.load.switch(to);
            self.complete()?;
            self.rest(self.settings.settle);
        } else {
            self.phases.pop();
        }
        self.enter("contract");
        if self.verb("contract", || subject.contract())? {
            self.rest(self.settings.settle);
        } else {
            self.phases.pop();
        }
        self.enter("sweep");
        if !subject.sweep(self.settings.limit)? {
            return Err(Failure::subject(
                "sweep",
                format!("it was not done within {:?}", self.settings.limit),
            ));
        }
        self.rest(self.settings.settle);
        self.close_phase();
        Ok((took, bytes))
    }

    fn complete(&self) -> Result<(), Failure> {
        if self.subject.wait(self.settings.limit)? {
            return Ok(());
        }
        let limit = self.settings.limit;
        Err(Failure::subject(
            "wait",
            format!("the backfill was not complete within {limit:?}; give it longer"),
        ))
    }

    fn enter(&mut self, name: &str) {
        self.close_phase();
        let number = number(name);
        let now = self.clock.now();
        self.phases.push((number, now, now));
        self.load.enter(number);
        (self.tell)(name);
    }

    fn close_phase(&mut self) {
        if let Some((_, _, ended)) = self.phases.last_mut() {
            *ended = self.clock.now();
        }
    }

    fn verb(&mut self, verb: &str, call: impl FnOnce() -> Result<Ability, Failure>) -> Result<bool, Failure> {
        let began = self.clock.now();
        let ability = call()?;
        let ended = self.clock.now();
        let cannot = match ability {
            Ability::Done => None,
            Ability::Cannot(why) => Some(why.to_owned()),
        };
        if cannot.is_none() {
            self.steps.note(Step { kind: StepKind::Verb, began, ended });
        }
        let done = cannot.is_none();
        self.verbs.push(VerbResult {
            verb: verb.to_owned(),
            took_us: us(ended.saturating_sub(began)),
            cannot,
        });
        Ok(done)
    }

    fn rest(&self, time: Duration) {
        self.clock.sleep_until(self.clock.now() + time);
    }
}

/// Compares every record with the model. No load is running.
fn verify<S: Subject>(
    shared: &Shared<S>,
    version: u32,
    mut differences: Vec<String>,
) -> Result<Checks, Failure> {
    let (subject, counts) = (&shared.subject, &shared.counts);
    let mut wrong = counts.wrong.load(Ordering::Relaxed);
    let mut differs = |text: String| {
        wrong += 1;
        if differences.len() < 20 {
            differences.push(text);
        }
    };
    let (mut key, mut compared, end) = (0, 0, shared.model.end());
    loop {
        let page = subject.scan(key, PAGE, version).map_err(|e| Failure::subject("the last scan", e))?;
        let next = match page.last() {
            Some((last, _)) if page.len() >= PAGE => *last + 1,
            _ => end.max(page.last().map_or(0, |(last, _)| last + 1)),
        };
        let mut page = page.into_iter().peekable();
        for key in key..next {
            let found = page.next_if(|(at, _)| *at == key).map(|(_, record)| record);
            let right = match shared.model.expected(key) {
                // The thread that was writing it failed, which is counted already.
                Expected::Unknown => continue,
                Expected::Absent => None,
                Expected::Present(revision) => Some(subject.record(key, revision, version)),
            };
            compared += u64::from(right.is_some());
            if found != right {
                differs(format!(
                    "key {key} at version {version} is {found:?} at the end, and has to be {right:?}"
                ));
            }
        }
        if let Some((extra, _)) = page.next() {
            differs(format!("the last scan gave key {extra} out of order"));
        }
        key = next.max(key + 1);
        if key >= end {
            break;
        }
    }
    let left_behind = subject.left_behind(version)?;
    Ok(Checks {
        verified: wrong == 0 && left_behind.unwrap_or(0) == 0,
        compared,
        checked: counts.checked.load(Ordering::Relaxed),
        wrong,
        differences,
        left_behind,
        closed: counts.closed.load(Ordering::Relaxed),
        undone: counts.undone.load(Ordering::Relaxed),
    })
}

fn summary(mut stalls: Vec<Stall>, from: Duration) -> Stalls {
    let migration = stalls.iter().filter(|stall| stall.step.is_some()).count() as u64;
    let own = stalls.len() as u64 - migration;
    stalls.sort_by_key(|stall| std::cmp::Reverse(stall.longest_us));
    stalls.truncate(STALLS_MAX);
    Stalls { from_us: us(from), migration, own, longest: stalls }
}

fn points(series: &Series) -> Vec<Point> {
    let window_ms = u64::try_from(WINDOW.as_millis()).unwrap_or(1);
    let point = |(number, window): (&u64, &super::latency::Window)| Point {
        at_ms: number * window_ms,
        count: window.count(),
        p50_ns: window.quantile_ns(0.5),
        p99_ns: window.quantile_ns(0.99),
        max_ns: window.max_ns,
    };
    series.0.iter().map(point).collect()
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}
