//! The demo: real records move from v1 to v2 to v3 under traffic, back under traffic, and forward again.
//!
//! 1. Load every record at v1, measure the generator alone, then start the traffic: phase `idle`.
//! 2. For each of two migrations: `begin`; `backfill` up to the half; `rollback`, and compare every record at
//!    both views; `resume`, `backfill` to the end, and compare again; `contract`, `sweep`, and compare.
//! 3. Stop the traffic and put the numbers together.
//!
//! While every record is compared the traffic is halted, so no phase has those reads in it.
//!
//! From `begin` to `contract` the traffic reads and writes at both views, as it does while old and new programs
//! run side by side.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exuvia::engine::EngineKind;

use crate::data;
use crate::directory::Directory;
use crate::failure::Failure;
use crate::latency::PhaseSummary;
use crate::load::{Load, Nothing, Pace};
use crate::progress::Progress;
use crate::report::{Phases, Summary, grouped};
use crate::source::Source;
use crate::store;
use crate::subject::{Refusal, Rollout, Step};
use crate::types::{Airport, View};
use crate::verify::Verification;

/// How long a backfill may show no progress before the demo gives up.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// How often the progress of background work is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long the traffic runs at most after a verb, so that those who waited for it count for its phase.
const SETTLE: Duration = Duration::from_millis(500);

/// The same after a contract: the sweep that it starts is a phase of its own.
const SETTLE_CONTRACT: Duration = Duration::from_millis(100);

/// What a demo is to do.
#[derive(Debug)]
pub(crate) struct Options {
    /// A file of airports; the embedded ones if not given.
    pub(crate) data: Option<PathBuf>,
    /// How many records; as many as there are in the data if not given.
    pub(crate) records: Option<u64>,
    /// The encoded size of a record.
    pub(crate) record_bytes: usize,
    /// The traffic.
    pub(crate) pace: Pace,
    /// The store's directory; a temporary one if not given.
    pub(crate) path: Option<PathBuf>,
    /// The engine's cache.
    pub(crate) cache_bytes: u64,
    /// The engine that keeps the store.
    pub(crate) engine: EngineKind,
    /// What everything random is made from.
    pub(crate) seed: u64,
    /// How long each phase lasts at least.
    pub(crate) phase: Duration,
}

/// Runs the demo.
pub(crate) fn run(options: &Options) -> Result<Summary, Failure> {
    let begun = Instant::now();
    let limit = options.records.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let rows = match &options.data {
        Some(path) => data::file(path, limit)?,
        None => data::embedded(limit)?,
    };
    let source = Arc::new(Source::new(rows, options.records, options.record_bytes, options.seed));
    let directory = Directory::prepare(options.path.as_deref())?;
    let store = store::open(directory.path(), options.engine, options.cache_bytes)?;
    let demo = Demo { store, source, pace: options.pace, phase: options.phase };
    let mut summary = demo.run(&mut Progress::new())?;
    demo.store.close()?;
    summary.seconds = begun.elapsed().as_secs_f64();
    summary.path = options.path.as_ref().map(|path| path.display().to_string());
    Ok(summary)
}

/// A demo on a store that is open and empty.
pub(crate) struct Demo {
    pub(crate) store: Arc<dyn Rollout>,
    pub(crate) source: Arc<Source>,
    pub(crate) pace: Pace,
    /// How long each phase lasts at least.
    pub(crate) phase: Duration,
}

/// What the migrations of a run add up to.
#[derive(Debug, Default)]
struct Tally {
    verification: Verification,
    backfilled: u64,
    backfill_time: Duration,
    rollback_max: Duration,
}

impl Demo {
    /// Runs it and closes nothing.
    pub(crate) fn run(&self, progress: &mut Progress) -> Result<Summary, Failure> {
        let load_time = self.load_records(progress)?;
        let bytes_before = self.store.size_bytes()?;
        let generator_floor = self.floor(progress)?;

        let subject = Arc::clone(&self.store);
        let mut load = Load::start(subject, Arc::clone(&self.source), self.pace, "idle", &[View::V1])?;
        self.hold("idle", progress);
        let (rate, threads) = (grouped(self.pace.rate), self.pace.threads);
        let text = format!("{rate} operations/s from {threads} threads, from here to the end");
        progress.note("traffic", &text, self.phase);
        let mut tally = Tally::default();
        for step in [Step::Numbers, Step::Names] {
            self.migrate(step, &mut load, &mut tally, progress)?;
        }
        let outcome = load.stop();
        self.store.flush()?;

        let phases = outcome.phases.iter().enumerate();
        let phases = phases.map(|(n, name)| (name.clone(), outcome.latencies.phase(n))).collect();
        Ok(Summary {
            records: self.source.records(),
            record_bytes: self.source.encoded_bytes_mean()?,
            verified: tally.verification.is_complete() && outcome.wrong == 0,
            compared: tally.verification.compared,
            checked: outcome.checked,
            wrong: outcome.wrong,
            differences: outcome.differences,
            load_records_per_s: per_second(self.source.records(), load_time),
            backfill_records_per_s: per_second(tally.backfilled, tally.backfill_time),
            rollback_us: tally.rollback_max.as_secs_f64() * 1e6,
            longest_pause_us: self.store.longest_pause()?.as_secs_f64() * 1e6,
            bytes_before,
            bytes_after: self.store.size_bytes()?,
            rate: self.pace.rate,
            threads: self.pace.threads,
            refused: outcome.refused,
            undone: outcome.undone,
            generator_floor,
            phases: Phases(phases),
            seconds: 0.0,
            path: None,
        })
    }

    fn load_records(&self, progress: &mut Progress) -> Result<Duration, Failure> {
        let records = self.source.records();
        progress.start("load", records);
        let begun = Instant::now();
        for key in 0..records {
            let put = self.store.put(key, &Airport::V1(self.source.record(key, 0)));
            put.map_err(|e: Refusal| Failure::Store(format!("key {key} could not be loaded: {e}")))?;
            if key % 1024 == 0 {
                progress.set(key, records);
            }
        }
        self.store.flush()?;
        progress.end();
        let text = format!("{} airports, written at v1 and flushed", grouped(records));
        progress.note("load", &text, begun.elapsed());
        Ok(begun.elapsed())
    }

    /// What the generator shows by itself.
    fn floor(&self, progress: &mut Progress) -> Result<PhaseSummary, Failure> {
        let load = Load::start(Arc::new(Nothing), Arc::clone(&self.source), self.pace, "floor", &[View::V1])?;
        self.hold("generator", progress);
        Ok(load.stop().latencies.phase(0))
    }

    fn migrate(
        &self,
        step: Step,
        load: &mut Load,
        tally: &mut Tally,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let (store, old, new) = (&self.store, step.from(), step.to());
        progress.say(&format!("\n{}, {old} to {new}: {}", step.name(), step.why()));
        load.phase("begin");
        let took = timed(|| store.begin(step))?;
        load.views(&[old, new]);
        let text = format!("{new} is active; {old} and {new} programs read and write");
        progress.note("begin", &text, took);
        self.settle(SETTLE);

        load.phase("backfill");
        let since = Instant::now();
        store.start_backfill(step)?;
        self.backfill(step, 0.5, since, tally, progress)?;
        load.phase("rollback");
        let took = timed(|| store.rollback(step))?;
        tally.rollback_max = tally.rollback_max.max(took);
        let text = format!("{old} is active again, with all that was written since");
        progress.note("rollback", &text, took);
        self.hold("rolled back", progress);
        self.compare(&[old, new], load, tally, progress);

        load.phase("resume");
        let took = timed(|| store.resume(step))?;
        let text = format!("{new} is active, and the backfill goes on by itself");
        progress.note("resume", &text, took);
        let since = Instant::now();
        self.settle(SETTLE);
        load.phase("backfill");
        self.backfill(step, 1.0, since, tally, progress)?;
        self.compare(&[old, new], load, tally, progress);

        // Everybody has moved: who still wrote at the old view would be refused from here on.
        load.views(&[new]);
        load.phase("contract");
        progress.start("contract", 0);
        let took = timed(|| store.contract(step))?;
        let text = format!("every record is proved to be at {new}; {old} is given up");
        progress.note("contract", &text, took);
        let swept_from = Instant::now();
        self.settle(SETTLE_CONTRACT);
        load.phase("sweep");
        // A small table may be swept already; its phase has operations all the same.
        self.settle(SETTLE_CONTRACT);
        self.sweep(step, swept_from, progress)?;
        self.compare(&[new], load, tally, progress);
        Ok(())
    }

    fn compare(&self, views: &[View], load: &Load, tally: &mut Tally, progress: &mut Progress) {
        let (begun, wrong) = (Instant::now(), load.wrong());
        tally.verification.pass(&*self.store, &self.source, load, views, progress);
        let views: Vec<_> = views.iter().map(View::to_string).collect();
        let (views, wrong) = (views.join(" and at "), load.wrong() - wrong);
        let text = format!("every record at {views} compared with a model: {wrong} wrong");
        progress.note("verify", &text, begun.elapsed());
    }

    /// Waits until this share of the backfill is done, and adds what was done meanwhile to the tally.
    fn backfill(
        &self,
        step: Step,
        share: f64,
        since: Instant,
        tally: &mut Tally,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let before = self.store.progress(step)?;
        let begun = Instant::now();
        progress.start("backfill", before.total);
        let mut done = before.done;
        self.wait_until("backfill", STUCK_AFTER, || {
            let now = self.store.progress(step)?;
            progress.set(now.done, now.total);
            done = now.done;
            let enough = share < 1.0 && now.done > 0 && now.done as f64 >= share * now.total as f64;
            Ok((now.complete || enough, now.done))
        })?;
        progress.end();
        let so_far = if share < 1.0 { "so far" } else { "in all" };
        let text = format!("{} records {so_far} rewritten in the background", grouped(done));
        // A small table may be done while the traffic settles; nothing can be said about its rate then.
        if !before.complete {
            tally.backfilled += done.saturating_sub(before.done);
            tally.backfill_time += begun.elapsed();
        }
        progress.note("backfill", &text, since.elapsed());
        Ok(())
    }

    /// Waits until the old forms are gone. It takes its time, in proportion to the records, and is not counted.
    fn sweep(&self, step: Step, begun: Instant, progress: &mut Progress) -> Result<(), Failure> {
        progress.start("sweep", 0);
        let at_most = STUCK_AFTER + Duration::from_millis(self.source.records());
        self.wait_until("sweep", at_most, || self.store.swept(step).map(|done| (done, u64::from(done))))?;
        let took = begun.elapsed();
        progress.end();
        let text = format!("what was kept of {} is removed", step.from());
        progress.note("sweep", &text, took);
        std::thread::sleep(self.phase.saturating_sub(took));
        Ok(())
    }

    /// Asks `look` until it says that enough is done; an error if the count that it gives does not move.
    fn wait_until(
        &self,
        what: &str,
        stuck_after: Duration,
        mut look: impl FnMut() -> Result<(bool, u64), Failure>,
    ) -> Result<(), Failure> {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let (enough, count) = look()?;
            if enough {
                return Ok(());
            }
            if count != last {
                (last, moved) = (count, Instant::now());
            } else if moved.elapsed() > stuck_after {
                let seconds = stuck_after.as_secs();
                return Err(Failure::Store(format!("the {what} did not move for {seconds} s (at {count})")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Lets the traffic run for a moment.
    fn settle(&self, at_most: Duration) {
        std::thread::sleep(self.phase.min(at_most));
    }

    /// Lets the traffic run for the length of a phase.
    fn hold(&self, name: &str, progress: &mut Progress) {
        progress.start(name, 0);
        std::thread::sleep(self.phase);
        progress.end();
    }
}

fn timed(verb: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let begun = Instant::now();
    verb()?;
    Ok(begun.elapsed())
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Fault};

    fn demo(fault: Fault) -> (Arc<Fake>, Summary) {
        let fake = Arc::new(Fake::new(fault));
        let source = Source::new(data::embedded(500).expect("embedded"), Some(3000), 150, 1);
        let demo = Demo {
            store: fake.clone(),
            source: Arc::new(source),
            pace: Pace { rate: 4000, threads: 3 },
            phase: Duration::from_millis(100),
        };
        (fake, demo.run(&mut Progress::hidden()).expect("run"))
    }

    #[test]
    fn every_record_is_compared_and_every_phase_is_there() {
        let (fake, summary) = demo(Fault::None);
        assert!(summary.verified, "{summary}");
        assert_eq!(summary.compared, 3000 * 2 * (2 + 2 + 1), "two migrations, three comparisons each");
        assert!(summary.checked > 0 && summary.backfill_records_per_s > 0.0 && summary.rollback_us > 0.0);
        assert!((150.0..151.0).contains(&summary.record_bytes), "{}", summary.record_bytes);
        for phase in ["idle", "begin", "backfill", "rollback", "resume", "contract", "sweep"] {
            assert!(summary.phases.get(phase).is_some_and(|p| p.ops > 0), "{phase}");
        }
        let verbs = fake.verbs();
        let expected = ["begin", "backfill", "rollback", "resume", "contract"];
        let expected: Vec<_> = [Step::Numbers, Step::Names]
            .iter()
            .flat_map(|step| expected.iter().map(move |verb| format!("{verb} {}", step.name())))
            .collect();
        assert_eq!(verbs, expected);
    }

    #[test]
    fn a_wrong_store_is_not_verified() {
        for fault in [Fault::DropsUnseen, Fault::ForgetsRemovals, Fault::ShortScan] {
            let (_, summary) = demo(fault);
            assert!(!summary.verified && summary.wrong > 0, "{fault:?}");
        }
    }
}
