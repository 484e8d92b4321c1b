//! Backup, copy, compact and salvage by the command.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use exuvia::engine::EngineKind;
use exuvia::{Store, Table};

use crate::command::{DONE, INPUT, USAGE, VERIFICATION, refused, run, run_json};
use crate::kit::damaging::damage;
use crate::kit::kinds::kinds;
use crate::kit::scene::BASE;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

/// A store with a table of `count` users.
fn users(kind: EngineKind, path: &Path, count: u64) -> (Store, Table<u64, UserV1>) {
    let store = Store::options().engine(kind).open(path).unwrap();
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..count {
        users.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    (store, users)
}

fn all(store: &Store) -> BTreeMap<u64, UserV1> {
    store.table::<u64, UserV1>("users").unwrap().scan(..).map(Result::unwrap).collect()
}

#[test]
fn the_command_makes_checks_and_restores_backups() {
    let scratch = Scratch::new("backup-command");
    let path = scratch.path().join("store");
    let at = path.to_str().unwrap();
    let to = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    refused(&["backup", at, &to("none")], INPUT, &["there is no store here"]);
    refused(&["backup", at], USAGE, &["DESTINATION"]);
    let (store, table) = users(EngineKind::Sled, &path, 50);
    refused(&["backup", at, &to("locked")], INPUT, &["open in another process", "backup"]);
    #[cfg(unix)]
    {
        store.control_socket(path.join("control.sock")).unwrap();
        let said = run_json(&["backup", at, &to("live"), "--json"]);
        assert_eq!((&said["engine"], &said["records"]), (&"sled".into(), &50.into()), "{said}");
        refused(&["backup", at, &to("live")], 4, &["is there already"]);
        assert!(run(&["backup", "--check", &to("live")], DONE).0.contains("as it was made: 50 records"));
    }
    drop(table);
    store.close().unwrap();
    assert!(run(&["backup", at, &to("one")], DONE).0.contains("50 records backed up and verified"));
    refused(&["backup", at, &to("one")], INPUT, &["is there already"]);
    assert_eq!(run_json(&["backup", "--check", &to("one"), "--json"])["damage"].as_array().unwrap().len(), 0);
    assert!(run(&["restore", &to("one"), &to("restored")], DONE).0.contains("50 records"));
    refused(&["restore", &to("one"), &to("restored")], INPUT, &["name a new directory"]);
    for verb in ["status", "verify", "ledger", "export"] {
        refused(&[verb, &to("one")], INPUT, &["holds a backup", "`exuvia restore`"]);
    }
    for verb in
        [&["get", &to("one"), "users", "1"][..], &["scan", &to("one"), "users"], &["compact", &to("one")]]
    {
        refused(verb, INPUT, &["holds a backup", "`exuvia restore`"]);
    }
    refused(&["rollback", &to("one"), "split"], INPUT, &["holds a backup"]);
    assert!(run(&["backup", "--check", &to("one")], DONE).0.contains("as it was made: 50 records"));
    let lines = |path: &str| run(&["export", path], DONE).0;
    assert_eq!(lines(&to("restored")), lines(at));
    fs::write(scratch.path().join("one").join("EXUVIA"), "x").unwrap();
    let (out, err) = run(&["backup", "--check", &to("one")], VERIFICATION);
    assert!(
        out.contains("EXUVIA: has 1 bytes") && err.contains("1 files of the backup differ"),
        "{out}{err}"
    );
    refused(&["restore", &to("one"), &to("again")], INPUT, &["EXUVIA: has 1 bytes"]);
    refused(&["backup", "--check", at], INPUT, &["is no backup"]);
}

#[test]
fn the_command_copies_to_another_engine() {
    let scratch = Scratch::new("copy-command");
    let path = scratch.path().join("store");
    let at = path.to_str().unwrap();
    let to = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    refused(&["copy", at, &to("none")], INPUT, &["there is no store here"]);
    let (store, users) = users(EngineKind::Sled, &path, 50);
    refused(&["copy", at, &to("locked")], INPUT, &["open in another process"]);
    drop(users);
    store.close().unwrap();

    let said = run_json(&["copy", at, &to("fjall"), "--engine", "fjall", "--json"]);
    assert_eq!((&said["engine"], &said["records"]), (&"fjall".into(), &50.into()), "{said}");
    assert!(said["bytes_after"].as_u64().unwrap() > 0, "{said}");
    assert!(
        run(&["copy", at, &to("same")], DONE)
            .0
            .contains("50 records copied and verified, in the engine sled")
    );
    refused(&["copy", at, &to("same")], INPUT, &["is a store already"]);
    refused(&["copy", at, &to("x"), "--engine", "redb"], USAGE, &["sled or fjall"]);
    let lines = |path: &str| run(&["export", path], DONE).0;
    assert_eq!(lines(&to("fjall")), lines(at));
    assert_eq!(lines(&to("same")), lines(at));
    assert_eq!(
        run_json(&["ledger", at, "--json"])["entries"].as_array().unwrap().len(),
        1,
        "the source is as it was"
    );
}

#[test]
fn the_command_compacts_and_says_what_it_won() {
    kinds().for_each(the_command_compacts_and_says_what_it_won_on);
}

fn the_command_compacts_and_says_what_it_won_on(kind: EngineKind) {
    let scratch = Scratch::new("compact-command");
    let path = scratch.path().join("store");
    let at = path.to_str().unwrap();
    refused(&["compact", at], INPUT, &["there is no store here"]);
    let (store, table) = users(kind, &path, 2000);
    for _ in 0..4 {
        (0..2000).for_each(|id| table.put(&id, &v1(&format!("Ann {}{id}", "N".repeat(100)), 30)).unwrap());
        store.flush().unwrap();
    }
    (300..2000).for_each(|id| table.remove(&id).unwrap());
    let expected = all(&store);
    drop(table);
    store.close().unwrap();
    let said = run_json(&["compact", at, "--json"]);
    assert!(said["bytes_after"].as_u64().unwrap() < said["bytes_before"].as_u64().unwrap(), "{said}");
    assert!(run(&["compact", at], DONE).0.contains("compact and verified: "));
    let store = Store::open(&path).unwrap();
    refused(&["compact", at], INPUT, &["open in another process"]);
    assert_eq!(all(&store), expected);
}

#[test]
fn the_command_salvages_and_lists_what_is_lost() {
    let scratch = Scratch::new("salvage-command");
    let path = scratch.path().join("store");
    let at = path.to_str().unwrap();
    let to = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    refused(&["salvage", at, &to("none")], INPUT, &["is no store"]);
    let (store, table) = users(EngineKind::Sled, &path, 20);
    let others: Table<u64, UserV1> = store.table("others").unwrap();
    (0..20).for_each(|id| others.put(&id, &v1("Bob B", 30)).unwrap());
    drop((table, others));
    store.close().unwrap();
    let whole = run_json(&["salvage", at, &to("whole"), "--engine", "fjall", "--json"]);
    assert_eq!(
        (&whole["engine"], &whole["records"], &whole["lost_count"]),
        (&"fjall".into(), &40.into(), &0.into())
    );
    for id in [7_u64, 9] {
        damage(EngineKind::Sled, &path, |tree, key| tree == BASE && *key == id.to_be_bytes());
    }
    let (out, err) = run(&["salvage", at, &to("new")], VERIFICATION);
    for part in [
        "table users, key 7: checksum mismatch",
        "table users, key 9:",
        "38 records of 2 tables copied",
        "2 lost",
    ] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    assert!(err.contains("2 things were lost"), "{err}");
    assert!(run(&["verify", &to("new")], DONE).0.contains("38 records"));
    // `verify` names both, and all that is lost.
    let (out, _) = run(&["verify", at], VERIFICATION);
    assert!(out.contains("key 0x0000000000000007") && out.contains("key 0x0000000000000009"), "{out}");
    assert!(out.contains("2 damaged"), "{out}");
    let (out, _) = run(&["salvage", at, &to("json"), "--json"], VERIFICATION);
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&said["lost"][1]["table"], &said["lost"][1]["key"]), (&"users".into(), &9.into()), "{said}");
}
