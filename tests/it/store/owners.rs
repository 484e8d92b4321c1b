//! One owner of a directory: who makes it, who has it, and who has it no more.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use exuvia::engine::EngineErrorKind;
use exuvia::engine::EngineKind;
use exuvia::{Durability, Error, Store, Table};

use crate::kit::errors::says;
use crate::kit::kinds::kinds;
use crate::kit::scratch::{Scratch, child, child_argument};
use crate::kit::types::*;

type Users = Table<u64, UserV1>;

/// Nothing is flushed by itself.
fn open(kind: EngineKind, path: &Path) -> Result<Store, Error> {
    let durability = Durability::Buffered { interval: Duration::from_secs(3600) };
    Store::options().engine(kind).durability(durability).free_bytes_min(0).open(path)
}

fn put(users: &Users, ids: impl IntoIterator<Item = u64>, name: &str) -> Result<(), Error> {
    ids.into_iter().try_for_each(|id| users.put(&id, &v1(name, 30)))
}

/// What an owner whose directory was taken from it may say: first what happened, then that it has stopped.
fn noticed(error: &Error) {
    let first = matches!(error, Error::Engine(e) if e.kind() == EngineErrorKind::Moved);
    assert!(first || matches!(error, Error::Poisoned { .. }), "{error:?}");
    says(error, &["was moved, replaced or removed while the store was open"]);
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// The directory of an open store is moved, and a copy put in its place, which a second one opens and writes to. The first
/// goes on: nothing of what the second flushed goes, and the first is told.
#[cfg(unix)]
#[test]
fn an_owner_whose_directory_was_replaced_notices_and_destroys_nothing() {
    let scratch = Scratch::new("owners-moved");
    // The long form writes so much that the engines make files of it.
    let long = std::env::var_os("EXUVIA_OWNERS_LONG").is_some();
    let (most, name) = if long { (300_000, "Owner O".repeat(40)) } else { (3000, "Owner O".to_owned()) };
    for kind in kinds() {
        for (writes, verb) in
            [(0, "close"), (0, "flush"), (1, "begin"), (most, "flush"), (most, "close"), (1, "table")]
        {
            let at = scratch.path().join(format!("{}-{writes}-{verb}", kind.name()));
            fs::create_dir(&at).unwrap();
            let (path, moved) = (at.join("store"), at.join("moved"));
            let owner = open(kind, &path).unwrap();
            let users: Users = owner.table("users").unwrap();
            put(&users, 0..1000, "First F").unwrap();
            owner.flush().unwrap();
            fs::rename(&path, &moved).unwrap();
            copy(&moved, &path);
            let second = open(kind, &path).expect("the copy is nobody's");
            let seconds: Users = second.table("users").unwrap();
            put(&seconds, 10_000..10_500, "Second S").unwrap();
            second.flush().unwrap();
            second.close().unwrap();

            let mut told = Vec::new();
            told.extend(put(&users, (0..writes).map(|n| n % 1000), &name).err());
            match verb {
                "flush" => told.extend(owner.flush().err()),
                "begin" => {
                    let new: Table<u64, UserV2> = owner.table("users").unwrap();
                    told.extend(owner.plan("split").table(&new).begin().err());
                }
                "table" => told.extend(owner.table::<u64, UserV1>("more").err()),
                _ => {}
            }
            told.extend(owner.close().err());
            assert!(!told.is_empty(), "{}, {verb}: nobody was told", kind.name());
            told.iter().for_each(noticed);

            let third = open(kind, &path).unwrap();
            assert!(third.verify().unwrap().is_clean());
            assert_eq!(third.tables(), ["users"]);
            let thirds: Users = third.table("users").unwrap();
            assert_eq!(thirds.scan(10_000..).filter(|found| found.is_ok()).count(), 500, "{verb}");
            assert_eq!(thirds.len().unwrap(), 1500, "{}, {writes}, {verb}", kind.name());
            third.close().unwrap();
            // Where it was moved to is what the first had flushed, at least.
            let first = open(kind, &moved).unwrap();
            assert!(first.verify().unwrap().is_clean());
            assert_eq!(first.table::<u64, UserV1>("users").unwrap().len().unwrap(), 1000);
        }
    }
}

/// The same, with nothing in its place, and with the lock alone taken away.
#[cfg(unix)]
#[test]
fn an_owner_whose_directory_or_lock_is_gone_notices() {
    let scratch = Scratch::new("owners-gone");
    for kind in kinds() {
        for lost in ["directory", "lock"] {
            let path = scratch.path().join(format!("{}-{lost}", kind.name()));
            let moved = path.with_extension("moved");
            let owner = open(kind, &path).unwrap();
            let users: Users = owner.table("users").unwrap();
            put(&users, 0..10, "First F").unwrap();
            owner.flush().unwrap();
            match (lost, kind) {
                ("directory", _) => fs::rename(&path, &moved).unwrap(),
                (_, EngineKind::Fjall) => fs::remove_file(path.join("fjall/lock")).unwrap(),
                // sled locks the file that it keeps its records in: it cannot be taken away alone.
                _ => continue,
            }
            put(&users, 0..10, "Owner O").unwrap();
            noticed(&owner.flush().unwrap_err());
            noticed(&users.put(&1, &v1("Owner O", 1)).unwrap_err());
            noticed(&users.get(&1).unwrap_err());
            noticed(&owner.close().unwrap_err());
            assert_eq!(path.exists(), lost == "lock", "nothing was made in its place");
            // With that error, too, it was let go of, although a handle is there.
            let again = open(kind, if lost == "lock" { &path } else { &moved }).unwrap();
            assert_eq!(again.table::<u64, UserV1>("users").unwrap().len().unwrap(), 10);
            assert!(users.get(&1).is_err());
        }
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited too long for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

const PROCESSES: u64 = 8;

/// Processes that make one store, all at the same time: each gets it in its turn, or is told that another has it.
#[test]
fn processes_that_make_one_store_at_once_get_it_or_are_told_that_it_is_locked() {
    let test = "store::owners::processes_that_make_one_store_at_once_get_it_or_are_told_that_it_is_locked";
    let rounds: u64 = std::env::var("EXUVIA_OWNERS_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    if let Some(argument) = child_argument() {
        let (root, me) = argument.rsplit_once(' ').unwrap();
        let (root, me) = (Path::new(root), me.parse().unwrap());
        for kind in kinds() {
            for round in 0..rounds {
                let ready = root.join(format!("ready-{}-{round}", kind.name()));
                fs::write(ready.with_extension(format!("{me}")), "").unwrap();
                wait_for("the others", || {
                    (0..PROCESSES).all(|other| ready.with_extension(format!("{other}")).exists())
                });
                make_and_use(kind, &root.join(format!("{}-{round}", kind.name())), me);
            }
        }
        return;
    }
    let scratch = Scratch::new("owners-creation");
    let root = scratch.path().display();
    let children: Vec<_> =
        (0..PROCESSES).map(|me| child(test, &format!("{root} {me}")).spawn().unwrap()).collect();
    for child in children {
        let done = child.wait_with_output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
    }
    for kind in kinds() {
        for round in 0..rounds {
            let store = open(kind, &scratch.path().join(format!("{}-{round}", kind.name()))).unwrap();
            let users: Users = store.table("users").unwrap();
            assert_eq!(users.len().unwrap(), PROCESSES, "{}, round {round}", kind.name());
        }
    }
}

fn make_and_use(kind: EngineKind, path: &Path, me: u64) {
    let mut opened = None;
    wait_for("the store", || match open(kind, path) {
        Ok(store) => {
            opened = Some(store);
            true
        }
        Err(Error::Locked { path: said }) => {
            assert_eq!(said.file_name(), path.file_name(), "it names the store");
            false
        }
        Err(e) => panic!("process {me}: {e:?}"),
    });
    let store = opened.unwrap();
    let users: Users = store.table("users").unwrap();
    users.put(&me, &v1("Process P", 1)).unwrap();
    store.close().unwrap();
}

/// Every way to a store that another handle has open.
#[test]
fn a_store_that_is_open_is_locked_for_every_call() {
    let scratch = Scratch::new("owners-locked");
    for kind in kinds() {
        let path = scratch.path().join(kind.name());
        let to = scratch.path().join("to");
        let store = open(kind, &path).unwrap();
        let users: Users = store.table("users").unwrap();
        put(&users, 0..5, "Ann A").unwrap();
        // Also where somebody has taken the store's own lock for a remain of a crash.
        for lock in [true, false] {
            if !lock {
                fs::remove_file(path.join("LOCK")).unwrap();
            }
            let mut calls = vec![
                ("open", Store::open(&path).map(drop)),
                ("open to read", Store::options().read_only(true).open(&path).map(drop)),
                ("compact", Store::compact(&path).map(drop)),
                ("engine", kind.open(path.join(kind.name()), 16 << 20).map(drop)),
            ];
            if lock {
                calls.push(("salvage", Store::salvage(&path, &to, None).map(drop)));
                calls.push(("copy", store.copy_to(&path, kind).map(drop)));
            }
            for (call, answer) in calls {
                let error = answer.expect_err(call);
                assert!(matches!(error, Error::Locked { .. }), "{}, {call}, {lock}: {error:?}", kind.name());
                says(&error, &[kind.name(), "close that one first"]);
            }
            assert!(!to.exists());
        }
        put(&users, 5..9, "Ann A").unwrap();
        store.close().unwrap();
        assert_eq!(open(kind, &path).unwrap().table::<u64, UserV1>("users").unwrap().len().unwrap(), 9);
    }
}

/// What the directory is is looked at under its lock.
#[test]
fn what_was_made_while_the_lock_was_waited_for_is_looked_at_again() {
    let scratch = Scratch::new("owners-meanwhile");
    for (first, second) in [("sled", "fjall"), ("fjall", "sled")] {
        let kind = |name| EngineKind::from_name(name).unwrap();
        if !kind(first).is_built_in() || !kind(second).is_built_in() {
            continue;
        }
        let path = scratch.path().join(first);
        fs::create_dir(&path).unwrap();
        let lock = fs::File::create(path.join("LOCK")).unwrap();
        lock.lock().unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| open(kind(second), &path));
            // It has looked, and waits for the lock.
            thread::sleep(Duration::from_millis(100));
            fs::write(path.join("EXUVIA"), format!("exuvia store, format 1\nengine {first}\n")).unwrap();
            fs::create_dir(path.join(first)).unwrap();
            drop(lock);
            let error = waits.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Format { .. }), "{error:?}");
        });
        assert!(!path.join(second).exists());
    }
}
