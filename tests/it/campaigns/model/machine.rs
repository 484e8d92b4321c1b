//! The store under test, beside the reference.

use std::collections::HashMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exuvia::engine::EngineKind;
use exuvia::{Budget, Durability, Error, Migration, Phase as Found, Result, Store, Table};

use super::doomed::Doomed;
use super::killing::{Killer, Stage};
use super::op::{self, Ends, Op, Setup};
use super::records::*;
use super::reference::*;
use super::several::Write;

/// Runs `$call` with the handle's type: a table of the store at a view.
macro_rules! at_view {
    ($table:expr, $view:expr, $call:ident($($argument:expr),*)) => {
        match ($table, $view) {
            (0, 1) => $call::<A1>($($argument),*),
            (0, 2) => $call::<A2>($($argument),*),
            (0, 3) => $call::<A3>($($argument),*),
            (0, 4) => $call::<A4>($($argument),*),
            (1, 1) => $call::<B1>($($argument),*),
            (1, 2) => $call::<B2>($($argument),*),
            (1, 3) => $call::<B3>($($argument),*),
            other => unreachable!("{other:?}"),
        }
    };
}

/// A handle whose type is only known by its view.
trait Handle: Send + Sync {
    fn get(&self, key: Key) -> Result<Option<Row>>;
    fn put(&self, key: Key, row: Row) -> Result<()>;
    fn remove(&self, key: Key) -> Result<()>;
    fn len(&self) -> Result<u64>;
    fn scan(&self, range: (Bound<Key>, Bound<Key>)) -> Box<dyn Scanned>;
    fn plan(&self, plan: exuvia::Plan) -> exuvia::Plan;
    fn update(&self, key: Key, row: Option<Row>, insert: bool) -> Result<()>;
    fn swap(&self, key: Key, old: Option<Row>, new: Option<Row>) -> Result<bool>;
    fn batch(&self, batch: &mut exuvia::Batch, key: Key, row: Option<Row>);
    fn read_in(&self, tx: &mut exuvia::Transaction, key: Key) -> Result<Option<Row>>;
    fn write_in(&self, tx: &mut exuvia::Transaction, key: Key, row: Option<Row>) -> Result<()>;
}

/// A scan; the flag says from which end.
pub trait Scanned {
    fn next(&mut self, back: bool) -> Option<Result<(Key, Row)>>;
}

impl<V: Plain> Scanned for exuvia::Scan<Key, V> {
    fn next(&mut self, back: bool) -> Option<Result<(Key, Row)>> {
        let next = if back { self.next_back() } else { Iterator::next(self) };
        next.map(|item| item.map(|(key, record)| (key, record.row())))
    }
}

impl<V: Plain> Handle for Table<Key, V> {
    fn get(&self, key: Key) -> Result<Option<Row>> {
        Ok(Table::get(self, &key)?.map(|record| record.row()))
    }

    fn put(&self, key: Key, row: Row) -> Result<()> {
        Table::put(self, &key, &V::of(row))
    }

    fn remove(&self, key: Key) -> Result<()> {
        Table::remove(self, &key)
    }

    fn len(&self) -> Result<u64> {
        Table::len(self)
    }

    fn scan(&self, range: (Bound<Key>, Bound<Key>)) -> Box<dyn Scanned> {
        Box::new(Table::scan(self, range))
    }

    fn plan(&self, plan: exuvia::Plan) -> exuvia::Plan {
        plan.table(self)
    }

    fn update(&self, key: Key, row: Option<Row>, insert: bool) -> Result<()> {
        let change = |old: Option<V>| row.filter(|_| insert || old.is_some()).map(V::of);
        Table::update(self, &key, change).map(drop)
    }

    fn swap(&self, key: Key, old: Option<Row>, new: Option<Row>) -> Result<bool> {
        self.compare_and_swap(&key, old.map(V::of).as_ref(), new.map(V::of).as_ref())
    }

    fn batch(&self, batch: &mut exuvia::Batch, key: Key, row: Option<Row>) {
        match row {
            Some(row) => batch.put(self, &key, V::of(row)),
            None => batch.remove(self, &key),
        }
    }

    fn read_in(&self, tx: &mut exuvia::Transaction, key: Key) -> Result<Option<Row>> {
        Ok(tx.get(self, &key)?.map(|record| record.row()))
    }

    fn write_in(&self, tx: &mut exuvia::Transaction, key: Key, row: Option<Row>) -> Result<()> {
        match row {
            Some(row) => tx.put(self, &key, &V::of(row)),
            None => tx.remove(self, &key),
        }
    }
}

fn open_handle<V: Plain>(store: &Store, name: &str) -> Result<Arc<dyn Handle>> {
    Ok(Arc::new(store.table::<Key, V>(name)?))
}

pub fn refusal(e: &Error) -> Refusal {
    match e {
        Error::Version { .. } => Refusal::Version,
        Error::Cast { .. } => Refusal::Cast,
        Error::Quarantined { .. } => Refusal::Quarantined,
        Error::State { .. } => Refusal::State,
        _ => Refusal::Other,
    }
}

pub fn answer(read: &Result<Option<Row>>) -> Answer {
    match read {
        Ok(None) => Answer::Absent,
        Ok(Some(row)) => Answer::Found(*row),
        Err(e) => Answer::Refused(refusal(e)),
    }
}

/// Where the store lies.
#[derive(Clone)]
pub enum Medium {
    Memory(Doomed),
    Directory(PathBuf, EngineKind),
    /// The same, below an engine that kills its own process.
    Killing(PathBuf, EngineKind, Killer),
}

impl Medium {
    /// Says what is under way, to an engine that waits for that.
    pub fn stage(&self, stage: Stage) {
        if let Medium::Killing(_, _, killer) = self {
            killer.stage(stage);
        }
    }
}

/// An open store with its handles.
pub struct Opened {
    pub store: Store,
    handles: HashMap<(usize, u32), Arc<dyn Handle>>,
    /// The newest version of each table that a handle was opened with.
    pub code: [u32; 2],
    /// What the last compare-and-swap, and the reads of the last transaction, answered.
    swapped: Option<bool>,
    reads: Vec<Option<Row>>,
}

impl Opened {
    pub fn open(medium: &Medium, setup: &Setup) -> Result<Opened> {
        let durability = if setup.every_write {
            Durability::EveryWrite
        } else {
            // In memory everything is lost that was not asked for; on a disk a flush may come at any moment.
            let seconds = if matches!(medium, Medium::Memory(_)) { 3600.0 } else { 0.002 };
            Durability::Buffered { interval: Duration::from_secs_f64(seconds) }
        };
        let options = Store::options().durability(durability).budget(Budget::unlimited()).free_bytes_min(0);
        let store = match medium {
            Medium::Memory(engine) => options.open_in(Arc::new(engine.clone())),
            Medium::Directory(path, kind) => options.cache_bytes(16 << 20).engine(*kind).open(path),
            Medium::Killing(path, kind, killer) => {
                // The directory is made by the store itself; the engine below it then gets between.
                if !path.join("EXUVIA").exists() {
                    Store::options().cache_bytes(16 << 20).engine(*kind).open(path)?.close()?;
                }
                let engine = kind.open(path.join(kind.name()), 16 << 20)?;
                options.open_in(killer.over(engine))
            }
        };
        store.map(Self::of)
    }

    pub fn of(store: Store) -> Opened {
        Opened { store, handles: HashMap::new(), code: [0; 2], swapped: None, reads: Vec::new() }
    }

    pub fn scan(
        &mut self,
        table: usize,
        view: u32,
        range: (Bound<Key>, Bound<Key>),
    ) -> Result<Box<dyn Scanned>> {
        Ok(self.handle(table, view)?.scan(range))
    }

    fn handle(&mut self, table: usize, view: u32) -> Result<Arc<dyn Handle>> {
        if let Some(handle) = self.handles.get(&(table, view)) {
            return Ok(Arc::clone(handle));
        }
        let handle = at_view!(table, view, open_handle(&self.store, TABLES[table]))?;
        self.code[table] = self.code[table].max(view);
        self.handles.insert((table, view), Arc::clone(&handle));
        Ok(handle)
    }

    pub fn get(&mut self, table: usize, key: Key, view: u32) -> Result<Option<Row>> {
        self.handle(table, view)?.get(key)
    }

    fn migration(&self, index: usize) -> Result<Migration> {
        self.store.migration(&migration_name(index))
    }

    /// Makes a write or a verb.
    pub fn make(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Put { table, key, view, row } => self.handle(*table, *view)?.put(*key, *row),
            Op::Remove { table, key, view } => self.handle(*table, *view)?.remove(*key),
            Op::Begin { index, tables, one_way } => {
                let mut handles = Vec::new();
                for (table, to) in tables {
                    handles.push(self.handle(*table, *to)?);
                }
                let plan = self.store.plan(&migration_name(*index)).paused();
                let plan = if *one_way { plan.one_way() } else { plan };
                handles.iter().fold(plan, |plan, handle| handle.plan(plan)).begin().map(drop)
            }
            Op::Update { at: (table, key, view), row, insert } => {
                self.handle(*table, *view)?.update(*key, *row, *insert)
            }
            Op::Swap { at: (table, key, view), old, new } => {
                self.swapped = Some(self.handle(*table, *view)?.swap(*key, *old, *new)?);
                Ok(())
            }
            Op::Batch { writes } => {
                let mut batch = self.store.batch();
                for Write { table, key, view, row } in writes {
                    self.handle(*table, *view)?.batch(&mut batch, *key, *row);
                }
                batch.commit()
            }
            Op::Transaction { reads, writes } => {
                let mut handles = Vec::new();
                let views = reads.iter().map(|(table, _, view)| (*table, *view));
                for (table, view) in views.chain(writes.iter().map(|write| (write.table, write.view))) {
                    handles.push(self.handle(table, view)?);
                }
                let (readers, writers) = handles.split_at(reads.len());
                self.reads = self.store.transaction(|tx| -> Result<Vec<Option<Row>>> {
                    let mut found = Vec::new();
                    for (reader, (_, key, _)) in readers.iter().zip(reads) {
                        found.push(reader.read_in(tx, *key)?);
                    }
                    for (writer, write) in writers.iter().zip(writes) {
                        writer.write_in(tx, write.key, write.row)?;
                    }
                    Ok(found)
                })?;
                Ok(())
            }
            Op::Pause { index, paused: true } => self.migration(*index)?.pause(),
            Op::Pause { index, paused: false } => self.migration(*index)?.unpause(),
            Op::Retune { index, pause_us } => {
                let pause = Duration::from_micros(u64::from(*pause_us));
                self.migration(*index)?.set_budget(Budget::default().pause_max(pause).core_share(1.0))
            }
            Op::Rollback { index, fenced: false } => self.migration(*index)?.rollback(),
            Op::Rollback { index, fenced: true } => self.migration(*index)?.rollback_fenced(),
            Op::Resume { index } => self.migration(*index)?.resume(),
            Op::Restart { index } => self.migration(*index)?.restart(),
            Op::Contract { index, .. } => self.migration(*index)?.contract()?.execute(),
            Op::Abandon { index, keep } => self.migration(*index)?.abandon(Op::writes(*keep))?.execute(),
            Op::Flush => self.store.flush(),
            _ => unreachable!("{op:?}"),
        }
    }

    /// Waits for what closed migrations left behind, so that a case is the same each time that it is run.
    pub fn settle(&self) {
        while self.store.is_sweeping() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Everything that a store shows.
pub struct Seen {
    answers: HashMap<(usize, Key, u32), Answer>,
    ledger: Vec<(String, String)>,
    frames: Vec<(Found, bool, bool)>,
    /// By migration and table: base records that are said to be copied.
    copied: Vec<Vec<(String, u64)>>,
}

/// What the background notes in its own time.
const UNTIMED: [&str; 3] = ["complete", "reopen", "sweep"];

pub fn see(opened: &mut Opened, keys: Key) -> Seen {
    let mut answers = HashMap::new();
    // Old views first: they must not need the code of newer ones.
    for (table, newest) in NEWEST.into_iter().enumerate() {
        for view in 1..=newest {
            for key in 0..keys {
                answers.insert((table, key, view), answer(&opened.get(table, key, view)));
            }
        }
    }
    let ledger = opened.store.ledger().expect("the ledger's chain holds");
    let ledger = ledger.into_iter().map(|entry| (entry.what, entry.subject));
    let ledger = ledger.filter(|(what, _)| !UNTIMED.contains(&what.as_str())).collect();
    let (mut frames, mut copied) = (Vec::new(), Vec::new());
    while let Ok(migration) = opened.migration(frames.len()) {
        let status = migration.status().expect("a status");
        frames.push((status.phase, status.one_way, status.fenced));
        copied.push(status.tables.iter().map(|of| (of.table.clone(), of.counts.copied)).collect());
    }
    Seen { answers, ledger, frames, copied }
}

fn is_phase(phase: Phase, found: Found) -> bool {
    match phase {
        Phase::Forward => matches!(found, Found::Open | Found::Complete),
        Phase::RolledBack => found == Found::RolledBack,
        Phase::Contracted => found == Found::Contracted,
        Phase::Abandoned => found == Found::Abandoned,
    }
}

impl Seen {
    /// What does not fit, if anything; narrows the world otherwise.
    pub fn fit(&self, world: &mut World) -> Option<String> {
        let ledger: Vec<(&str, &str)> =
            self.ledger.iter().map(|(what, subject)| (what.as_str(), subject.as_str())).collect();
        let expected: Vec<(&str, &str)> =
            world.ledger.iter().map(|(what, subject)| (*what, subject.as_str())).collect();
        if ledger != expected {
            return Some(format!("the ledger is {ledger:?} and not {expected:?}"));
        }
        let same = world.migrations.len() == self.frames.len()
            && world.migrations.iter().zip(&self.frames).all(|(m, (phase, one_way, fenced))| {
                is_phase(m.phase, *phase) && m.one_way == *one_way && m.fenced == *fenced
            });
        if !same {
            return Some(format!("the migrations are {:?} and not {:?}", self.frames, world.migrations));
        }
        for (index, copied) in self.copied.iter().enumerate() {
            for (table, copied) in copied {
                let (_, at_most) = world.base_of(index, table);
                if *copied > at_most {
                    return Some(format!(
                        "m{index}: {copied} records of {at_most} in table {table} are copied"
                    ));
                }
            }
        }
        let mut answers: Vec<_> = self.answers.iter().collect();
        answers.sort_by_key(|(at, _)| **at);
        for ((table, key, view), answer) in answers {
            let expected = world.read(*table, *key, *view);
            if !world.narrow(*table, *key, *view, answer) {
                return Some(format!(
                    "table {}, key {key}, view {view}: {answer:?} and not {expected:?}",
                    TABLES[*table]
                ));
            }
        }
        None
    }
}

pub struct Sut {
    setup: Setup,
    medium: Medium,
    opened: Option<Opened>,
    pub world: World,
    /// The worlds since all was last known to be durable, oldest first; the last is the present one.
    history: Vec<World>,
    /// What survives the death that is coming.
    doom: (u8, Option<u64>),
    /// What became of the last operation.
    pub outcome: Outcome,
}

/// What became of an operation, as far as another process has to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// It was made, and not refused.
    pub made: bool,
    /// The backfill said that it was complete.
    pub complete: bool,
}

impl Sut {
    pub fn new(setup: &Setup, medium: Medium) -> Self {
        medium.stage(Stage::Create);
        let mut opened = Opened::open(&medium, setup).expect("a new store opens");
        for (table, version) in setup.versions.into_iter().enumerate() {
            opened.handle(table, version).expect("a table can be created");
        }
        let world = World::new(setup.versions);
        let history = vec![world.clone()];
        let setup = setup.clone();
        let fill = setup.fill.clone();
        let outcome = Outcome::default();
        let mut sut = Sut { setup, medium, opened: Some(opened), world, history, doom: (0, None), outcome };
        for (table, key, a, b, c) in fill {
            let view = sut.setup.versions[table];
            sut.apply(&Op::Put { table, key, view, row: op::row(table, view, [a, b, c]) });
        }
        sut
    }

    /// The store that another process left when it died, which has to be one of the candidates.
    /// Answers how many of them are newer than what it is, too.
    pub fn found(setup: &Setup, medium: Medium, candidates: Vec<World>) -> (Self, usize) {
        let world = World::new(setup.versions);
        let (setup, outcome) = (setup.clone(), Outcome::default());
        let mut sut =
            Sut { setup, medium, opened: None, world, history: Vec::new(), doom: (0, None), outcome };
        let newer = sut.come_back(candidates, false);
        (sut, newer)
    }

    fn opened(&mut self) -> &mut Opened {
        self.opened.as_mut().expect("open")
    }

    pub fn apply(&mut self, op: &Op) {
        self.outcome = Outcome::default();
        let Some(op) = op::clip(op.clone(), &self.world) else {
            return;
        };
        self.medium.stage(Stage::of(&op));
        self.world.time_passes();
        match &op {
            Op::Get { table, key, view } => {
                let read = self.opened().get(*table, *key, *view);
                if self.died(Vec::new()) {
                    return;
                }
                self.expect_read(*table, *key, *view, &read);
            }
            Op::Len { table, view } => self.len(*table, *view),
            Op::Scan { table, view, from, to, inclusive, ends } => {
                let to = if *inclusive { Bound::Included(*to) } else { Bound::Excluded(*to) };
                self.scan(*table, *view, (Bound::Included(*from), to), ends);
            }
            Op::Step { index, records } => self.step(*index, *records, false),
            Op::Finish { index, records } => self.step(*index, *records, true),
            Op::Background { index } => self.background(*index),
            Op::Reopen => self.reopen(),
            Op::Crash { share, any } => self.crash(*share, *any, Vec::new()),
            Op::Doom { writes, share, any } => {
                self.doom = (*share, *any);
                if let Medium::Memory(engine) = &self.medium {
                    engine.doom(*writes);
                }
            }
            _ => self.verb(&op),
        }
        self.world.time_passes();
        self.medium.stage(Stage::Idle);
    }

    fn verb(&mut self, op: &Op) {
        self.medium.stage(Stage::of(op));
        if let Op::Contract { index, code: true } = op {
            for step in self.world.migrations[*index].steps.clone() {
                // Refused if a later migration has retired this view; then the contract is refused too.
                drop(self.opened().handle(step.table, step.to));
            }
        }
        let made = self.opened().make(op);
        let code = self.opened().code;
        let swapped = self.opened().swapped.take();
        let plan_in = |world: &World| match op {
            Op::Swap { at, old, new } => world.swap(*at, *old, *new, swapped),
            Op::Flush => Plan { refusals: Vec::new(), after: Some(world.clone()), between: Vec::new() },
            _ => op::plan(world, op, code).unwrap_or_else(|| unreachable!("{op:?}")),
        };
        let plan = plan_in(&self.world);
        if self.died(self.in_flight(plan_in)) {
            return;
        }
        match (made, plan.after) {
            (Ok(()), Some(after)) => {
                self.outcome.made = true;
                let before = std::mem::replace(&mut self.world, after);
                if let Op::Transaction { reads, .. } = op {
                    let found = std::mem::take(&mut self.opened().reads);
                    for ((table, key, view), found) in reads.iter().zip(found) {
                        let expected = before.read(*table, *key, *view);
                        let fits = expected.contains(&answer(&Ok(found)));
                        assert!(fits, "a transaction read {found:?} of key {key} and not {expected:?}");
                    }
                }
                let durable = !op.is_write() && !matches!(op, Op::Retune { .. });
                self.remember(self.setup.every_write || durable);
            }
            (Ok(()), None) => panic!("{op:?} was made and had to be refused: {:?}", plan.refusals),
            (Err(e), _) => {
                assert!(
                    plan.refusals.contains(&refusal(&e)),
                    "{op:?} was refused ({e}); allowed refusals: {:?}",
                    plan.refusals
                );
            }
        }
        if matches!(op, Op::Contract { .. } | Op::Abandon { .. } | Op::Begin { .. }) {
            self.opened().settle();
            self.died(Vec::new());
        }
    }

    /// What a verb that is under way may come to. If any selection of writes may be lost, its own may be kept and
    /// those before it be lost.
    fn in_flight(&self, plan: impl Fn(&World) -> Plan) -> Vec<World> {
        let past = if self.doom.1.is_some() { self.history.as_slice() } else { &[] };
        let plans = past.iter().chain([&self.world]).map(plan);
        plans.flat_map(|plan| plan.after.into_iter().chain(plan.between)).collect()
    }

    fn remember(&mut self, durable: bool) {
        if durable {
            self.history.clear();
        }
        self.history.push(self.world.clone());
    }

    fn expect_read(&mut self, table: usize, key: Key, view: u32, read: &Result<Option<Row>>) {
        let expected = self.world.read(table, key, view);
        let fits = self.world.narrow(table, key, view, &answer(read));
        assert!(fits, "table {}, key {key}, view {view}: {read:?} and not {expected:?}", TABLES[table]);
    }

    fn len(&mut self, table: usize, view: u32) {
        let len = self.opened().handle(table, view).and_then(|handle| handle.len());
        if self.died(Vec::new()) {
            return;
        }
        let (count, may_fail) = self.world.len(table, view);
        match len {
            Ok(len) => assert_eq!(Some(len), count, "len of table {} at {view}", TABLES[table]),
            Err(e) => assert!(may_fail, "len of table {} at {view}: {e}", TABLES[table]),
        }
    }

    fn scan(&mut self, table: usize, view: u32, range: (Bound<Key>, Bound<Key>), ends: &Ends) {
        let keys = self.world.keys(table).into_iter().filter(|key| {
            let low = matches!(range.0, Bound::Included(low) if *key >= low);
            low && match range.1 {
                Bound::Included(high) => *key <= high,
                Bound::Excluded(high) => *key < high,
                Bound::Unbounded => true,
            }
        });
        let absent = [Answer::Absent];
        let mut left: std::collections::VecDeque<Key> =
            keys.filter(|key| self.world.read(table, *key, view) != absent).collect();
        let mut scan = match self.opened().scan(table, view, range) {
            Ok(scan) => scan,
            Err(e) => {
                if !self.died(Vec::new()) {
                    assert!(view < self.world.tables[table].stored, "{e}");
                }
                return;
            }
        };
        let mut turn = 0;
        loop {
            let back = match ends {
                Ends::Forward => false,
                Ends::Backward => true,
                Ends::Both(bits) => bits >> (turn % 64) & 1 == 1,
            };
            turn += 1;
            let next = scan.next(back);
            if self.died(Vec::new()) {
                return;
            }
            let key = if back { left.pop_back() } else { left.pop_front() };
            match (next, key) {
                (Some(Ok((found, row))), Some(key)) => {
                    assert_eq!(found, key, "the scan's next key (view {view}, back {back}, turn {turn})");
                    self.expect_read(table, key, view, &Ok(Some(row)));
                }
                (Some(Err(e)), key) => {
                    let refused = Answer::Refused(refusal(&e));
                    let retired = view < self.world.tables[table].stored;
                    // From both ends, an error ends the scan as soon as it is met, by whichever end.
                    left.extend(key);
                    let mixed = matches!(ends, Ends::Both(_));
                    let mut met = left.iter().filter(|at| mixed || Some(**at) == key);
                    let known = met.any(|at| self.world.read(table, *at, view).contains(&refused));
                    assert!(known || retired, "the scan ended with {e}");
                    assert!(
                        scan.next(back).is_none() && scan.next(!back).is_none(),
                        "an error is the last item"
                    );
                    return;
                }
                (None, None) => {
                    assert!(scan.next(!back).is_none());
                    return;
                }
                (next, key) => panic!("a scan at view {view} answered {next:?} where {key:?} was expected"),
            }
        }
    }

    /// Steps once, or until the store says that the backfill is complete.
    fn step(&mut self, index: usize, records: usize, to_the_end: bool) {
        for round in 0.. {
            assert!(round < 2000, "the backfill does not end");
            let opened = self.opened();
            let stepped = opened.migration(index).and_then(|migration| migration.step(records));
            let code = opened.code;
            let before = self.world.migrations[index].clone();
            let refused = self.world.step_refused(index, code) || !before.paused;
            if !refused {
                self.world.stepped(index, records, false);
            }
            if self.died(Vec::new()) {
                return;
            }
            let status = match stepped {
                Ok(status) => status,
                Err(e) => {
                    assert!(refused && refusal(&e) == Refusal::State, "step was refused: {e}");
                    return;
                }
            };
            assert!(!refused, "step had to be refused");
            let complete = status.phase == Found::Complete;
            let early = before.copied == Sure::No && before.stepped + records < before.to_copy;
            assert!(!complete || !early, "complete after {} records: {status:?}", before.stepped + records);
            self.world.stepped(index, 0, complete);
            self.outcome = Outcome { made: true, complete };
            if complete {
                self.nothing_is_behind(index);
            }
            if complete || !to_the_end {
                return;
            }
        }
    }

    /// What `complete` claims.
    fn nothing_is_behind(&mut self, index: usize) {
        let inventories = self.opened().store.inventory();
        if self.died(Vec::new()) {
            return;
        }
        for inventory in inventories.expect("an inventory") {
            let steps = self.world.migrations[index].steps.iter();
            for step in steps.filter(|step| !step.light && TABLES[step.table] == inventory.table) {
                let behind: u64 = inventory.records.range(..step.to).map(|(_, count)| count).sum();
                assert!(behind <= inventory.quarantined, "complete, and left behind: {inventory:?}");
            }
        }
        self.everything_is_counted(index);
    }

    /// Every record of the base was copied once, however often the process died on the way; the ledger says the same.
    fn everything_is_counted(&mut self, index: usize) {
        let store = &self.opened().store;
        let status = store.migration(&migration_name(index)).and_then(|migration| migration.status());
        let ledger = store.ledger();
        if self.died(Vec::new()) {
            return;
        }
        let name = migration_name(index);
        let ledger = ledger.expect("the ledger's chain holds");
        let of_it = |what: &str| ledger.iter().rposition(|entry| entry.what == what && entry.subject == name);
        let told = of_it("complete").filter(|at| of_it("restart").is_none_or(|restart| restart < *at));
        for of in status.expect("a status").tables {
            let (at_least, at_most) = self.world.base_of(index, &of.table);
            let fits = at_least..=at_most;
            assert!(fits.contains(&of.counts.copied), "{name}: {of:?}, and the base has {fits:?} records");
            let counts = told.map(|at| ledger[at].counts.iter());
            let told = counts
                .and_then(|mut of_name| of_name.find(|(what, _)| *what == format!("{} copied", of.table)));
            assert!(
                told.is_none_or(|(_, told)| fits.contains(told)),
                "{name}: the ledger says {told:?} of {fits:?}"
            );
        }
    }

    /// Brings the copies to an end that death cut short.
    pub fn finish(&mut self) {
        for index in 0..self.world.migrations.len() {
            let migration = self.world.migrations[index].clone();
            if migration.phase != Phase::Forward {
                continue;
            }
            for step in migration.steps {
                self.opened().handle(step.table, step.to).expect("the code of an open migration");
            }
            self.apply(&Op::Finish { index, records: 5 });
        }
    }

    /// The background worker, from unpause to pause.
    fn background(&mut self, index: usize) {
        let start = self.world.pause(index, false);
        self.medium.stage(Stage::Unpause);
        let made = self.opened().migration(index).and_then(|migration| migration.unpause());
        if self.died(self.in_flight(|world| world.pause(index, false))) {
            return;
        }
        let Some(running) = start.after else {
            assert_eq!(made.map_err(|e| refusal(&e)), Err(Refusal::State));
            return;
        };
        made.expect("unpause");
        let copied = running.migrations[index].copied;
        self.world = running;
        self.remember(true);
        self.world.stepped(index, usize::MAX, false);
        self.medium.stage(Stage::Worker);
        let opened = self.opened();
        let code = opened.code;
        let waited = opened.migration(index).and_then(|migration| migration.wait());
        if self.died(Vec::new()) {
            return;
        }
        // What was complete when the store was closed needs no code to be complete.
        assert!(
            waited.is_ok() && copied != Sure::No || waited.is_err() == self.world.step_refused(index, code),
            "{waited:?}"
        );
        let complete = waited.is_ok();
        let stop = self.world.pause(index, true);
        self.medium.stage(Stage::Pause);
        let made = self.opened().migration(index).and_then(|migration| migration.pause());
        if self.died(self.in_flight(|world| world.pause(index, true))) {
            return;
        }
        made.expect("pause");
        self.world = stop.after.expect("open");
        self.outcome = Outcome { made: true, complete };
        if complete {
            self.world.stepped(index, usize::MAX, true);
            self.nothing_is_behind(index);
        }
        self.remember(true);
    }

    fn reopen(&mut self) {
        self.medium.stage(Stage::Close);
        self.opened = None;
        if self.died(Vec::new()) {
            return;
        }
        self.remember(true);
        self.medium.stage(Stage::Open);
        let opened = Opened::open(&self.medium, &self.setup);
        if let Ok(opened) = &opened {
            opened.settle();
        }
        if !self.died(Vec::new()) {
            self.opened = Some(opened.expect("a closed store opens"));
            self.verify();
        }
    }

    /// Whether the death that was announced has come; then the power is off too, and the store comes back.
    fn died(&mut self, in_flight: Vec<World>) -> bool {
        let Medium::Memory(engine) = &self.medium else {
            return false;
        };
        if !engine.is_dead() {
            return false;
        }
        let (share, any) = self.doom;
        self.crash(share, any, in_flight);
        true
    }

    /// The store as a loss of power leaves it, against all that it may be.
    fn crash(&mut self, share: u8, any: Option<u64>, in_flight: Vec<World>) {
        let Medium::Memory(engine) = self.medium.clone() else {
            return;
        };
        engine.kill();
        self.opened = None;
        let unflushed = engine.inner.unflushed();
        let kept = unflushed * (usize::from(share) + 1) / 256;
        let image = engine.inner.crash_image(|write| match any {
            None => write < kept,
            Some(seed) => mix(seed ^ write as u64) % 256 <= u64::from(share),
        });
        self.medium = Medium::Memory(Doomed::new(image));
        let mut candidates = std::mem::take(&mut self.history);
        candidates.extend(in_flight);
        // How far the backfill has come is no part of what is lost and found: only what is sure stays so.
        for (index, migration) in self.world.migrations.iter().enumerate() {
            if migration.copied != Sure::No {
                let past = candidates.iter_mut().filter_map(|world| world.migrations.get_mut(index));
                past.for_each(|migration| migration.copied = Sure::Perhaps);
            }
        }
        self.come_back(candidates, any.is_some());
    }

    /// Opens what a crash left and finds out which of the candidates it is.
    /// Answers how many of them are newer than it.
    pub fn come_back(&mut self, mut candidates: Vec<World>, any: bool) -> usize {
        if any {
            candidates = by_frame(candidates);
        }
        let mut opened = Opened::open(&self.medium, &self.setup).expect("a store opens after a crash");
        // A fold goes on by itself.
        for index in 0.. {
            let Ok(migration) = opened.migration(index) else {
                break;
            };
            if migration.status().expect("a status").phase == Found::Folding {
                migration.wait().expect("a fold that goes on");
            }
        }
        opened.settle();
        let seen = see(&mut opened, self.setup.keys);
        let mut why = Vec::new();
        let mut fitting = Vec::new();
        let mut newer = 0;
        for mut world in candidates {
            newer += 1;
            match seen.fit(&mut world) {
                None => {
                    fitting.push(world);
                    newer = 0;
                }
                Some(reason) => why.push(reason),
            }
        }
        let Some(mut world) = fitting.pop() else {
            panic!("after a crash the store is none of what it may be:\n{}", why.join("\n"));
        };
        fitting.iter().for_each(|other| world.join(other));
        self.world = world;
        for index in 0..self.world.migrations.len() {
            if !self.world.migrations[index].paused
                && let Some(paused) = self.world.pause(index, true).after
            {
                opened.migration(index).and_then(|m| m.pause()).expect("pause");
                self.world = paused;
                self.world.migrations[index].copied = Sure::Perhaps;
            }
        }
        self.opened = Some(opened);
        self.verify();
        // Again, so that what comes next does not have the newest code already.
        self.opened = None;
        self.opened = Some(Opened::open(&self.medium, &self.setup).expect("a closed store opens"));
        self.history.clear();
        self.remember(true);
        newer
    }

    fn verify(&mut self) {
        let store = &self.opened().store;
        let (report, ledger) = (store.verify(), store.ledger());
        let inventories = store.inventory();
        if self.died(Vec::new()) {
            return;
        }
        for inventory in inventories.expect("an inventory") {
            let table = TABLES.iter().position(|name| *name == inventory.table).expect("a table of ours");
            if let Some(live) = self.world.live(table) {
                let counted: u64 = inventory.records.values().sum();
                assert_eq!(counted, live, "the inventory does not add up: {inventory:?}");
            }
            assert_eq!(inventory.damaged, 0, "{inventory:?}");
        }
        let report = report.expect("a report");
        assert!(report.is_clean(), "{:?}", report.damage);
        ledger.expect("the ledger's chain holds");
    }

    /// Everything, at every view.
    pub fn end(&mut self) {
        let keys = self.setup.keys;
        let seen = see(self.opened(), keys);
        if self.died(Vec::new()) {
            return self.end();
        }
        if let Some(reason) = seen.fit(&mut self.world) {
            panic!("at the end: {reason}");
        }
        self.verify();
        if !self.died(Vec::new()) {
            self.reopen();
        }
    }
}

/// One candidate for each frame, that allows for each record what any of them does: a loss of any selection of
/// writes takes each key back by itself.
fn by_frame(candidates: Vec<World>) -> Vec<World> {
    let mut frames: Vec<World> = Vec::new();
    let mut pending = candidates;
    while let Some(mut world) = pending.pop() {
        pending.retain(|other| {
            let same = world.same_frame(other);
            if same {
                world.join(other);
            }
            !same
        });
        frames.push(world);
    }
    frames
}

pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
