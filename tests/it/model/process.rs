//! The death of a real process, on an engine with files: a child works through a seeded list of operations and says after each
//! what became of it; the parent kills it (SIGKILL) at some moment and looks at what it left.
//!
//! The child is this test binary, told by its environment what to do.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use exuvia::engine::EngineKind;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::Config;
use proptest_state_machine::ReferenceStateMachine;

use super::machine::{Medium, Outcome, Sut, mix};
use super::op::{self, Machine, Op, Setup};
use super::reference::*;

const CHILD: &str = "EXUVIA_MODEL_CHILD";

/// The case that a seed stands for, in every process.
fn case(seed: u64) -> (Setup, Vec<Op>) {
    let strategy = Machine::<false>::sequential_strategy(20..120);
    let mut runner = super::runner(Config::default(), seed);
    let (drawn, ops, _) = strategy.new_tree(&mut runner).expect("a case").current();
    (drawn.setup, ops)
}

/// The process that is killed: without its task in the environment there is nothing to do.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (seed, place) = task.split_once(' ').expect("a seed and a place");
    let (kind, directory) = place.split_once(' ').expect("an engine and a directory");
    let kind = EngineKind::from_name(kind).expect("an engine");
    let (setup, ops) = case(seed.parse().expect("a seed"));
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
    };
    let mut sut = Sut::new(&setup, Medium::Directory(PathBuf::from(directory), kind));
    say("\nstarted\n".to_owned());
    for op in &ops {
        sut.apply(op);
        let Outcome { made, complete } = sut.outcome;
        say(format!("did {} {}\n", u8::from(made), u8::from(complete)));
    }
    // The end is a death like any other.
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// What the parent knows of the child's store.
struct Followed {
    world: World,
    /// As of the last moment at which all was durable, and since.
    history: Vec<World>,
    every_write: bool,
}

impl Followed {
    fn plan(world: &World, op: &Op) -> Option<Plan> {
        Some(match op {
            Op::Put { table, key, view, row } => world.put(*table, *key, *view, *row),
            Op::Remove { table, key, view } => world.remove(*table, *key, *view),
            Op::Begin { index, tables, one_way } => world.begin(*index, tables, *one_way),
            Op::Rollback { index, fenced } => world.rollback(*index, *fenced),
            Op::Resume { index } => world.resume(*index),
            Op::Restart { index } => world.restart(*index),
            Op::Contract { index, .. } => world.contract(*index, NEWEST),
            Op::Abandon { index, keep } => world.abandon(*index, *keep),
            Op::Background { index } => {
                let mut plan = world.pause(*index, false);
                if let Some(running) = plan.after.take() {
                    plan.after = running.pause(*index, true).after;
                    plan.between.push(running);
                }
                plan
            }
            _ => return None,
        })
    }

    fn follow(&mut self, op: &Op, outcome: Outcome) {
        let Some(op) = op::clip(op.clone(), &self.world) else {
            return;
        };
        let plan = Self::plan(&self.world, &op);
        let is_write = matches!(op, Op::Put { .. } | Op::Remove { .. });
        let is_verb = plan.is_some() && !is_write;
        if let (Some(plan), true) = (plan, outcome.made) {
            self.world = plan.after.expect("what was made may be made");
        }
        if let (Op::Step { index, .. } | Op::Finish { index, .. } | Op::Background { index }, true) =
            (&op, outcome.made)
        {
            self.world.stepped(*index, usize::MAX, outcome.complete);
        }
        let durable = matches!(op, Op::Flush | Op::Reopen) || outcome.made && (is_verb || self.every_write);
        if durable {
            self.history.clear();
        }
        self.history.push(self.world.clone());
    }

    /// What the store may be if the process died in this operation.
    fn candidates(mut self, in_flight: Option<&Op>) -> Vec<World> {
        let op = in_flight.and_then(|op| op::clip(op.clone(), &self.world));
        if let Some(plan) = op.as_ref().and_then(|op| Self::plan(&self.world, op)) {
            self.history.extend(plan.after.into_iter().chain(plan.between));
        }
        for world in &mut self.history {
            for (index, migration) in world.migrations.iter_mut().enumerate() {
                let sure = self.world.migrations.get(index).is_some_and(|m| m.copied == Sure::No);
                let stepping = matches!(&op, Some(Op::Step { index: at, .. } | Op::Finish { index: at, .. } | Op::Background { index: at }) if *at == index);
                if !sure || stepping {
                    migration.copied = Sure::Perhaps;
                }
            }
        }
        self.history
    }
}

fn kill_once(seed: u64, directory: &Path, kind: EngineKind) {
    let (setup, ops) = case(seed);
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "model::process::child", "--nocapture"])
        .env(CHILD, format!("{seed} {} {}", kind.name(), directory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert!(lines.any(|line| line.expect("a line") == "started"), "seed {seed}: the child did not start");

    let mut world = World::new(setup.versions);
    for (table, key, a, b, c) in &setup.fill {
        let view = setup.versions[*table];
        let row = op::row(*table, view, [*a, *b, *c]);
        world = world.put(*table, *key, view, row).after.unwrap_or(world);
    }
    // The fill is not known to be durable: its steps are part of the past.
    let mut past = World::new(setup.versions);
    let mut history = vec![past.clone()];
    for (table, key, a, b, c) in &setup.fill {
        let view = setup.versions[*table];
        past = past.put(*table, *key, view, op::row(*table, view, [*a, *b, *c])).after.unwrap_or(past);
        history.push(past.clone());
    }
    let mut followed = Followed { world, history, every_write: setup.every_write };
    let mut done = 0;
    let last = (mix(seed) % (ops.len() as u64 + 1)) as usize;
    let linger = Duration::from_micros(mix(seed + 1) % 3000);
    let mut follow = |line: String| {
        if let Some(outcome) = line.strip_prefix("did ") {
            let (made, complete) = outcome.split_once(' ').expect("two flags");
            let outcome = Outcome { made: made == "1", complete: complete == "1" };
            followed.follow(&ops[done], outcome);
            done += 1;
        }
        done
    };
    if last > 0 {
        for line in lines.by_ref() {
            if follow(line.expect("a line")) == last {
                break;
            }
        }
    }
    std::thread::sleep(linger);
    child.kill().expect("a kill");
    // What it still said is acknowledged too; a line that it was saying is not.
    for line in lines.map_while(Result::ok) {
        follow(line);
    }
    let status = child.wait().expect("its end");
    assert!(
        !status.success() && status.code().is_none(),
        "seed {seed}: the child failed by itself: {status}"
    );
    let candidates = followed.candidates(ops.get(done));
    let mut sut = Sut::found(&setup, Medium::Directory(directory.to_owned(), kind), candidates);
    for op in case(seed ^ 1 << 63).1.iter().take(20) {
        sut.apply(op);
    }
    sut.end();
}

#[test]
fn killed_on_sled() {
    killed(EngineKind::Sled);
}

#[cfg(feature = "fjall")]
#[test]
fn killed_on_fjall() {
    killed(EngineKind::Fjall);
}

fn killed(kind: EngineKind) {
    let seed = super::seed();
    let root = super::scratch(&format!("killed-{}", kind.name()));
    for number in 0..u64::from(super::cases(6).div_ceil(10).max(6)) {
        let case = mix(seed.wrapping_add(number)) >> 1;
        let directory = root.join(number.to_string());
        let result = std::panic::catch_unwind(|| kill_once(case, &directory, kind));
        assert!(
            result.is_ok(),
            "seed {seed}, case {number} ({case}); the store is left in {}",
            directory.display()
        );
        std::fs::remove_dir_all(&directory).expect("its own directory");
    }
    drop(std::fs::remove_dir(&root));
}
