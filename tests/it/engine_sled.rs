//! The sled engine where sled itself gives up: damaged files, full disks, directories in use.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Bound::Unbounded;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use exuvia::engine::{Engine, Outcome, Page, SledEngine, SledOptions, Write};
use exuvia::{EngineError, EngineErrorKind};

use crate::scratch::{Scratch, child, child_argument};

fn open(path: &Path) -> Result<SledEngine, EngineError> {
    SledEngine::open(path, SledOptions::new().cache_bytes(16 << 20))
}

/// Enough for several segments of sled's log: the last one is read at open, the others when a page is.
const RECORDS: u32 = 3000;

fn value(n: u32) -> Vec<u8> {
    // Some are as large as a value may be, nearly.
    let size = if n.is_multiple_of(1000) { 45_000 } else { 500 + n as usize % 400 };
    vec![n as u8; size]
}

/// A small store that was closed in order, and opened and closed again, so that there is a snapshot of its log.
fn store(path: &Path) {
    let engine = open(path).unwrap();
    let tree = engine.tree("t").unwrap();
    for n in 0..RECORDS {
        tree.put(&n.to_be_bytes(), &value(n)).unwrap();
    }
    drop((engine, tree));
    let engine = open(path).unwrap();
    let tree = engine.tree("t").unwrap();
    for n in 0..RECORDS / 10 {
        tree.put(&n.to_be_bytes(), &value(n)).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    let _there_may_be_none = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What is done to one file.
enum Damage {
    Flip(u64),
    Truncate(u64),
    Remove,
}

/// All damages of the test, in an order that is the same in parent and child.
fn damages(store: &Path) -> Vec<(PathBuf, Damage)> {
    let files = |directory: &Path| {
        let entries = directory.read_dir().unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
        files.sort();
        files
    };
    assert_eq!(files(&store.join("blobs")), Vec::<PathBuf>::new(), "the limits keep every page in the log");
    let mut damages = Vec::new();
    for file in files(store) {
        let bytes = fs::read(&file).unwrap();
        // Not in the zeroes behind the log's end.
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        let name = file.strip_prefix(store).unwrap().to_owned();
        let flips = if name == Path::new("db") { FLIPS } else { FLIPS / 5 };
        damages.extend((0..flips).map(|n| (name.clone(), Damage::Flip(n * used / flips))));
        damages.extend((0..8).map(|n| (name.clone(), Damage::Truncate(n * used / 8))));
        damages.push((name, Damage::Remove));
    }
    damages
}

fn inflict(file: &Path, damage: &Damage) {
    match damage {
        Damage::Flip(at) => {
            let mut bytes = fs::read(file).unwrap();
            bytes[*at as usize] ^= 0x41;
            fs::write(file, bytes).unwrap();
        }
        Damage::Truncate(to) => fs::File::options().write(true).open(file).unwrap().set_len(*to).unwrap(),
        Damage::Remove => fs::remove_file(file).unwrap(),
    }
}

/// Everything a store may do with what it finds. Answers in words what came of it. `whole`: sled has what it needs
/// to notice every loss.
fn visit(path: &Path, whole: bool) -> String {
    let engine = match open(path) {
        Ok(engine) => engine,
        Err(e) => return format!("open: {:?}: {e}", e.kind()),
    };
    let mut said = Vec::new();
    let tree = match engine.tree("t") {
        Ok(tree) => tree,
        Err(e) => return format!("tree: {:?}: {e}", e.kind()),
    };
    for reverse in [false, true] {
        let mut page = Page::new();
        match tree.scan((Unbounded, Unbounded), reverse, usize::MAX, &mut page) {
            Ok(done) => assert!(done),
            Err(e) => said.push(format!("scan: {:?}: {e}", e.kind())),
        }
    }
    let (mut absent, mut wrong) = (0, 0);
    for n in (0..RECORDS).step_by(7) {
        match tree.get(&n.to_be_bytes()) {
            Ok(Some(found)) => wrong += u32::from(*found != *value(n)),
            Ok(None) => absent += 1,
            Err(e) => said.push(format!("get: {:?}: {e}", e.kind())),
        }
    }
    for n in 0..20_u32 {
        if let Err(e) = tree.put(&(n * 37).to_be_bytes(), b"new") {
            said.push(format!("put: {:?}: {e}", e.kind()));
        }
    }
    let pair = ["t", "u"].map(|tree| Write {
        tree: tree.to_owned(),
        key: b"k".to_vec(),
        value: Some(b"v".to_vec()),
    });
    if let Err(e) = engine.commit(&[], &pair).map(|outcome| assert_eq!(outcome, Outcome::Applied)) {
        said.push(format!("commit: {:?}: {e}", e.kind()));
    }
    if let Err(e) = engine.flush() {
        said.push(format!("flush: {:?}: {e}", e.kind()));
    }
    said.dedup();
    let errors = said.len();
    said.truncate(3);
    assert_eq!(wrong, 0, "damage was served as data");
    assert!(absent == 0 || !whole, "records were lost without a word");
    format!("{absent} absent, {errors} errors: {}", said.join("; "))
}

/// How many places of sled's log are damaged, one at a time.
const FLIPS: u64 = 25;

/// With the snapshot of an orderly close every loss is noticed.
#[test]
fn damaged_files_give_data_or_typed_errors() {
    damage_campaign("engine_sled::damaged_files_give_data_or_typed_errors", true);
}

/// Without one sled takes damage for the torn end of its log, and what came after it is gone without a word.
#[test]
fn damaged_files_without_a_snapshot_give_data_or_typed_errors() {
    damage_campaign("engine_sled::damaged_files_without_a_snapshot_give_data_or_typed_errors", false);
}

/// Whatever is done to the files, a call answers with data or with a typed error: no panic gets out, no call hangs.
fn damage_campaign(test: &str, snapshot: bool) {
    if let Some(argument) = child_argument() {
        let (path, first) = argument.rsplit_once('#').unwrap();
        let original = Path::new(path).join("original");
        let damaged = Path::new(path).join("damaged");
        for (number, (file, damage)) in damages(&original).iter().enumerate().skip(first.parse().unwrap()) {
            copy(&original, &damaged);
            inflict(&damaged.join(file), damage);
            println!("began {number}");
            let is_snapshot = file.to_str().unwrap().starts_with("snap");
            let said = visit(&damaged, snapshot && !is_snapshot);
            println!("ended {number} {}", said.replace('\n', " "));
        }
        println!("all done");
        return;
    }
    let scratch = Scratch::new("damage");
    let original = scratch.path().join("original");
    store(&original);
    for file in original.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
        if !snapshot && file.file_name().unwrap().to_str().unwrap().starts_with("snap") {
            fs::remove_file(file).unwrap();
        }
    }
    let list = damages(&original);
    let show = |number: usize| {
        let (file, damage) = &list[number];
        match damage {
            Damage::Flip(at) => format!("{} flipped at {at}", file.display()),
            Damage::Truncate(to) => format!("{} cut to {to}", file.display()),
            Damage::Remove => format!("{} removed", file.display()),
        }
    };
    let (mut next, mut bad) = (0, Vec::new());
    while next < list.len() {
        let argument = format!("{}#{next}", scratch.path().display());
        let mut running = child(test, &argument);
        let mut running = running.stderr(std::process::Stdio::null()).spawn().unwrap();
        let output = BufReader::new(running.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        loop {
            match lines.recv_timeout(Duration::from_secs(30)) {
                Ok(line) if line == "all done" => next = list.len(),
                Ok(line) => {
                    // The test harness prints its own text in front of the first line.
                    if let Some((_, number)) = line.split_once("began ") {
                        next = number.parse::<usize>().unwrap();
                    } else if let Some((_, rest)) = line.split_once("ended ") {
                        let (number, said) = rest.split_once(' ').unwrap();
                        next = number.parse::<usize>().unwrap() + 1;
                        if std::env::var_os("EXUVIA_TEST_VERBOSE").is_some() {
                            println!("{}: {said}", show(next - 1));
                        }
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bad.push(format!("{} hangs", show(next)));
                    next += 1;
                    break;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    if next < list.len() {
                        bad.push(format!("{} ends the process", show(next)));
                        next += 1;
                    }
                    break;
                }
            }
        }
        let _it_may_have_ended = running.kill();
        running.wait().unwrap();
    }
    assert!(bad.is_empty(), "{} of {}: {bad:#?}", bad.len(), list.len());
}

fn kind<T>(result: Result<T, EngineError>) -> EngineErrorKind {
    result.err().unwrap().kind()
}

#[test]
fn one_process_and_one_handle_at_a_time() {
    if let Some(path) = child_argument() {
        println!("child: {:?}", open(Path::new(&path)).map_err(|e| e.kind()).err());
        return;
    }
    let scratch = Scratch::new("locked");
    let engine = open(scratch.path()).unwrap();
    assert_eq!(kind(open(scratch.path())), EngineErrorKind::Locked);
    let elsewhere = || {
        let path = scratch.path().to_str().unwrap();
        let output = child("engine_sled::one_process_and_one_handle_at_a_time", path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(elsewhere().contains("child: Some(Locked)"));
    engine.tree("t").unwrap().put(b"k", b"v").unwrap();
    drop(engine);
    assert!(elsewhere().contains("child: None"));
}

#[test]
fn unusable_paths_are_typed_errors() {
    let scratch = Scratch::new("paths");
    let file = scratch.path().join("file");
    fs::write(&file, b"not a store").unwrap();
    assert_eq!(kind(open(&file)), EngineErrorKind::Io);
    assert_eq!(kind(open(&file.join("below"))), EngineErrorKind::Io);
    assert_eq!(fs::read(&file).unwrap(), b"not a store");
    // sysfs refuses to root, too; for anybody else a directory without permissions does.
    assert_eq!(kind(open(Path::new("/sys/exuvia"))), EngineErrorKind::Io);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let closed = scratch.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
        match open(&closed) {
            Ok(_) => println!("skipped: permissions do not bind this user"),
            Err(e) => assert_eq!(e.kind(), EngineErrorKind::Io),
        }
    }
}
