//! The model test.
mod doomed;
mod machine;
mod op;
#[cfg(feature = "sled")]
mod process;
mod records;
mod reference;

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
fn run<const CRASHES: bool>(default: u32) {
    let seed = seed();
    let cases = cases(default);
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let strategy = Machine::<CRASHES>::sequential_strategy(1..80);
    let result = quietly(|| {
        runner(config, seed).run(&strategy, |(drawn, ops, seen)| {
            replay_seen(&drawn.setup, &ops, |_| {
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
            panic!(
                "seed {seed}: {reason}\n    let setup = {:?};\n    let ops = [\n{ops}    ];",
                drawn.setup
            );
        }
        Err(other) => panic!("seed {seed}: {other}"),
    }
}

fn runner(config: Config, seed: u64) -> TestRunner {
    let bytes: Vec<u8> = (0..4)
        .flat_map(|part| machine::mix(seed ^ part).to_le_bytes())
        .collect();
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn seed() -> u64 {
    let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let set = std::env::var("EXUVIA_MODEL_SEED").ok();
    set.map_or_else(clock, |seed| seed.parse().expect("EXUVIA_MODEL_SEED is a number"))
}

/// One case, in memory.
fn replay(setup: &Setup, ops: &[Op]) {
    replay_seen(setup, ops, |_| {});
}

fn replay_seen(setup: &Setup, ops: &[Op], seen: impl Fn(&Op)) {
    let mut sut = Sut::new(setup, Medium::Memory(Doomed::new(MemoryEngine::recording())));
    for op in ops {
        seen(op);
        sut.apply(op);
    }
    sut.end();
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
    run::<false>(100);
}

#[test]
fn memory_with_crashes() {
    run::<true>(100);
}
