//! The long campaigns, behind one command. Each goes on where it was: a case has a number, and its seed comes from the
//! campaign's and that number. The totals are in a state file (`--state FILE`; by default in the target directory), which
//! is written after each case, so a campaign may be stopped at any time. `report` prints them.
//!
//! `cargo run --release -p exuvia-campaigns --bin torture -- soak --engine sled --minutes 60`
//!
//! A failure prints its case's seed and the command that makes it again, keeps its directory and is noted in the state.

mod args;
mod campaign;
#[path = "../../tests/it/campaigns/faults/mod.rs"]
#[allow(dead_code, reason = "what only the integration tests use")]
mod faults;
#[path = "../../tests/it/kit/mod.rs"]
#[allow(dead_code, reason = "what only the integration tests use")]
mod kit;
/// The model test of the integration tests, whose short forms are tests there.
#[path = "../../tests/it/campaigns/model/mod.rs"]
#[allow(dead_code, unused_imports, reason = "what only the integration tests use")]
mod model;
#[path = "../powerloss/campaign/rng.rs"]
mod rng;
mod soak;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use exuvia::engine::EngineKind;

use self::args::Args;
use self::state::{Failure, State};

const USAGE: &str = "torture CAMPAIGN [--state FILE] [--seed N] [--engine sled|fjall] …

  kill       [--kills 1000] [--case SEED]: kill -9 at named points and random times
  faults     [--engine memory|sled|fjall] [--runs N] [--scenario NAME --fault NUMBER --call N]: every engine call of whole
             scenarios fails, one at a time
  model      [--engine memory|sled|fjall] [--cases 1000] [--case SEED]: random operations against the model, in memory with losses of power too
  powerloss  [--images 500] [--rig RIG] …: the campaign of ../powerloss; its options are passed on
  schedules  [--schedules 20000] [--theme NAME] [--way NAME]: the chosen interleavings of schedules/, which it builds by itself
  corruption [--engine sled|fjall]: every byte and length of every file of a small store damaged, one at a time (TMPDIR: in memory)
  soak       --engine sled|fjall [--minutes 60] [--every 5 (seconds)] [--keys 6000] [--rate 1000 (a second)]
             [--pause-ms 20] [--cache-mib 32] [--samples FILE] [--directory DIR]
  report     the totals of all campaigns so far

Without --engine a campaign runs on both, one after the other. --case makes one case again, and counts nothing.";

fn main() -> ExitCode {
    if let Ok(task) = std::env::var(model::process::CHILD) {
        model::process::child(&task);
    }
    let mut words = std::env::args().skip(1);
    let Some(campaign) = words.next() else {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    let result = Args::parse(words).and_then(|args| run(&campaign, args));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run(campaign: &str, mut args: Args) -> Result<bool, String> {
    let default = temporary().join("torture/state.json");
    let state = State::at(args.text("state").map_or(default, PathBuf::from));
    match campaign {
        "report" => {
            args.end()?;
            state.report().map(|()| true)
        }
        "faults" => campaign::faults(&state, args),
        "kill" => campaign::kill(&state, args),
        "model" => campaign::model(&state, args),
        "schedules" => campaign::schedules(&state, args),
        "corruption" => campaign::corruption(&state, args),
        "powerloss" => campaign::powerloss(&state, args),
        "soak" => soak(&state, args),
        other => Err(format!("there is no campaign {other:?}")),
    }
}

/// Where cargo keeps what tests leave: `tmp` beside the directory of this binary.
fn temporary() -> PathBuf {
    let own = std::env::current_exe().ok();
    own.and_then(|own| Some(own.parent()?.parent()?.join("tmp"))).unwrap_or_else(std::env::temp_dir)
}

fn engines(args: &mut Args) -> Result<Vec<EngineKind>, String> {
    match args.text("engine") {
        None => Ok(vec![EngineKind::Sled, EngineKind::Fjall]),
        Some(name) => EngineKind::from_name(&name)
            .map(|kind| vec![kind])
            .ok_or_else(|| format!("there is no engine {name:?}")),
    }
}

fn soak(state: &State, mut args: Args) -> Result<bool, String> {
    let kinds = engines(&mut args)?;
    let seed: u64 = args.get("seed", 1)?;
    let minutes: f64 = args.get("minutes", 60.0)?;
    let every: f64 = args.get("every", 5.0)?;
    let (keys, rate, pause_ms) =
        (args.get("keys", 6000)?, args.get("rate", 1000)?, args.get("pause-ms", 20)?);
    let cache_mib: u64 = args.get("cache-mib", 32)?;
    let samples = args.text("samples").map(PathBuf::from);
    let directory = args.text("directory").map(PathBuf::from);
    args.end()?;
    let mut passed = true;
    for kind in kinds {
        let campaign = format!("soak {} seed {seed}", kind.name());
        let case = state.totals(&campaign)?.next;
        let root = directory.clone().unwrap_or_else(|| state.path().with_file_name("stores"));
        let directory = root.join(format!("soak-{}-{seed}-{case}", kind.name()));
        std::fs::create_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        let samples = samples.clone().unwrap_or_else(|| soak::samples_beside(state.path(), kind));
        println!("{campaign}, case {case}: {minutes} minutes, samples in {}", samples.display());
        let started = Instant::now();
        let soak = soak::Soak {
            kind,
            seed: rng::Rng::new(seed).fork(case).next(),
            time: Duration::from_secs_f64(minutes * 60.0),
            every: Duration::from_secs_f64(every),
            keys,
            rate,
            pause: Duration::from_millis(pause_ms),
            cache: cache_mib << 20,
            directory: directory.clone(),
            samples,
        };
        let result = soak.run();
        passed &= result.is_ok();
        let again = format!(
            "{} soak --engine {} --seed {seed} \
             --minutes {minutes} --keys {keys} --rate {rate} \
             --pause-ms {pause_ms} --cache-mib {cache_mib} --state /tmp/again.json",
            campaign::COMMAND,
            kind.name()
        );
        state.add(&campaign, |totals| {
            totals.next = case + 1;
            totals.seconds += started.elapsed().as_secs_f64();
            match result {
                Ok(counts) => {
                    totals.passed += 1;
                    for (name, count) in counts {
                        println!("{count:>12}  {name}");
                        *totals.counts.entry(name).or_default() += count;
                    }
                    // Only disk space is lost if this fails.
                    let _ = std::fs::remove_dir_all(&directory);
                }
                Err(what) => {
                    println!("FAILED: {what}\nagain: {again}\nkept: {}", directory.display());
                    totals.failed += 1;
                    totals.failures.push(Failure { case, what, again, kept: Some(directory) });
                }
            }
        })?;
    }
    Ok(passed)
}
