//! The campaign: schedules by theme and by way of choosing, each from a seed of its own.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use exuvia::engine::MemoryEngine;
use exuvia::{Durability, Store};

use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::linear::program::{Program, Rng, Theme};
use crate::linear::run::{Host, run};
use crate::scheduler::{Chosen, Way};

const USAGE: &str = "\
usage: exuvia-schedules [--schedules N] [--seed S] [--theme NAME] [--way NAME] [--keep-going]
       exuvia-schedules --replay THEME WAY SEED

Runs N schedules (600) with the seeds S, S+1, … (1), themes and ways in turn. One that fails is printed with the arguments
that replay it.";

struct Args {
    schedules: u64,
    seed: u64,
    theme: Option<Theme>,
    way: Option<Way>,
    keep_going: bool,
    replay: bool,
}

fn parse(args: &[String]) -> Result<Args, String> {
    let mut parsed =
        Args { schedules: 600, seed: 1, theme: None, way: None, keep_going: false, replay: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        let number = |text: &String| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
        match arg.as_str() {
            "--schedules" => parsed.schedules = number(value()?)?,
            "--seed" => parsed.seed = number(value()?)?,
            "--theme" => parsed.theme = Some(theme(value()?)?),
            "--way" => parsed.way = Some(way(value()?)?),
            "--keep-going" => parsed.keep_going = true,
            "--replay" => {
                (parsed.theme, parsed.way) = (Some(theme(value()?)?), Some(way(value()?)?));
                (parsed.seed, parsed.schedules, parsed.replay) = (number(value()?)?, 1, true);
            }
            other => return Err(format!("what is {other}?")),
        }
    }
    Ok(parsed)
}

fn theme(name: &str) -> Result<Theme, String> {
    Theme::ALL
        .into_iter()
        .find(|theme| theme.name() == name)
        .ok_or_else(|| format!("no theme is called {name}"))
}

fn way(name: &str) -> Result<Way, String> {
    Way::ALL.into_iter().find(|way| way.name() == name).ok_or_else(|| format!("no way is called {name}"))
}

pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args = match parse(&args) {
        Ok(args) => args,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let begun = Instant::now();
    let mut done: BTreeMap<&str, u64> = BTreeMap::new();
    let mut failed = 0;
    for number in 0..args.schedules {
        let seed = args.seed + number;
        // Neither of the two counts divides the other, so each theme meets each way.
        let theme = args.theme.unwrap_or(Theme::ALL[seed as usize % Theme::ALL.len()]);
        let way = args.way.unwrap_or(Way::ALL[seed as usize % Way::ALL.len()]);
        *done.entry(theme.name()).or_default() += 1;
        if let Err(what) = schedule(theme, way, seed) {
            failed += 1;
            eprintln!("schedule failed: --replay {} {} {seed}\n{what}\n", theme.name(), way.name());
            if !args.keep_going {
                break;
            }
        }
        if args.replay {
            println!("{} {} {seed} was replayed", theme.name(), way.name());
        }
    }
    let total: u64 = done.values().sum();
    println!(
        "{total} schedules, seeds {} to {}, {failed} failed, {:.1} s: {done:?}",
        args.seed,
        args.seed + total.max(1) - 1,
        begun.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The engine in memory, and threads of which one runs at a time.
struct InMemory(MemoryEngine, Theme);

impl InMemory {
    fn new(theme: Theme) -> Self {
        let engine = if theme == Theme::Crash { MemoryEngine::recording() } else { MemoryEngine::new() };
        Self(engine, theme)
    }
}

impl Host for InMemory {
    fn open(&self, durability: Durability) -> exuvia::Result<Store> {
        Store::options().durability(durability).open_in(Arc::new(self.0.clone()))
    }

    fn recording(&self) -> Option<&MemoryEngine> {
        (self.1 == Theme::Crash).then_some(&self.0)
    }

    fn run(&self, threads: Vec<Box<dyn FnOnce() + Send>>) {
        let threads: Vec<_> = threads.into_iter().map(shuttle::thread::spawn).collect();
        for thread in threads {
            thread.join().expect("a panic ends the schedule");
        }
    }

    fn give_turn() {
        shuttle::thread::yield_now();
    }
}

/// One schedule.
fn schedule(theme: Theme, way: Way, seed: u64) -> Result<(), String> {
    let mut config = Config::new();
    config.stack_size = 1 << 19;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(400_000);
    config.silence_warnings = true;
    let mut rng = Rng::new(seed);
    let program = Program::draw(theme, &mut rng);
    let verdict = Arc::new(Mutex::new(None));
    let (to, in_it) = (Arc::clone(&verdict), program.clone());
    let rng = Mutex::new(rng);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(Chosen::new(way, seed), config).run(move || {
            let mut rng = rng.lock().expect("one run").clone();
            let host = InMemory::new(in_it.theme);
            *to.lock().expect("one run") = Some(run(&in_it, &mut rng, &host));
        })
    }));
    let verdict = verdict.lock().map_err(|_| "panicked".to_owned())?.take();
    let what = match (ran, verdict) {
        (Ok(_), Some(Ok(()))) => return Ok(()),
        (_, Some(Err(what))) => what,
        (Ok(_), _) => "it did not come to its end".to_owned(),
        (Err(panic), _) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
            format!("panic: {}", said.unwrap_or_default())
        }
    };
    Err(format!("{what}\nthe program: {program:?}"))
}
