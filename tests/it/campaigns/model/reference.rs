//! The reference: what every view must answer, by code that shares nothing with the crate nor with the record
//! types' casts.
//!
//! Each key holds the set of entries that it may have: nearly always one. There are several where the moment at
//! which the backfill passes may be seen (a default merge breaks the fourth law: it forgets), and after a crash
//! whose survivors do not tell two pasts apart. A read has to be among what these allow, and narrows them.

use std::collections::BTreeMap;

/// The fields of a record, in order; unused ones are 0.
pub type Row = [i32; 4];
pub type Key = u16;

/// The two tables, and how many versions each lineage has.
pub const TABLES: [&str; 2] = ["a", "b"];
pub const NEWEST: [u32; 2] = [4, 3];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    Version,
    Cast,
    Quarantined,
    State,
    Other,
}

/// What a read may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Absent,
    Found(Row),
    Refused(Refusal),
}

impl Answer {
    pub fn is_error(&self) -> bool {
        matches!(self, Answer::Refused(_))
    }
}

// The rules of the two lineages.

fn up_once(table: usize, to: u32, [a, b, c, _]: Row) -> Option<Row> {
    match (table, to) {
        (0, 2) => (a != 7).then_some([a, b + 100, -1, 0]),
        (0, 3 | 4) => Some([a, b, c, 0]),
        (1, 2) => Some([a, b, 0, 0]),
        (1, 3) => (a != 7).then_some([a, b, c, 0]),
        _ => unreachable!(),
    }
}

fn up(table: usize, from: u32, to: u32, row: Row) -> Option<Row> {
    (from + 1..=to).try_fold(row, |row, version| up_once(table, version, row))
}

/// `note` is what the last record of version 1 held in the field that version 2 of table `b` drops.
fn down_once(table: usize, from: u32, [a, b, c, d]: Row, note: i32) -> Option<Row> {
    match (table, from) {
        (0, 2) => (a != 7 && (100..356).contains(&b)).then_some([a, b - 100, 0, 0]),
        (0, 3 | 4) => Some([a, b, c, 0]),
        (1, 2) => Some([a, b, note, 0]),
        (1, 3) => (d != 4 && a != 7).then_some([a, b, c, 0]),
        _ => unreachable!(),
    }
}

fn down(table: usize, from: u32, to: u32, row: Row, last: Option<Row>) -> Option<Row> {
    let note = last.map_or(0, |last| last[2]);
    (to + 1..=from).rev().try_fold(row, |row, version| down_once(table, version, row, note))
}

fn drops(table: usize, view: u32, target: u32) -> bool {
    table == 1 && target == 1 && view > 1
}

fn is_valid(table: usize, version: u32, row: Row) -> bool {
    match (table, version) {
        (0, 1) => row[1] != 8,
        (0, 2) => row[0] != 8,
        (0, 4) => row[3] != 4,
        (1, 2) => row[1] != 8,
        _ => true,
    }
}

/// The lens composed of those between `from` and `to`.
fn merge(table: usize, from: u32, to: u32, old: Row, last: Row) -> Option<Row> {
    let below = if to == from + 1 {
        old
    } else {
        merge(table, from, to - 1, old, down_once(table, to, last, old[2])?)?
    };
    let upcast = up_once(table, to, below)?;
    match (table, to) {
        (0, 2) => Some([upcast[0], upcast[1], last[2], 0]),
        (1, 3) => Some([upcast[0], upcast[1], upcast[2], last[3]]),
        // The default, and the same bytes.
        _ => Some(if down_once(table, to, last, below[2])? == below { last } else { upcast }),
    }
}

/// What the overlay of an open migration may hold for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Nothing that the base does not say.
    Base,
    Removed,
    /// An old writer's record, over the last new form if there was one.
    From {
        old: Row,
        last: Option<Row>,
    },
    /// A new writer's record and its old form; a one-way migration keeps none.
    To {
        new: Row,
        old: Option<Row>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Forward,
    RolledBack,
    Contracted,
    Abandoned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sure {
    No,
    Perhaps,
    Yes,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub table: usize,
    pub from: u32,
    pub to: u32,
    /// Nothing is rewritten.
    pub light: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    pub phase: Phase,
    pub one_way: bool,
    pub fenced: bool,
    pub paused: bool,
    pub steps: Vec<Step>,
    /// Whether everything that the base held has been copied.
    pub copied: Sure,
    /// Records that were asked of `step` since the copy began, and those that there are to copy.
    pub stepped: usize,
    pub to_copy: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub stored: u32,
    pub active: u32,
    pub base: BTreeMap<Key, Vec<Option<Row>>>,
    pub over: BTreeMap<Key, Vec<Over>>,
    /// Index of the open migration.
    pub open: Option<usize>,
}

/// The state of the whole store.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    pub tables: [Table; 2],
    pub migrations: Vec<Migration>,
    /// What the ledger must hold, apart from what the background does in its own time.
    pub ledger: Vec<(&'static str, String)>,
}

pub fn migration_name(index: usize) -> String {
    format!("m{index}")
}

/// An entry, and the base's record below it.
type Cell = (Over, Option<Row>);

impl World {
    /// Both tables just created, at these versions.
    pub fn new(versions: [u32; 2]) -> Self {
        let table = |stored| Table {
            stored,
            active: stored,
            base: BTreeMap::new(),
            over: BTreeMap::new(),
            open: None,
        };
        let ledger = TABLES.iter().map(|name| ("create table", (*name).to_owned())).collect();
        World { tables: versions.map(table), migrations: Vec::new(), ledger }
    }

    /// The open migration of a table, with its step; `None` also for one that rewrites nothing.
    fn rewriting(&self, table: usize) -> Option<(&Migration, &Step)> {
        let (migration, step) = self.open(table)?;
        (!step.light).then_some((migration, step))
    }

    pub fn open(&self, table: usize) -> Option<(&Migration, &Step)> {
        let migration = &self.migrations[self.tables[table].open?];
        Some((migration, migration.steps.iter().find(|step| step.table == table)?))
    }

    pub fn keys(&self, table: usize) -> Vec<Key> {
        let table = &self.tables[table];
        let mut keys: Vec<Key> = table.base.keys().chain(table.over.keys()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn cells(&self, table: usize, key: Key) -> Vec<Cell> {
        let table = &self.tables[table];
        let base = table.base.get(&key).cloned().unwrap_or_else(|| vec![None]);
        let over = table.over.get(&key).cloned().unwrap_or_else(|| vec![Over::Base]);
        over.iter().flat_map(|over| base.iter().map(|base| (*over, *base))).collect()
    }

    fn set_cells(&mut self, table: usize, key: Key, cells: &[Cell]) {
        let (mut over, mut base) = (Vec::new(), Vec::new());
        for (o, b) in cells {
            if !over.contains(o) {
                over.push(*o);
            }
            if !base.contains(b) {
                base.push(*b);
            }
        }
        let table = &mut self.tables[table];
        if base == [None] {
            table.base.remove(&key);
        } else {
            table.base.insert(key, base);
        }
        if over == [Over::Base] {
            table.over.remove(&key);
        } else {
            table.over.insert(key, over);
        }
    }

    /// What a read of this cell may answer.
    fn read_cell(&self, table: usize, view: u32, (over, base): Cell) -> Vec<Answer> {
        let stored = self.tables[table].stored;
        if view < stored {
            return vec![Answer::Refused(Refusal::Version)];
        }
        let found = |row: Option<Row>| vec![row.map_or(Answer::Refused(Refusal::Cast), Answer::Found)];
        let Some((_, step)) = self.rewriting(table) else {
            return base.map_or(vec![Answer::Absent], |row| found(up(table, stored, view, row)));
        };
        let Step { from, to, .. } = *step;
        let old = match over {
            Over::Removed => return vec![Answer::Absent],
            Over::Base => base,
            Over::From { old, .. } | Over::To { old: Some(old), .. } => Some(old),
            Over::To { old: None, .. } => None,
        };
        if view < to {
            return match (old, over) {
                (Some(old), _) => found(up(table, from, view, old)),
                (None, Over::To { .. }) => vec![Answer::Refused(Refusal::Version)],
                (None, _) => vec![Answer::Absent],
            };
        }
        let brought = match (over, old) {
            (Over::To { new, .. }, _) => Some(new),
            (_, None) => return vec![Answer::Absent],
            (_, Some(old)) => self.brought_forward(table, step, over, old),
        };
        match brought {
            Some(row) => found(up(table, to, view, row)),
            None => vec![Answer::Refused(Refusal::Cast), Answer::Refused(Refusal::Quarantined)],
        }
    }

    /// An old form at `to`, if the casts and the rules of `to` let it through.
    fn brought_forward(&self, table: usize, step: &Step, over: Over, old: Row) -> Option<Row> {
        let Step { from, to, .. } = *step;
        let row = match over {
            Over::From { last: Some(last), .. } => merge(table, from, to, old, last)?,
            _ => up(table, from, to, old)?,
        };
        is_valid(table, to, row).then_some(row)
    }

    /// What a read may answer.
    pub fn read(&self, table: usize, key: Key, view: u32) -> Vec<Answer> {
        let mut answers = Vec::new();
        for cell in self.cells(table, key) {
            for answer in self.read_cell(table, view, cell) {
                if !answers.contains(&answer) {
                    answers.push(answer);
                }
            }
        }
        answers
    }

    /// Forgets what this answer excludes; `false` if it excludes everything.
    pub fn narrow(&mut self, table: usize, key: Key, view: u32, answer: &Answer) -> bool {
        self.keep_cells(table, key, view, |possible| possible == answer)
    }

    /// Forgets what can have no such answer; `false` if that is everything.
    pub fn keep_cells(
        &mut self,
        table: usize,
        key: Key,
        view: u32,
        answer: impl Fn(&Answer) -> bool,
    ) -> bool {
        let mut cells = self.cells(table, key);
        cells.retain(|cell| self.read_cell(table, view, *cell).iter().any(&answer));
        if cells.is_empty() {
            return false;
        }
        self.set_cells(table, key, &cells);
        true
    }

    /// Whether `len` may count (`Some`), and whether it may fail.
    pub fn len(&self, table: usize, view: u32) -> (Option<u64>, bool) {
        if view < self.tables[table].stored {
            return (None, true);
        }
        let (mut count, mut may_fail) = (0, false);
        for key in self.keys(table) {
            let answers = self.read(table, key, view);
            // What a one-way writer left is no record of this view, and `len` does not decode.
            if answers == [Answer::Refused(Refusal::Version)] {
                return (None, true);
            }
            may_fail |= answers.contains(&Answer::Refused(Refusal::Quarantined));
            count += u64::from(!answers.contains(&Answer::Absent));
        }
        (Some(count), may_fail)
    }

    /// The rules about who may write.
    fn may_write(&self, table: usize, view: u32) -> Result<(), Refusal> {
        if view < self.tables[table].stored {
            return Err(Refusal::Version);
        }
        if let Some((migration, step)) = self.open(table) {
            let fenced = migration.fenced && migration.phase == Phase::RolledBack && view >= step.to;
            let between = !step.light && view > step.from && view < step.to;
            if fenced || between {
                return Err(Refusal::Version);
            }
        }
        Ok(())
    }

    fn validate(&self, table: usize, view: u32, row: Row, last: Option<Row>) -> Result<(), Refusal> {
        let active = self.tables[table].active;
        if active > view {
            return Ok(());
        }
        let row = down(table, view, active, row, last).ok_or(Refusal::Cast)?;
        if is_valid(table, active, row) { Ok(()) } else { Err(Refusal::Cast) }
    }

    /// A newer record that `version` can hold without a loss.
    fn survives(&self, table: usize, view: u32, version: u32, row: Row) -> Result<(), Refusal> {
        let old = down(table, view, version, row, None).ok_or(Refusal::Cast)?;
        match up(table, version, view, old) {
            Some(back) if back == row => Ok(()),
            Some(_) => Err(Refusal::Version),
            None => Err(Refusal::Cast),
        }
    }

    fn put_cell(&self, table: usize, view: u32, row: Row, cell: Cell) -> Result<Vec<Cell>, Refusal> {
        self.may_write(table, view)?;
        let (over, base) = cell;
        let Some((migration, step)) = self.rewriting(table) else {
            let stored = self.tables[table].stored;
            let last = base.filter(|_| drops(table, view, stored));
            self.validate(table, view, row, last)?;
            self.survives(table, view, stored, row)?;
            let new = down(table, view, stored, row, last).ok_or(Refusal::Cast)?;
            return Ok(vec![(Over::Base, Some(new))]);
        };
        let Step { from, to, .. } = *step;
        let old = match over {
            Over::Removed => None,
            Over::Base => base,
            Over::From { old, .. } => Some(old),
            Over::To { old, .. } => old,
        };
        if view >= to {
            self.survives(table, view, to, row)?;
            let last = old.filter(|_| drops(table, view, from));
            self.validate(table, view, row, last)?;
            let new = down(table, view, to, row, None).ok_or(Refusal::Cast)?;
            let old = if migration.one_way {
                None
            } else {
                Some(down(table, view, from, row, last).ok_or(Refusal::Cast)?)
            };
            return Ok(vec![(Over::To { new, old }, base)]);
        }
        self.validate(table, view, row, None)?;
        let mut kept = match over {
            Over::Base | Over::Removed => vec![None],
            Over::To { new, .. } => vec![Some(new)],
            Over::From { last, .. } => vec![last],
        };
        if let Over::From { old, last: Some(_) } = over {
            // The backfill may have passed since, and then this is the last new form.
            kept.extend(self.brought_forward(table, step, over, old).map(Some));
        }
        Ok(kept.into_iter().map(|last| (Over::From { old: row, last }, base)).collect())
    }

    fn remove_cell(&self, table: usize, view: u32, (_, base): Cell) -> Result<Vec<Cell>, Refusal> {
        self.may_write(table, view)?;
        let removed =
            if self.rewriting(table).is_some() { (Over::Removed, base) } else { (Over::Base, None) };
        Ok(vec![removed])
    }

    /// Reads a record and writes what `change` makes of the answer: nothing (`None`), a record or its removal.
    pub fn each_cell(
        &self,
        table: usize,
        key: Key,
        view: u32,
        change: impl Fn(&Answer) -> Option<Option<Row>>,
    ) -> Plan {
        let (mut refusals, mut cells) = (Vec::new(), Vec::new());
        for cell in self.cells(table, key) {
            for answer in self.read_cell(table, view, cell) {
                let written = match (&answer, change(&answer)) {
                    (Answer::Refused(refusal), _) => Err(*refusal),
                    (_, None) => Ok(vec![cell]),
                    (_, Some(Some(row))) => self.put_cell(table, view, row, cell),
                    (_, Some(None)) => self.remove_cell(table, view, cell),
                };
                match written {
                    Ok(after) => cells.extend(after),
                    Err(refusal) => refusals.push(refusal),
                }
            }
        }
        self.with_cells(table, key, &cells, refusals)
    }

    /// What becomes of one key, if anything may: the cells that it may have then.
    fn with_cells(&self, table: usize, key: Key, cells: &[Cell], refusals: Vec<Refusal>) -> Plan {
        let after = (!cells.is_empty()).then(|| {
            let mut after = self.clone();
            after.set_cells(table, key, cells);
            after
        });
        Plan { refusals, after, between: Vec::new() }
    }

    /// A put: what it may be refused with, and the world after it if it may be made.
    pub fn put(&self, table: usize, key: Key, view: u32, row: Row) -> Plan {
        let (mut refusals, mut cells) = (Vec::new(), Vec::new());
        for cell in self.cells(table, key) {
            match self.put_cell(table, view, row, cell) {
                Ok(after) => cells.extend(after),
                Err(refusal) => refusals.push(refusal),
            }
        }
        self.with_cells(table, key, &cells, refusals)
    }

    pub fn remove(&self, table: usize, key: Key, view: u32) -> Plan {
        if let Err(refusal) = self.may_write(table, view) {
            return Plan::refused(refusal);
        }
        let mut after = self.clone();
        let cells: Vec<Cell> = match self.rewriting(table) {
            Some(_) => self.cells(table, key).iter().map(|(_, base)| (Over::Removed, *base)).collect(),
            None => vec![(Over::Base, None)],
        };
        after.set_cells(table, key, &cells);
        Plan::made(after)
    }

    /// `code` is the newest version of each table that a handle was opened with.
    pub fn begin(&self, index: usize, tables: &[(usize, u32)], one_way: bool) -> Plan {
        if tables.iter().any(|(table, to)| *to <= self.tables[*table].stored) {
            return Plan::refused(Refusal::Version);
        }
        if index < self.migrations.len() || tables.iter().any(|(table, _)| self.tables[*table].open.is_some())
        {
            return Plan::refused(Refusal::State);
        }
        let mut after = self.clone();
        let mut steps = Vec::new();
        let mut to_copy = 0;
        for &(table, to) in tables {
            let state = &mut after.tables[table];
            let from = state.stored;
            let light = table == 0 && from == 2 && to == 3;
            if !light {
                to_copy += state.base.values().filter(|rows| !rows.contains(&None)).count();
            }
            (state.active, state.open) = (to, Some(index));
            steps.push(Step { table, from, to, light });
        }
        let copied = if steps.iter().all(|step| step.light) { Sure::Yes } else { Sure::No };
        let phase = Phase::Forward;
        after.migrations.push(Migration {
            phase,
            one_way,
            fenced: false,
            paused: true,
            steps,
            copied,
            stepped: 0,
            to_copy,
        });
        after.noted("begin", index);
        Plan::made(after)
    }

    fn noted(&mut self, what: &'static str, index: usize) {
        self.ledger.push((what, migration_name(index)));
    }

    /// The tables whose new code a backfill needs.
    pub fn lacks_code(&self, index: usize, code: [u32; 2]) -> bool {
        self.migrations[index].steps.iter().any(|step| !step.light && code[step.table] < step.to)
    }

    fn verb(&self, index: usize, what: &'static str, phase: Phase, fits: bool, fenced: bool) -> Plan {
        if !fits {
            return Plan::refused(Refusal::State);
        }
        let mut after = self.clone();
        after.migrations[index].phase = phase;
        after.migrations[index].fenced = fenced;
        let rolled_back = phase == Phase::RolledBack;
        for step in &self.migrations[index].steps {
            after.tables[step.table].active = if rolled_back { step.from } else { step.to };
        }
        after.noted(what, index);
        Plan::made(after)
    }

    pub fn rollback(&self, index: usize, fenced: bool) -> Plan {
        let migration = &self.migrations[index];
        let fits = migration.phase == Phase::Forward && !migration.one_way;
        self.verb(index, "rollback", Phase::RolledBack, fits, fenced)
    }

    pub fn resume(&self, index: usize) -> Plan {
        let fits = self.migrations[index].phase == Phase::RolledBack;
        self.verb(index, "resume", Phase::Forward, fits, false)
    }

    pub fn restart(&self, index: usize) -> Plan {
        let migration = &self.migrations[index];
        let fits = migration.phase == Phase::Forward;
        let mut plan = self.verb(index, "restart", Phase::Forward, fits, migration.fenced);
        if let Some(after) = &mut plan.after {
            let after = &mut after.migrations[index];
            if after.steps.iter().any(|step| !step.light) {
                (after.copied, after.stepped) = (Sure::No, 0);
            }
            // The progress is lowered before the change.
            let mut halfway = self.clone();
            halfway.migrations[index].copied = Sure::Perhaps;
            plan.between.push(halfway);
        }
        plan
    }

    pub fn contract(&self, index: usize, code: [u32; 2]) -> Plan {
        let migration = &self.migrations[index];
        let lacks = self.lacks_code(index, code);
        let behind = migration.copied == Sure::No && migration.paused;
        if migration.phase != Phase::Forward || behind || lacks {
            return Plan::refused(Refusal::State);
        }
        let mut after = self.clone();
        let mut perhaps = migration.copied != Sure::Yes;
        for step in &migration.steps {
            let Step { table, from: _, to, light } = *step;
            for key in self.keys(table).into_iter().filter(|_| !light) {
                let answers = self.read(table, key, to);
                let errors = answers.iter().filter(|answer| answer.is_error()).count();
                if errors == answers.len() {
                    return Plan::refused(Refusal::State);
                }
                perhaps |= errors > 0;
                let cells = answers.iter().filter_map(|answer| match answer {
                    Answer::Absent => Some((Over::Base, None)),
                    Answer::Found(row) => Some((Over::Base, Some(*row))),
                    Answer::Refused(_) => None,
                });
                after.set_cells(table, key, &cells.collect::<Vec<_>>());
            }
            let state = &mut after.tables[table];
            (state.stored, state.active, state.open) = (to, to, None);
        }
        after.migrations[index].phase = Phase::Contracted;
        after.noted("contract", index);
        let mut plan = Plan::made(after);
        if perhaps {
            plan.refusals.push(Refusal::State);
        }
        plan
    }

    pub fn abandon(&self, index: usize, keep: bool) -> Plan {
        let migration = &self.migrations[index];
        if migration.phase != Phase::RolledBack {
            return Plan::refused(Refusal::State);
        }
        let mut after = self.clone();
        for step in &migration.steps {
            let table = step.table;
            for key in self.keys(table) {
                let cells: Vec<Cell> = self
                    .cells(table, key)
                    .into_iter()
                    .map(|(over, base)| match over {
                        _ if !keep => (Over::Base, base),
                        Over::Base => (Over::Base, base),
                        Over::Removed => (Over::Base, None),
                        Over::From { old, .. } => (Over::Base, Some(old)),
                        Over::To { old, .. } => (Over::Base, old),
                    })
                    .collect();
                after.set_cells(table, key, &cells);
            }
            let state = &mut after.tables[table];
            (state.active, state.open) = (step.from, None);
        }
        after.migrations[index].phase = Phase::Abandoned;
        if keep {
            after.noted("fold", index);
        }
        after.noted("abandon", index);
        Plan::made(after)
    }

    pub fn pause(&self, index: usize, paused: bool) -> Plan {
        if matches!(self.migrations[index].phase, Phase::Contracted | Phase::Abandoned) {
            return Plan::refused(Refusal::State);
        }
        let mut after = self.clone();
        after.migrations[index].paused = paused;
        after.noted(if paused { "pause" } else { "unpause" }, index);
        Plan::made(after)
    }

    /// Only what a step does changes with the budget.
    pub fn retune(&self, index: usize) -> Plan {
        match self.pause(index, false) {
            Plan { after: None, refusals, between } => Plan { after: None, refusals, between },
            _ => Plan::made(self.clone()),
        }
    }

    /// A background that is not paused may have come to its end at any time.
    pub fn time_passes(&mut self) {
        for migration in &mut self.migrations {
            if !migration.paused && migration.phase == Phase::Forward && migration.copied == Sure::No {
                migration.copied = Sure::Perhaps;
            }
        }
    }

    /// The fewest and the most records that an open migration has to copy of a table; `name` is the table's.
    pub fn base_of(&self, index: usize, name: &str) -> (u64, u64) {
        let table = TABLES.iter().position(|of| *of == name).expect("a table of ours");
        let step = self.migrations[index].steps.iter().find(|step| step.table == table);
        let base = &self.tables[table].base;
        match step {
            Some(step) if step.light => (0, 0),
            Some(_) if self.tables[table].open == Some(index) => {
                let certain = base.values().filter(|rows| !rows.contains(&None)).count();
                (certain as u64, base.len() as u64)
            }
            // Closed: its base is gone, or another's by now.
            _ => (0, u64::MAX),
        }
    }

    /// How many records the inventory must count, if that is certain.
    pub fn live(&self, table: usize) -> Option<u64> {
        let view = self.tables[table].stored;
        let mut live = 0;
        for key in self.keys(table) {
            let answers = self.read(table, key, view);
            let absent = answers.iter().filter(|answer| **answer == Answer::Absent).count();
            if absent != 0 && absent != answers.len() {
                return None;
            }
            live += u64::from(absent == 0);
        }
        Some(live)
    }

    /// Whether `step` has to be refused.
    pub fn step_refused(&self, index: usize, code: [u32; 2]) -> bool {
        self.migrations[index].phase != Phase::Forward || self.lacks_code(index, code)
    }

    /// `complete`: the store says so.
    pub fn stepped(&mut self, index: usize, records: usize, complete: bool) {
        let migration = &mut self.migrations[index];
        migration.stepped = migration.stepped.saturating_add(records);
        if complete {
            migration.copied = Sure::Yes;
        } else if migration.copied == Sure::No && migration.stepped >= migration.to_copy {
            migration.copied = Sure::Perhaps;
        }
    }

    /// The same store but for its records.
    pub fn same_frame(&self, other: &World) -> bool {
        let versions =
            |world: &World| world.tables.each_ref().map(|table| (table.stored, table.active, table.open));
        let steps = |world: &World| {
            let of = |m: &Migration| (m.phase, m.one_way, m.fenced, m.paused, m.steps.clone());
            world.migrations.iter().map(of).collect::<Vec<_>>()
        };
        versions(self) == versions(other) && self.ledger == other.ledger && steps(self) == steps(other)
    }

    /// Allows for every record what either allows.
    pub fn join(&mut self, other: &World) {
        for table in 0..self.tables.len() {
            let mut keys = self.keys(table);
            keys.extend(other.keys(table));
            for key in keys {
                let mut cells = self.cells(table, key);
                cells.extend(other.cells(table, key));
                self.set_cells(table, key, &cells);
            }
        }
        for (own, other) in self.migrations.iter_mut().zip(&other.migrations) {
            if own.copied != other.copied {
                own.copied = Sure::Perhaps;
            }
            own.stepped = own.stepped.max(other.stepped);
            own.to_copy = own.to_copy.min(other.to_copy);
        }
    }
}

/// What an operation may come to.
#[derive(Debug, Clone)]
pub struct Plan {
    /// With what it may be refused; nothing is changed then.
    pub refusals: Vec<Refusal>,
    /// The world after it, if it may be made.
    pub after: Option<World>,
    /// Worlds that a crash may leave besides those before and after it.
    pub between: Vec<World>,
}

impl Plan {
    fn refused(refusal: Refusal) -> Self {
        Plan { refusals: vec![refusal], after: None, between: Vec::new() }
    }

    fn made(after: World) -> Self {
        Plan { refusals: Vec::new(), after: Some(after), between: Vec::new() }
    }
}
