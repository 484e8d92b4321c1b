//! The `exuvia` command, run as its users run it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use exuvia::Store;
use exuvia::engine::EngineKind;
use serde_json::Value;

use crate::kit::damaging::{damage, is_records};
use crate::kit::kinds::kinds;
use crate::kit::scratch::Scratch;
use crate::kit::types::{UserV1, v1};

pub(crate) const DONE: i32 = 0;
pub(crate) const VERIFICATION: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const INPUT: i32 = 3;

fn exuvia(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exuvia"));
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs the command; it has to end with `code`. Answers standard output and standard error.
pub(crate) fn run(arguments: &[&str], code: i32) -> (String, String) {
    let output = exuvia(arguments);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    (out, err)
}

pub(crate) fn run_json(arguments: &[&str]) -> Value {
    serde_json::from_str(&run(arguments, DONE).0).unwrap()
}

/// Runs the command; it has to refuse with `code` and to say all of `parts`.
pub(crate) fn refused(arguments: &[&str], code: i32, parts: &[&str]) {
    let (out, err) = run(arguments, code);
    for part in parts {
        assert!(err.contains(part), "{arguments:?}: {part:?} is not in\n{err}");
    }
    assert!(!err.contains("panicked"), "{err}");
    assert_eq!(out, "", "{arguments:?}");
}

fn a_store(kind: EngineKind, path: &Path, records: u64) {
    let store = Store::options().engine(kind).open(path).unwrap();
    let users = store.table::<u64, UserV1>("users").unwrap();
    for id in 0..records {
        users.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    drop(users);
    store.close().unwrap();
}

#[test]
fn a_demo_verifies_every_record_and_keeps_a_store_that_can_be_looked_into() {
    kinds().for_each(a_demo_verifies_every_record_and_keeps_a_store_that_can_be_looked_into_on);
}

fn a_demo_verifies_every_record_and_keeps_a_store_that_can_be_looked_into_on(kind: EngineKind) {
    let scratch = Scratch::new("demo");
    let path = scratch.path().join("kept");
    let store = path.to_str().unwrap();
    let sizes = ["--records", "2000", "--rate", "2000", "--threads", "2", "--phase-seconds", "0.2"];
    let demo =
        [&["demo", "--json", "--engine", kind.name(), "--record-bytes", "150", "--path", store], &sizes[..]]
            .concat();
    let summary = run_json(&demo);

    assert_eq!(summary["records"], 2000);
    assert_eq!(summary["verified"], true, "{summary}");
    assert_eq!(summary["compared"], 2000 * 2 * (2 + 2 + 1));
    assert_eq!(summary["path"], store);
    for field in ["rollback_us", "longest_pause_us", "backfill_records_per_s", "bytes_before", "bytes_after"]
    {
        assert!(summary[field].as_f64().is_some_and(|number| number > 0.0), "{field}: {summary}");
    }
    for phase in ["idle", "backfill", "rollback", "contract"] {
        for field in ["ops", "p50_us", "p99_us", "p999_us", "max_us"] {
            let number = &summary["phases"][phase][field];
            assert!(number.as_f64().is_some_and(|number| number > 0.0), "{phase}.{field}: {summary}");
        }
    }

    let status = run_json(&["status", store, "--json"]);
    let table = &status["tables"][0];
    assert_eq!(
        (&table["table"], &table["active"], &table["floor"]),
        (&"airports".into(), &3.into(), &3.into())
    );
    assert_eq!((&table["companions"], &table["tombstones"]), (&0.into(), &0.into()), "swept: {status}");
    let phases = status["migrations"].as_array().unwrap().iter().map(|migration| &migration["phase"]);
    assert_eq!(phases.collect::<Vec<_>>(), ["contracted", "contracted"]);

    let report = run_json(&["verify", store, "--json"]);
    assert_eq!((&report["clean"], &report["damage_count"]), (&true.into(), &0.into()));
    assert!(report["records"].as_u64().is_some_and(|records| (1500..=2000).contains(&records)), "{report}");

    let ledger = run_json(&["ledger", store, "--json"]);
    let entries = ledger["entries"].as_array().unwrap();
    let verbs: Vec<&str> = entries.iter().filter_map(|entry| entry["what"].as_str()).collect();
    for verb in ["create table", "begin", "unpause", "rollback", "resume", "contract", "sweep"] {
        let times = if verb == "create table" { 1 } else { 2 };
        assert_eq!(verbs.iter().filter(|what| **what == verb).count(), times, "{verb}: {verbs:?}");
    }
    assert_eq!(report["ledger_entries"], entries.len());

    // For people, and a second time: looking changes nothing.
    assert!(run(&["status", store], DONE).0.contains("table airports: version 3 is active"));
    assert!(run(&["verify", store], DONE).0.contains("0 damaged"));
    assert!(run(&["ledger", store], DONE).0.contains("find airports near a point, in metres"));
    assert_eq!(run_json(&["ledger", store, "--json"]), ledger);
    refused(&demo, INPUT, &["is not empty", "new directory"]);
}

#[test]
fn bad_data_is_refused_with_its_line_before_anything_is_stored() {
    let scratch = Scratch::new("bad-data");
    let path = scratch.path().join("store");
    let data = scratch.path().join("airports.csv");
    let demo = ["demo", "--path", path.to_str().unwrap(), "--data", data.to_str().unwrap()];
    refused(&demo, INPUT, &["airports.csv", "cannot be opened"]);
    fs::write(&data, "name,lat,lon\nLowell Field,1.5,2\nNowhere,91,2\n").unwrap();
    refused(&demo, INPUT, &["airports.csv, line 3", "91 degrees"]);
    fs::write(&data, "name,lat,lon\nLowell Field,1.5\n").unwrap();
    refused(&demo, INPUT, &["airports.csv, line 2", "has 2 fields"]);
    fs::write(&data, b"{\"name\":\"x\",\"lat\":\"1\",\"lon\":\"2\"}\n{\"name\":").unwrap();
    refused(&demo, INPUT, &["airports.csv, line 2", "not a JSON object"]);
    assert!(!path.exists());
    refused(&["demo", "--records", "0"], USAGE, &["--records"]);
    refused(&["demo", "--phase-seconds", "0"], USAGE, &["--phase-seconds", "0.05"]);
    refused(&["verify"], USAGE, &["<PATH>"]);
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    kinds().for_each(what_is_no_store_is_refused_and_left_alone_on);
}

fn what_is_no_store_is_refused_and_left_alone_on(kind: EngineKind) {
    let scratch = Scratch::new("no-store");
    let (missing, foreign) = (scratch.path().join("missing"), scratch.path().join("foreign"));
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "dear reader").unwrap();
    for command in ["status", "verify", "ledger"] {
        refused(&[command, missing.to_str().unwrap()], INPUT, &["missing", "no store here"]);
        refused(&[command, foreign.to_str().unwrap()], INPUT, &["foreign", "not of a store"]);
        let file = foreign.join("letter.txt");
        refused(&[command, file.to_str().unwrap()], INPUT, &["letter.txt", "not a directory"]);
    }
    refused(&["demo", "--path", foreign.to_str().unwrap()], INPUT, &["is not empty"]);
    assert!(!missing.exists());
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);

    let newer = scratch.path().join("newer");
    a_store(kind, &newer, 1);
    fs::write(newer.join("EXUVIA"), format!("exuvia store, format 9\nengine {}\n", kind.name())).unwrap();
    refused(&["status", newer.to_str().unwrap()], INPUT, &["newer release"]);
}

#[test]
fn a_store_in_use_is_refused() {
    kinds().for_each(a_store_in_use_is_refused_on);
}

fn a_store_in_use_is_refused_on(kind: EngineKind) {
    let scratch = Scratch::new("locked");
    let path = scratch.path().join("store");
    let store = Store::options().engine(kind).open(&path).unwrap();
    for command in ["status", "verify", "ledger"] {
        refused(&[command, path.to_str().unwrap()], INPUT, &["open in another process"]);
    }
    store.close().unwrap();
    assert!(run(&["status", path.to_str().unwrap()], DONE).0.contains("no tables"));
}

#[test]
fn damage_of_a_record_is_listed_and_is_exit_code_1() {
    kinds().for_each(damage_of_a_record_is_listed_and_is_exit_code_1_on);
}

fn damage_of_a_record_is_listed_and_is_exit_code_1_on(kind: EngineKind) {
    let scratch = Scratch::new("damaged");
    let path = scratch.path().join("store");
    let store = path.to_str().unwrap();
    a_store(kind, &path, 100);
    let key_7 = 7u64.to_be_bytes();
    damage(kind, &path, |tree, key| is_records(tree) && key.ends_with(&key_7));
    let output = exuvia(&["verify", store, "--json"]);
    assert_eq!(output.status.code(), Some(VERIFICATION));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["clean"], &report["damage_count"]), (&false.into(), &1.into()));
    assert!(report["damage"][0].as_str().is_some_and(|damage| damage.contains("table users")), "{report}");
    let (out, err) = run(&["verify", store], VERIFICATION);
    assert!(out.contains("99 records") && out.contains("1 damaged"), "{out}");
    assert!(err.contains("verification failed") && err.contains("07"), "{err}");
    // The rest can be looked at.
    assert!(run(&["status", store], DONE).0.contains("1 damaged: run `exuvia verify`"));
    assert!(run(&["ledger", store], DONE).0.contains("create table"));
}

#[test]
fn damage_of_the_ledger_or_the_catalog_is_exit_code_1() {
    kinds().for_each(damage_of_the_ledger_or_the_catalog_is_exit_code_1_on);
}

fn damage_of_the_ledger_or_the_catalog_is_exit_code_1_on(kind: EngineKind) {
    let scratch = Scratch::new("ledger");
    let path = scratch.path().join("store");
    let store = path.to_str().unwrap();
    a_store(kind, &path, 1);
    // The newest entries are held twice; enough changes later the first one is in the ledger only.
    for name in ["a", "b", "c", "d"] {
        Store::open(&path).unwrap().table::<u64, UserV1>(name).unwrap();
    }
    assert_eq!(run(&["ledger", store], DONE).0.lines().count(), 5);
    damage(kind, &path, |tree, _| tree == "ledger");
    refused(&["ledger", store], VERIFICATION, &["ledger"]);
    let (out, err) = run(&["verify", store], VERIFICATION);
    assert!(out.contains("1 damaged") && err.contains("ledger"), "{out}\n{err}");
    assert!(run(&["status", store], DONE).0.contains("table users"));

    damage(kind, &path, |tree, key| tree == "catalog" && key == b"catalog");
    for command in ["status", "verify", "ledger"] {
        refused(&[command, store], VERIFICATION, &["catalog"]);
    }
}

#[test]
fn help_states_the_exit_codes() {
    let (out, _) = run(&["--help"], DONE);
    assert!(out.contains("Exit codes:") && out.contains("demo") && out.contains("ledger"), "{out}");
    assert!(run(&["--version"], DONE).0.starts_with("exuvia "));
}
