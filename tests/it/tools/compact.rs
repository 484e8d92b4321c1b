//! Compaction of a store that is not open, and every state that a crash of it leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use exuvia::engine::EngineKind;
use exuvia::{Error, Phase, Store, Table};

use crate::kit::damaging::{damage, is_records};
use crate::kit::errors::says;
use crate::kit::kinds::kinds;
use crate::kit::scratch::{Scratch, child, child_argument};
use crate::kit::types::*;

const KEPT: u64 = 300;

/// A store with an open migration, and much in it that was overwritten and removed.
fn grown(path: &Path, kind: EngineKind) -> BTreeMap<u64, UserV2> {
    let store = Store::options().engine(kind).open(path).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for round in 0..6 {
        for id in 0..6 * KEPT {
            old.put(&id, &v1(&format!("Ann {}{round}", "N".repeat(100)), 30)).unwrap();
        }
        store.flush().unwrap();
    }
    for id in KEPT..6 * KEPT {
        old.remove(&id).unwrap();
    }
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).paused().begin().unwrap();
    migration.step(KEPT as usize / 2).unwrap();
    new.put(&3, &v2("Eve", "E", 9, Some("e@x"))).unwrap();
    old.put(&3, &v1("Eve F", 9)).unwrap();
    old.remove(&4).unwrap();
    let all = all(&store);
    assert_eq!(all.len() as u64, KEPT - 1);
    drop((old, new, migration));
    store.close().unwrap();
    all
}

fn all(store: &Store) -> BTreeMap<u64, UserV2> {
    let users: Table<u64, UserV2> = store.table("users").unwrap();
    users.scan(..).map(Result::unwrap).collect()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn is_whole(path: &Path, kind: EngineKind, expected: &BTreeMap<u64, UserV2>) {
    let store = Store::open(path).unwrap();
    assert_eq!(names(path), ["EXUVIA", "LOCK", kind.name()], "leftovers go at an open");
    assert_eq!(&all(&store), expected);
    assert!(store.verify().unwrap().is_clean());
    store.close().unwrap();
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_compacted_store_is_the_same_and_smaller() {
    for kind in kinds() {
        let scratch = Scratch::new("compact");
        let path = scratch.path().join("store");
        let expected = grown(&path, kind);
        let (before, after) = Store::compact(&path).unwrap();
        assert!(after.bytes_on_disk < before.bytes_on_disk, "{before:?} {after:?}");
        assert_eq!(names(&path), ["EXUVIA", "LOCK", kind.name()]);
        is_whole(&path, kind, &expected);

        let store = Store::open(&path).unwrap();
        let new: Table<u64, UserV2> = store.table("users").unwrap();
        let migration = store.migration("split").unwrap();
        migration.unpause().unwrap();
        assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
        migration.contract().unwrap().execute().unwrap();
        assert_eq!(new.get(&3).unwrap(), Some(v2("Eve", "F", 9, Some("e@x"))), "with all its forms");
        let ledger = store.ledger().unwrap();
        assert!(ledger.iter().any(|entry| entry.what == "compact"), "{ledger:?}");
        assert!(matches!(Store::compact(&path), Err(Error::Locked { .. })));
        drop((new, migration));
        store.close().unwrap();
    }
}

/// The states between the steps, made by hand: half a copy, a whole one, both after the exchange, the old one half removed.
#[test]
fn every_crash_leaves_one_of_the_two_whole() {
    for kind in kinds() {
        let scratch = Scratch::new("compact-crash");
        let origin = scratch.path().join("origin");
        let expected = grown(&origin, kind);
        let compacted = scratch.path().join("compacted");
        copy_directory(&origin, &compacted);
        Store::compact(&compacted).unwrap();
        let (old, new) = (origin.join(kind.name()), compacted.join(kind.name()));
        let (name, beside) = (kind.name().to_owned(), format!("{}.compact", kind.name()));
        let draft = format!("{}.draft", kind.name());

        let half = |from: &Path, to: &Path| {
            copy_directory(from, to);
            let first = fs::read_dir(to).unwrap().find(|entry| entry.as_ref().unwrap().path().is_file());
            fs::remove_file(first.unwrap().unwrap().path()).unwrap();
        };
        type Make<'m> = &'m dyn Fn(&Path);
        let states: [(&str, Make); 6] = [
            ("it asks for the exchange", &|path| {
                copy_directory(&old, &path.join(&name));
                fs::create_dir_all(path.join(&beside).join("a")).unwrap();
            }),
            ("the copy's engine is a draft", &|path| {
                copy_directory(&old, &path.join(&name));
                half(&new, &path.join(&draft));
            }),
            ("the copy is half made", &|path| {
                copy_directory(&old, &path.join(&name));
                half(&new, &path.join(&beside));
            }),
            ("the copy is whole", &|path| {
                copy_directory(&old, &path.join(&name));
                copy_directory(&new, &path.join(&beside));
            }),
            ("they are exchanged", &|path| {
                copy_directory(&new, &path.join(&name));
                copy_directory(&old, &path.join(&beside));
            }),
            ("the old one is half removed", &|path| {
                copy_directory(&new, &path.join(&name));
                half(&old, &path.join(&beside));
            }),
        ];
        for (state, make) in states {
            for again in [false, true] {
                let path = scratch.path().join(format!("{again} {state}"));
                fs::create_dir(&path).unwrap();
                fs::copy(origin.join("EXUVIA"), path.join("EXUVIA")).unwrap();
                make(&path);
                if again {
                    Store::compact(&path).unwrap();
                } else {
                    // Who only looks changes nothing.
                    let before = names(&path);
                    let store = Store::options().read_only(true).open(&path).unwrap();
                    assert_eq!(all(&store), expected, "{state}");
                    store.close().unwrap();
                    assert_eq!(names(&path).len(), before.len() + 1, "{state}: LOCK came");
                }
                is_whole(&path, kind, &expected);
            }
        }
    }
}

/// Killed at whatever it was doing when its copy came to be seen, a little later each time.
#[test]
fn a_killed_compaction_leaves_a_whole_store() {
    let test = "tools::compact::a_killed_compaction_leaves_a_whole_store";
    if let Some(path) = child_argument() {
        Store::compact(path).unwrap();
        return;
    }
    for kind in kinds() {
        let scratch = Scratch::new("compact-killed");
        let path = scratch.path().join("store");
        let expected = grown(&path, kind);
        for looks in [0, 20, 200, 1000] {
            let mut running = child(test, path.to_str().unwrap()).spawn().unwrap();
            let mut seen = 0;
            while seen <= looks && running.try_wait().unwrap().is_none() {
                seen += u32::from(path.join(format!("{}.compact", kind.name())).exists());
                std::thread::yield_now();
            }
            let _it_may_be_done = running.kill();
            running.wait().unwrap();
            is_whole(&path, kind, &expected);
        }
    }
}

#[test]
fn what_cannot_be_compacted_is_as_it_was() {
    kinds().for_each(what_cannot_be_compacted_is_as_it_was_on);
}

fn what_cannot_be_compacted_is_as_it_was_on(kind: EngineKind) {
    let scratch = Scratch::new("compact-refused");
    let missing = scratch.path().join("missing");
    says(&Store::compact(&missing).unwrap_err(), &["no store here"]);
    assert!(!missing.exists());
    let foreign = scratch.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "dear reader").unwrap();
    says(&Store::compact(&foreign).unwrap_err(), &["foreign"]);
    assert_eq!(names(&foreign), ["letter.txt"]);

    let path = scratch.path().join("store");
    let expected = grown(&path, kind);
    damage(kind, &path, |tree, key| is_records(tree) && key.ends_with(&[7]));
    assert!(Store::compact(&path).unwrap_err().is_corruption());
    assert_eq!(names(&path), ["EXUVIA", "LOCK", kind.name()]);
    let store = Store::open(&path).unwrap();
    let users: Table<u64, UserV2> = store.table("users").unwrap();
    assert_eq!(users.get(&8).unwrap().as_ref(), expected.get(&8));
    assert_eq!(store.verify().unwrap().damage_count, 1);
}
