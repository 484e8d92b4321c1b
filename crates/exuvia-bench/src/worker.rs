//! One thread of the load.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::keys::Chooser;
use super::latency::{ByOperation, Collector};
use super::load::{CATCH_UP_MAX, Measured, Shared};
use super::mix::Operation;
use super::model::Expected;
use super::random::Random;
use super::schedule::Schedule;
use super::stall::Slow;
use super::subject::{Refusal, Subject};

/// How long a thread waits before it tries again what a closed subject refused.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// The most slow calls that a thread keeps.
const SLOW_MAX: usize = 200_000;

/// An operation, made ready before it is due.
struct Task<R> {
    operation: Operation,
    key: u64,
    /// What is to be written, at which version, as which revision.
    write: Option<(R, u32, u32)>,
    /// How many records a scan asks for.
    limit: usize,
    /// What the records that are read were expected to be before the read, from `key` on.
    before: Vec<Expected>,
}

/// What an operation read.
enum Answer<R> {
    Nothing,
    Record(Option<R>, u32),
    Records(Vec<(u64, R)>, u32),
}

/// A thread and its keys.
pub(crate) struct Worker<S: Subject> {
    shared: Arc<Shared<S>>,
    thread: u64,
    threads: u64,
    random: Random,
    chooser: Chooser,
    schedule: Schedule,
    /// The next key that this thread inserts.
    insert: u64,
    measured: Measured,
    series: Collector,
}

impl<S: Subject> Worker<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>, thread: u64, start: Duration) -> Self {
        let settings = &shared.settings;
        let (records, threads, seed) = (settings.records, settings.threads, settings.seed);
        let first_free = records + (thread + threads - records % threads) % threads;
        Self {
            thread,
            threads,
            random: Random::new(seed, u64::MAX, thread),
            chooser: Chooser::new(settings.mix.keys, records),
            schedule: Schedule::new(settings.pace, start, thread, threads, seed),
            insert: first_free,
            measured: Measured::default(),
            series: Collector::new(),
            shared,
        }
    }

    /// Works until the load ends.
    pub(crate) fn run(mut self) -> Measured {
        wake_in_time();
        let clock = Arc::clone(&self.shared.clock);
        let mut free_since = clock.now();
        loop {
            let task = self.prepare();
            let due = self.schedule.next_due();
            if let Some(due) = due {
                clock.sleep_until(due);
            }
            let mut start = clock.now();
            let due = due.unwrap_or(start);
            if let Some(ends) = self.shared.ends() {
                if due >= ends {
                    break;
                }
                if start > ends + CATCH_UP_MAX {
                    self.undone(due, start);
                    continue;
                }
            }
            let retries = self.attempt(task, &mut start, due);
            let end = clock.now();
            if retries == 0 {
                self.measured.lateness.record(start.saturating_sub(due.max(free_since)));
            }
            free_since = end;
        }
        self.measured.series = self.series.finish();
        self.measured
    }

    fn undone(&mut self, due: Duration, now: Duration) {
        self.shared.counts.undone.fetch_add(1, Ordering::Relaxed);
        self.note(Operation::Read, due, now);
    }

    fn note(&mut self, operation: Operation, due: Duration, end: Duration) -> usize {
        let (phase, latency) = (self.shared.phase(due, end), end.saturating_sub(due));
        if self.measured.phases.len() <= phase {
            self.measured.phases.resize_with(phase + 1, ByOperation::new);
        }
        if let Some(by_operation) = self.measured.phases.get_mut(phase) {
            by_operation.entry(operation).or_default().record(latency);
        }
        self.series.record(due, latency);
        phase
    }

    /// Makes the operation, again and again while the subject is closed, notes it and checks the answer. Answers how often it was
    /// tried again.
    fn attempt(&mut self, mut task: Task<S::Record>, start: &mut Duration, due: Duration) -> u64 {
        let shared = Arc::clone(&self.shared);
        let clock = &shared.clock;
        let first = *start;
        let before_write = task.write.is_some() || task.operation == Operation::Remove;
        if task.operation == Operation::Modify {
            task.before.push(shared.model.expected(task.key));
        }
        let before_write = before_write.then(|| shared.model.begin(task.key));
        let mut retries = 0;
        let (answer, end) = loop {
            let answer = self.execute(&mut task);
            let end = clock.now();
            if !matches!(answer, Err(Refusal::Closed(_))) {
                break (answer, end);
            }
            shared.counts.closed.fetch_add(1, Ordering::Relaxed);
            if shared.ends().is_some_and(|ends| end > ends + CATCH_UP_MAX) {
                break (answer, end);
            }
            retries += 1;
            clock.sleep_until(end + RETRY_AFTER);
        };
        let phase = self.note(task.operation, due, end);
        if end.saturating_sub(first) >= shared.settings.stall_from && self.measured.slow.len() < SLOW_MAX {
            self.measured.slow.push(Slow { began: first, ended: end, operation: task.operation, phase });
        }
        match answer {
            Ok(answer) => self.settle(&task, answer),
            Err(Refusal::Closed(_)) => {
                if let Some(before) = before_write {
                    shared.model.restore(task.key, before);
                }
                shared.counts.undone.fetch_add(1, Ordering::Relaxed);
            }
            Err(Refusal::Failed(reason)) => {
                shared.differs(format!("{} of key {} failed: {reason}", task.operation, task.key));
            }
        }
        retries
    }

    fn prepare(&mut self) -> Task<S::Record> {
        let shared = Arc::clone(&self.shared);
        let model = &shared.model;
        let mut operation = shared.settings.mix.draw(&mut self.random);
        if operation == Operation::Insert && self.insert >= model.room() {
            operation = Operation::Update;
        }
        let count = model.end();
        let drawn = self.chooser.draw(&mut self.random, count);
        // The nearest key below that is this thread's own.
        let own = drawn - drawn % self.threads + self.thread;
        let own = if own < count { own } else { self.thread };
        let (key, writes) = match operation {
            Operation::Read | Operation::Scan => (drawn, false),
            Operation::Remove => (own, false),
            Operation::Update | Operation::Modify => (own, true),
            Operation::Insert => {
                self.insert += self.threads;
                (self.insert - self.threads, true)
            }
        };
        let limit = match operation {
            Operation::Scan => 1 + self.random.below(shared.settings.mix.scan_records_max),
            _ => 1,
        };
        let write = writes.then(|| {
            let (revision, version) = (model.next_revision(key), shared.version());
            (shared.subject.record(key, revision, version), version, revision)
        });
        Task { operation, key, write, limit: limit as usize, before: Vec::new() }
    }

    fn execute(&self, task: &mut Task<S::Record>) -> Result<Answer<S::Record>, Refusal> {
        let (shared, key) = (&self.shared, task.key);
        let (subject, version) = (&*shared.subject, shared.version());
        if let Some((record, made_for, revision)) = &mut task.write
            && *made_for != version
        {
            (*record, *made_for) = (subject.record(key, *revision, version), version);
        }
        let expected = |keys: std::ops::Range<u64>| keys.map(|key| shared.model.expected(key)).collect();
        match (task.operation, &task.write) {
            (Operation::Scan, _) => {
                task.before = expected(key..key + 2 * task.limit as u64);
                Ok(Answer::Records(subject.scan(key, task.limit, version)?, version))
            }
            (Operation::Remove, _) => subject.remove(key, version).map(|()| Answer::Nothing),
            (Operation::Modify, Some((record, ..))) => {
                let found = subject.get(key, version)?;
                subject.put(key, record, version)?;
                Ok(Answer::Record(found, version))
            }
            (_, Some((record, ..))) => subject.put(key, record, version).map(|()| Answer::Nothing),
            (_, None) => {
                task.before = expected(key..key + 1);
                Ok(Answer::Record(subject.get(key, version)?, version))
            }
        }
    }

    /// Notes what was written, and checks what was read.
    fn settle(&self, task: &Task<S::Record>, answer: Answer<S::Record>) {
        let model = &self.shared.model;
        match answer {
            Answer::Record(found, version) => {
                let before = task.before.first().copied().unwrap_or(Expected::Unknown);
                // What this thread is writing itself cannot have changed meanwhile.
                if task.write.is_some() || before == model.expected(task.key) {
                    self.check(task.key, before, found.as_ref(), version);
                }
            }
            Answer::Records(found, version) => self.check_scan(task, &found, version),
            Answer::Nothing if task.operation == Operation::Remove => model.removed(task.key),
            Answer::Nothing => {}
        }
        if let Some((_, _, revision)) = task.write {
            model.written(task.key, revision);
        }
    }

    fn check(&self, key: u64, expected: Expected, found: Option<&S::Record>, version: u32) {
        let revision = match expected {
            Expected::Unknown => return,
            Expected::Present(revision) => Some(revision),
            Expected::Absent => None,
        };
        self.shared.counts.checked.fetch_add(1, Ordering::Relaxed);
        let right = revision.map(|revision| self.shared.subject.record(key, revision, version));
        if right.as_ref() != found {
            let revision = revision.map_or_else(|| "nothing".to_owned(), |r| format!("revision {r}"));
            self.shared
                .differs(format!("key {key} at version {version} is {found:?}, and has to be {revision}"));
        }
    }

    /// Keys have to rise, and every record that was not written meanwhile has to be there and right.
    fn check_scan(&self, task: &Task<S::Record>, found: &[(u64, S::Record)], version: u32) {
        let end = match found.last() {
            Some((last, _)) if found.len() >= task.limit => *last + 1,
            _ => u64::MAX,
        };
        let mut found = found.iter().peekable();
        for (key, before) in (task.key..).zip(&task.before).take_while(|(key, _)| *key < end) {
            let here = found.next_if(|(at, _)| *at == key).map(|(_, record)| record);
            if *before == self.shared.model.expected(key) {
                self.check(key, *before, here, version);
            }
        }
        let rest: Vec<u64> = found.map(|(key, _)| *key).collect();
        let after = task.key + task.before.len() as u64;
        if rest.iter().any(|key| *key < after) || !rest.is_sorted() {
            let from = task.key;
            self.shared
                .differs(format!("a scan from {from} at version {version} ended out of order with {rest:?}"));
        }
    }
}

/// Lets the system wake this thread within microseconds of the time that it asked for. Linux otherwise puts
/// wake-ups together and is up to 50 µs late.
fn wake_in_time() {
    #[cfg(target_os = "linux")]
    if rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000)).is_err() {
        // Then the lateness that is reported is higher.
    }
}
