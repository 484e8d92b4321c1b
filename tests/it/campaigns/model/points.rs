//! The named points at which a process is killed, and operations that lead to each.

use super::killing::{Did, Stage, What, When};
use super::machine::mix;
use super::op::{self, Op};
use super::reference::*;
use super::several::Write;

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Whatever comes: the point is met early.
    Anything,
    Writes,
    Begin,
    /// Copying, by steps or by the worker.
    Copy,
    Worker,
    /// An old writer's record is brought forward.
    Forward,
    Fail,
    Revert,
    Rollback,
    Resume,
    Restart,
    Contract,
    /// With old writers' records to bring forward, and something stale in the quarantine.
    ContractBehind,
    Discard,
    Fold,
    Reopen,
    Flush,
}

#[derive(Debug, Clone)]
pub struct Point {
    pub name: String,
    pub goal: Goal,
    pub stage: Stage,
    /// Only in a thread of this name.
    pub thread: Option<&'static str>,
    /// Empty: any.
    pub calls: &'static [Did],
    pub on: Option<What>,
    pub when: When,
    /// Only once the state was committed.
    pub after_commit: bool,
    /// The most calls that are let through before it.
    pub spread: u64,
}

const WORKER: Option<&str> = Some("exuvia-backfill");
const SWEEPER: Option<&str> = Some("exuvia-sweep");

/// All of them. The order is part of what a seed means: new ones go to the end.
pub fn all() -> Vec<Point> {
    let mut points = Vec::new();
    let verbs = [
        ("begin", Stage::Begin, Goal::Begin),
        ("rollback", Stage::Rollback, Goal::Rollback),
        ("resume", Stage::Resume, Goal::Resume),
        ("restart", Stage::Restart, Goal::Restart),
        ("contract", Stage::Contract, Goal::Contract),
        ("discard", Stage::Discard, Goal::Discard),
        ("fold", Stage::Fold, Goal::Fold),
        ("pause", Stage::Pause, Goal::Worker),
        ("unpause", Stage::Unpause, Goal::Worker),
    ];
    let point = |name: String, goal, stage, calls, on, when| Point {
        name,
        goal,
        stage,
        thread: None,
        calls,
        on,
        when,
        after_commit: false,
        spread: 1,
    };
    for (verb, stage, goal) in verbs {
        let of_state = |what: &str, when| {
            point(format!("{verb}: {what}"), goal, stage, &[Did::Replace], Some(What::State), when)
        };
        points.push(of_state("before its commit", When::Before));
        points.push(of_state("committed, not flushed", When::After));
        let flushed = format!("{verb}: flushed, before the flip");
        let flushed = point(flushed, goal, stage, &[Did::Flush], Some(What::All), When::After);
        points.push(Point { after_commit: true, ..flushed });
        let copied = format!("{verb}: its ledger entry is copied out");
        let copied = point(copied, goal, stage, &[Did::Put], Some(What::Ledger), When::During);
        points.push(Point { after_commit: true, ..copied });
    }
    let mut add = |name: &str, goal, stage, thread, calls, on, spread, whens: &[When]| {
        for when in whens {
            let said = match when {
                When::Before => "before",
                When::During => "during",
                When::After => "after",
            };
            let name = format!("{name}, {said} a call");
            points.push(Point { thread, spread, ..point(name, goal, stage, calls, on, *when) });
        }
    };
    use When::{After, Before, During};
    let (records, all) = (Some(What::Records), Some(What::All));
    add("mid-batch of a copy", Goal::Copy, Stage::Step, None, &[Did::Insert], records, 6, &[Before, After]);
    add(
        "mid-batch of the worker",
        Goal::Worker,
        Stage::Worker,
        WORKER,
        &[Did::Insert],
        records,
        6,
        &[Before, After],
    );
    add(
        "progress saved",
        Goal::Copy,
        Stage::Step,
        None,
        &[Did::Put],
        Some(What::Progress),
        2,
        &[Before, After],
    );
    add(
        "quarantined",
        Goal::Fail,
        Stage::Step,
        None,
        &[Did::Commit],
        Some(What::Quarantine),
        1,
        &[Before, During, After],
    );
    add("brought forward", Goal::Forward, Stage::Step, None, &[Did::Replace], records, 2, &[Before, After]);
    add("mid-revert", Goal::Revert, Stage::Step, None, &[Did::Remove], records, 3, &[Before, After]);
    add(
        "restart lowers progress",
        Goal::Restart,
        Stage::Restart,
        None,
        &[Did::Put],
        Some(What::Progress),
        1,
        &[Before, After],
    );
    add(
        "mid-forward of a contract",
        Goal::ContractBehind,
        Stage::Contract,
        None,
        &[Did::Replace],
        records,
        3,
        &[Before, After],
    );
    add(
        "contract clears the quarantine",
        Goal::ContractBehind,
        Stage::Contract,
        None,
        &[Did::Delete],
        Some(What::Quarantine),
        1,
        &[Before, After],
    );
    add("contract proves", Goal::Contract, Stage::Contract, None, &[Did::Scan], records, 3, &[Before]);
    add(
        "contract's closing flush",
        Goal::Contract,
        Stage::Contract,
        None,
        &[Did::Flush],
        all,
        1,
        &[Before, During],
    );
    add("mid-fold", Goal::Fold, Stage::Fold, WORKER, &[Did::Commit], records, 4, &[Before, During, After]);
    add("mid-fold, derived", Goal::Fold, Stage::Fold, WORKER, &[Did::Remove], records, 2, &[Before, After]);
    add(
        "fold closes",
        Goal::Fold,
        Stage::Fold,
        WORKER,
        &[Did::Replace],
        Some(What::State),
        1,
        &[Before, After],
    );
    add("fold's closing flush", Goal::Fold, Stage::Fold, WORKER, &[Did::Flush], all, 1, &[Before, During]);
    let cleans = &[Did::Replace, Did::Remove];
    add(
        "mid-sweep of companions",
        Goal::Contract,
        Stage::Contract,
        SWEEPER,
        cleans,
        records,
        4,
        &[Before, After],
    );
    add(
        "sweep closes",
        Goal::Contract,
        Stage::Contract,
        SWEEPER,
        &[Did::Replace],
        Some(What::State),
        1,
        &[Before, After],
    );
    add(
        "mid-sweep of a dead tree",
        Goal::Contract,
        Stage::Contract,
        SWEEPER,
        &[Did::Delete],
        records,
        6,
        &[Before, After],
    );
    add(
        "mid-drop of a dead tree",
        Goal::Discard,
        Stage::Discard,
        SWEEPER,
        &[Did::DropTree],
        records,
        1,
        &[Before, During, After],
    );
    add(
        "mid-sweep of an overlay",
        Goal::Discard,
        Stage::Discard,
        SWEEPER,
        &[Did::Delete],
        records,
        4,
        &[Before, After],
    );
    let writes = &[Did::Put, Did::Insert, Did::Replace];
    add("a write", Goal::Writes, Stage::Write, None, writes, records, 4, &[During, After]);
    add(
        "a batch or transaction",
        Goal::Writes,
        Stage::Several,
        None,
        &[Did::Commit],
        None,
        3,
        &[Before, During, After],
    );
    add("flush", Goal::Flush, Stage::Flush, None, &[Did::Flush], all, 1, &[Before, During, After]);
    add("closing flush", Goal::Reopen, Stage::Close, None, &[Did::Flush], all, 1, &[Before, During, After]);
    add("open", Goal::Reopen, Stage::Open, None, &[], None, 14, &[Before, After]);
    add("create", Goal::Anything, Stage::Create, None, &[], None, 12, &[Before, After]);
    add("recovery", Goal::Anything, Stage::Recover, None, &[], None, 24, &[Before, After]);
    add(
        "recovery's flush",
        Goal::Anything,
        Stage::Recover,
        None,
        &[Did::Flush],
        all,
        1,
        &[Before, During, After],
    );
    points
}

/// Random numbers of a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % end.max(1)
    }
}

/// Operations that lead from a world to a goal.
pub struct Lead<'a> {
    pub world: World,
    pub keys: Key,
    pub ops: Vec<Op>,
    pub dice: &'a mut Dice,
}

impl Lead<'_> {
    fn push(&mut self, op: Op) {
        self.world = op::assume(&self.world, &op);
        self.ops.push(op);
    }

    fn open(&self) -> Option<usize> {
        self.world.tables.iter().find_map(|table| table.open)
    }

    fn key(&mut self) -> Key {
        self.dice.below(u64::from(self.keys)) as Key
    }

    /// A row that every version takes.
    fn tame(&mut self, table: usize, view: u32) -> Row {
        let mut field = |end| self.dice.below(end) as u8;
        let fields = [field(3), field(3), field(4)];
        op::row(table, view, fields)
    }

    /// Puts at the views that there are, and a few removals.
    fn writes(&mut self, count: u64) {
        for _ in 0..count {
            let table = self.dice.below(2) as usize;
            let views = match self.world.open(table) {
                Some((_, step)) => [step.from, step.to],
                None => [self.world.tables[table].stored; 2],
            };
            let view = views[self.dice.below(2) as usize];
            self.write(table, view);
        }
    }

    fn write(&mut self, table: usize, view: u32) {
        let (key, row) = (self.key(), self.tame(table, view));
        let second = Write { table, key: (key + 1) % self.keys, view, row: Some(row) };
        let op = match self.dice.below(8) {
            0 => Op::Remove { table, key, view },
            1 if self.keys > 1 => {
                Op::Batch { writes: vec![Write { table, key, view, row: Some(row) }, second] }
            }
            2 if self.keys > 1 => Op::Transaction {
                reads: vec![(table, key, view)],
                writes: vec![Write { table, key, view, row: Some(row) }, second],
            },
            _ => Op::Put { table, key, view, row },
        };
        self.push(op);
    }

    /// A migration that goes forward, rewrites records and can be rolled back; a new one if `fresh`.
    fn forward(&mut self, fresh: bool) -> Option<usize> {
        if let Some(index) = self.open() {
            if !self.world.migrations[index].paused {
                self.push(Op::Pause { index, paused: true });
            }
            let migration = &self.world.migrations[index];
            let (rolled_back, one_way) = (migration.phase == Phase::RolledBack, migration.one_way);
            let light = migration.steps.iter().all(|step| step.light);
            if one_way {
                return None;
            }
            if !fresh && !light {
                if rolled_back {
                    self.push(Op::Resume { index });
                }
                return Some(index);
            }
            if !rolled_back {
                self.push(Op::Rollback { index, fenced: false });
            }
            let keep = self.dice.below(2) == 0;
            self.push(Op::Abandon { index, keep });
            return self.forward(fresh);
        }
        let mut tables = Vec::new();
        for (table, newest) in NEWEST.into_iter().enumerate() {
            let stored = self.world.tables[table].stored;
            // The step of the same bytes rewrites nothing.
            let first = if table == 0 && stored == 2 { 4 } else { stored + 1 };
            if first <= newest {
                tables.push((table, first + self.dice.below(u64::from(newest - first) + 1) as u32));
            }
        }
        if tables.is_empty() {
            return None;
        }
        let index = self.world.migrations.len();
        for table in 0..2 {
            for _ in 0..3 {
                let view = self.world.tables[table].stored;
                let (key, row) = (self.key(), self.tame(table, view));
                self.push(Op::Put { table, key, view, row });
            }
        }
        self.push(Op::Begin { index, tables, one_way: false });
        Some(index)
    }

    /// The first table that the migration rewrites.
    fn step(&self, index: usize) -> Option<(usize, u32, u32)> {
        let step = self.world.migrations[index].steps.iter().find(|step| !step.light)?;
        Some((step.table, step.from, step.to))
    }

    /// What cannot be read at the new version goes, or a contract is refused.
    fn clear_failures(&mut self, index: usize) {
        for step in self.world.migrations[index].steps.clone() {
            for key in self.world.keys(step.table) {
                if self.world.read(step.table, key, step.to).iter().any(Answer::is_error) {
                    self.push(Op::Remove { table: step.table, key, view: step.to });
                }
            }
        }
    }

    fn finish(&mut self, index: usize) {
        let records = 1 + self.dice.below(20) as usize;
        self.push(Op::Finish { index, records });
    }

    /// `None`: it cannot be reached from here.
    pub fn to(&mut self, goal: Goal) -> Option<()> {
        match goal {
            Goal::Anything => {}
            Goal::Writes => {
                if self.dice.below(2) == 0 {
                    self.forward(false)?;
                }
                self.writes(30);
            }
            Goal::Flush => {
                self.writes(6);
                self.push(Op::Flush);
            }
            Goal::Reopen => {
                self.writes(6);
                self.push(Op::Reopen);
            }
            Goal::Begin => {
                self.forward(true)?;
            }
            Goal::Copy => {
                let index = self.forward(true)?;
                self.writes(2);
                for _ in 0..4 {
                    // More than one batch between two flushes: what is saved is the first of them.
                    self.push(Op::Step { index, records: 1 });
                    self.push(Op::Step { index, records: 1 });
                    self.push(Op::Flush);
                }
                self.finish(index);
            }
            Goal::Worker => {
                let index = self.forward(true)?;
                self.writes(2);
                self.push(Op::Background { index });
            }
            Goal::Forward => {
                let index = self.forward(false)?;
                self.finish(index);
                let (table, from, _) = self.step(index)?;
                for _ in 0..3 {
                    let (key, row) = (self.key(), self.tame(table, from));
                    self.push(Op::Put { table, key, view: from, row });
                }
                self.finish(index);
            }
            Goal::Fail => {
                let index = self.forward(false)?;
                self.fail(index)?;
                self.finish(index);
            }
            Goal::Revert => {
                let index = self.forward(true)?;
                self.finish(index);
                self.push(Op::Restart { index });
                self.finish(index);
            }
            Goal::Rollback => {
                let index = self.forward(false)?;
                self.writes(4);
                let fenced = self.dice.below(4) == 0;
                self.push(Op::Rollback { index, fenced });
            }
            Goal::Resume => {
                let index = self.forward(false)?;
                self.push(Op::Rollback { index, fenced: false });
                self.writes(4);
                self.push(Op::Resume { index });
            }
            Goal::Restart => {
                let index = self.forward(false)?;
                self.writes(3);
                self.push(Op::Step { index, records: 4 });
                self.push(Op::Restart { index });
            }
            Goal::Contract | Goal::ContractBehind => {
                let index = self.forward(false)?;
                self.writes(6);
                if goal == Goal::ContractBehind {
                    let (table, from, to) = self.step(index)?;
                    let key = self.fail(index)?;
                    self.finish(index);
                    let row = self.tame(table, to);
                    self.push(Op::Put { table, key, view: to, row });
                    for at in 1..4 {
                        let (key, row) = ((key + at) % self.keys, self.tame(table, from));
                        self.push(Op::Put { table, key, view: from, row });
                    }
                } else {
                    self.finish(index);
                }
                self.clear_failures(index);
                self.push(Op::Contract { index, code: true });
            }
            Goal::Discard | Goal::Fold => {
                let index = self.forward(goal == Goal::Fold)?;
                self.writes(3);
                self.finish(index);
                self.writes(3);
                self.push(Op::Rollback { index, fenced: false });
                self.writes(3);
                self.push(Op::Abandon { index, keep: goal == Goal::Fold });
            }
        }
        Some(())
    }

    /// An old writer's record that cannot be brought forward; answers its key.
    fn fail(&mut self, index: usize) -> Option<Key> {
        let (table, from, to) = self.step(index)?;
        let seven = match table {
            0 => from == 1,
            _ => from <= 2 && to == 3,
        };
        if !seven {
            return None;
        }
        let (key, row) = (self.key(), op::row(table, from, [7, 1, 0]));
        self.push(Op::Put { table, key, view: from, row });
        let failed = self.world.read(table, key, to).iter().all(Answer::is_error);
        failed.then_some(key)
    }
}
