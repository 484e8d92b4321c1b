//! An open of a store in which nothing is due: it only looks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use exuvia::engine::{Engine, EngineKind, MemoryEngine};
use exuvia::{Store, Table};

use crate::kit::files::files_below;
use crate::kit::format::dump;
use crate::kit::hook_engine::{Call, HookEngine};
use crate::kit::kinds::kinds;
use crate::kit::scene::{complete, until};
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

type Old = Table<u64, UserV1>;
type New = Table<u64, UserV2>;

/// What a store may be left in, with nothing that has to go on by itself.
const STATES: [&str; 6] = ["no table", "settled", "paused", "complete", "rolled back", "contracted"];

fn make(store: &Store, state: &str) {
    if state == "no table" {
        return;
    }
    let old: Old = store.table("users").unwrap();
    for id in 0..40 {
        old.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    if state == "settled" {
        return;
    }
    let new: New = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    migration.step(10).unwrap();
    new.put(&3, &v2("Bob", "B3", 40, Some("b@x"))).unwrap();
    old.put(&30, &v1("Old O30", 50)).unwrap();
    match state {
        "paused" => {}
        "complete" => drop(complete(&migration)),
        "rolled back" => migration.rollback().unwrap(),
        "contracted" => {
            complete(&migration);
            migration.contract().unwrap().execute().unwrap();
            until("the sweep", || !store.is_sweeping());
        }
        other => panic!("{other}"),
    }
}

/// Opens the tables, too, and reads them.
fn look(store: &Store, state: &str) {
    if state == "no table" {
        assert!(store.tables().is_empty());
        return;
    }
    let new: New = store.table("users").unwrap();
    assert_eq!(new.scan(..).map(Result::unwrap).count(), 40);
    if state != "contracted" {
        let old: Old = store.table("users").unwrap();
        assert_eq!(old.len().unwrap(), 40);
    }
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn an_open_with_nothing_due_makes_no_call_that_writes() {
    let scratch = Scratch::new("opening");
    for state in STATES {
        let on_disk = kinds().map(|kind| {
            let path = scratch.path().join(format!("{}-{state}", kind.name()));
            (kind.name(), HookEngine::on_disk(kind, &path))
        });
        let memory = ("memory", HookEngine::new(MemoryEngine::recording()));
        for (name, engine) in on_disk.chain([memory]) {
            let open = || Store::options().open_in(Arc::new(engine.clone())).unwrap();
            let store = open();
            make(&store, state);
            store.close().unwrap();
            let (trees, before) = (engine.inner().trees().unwrap(), dump(engine.inner()));
            for _ in 0..2 {
                engine.reset();
                let store = open();
                look(&store, state);
                store.close().unwrap();
                assert_eq!(engine.writes("*"), 0, "{name}, {state}: {:?}", engine.profile());
                assert!(engine.count(Call::Get, "catalog") > 0, "{name}, {state}: it was looked into");
                assert_eq!(engine.inner().trees().unwrap(), trees, "{name}, {state}");
                assert_eq!(dump(engine.inner()), before, "{name}, {state}");
            }
        }
    }
}

type Files = BTreeMap<PathBuf, (Option<SystemTime>, Vec<u8>)>;

/// All files, with when they were changed: but sled writes the same bytes to its file again at every open.
fn files(kind: EngineKind, path: &Path) -> Files {
    let read = |file: PathBuf| {
        let changed = file.metadata().unwrap().modified().unwrap();
        let bytes = std::fs::read(&file).unwrap();
        (file, ((kind != EngineKind::Sled).then_some(changed), bytes))
    };
    files_below(path).into_iter().map(read).collect()
}

#[test]
fn an_open_with_nothing_due_changes_no_file() {
    let scratch = Scratch::new("opening-files");
    for kind in kinds() {
        for state in STATES {
            let path = scratch.path().join(format!("{}-{state}", kind.name()));
            let open = || Store::options().engine(kind).open(&path).unwrap();
            let store = open();
            make(&store, state);
            store.close().unwrap();
            // The engine has still to tidy up after the close of a store that was written to: sled writes its snapshot
            // twice, fjall removes lists that it replaced.
            for _ in 0..2 {
                let store = open();
                look(&store, state);
                store.close().unwrap();
            }
            let before = files(kind, &path);
            for _ in 0..2 {
                let store = open();
                look(&store, state);
                store.close().unwrap();
                assert!(files(kind, &path) == before, "{}, {state}", kind.name());
            }
        }
    }
}
