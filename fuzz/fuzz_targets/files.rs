//! The files of a store with changed bytes, on sled and on fjall: whatever is done to them, a typed error or what was
//! written once.
//!
//! The engines' own panics are caught by the library, and are not this target's failures. An engine that panicked may keep
//! threads and memory: run it in rounds (`-runs=3000`).
#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use exuvia::engine::EngineKind;
use exuvia::{Plain, Store, Table};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Change {
    file: u8,
    at: u16,
    how: How,
}

#[derive(Debug, Arbitrary)]
enum How {
    Set(Vec<u8>),
    Flip(u8),
    Cut,
    Remove,
    Append(Vec<u8>),
}

struct File {
    name: PathBuf,
    used: Vec<u8>,
    len: u64,
}

fn below(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut names: Vec<PathBuf> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        if path.is_dir() { below(&path, found) } else { found.push(path) }
    }
}

fn options() -> exuvia::Options {
    Store::options().cache_bytes(16 << 20).background(false)
}

fn place(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("exuvia-fuzz-{}-{name}", std::process::id()))
}

fn original(kind: EngineKind) -> Vec<File> {
    let path = place(kind.name());
    let _there_may_be_none = fs::remove_dir_all(&path);
    let store = options().engine(kind).open(&path).unwrap();
    let table: Table<u64, Plain<u64>> = store.table("t").unwrap();
    for round in 0..3 {
        for key in 0..20 {
            table.put(&key, &Plain(key * 1000 + round)).unwrap();
        }
    }
    drop(table);
    store.close().unwrap();
    options().open(&path).unwrap().close().unwrap();
    let mut names = Vec::new();
    below(&path, &mut names);
    let file = |file: PathBuf| {
        let mut used = fs::read(&file).unwrap();
        let len = used.len() as u64;
        used.truncate(used.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        File { name: file.strip_prefix(&path).unwrap().to_owned(), used, len }
    };
    let files = names.into_iter().map(file).collect();
    fs::remove_dir_all(&path).unwrap();
    files
}

static ORIGINALS: OnceLock<[Vec<File>; 2]> = OnceLock::new();

fuzz_target!(
    init: {
        // The fuzzer's own ends the process at a panic that is about to be caught. One that is not ends it still.
        std::panic::set_hook(Box::new(|_| ()));
        ORIGINALS.get_or_init(|| [original(EngineKind::Sled), original(EngineKind::Fjall)]);
    },
    |input: (bool, Vec<Change>)| {
        let files = &ORIGINALS.get().unwrap()[usize::from(input.0)];
        let path = place("store");
        let _there_may_be_none = fs::remove_dir_all(&path);
        let mut images: Vec<Option<(Vec<u8>, u64)>> =
            files.iter().map(|file| Some((file.used.clone(), file.len))).collect();
        for change in input.1.iter().take(6) {
            let number = usize::from(change.file) % images.len();
            let Some((used, len)) = &mut images[number] else { continue };
            let at = usize::from(change.at) % used.len().max(1);
            match &change.how {
                How::Set(bytes) => {
                    used.resize(used.len().max(at + bytes.len()), 0);
                    used[at..at + bytes.len()].copy_from_slice(bytes);
                }
                How::Flip(mask) if at < used.len() => used[at] ^= mask,
                How::Flip(_) => {}
                How::Cut => {
                    used.truncate(at);
                    *len = at as u64;
                }
                How::Remove => images[number] = None,
                How::Append(bytes) => used.extend_from_slice(bytes),
            }
        }
        for (file, image) in files.iter().zip(images) {
            let Some((used, len)) = image else { continue };
            let to = path.join(&file.name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(&to, &used).unwrap();
            fs::File::options().write(true).open(&to).unwrap().set_len(len.max(used.len() as u64)).unwrap();
        }
        let engine = if input.0 { "fjall/keyspaces" } else { "sled/blobs" };
        fs::create_dir_all(path.join(engine)).unwrap();
        let Ok(store) = options().create(false).open(&path) else { return };
        if let Ok(table) = store.table::<u64, Plain<u64>>("t") {
            let known: BTreeSet<u64> = (0..3).collect();
            let fits = |key: u64, value: u64| key < 20 && value / 1000 == key && known.contains(&(value % 1000));
            for key in 0..20 {
                if let Ok(Some(found)) = table.get(&key) {
                    assert!(fits(key, found.0), "{key}: {found:?} is what nobody wrote");
                }
            }
            for (key, found) in table.scan(..).map_while(Result::ok) {
                assert!(fits(key, found.0), "{key}: {found:?} is what nobody wrote");
            }
            let _ = (store.verify(), store.inventory(), store.ledger(), table.put(&3, &Plain(3000)));
        }
        let _ = store.close();
    }
);
