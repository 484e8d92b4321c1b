//! The model test.
mod doomed;
mod machine;
mod op;
#[cfg(feature = "sled")]
mod process;
mod records;
mod reference;
mod threads;

use std::cell::Cell;
use std::sync::Once;
use std::sync::atomic::Ordering;

use exuvia::engine::MemoryEngine;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;

use self::doomed::Doomed;
use self::machine::{Medium, Sut};
use self::op::{Machine, Op, Setup};

fn cases(default: u32) -> u32 {
    let set = std::env::var("EXUVIA_MODEL_CASES").ok();
    set.map_or(default, |n| n.parse().expect("EXUVIA_MODEL_CASES is a number"))
}

/// Runs random cases; a failure is shrunk and printed as the regression test that it should become.
fn run<const CRASHES: bool>(default: u32, medium: impl Fn() -> Medium) {
    let seed = seed();
    let cases = cases(default);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let strategy = Machine::<CRASHES>::sequential_strategy(1..80);
    let result = quietly(|| {
        runner(config, seed).run(&strategy, |(drawn, ops, seen)| {
            replay(&drawn.setup, medium(), &ops, || {
                if let Some(seen) = &seen {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            });
            Ok(())
        })
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, (drawn, ops, _))) => {
            let ops: Vec<String> = ops.iter().map(|op| format!("        {op:?},\n")).collect();
            let ops = ops.concat();
            panic!("seed {seed}: {reason}\n    let setup = {:?};\n    let ops = [\n{ops}    ];", drawn.setup);
        }
        Err(other) => panic!("seed {seed}: {other}"),
    }
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
#[cfg(feature = "sled")]
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

/// Crashes of sled are those of `process`.
#[cfg(feature = "sled")]
#[test]
fn sled() {
    let root = scratch("sled");
    let number = Cell::new(0);
    run::<false>(6, || {
        drop(std::fs::remove_dir_all(root.join(number.get().to_string())));
        number.set(number.get() + 1);
        Medium::Directory(root.join(number.get().to_string()))
    });
    drop(std::fs::remove_dir_all(root));
}
