//! A disk that is full, and pages that are damaged, under a whole store.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use exuvia::engine::EngineKind;
use exuvia::migration::{Backfill, Waiting};
use exuvia::{Budget, Durability, Error, Phase, Store, Table};

use crate::kit::errors::says;
use crate::kit::files::{Mount, files};
use crate::kit::kinds::kinds;
use crate::kit::scratch::{Scratch, child, child_argument};
use crate::kit::types::*;

fn record(id: u64) -> UserV1 {
    v1(&format!("Ann {}", "N".repeat(800)), (id % 90) as u32)
}

fn options(floor: u64) -> exuvia::Options {
    Store::options().cache_bytes(16 << 20).free_bytes_min(floor).budget(Budget::unlimited())
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_is_a_typed_error_and_nothing_flushed_is_lost() {
    kinds().for_each(a_full_disk_is_a_typed_error_and_nothing_flushed_is_lost_on);
}

fn a_full_disk_is_a_typed_error_and_nothing_flushed_is_lost_on(kind: EngineKind) {
    let scratch = Scratch::new("full-store");
    let Some(mount) = Mount::new(scratch.path().join("disk"), 40) else {
        return;
    };
    let (path, ballast) = (mount.0.join("store"), mount.0.join("ballast"));
    fs::write(&ballast, vec![1; 12 << 20]).unwrap();
    let store = options(0).engine(kind).open(&path).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    let (mut flushed, mut failed) = (0, None);
    for id in 0..200_000 {
        let put = users.put(&id, &record(id));
        let result = put.and_then(|()| if id % 50 == 49 { store.flush() } else { Ok(()) });
        if let Err(e) = result {
            failed = Some(e);
            break;
        }
        flushed = if id % 50 == 49 { id + 1 } else { flushed };
    }
    let e = failed.expect("the disk is full");
    assert!(e.is_no_space() || matches!(e, Error::Poisoned { .. }), "{e:?}");
    says(&e, &["space"]);
    assert!(flushed > 0);
    let later = users.put(&0, &record(0)).unwrap_err();
    assert!(later.is_no_space() || matches!(later, Error::Poisoned { .. }), "{later:?}");
    says(&later, &["space"]);
    drop(users);
    let _ = store.close().unwrap_err();

    fs::remove_file(&ballast).unwrap();
    let store = options(0).open(&path).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..flushed {
        assert_eq!(users.get(&id).unwrap(), Some(record(id)), "{id}");
    }
    users.put(&0, &v1("Room again", 1)).unwrap();
    assert!(store.verify().unwrap().is_clean());
    drop(users);
    store.close().unwrap();
}

/// Below the floor the backfill waits, says so, and goes on by itself.
#[test]
fn the_floor_of_free_space_pauses_the_backfill() {
    kinds().for_each(the_floor_of_free_space_pauses_the_backfill_on);
}

fn the_floor_of_free_space_pauses_the_backfill_on(kind: EngineKind) {
    let scratch = Scratch::new("floor");
    let Some(mount) = Mount::new(scratch.path().join("disk"), 64) else {
        return;
    };
    let (path, ballast) = (mount.0.join("store"), mount.0.join("ballast"));
    let floor = 24 << 20;
    let store = options(floor).engine(kind).open(&path).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..2000 {
        users.put(&id, &record(id)).unwrap();
    }
    store.flush().unwrap();
    fs::write(&ballast, vec![1; 40 << 20]).unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = store.plan("split").table(&new).begin().unwrap();
    let waits = || match migration.status().unwrap().backfill {
        Backfill::Waiting(Waiting::Space { free, floor: named }) => free < floor && named == floor,
        _ => false,
    };
    eventually("it waits for space", waits);
    says(&migration.wait().unwrap_err(), &["bytes are free", "make room, it goes on by itself"]);
    // The foreground goes on meanwhile.
    users.put(&0, &record(1)).unwrap();
    assert_eq!(new.get(&0).unwrap().unwrap().age, 1);
    fs::remove_file(&ballast).unwrap();
    eventually("it goes on", || migration.status().unwrap().phase == Phase::Complete);
    assert_eq!(new.len().unwrap(), 2000);
    assert!(store.verify().unwrap().is_clean());
}

/// Without a floor the backfill runs into the full disk itself.
#[test]
fn a_backfill_into_a_full_disk_goes_on_after_a_reopen() {
    kinds().for_each(a_backfill_into_a_full_disk_goes_on_after_a_reopen_on);
}

fn a_backfill_into_a_full_disk_goes_on_after_a_reopen_on(kind: EngineKind) {
    let scratch = Scratch::new("full-backfill");
    let Some(mount) = Mount::new(scratch.path().join("disk"), 48) else {
        return;
    };
    let (path, ballast) = (mount.0.join("store"), mount.0.join("ballast"));
    let store = options(0).engine(kind).open(&path).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    let records = 8000;
    for id in 0..records {
        users.put(&id, &record(id)).unwrap();
    }
    store.flush().unwrap();
    let (free, margin) = (free_bytes(&mount.0), 2 << 20);
    fs::write(&ballast, vec![1; (free - margin) as usize]).unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let ended = match store.plan("split").table(&new).begin() {
        Ok(migration) => migration.wait().map(drop).unwrap_err(),
        Err(e) => e,
    };
    assert!(
        ended.is_no_space() || matches!(ended, Error::Poisoned { .. } | Error::State { .. }),
        "{ended:?}"
    );
    says(&ended, &["space"]);
    drop((users, new));
    let _it_failed = store.close();

    fs::remove_file(&ballast).unwrap();
    let store = options(0).open(&path).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    let migration = match store.migration("split") {
        Ok(migration) => migration,
        Err(_) => store.plan("split").table(&new).begin().unwrap(),
    };
    assert_eq!(migration.wait().unwrap().phase, Phase::Complete);
    for id in 0..records {
        assert_eq!(users.get(&id).unwrap(), Some(record(id)));
    }
    assert_eq!(new.len().unwrap(), records);
    assert!(store.verify().unwrap().is_clean());
}

fn free_bytes(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

const RECORDS: u64 = 4000;

/// Uses a store of which a page is damaged, in a process of its own. Says how every call ended.
fn use_damaged(path: &Path) {
    let store = match options(0).durability(Durability::EveryWrite).open(path) {
        Ok(store) => store,
        Err(e) => {
            assert!(e.is_corruption() || matches!(e, Error::Poisoned { .. }), "{e:?}");
            println!("\nopen: {e}");
            return;
        }
    };
    let users: Table<u64, UserV1> = match store.table("users") {
        Ok(users) => users,
        Err(e) => return println!("\ntable: {e}"),
    };
    let (mut good, mut bad) = (0, 0);
    for id in 0..RECORDS {
        match users.get(&id) {
            Ok(Some(user)) => {
                assert_eq!(user, record(id), "damage was served as data");
                good += 1;
            }
            Ok(None) => panic!("{id} is lost without a word"),
            Err(e) => {
                assert!(e.is_corruption() || matches!(e, Error::Poisoned { .. }), "{e:?}");
                says(&e, &[if e.is_corruption() { "restore" } else { "mend the cause" }]);
                bad += 1;
            }
        }
    }
    let scanned = users.scan(..).find_map(Result::err);
    assert_eq!(scanned.is_some(), bad > 0, "{scanned:?}");
    if bad > 0 {
        let _it_may_be_poisoned = (users.put(&0, &record(0)), store.verify().is_ok(), store.flush());
    }
    println!("\n{good} good, {bad} bad: {}", scanned.map_or(String::new(), |e| e.to_string()));
}

/// sled panics on much of what it finds damaged. A store answers with data or with a typed error, and what is beside
/// the damage can still be copied out of the files.
#[test]
fn a_damaged_page_of_sled_is_a_typed_error() {
    if let Some(path) = child_argument() {
        use_damaged(Path::new(&path));
        return;
    }
    let scratch = Scratch::new("damaged-page");
    let path = scratch.path().join("store");
    // Opened twice, so that there is a snapshot of the log: without one sled cannot tell damage from a torn end.
    for round in 0..2 {
        let store = options(0).open(&path).unwrap();
        let users: Table<u64, UserV1> = store.table("users").unwrap();
        for id in (0..RECORDS).step_by(1 + round * 7) {
            users.put(&id, &record(id)).unwrap();
        }
    }
    let db = path.join("sled").join("db");
    let original = fs::read(&db).unwrap();
    let used = original.iter().rposition(|byte| *byte != 0).unwrap();
    let others: Vec<_> = files(&path.join("sled")).into_iter().filter(|(file, _)| *file != db).collect();
    let mut noticed = 0;
    for places in [1, 2, 3, 4, 6, 30] {
        for (file, bytes) in &others {
            if !file.is_dir() && !bytes.is_empty() {
                fs::write(file, bytes).unwrap();
            }
        }
        let mut bytes = original.clone();
        // Spread out: most of a log is pages that were written again later.
        for place in 1..=places {
            bytes[used * place / (places + 1)] ^= 0x41;
        }
        fs::write(&db, bytes).unwrap();
        let test = "store::bad_input::disk::a_damaged_page_of_sled_is_a_typed_error";
        let output = child(test, path.to_str().unwrap()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = said
            .lines()
            .find(|line| ["open: ", "table: ", " bad: "].iter().any(|w| line.contains(w)))
            .unwrap_or("");
        println!("{places}: {last}");
        assert!(output.status.success(), "{places}: {said}{}", String::from_utf8_lossy(&output.stderr));
        noticed += u32::from(!said.contains(" 0 bad"));
    }
    assert!(noticed > 0, "no damage was hit");
}
