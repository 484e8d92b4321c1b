//! The model test: random operations, with reopens and crashes, on every engine, against a model that shares no
//! code with the crate.
//!
//! * `reference`: the model. What every view must answer is computed by rules of its own, from a `BTreeMap` for
//!   each generation; which calls must be refused, and with what, too.
//! * `records`: two lineages. `a` has a failing upcast, fields that only newer versions hold, a merge by hand, a
//!   step of the same bytes and a default merge; `b` a dropped field, default merge, then one by hand.
//! * `op`: the operations and how they are drawn. `machine`: the store beside the model. Whatever a crash leaves
//!   must be, as a whole, the model's state after one of the operations since all was last durable, a verb in
//!   flight wholly made or not at all; if any selection of writes may be lost (harsher than one log), that holds
//!   for each record.
//! * `several`: operations that read and write as one: update, compare-and-swap, batch, transaction.
//! * `doomed`: an engine in memory that dies at a given write, inside a verb too, and loses what it had not
//!   flushed. `process`: a child process on an engine with files that is killed (SIGKILL), at a random time or at a named
//!   point (`points`) by an engine that kills its own process (`killing`).
//! * `threads`: beside a worker at full speed; what holds always is checked.
//! * `regressions`: what this test found, each as its shrunk case.
//!
//! Every test prints its seed and its shrunk case when it fails. By environment:
//!
//! * `EXUVIA_MODEL_CASES=5000`: so many cases in place of the few of an ordinary run; a tenth of them killed
//!   processes, a twentieth races of threads.
//! * `EXUVIA_MODEL_SEED=…`: the seed of an earlier run, to see it again.
//! * `EXUVIA_MODEL_SHRINK=0`: at most so many attempts to make a failing case smaller.
//!
//! The long forms, `kill` and `model` of campaigns/torture, keep count.

mod doomed;
mod killing;
mod machine;
mod op;
mod points;
pub mod process;
mod records;
mod reference;
mod regressions;
mod several;
mod threads;

use std::cell::Cell;
use std::sync::Once;
use std::sync::atomic::Ordering;

use exuvia::engine::{EngineKind, MemoryEngine};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;

use self::doomed::Doomed;
use self::machine::{Medium, Sut};
use self::op::{Machine, Op, Setup};

fn cases(default: u32) -> u32 {
    let set = std::env::var("EXUVIA_MODEL_CASES").ok();
    set.map_or(default, |n| n.parse().expect("EXUVIA_MODEL_CASES is a number"))
}

fn shrinks() -> u32 {
    let set = std::env::var("EXUVIA_MODEL_SHRINK").ok();
    set.map_or(20_000, |n| n.parse().expect("EXUVIA_MODEL_SHRINK is a number"))
}

/// Runs random cases; a failure is shrunk and printed as the regression test that it should become.
fn run<const CRASHES: bool>(default: u32, medium: impl Fn() -> Medium) {
    let seed = seed();
    if let Some(failure) = find_failure::<CRASHES>(seed, cases(default), medium) {
        // Rare ones must not go with the terminal.
        let place =
            option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, std::path::PathBuf::from);
        let kept = place.join(format!("model-{seed}.txt"));
        let _it_is_printed_too = std::fs::write(&kept, &failure);
        panic!("seed {seed} (kept in {}): {failure}", kept.display());
    }
}

/// The first failure of so many cases, shrunk.
fn find_failure<const CRASHES: bool>(seed: u64, cases: u32, medium: impl Fn() -> Medium) -> Option<String> {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: shrinks(),
        max_shrink_time: 120_000,
        ..Config::default()
    };
    let strategy = Machine::<CRASHES>::sequential_strategy(1..80);
    quietly(|| {
        let result = runner(config, seed).run(&strategy, |(drawn, ops, seen)| {
            replay(&drawn.setup, medium(), &ops, || {
                if let Some(seen) = &seen {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            });
            Ok(())
        });
        match result {
            Ok(()) => None,
            Err(TestError::Fail(reason, (drawn, ops, _))) => {
                let ops: Vec<String> = ops.iter().map(|op| format!("        {op:?},\n")).collect();
                let (setup, ops) = (drawn.setup, ops.concat());
                Some(format!("{reason}\n    let setup = {setup:?};\n    let ops = [\n{ops}    ];"))
            }
            Err(other) => Some(other.to_string()),
        }
    })
}

/// For long runs: so many cases of a seed, on `memory` (with losses of power), `sled` or `fjall`.
///
/// # Errors
/// Another engine.
#[allow(dead_code, reason = "of the long form, campaigns/torture")]
pub fn campaign(engine: &str, seed: u64, cases: u32) -> Result<Option<String>, String> {
    if engine == "memory" {
        return Ok(find_failure::<true>(seed, cases, in_memory));
    }
    let kind = EngineKind::from_name(engine).ok_or_else(|| format!("there is no engine {engine:?}"))?;
    let root = scratch(&format!("campaign-{engine}"));
    let failure = find_failure::<false>(seed, cases, directories(&root, kind));
    drop(std::fs::remove_dir_all(root));
    Ok(failure)
}

fn runner(config: Config, seed: u64) -> TestRunner {
    let bytes: Vec<u8> = (0..4).flat_map(|part| machine::mix(seed ^ part).to_le_bytes()).collect();
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn seed() -> u64 {
    let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let set = std::env::var("EXUVIA_MODEL_SEED").ok();
    set.map_or_else(clock, |seed| seed.parse().expect("EXUVIA_MODEL_SEED is a number"))
}

/// One case.
fn replay(setup: &Setup, medium: Medium, ops: &[Op], seen: impl Fn()) {
    let mut sut = Sut::new(setup, medium);
    for op in ops {
        seen();
        sut.apply(op);
    }
    sut.end();
}

fn in_memory() -> Medium {
    Medium::Memory(Doomed::new(MemoryEngine::recording()))
}

/// A directory for one test of this process.
fn scratch(test: &str) -> std::path::PathBuf {
    let directory = std::env::temp_dir().join(format!("exuvia-model-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the test");
    directory
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the panics of cases that are being shrunk out of the output.
fn quietly<R>(call: impl FnOnce() -> R) -> R {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = call();
    QUIET.set(false);
    result
}

#[test]
fn memory() {
    run::<false>(60, in_memory);
}

#[test]
fn memory_with_crashes() {
    run::<true>(120, in_memory);
}

/// A directory for each case; the last one's is removed.
fn directories(root: &std::path::Path, kind: EngineKind) -> impl Fn() -> Medium {
    let number = Cell::new(0);
    move || {
        drop(std::fs::remove_dir_all(root.join(number.get().to_string())));
        number.set(number.get() + 1);
        Medium::Directory(root.join(number.get().to_string()), kind)
    }
}

/// Crashes of an engine with files are those of `process`.
fn on_disk(kind: EngineKind) {
    let root = scratch(kind.name());
    run::<false>(6, directories(&root, kind));
    drop(std::fs::remove_dir_all(root));
}

#[test]
fn sled() {
    on_disk(EngineKind::Sled);
}

#[cfg(feature = "fjall")]
#[test]
fn fjall() {
    on_disk(EngineKind::Fjall);
}
