//! Every read of an open fails once, and what an open refuses it does not change.
//!
//! 1. A store in every state: closed, closed and opened again, killed with and without writes that were not flushed, in the
//!    middle of a backfill, of a fold. A child opens it under `strace`, which fails one call on one of its files: reads,
//!    opens, looks at files and directories, with EIO and with ENOMEM; or a read finds nothing, as if the file ended there. (A
//!    read that brings a part of the bytes cannot be made so: `strace` would leave the buffer as it was.) Whatever the
//!    child's open answered: afterwards, without faults, the store opens, every record is there, and it verifies clean.
//! 2. A byte of a file is flipped, or a range zeroed. If the open refuses that, every byte of the directory is what it was (but
//!    for the file LOCK), a second open says the same, and a salvage finds what it found before.
//!
//! The short form takes some of the calls and places, `EXUVIA_OPEN_READS=all` every call. Linux with `strace`, which must be
//! allowed to trace; skipped with a word where it is not.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use exuvia::engine::EngineKind;
use exuvia::migration::NewWrites;
use exuvia::{Durability, Phase, Store, Table};

use crate::kit::files::files_below;
use crate::kit::kinds::kinds;
use crate::kit::scratch::{Scratch, child_argument};
use crate::kit::types::*;

const RECORDS: u64 = 400;
/// A child that takes longer hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

fn is_long() -> bool {
    std::env::var("EXUVIA_OPEN_READS").is_ok_and(|form| form == "all")
}

fn user(id: u64) -> UserV1 {
    v1(&format!("Ann N{id}"), (id % 90) as u32)
}

fn options() -> exuvia::Options {
    let durability = Durability::Buffered { interval: Duration::from_secs(3600) };
    Store::options().durability(durability).cache_bytes(16 << 20).free_bytes_min(0).background(false)
}

fn copy(from: &Path, to: &Path) {
    let _there_may_be_none = fs::remove_dir_all(to);
    let done = Command::new("cp").args(["-r", "--sparse=always"]).args([from, to]).status().unwrap();
    assert!(done.success());
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Reopened,
    Killed,
    Unflushed,
    Backfilling,
    Folding,
}

const STATES: [State; 6] =
    [State::Closed, State::Reopened, State::Killed, State::Unflushed, State::Backfilling, State::Folding];

/// Makes the store in `path`. What is there when it is opened: each of the records by [`user`].
fn make(kind: EngineKind, state: State, path: &Path) {
    let live = path.with_extension("live");
    let store = options().engine(kind).open(&live).unwrap();
    let old: Table<u64, UserV1> = store.table("users").unwrap();
    for id in 0..RECORDS {
        old.put(&id, &user(id)).unwrap();
        if id == RECORDS / 2 {
            store.flush().unwrap();
        }
    }
    store.flush().unwrap();
    match state {
        State::Closed | State::Reopened => {}
        State::Killed => copy(&live, path),
        State::Unflushed => {
            for id in 0..RECORDS / 4 {
                old.put(&(1_000_000 + id), &user(id)).unwrap();
            }
            copy(&live, path);
        }
        State::Backfilling | State::Folding => {
            let new: Table<u64, UserV2> = store.table("users").unwrap();
            let migration = store.plan("split").table(&new).paused().begin().unwrap();
            migration.step(50).unwrap();
            store.flush().unwrap();
            if state == State::Folding {
                migration.rollback().unwrap();
                for id in 0..20 {
                    old.put(&id, &user(id)).unwrap();
                }
                // Without background work it stays in that phase.
                assert!(migration.abandon(NewWrites::Keep).unwrap().execute().is_err());
            }
            copy(&live, path);
            drop((new, migration));
        }
    }
    drop(old);
    store.close().unwrap();
    if state == State::Reopened {
        options().open(&live).unwrap().close().unwrap();
    }
    if matches!(state, State::Closed | State::Reopened) {
        copy(&live, path);
    }
    fs::remove_dir_all(&live).unwrap();
}

/// Without faults: it opens, and everything is there.
fn look(state: State, path: &Path) -> Result<(), String> {
    let store = options().create(false).open(path).map_err(|e| format!("does not open: {e}"))?;
    let report = store.verify().map_err(|e| format!("does not verify: {e}"))?;
    if !report.is_clean() {
        return Err(format!("is not clean: {report:?}"));
    }
    let old: Table<u64, UserV1> = store.table("users").map_err(|e| format!("has no table: {e}"))?;
    let found: BTreeMap<u64, UserV1> = old
        .scan(..)
        .map(|record| record.map_err(|e| e.to_string()))
        .collect::<Result<_, _>>()
        .map_err(|e| format!("cannot be read: {e}"))?;
    let missing = (0..RECORDS).filter(|id| found.get(id) != Some(&user(*id))).count();
    if missing > 0 {
        return Err(format!("has lost {missing} of {RECORDS} records"));
    }
    let phase = store.migration("split").ok().map(|migration| migration.status().unwrap().phase);
    let expected = match state {
        State::Backfilling => Some(Phase::Open),
        State::Folding => Some(Phase::Folding),
        _ => None,
    };
    if phase != expected {
        return Err(format!("is in the phase {phase:?}, not {expected:?}"));
    }
    drop(old);
    store.close().map_err(|e| format!("does not close: {e}"))
}

/// The child: what it is told does not matter, only what it leaves.
fn visit(path: &Path) {
    match options().create(false).open(path) {
        Ok(store) => {
            let old = store.table::<u64, UserV1>("users");
            let _read_or_not = old.map(|old| old.len());
            let _closed_or_not = store.close();
            println!("said opened");
        }
        Err(e) => println!("said refused {e}"),
    }
}

/// Opens the store in a child in which one call fails. Answers whether there was such a call, and what was said.
fn open_with_fault(
    test: &str,
    path: &Path,
    calls: &str,
    fault: &str,
    when: u32,
    of: fn(&Path) -> bool,
) -> (bool, String) {
    let trace = path.with_extension("trace");
    let mut child = Command::new("strace");
    child.args(["-f", "-qq", "-e", "signal=none", "-e", &format!("trace={calls}")]);
    child.args(["-e", &format!("inject={calls}:{fault}:when={when}"), "-o"]).arg(&trace);
    let mut below = vec![path.to_owned()];
    while let Some(directory) = below.pop() {
        if of(&directory) {
            child.arg("-P").arg(&directory);
        }
        for entry in directory.read_dir().unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                below.push(entry.path());
            } else if of(&entry.path()) {
                child.arg("-P").arg(entry.path());
            }
        }
    }
    child.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture", "--test-threads=1"]);
    child.env("EXUVIA_TEST_CHILD", path);
    child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = child.spawn().unwrap();
    let begun = Instant::now();
    while running.try_wait().unwrap().is_none() {
        if begun.elapsed() > WATCHDOG {
            running.kill().unwrap();
            panic!("{}: {calls} {when} {fault}: the open hangs", path.display());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let said = String::from_utf8_lossy(&running.wait_with_output().unwrap().stdout).into_owned();
    let said =
        said.lines().find_map(|line| line.split_once("said ")).map_or("died", |(_, what)| what).to_owned();
    let hit = fs::read_to_string(&trace).unwrap_or_default().contains("INJECTED");
    let _removed = fs::remove_file(&trace);
    (hit, said)
}

fn may_trace() -> bool {
    let can = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO", "true"])
        .output();
    can.is_ok_and(|done| done.status.success())
}

/// The calls that fail, how, and which of them in the short form: the first, second and so on of a thread.
const FAULTS: [(&str, &str, &[u32]); 7] = [
    ("pread64", "error=EIO", &[1, 2, 3, 5, 8]),
    ("read", "error=EIO", &[1, 2, 4, 7, 11, 16, 22]),
    ("pread64", "retval=0", &[1, 3]),
    ("read", "retval=0", &[1, 3, 8]),
    ("pread64,read,getdents64", "error=ENOMEM", &[2, 6, 12]),
    ("openat", "error=EIO", &[1, 4, 9, 15, 22]),
    ("statx,fstat,newfstatat,getdents64", "error=EIO", &[2, 5, 9, 14, 20]),
];

fn every(_: &Path) -> bool {
    true
}

/// sled's log, and fjall's journals.
fn logs(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "db") || path.extension().is_some_and(|of| of == "jnl")
}

fn campaign(kind: EngineKind, test: &str) {
    if let Some(path) = child_argument() {
        return visit(Path::new(&path));
    }
    if !may_trace() {
        println!("SKIPPED: there is no strace that may trace here");
        return;
    }
    let scratch = Scratch::new(&format!("open-reads-{}", kind.name()));
    let (mut runs, mut refused, mut died, mut bad) = (0, 0, 0, Vec::new());
    for (turn, state) in STATES.into_iter().enumerate() {
        let original = scratch.path().join(format!("{state:?}"));
        make(kind, state, &original);
        look_at_copy(state, &original);
        let faults =
            FAULTS.map(|(calls, fault, some)| (calls, fault, some.to_vec(), every as fn(&Path) -> bool));
        // Each read of what an engine recovers from.
        let of_logs =
            ["retval=0", "error=EIO"].map(|fault| ("read,pread64", fault, (1..60).collect(), logs as _));
        for (number, (calls, fault, some, of)) in faults.into_iter().chain(of_logs).enumerate() {
            // The short form takes each kind of fault in two of the states, but for the first two; those of logs in one.
            let is_taken = match number {
                0 | 1 => true,
                2..7 => (turn + number).is_multiple_of(3),
                _ => state == State::Killed,
            };
            if !is_long() && !is_taken {
                continue;
            }
            let numbers: Vec<u32> = if is_long() { (1..=2000).collect() } else { some };
            if is_long() {
                println!("{kind:?}, {state:?}, {calls} {fault}: {runs} opens up to here, {} bad", bad.len());
            }
            for when in numbers {
                let path = scratch.path().join("store");
                copy(&original, &path);
                let (hit, said) = open_with_fault(test, &path, calls, fault, when, of);
                if !hit {
                    break;
                }
                runs += 1;
                refused += u32::from(said.starts_with("refused"));
                died += u32::from(said == "died");
                if let Err(e) = look(state, &path) {
                    bad.push(format!("{state:?}, {calls} {when} {fault} ({said}): the store then {e}"));
                }
            }
        }
    }
    println!("{kind:?}: {runs} opens with a failed call: {refused} refused, {died} died, {} bad", bad.len());
    assert!(bad.is_empty(), "{kind:?}: {} of {runs}: {bad:#?}", bad.len());
    assert!(runs > 30 && refused > 10, "the faults hit something");
}

fn look_at_copy(state: State, original: &Path) {
    let path = original.with_extension("whole");
    copy(original, &path);
    look(state, &path).unwrap();
    fs::remove_dir_all(&path).unwrap();
}

#[test]
fn an_open_of_sled_with_a_failed_read_destroys_nothing() {
    campaign(EngineKind::Sled, "campaigns::open_reads::an_open_of_sled_with_a_failed_read_destroys_nothing");
}

#[cfg(feature = "fjall")]
#[test]
fn an_open_of_fjall_with_a_failed_read_destroys_nothing() {
    campaign(
        EngineKind::Fjall,
        "campaigns::open_reads::an_open_of_fjall_with_a_failed_read_destroys_nothing",
    );
}

fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_below(path).into_iter().filter(|file| file.file_name().unwrap() != "LOCK");
    files.map(|file| (file.strip_prefix(path).unwrap().to_owned(), fs::read(&file).unwrap())).collect()
}

/// What a salvage finds, as text.
fn salvaged(path: &Path, work: &Path) -> String {
    let _of_the_one_before = fs::remove_dir_all(work);
    match Store::salvage(path, work, None) {
        Ok(salvage) => {
            format!("{} records of {:?}, lost {:?}", salvage.records, salvage.tables, salvage.lost)
        }
        Err(e) => format!("nothing: {}", e.to_string().replace(&*path.to_string_lossy(), "")),
    }
}

#[test]
fn a_refused_open_of_a_damaged_store_changes_nothing() {
    let scratch = Scratch::new("refused-open");
    for kind in kinds() {
        let (mut images, mut refusals, mut bad) = (0, 0, Vec::new());
        for state in [State::Closed, State::Reopened, State::Killed] {
            let original = scratch.path().join(format!("{}-{state:?}", kind.name()));
            make(kind, state, &original);
            for file in files_below(&original) {
                let bytes = fs::read(&file).unwrap();
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                let name = file.strip_prefix(&original).unwrap();
                let places = if is_long() { 200 } else { 7 };
                let mut damages: Vec<(usize, usize)> = (0..places)
                    .flat_map(|n| [(n * used / places, 1), (n * used / places + 64, 200)])
                    .filter(|(at, _)| *at < used)
                    .collect();
                damages.dedup();
                for (at, len) in damages {
                    let what = format!("{state:?}: {}, {len} bytes at {at}", name.display());
                    let path = scratch.path().join("damaged");
                    copy(&original, &path);
                    let mut damaged = bytes.clone();
                    let end = (at + len).min(used);
                    if len == 1 {
                        damaged[at] ^= 0x55;
                    } else {
                        damaged[at..end].fill(0);
                    }
                    fs::write(path.join(name), &damaged).unwrap();
                    images += 1;
                    let before = contents(&path);
                    let pristine = scratch.path().join("pristine");
                    copy(&path, &pristine);
                    let Err(first) = options().create(false).open(&path) else { continue };
                    refusals += 1;
                    let after = contents(&path);
                    let differ: Vec<&PathBuf> = before
                        .keys()
                        .chain(after.keys())
                        .filter(|name| before.get(*name) != after.get(*name))
                        .collect();
                    if !differ.is_empty() {
                        bad.push(format!("{what}: refused ({first}), and changed {differ:?}"));
                        continue;
                    }
                    let second = options().create(false).open(&path).map(drop).map_err(|e| e.to_string());
                    if second != Err(first.to_string()) {
                        bad.push(format!("{what}: refused ({first}), then {second:?}"));
                    }
                    let (was, is) = (
                        salvaged(&pristine, &scratch.path().join("salvaged")),
                        salvaged(&path, &scratch.path().join("salvaged")),
                    );
                    if was != is {
                        bad.push(format!("{what}: salvaged {was}, and after a refused open {is}"));
                    }
                }
            }
        }
        println!("{kind:?}: {images} damaged stores, {refusals} refused, {} bad", bad.len());
        assert!(bad.is_empty(), "{kind:?}: {} of {refusals} refusals: {bad:#?}", bad.len());
        assert!(refusals > 10, "something is refused");
    }
}

/// What is no store yet, or never will be one, is not taken for one, and is not written to, because a look at it fails.
#[test]
fn an_open_of_what_is_no_store_changes_nothing_when_a_look_fails() {
    let test = "campaigns::open_reads::an_open_of_what_is_no_store_changes_nothing_when_a_look_fails";
    if let Some(path) = child_argument() {
        return visit(Path::new(&path));
    }
    if !may_trace() {
        println!("SKIPPED: there is no strace that may trace here");
        return;
    }
    let scratch = Scratch::new("no-store");
    for kind in kinds() {
        let store = scratch.path().join(format!("{}-store", kind.name()));
        make(kind, State::Closed, &store);
        let (unfinished, claimed) = (store.with_extension("unfinished"), store.with_extension("claimed"));
        copy(&store, &unfinished);
        fs::write(unfinished.join("BACKUP.new"), "not finished\n").unwrap();
        copy(&store, &claimed);
        fs::rename(claimed.join("EXUVIA"), claimed.join("EXUVIA.new")).unwrap();
        let mut runs = 0;
        for original in [unfinished, claimed] {
            for (calls, fault) in [("statx,newfstatat,fstat", "error=EIO"), ("openat,read", "error=EIO")] {
                for when in 1..=6 {
                    let path = scratch.path().join("directory");
                    copy(&original, &path);
                    let before = contents(&path);
                    let (hit, said) = open_with_fault(test, &path, calls, fault, when, |_| true);
                    if !hit {
                        break;
                    }
                    runs += 1;
                    let what = format!("{}, {calls} {when} {fault}: {said}", original.display());
                    assert!(said.starts_with("refused"), "{what}");
                    assert!(contents(&path) == before, "{what}");
                }
            }
        }
        println!("{kind:?}: {runs} opens of what is no store");
        assert!(runs > 8, "{kind:?}: the faults hit something");
    }
}
