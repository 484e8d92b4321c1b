//! Records as JSON without their types: by the command, and through export and import.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use exuvia::engine::EngineKind;
use exuvia::{CastError, Origin, Store, Table, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::command::{DONE, INPUT, USAGE, refused, run, run_json};
use crate::kit::kinds::kinds;
use crate::kit::scratch::Scratch;
use crate::kit::types::*;

const REFUSED: i32 = 5;
const ABSENT: i32 = 6;

type Sensors = Table<(String, u32), UserV2>;
type Blobs = Table<Vec<u8>, UserV1>;

fn make(kind: EngineKind, path: &Path) -> Store {
    Store::options().engine(kind).cache_bytes(16 << 20).open(path).unwrap()
}

fn open(path: &Path) -> Store {
    Store::options().create(false).cache_bytes(16 << 20).open(path).unwrap()
}

/// Three tables of other keys and types.
fn a_store(kind: EngineKind, path: &Path) {
    let store = make(kind, path);
    let users: Table<i64, UserV1> = store.table("users").unwrap();
    for id in -2..40 {
        users.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    users.remove(&7).unwrap();
    let sensors: Sensors = store.table("sensors").unwrap();
    for (site, number) in [("north", 1), ("north", 2), ("south", 1)] {
        sensors.put(&(site.to_owned(), number), &v2("Bob", site, number, Some("b@x"))).unwrap();
    }
    let blobs: Blobs = store.table("blobs").unwrap();
    blobs.put(&vec![0, 255], &v1("", 0)).unwrap();
    drop((users, sensors, blobs));
    store.close().unwrap();
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keys(arguments: &[&str]) -> Vec<Value> {
    lines(&run(arguments, DONE).0).into_iter().map(|mut row| row["key"].take()).collect()
}

#[test]
fn a_record_is_printed_by_the_key_that_its_table_has() {
    kinds().for_each(a_record_is_printed_by_the_key_that_its_table_has_on);
}

fn a_record_is_printed_by_the_key_that_its_table_has_on(kind: EngineKind) {
    let scratch = Scratch::new("json-get");
    let path = scratch.path().join("store");
    a_store(kind, &path);
    let store = path.to_str().unwrap();
    assert_eq!(
        run_json(&["get", store, "users", "-1"]),
        json!({ "key": -1, "version": 1, "record": { "name": "Ann N-1", "age": 30 } })
    );
    assert_eq!(
        run_json(&["get", store, "sensors", "[\"north\",2]"])["record"],
        json!({ "first": "Bob", "last": "north", "age": 2, "email": "b@x" })
    );
    assert_eq!(run_json(&["get", store, "blobs", "00FF"])["key"], "00ff");
    refused(&["get", store, "users", "7"], ABSENT, &["no record"]);
    refused(&["get", store, "users", "seven"], USAGE, &["i64", "seven"]);
    refused(&["get", store, "sensors", "[\"north\"]"], USAGE, &["(String, u32)"]);
    refused(&["get", store, "nobody", "7"], REFUSED, &["nobody", "no table"]);
    refused(&["get", store, "users", "1", "--view", "2"], REFUSED, &["version 2", "version 1"]);
    refused(&["get", "/nowhere/at/all", "users", "1"], INPUT, &["/nowhere/at/all"]);
    let held = open(&path);
    refused(&["get", store, "users", "1"], INPUT, &["another process"]);
    held.close().unwrap();
}

#[test]
fn a_scan_takes_ranges_prefixes_and_limits() {
    kinds().for_each(a_scan_takes_ranges_prefixes_and_limits_on);
}

fn a_scan_takes_ranges_prefixes_and_limits_on(kind: EngineKind) {
    let scratch = Scratch::new("json-scan");
    let path = scratch.path().join("store");
    a_store(kind, &path);
    let store = path.to_str().unwrap();
    let users = |more: &[&str]| keys(&[&["scan", store, "users"], more].concat());
    assert_eq!(users(&[]).len(), 41);
    assert_eq!(users(&["--from", "-2", "--to", "1"]), [json!(-2), json!(-1), json!(0)]);
    assert_eq!(users(&["--reverse", "--limit", "2"]), [json!(39), json!(38)]);
    assert_eq!(users(&["--from", "6", "--limit", "2"]), [json!(6), json!(8)]);
    assert_eq!(users(&["--limit", "0"]), Vec::<Value>::new());
    let north = [json!(["north", 1]), json!(["north", 2])];
    assert_eq!(keys(&["scan", store, "sensors", "--prefix", "[\"north\"]"]), north);
    assert_eq!(keys(&["scan", store, "blobs", "--prefix", "00"]), [json!("00ff")]);
    refused(&["scan", store, "users", "--prefix", "1"], USAGE, &["i64", "range"]);
    refused(&["scan", store, "users", "--from", "x"], USAGE, &["i64"]);
}

#[test]
fn tables_and_inventory_say_what_is_there() {
    kinds().for_each(tables_and_inventory_say_what_is_there_on);
}

fn tables_and_inventory_say_what_is_there_on(kind: EngineKind) {
    let scratch = Scratch::new("json-tables");
    let path = scratch.path().join("store");
    a_store(kind, &path);
    let store = path.to_str().unwrap();
    let tables = lines(&run(&["tables", store], DONE).0);
    let named: Vec<_> = tables.iter().map(|table| (&table["table"], &table["key"])).collect();
    let (blobs, sensors, users) = (json!("blobs"), json!("sensors"), json!("users"));
    let (bytes, tuple, number) = (json!("Vec<u8>"), json!("(String, u32)"), json!("i64"));
    assert_eq!(named, [(&blobs, &bytes), (&sensors, &tuple), (&users, &number)]);
    assert_eq!((&tables[1]["version"], &tables[1]["codec"]), (&json!(2), &json!("bincode")));
    assert!(tables[2]["shape"].as_str().unwrap().contains("name: String"), "{}", tables[2]);
    let inventory = lines(&run(&["inventory", store], DONE).0);
    assert_eq!(inventory[2]["records"], json!({ "1": 41 }));
}

type All = (Vec<(i64, UserV1)>, Vec<((String, u32), UserV2)>, Vec<(Vec<u8>, UserV1)>);

/// Everything of a store, read with the types of the program.
fn all(path: &Path) -> All {
    let store = open(path);
    let users: Table<i64, UserV1> = store.table("users").unwrap();
    let sensors: Sensors = store.table("sensors").unwrap();
    let blobs: Blobs = store.table("blobs").unwrap();
    let all = (
        users.scan(..).map(Result::unwrap).collect(),
        sensors.scan(..).map(Result::unwrap).collect(),
        blobs.scan(..).map(Result::unwrap).collect(),
    );
    assert!(store.verify().unwrap().is_clean());
    drop((users, sensors, blobs));
    store.close().unwrap();
    all
}

#[test]
fn what_was_exported_is_imported_and_opened_with_types() {
    kinds().for_each(what_was_exported_is_imported_and_opened_with_types_on);
}

fn what_was_exported_is_imported_and_opened_with_types_on(kind: EngineKind) {
    let scratch = Scratch::new("json-import");
    let (path, copy) = (scratch.path().join("store"), scratch.path().join("copy"));
    a_store(kind, &path);
    let (store, copied) = (path.to_str().unwrap(), copy.to_str().unwrap());
    let file = scratch.path().join("lines");
    fs::write(&file, run(&["export", store], DONE).0).unwrap();
    let file = file.to_str().unwrap();
    let dry = run_json(&["import", copied, file, "--dry-run"]);
    assert_eq!((&dry["imported"], &dry["records"]["users"]), (&json!(false), &json!(41)));
    assert!(!copy.exists(), "a dry run makes nothing");
    let counts = run_json(&["import", copied, file, "--engine", kind.name()]);
    assert_eq!(open(&copy).engine_kind(), Some(kind));
    assert_eq!(counts["records"], json!({ "blobs": 1, "sensors": 3, "users": 41 }));
    assert_eq!(run(&["export", copied], DONE), run(&["export", store], DONE));
    assert_eq!(all(&copy), all(&path));
    let told = Store::open(&copy).unwrap().table::<u64, UserV1>("users").unwrap_err().to_string();
    assert!(told.contains("i64"), "{told}");

    refused(&["import", copied, file], REFUSED, &["line 1", "not empty", "nothing was written"]);
    let some = scratch.path().join("some");
    fs::write(&some, run(&["export", store, "--table", "users"], DONE).0).unwrap();
    let other = scratch.path().join("other");
    let some = some.to_str().unwrap();
    assert_eq!(run_json(&["import", other.to_str().unwrap(), some])["records"], json!({ "users": 41 }));
}

#[test]
fn a_bad_line_is_named_and_nothing_is_written() {
    kinds().for_each(a_bad_line_is_named_and_nothing_is_written_on);
}

fn a_bad_line_is_named_and_nothing_is_written_on(kind: EngineKind) {
    let scratch = Scratch::new("json-bad");
    let (path, copy) = (scratch.path().join("store"), scratch.path().join("copy"));
    a_store(kind, &path);
    let (store, copied) = (path.to_str().unwrap(), copy.to_str().unwrap());
    let export = run(&["export", store, "--table", "users"], DONE).0;
    let file = scratch.path().join("lines");
    let with = |line: usize, from: &str, to: &str| {
        let mut lines: Vec<String> = export.lines().map(str::to_owned).collect();
        assert!(lines[line - 1].contains(from), "{}", lines[line - 1]);
        lines[line - 1] = lines[line - 1].replace(from, to);
        fs::write(&file, lines.join("\n")).unwrap();
        file.to_str().unwrap()
    };
    for (line, from, to, code, parts) in [
        (9, "\"age\":30", "\"age\":-30", INPUT, &["line 9", "age: expected a u32, found -30"][..]),
        (3, "\"age\":30", "\"aged\":30", INPUT, &["line 3", "no field \"aged\""]),
        (3, "\"key\":", "\"key\":0.5,\"k\":", INPUT, &["line 3", "unknown field"]),
        (4, "users", "others", INPUT, &["line 4", "others"]),
        (5, "\"version\":1", "\"version\":2", INPUT, &["line 5", "version 2"]),
        (2, "{", "", INPUT, &["line 2", "not a line of an export"]),
        (1, "\"exuvia\":1", "\"exuvia\":9", INPUT, &["line 1", "format 9"]),
        (1, "\"U32\"", "\"U64\"", REFUSED, &["line 1", "fingerprint"]),
        (1, "\"i64\"", "\"i65\"", INPUT, &["line 1", "i65"]),
    ] {
        let file = with(line, from, to);
        refused(&["import", copied, file], code, &[parts, &["lines"]].concat());
        assert!(!copy.exists(), "line {line}: something was made");
    }
    // A key that comes twice shows when it is written.
    let twice = with(4, "\"key\":0", "\"key\":-1");
    for _ in 0..2 {
        refused(
            &["import", copied, twice, "--engine", kind.name()],
            REFUSED,
            &["line 4", "second time", "nothing was written"],
        );
        assert_eq!(run(&["scan", copied, "users"], DONE).0, "", "all of it or nothing");
    }
    fs::write(&file, "").unwrap();
    refused(&["import", copied, file.to_str().unwrap()], INPUT, &["no line of an export"]);
    fs::write(&file, [0xff, 0xfe, b'\n']).unwrap();
    refused(&["import", copied, file.to_str().unwrap()], INPUT, &["line 1", "not text"]);
}

/// From standard input, in one pass: what goes wrong leaves the tables empty, and they can be taken again.
#[test]
fn an_import_from_standard_input_is_all_or_nothing() {
    kinds().for_each(an_import_from_standard_input_is_all_or_nothing_on);
}

fn an_import_from_standard_input_is_all_or_nothing_on(kind: EngineKind) {
    let scratch = Scratch::new("json-stdin");
    let (path, copy) = (scratch.path().join("store"), scratch.path().join("copy"));
    a_store(kind, &path);
    let (store, copied) = (path.to_str().unwrap(), copy.to_str().unwrap());
    let export = run(&["export", store], DONE).0;
    let import = |more: &[&str], text: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_exuvia"));
        command.args(["import", copied, "-", "--engine", kind.name()]).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().unwrap();
        let _it_may_stop_reading = running.stdin.take().unwrap().write_all(text.as_bytes());
        let output = running.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(import(&["--dry-run"], &export).0, Some(DONE));
    assert!(!copy.exists());
    let (code, told) = import(&[], &format!("{export}{{\"table\":1}}\n"));
    assert_eq!(code, Some(INPUT), "{told}");
    assert!(told.contains("-, line 47: ") && told.contains("nothing was written"), "{told}");
    for table in ["users", "sensors", "blobs"] {
        assert_eq!(run(&["scan", copied, table], DONE).0, "", "{table}");
    }
    assert_eq!(import(&[], &export).0, Some(DONE));
    assert_eq!(run(&["export", copied], DONE).0, export);
    assert_eq!(all(&copy), all(&path));
    let ledger = run_json(&["ledger", copied, "--json"]);
    let imports = ledger["entries"].as_array().unwrap().iter().filter(|entry| entry["what"] == "import");
    assert_eq!(imports.count(), 3);
}

/// In an open migration each view shows what lies there physically, and says what does not.
#[test]
fn an_open_migration_is_read_at_either_side() {
    kinds().for_each(an_open_migration_is_read_at_either_side_on);
}

fn an_open_migration_is_read_at_either_side_on(kind: EngineKind) {
    let scratch = Scratch::new("json-open");
    let path = scratch.path().join("store");
    let store = make(kind, &path);
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 1..=3 {
        old.put(&id, &v1(&format!("Ann N{id}"), 30)).unwrap();
    }
    let new: Table<u64, UserV2> = store.table("users").unwrap();
    store.plan("split").table(&new).paused().begin().unwrap();
    new.put(&2, &v2("Bob", "B", 40, Some("b@x"))).unwrap();
    old.remove(&3).unwrap();
    drop((old, new));
    store.close().unwrap();
    let store = path.to_str().unwrap();
    let at = |view: &str| lines(&run(&["scan", store, "users", "--from", "2", "--view", view], DONE).0);
    assert_eq!(at("1"), [json!({ "key": 2, "version": 1, "record": { "name": "Bob B", "age": 40 } })]);
    let bob = json!({ "first": "Bob", "last": "B", "age": 40, "email": "b@x" });
    assert_eq!(at("2"), [json!({ "key": 2, "version": 2, "record": bob })]);
    assert_eq!(keys(&["scan", store, "users"]), [json!(1), json!(2)]);
    let (_, told) = run(&["get", store, "users", "1", "--view", "2"], REFUSED);
    assert!(told.contains("version 1 only") && told.contains("program's code"), "{told}");
    let exported = run(&["export", store], DONE).0;
    assert_eq!(lines(&exported).len(), 3);
    let (_, told) = run(&["export", store, "--view", "2"], REFUSED);
    assert!(told.contains("version 1 only"), "{told}");

    let (file, copy) = (scratch.path().join("lines"), scratch.path().join("copy"));
    fs::write(&file, exported).unwrap();
    run(&["import", copy.to_str().unwrap(), file.to_str().unwrap()], DONE);
    let copied: Table<u64, UserV1> = open(&copy).table("users").unwrap();
    let records: BTreeMap<u64, UserV1> = copied.scan(..).map(Result::unwrap).collect();
    assert_eq!(records, [(1, v1("Ann N1", 30)), (2, v1("Bob B", 40))].into());
}

#[derive(Serialize, Deserialize)]
struct Own(u32);

impl Version for Own {
    const VERSION: u32 = 1;
    const CODEC: &'static str = "four bytes";
    type Previous = Origin;
    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }
    fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CastError> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(())
    }
    fn decode(bytes: &[u8]) -> Result<Self, CastError> {
        let bytes = bytes.try_into().map_err(|_| CastError::new("not four bytes"))?;
        Ok(Own(u32::from_be_bytes(bytes)))
    }
}

#[test]
fn a_codec_of_its_own_is_shown_as_bytes_and_not_imported() {
    kinds().for_each(a_codec_of_its_own_is_shown_as_bytes_and_not_imported_on);
}

fn a_codec_of_its_own_is_shown_as_bytes_and_not_imported_on(kind: EngineKind) {
    let scratch = Scratch::new("json-own");
    let path = scratch.path().join("store");
    let store = make(kind, &path);
    store.table::<char, Own>("numbers").unwrap().put(&'k', &Own(258)).unwrap();
    store.close().unwrap();
    let store = path.to_str().unwrap();
    let row = run_json(&["get", store, "numbers", "k"]);
    assert_eq!(row, json!({ "key": "k", "version": 1, "record": { "hex": "00000102" } }));
    assert_eq!(run_json(&["tables", store])["codec"], "four bytes");
    let file = scratch.path().join("lines");
    fs::write(&file, run(&["export", store], DONE).0).unwrap();
    let copy = scratch.path().join("copy");
    let arguments = ["import", copy.to_str().unwrap(), file.to_str().unwrap()];
    refused(&arguments, REFUSED, &["line 1", "codec of their own"]);
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    kinds().for_each(a_reader_who_has_seen_enough_is_no_failure_on);
}

fn a_reader_who_has_seen_enough_is_no_failure_on(kind: EngineKind) {
    let scratch = Scratch::new("json-pipe");
    let path = scratch.path().join("store");
    let store = make(kind, &path);
    let users: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..2000 {
        users.put(&id, &v1(&"long".repeat(50), 1)).unwrap();
    }
    drop(users);
    store.close().unwrap();
    let store = path.to_str().unwrap();
    for arguments in [vec!["scan", store, "users"], vec!["export", store]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_exuvia"));
        let command = command.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        // The reader goes with the end of the statement.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with('{'), "{line}");
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(DONE), Vec::new()), "{arguments:?}");
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell], DONE).0;
        assert!(["scan", "export", "reverse"].iter().all(|word| script.contains(word)), "{shell}");
    }
    assert!(run(&["man"], DONE).0.contains(".TH exuvia"));
    let page = run(&["man", "scan"], DONE).0;
    assert!(page.contains("prefix") && page.contains("Exit codes"), "{page}");
    refused(&["man", "wat"], USAGE, &["no command"]);
    refused(&["completions", "wat"], USAGE, &["wat"]);
}
