//! The scenarios, step by step, and what each step does to a model in maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use exuvia::engine::MemoryEngine;
use exuvia::migration::NewWrites;
use exuvia::{Error, Migration, Phase, Plain, Result, Store, Table};

use super::options;
use crate::kit::types::*;

/// What is in the store, by what was asked of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// At version 2; `None`: there is no such table.
    pub users: Option<BTreeMap<u64, UserV2>>,
    /// A second table, by the name that it has.
    pub notes: Option<(String, BTreeMap<u64, u64>)>,
    pub phase: Option<Phase>,
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
    pub fn seen(&self) -> Model {
        Model { at_begin: BTreeMap::new(), ..self.clone() }
    }
}

pub type StepCall = Box<dyn Fn(&Store) -> Result<()>>;

pub struct Step {
    pub name: &'static str,
    pub call: StepCall,
    pub model: Box<dyn Fn(&mut Model)>,
}

fn step(
    name: &'static str,
    call: impl Fn(&Store) -> Result<()> + 'static,
    model: impl Fn(&mut Model) + 'static,
) -> Step {
    Step { name, call: Box::new(call), model: Box::new(model) }
}

pub type Note = Plain<u64>;

pub fn old(store: &Store) -> Result<Table<u64, UserV1>> {
    store.table("users")
}

pub fn new(store: &Store) -> Result<Table<u64, UserV2>> {
    store.table("users")
}

fn notes(store: &Store) -> Result<Table<u64, Note>> {
    store.table("notes")
}

/// The migration, with the code that it needs.
fn split(store: &Store) -> Result<Migration> {
    new(store)?;
    store.migration("split")
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
        |store| store.plan("split").table(&new(store)?).paused().begin().map(drop),
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

pub fn to_contract() -> Vec<Step> {
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

pub fn to_abandon(writes: NewWrites) -> Vec<Step> {
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

pub fn of_tables() -> Vec<Step> {
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
