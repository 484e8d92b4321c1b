//! Damaged files under an engine: whatever is done to them, a call answers with data or with a typed error. No panic
//! gets out, no call hangs; each engine says which losses it notices.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Bound::Unbounded;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use exuvia::engine::EngineError;
use exuvia::engine::{Engine, Outcome, Page, Write};

use crate::kit::files::files_below;
use crate::kit::scratch::{Scratch, child, child_argument};

/// An engine's part in a campaign.
pub(crate) struct Subject {
    /// The full path of the test, for its children.
    pub(crate) test: &'static str,
    pub(crate) open: fn(&Path) -> Result<Arc<dyn Engine>, EngineError>,
    /// How many places of a file of this name are damaged, one at a time.
    pub(crate) flips: fn(&Path) -> u64,
    /// Whether the engine notices every loss from damage to this file.
    pub(crate) notices: fn(&Path) -> bool,
}

/// Enough for several files, or segments of one.
const RECORDS: u32 = 3000;

pub(crate) fn value(n: u32) -> Vec<u8> {
    // Some are as large as a value may be in sled, nearly.
    let size = if n.is_multiple_of(1000) { 45_000 } else { 500 + n as usize % 400 };
    vec![n as u8; size]
}

/// A small store that was closed in order, opened again, and closed again.
pub(crate) fn store(path: &Path, open: fn(&Path) -> Result<Arc<dyn Engine>, EngineError>) {
    for records in [RECORDS, RECORDS / 10] {
        let engine = open(path).unwrap();
        let tree = engine.tree("t").unwrap();
        for n in 0..records {
            tree.put(&n.to_be_bytes(), &value(n)).unwrap();
        }
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
fn damages(subject: &Subject, store: &Path) -> Vec<(PathBuf, Damage)> {
    let mut damages = Vec::new();
    for file in files_below(store) {
        let bytes = fs::read(&file).unwrap();
        // Not in the zeroes behind a log's end.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        let name = file.strip_prefix(store).unwrap().to_owned();
        if used > 0 {
            let flips = (subject.flips)(&name);
            damages.extend((0..flips).map(|n| (name.clone(), Damage::Flip(n * used / flips))));
            damages.extend((0..8).map(|n| (name.clone(), Damage::Truncate(n * used / 8))));
        }
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

/// Everything a store may do with what it finds. Answers in words what came of it. `whole`: the engine notices every
/// loss.
fn visit(subject: &Subject, path: &Path, whole: bool) -> String {
    let engine = match (subject.open)(path) {
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

/// Every damage to the store that `make` leaves in a directory.
pub(crate) fn campaign(subject: &Subject, make: impl Fn(&Path)) {
    if let Some(argument) = child_argument() {
        let (path, first) = argument.rsplit_once('#').unwrap();
        let original = Path::new(path).join("original");
        let damaged = Path::new(path).join("damaged");
        for (number, (file, damage)) in
            damages(subject, &original).iter().enumerate().skip(first.parse().unwrap())
        {
            copy(&original, &damaged);
            inflict(&damaged.join(file), damage);
            println!("began {number}");
            let said = visit(subject, &damaged, (subject.notices)(file));
            println!("ended {number} {}", said.replace('\n', " "));
        }
        println!("enough");
        return;
    }
    let scratch = Scratch::new("damage");
    let original = scratch.path().join("original");
    make(&original);
    let list = damages(subject, &original);
    let show = |number: usize| {
        let (file, damage) = &list[number];
        match damage {
            Damage::Flip(at) => format!("{} flipped at {at}", file.display()),
            Damage::Truncate(to) => format!("{} cut to {to}", file.display()),
            Damage::Remove => format!("{} removed", file.display()),
        }
    };
    let bad = supervise(subject.test, scratch.path(), list.len(), show, |number, said| {
        if std::env::var_os("EXUVIA_TEST_VERBOSE").is_some() {
            println!("{}: {said}", show(number));
        }
    });
    assert!(bad.is_empty(), "{} of {}: {bad:#?}", bad.len(), list.len());
}

/// Lets children of `test` work through `count` cases. A child finds `<place>#<first>` as its argument, and prints `began
/// <number>` and `ended <number> <text>` for each case, and `enough` if it wants another one to go on, or when all is done.
/// Answers the cases that ended the process or took more than 30 s.
pub(crate) fn supervise(
    test: &str,
    place: &Path,
    count: usize,
    show: impl Fn(usize) -> String,
    mut ended: impl FnMut(usize, &str),
) -> Vec<String> {
    let (mut next, mut bad) = (0, Vec::new());
    while next < count {
        let mut running = child(test, &format!("{}#{next}", place.display()));
        // Each thread's arena would count against a limit of address space.
        running.env("MALLOC_ARENA_MAX", "1");
        // Of a child that ends, it says why.
        let errors =
            if std::env::var_os("EXUVIA_TEST_VERBOSE").is_some() { Stdio::inherit() } else { Stdio::null() };
        let mut running = running.stderr(errors).spawn().unwrap();
        let output = BufReader::new(running.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let began = next;
        loop {
            match lines.recv_timeout(Duration::from_secs(30)) {
                Ok(line) if line == "enough" => {
                    assert!(next > began, "a child that does nothing");
                    break;
                }
                Ok(line) => {
                    // The test harness prints its own text in front of the first line.
                    if let Some((_, number)) = line.split_once("began ") {
                        next = number.parse::<usize>().unwrap();
                    } else if let Some((_, rest)) = line.split_once("ended ") {
                        let (number, said) = rest.split_once(' ').unwrap();
                        let number = number.parse::<usize>().unwrap();
                        next = number + 1;
                        ended(number, said);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bad.push(format!("{} hangs", show(next)));
                    next += 1;
                    break;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bad.push(format!("{} ends the process", show(next)));
                    next += 1;
                    break;
                }
            }
        }
        let _it_may_have_ended = running.kill();
        running.wait().unwrap();
    }
    bad
}
