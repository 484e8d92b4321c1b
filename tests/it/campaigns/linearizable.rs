//! Histories of the system's own threads, on every engine: linearizable, beside every verb of a migration.
//!
//! The same programs as in `schedules/`, where the interleavings are chosen; here they are what the machine makes of them.
//! `EXUVIA_TEST_PROGRAMS` runs more of them, `EXUVIA_TEST_SEED` others.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;

use exuvia::engine::MemoryEngine;
use exuvia::{Durability, Result, Store};

use crate::campaigns::linear::program::{Program, Rng, Theme};
use crate::campaigns::linear::run::{Host, run};
use crate::kit::scratch::Scratch;

/// Threads of the system.
fn at_once(threads: Vec<Box<dyn FnOnce() + Send>>) {
    let barrier = Arc::new(Barrier::new(threads.len()));
    let threads = threads.into_iter().map(|body| {
        let barrier = Arc::clone(&barrier);
        thread::spawn(move || {
            barrier.wait();
            body();
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
}

struct InMemory(MemoryEngine);

impl Host for InMemory {
    fn open(&self, durability: Durability) -> Result<Store> {
        Store::options().durability(durability).open_in(Arc::new(self.0.clone()))
    }

    fn recording(&self) -> Option<&MemoryEngine> {
        Some(&self.0)
    }

    fn run(&self, threads: Vec<Box<dyn FnOnce() + Send>>) {
        at_once(threads);
    }

    fn give_turn() {
        thread::yield_now();
    }
}

struct OnDisk {
    directory: PathBuf,
    engine: exuvia::engine::EngineKind,
}

impl Host for OnDisk {
    fn open(&self, durability: Durability) -> Result<Store> {
        Store::options()
            .engine(self.engine)
            .cache_bytes(16 << 20)
            .durability(durability)
            .open(&self.directory)
    }

    fn recording(&self) -> Option<&MemoryEngine> {
        None
    }

    fn run(&self, threads: Vec<Box<dyn FnOnce() + Send>>) {
        at_once(threads);
    }

    fn give_turn() {
        thread::yield_now();
    }
}

fn from_environment(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap())
}

fn programs<H: Host>(usual: u64, host: impl Fn(u64) -> H) {
    let first = from_environment("EXUVIA_TEST_SEED", 1);
    for seed in first..first + from_environment("EXUVIA_TEST_PROGRAMS", usual) {
        let mut rng = Rng::new(seed);
        let program = Program::draw(Theme::ALL[seed as usize % Theme::ALL.len()], &mut rng);
        if let Err(what) = run(&program, &mut rng, &host(seed)) {
            panic!("seed {seed}, {}: {what}\nthe program: {program:?}", program.theme.name());
        }
    }
}

fn on_disk(scratch: &Path, seed: u64, engine: exuvia::engine::EngineKind) -> OnDisk {
    OnDisk { directory: scratch.join(seed.to_string()), engine }
}

#[test]
fn threads_in_memory_make_linearizable_histories() {
    programs(100, |_| InMemory(MemoryEngine::recording()));
}

#[test]
fn threads_on_sled_make_linearizable_histories() {
    let scratch = Scratch::new("linear-sled");
    programs(20, |seed| on_disk(scratch.path(), seed, exuvia::engine::EngineKind::Sled));
}

#[cfg(feature = "fjall")]
#[test]
fn threads_on_fjall_make_linearizable_histories() {
    let scratch = Scratch::new("linear-fjall");
    programs(20, |seed| on_disk(scratch.path(), seed, exuvia::engine::EngineKind::Fjall));
}
