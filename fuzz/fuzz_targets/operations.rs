//! Sequences of operations against a model of both views that shares no code with the crate.
#![no_main]

#[path = "../../tests/it/kit/types.rs"]
#[allow(dead_code)]
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::{Budget, Durability, Migration, Phase, Store, Table};
use exuvia::migration::NewWrites;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use types::{UserV1, UserV2, v1, v2};

#[derive(Debug, Arbitrary)]
enum Op {
    PutOld(u8, u8),
    PutNew(u8, u8, bool),
    Remove(u8, bool),
    Begin,
    Step(u8),
    Restart,
    Rollback,
    Resume,
    Contract,
    Abandon(bool),
    /// The process dies. What reached the engine is there.
    Die,
    /// The power fails: what was not flushed may be lost, so it is flushed just before.
    PowerFails,
}

/// A user, told without the crate's types and casts.
#[derive(Debug, Clone, PartialEq)]
struct User {
    first: &'static str,
    last: String,
    age: u32,
    email: Option<String>,
}

impl User {
    fn old(&self) -> UserV1 {
        v1(&format!("{} {}", self.first, self.last), self.age)
    }

    fn new(&self) -> UserV2 {
        v2(self.first, &self.last, self.age, self.email.as_deref())
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    AtOne,
    Open,
    RolledBack,
    AtTwo,
}

struct Run {
    engine: MemoryEngine,
    store: Store,
    /// None once version 1 is retired.
    old: Option<Table<u64, UserV1>>,
    new: Table<u64, UserV2>,
    migration: Option<Migration>,
    state: State,
    number: u32,
    users: BTreeMap<u64, User>,
    at_begin: BTreeMap<u64, User>,
}

fn open(engine: &MemoryEngine) -> Store {
    let interval = std::time::Duration::from_secs(3600);
    let options = Store::options().durability(Durability::Buffered { interval }).budget(Budget::unlimited());
    options.open_in(Arc::new(engine.clone())).unwrap()
}

impl Run {
    fn start() -> Self {
        let engine = MemoryEngine::recording();
        let store = open(&engine);
        let (old, new) = (Some(store.table("users").unwrap()), store.table("users").unwrap());
        let (users, at_begin) = (BTreeMap::new(), BTreeMap::new());
        Run { engine, store, old, new, migration: None, state: State::AtOne, number: 0, users, at_begin }
    }

    fn apply(&mut self, op: &Op) {
        let open = matches!(self.state, State::Open | State::RolledBack);
        match *op {
            Op::PutOld(id, age) => {
                let Some(old) = &self.old else { return };
                let (id, age) = (u64::from(id % 16), u32::from(age % 90));
                let email = self.users.get(&id).and_then(|user| user.email.clone());
                let user = User { first: "Old", last: format!("O{age}"), age, email };
                old.put(&id, &user.old()).unwrap();
                self.users.insert(id, user);
            }
            Op::PutNew(id, age, mail) => {
                let (id, age) = (u64::from(id % 16), u32::from(age % 90));
                let email = mail.then(|| format!("{age}@x"));
                let user = User { first: "New", last: format!("N{age}"), age, email };
                let put = self.new.put(&id, &user.new());
                // Before the migration version 1 has no place for the mail.
                assert_eq!(put.is_err(), mail && self.state == State::AtOne, "{put:?}");
                if put.is_ok() {
                    self.users.insert(id, user);
                }
            }
            Op::Remove(id, by_old) => {
                let id = u64::from(id % 16);
                match &self.old {
                    Some(old) if by_old => old.remove(&id).unwrap(),
                    _ => self.new.remove(&id).unwrap(),
                }
                self.users.remove(&id);
            }
            Op::Begin if self.state == State::AtOne => {
                self.number += 1;
                let plan = self.store.plan(&format!("m{}", self.number)).table(&self.new);
                self.migration = Some(plan.paused().begin().unwrap());
                self.at_begin = self.users.clone();
                self.state = State::Open;
            }
            Op::Step(records) if self.state == State::Open => {
                self.migration().step(usize::from(records % 8) + 1).unwrap();
            }
            Op::Restart if self.state == State::Open => self.migration().restart().unwrap(),
            Op::Rollback if self.state == State::Open => {
                self.migration().rollback().unwrap();
                self.state = State::RolledBack;
            }
            Op::Resume if self.state == State::RolledBack => {
                self.migration().resume().unwrap();
                self.state = State::Open;
            }
            Op::Contract if self.state == State::Open => {
                let migration = self.migration();
                while migration.step(7).unwrap().phase != Phase::Complete {}
                migration.contract().unwrap().execute().unwrap();
                (self.state, self.old) = (State::AtTwo, None);
            }
            Op::Abandon(keep) if self.state == State::RolledBack => {
                let writes = if keep { NewWrites::Keep } else { NewWrites::Discard };
                self.migration().abandon(writes).unwrap().execute().unwrap();
                if keep {
                    self.users.values_mut().for_each(|user| user.email = None);
                } else {
                    self.users = self.at_begin.clone();
                }
                self.check();
                assert_eq!(self.migration().wait().unwrap().phase, Phase::Abandoned);
                self.state = State::AtOne;
            }
            Op::Die => self.reopen(self.engine.crash_image(|_| true), open),
            Op::PowerFails => {
                self.store.flush().unwrap();
                self.reopen(self.engine.crash_image(|_| false), open);
            }
            _ => {}
        }
    }

    fn migration(&self) -> &Migration {
        self.migration.as_ref().unwrap()
    }

    fn reopen(&mut self, image: MemoryEngine, migrating: bool) {
        self.store = open(&image);
        self.engine = image;
        self.old = self.old.is_some().then(|| self.store.table("users").unwrap());
        self.new = self.store.table("users").unwrap();
        let name = format!("m{}", self.number);
        self.migration = migrating.then(|| self.store.migration(&name).unwrap());
    }

    fn check(&self) {
        let scanned =
            |users: &Table<u64, UserV2>| users.scan(..).map(Result::unwrap).collect::<BTreeMap<_, _>>();
        let expected: BTreeMap<u64, UserV2> = self.users.iter().map(|(id, user)| (*id, user.new())).collect();
        assert_eq!(scanned(&self.new), expected);
        for id in 0..16 {
            assert_eq!(self.new.get(&id).unwrap().as_ref(), expected.get(&id));
        }
        if let Some(old) = &self.old {
            let expected: BTreeMap<u64, UserV1> =
                self.users.iter().map(|(id, user)| (*id, user.old())).collect();
            assert_eq!(old.scan(..).rev().map(Result::unwrap).collect::<BTreeMap<_, _>>(), expected);
            for id in 0..16 {
                assert_eq!(old.get(&id).unwrap().as_ref(), expected.get(&id));
            }
        }
    }
}

fuzz_target!(|ops: Vec<Op>| {
    let mut run = Run::start();
    for op in ops.iter().take(60) {
        run.apply(op);
        run.check();
    }
    let report = run.store.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
});
