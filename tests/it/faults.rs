//! Faults by enumeration: a whole scenario is run with its nth engine call failing, for every n until the scenario
//! passes untouched. Three ways to fail: the call alone (the store goes on, or was poisoned and is opened again), the call
//! and everything after it (what a loss of power then leaves is opened), and a conflict where nobody else wrote.
//!
//! Held against a model in maps. A step that failed has happened or has not, whole; every acknowledged one has happened;
//! from either the rest of the scenario goes on to the same end, with the same ledger. Steps are durable when they return
//! ([`Durability::EveryWrite`]), so a loss of power may take nothing that was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::{Durability, EngineErrorKind, Error, Migration, NewWrites, Phase, Plain, Result, Store, Table};

use crate::hook_engine::{Call, HookEngine};
use crate::types::*;

/// What is in the store, by what was asked of it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    /// At version 2; `None`: there is no such table.
    users: Option<BTreeMap<u64, UserV2>>,
    /// A second table, by the name that it has.
    notes: Option<(String, BTreeMap<u64, u64>)>,
    phase: Option<Phase>,
    at_begin: BTreeMap<u64, UserV2>,
}

impl Model {
    fn users(&mut self) -> &mut BTreeMap<u64, UserV2> {
        self.users.get_or_insert_default()
    }

    fn notes(&mut self) -> &mut BTreeMap<u64, u64> {
        &mut self.notes.get_or_insert_with(|| ("notes".to_owned(), BTreeMap::new())).1
    }

    /// A put of old code: what only the new form holds stays.
    fn put_old(&mut self, id: u64, last: &str, age: u32) {
        let email = self.users().get(&id).and_then(|user| user.email.clone());
        self.users().insert(id, v2("Ann", last, age, email.as_deref()));
    }

    /// What can be seen of it.
    fn seen(&self) -> Model {
        Model { at_begin: BTreeMap::new(), ..self.clone() }
    }
}

type StepCall = Box<dyn Fn(&Store) -> Result<()>>;

struct Step {
    name: &'static str,
    call: StepCall,
    model: Box<dyn Fn(&mut Model)>,
}

fn step(
    name: &'static str,
    call: impl Fn(&Store) -> Result<()> + 'static,
    model: impl Fn(&mut Model) + 'static,
) -> Step {
    Step { name, call: Box::new(call), model: Box::new(model) }
}

type Note = Plain<u64>;

fn old(store: &Store) -> Result<Table<u64, UserV1>> {
    store.table("users")
}

fn new(store: &Store) -> Result<Table<u64, UserV2>> {
    store.table("users")
}

fn notes(store: &Store) -> Result<Table<u64, Note>> {
    store.table("notes")
}

/// The migration, with the code that it needs.
fn split(store: &Store) -> Result<Migration> {
    new(store)?;
    store.open_migration("split")
}

fn put_old(id: u64, last: &'static str, age: u32) -> Step {
    step(
        "put at 1",
        move |store| old(store)?.put(&id, &v1(&format!("Ann {last}"), age)),
        move |model| model.put_old(id, last, age),
    )
}

fn put_new(id: u64, last: &'static str, email: &'static str) -> Step {
    let user = v2("Eve", last, 7, Some(email));
    let same = user.clone();
    step(
        "put at 2",
        move |store| new(store)?.put(&id, &user),
        move |model| {
            model.users().insert(id, same.clone());
        },
    )
}

fn remove_old(id: u64) -> Step {
    step(
        "remove at 1",
        move |store| old(store)?.remove(&id),
        move |model| {
            model.users().remove(&id);
        },
    )
}

fn load() -> Vec<Step> {
    let create = step(
        "create a table",
        |store| old(store).map(drop),
        |model| {
            model.users();
        },
    );
    let mut steps = vec![create];
    steps.extend((0..5).map(|id| put_old(id, "Load", id as u32 + 20)));
    steps
}

fn begin() -> Step {
    step(
        "begin",
        |store| store.migration("split").table(&new(store)?).paused().begin().map(drop),
        |model| {
            model.phase = Some(Phase::Open);
            model.at_begin = model.users().clone();
        },
    )
}

fn backfill(records: usize) -> Step {
    step("backfill", move |store| split(store)?.step(records).map(drop), |_| ())
}

fn verb(
    name: &'static str,
    call: impl Fn(&Migration) -> Result<()> + 'static,
    phase: Phase,
    model: impl Fn(&mut Model) + 'static,
) -> Step {
    step(
        name,
        move |store| call(&split(store)?),
        move |state| {
            state.phase = Some(phase);
            model(state);
        },
    )
}

fn rollback() -> Step {
    verb("rollback", Migration::rollback, Phase::RolledBack, |_| ())
}

fn resume() -> Step {
    verb("resume", Migration::resume, Phase::Open, |_| ())
}

/// Operations on several keys and tables, and such that read and write.
fn at_once() -> Vec<Step> {
    vec![
        step(
            "transaction",
            |store| {
                let (users, notes) = (old(store)?, notes(store)?);
                store.transaction(|tx| {
                    let (Some(a), Some(b)) = (tx.get(&users, &0)?, tx.get(&users, &1)?) else {
                        return Ok(());
                    };
                    tx.put(&users, &0, &v1(&a.name, a.age - 5))?;
                    tx.put(&users, &1, &v1(&b.name, b.age + 5))?;
                    tx.put(&notes, &1, &Plain(u64::from(b.age)))
                })
            },
            |model| {
                let (a, b) = (model.users()[&0].age, model.users()[&1].age);
                model.put_old(0, "Load", a - 5);
                model.put_old(1, "Load", b + 5);
                model.notes().insert(1, u64::from(b));
            },
        ),
        step(
            "batch",
            |store| {
                let (users, notes) = (old(store)?, notes(store)?);
                let mut batch = store.batch();
                batch.put(&users, &8, v1("Ann Batch", 8));
                batch.remove(&users, &2);
                batch.put(&notes, &2, Plain(2));
                batch.commit()
            },
            |model| {
                model.put_old(8, "Batch", 8);
                model.users().remove(&2);
                model.notes().insert(2, 2);
            },
        ),
        step(
            "update",
            |store| {
                let older = |user: Option<UserV1>| user.map(|user| v1(&user.name, user.age + 1));
                old(store)?.update(&3, older).map(drop)
            },
            |model| model.users().get_mut(&3).unwrap().age += 1,
        ),
        step(
            "pop",
            |store| notes(store)?.pop_first().map(drop),
            |model| {
                model.notes().pop_first();
            },
        ),
    ]
}

/// The second table is made by a step of its own, so that each step is one thing.
fn create_notes() -> Step {
    step(
        "create notes",
        |store| notes(store).map(drop),
        |model| {
            model.notes();
        },
    )
}

fn to_contract() -> Vec<Step> {
    let mut steps = load();
    steps.push(create_notes());
    steps.extend(at_once());
    steps.extend([begin(), put_new(1, "New", "e1"), put_old(1, "Merged", 9), put_old(5, "Five", 5)]);
    steps.extend([backfill(2), remove_old(3), put_new(6, "New", "e6")]);
    steps.push(step(
        "transaction in an open migration",
        |store| {
            let (old, new) = (old(store)?, new(store)?);
            store.transaction(|tx| {
                let (Some(a), Some(b)) = (tx.get(&new, &1)?, tx.get(&old, &5)?) else { return Ok(()) };
                tx.put(&old, &5, &v1(&b.name, a.age))?;
                tx.put(&new, &4, &v2("Eve", "Tx", b.age, Some("e4")))
            })
        },
        |model| {
            let (a, b) = (model.users()[&1].age, model.users()[&5].age);
            model.put_old(5, "Five", a);
            model.users().insert(4, v2("Eve", "Tx", b, Some("e4")));
        },
    ));
    steps.extend([rollback(), put_old(6, "Back", 6), put_new(7, "New", "e7"), resume()]);
    steps.push(step("complete", |store| split(store)?.step(1000).map(drop), |_| ()));
    let contract = |migration: &Migration| migration.contract()?.execute();
    steps.push(verb("contract", contract, Phase::Contracted, |_| ()));
    steps.push(put_new(1, "Last", "e9"));
    steps
}

fn to_abandon(writes: NewWrites) -> Vec<Step> {
    let mut steps = load();
    steps.extend([begin(), put_new(1, "New", "e1"), backfill(2), put_old(5, "Five", 5), remove_old(2)]);
    steps.extend([rollback(), put_old(3, "Back", 6)]);
    let abandon = move |migration: &Migration| migration.abandon(writes)?.execute();
    steps.push(verb("abandon", abandon, Phase::Abandoned, move |model| match writes {
        NewWrites::Keep => model.users().values_mut().for_each(|user| user.email = None),
        NewWrites::Discard => *model.users() = model.at_begin.clone(),
    }));
    steps.push(put_old(9, "Last", 9));
    steps
}

fn of_tables() -> Vec<Step> {
    let note = |id: u64| {
        step(
            "put a note",
            move |store| notes(store)?.put(&id, &Plain(id)),
            move |model| {
                model.notes().insert(id, id);
            },
        )
    };
    let mut steps = vec![create_notes(), note(1), note(2)];
    steps.push(step(
        "clear",
        |store| notes(store)?.clear(),
        |model| {
            model.notes().clear();
        },
    ));
    steps.push(step(
        "bulk load",
        |store| {
            let table = notes(store)?;
            // A load that went through and was not acknowledged is not made again: the model says so.
            table.bulk_load((0..20).map(|id| (id, Plain(id)))).map(drop)
        },
        |model| *model.notes() = (0..20).map(|id| (id, id)).collect(),
    ));
    steps.push(step(
        "read at one moment",
        |store| {
            let table = notes(store)?;
            let all = match store.snapshot() {
                Ok(snapshot) => {
                    assert_eq!(snapshot.get(&table, &3)?, Some(Plain(3)));
                    snapshot.scan(&table, ..)?.collect::<Result<Vec<_>>>()?
                }
                Err(Error::State { .. }) => table.scan(..).collect::<Result<Vec<_>>>()?,
                Err(e) => return Err(e),
            };
            assert!(all.into_iter().eq((0..20).map(|id| (id, Plain(id)))));
            Ok(())
        },
        |_| (),
    ));
    steps.push(step(
        "copy",
        |store| {
            let copy = MemoryEngine::recording();
            store.copy_in(&copy)?;
            let copy = options().open_in(Arc::new(copy.crash_image(|_| false))).unwrap();
            assert_eq!(notes(&copy).unwrap().len().unwrap(), 20);
            Ok(())
        },
        |_| (),
    ));
    steps.push(step(
        "rename",
        |store| store.rename_table("notes", "memos"),
        |model| model.notes.as_mut().unwrap().0 = "memos".to_owned(),
    ));
    steps.push(step("drop", |store| store.drop_table("memos"), |model| model.notes = None));
    steps.push(create_notes());
    steps.push(note(7));
    steps
}

fn options() -> exuvia::Options {
    Store::options().durability(Durability::EveryWrite)
}

fn open(engine: &HookEngine) -> Store {
    options().open_in(Arc::new(engine.clone())).unwrap()
}

/// Everything that there is, by every way to read it.
fn look(store: &Store, how: &str) -> Model {
    let mut seen = Model::default();
    let tables = store.tables();
    if tables.iter().any(|name| name == "users") {
        let new = new(store).unwrap();
        if let Ok(migration) = store.open_migration("split") {
            let phase = migration.status().unwrap().phase;
            seen.phase = Some(match phase {
                Phase::Complete => Phase::Open,
                // It goes on by itself.
                Phase::Folding => migration.wait().unwrap_or_else(|e| panic!("{how}: {e}")).phase,
                phase => phase,
            });
        }
        let all: BTreeMap<_, _> = new.scan(..).map(Result::unwrap).collect();
        for id in 0..10 {
            assert_eq!(new.get(&id).unwrap().as_ref(), all.get(&id), "{how}: key {id}");
        }
        if seen.phase != Some(Phase::Contracted) {
            let down = |(id, u): (&u64, &UserV2)| (*id, v1(&format!("{} {}", u.first, u.last), u.age));
            let old: BTreeMap<_, _> = old(store).unwrap().scan(..).map(Result::unwrap).collect();
            assert_eq!(old, all.iter().map(down).collect(), "{how}: what old code reads");
        }
        seen.users = Some(all);
    }
    if let Some(name) = tables.iter().find(|name| *name != "users") {
        let table: Table<u64, Note> = store.table(name).unwrap();
        let all = table.scan(..).map(|record| record.map(|(id, note)| (id, note.0)).unwrap()).collect();
        seen.notes = Some((name.clone(), all));
    }
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{how}: {report:?}");
    seen
}

/// What the ledger tells of what was asked. When the rest happens is not of the scenario.
fn told(store: &Store) -> Vec<String> {
    let entries =
        store.ledger().unwrap().into_iter().map(|entry| format!("{} {}", entry.what, entry.subject));
    entries.filter(|entry| !entry.starts_with("sweep") && !entry.starts_with("complete")).collect()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Once(EngineErrorKind),
    /// And everything after it.
    On(EngineErrorKind),
    Conflict,
}

struct Campaign {
    steps: Vec<Step>,
    /// The model before each step, and at the end.
    models: Vec<Model>,
    told: Vec<String>,
    snapshots: bool,
}

impl Campaign {
    fn new(steps: Vec<Step>, snapshots: bool) -> Self {
        let mut models = vec![Model::default()];
        for step in &steps {
            let mut next = models.last().unwrap().clone();
            (step.model)(&mut next);
            models.push(next);
        }
        let mut campaign = Self { steps, models, told: Vec::new(), snapshots };
        let engine = campaign.engine(MemoryEngine::recording());
        let store = open(&engine);
        for (at, step) in campaign.steps.iter().enumerate() {
            (step.call)(&store).unwrap_or_else(|e| panic!("{}: {e}", step.name));
            assert_eq!(look(&store, step.name), campaign.models[at + 1].seen(), "after {}", step.name);
        }
        campaign.told = told(&store);
        campaign
    }

    fn engine(&self, memory: MemoryEngine) -> HookEngine {
        let engine = HookEngine::new(memory);
        if self.snapshots { engine.with_snapshots() } else { engine }
    }

    /// Whether a step that failed has happened. Panics if it did so in part.
    fn happened(&self, at: usize, store: &Store, how: &str) -> bool {
        let seen = look(store, how);
        let [before, after] = [self.models[at].seen(), self.models[at + 1].seen()];
        assert!(seen == before || seen == after, "{how}:\n{seen:?}\nis neither\n{before:?}\nnor\n{after:?}");
        seen != before
    }

    /// Answers whether the fault came to pass.
    fn run(&self, fault: Fault, nth: u64) -> bool {
        let mut engine = self.engine(MemoryEngine::recording());
        let mut store = open(&engine);
        match fault {
            Fault::Once(kind) => engine.fail_with(nth, kind, false),
            Fault::On(kind) => engine.fail_with(nth, kind, true),
            Fault::Conflict => assert_eq!(engine.conflict(nth), 0),
        }
        let (mut at, mut failures) = (0, 0);
        while let Some(step) = self.steps.get(at) {
            let result = (step.call)(&store);
            let Err(e) = result else {
                at += 1;
                continue;
            };
            failures += 1;
            let failed = engine.failed();
            let how = format!("{fault:?} of call {nth}, {failed:?}, in step {at} ({}): {e:?}", step.name);
            assert_eq!(failures, 1, "one fault, one failure: {how}");
            let typed = matches!(e, Error::Engine(_) | Error::Poisoned { .. } | Error::Conflict { .. });
            // `wait` says what the worker met.
            assert!(typed || (step.name == "abandon" && matches!(e, Error::State { .. })), "{how}");
            assert!(!matches!(e, Error::Conflict { .. }) || fault == Fault::Conflict, "{how}");
            let poisoned = matches!(store.flush(), Err(Error::Poisoned { .. }));
            check_poisoned(fault, failed.as_ref(), poisoned, &how);
            if matches!(fault, Fault::On(_)) {
                let whole = engine.inner().crash_image(|_| true);
                let flushed = engine.inner().crash_image(|_| false);
                drop(store);
                self.happened(at, &open(&self.engine(whole)), &format!("{how}, all kept"));
                engine = self.engine(flushed);
                store = open(&engine);
            } else if poisoned {
                drop(store);
                store = open(&engine);
            }
            if self.happened(at, &store, &how) {
                at += 1;
            }
        }
        let met = match fault {
            Fault::Conflict => engine.conflict(0) == 0,
            _ => engine.clear() == 0,
        };
        let how = format!("{fault:?} of call {nth}, at the end");
        let last = self.models.last().unwrap();
        if store.flush().is_err() {
            // Something in the background met it.
            let left = engine.inner().crash_image(|_| false);
            drop(store);
            store = open(&self.engine(left));
        }
        assert_eq!(look(&store, &how), last.seen(), "{how}");
        assert_eq!(told(&store), self.told, "{how}");
        met || failures > 0
    }
}

/// After a failed flush or commit of the state it is not known what is durable, so the store stops. A read that
/// fails spoils nothing.
fn check_poisoned(fault: Fault, failed: Option<&(Call, String)>, poisoned: bool, how: &str) {
    match failed {
        _ if fault == Fault::Conflict => assert!(!poisoned, "{how}"),
        Some((Call::Flush, _)) => assert!(poisoned, "{how}"),
        Some((Call::Cas, tree)) if tree == "catalog" => assert!(poisoned, "{how}"),
        Some((Call::Get | Call::Scan | Call::Put | Call::Cas | Call::Commit, tree))
            if matches!(fault, Fault::Once(_)) && tree.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            assert!(!poisoned, "{how}");
        }
        _ => {}
    }
}

fn enumerate(steps: fn() -> Vec<Step>, snapshots: bool) {
    let campaign = Campaign::new(steps(), snapshots);
    for fault in [
        Fault::Once(EngineErrorKind::Io),
        // A worker that folds tries again for ever after what may pass, and its verb waits: so one that does not.
        Fault::On(EngineErrorKind::Poisoned),
        Fault::On(EngineErrorKind::NoSpace),
        Fault::Conflict,
    ] {
        let folds = campaign.told.iter().any(|entry| entry.starts_with("fold"));
        if folds && fault == Fault::On(EngineErrorKind::NoSpace) {
            continue;
        }
        let mut nth = 1;
        while campaign.run(fault, nth) {
            nth += 1;
            assert!(nth < 2000, "{fault:?}: the scenario does not end");
        }
        assert!(nth > if fault == Fault::Conflict { 4 } else { 40 }, "{fault:?}: {nth}");
    }
}

#[test]
fn every_call_of_a_migration_to_its_contract_fails() {
    enumerate(to_contract, false);
}

#[test]
fn every_call_of_a_migration_that_is_abandoned_fails() {
    enumerate(|| to_abandon(NewWrites::Discard), false);
}

#[test]
fn every_call_of_a_fold_fails() {
    enumerate(|| to_abandon(NewWrites::Keep), false);
}

#[test]
fn every_call_of_the_verbs_of_tables_fails() {
    enumerate(of_tables, false);
}

#[test]
fn every_call_of_a_migration_with_snapshots_fails() {
    enumerate(to_contract, true);
}

#[test]
fn every_call_of_the_verbs_of_tables_with_snapshots_fails() {
    enumerate(of_tables, true);
}
