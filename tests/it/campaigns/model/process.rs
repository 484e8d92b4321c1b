//! The death of a real process, on an engine with files: a child works through a seeded list of operations and says after each
//! what became of it; it is killed (SIGKILL) at some moment, and what it left is looked at.
//!
//! 1. A seed is a case, in every process: the setup, the operations, the point of death, the deaths while recovering. In
//!    six of ten cases, each point in its turn, the death is at a named point (`points`): the operations lead there, and the child kills itself by the
//!    engine below its store (`killing`). In the others the parent kills it at a random time, below an ordinary open store.
//! 2. Acknowledged is what the child has said over the pipe, one line for each operation. Durable is what it said before a
//!    flush (or a verb, which flushes) that it said was done, and with `EveryWrite` all it said.
//! 3. In half of the cases the store is then opened by further children that are killed while they recover it, by the
//!    parent at a random time or by themselves at a call.
//! 4. What is found must be, as a whole, what the model says after one of the operations since all was last durable; a verb in
//!    flight made or not made, as a whole. An engine that hands every write to the system before it answers
//!    ([`keeps_acknowledged`]) may lose none that was acknowledged: there the only question is the operation in flight.
//!    Every record is read at every view; the ledger's chain is verified, the inventory counted, `verify` run.
//! 5. A copy that death cut short is brought to its end: every record of the base was counted once, in the status and in
//!    the ledger.
//! 6. The store that was found works on: more operations, a reopen, and all checks again.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use exuvia::engine::EngineKind;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::Config;
use proptest_state_machine::ReferenceStateMachine;

use super::killing::{Killer, Rule, Stage};
use super::machine::{Medium, Opened, Outcome, Sut, mix};
use super::op::{self, Machine, Op, Setup};
use super::points::{self, Dice, Goal, Lead};
use super::reference::*;

/// Set in children; its value is the child's task.
pub const CHILD: &str = "EXUVIA_MODEL_CHILD";

/// Whether a write that was acknowledged survives the death of the process on this engine, durable or not: fjall
/// writes its journal to the system before a call returns; sled keeps what it has not flushed in its own memory.
pub fn keeps_acknowledged(kind: EngineKind) -> bool {
    kind == EngineKind::Fjall
}

/// What a seed stands for.
struct Case {
    setup: Setup,
    ops: Vec<Op>,
    /// The named point; without one the parent kills at a random time.
    rule: Option<Rule>,
    /// Lines to wait for, and how long after the last of them.
    last: usize,
    linger: Duration,
    /// The times at which the processes that recover it are killed.
    recoveries: Vec<Duration>,
}

impl Case {
    fn of(seed: u64) -> Case {
        let mut dice = Dice::new(seed);
        let points = points::all();
        let turn = (seed % turns(points.len() as u64)) as usize;
        let rule = points.get(turn).cloned().map(|point| {
            let nth = 1 + dice.below(point.spread);
            Rule { point, nth, delay: Duration::from_micros(dice.below(400)) }
        });
        let goal = rule.as_ref().map_or(Goal::Anything, |rule| rule.point.goal);
        // From some worlds there is no way to some points.
        let (setup, mut ops) = (0..50)
            .find_map(|attempt| {
                let (setup, mut ops, world) = drawn(seed ^ attempt << 56, rule.is_some(), &mut dice);
                let mut lead = Lead { world, keys: setup.keys, ops: Vec::new(), dice: &mut dice };
                lead.to(goal)?;
                ops.append(&mut lead.ops);
                Some((setup, ops))
            })
            .expect("a way to every point");
        // Something goes on after most points.
        ops.push(Op::Flush);
        let last = dice.below(ops.len() as u64 + 1) as usize;
        let linger = Duration::from_micros(dice.below(3000));
        let mut recoveries = Vec::new();
        let recovering = rule.as_ref().is_some_and(|rule| rule.point.stage == Stage::Recover);
        if recovering || dice.below(2) == 0 {
            for _ in 0..1 + dice.below(3) {
                recoveries.push(Duration::from_micros(3000 + dice.below(60_000)));
            }
        }
        Case { setup, ops, rule, last, linger, recoveries }
    }

    fn recovers(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.point.stage == Stage::Recover)
    }

    /// The rule of the child that works, or of the first that recovers.
    fn rule(&self, recovery: Option<usize>) -> Option<Rule> {
        let due = match recovery {
            None => !self.recovers(),
            Some(number) => self.recovers() && number == 0,
        };
        self.rule.clone().filter(|_| due)
    }
}

/// A random beginning, and the world that it should come to.
fn drawn(seed: u64, short: bool, dice: &mut Dice) -> (Setup, Vec<Op>, World) {
    let length = if short { 1..40 } else { 20..120 };
    let strategy = Machine::<false>::sequential_strategy(length);
    let mut runner = super::runner(Config::default(), seed);
    let (mut drawn, mut ops, _) = strategy.new_tree(&mut runner).expect("a case").current();
    // The worker runs beside some of the operations, at some speed.
    for _ in 0..dice.below(4) {
        let at = dice.below(ops.len() as u64 + 1) as usize;
        let index = 9;
        ops.insert(
            at,
            match dice.below(4) {
                0 => Op::Retune { index, pause_us: 10 + dice.below(2000) as u16 },
                1 => Op::Pause { index, paused: true },
                _ => Op::Pause { index, paused: false },
            },
        );
    }
    let setup = drawn.setup.clone();
    drawn.world = filled(&setup).pop().expect("a world");
    for op in &ops {
        drawn = Machine::<false>::apply(drawn, op);
    }
    (setup, ops, drawn.world)
}

/// The worlds from the empty store to the one that the setup fills.
fn filled(setup: &Setup) -> Vec<World> {
    let mut worlds = vec![World::new(setup.versions)];
    for (table, key, a, b, c) in &setup.fill {
        let view = setup.versions[*table];
        let world = worlds.last().expect("a world");
        let row = op::row(*table, view, [*a, *b, *c]);
        let after = world.put(*table, *key, view, row).after;
        worlds.push(after.unwrap_or_else(|| world.clone()));
    }
    worlds
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whole or not at all: a line that death cuts off is none.
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
}

/// Ends with its parent: nobody would kill it.
fn watch_parent() {
    std::thread::spawn(|| {
        let _whatever_it_says = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(3);
    });
}

/// The process that is killed. Never returns.
pub fn child(task: &str) -> ! {
    watch_parent();
    let mut words = task.splitn(4, ' ');
    let mut word = || words.next().expect("a word of the task");
    let (recovery, seed) = (word().parse::<usize>().ok(), word().parse().expect("a seed"));
    let kind = EngineKind::from_name(word()).expect("an engine");
    let directory = PathBuf::from(word());
    let case = Case::of(seed);
    let medium = match case.rule(recovery) {
        None => Medium::Directory(directory, kind),
        Some(rule) => Medium::Killing(directory, kind, Killer::new(Some(rule))),
    };
    if let Some(number) = recovery {
        recover(&case, &medium, number);
    }
    let mut sut = Sut::new(&case.setup, medium);
    say("\nstarted\n");
    for (number, op) in case.ops.iter().enumerate() {
        sut.apply(op);
        let Outcome { made, complete } = sut.outcome;
        say(&format!("did {number} {} {}\n", u8::from(made), u8::from(complete)));
    }
    // The end is a death like any other.
    sleep()
}

fn sleep() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Opens what was left, with or without the code that lets a backfill go on.
fn recover(case: &Case, medium: &Medium, number: usize) -> ! {
    medium.stage(Stage::Recover);
    let mut opened = Opened::open(medium, &case.setup).expect("a store opens after a crash");
    say("\nstarted\n");
    if number.is_multiple_of(2) {
        for (table, newest) in NEWEST.into_iter().enumerate() {
            let _a_death_may_have_left_no_table = opened.get(table, 0, newest);
        }
    }
    sleep()
}

/// What the parent knows of the child's store.
struct Followed {
    world: World,
    /// As of the last moment at which nothing could be lost, and since.
    history: Vec<World>,
    every_write: bool,
    keeps_acknowledged: bool,
}

impl Followed {
    fn plan(world: &World, op: &Op) -> Option<Plan> {
        if let Op::Background { index } = op {
            let mut plan = world.pause(*index, false);
            if let Some(running) = plan.after.take() {
                plan.after = running.pause(*index, true).after;
                plan.between.push(running);
            }
            return Some(plan);
        }
        op::plan(world, op, NEWEST)
    }

    fn follow(&mut self, op: &Op, outcome: Outcome) {
        let Some(op) = op::clip(op.clone(), &self.world) else {
            return;
        };
        self.world.time_passes();
        let plan = Self::plan(&self.world, &op);
        let is_verb = plan.is_some() && !op.is_write() && !matches!(op, Op::Retune { .. });
        if let (Some(plan), true) = (plan, outcome.made) {
            self.world = plan.after.expect("what was made may be made");
        }
        if let (Op::Step { index, .. } | Op::Finish { index, .. } | Op::Background { index }, true) =
            (&op, outcome.made)
        {
            self.world.stepped(*index, usize::MAX, outcome.complete);
        }
        self.world.time_passes();
        let durable = matches!(op, Op::Flush | Op::Reopen) || outcome.made && (is_verb || self.every_write);
        if durable || self.keeps_acknowledged {
            self.history.clear();
        }
        self.history.push(self.world.clone());
    }

    /// What the store may be if the process died in this operation, oldest first, and how many of these were in flight.
    fn candidates(mut self, in_flight: Option<&Op>) -> (Vec<World>, usize) {
        let known = self.history.len();
        let op = in_flight.and_then(|op| op::clip(op.clone(), &self.world));
        if let Some(plan) = op.as_ref().and_then(|op| Self::plan(&self.world, op)) {
            self.history.extend(plan.after.into_iter().chain(plan.between));
        }
        for world in &mut self.history {
            for (index, migration) in world.migrations.iter_mut().enumerate() {
                let sure = self.world.migrations.get(index).is_some_and(|m| m.copied == Sure::No && m.paused);
                let stepping = matches!(&op, Some(Op::Step { index: at, .. } | Op::Finish { index: at, .. } | Op::Background { index: at }) if *at == index);
                if !sure || stepping {
                    migration.copied = Sure::Perhaps;
                }
            }
        }
        let flying = self.history.len() - known;
        (self.history, flying)
    }
}

/// What a kill was like.
#[derive(Debug, Default)]
pub struct Killed {
    /// The named point, if one was met.
    pub point: Option<String>,
    /// Operations that were acknowledged.
    pub acknowledged: usize,
    /// Of these, not yet durable and gone.
    pub lost: usize,
    /// Deaths while recovering.
    pub recoveries: usize,
}

/// How this binary runs [`child`].
pub type Spawn = fn() -> Command;

fn spawn(spawn: Spawn, task: &str, directory: &Path) -> Child {
    let complaints = std::fs::File::create(directory.with_extension("stderr")).expect("a file");
    let mut command = spawn();
    command.env(CHILD, task).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints);
    command.spawn().expect("a child")
}

/// Dead by SIGKILL, and not by itself.
fn check_death(status: ExitStatus, seed: u64, directory: &Path) {
    use std::os::unix::process::ExitStatusExt;
    if status.signal() != Some(9) {
        let said = std::fs::read_to_string(directory.with_extension("stderr")).unwrap_or_default();
        panic!("seed {seed}: the child failed by itself ({status}): {said}");
    }
}

/// Runs one case in a directory that does not exist yet; panics at what is wrong.
pub fn kill_once(seed: u64, directory: &Path, kind: EngineKind, how: Spawn) -> Killed {
    let case = Case::of(seed);
    let mut killed = Killed::default();
    let history = filled(&case.setup);
    let world = history.last().expect("a world").clone();
    let keeps_acknowledged = keeps_acknowledged(kind);
    let mut followed = Followed { world, history, every_write: case.setup.every_write, keeps_acknowledged };

    let task = format!("- {seed} {} {}", kind.name(), directory.display());
    let mut child = spawn(how, &task, directory);
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let (mut started, mut done) = (false, 0);
    let by_itself = case.rule(None).is_some();
    let end = if by_itself { case.ops.len() } else { case.last };
    let mut is_killed = false;
    // What it still says after the kill is acknowledged too; a line that it was saying is not.
    for line in lines.map_while(Result::ok) {
        if line == "started" {
            started = true;
        } else if let Some(point) = line.strip_prefix("at ") {
            killed.point = Some(point.to_owned());
        } else if let Some(outcome) = line.strip_prefix("did ") {
            let fields: Vec<usize> = outcome.split(' ').map(|n| n.parse().expect("a number")).collect();
            assert_eq!(fields[0], done, "seed {seed}: the operations come in order");
            followed.follow(&case.ops[done], Outcome { made: fields[1] == 1, complete: fields[2] == 1 });
            done += 1;
        }
        if started && done == end && !is_killed {
            std::thread::sleep(case.linger);
            child.kill().expect("a kill");
            is_killed = true;
        }
    }
    check_death(child.wait().expect("its end"), seed, directory);
    killed.acknowledged = done;

    for (number, time) in case.recoveries.iter().enumerate() {
        let task = format!("{number} {seed} {} {}", kind.name(), directory.display());
        let mut child = spawn(how, &task, directory);
        std::thread::sleep(*time);
        child.kill().expect("a kill");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let said = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("at ").map(str::to_owned));
        killed.point = killed.point.or(said);
        check_death(child.wait().expect("its end"), seed, directory);
        killed.recoveries += 1;
    }

    let medium = Medium::Directory(directory.to_owned(), kind);
    if !started {
        // It was not made yet, or not filled: nothing was acknowledged, and it can be made.
        let opened = Opened::open(&medium, &case.setup).expect("a store whose making was cut short opens");
        let report = opened.store.verify().expect("a report");
        assert!(report.is_clean(), "seed {seed}: {:?}", report.damage);
        opened.store.ledger().expect("the ledger's chain holds");
        return killed;
    }
    let (candidates, flying) = followed.candidates(case.ops.get(done));
    let (mut sut, newer) = Sut::found(&case.setup, medium, candidates);
    killed.lost = newer.saturating_sub(flying);
    sut.finish();
    for op in drawn(seed ^ 1 << 63, true, &mut Dice::new(seed)).1.iter().take(20) {
        sut.apply(op);
    }
    sut.end();
    let _it_may_be_gone = std::fs::remove_file(directory.with_extension("stderr"));
    killed
}

/// In so many cases in a row each named point has one turn; the rest are random times.
fn turns(points: u64) -> u64 {
    points * 10 / 6
}

/// The seed of a campaign's case.
pub fn case_seed(campaign: u64, number: u64) -> u64 {
    let turns = turns(points::all().len() as u64);
    let random = mix(campaign.wrapping_add(number)) >> 20;
    // Far apart, so that few cases in a row are of many kinds.
    let turn = (campaign % turns + number * 61) % turns;
    random * turns + turn
}

/// The point that a case aims at.
#[allow(dead_code, reason = "of the long form, campaigns/torture")]
pub fn aim(seed: u64) -> Option<String> {
    Case::of(seed).rule.map(|rule| rule.point.name)
}

#[allow(dead_code, reason = "of the long form, campaigns/torture")]
pub fn names(kind: EngineKind) -> Vec<String> {
    // fjall drops a full tree at once, so that none is emptied before.
    let emptied = ["mid-sweep of a dead tree", "mid-sweep of an overlay"];
    let is_met = |name: &str| kind.name() != "fjall" || !emptied.iter().any(|other| name.starts_with(other));
    points::all().into_iter().map(|point| point.name).filter(|name| is_met(name)).collect()
}

/// Without its task in the environment there is nothing to do.
#[test]
fn child_of_a_test() {
    if let Ok(task) = std::env::var(CHILD) {
        child(&task);
    }
}

#[cfg(test)]
fn this_test() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "campaigns::model::process::child_of_a_test", "--nocapture"]);
    command
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

#[cfg(test)]
fn killed(kind: EngineKind) {
    let seed = super::seed();
    let cases = u64::from(super::cases(300).div_ceil(10));
    let met = killed_in(kind, "killed", (0..cases).map(|number| case_seed(seed, number)));
    assert!(cases < 20 || met > 0, "no named point was met");
}

/// Where the cursor and the counts could come apart.
#[cfg(feature = "fjall")]
#[test]
fn killed_where_progress_is_saved() {
    let seed = super::seed();
    let points = points::all();
    let turns = turns(points.len() as u64);
    let aimed = points.iter().zip(0..).filter(|(point, _)| point.name.starts_with("progress saved"));
    let cases = aimed.flat_map(|(_, turn)| (0..4).map(move |n| (mix(seed ^ n) >> 20) * turns + turn));
    assert!(killed_in(EngineKind::Fjall, "killed-saving", cases) > 0, "the point was not met");
}

/// Answers how many of the cases met their named point.
#[cfg(test)]
fn killed_in(kind: EngineKind, name: &str, cases: impl Iterator<Item = u64>) -> usize {
    let root = super::scratch(&format!("{name}-{}", kind.name()));
    let mut met = 0;
    for (number, case) in cases.enumerate() {
        let directory = root.join(number.to_string());
        let result = std::panic::catch_unwind(|| kill_once(case, &directory, kind, this_test));
        let Ok(killed) = result else {
            let seed = super::seed();
            panic!("seed {seed}, case {number} ({case}); the store is left in {}", directory.display());
        };
        met += usize::from(killed.point.is_some());
        std::fs::remove_dir_all(&directory).expect("its own directory");
    }
    drop(std::fs::remove_dir(&root));
    met
}
