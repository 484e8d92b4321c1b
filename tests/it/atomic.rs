//! Operations on one key that read before they write: none of them loses what another wrote in between.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use exuvia::engine::MemoryEngine;
use exuvia::{CastError, NewWrites, Origin, Result, Table, Version};
use serde::{Deserialize, Serialize};

use crate::hook_engine::{Call, HookEngine, PATIENCE};
use crate::scene::*;

/// Version 2 drops the note, and hands it back to old readers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Noted {
    name: String,
    note: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Bare {
    name: String,
}

impl Version for Noted {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for Bare {
    const VERSION: u32 = 2;
    type Previous = Noted;
    const DROPS_FIELDS: bool = true;

    fn upcast(old: Noted) -> Result<Self, CastError> {
        Ok(Bare { name: old.name })
    }

    fn downcast(&self, last: Option<Noted>) -> Result<Noted, CastError> {
        Ok(Noted { name: self.name.clone(), note: last.map(|last| last.note).unwrap_or_default() })
    }
}

fn noted(name: &str, note: &str) -> Noted {
    Noted { name: name.to_owned(), note: note.to_owned() }
}

fn bare(name: &str) -> Bare {
    Bare { name: name.to_owned() }
}

/// A fold that stands before its first move, until it is released.
pub struct StandingFold {
    release: Sender<()>,
    fold: thread::JoinHandle<Result<()>>,
}

impl StandingFold {
    /// Abandons a rolled-back migration whose overlay holds an entry of `key` that has to be moved.
    pub fn start(engine: &HookEngine, migration: &exuvia::Migration, key: u64) -> Self {
        let (reached, at): (Sender<()>, Receiver<()>) = channel();
        let (release, released) = channel::<()>();
        engine.before_key(Call::Commit, OVERLAY, key, move || {
            reached.send(()).unwrap();
            released.recv_timeout(PATIENCE).unwrap();
        });
        let plan = migration.abandon(NewWrites::Keep).unwrap();
        let fold = thread::spawn(move || plan.execute().map(drop));
        at.recv_timeout(PATIENCE).unwrap();
        StandingFold { release, fold }
    }

    pub fn end(self) {
        self.release.send(()).unwrap();
        self.fold.join().unwrap().unwrap();
    }
}

/// While folding, a new writer whose type drops a field takes that field from what it read; an old writer that comes
/// between its look and its write must not lose the field. Where the overlay has an entry, and where it has none.
#[test]
fn a_put_beside_a_fold_keeps_a_dropped_field_that_was_written_under_it() {
    let engine = HookEngine::new(MemoryEngine::new());
    let store = open(&engine);
    let old: Table<u64, Noted> = store.table("notes").unwrap();
    for id in 0..4 {
        old.put(&id, &noted("Ann", "first")).unwrap();
    }
    let new: Table<u64, Bare> = store.table("notes").unwrap();
    let migration = store.migration("bare").table(&new).paused().begin().unwrap();
    new.put(&1000, &bare("Zoe")).unwrap();
    new.put(&2000, &bare("Eva")).unwrap();
    migration.rollback().unwrap();
    let fold = StandingFold::start(&engine, &migration, 1000);

    for (id, call, tree) in [(1, Call::Cas, BASE), (2000, Call::Commit, OVERLAY)] {
        let writer = old.clone();
        engine.before_key(call, tree, id, move || writer.put(&id, &noted("Ann", "second")).unwrap());
        new.put(&id, &bare("Bob")).unwrap();
        assert_eq!(old.get(&id).unwrap(), Some(noted("Bob", "second")), "key {id}");
    }
    assert_eq!(engine.clear(), 0, "every hook was reached");
    fold.end();
    for id in [1, 2000] {
        assert_eq!(old.get(&id).unwrap(), Some(noted("Bob", "second")), "key {id}");
    }
    assert_eq!(old.get(&1000).unwrap(), Some(noted("Zoe", "")));
}
