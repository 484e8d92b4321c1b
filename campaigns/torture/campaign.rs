//! Campaigns of many short cases.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Instant;

use exuvia::engine::EngineKind;

use crate::args::Args;
use crate::faults;
use crate::model::{self, process};
use crate::state::{Failure, State, Totals};
use crate::{engines, temporary};

pub const COMMAND: &str = "cargo run --release -p exuvia-campaigns --bin torture --";

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a case; a panic is what was wrong with it.
fn judged<R>(case: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| PANIC.with(|panic| *panic.borrow_mut() = info.to_string())));
    });
    catch_unwind(AssertUnwindSafe(case)).map_err(|_| PANIC.with(|panic| panic.borrow().clone()))
}

/// A directory for a case, empty.
fn place(state: &State, name: &str) -> Result<PathBuf, String> {
    let directory = state.path().with_file_name("stores").join(name);
    let why = |e: std::io::Error| format!("{}: {e}", directory.display());
    if directory.exists() {
        std::fs::remove_dir_all(&directory).map_err(why)?;
    }
    std::fs::create_dir_all(directory.parent().unwrap_or(Path::new("."))).map_err(why)?;
    Ok(directory)
}

/// Says what failed, and notes it.
fn failed(totals: &mut Totals, case: u64, what: String, again: String, kept: Option<PathBuf>) {
    println!("FAILED case {case}: {what}\n  again: {again}");
    if let Some(kept) = &kept {
        println!("  kept: {}", kept.display());
    }
    totals.failed += 1;
    totals.failures.push(Failure { case, what, again, kept });
}

fn add(totals: &mut Totals, name: &str, count: usize) {
    if count > 0 {
        *totals.counts.entry(name.to_owned()).or_default() += count as u64;
    }
}

/// How this binary runs a child.
fn this_binary() -> Command {
    // Named by its path, so that it is found after the file was replaced, too.
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    Command::new(own)
}

/// kill -9.
pub fn kill(state: &State, mut args: Args) -> Result<bool, String> {
    let kinds = engines(&mut args)?;
    let (seed, kills) = (args.get("seed", 1)?, args.get("kills", 1000)?);
    let case: Option<u64> = args.maybe("case")?;
    args.end()?;
    let mut passed = true;
    for kind in kinds {
        passed &= match case {
            Some(case) => kill_again(state, kind, case)?,
            None => kill_on(state, kind, seed, kills)?,
        };
    }
    Ok(passed)
}

fn kill_again(state: &State, kind: EngineKind, case: u64) -> Result<bool, String> {
    let directory = place(state, &format!("again-{}-{case}", kind.name()))?;
    println!(
        "case {case} on {}: aims at {}",
        kind.name(),
        process::aim(case).unwrap_or("a random time".into())
    );
    let result = judged(|| process::kill_once(case, &directory, kind, this_binary));
    match &result {
        Ok(killed) => println!("passed: {killed:?}"),
        Err(what) => println!("FAILED: {what}\nkept: {}", directory.display()),
    }
    if result.is_ok() {
        // Only disk space is lost if this fails.
        let _ = std::fs::remove_dir_all(&directory);
    }
    Ok(result.is_ok())
}

/// Runs until the campaign has made so many kills, earlier runs included.
fn kill_on(state: &State, kind: EngineKind, seed: u64, kills: u64) -> Result<bool, String> {
    let campaign = format!("kill {} seed {seed}", kind.name());
    let mut number = state.totals(&campaign)?.next;
    println!("{campaign}: cases {number} to {kills}, state in {}", state.path().display());
    while number < kills {
        let case = process::case_seed(seed, number);
        let directory = place(state, &format!("kill-{}-{case}", kind.name()))?;
        let started = Instant::now();
        let result = judged(|| process::kill_once(case, &directory, kind, this_binary));
        number += 1;
        state.add(&campaign, |totals| {
            totals.next = number;
            totals.seconds += started.elapsed().as_secs_f64();
            match result {
                Ok(killed) => {
                    totals.passed += 1;
                    add(totals, "kills while recovering", killed.recoveries);
                    add(totals, "operations acknowledged", killed.acknowledged);
                    add(
                        totals,
                        "kills that lost acknowledged, not yet durable writes",
                        usize::from(killed.lost > 0),
                    );
                    add(totals, "acknowledged, not yet durable writes lost", killed.lost);
                    let missed =
                        process::aim(case).map(|point| format!("killed at the end, not at: {point}"));
                    let point = killed.point.map(|point| format!("at: {point}")).or(missed);
                    add(totals, point.as_deref().unwrap_or("at a random time"), 1);
                    // Only disk space is lost if this fails.
                    let _ = std::fs::remove_dir_all(&directory);
                }
                Err(what) => {
                    let again = format!("{COMMAND} kill --engine {} --case {case}", kind.name());
                    failed(totals, case, what, again, Some(directory));
                }
            }
        })?;
        if number.is_multiple_of(100) {
            println!("{number} kills");
        }
    }
    let totals = state.totals(&campaign)?;
    totals.print(&campaign);
    let names = process::names(kind);
    let unmet: Vec<_> =
        names.iter().filter(|name| !totals.counts.contains_key(&format!("at: {name}"))).collect();
    println!("named points: {} of {} met", names.len() - unmet.len(), names.len());
    unmet.iter().for_each(|name| println!("  not met yet: {name}"));
    Ok(totals.failed == 0)
}

/// Faults by enumeration, each scenario with each fault of each call, until all have passed or so many runs were made.
pub fn faults(state: &State, mut args: Args) -> Result<bool, String> {
    let engine = args.text("engine").unwrap_or_else(|| "memory".to_owned());
    let mut runs: u64 = args.get("runs", u64::MAX)?;
    let only: Option<String> = args.text("scenario");
    let (fault, call) = (args.maybe::<usize>("fault")?, args.maybe::<u64>("call")?);
    args.end()?;
    let kind = match engine.as_str() {
        "memory" => None,
        name => Some(EngineKind::from_name(name).ok_or_else(|| format!("there is no engine {name:?}"))?),
    };
    let campaign = format!("faults {engine}");
    for (scenario, steps) in
        faults::SCENARIOS.into_iter().filter(|s| only.as_deref().is_none_or(|o| o == s.0))
    {
        let directory = place(state, &format!("faults-{engine}-{scenario}"))?;
        let on = kind.map(|kind| (kind, directory.clone()));
        let run = judged(|| faults::Campaign::of(steps(), on))
            .map_err(|e| format!("{scenario}, untouched: {e}"))?;
        if let (Some(number), Some(call)) = (fault, call) {
            let fault = *faults::FAULTS.get(number).ok_or("there is no such fault")?;
            let result = judged(|| run.run(fault, call));
            println!("{scenario}, {fault:?} of call {call}: {result:?}");
            return Ok(result.is_ok());
        }
        for (number, fault) in faults::FAULTS.into_iter().enumerate() {
            let (calls, done) =
                (format!("{scenario}, {fault:?}: calls"), format!("{scenario}, {fault:?}: all"));
            loop {
                let totals = state.totals(&campaign)?;
                let call = totals.counts.get(&calls).copied().unwrap_or(0) + 1;
                if totals.counts.contains_key(&done) {
                    break;
                }
                if runs == 0 {
                    totals.print(&campaign);
                    return Ok(totals.failed == 0);
                }
                runs -= 1;
                let started = Instant::now();
                let result = judged(|| run.run(fault, call));
                state.add(&campaign, |totals| {
                    totals.next += 1;
                    totals.seconds += started.elapsed().as_secs_f64();
                    match result {
                        // The scenario has fewer calls, and has passed untouched.
                        Ok(false) => add(totals, &done, 1),
                        Ok(true) => {
                            totals.passed += 1;
                            add(totals, &calls, 1);
                        }
                        Err(what) => {
                            add(totals, &calls, 1);
                            let again = format!(
                                "{COMMAND} faults --engine {engine} --scenario {scenario} --fault {number} --call {call}"
                            );
                            failed(totals, call, what, again, None);
                        }
                    }
                })?;
                if call > faults::CALLS_MAX {
                    return Err(format!("{scenario} with {fault:?} does not end"));
                }
            }
        }
        // Only disk space is lost if this fails.
        let _ = std::fs::remove_dir_all(&directory);
    }
    let totals = state.totals(&campaign)?;
    totals.print(&campaign);
    Ok(totals.failed == 0)
}

/// Random operations against the model.
pub fn model(state: &State, mut args: Args) -> Result<bool, String> {
    let engine = args.text("engine").unwrap_or_else(|| "memory".to_owned());
    let (seed, cases): (u64, u64) = (args.get("seed", 1)?, args.get("cases", 1000)?);
    let one: Option<u64> = args.maybe("case")?;
    args.end()?;
    // A seed stands for so many cases, which share a generator.
    const AT_ONCE: u64 = 20;
    let campaign = format!("model {engine} seed {seed}");
    let mut number = if one.is_some() { 0 } else { state.totals(&campaign)?.next };
    while one.is_some() || number * AT_ONCE < cases {
        let case = one.unwrap_or_else(|| process::case_seed(seed, number));
        let started = Instant::now();
        let failure = model::campaign(&engine, case, AT_ONCE as u32)?;
        if one.is_some() {
            println!("{}", failure.as_deref().unwrap_or("passed"));
            return Ok(failure.is_none());
        }
        number += 1;
        state.add(&campaign, |totals| {
            totals.next = number;
            totals.seconds += started.elapsed().as_secs_f64();
            match failure {
                None => totals.passed += AT_ONCE,
                Some(what) => {
                    let again = format!("{COMMAND} model --engine {engine} --case {case}");
                    failed(totals, case, what, again, None);
                }
            }
        })?;
    }
    let totals = state.totals(&campaign)?;
    totals.print(&campaign);
    Ok(totals.failed == 0)
}

/// What a program said.
struct Told {
    out: Vec<String>,
    err: Vec<String>,
    passed: bool,
}

/// Runs a program to its end, and passes on what it says as it comes.
fn told(mut command: Command) -> Result<Told, String> {
    let why = |e: std::io::Error| format!("cargo: {e}");
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(why)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = std::thread::scope(|scope| {
        let err = scope.spawn(|| lines(err, |line| eprintln!("{line}")));
        (lines(out, |line| println!("{line}")), err.join().unwrap_or_default())
    });
    Ok(Told { out, err, passed: child.wait().map_err(why)?.success() })
}

fn lines(from: Option<impl Read>, show: impl Fn(&str)) -> Vec<String> {
    let all = from.into_iter().flat_map(|from| BufReader::new(from).lines().map_while(Result::ok));
    all.inspect(|line| show(line)).collect()
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The last number that stands right before this word.
fn number_before(lines: &[String], what: &str) -> Option<u64> {
    lines.iter().rev().find_map(|line| {
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        words.windows(2).find(|pair| pair[1] == what)?[0].parse().ok()
    })
}

/// The campaign of ../powerloss, which needs privileges of its own, by its command: each run goes on
/// with the next seed.
pub fn powerloss(state: &State, mut args: Args) -> Result<bool, String> {
    let (seed, images): (u64, u64) = (args.get("seed", 1)?, args.get("images", 500)?);
    let rig = args.text("rig").unwrap_or_else(|| "exuvia-store".to_owned());
    let rest = args.rest();
    let campaign = format!("powerloss {rig} {} seed {seed}", rest.join(" "));
    let case = state.totals(&campaign)?.next;
    let own = ["run", "--release", "-p", "exuvia-campaigns", "--bin", "powerloss", "--"];
    let seed = (seed + case).to_string();
    let mut words =
        vec!["--images".to_owned(), images.to_string(), "--seed".to_owned(), seed, "--rig".to_owned(), rig];
    words.extend(rest);
    let started = Instant::now();
    let mut command = cargo();
    command.args(own).args(&words);
    let said = told(command)?.out;
    let (Some(passed), Some(failures)) = (number_before(&said, "passed"), number_before(&said, "failed"))
    else {
        return Err("the campaign did not come to its end".to_owned());
    };
    state.add(&campaign, |totals| {
        totals.next = case + 1;
        totals.seconds += started.elapsed().as_secs_f64();
        totals.passed += passed;
        if failures > 0 {
            let again = format!("cargo {} {}", own.join(" "), words.join(" "));
            failed(totals, case, format!("{failures} images"), again, None);
        }
    })?;
    Ok(failures == 0)
}

/// The chosen interleavings of schedules/, which is a package and a build of its own, by its command.
pub fn schedules(state: &State, mut args: Args) -> Result<bool, String> {
    let (seed, schedules): (u64, u64) = (args.get("seed", 1)?, args.get("schedules", 20_000)?);
    let rest = args.rest();
    /// After so many the totals are written.
    const AT_ONCE: u64 = 1000;
    let campaign = format!("schedules {} seed {seed}", rest.join(" "));
    let run = ["run", "--release", "--manifest-path", "schedules/Cargo.toml", "--"];
    let mut number = state.totals(&campaign)?.next;
    while number < schedules {
        let count = AT_ONCE.min(schedules - number);
        let mut command = cargo();
        // Apart from this build, whose flags are others.
        command.env("CARGO_TARGET_DIR", temporary().join("schedules"));
        command.env("RUSTFLAGS", "--cfg exuvia_shuttle").args(run).args(&rest).arg("--keep-going");
        command.args(["--schedules", &count.to_string(), "--seed", &(seed + number).to_string()]);
        let started = Instant::now();
        let Told { out, err, .. } = told(command)?;
        let (Some(all), Some(failures)) = (number_before(&out, "schedules"), number_before(&out, "failed"))
        else {
            return Err("the schedules did not come to their end".to_owned());
        };
        let first = number;
        number += all;
        state.add(&campaign, |totals| {
            totals.next = number;
            totals.seconds += started.elapsed().as_secs_f64();
            totals.passed += all - failures;
            for replay in err.iter().filter_map(|line| line.strip_prefix("schedule failed: ")) {
                let again = format!("RUSTFLAGS=\"--cfg exuvia_shuttle\" cargo {} {replay}", run.join(" "));
                failed(totals, first, replay.to_owned(), again, None);
            }
        })?;
    }
    let totals = state.totals(&campaign)?;
    totals.print(&campaign);
    Ok(totals.failed == 0)
}

/// The long form of tests/it/campaigns/corruption.rs, by its command: each run is the whole of it.
pub fn corruption(state: &State, mut args: Args) -> Result<bool, String> {
    let kinds = engines(&mut args)?;
    args.end()?;
    let mut passed = true;
    for kind in kinds.into_iter().map(EngineKind::name) {
        let campaign = format!("corruption {kind}");
        let case = state.totals(&campaign)?.next;
        let test = format!("campaigns::corruption::no_damage_to_a_file_of_{kind}_is_taken_for_data");
        let own = ["test", "--release", "--workspace", "--test", "it", "--", "--nocapture", "--exact"];
        let mut command = cargo();
        command.env("EXUVIA_CORRUPTION", "all").args(own).arg(&test);
        let started = Instant::now();
        let told = told(command)?;
        let images = number_before(&told.out, "images").ok_or("the campaign did not come to its end")?;
        passed &= told.passed;
        state.add(&campaign, |totals| {
            totals.next = case + 1;
            totals.seconds += started.elapsed().as_secs_f64();
            // A line for each file: "… bytes: whole 1, refused 108, named 0, silent 0".
            for (_, of_a_file) in told.out.iter().filter_map(|line| line.split_once(" bytes: ")) {
                for (what, count) in of_a_file.split(", ").filter_map(|pair| pair.split_once(' ')) {
                    add(totals, what, count.parse().unwrap_or(0));
                }
            }
            if told.passed {
                totals.passed += images;
            } else {
                let again = format!("EXUVIA_CORRUPTION=all cargo {} {test}", own.join(" "));
                failed(totals, case, format!("some of {images} images; they are named above"), again, None);
            }
        })?;
        state.totals(&campaign)?.print(&campaign);
    }
    Ok(passed)
}
