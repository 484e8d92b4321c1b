//! Faults by enumeration: a whole scenario is run with its nth engine call failing, for every n until the scenario
//! passes untouched. Four ways to fail: the call alone, with nothing done or, worse, all done (the store goes on, or was
//! poisoned and is opened again); the call and everything after it (what a loss of power then leaves is opened); and a
//! conflict where nobody else wrote. Errors are of the medium (EIO), of a full one (ENOSPC), or of an engine that has
//! given up. A conflict from some call on is not among them: it says that others write all the time, and nobody does.
//!
//! In memory, where a loss of power can be had; and on an engine with files (`torture faults`), which is closed and opened
//! from its directory instead.
//!
//! Held against a model in maps. A step that failed has happened or has not, whole; every acknowledged one has happened;
//! from either the rest of the scenario goes on to the same end, with the same ledger. Steps are durable when they return
//! ([`Durability::EveryWrite`]), so a loss of power may take nothing that was acknowledged.

mod scenario;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use exuvia::engine::EngineErrorKind;
use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::migration::NewWrites;
use exuvia::{Durability, Error, Phase, Store, Table};

use self::scenario::*;
use crate::kit::hook_engine::{Call, HookEngine};
use crate::kit::types::*;

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
        if let Ok(migration) = store.migration("split") {
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
pub enum Fault {
    Once(EngineErrorKind),
    /// The call is made, and answers that it failed.
    After(EngineErrorKind),
    /// And everything after it.
    On(EngineErrorKind),
    Conflict,
}

/// In the tests.
const SHORT: [Fault; 5] = [
    Fault::Once(EngineErrorKind::Io),
    Fault::After(EngineErrorKind::Io),
    Fault::On(EngineErrorKind::NoSpace),
    Fault::On(EngineErrorKind::Poisoned),
    Fault::Conflict,
];

#[allow(dead_code, reason = "of the long form, campaigns/torture")]
pub const FAULTS: [Fault; 7] = [
    Fault::Once(EngineErrorKind::Io),
    Fault::Once(EngineErrorKind::NoSpace),
    Fault::After(EngineErrorKind::Io),
    Fault::On(EngineErrorKind::Io),
    Fault::On(EngineErrorKind::NoSpace),
    Fault::On(EngineErrorKind::Poisoned),
    Fault::Conflict,
];

/// Where the scenario runs.
enum Medium {
    Memory {
        snapshots: bool,
    },
    #[allow(dead_code, reason = "of the long form, campaigns/torture")]
    Disk(EngineKind, PathBuf),
}

pub struct Campaign {
    steps: Vec<Step>,
    /// The model before each step, and at the end.
    models: Vec<Model>,
    told: Vec<String>,
    medium: Medium,
}

impl Campaign {
    /// On an engine with files, in a directory that it may remove; in memory without one.
    #[allow(dead_code, reason = "of the long form, campaigns/torture")]
    pub fn of(steps: Vec<Step>, on: Option<(EngineKind, PathBuf)>) -> Self {
        let memory = Medium::Memory { snapshots: false };
        Self::new(steps, on.map_or(memory, |(kind, directory)| Medium::Disk(kind, directory)))
    }

    fn new(steps: Vec<Step>, medium: Medium) -> Self {
        let mut models = vec![Model::default()];
        for step in &steps {
            let mut next = models.last().unwrap().clone();
            (step.model)(&mut next);
            models.push(next);
        }
        let mut campaign = Self { steps, models, told: Vec::new(), medium };
        let engine = campaign.start();
        let store = open(&engine);
        for (at, step) in campaign.steps.iter().enumerate() {
            (step.call)(&store).unwrap_or_else(|e| panic!("{}: {e}", step.name));
            assert_eq!(look(&store, step.name), campaign.models[at + 1].seen(), "after {}", step.name);
        }
        campaign.told = told(&store);
        campaign
    }

    /// With nothing in it.
    fn start(&self) -> HookEngine {
        if let Medium::Disk(_, directory) = &self.medium {
            let _there_may_be_none = std::fs::remove_dir_all(directory);
        }
        self.engine(MemoryEngine::recording())
    }

    /// Of what this memory, or the directory, holds.
    fn engine(&self, memory: MemoryEngine) -> HookEngine {
        match &self.medium {
            Medium::Memory { snapshots: false } => HookEngine::new(memory),
            Medium::Memory { snapshots: true } => HookEngine::new(memory).with_snapshots(),
            Medium::Disk(kind, directory) => HookEngine::on_disk(*kind, directory),
        }
    }

    /// What is there after the engine has gone, with all that was written or with what was flushed only.
    fn left(&self, engine: HookEngine, all: bool) -> HookEngine {
        let image = engine.inner().crash_image(|_| all);
        // A directory is locked as long as anybody has it open.
        drop(engine);
        self.engine(image)
    }

    /// Whether a step that failed has happened. Panics if it did so in part.
    fn happened(&self, at: usize, store: &Store, how: &str) -> bool {
        let seen = look(store, how);
        let [before, after] = [self.models[at].seen(), self.models[at + 1].seen()];
        assert!(seen == before || seen == after, "{how}:\n{seen:?}\nis neither\n{before:?}\nnor\n{after:?}");
        seen != before
    }

    /// Answers whether the fault came to pass.
    pub fn run(&self, fault: Fault, nth: u64) -> bool {
        let mut engine = self.start();
        let mut store = open(&engine);
        match fault {
            Fault::Once(kind) => engine.fail_with(nth, kind, false),
            Fault::After(kind) => engine.fail_any_after(nth, kind),
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
            let on_disk = matches!(self.medium, Medium::Disk(..));
            if matches!(fault, Fault::On(_)) || poisoned && on_disk {
                drop(store);
                if !on_disk {
                    let whole = self.left(engine.clone(), true);
                    self.happened(at, &open(&whole), &format!("{how}, all kept"));
                }
                engine = self.left(engine, false);
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
            drop(store);
            engine = self.left(engine, false);
            store = open(&engine);
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
            if matches!(fault, Fault::Once(_) | Fault::After(_))
                && tree.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            assert!(!poisoned, "{how}");
        }
        _ => {}
    }
}

pub type Steps = fn() -> Vec<Step>;

/// The scenarios by name.
#[allow(dead_code, reason = "of the long form, campaigns/torture")]
pub const SCENARIOS: [(&str, Steps); 4] = [
    ("contract", to_contract),
    ("discard", || to_abandon(NewWrites::Discard)),
    ("fold", || to_abandon(NewWrites::Keep)),
    ("tables", of_tables),
];

/// A scenario has ended long before.
pub const CALLS_MAX: u64 = 2000;

fn enumerate(steps: Steps, snapshots: bool) {
    let campaign = Campaign::new(steps(), Medium::Memory { snapshots });
    for fault in SHORT {
        let mut nth = 1;
        while campaign.run(fault, nth) {
            nth += 1;
            assert!(nth < CALLS_MAX, "{fault:?}: the scenario does not end");
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
