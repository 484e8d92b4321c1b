//! The corruption campaign: a small store with everything that a store can have, damaged in one place at a time.
//!
//! In the files: every byte (once all its bits, once one bit at random), every length, every file removed. Below the
//! store: every byte and every length of every value of every tree, and a whole value of another key in its place. What has
//! to come of it: a typed error, or the right data. Never a panic, a hang, data that nobody wrote, or more memory than [`MEMORY_BYTES`].
//!
//! A record as it was at an earlier moment, without an error, is *silent*: an engine has taken damage for the torn end of its
//! log. The store was flushed, so none may be.
//!
//! The short form, in the test command, takes some places of each file. The long one takes all:
//!
//! ```text
//! EXUVIA_CORRUPTION=all TMPDIR=/dev/shm cargo test --release --workspace --test it -- --nocapture corruption::
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use exuvia::engine::{EngineKind, MemoryEngine};
use exuvia::{Budget, Durability, Options, Store, Table};

use crate::kit::damaged_files::supervise;
use crate::kit::files::files_below;
use crate::kit::format;
use crate::kit::scratch::{Scratch, child_argument};
use crate::kit::types::*;

/// What a child may take of address space: the engines' caches and threads, and then some.
const MEMORY_BYTES: u64 = 1 << 30;
/// Images that one child opens: some leave threads behind that cannot be ended.
const IMAGES_OF_A_CHILD: usize = 250;
const KEYS: std::ops::Range<u64> = 0..14;

fn is_long() -> bool {
    std::env::var("EXUVIA_CORRUPTION").is_ok_and(|form| form == "all")
}

fn options() -> Options {
    let interval = Duration::from_secs(3600);
    let options = Store::options().durability(Durability::Buffered { interval }).budget(Budget::unlimited());
    options.cache_bytes(16 << 20).background(false)
}

/// A view and a key, and what is read there.
type Reads = BTreeMap<(&'static str, u64), String>;

struct Views {
    store: Store,
    old: Option<Table<u64, UserV1>>,
    new: Option<Table<u64, UserV2>>,
    plain: Option<Table<u64, UserV1>>,
}

impl Views {
    fn open(store: Store, said: &mut Vec<String>) -> Self {
        fn table<V: exuvia::Version>(
            store: &Store,
            name: &str,
            said: &mut Vec<String>,
        ) -> Option<Table<u64, V>> {
            store.table(name).map_err(|e| said.push(e.to_string())).ok()
        }
        let (old, new) = (table(&store, "users", said), table(&store, "users", said));
        Self { plain: table(&store, "plain", said), old, new, store }
    }

    /// Everything by key, as text; what cannot be read is said.
    fn read(&self, said: &mut Vec<String>) -> Reads {
        let mut reads = Reads::new();
        let mut note = |view, key, read: Option<exuvia::Result<String>>| match read {
            Some(Ok(text)) => drop(reads.insert((view, key), text)),
            Some(Err(e)) => said.push(format!("{view} {key}: {e}")),
            None => {}
        };
        for key in KEYS {
            note("old", key, self.old.as_ref().map(|t| t.get(&key).map(|user| format!("{user:?}"))));
            note("new", key, self.new.as_ref().map(|t| t.get(&key).map(|user| format!("{user:?}"))));
            note("plain", key, self.plain.as_ref().map(|t| t.get(&key).map(|user| format!("{user:?}"))));
        }
        reads
    }

    /// What scans find is what gets do, until an error ends them. Answers what is not: that may be where a whole tree is lost.
    fn scans_differ(&self, reads: &Reads, said: &mut Vec<String>) -> Vec<((&'static str, u64), String)> {
        let mut differ = Vec::new();
        let mut note = |view, record: exuvia::Result<(u64, String)>| match record {
            Ok((key, found)) if reads.get(&(view, key)).is_some_and(|read| *read != found) => {
                differ.push(((view, key), found));
            }
            Ok(_) => {}
            Err(e) => said.push(format!("{view}: {e}")),
        };
        for (view, table) in [("old", &self.old), ("plain", &self.plain)] {
            for record in table.iter().flat_map(|table| table.scan(..)) {
                note(view, record.map(|(key, user)| (key, format!("{:?}", Some(user)))));
            }
        }
        for record in self.new.iter().flat_map(|table| table.scan(..).rev()) {
            note("new", record.map(|(key, user)| (key, format!("{:?}", Some(user)))));
        }
        differ
    }
}

/// Makes the store. Answers what every record was, one time after the other; the last is what it has to be.
fn make(store: Store) -> BTreeMap<(&'static str, u64), BTreeSet<String>> {
    let mut errors = Vec::new();
    let views = Views::open(store, &mut errors);
    let (old, plain) = (views.old.clone().unwrap(), views.plain.clone().unwrap());
    let new = views.new.clone().unwrap();
    let mut history: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    let mut look = |views: &Views| {
        for (at, text) in views.read(&mut Vec::new()) {
            history.entry(at).or_default().insert(text);
        }
    };
    look(&views);
    for key in 0..10 {
        old.put(&key, &v1(&format!("Ann N{key}"), 30)).unwrap();
        plain.put(&key, &v1(&format!("Plain P{key}"), 40)).unwrap();
        look(&views);
    }
    plain.put(&3, &v1("Plain Again", 41)).unwrap();
    plain.remove(&4).unwrap();
    // One whose upcast fails.
    old.put(&2, &v1("Single", 5)).unwrap();
    look(&views);
    let migration = views.store.plan("split").why("names").table(&new).paused().begin().unwrap();
    migration.step(5).unwrap();
    look(&views);
    new.put(&1, &v2("Bob", "B1", 20, Some("b@x"))).unwrap();
    new.put(&11, &v2("Bob", "B11", 20, Some("b@x"))).unwrap();
    look(&views);
    old.put(&11, &v1("Old O11", 21)).unwrap();
    old.put(&8, &v1("Old O8", 22)).unwrap();
    new.remove(&3).unwrap();
    old.remove(&9).unwrap();
    look(&views);
    migration.rollback().unwrap();
    old.put(&12, &v1("Old O12", 22)).unwrap();
    migration.resume().unwrap();
    migration.step(1).unwrap();
    look(&views);
    assert!(errors.is_empty(), "{errors:?}");
    history
}

enum Damage {
    Flip(u64, u8),
    Cut(u64),
    Remove,
}

struct File {
    name: PathBuf,
    /// Up to the last byte that is not zero.
    used: Vec<u8>,
    len: u64,
}

fn files(directory: &Path) -> Vec<File> {
    let file = |path: PathBuf| {
        let mut used = fs::read(&path).unwrap();
        let len = used.len() as u64;
        used.truncate(used.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        File { name: path.strip_prefix(directory).unwrap().to_owned(), used, len }
    };
    files_below(directory).into_iter().map(file).collect()
}

/// The same in parent and child.
fn damages(files: &[File], long: bool, places: impl Fn(&File) -> u64) -> Vec<(usize, Damage)> {
    let mut damages = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let places = places(file);
        if places == 0 {
            continue;
        }
        let used = file.used.len() as u64;
        let some = |count: u64| (0..count).map(move |n| n * used / count);
        let (flips, cuts): (Vec<u64>, Vec<u64>) = if long {
            ((0..used).collect(), (0..used).collect())
        } else {
            (some(places).collect(), some(2).collect())
        };
        for at in flips.into_iter().filter(|at| *at < used) {
            // One bit of the eight, another one at each place.
            let bit = 1 << ((at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) & 7);
            damages.push((number, Damage::Flip(at, 0xff)));
            damages.push((number, Damage::Flip(at, bit)));
        }
        damages.extend(cuts.into_iter().filter(|at| *at < used).map(|at| (number, Damage::Cut(at))));
        // In the zeroes behind the end, which are as one another.
        if long && file.len > used {
            let step = (file.len - used).div_ceil(64);
            for at in (used..file.len).step_by(usize::try_from(step).unwrap()) {
                damages.push((number, Damage::Flip(at, 0xff)));
                damages.push((number, Damage::Cut(at)));
            }
        }
        damages.push((number, Damage::Remove));
    }
    damages
}

fn place(files: &[File], directory: &Path, damaged: usize, damage: &Damage) {
    let _there_may_be_none = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).unwrap();
    for (number, file) in files.iter().enumerate() {
        let path = directory.join(&file.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (mut used, mut len) = (file.used.clone(), file.len);
        if number == damaged {
            match damage {
                Damage::Flip(at, mask) => {
                    let at = usize::try_from(*at).unwrap();
                    used.resize(used.len().max(at + 1), 0);
                    used[at] ^= mask;
                }
                Damage::Cut(at) => {
                    used.truncate(usize::try_from(*at).unwrap());
                    len = *at;
                }
                Damage::Remove => continue,
            }
        }
        fs::write(&path, used).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
    }
    // Directories that hold nothing now.
    for directory in ["sled/blobs", "fjall/keyspaces"].map(|name| directory.join(name)) {
        if directory.parent().unwrap().is_dir() {
            fs::create_dir_all(directory).unwrap();
        }
    }
}

/// Everything that a program may do with such a store. Answers what came of it: `whole`, `refused` (the open), `named`
/// (errors for some records) or `silent`.
fn visit(path: &Path, history: &BTreeMap<(&'static str, u64), BTreeSet<String>>, last: &Reads) -> String {
    let store = match options().create(false).open(path) {
        Ok(store) => store,
        Err(e) => return format!("refused {e}"),
    };
    let mut said = Vec::new();
    let views = Views::open(store, &mut said);
    let reads = views.read(&mut said);
    let mut silent = Vec::new();
    for (at, text) in reads.clone().into_iter().chain(views.scans_differ(&reads, &mut said)) {
        assert!(history[&at].contains(&text), "{at:?}: {text} is what nobody wrote");
        if last[&at] != text {
            silent.push(format!("{at:?}: {text}"));
        }
    }
    // No damage: the upcast that fails, or has failed.
    said.retain(|said| !said.contains("the name \"Single\" has no last name"));
    let verified = views.store.verify();
    if !said.is_empty() {
        let clean = verified.as_ref().is_ok_and(exuvia::tools::Report::is_clean);
        assert!(!clean, "verify finds nothing, but {said:?}");
    }
    said.extend(verified.as_ref().err().map(|e| format!("verify: {e}")));
    said.extend(
        verified.iter().flat_map(|report| report.damage.iter().map(|damage| format!("verify: {damage}"))),
    );
    let _answers = (views.store.inventory(), views.store.ledger(), views.store.stats(), views.store.space());
    // Writing on: it may be refused, and what was answered is there.
    for key in KEYS.step_by(4) {
        if let Some(old) = &views.old
            && old.put(&key, &v1("Written Later", 1)).is_ok()
        {
            match old.get(&key) {
                Ok(found) => assert_eq!(found, Some(v1("Written Later", 1))),
                Err(e) => said.push(format!("{key} was written: {e}")),
            }
        }
    }
    if let Ok(migration) = views.store.migration("split") {
        let _typed = (migration.step(20), migration.rollback(), migration.resume());
    }
    let Views { store, .. } = views;
    said.extend(store.close().err().map(|e| format!("close: {e}")));
    match (said.first(), silent.first()) {
        (Some(first), _) => format!("named {first}"),
        (None, Some(first)) => format!("silent {first}"),
        (None, None) => "whole ".to_owned(),
    }
}

fn limit_memory() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let limit = Rlimit { current: Some(MEMORY_BYTES), maximum: Some(MEMORY_BYTES) };
        setrlimit(Resource::As, limit).unwrap();
    }
}

/// What every record was, and what it has to be, by the same operations on another engine.
fn expected() -> (BTreeMap<(&'static str, u64), BTreeSet<String>>, Reads) {
    let engine = MemoryEngine::new();
    let history = make(options().open_in(Arc::new(engine.clone())).unwrap());
    let store = options().open_in(Arc::new(engine)).unwrap();
    let mut errors = Vec::new();
    let mut last = Views::open(store, &mut errors).read(&mut errors);
    // The record whose upcast fails is an error at the new view.
    assert_eq!(errors.len(), 1, "{errors:?}");
    last.insert(("new", 2), String::new());
    (history, last)
}

fn of_files(kind: EngineKind, test: &'static str) {
    of_files_after(kind, test, |_| (), |_| 4);
}

/// `prepare`: what is done to the engine's directory before. `places`: how many are damaged in a file, in the short form.
fn of_files_after(
    kind: EngineKind,
    test: &'static str,
    prepare: impl Fn(&Path),
    places: impl Fn(&File) -> u64,
) {
    let long = is_long();
    if let Some(argument) = child_argument() {
        let (root, first) = argument.rsplit_once('#').unwrap();
        let first: usize = first.parse().unwrap();
        let (history, last) = expected();
        let files = files(&Path::new(root).join("original"));
        let place_of_damage = Path::new(root).join("damaged");
        limit_memory();
        for (number, (file, damage)) in
            damages(&files, long, &places).iter().enumerate().skip(first).take(IMAGES_OF_A_CHILD)
        {
            place(&files, &place_of_damage, *file, damage);
            println!("began {number}");
            let said = visit(&place_of_damage, &history, &last);
            println!("ended {number} {}", said.replace('\n', " "));
        }
        println!("enough");
        return;
    }
    let scratch = Scratch::new(kind.name());
    let original = scratch.path().join("original");
    make(options().engine(kind).open(&original).unwrap());
    prepare(&original.join(kind.name()));
    let files = files(&original);
    let list = damages(&files, long, &places);
    let show = |number: usize| {
        let (file, damage) = &list[number];
        let name = files[*file].name.display();
        match damage {
            Damage::Flip(at, mask) => format!("{name} byte {at} by {mask:#04x}"),
            Damage::Cut(to) => format!("{name} cut to {to}"),
            Damage::Remove => format!("{name} removed"),
        }
    };
    let mut tally: BTreeMap<(usize, String), u64> = BTreeMap::new();
    let verbose = std::env::var_os("EXUVIA_TEST_VERBOSE").is_some();
    let mut silent = Vec::new();
    let mut bad = supervise(test, scratch.path(), list.len(), show, |number, said| {
        if said.starts_with("silent") {
            silent.push(format!("{}: {said}", show(number)));
        }
        let what = said.split(' ').next().unwrap();
        *tally.entry((list[number].0, what.to_owned())).or_default() += 1;
        if verbose {
            println!("{}: {said}", show(number));
        } else if number % 5000 == 4999 {
            println!("{kind:?}: {} of {}", number + 1, list.len());
        }
    });
    println!("{kind:?}: {} images", list.len());
    for (number, file) in files.iter().enumerate() {
        let of = |what: &str| tally.get(&(number, what.to_owned())).copied().unwrap_or(0);
        println!(
            "  {:<28} {:>7} bytes: whole {}, refused {}, named {}, silent {}",
            file.name.display(),
            file.used.len(),
            of("whole"),
            of("refused"),
            of("named"),
            of("silent")
        );
    }
    bad.extend(silent);
    assert!(bad.is_empty(), "{} of {}: {bad:#?}", bad.len(), list.len());
    let all: u64 = tally.values().sum();
    assert_eq!(all, list.len() as u64, "every image was looked at");
}

#[test]
fn no_damage_to_a_file_of_sled_is_taken_for_data() {
    of_files(EngineKind::Sled, "campaigns::corruption::no_damage_to_a_file_of_sled_is_taken_for_data");
}

#[cfg(feature = "fjall")]
#[test]
fn no_damage_to_a_file_of_fjall_is_taken_for_data() {
    of_files(EngineKind::Fjall, "campaigns::corruption::no_damage_to_a_file_of_fjall_is_taken_for_data");
}

/// The small store lies in memory and in the journal. Here it lies in sorted files, as a large one does: with indexes, and with
/// filters, which lookups read and scans do not.
#[cfg(feature = "fjall")]
#[test]
fn no_damage_to_a_sorted_file_of_fjall_is_taken_for_data() {
    let test = "campaigns::corruption::no_damage_to_a_sorted_file_of_fjall_is_taken_for_data";
    let is_sorted = |file: &Path| file.parent().is_some_and(|parent| parent.ends_with("tables"));
    let prepare = |directory: &Path| {
        // fjall reads the filters of merged files when it needs them, and those of all others when it opens them.
        let db = fjall::Database::builder(directory).open().unwrap();
        for name in db.list_keyspace_names() {
            let tree = db.keyspace(&name, fjall::KeyspaceCreateOptions::default).unwrap();
            tree.rotate_memtable_and_wait().unwrap();
            tree.major_compact().unwrap();
        }
        drop(db);
        let sorted = files_below(directory).into_iter().filter(|file| is_sorted(file)).count();
        assert!(sorted > 5, "{sorted} sorted files");
    };
    // The records of the settled table: there, `verify` looks nothing up.
    let text = b"Plain Again";
    let places = |file: &File| {
        let is_settled = is_sorted(&file.name) && file.used.windows(text.len()).any(|part| part == text);
        if is_settled { file.used.len() as u64 / 10 } else { 0 }
    };
    of_files_after(EngineKind::Fjall, test, prepare, places);
}

/// Every byte and length of every value, below the store, and in its place every other one of its tree.
#[test]
fn damage_to_a_value_costs_that_value_and_is_named() {
    let engine = MemoryEngine::new();
    let history = make(options().open_in(Arc::new(engine.clone())).unwrap());
    let (_, last) = expected();
    let dump = format::dump(&engine);
    let mut tally: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (number, (tree, key, value)) in dump.iter().enumerate() {
        let flips = (0..value.len()).flat_map(|at| [(at, 0xff_u8), (at, 1 << (at % 8))]);
        let flipped = flips.map(|(at, mask)| {
            let mut value = value.clone();
            value[at] ^= mask;
            value
        });
        let cut = (0..value.len()).map(|len| value[..len].to_vec());
        // Whole, and under the wrong key: only the key in the checksum tells.
        let others = dump.iter().filter(|other| other.0 == *tree && other.1 != *key);
        let moved = others.map(|other| other.2.clone());
        for damaged in flipped.chain(cut).chain(moved) {
            let mut dump = dump.clone();
            dump[number].2 = damaged;
            let what = look_below(&dump, tree, key, &history, &last);
            let kind = kind_of(tree, key);
            assert!(allowed(kind).contains(&what), "damage to {kind}: {what}");
            *tally.entry((kind, what)).or_default() += 1;
        }
    }
    let kinds: BTreeSet<&str> = tally.keys().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), 7, "not every kind of value was there: {kinds:?}");
    println!("{} values: {tally:#?}", dump.len());
}

fn kind_of(tree: &str, key: &[u8]) -> &'static str {
    let kinds = [(b"catalog".as_slice(), "catalog"), (b"progress/", "progress"), (b"place/", "place")];
    match tree {
        "ledger" => "ledger",
        "catalog" => kinds.iter().find(|(start, _)| key.starts_with(start)).map_or("shape", |(_, kind)| kind),
        quarantine if quarantine.starts_with("quarantine/") => "quarantine",
        _ => "record",
    }
}

/// What may come of damage: the open refused, or mended by it, or the value named by `verify` and nothing else affected but,
/// of a record, that record.
fn allowed(kind: &str) -> &'static [&'static str] {
    match kind {
        "catalog" => &["refused"],
        // The next open copies again.
        "progress" => &["mended"],
        // A copy of what the catalog still holds is made anew.
        "ledger" => &["mended", "named"],
        "record" => &["hidden, and named", "named"],
        // A walk begins at its start; a shape is still known by its fingerprint; a reason is lost.
        "place" | "shape" | "quarantine" => &["named"],
        other => unreachable!("{other}"),
    }
}

fn look_below(
    dump: &format::Dump,
    tree: &str,
    key: &[u8],
    history: &BTreeMap<(&'static str, u64), BTreeSet<String>>,
    last: &Reads,
) -> &'static str {
    let store = match options().open_in(Arc::new(format::load(dump))) {
        Ok(store) => store,
        Err(e) => {
            assert!(tree == "catalog" && key == b"catalog", "{tree}, {key:?}: the store does not open: {e}");
            return "refused";
        }
    };
    let mut said = Vec::new();
    let views = Views::open(store, &mut said);
    let reads = views.read(&mut said);
    assert!(views.scans_differ(&reads, &mut Vec::new()).is_empty());
    let mut differ = BTreeSet::new();
    for (at, text) in last {
        if reads.get(at) != Some(text) && *at != ("new", 2) {
            assert!(
                reads.get(at).is_none_or(|text| history[at].contains(text)),
                "{tree}: damage is served as data at {at:?}"
            );
            differ.insert(at.1);
        }
    }
    let report = views.store.verify().unwrap();
    if tree.bytes().all(|byte| byte.is_ascii_digit() || byte == b'/') {
        let id = u64::from_be_bytes(key.try_into().unwrap());
        assert!(
            differ.iter().all(|key| *key == id),
            "{tree}, key {id}: others are affected, too: {differ:?}"
        );
        let name = format!("{id:016x}");
        assert!(report.damage.iter().any(|damage| damage.contains(&name)), "{tree} {id}: {report:?}");
        return if differ.is_empty() { "hidden, and named" } else { "named" };
    }
    assert!(differ.is_empty(), "{tree}: records differ: {differ:?} {said:?}");
    if report.is_clean() { "mended" } else { "named" }
}
