//! A store with two keys, what threads do to it, and the history of that.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use exuvia::migration::NewWrites;
use exuvia::{Error, Migration, Result, Store, Table};

use super::model::{Access, KEYS, Op, Rec, State, Verb};
use super::types::{Seen, V1, V2, V3};
use super::{Event, check};

/// Where the two keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    OneTable,
    TwoTables,
}

impl Layout {
    fn names(self) -> &'static [&'static str] {
        match self {
            Layout::OneTable => &["a"],
            Layout::TwoTables => &["a", "b"],
        }
    }
}

/// What one thread does next.
#[derive(Debug, Clone)]
pub enum Action {
    Get {
        key: usize,
        view: u32,
    },
    Put {
        key: usize,
        view: u32,
        bare: bool,
    },
    Remove {
        key: usize,
        view: u32,
    },
    Update {
        key: usize,
        view: u32,
    },
    InsertIfAbsent {
        key: usize,
        view: u32,
    },
    /// Reads, and then replaces what was read.
    Swap {
        key: usize,
        view: u32,
    },
    Scan {
        view: u32,
        reverse: bool,
    },
    Transaction(Vec<Part>),
    Batch(Vec<(usize, u32, bool)>),
    Verb(Verb),
    /// Waits for the backfill.
    Wait,
    Flush,
    Close,
}

/// A part of a transaction.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    Read { key: usize, view: u32 },
    Put { key: usize, view: u32 },
    Remove { key: usize, view: u32 },
}

pub struct Tables {
    v1: Vec<Table<u64, V1>>,
    v2: Vec<Table<u64, V2>>,
    v3: Vec<Table<u64, V3>>,
}

pub struct World {
    pub store: Store,
    layout: Layout,
    tables: Tables,
    log: Arc<Log>,
    migrations: AtomicU32,
    current: Mutex<Option<Migration>>,
}

/// What happened, by a clock that every call and return moves.
#[derive(Default)]
pub struct Log {
    clock: AtomicU64,
    ids: AtomicU32,
    events: Mutex<Vec<Event<Op>>>,
    wrong: Mutex<Vec<String>>,
}

impl Log {
    pub fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn add(&self, who: &str, op: Op, call: u64, ret: Option<u64>) {
        self.events.lock().expect("no panic in here").push(Event { who: who.to_owned(), op, call, ret });
    }

    /// Something that no order of operations explains.
    pub fn wrong(&self, what: String) {
        self.wrong.lock().expect("no panic in here").push(what);
    }

    pub fn events(&self) -> Vec<Event<Op>> {
        self.events.lock().expect("no panic in here").clone()
    }

    /// Takes the history so far.
    pub fn take(&self) -> Vec<Event<Op>> {
        std::mem::take(&mut self.events.lock().expect("no panic in here"))
    }

    pub fn check_nothing_wrong(&self) -> std::result::Result<(), String> {
        let wrong = self.wrong.lock().expect("no panic in here");
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn fresh(&self, view: u32, bare: bool) -> Rec {
        let id = self.ids.fetch_add(1, Ordering::SeqCst) + 1;
        let field = if bare { 0 } else { id };
        Rec { id, note: id, extra: field, more: field }.at(view)
    }
}

/// Runs with the table handles of a view.
macro_rules! at_view {
    ($tables:expr, $view:expr, |$handles:ident| $body:expr) => {
        match $view {
            1 => {
                let $handles = &$tables.v1;
                $body
            }
            2 => {
                let $handles = &$tables.v2;
                $body
            }
            _ => {
                let $handles = &$tables.v3;
                $body
            }
        }
    };
}

fn read(key: usize, view: u32, seen: Option<Rec>) -> Access {
    Access::Read { key, view, seen }
}

/// What may be refused, by the rules of a view or because somebody was faster; nothing was written then.
fn is_refusal(e: &Error) -> bool {
    matches!(e, Error::Version { .. } | Error::State { .. } | Error::Conflict { .. } | Error::Closed)
}

impl World {
    /// Two keys of which the first is there. `newer`: code of version 3 is open, too.
    pub fn new(store: Store, layout: Layout, newer: bool, log: Arc<Log>) -> Result<World> {
        let names = layout.names();
        let tables = Tables {
            v1: names.iter().map(|name| store.table(name)).collect::<Result<_>>()?,
            v2: names.iter().map(|name| store.table(name)).collect::<Result<_>>()?,
            v3: if newer {
                names.iter().map(|name| store.table(name)).collect::<Result<_>>()?
            } else {
                Vec::new()
            },
        };
        Ok(World { store, layout, tables, log, migrations: AtomicU32::new(0), current: Mutex::new(None) })
    }

    /// The same store, opened again, by all code that may still look at it.
    pub fn reopened(store: Store, layout: Layout, log: Arc<Log>) -> Result<World> {
        fn all<V: Seen>(store: &Store, layout: Layout) -> Result<Vec<Table<u64, V>>> {
            match layout.names().iter().map(|name| store.table(name)).collect() {
                // Below the floor.
                Err(Error::Version { .. }) => Ok(Vec::new()),
                opened => opened,
            }
        }
        let tables = Tables { v1: all(&store, layout)?, v2: all(&store, layout)?, v3: all(&store, layout)? };
        Ok(World { store, layout, tables, log, migrations: AtomicU32::new(100), current: Mutex::new(None) })
    }

    fn place(&self, key: usize) -> (usize, u64) {
        match self.layout {
            Layout::OneTable => (0, key as u64),
            Layout::TwoTables => (key, 0),
        }
    }

    fn keys_of(&self, table: usize) -> std::ops::Range<usize> {
        match self.layout {
            Layout::OneTable => 0..KEYS,
            Layout::TwoTables => table..table + 1,
        }
    }

    /// Puts records that are there before anything else happens; not part of the history.
    pub fn load(&self, keys: [bool; KEYS]) -> Result<State> {
        let mut recs = [None; KEYS];
        for (key, rec) in recs.iter_mut().enumerate().filter(|(key, _)| keys[*key]) {
            let (table, number) = self.place(key);
            let new = self.log.fresh(1, false);
            self.tables.v1[table].put(&number, &V1::of(new))?;
            *rec = Some(new);
        }
        Ok(State::new(recs))
    }

    /// Makes `action` and adds it to the history. A panic if it ends in an error that nothing explains.
    pub fn act(&self, who: &str, action: &Action) {
        let call = self.log.now();
        let done = self.make(who, action, call);
        let ret = self.log.now();
        match done {
            Ok(Some(op)) => self.log.add(who, op, call, Some(ret)),
            Ok(None) => {}
            Err(e) => {
                if let (Action::Verb(verb), Error::Closed) | (Action::Verb(verb @ Verb::AbandonKeep), _) =
                    (action, &e)
                {
                    // Its commit may have been made, and what came after it was refused.
                    self.log.add(who, Op::Verb(*verb), call, None);
                }
                if !is_refusal(&e) {
                    self.log.wrong(format!("{who}: {action:?}, called at {call}: {e}"));
                }
            }
        }
    }

    fn make(&self, who: &str, action: &Action, call: u64) -> Result<Option<Op>> {
        let one = |access| Ok(Some(Op::All(vec![access])));
        match *action {
            Action::Get { key, view } => one(read(key, view, self.get(key, view)?)),
            Action::Put { key, view, bare } => {
                let rec = self.log.fresh(view, bare);
                let (table, number) = self.place(key);
                at_view!(self.tables, view, |t| t[table].put(&number, &Seen::of(rec)))?;
                one(Access::Write { key, view, rec })
            }
            Action::Remove { key, view } => {
                let (table, number) = self.place(key);
                at_view!(self.tables, view, |t| t[table].remove(&number))?;
                one(Access::Remove { key, view })
            }
            Action::Update { key, view } => {
                let rec = self.log.fresh(view, false);
                let (table, number) = self.place(key);
                let mut seen = None;
                at_view!(self.tables, view, |t| {
                    let replace = |old: Option<_>| {
                        seen = old.as_ref().map(Seen::rec);
                        Some(Seen::of(rec))
                    };
                    t[table].update(&number, replace).map(|_| ())
                })?;
                Ok(Some(Op::All(vec![read(key, view, seen), Access::Write { key, view, rec }])))
            }
            Action::InsertIfAbsent { key, view } => {
                let rec = self.log.fresh(view, false);
                let (table, number) = self.place(key);
                let inserted =
                    at_view!(self.tables, view, |t| t[table].insert_if_absent(&number, &Seen::of(rec)))?;
                if inserted {
                    Ok(Some(Op::All(vec![read(key, view, None), Access::Write { key, view, rec }])))
                } else {
                    one(Access::Differs { key, view, from: None })
                }
            }
            Action::Swap { key, view } => {
                let from = self.get(key, view)?;
                let between = self.log.now();
                self.log.add(who, Op::All(vec![read(key, view, from)]), call, Some(between));
                let rec = self.log.fresh(view, false);
                let (table, number) = self.place(key);
                let swapped = at_view!(self.tables, view, |t| t[table].compare_and_swap(
                    &number,
                    from.map(Seen::of).as_ref(),
                    Some(&Seen::of(rec))
                ))?;
                if swapped {
                    Ok(Some(Op::All(vec![read(key, view, from), Access::Write { key, view, rec }])))
                } else {
                    one(Access::Differs { key, view, from })
                }
            }
            Action::Scan { view, reverse } => {
                for table in 0..self.layout.names().len() {
                    let begun = self.log.now();
                    let found: Vec<(u64, Rec)> = at_view!(self.tables, view, |t| {
                        let rec =
                            |found: Result<(u64, _)>| found.map(|(key, record)| (key, Seen::rec(&record)));
                        let scan = t[table].scan(..);
                        if reverse {
                            scan.rev().map(rec).collect::<Result<Vec<_>>>()
                        } else {
                            scan.map(rec).collect::<Result<Vec<_>>>()
                        }
                    })?;
                    let ended = self.log.now();
                    let distinct: HashSet<u64> = found.iter().map(|(key, _)| *key).collect();
                    if distinct.len() != found.len() {
                        self.log.wrong(format!("{who}: a scan gave a key twice: {found:?}"));
                    }
                    for key in self.keys_of(table) {
                        let number = self.place(key).1;
                        let seen = found.iter().find(|(found, _)| *found == number).map(|(_, rec)| *rec);
                        // Each record of a scan is of a moment of its own.
                        self.log.add(who, Op::All(vec![read(key, view, seen)]), begun, Some(ended));
                    }
                }
                Ok(None)
            }
            Action::Transaction(ref parts) => Ok(Some(Op::All(self.transaction(parts)?))),
            Action::Batch(ref writes) => {
                let mut batch = self.store.batch();
                let mut accesses = Vec::new();
                for (key, view, remove) in writes.iter().copied() {
                    let (table, number) = self.place(key);
                    if remove {
                        at_view!(self.tables, view, |t| batch.remove(&t[table], &number));
                        accesses.push(Access::Remove { key, view });
                    } else {
                        let rec = self.log.fresh(view, true);
                        at_view!(self.tables, view, |t| batch.put(&t[table], &number, Seen::of(rec)));
                        accesses.push(Access::Write { key, view, rec });
                    }
                }
                batch.commit()?;
                Ok(Some(Op::All(accesses)))
            }
            Action::Verb(verb) => {
                self.verb(verb)?;
                Ok(Some(Op::Verb(verb)))
            }
            Action::Wait => {
                // Whether it came to an end depends on what others do to it.
                let _status = self.migration()?.wait();
                Ok(None)
            }
            Action::Flush => self.store.flush().map(|()| None),
            Action::Close => self.store.clone().close().map(|()| None),
        }
    }

    fn get(&self, key: usize, view: u32) -> Result<Option<Rec>> {
        let (table, number) = self.place(key);
        at_view!(self.tables, view, |t| Ok(t[table].get(&number)?.map(|record| record.rec())))
    }

    fn transaction(&self, parts: &[Part]) -> Result<Vec<Access>> {
        self.store.transaction(|tx| {
            let mut accesses = Vec::new();
            for part in parts.iter().copied() {
                accesses.push(match part {
                    Part::Read { key, view } => {
                        let (table, number) = self.place(key);
                        let seen = at_view!(self.tables, view, |t| {
                            tx.get(&t[table], &number)?.map(|record| record.rec())
                        });
                        read(key, view, seen)
                    }
                    Part::Put { key, view } => {
                        let (table, number) = self.place(key);
                        let rec = self.log.fresh(view, true);
                        at_view!(self.tables, view, |t| tx.put(&t[table], &number, &Seen::of(rec)))?;
                        Access::Write { key, view, rec }
                    }
                    Part::Remove { key, view } => {
                        let (table, number) = self.place(key);
                        at_view!(self.tables, view, |t| tx.remove(&t[table], &number))?;
                        Access::Remove { key, view }
                    }
                });
            }
            Ok(accesses)
        })
    }

    /// The migration that was begun last.
    fn migration(&self) -> Result<Migration> {
        let current = self.current.lock().expect("no panic in here").clone();
        if let Some(migration) = current {
            return Ok(migration);
        }
        let open = self.store.migrations()?.into_iter().find(|status| !status.phase.is_closed());
        self.store.migration(&open.map_or_else(|| "none".to_owned(), |status| status.name))
    }

    fn verb(&self, verb: Verb) -> Result<()> {
        match verb {
            Verb::Begin { to } => {
                let name = format!("m{}", self.migrations.fetch_add(1, Ordering::SeqCst));
                let plan = self.store.plan(&name);
                let plan = if to == 2 {
                    self.tables.v2.iter().fold(plan, |plan, table| plan.table(table))
                } else {
                    self.tables.v3.iter().fold(plan, |plan, table| plan.table(table))
                };
                let begun = plan.begin()?;
                *self.current.lock().expect("no panic in here") = Some(begun);
                Ok(())
            }
            Verb::Rollback { fenced: false } => self.migration()?.rollback(),
            Verb::Rollback { fenced: true } => self.migration()?.rollback_fenced(),
            Verb::Resume => self.migration()?.resume(),
            Verb::Restart => self.migration()?.restart(),
            Verb::Contract => self.migration()?.contract()?.execute(),
            Verb::AbandonKeep => self.migration()?.abandon(NewWrites::Keep)?.execute(),
            Verb::AbandonDiscard => self.migration()?.abandon(NewWrites::Discard)?.execute(),
        }
    }

    /// Looks at everything, in every way, at every view that there is code for.
    pub fn look(&self, who: &str) {
        let Tables { v1, v2, v3 } = &self.tables;
        let views = [(1, !v1.is_empty()), (2, !v2.is_empty()), (3, !v3.is_empty())];
        for (view, _) in views.into_iter().filter(|(_, open)| *open) {
            for key in 0..KEYS {
                self.act(who, &Action::Get { key, view });
            }
            self.act(who, &Action::Scan { view, reverse: false });
            self.act(who, &Action::Scan { view, reverse: true });
            let parts = (0..KEYS).map(|key| Part::Read { key, view }).collect();
            self.act(who, &Action::Transaction(parts));
        }
    }

    /// `Store::verify` finds nothing.
    pub fn verify(&self, who: &str) {
        match self.store.verify() {
            Ok(report) if report.is_clean() => {}
            Ok(report) => self.log.wrong(format!("{who}: the store does not verify: {report:?}")),
            Err(e) => self.log.wrong(format!("{who}: the store cannot be verified: {e}")),
        }
    }
}

/// Whether the history can be explained, and nothing went wrong besides.
pub fn judge(log: &Log, start: &State, events: &[Event<Op>]) -> std::result::Result<HashSet<State>, String> {
    log.check_nothing_wrong().map_err(|wrong| format!("{wrong}\n{}", super::show(events)))?;
    check(start.clone(), events)
}
