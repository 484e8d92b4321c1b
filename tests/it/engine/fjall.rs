//! The fjall engine where fjall itself gives up or leaves something undone.

use std::ops::Bound::Unbounded;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use exuvia::engine::{Engine, FjallEngine, FjallOptions, Outcome, Page, Snapshot};
use exuvia::engine::{EngineError, EngineErrorKind};

use crate::kit::damaged_files::{Subject, campaign, store};
use crate::kit::scene::until;
use crate::kit::scratch::{Scratch, child, child_argument};
use crate::kit::trees::{get, pages, write};

/// With memtables so small that most records are in sorted files.
fn open(path: &Path) -> Result<Arc<dyn Engine>, EngineError> {
    let options = FjallOptions::new().cache_bytes(16 << 20).memtable_bytes(256 << 10);
    Ok(Arc::new(FjallEngine::open(path, options)?))
}

#[test]
fn damaged_files_give_data_or_typed_errors() {
    let subject = Subject {
        test: "engine::fjall::damaged_files_give_data_or_typed_errors",
        open,
        flips: |_| 8,
        // What was flushed is marked, and what is there is compared with it before fjall opens anything.
        notices: |_| true,
    };
    campaign(&subject, |path| store(path, open));
}

/// fjall would take a damaged count for a length, and end the process where there is not so much memory.
#[test]
fn every_damaged_byte_of_a_list_of_files_is_noticed() {
    let scratch = Scratch::new("fjall-manifest");
    let path = scratch.path().join("fjall");
    store(&path, open);
    let mut lists = 0;
    for tree in path.join("keyspaces").read_dir().unwrap() {
        let tree = tree.unwrap().path();
        let current = std::fs::read(tree.join("current")).unwrap();
        let number = u64::from_le_bytes(current[..8].try_into().unwrap());
        for name in ["current".to_owned(), format!("v{number}")] {
            let whole = std::fs::read(tree.join(&name)).unwrap();
            for at in 0..whole.len() {
                let mut damaged = whole.clone();
                damaged[at] ^= 0x80;
                std::fs::write(tree.join(&name), &damaged).unwrap();
                let error = open(&path).err().unwrap();
                assert_eq!(error.kind(), EngineErrorKind::Corrupt, "byte {at} of {name}: {error}");
            }
            std::fs::write(tree.join(&name), &whole).unwrap();
            lists += 1;
        }
    }
    assert!(lists > 2);
    assert!(open(&path).is_ok());
}

/// fjall kept the files of a dropped tree open that it had read, and so their disk space too: the soak ran out of neither,
/// but both grew with every migration.
#[cfg(target_os = "linux")]
#[test]
fn the_files_of_a_dropped_tree_are_closed() {
    let scratch = Scratch::new("fjall-closed");
    let path = scratch.path().join("fjall");
    let engine = open(&path).unwrap();
    let tree = engine.tree("t").unwrap();
    for n in 0_u32..4000 {
        tree.put(&n.to_be_bytes(), &[n as u8; 300]).unwrap();
    }
    let files = path.canonicalize().unwrap().join("keyspaces");
    let open_files = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
        // The tree of trees is always open.
        links.filter(|link| link.starts_with(&files) && !link.starts_with(files.join("0"))).count()
    };
    until("a sorted file is written and read", || {
        assert!(get(&*tree, &0_u32.to_be_bytes()).is_some());
        open_files() > 0
    });
    drop(tree);
    engine.drop_tree("t").unwrap();
    until("its files are closed", || open_files() == 0);
}

/// fjall would ask for as much memory as a damaged length says, up to 4 GiB, and end the process where there is less.
/// Found by the corruption campaign, which does the same to every byte.
#[cfg(target_os = "linux")]
#[test]
fn a_damaged_length_asks_for_no_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let test = "engine::fjall::a_damaged_length_asks_for_no_memory";
    if let Some(path) = child_argument() {
        let limit = Some(1 << 30);
        setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
        let found = open(Path::new(&path)).map(|engine| get(&*engine.tree("t").unwrap(), b"first").is_some());
        println!("child: {:?}", found.map_err(|e| e.kind()));
        return;
    }
    let scratch = Scratch::new("fjall-length");
    let path = scratch.path().join("fjall");
    let opened = |what: &str| {
        let output = child(test, path.to_str().unwrap()).env("MALLOC_ARENA_MAX", "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{what}: {text}");
        text
    };
    let engine = open(&path).unwrap();
    engine.tree("t").unwrap().put(b"first", b"value").unwrap();
    engine.tree("t").unwrap().put(b"the key of the second", b"value").unwrap();
    drop(engine);
    let journal = path.join("0.jnl");
    let whole = std::fs::read(&journal).unwrap();
    let key = whole.windows(21).position(|part| part == b"the key of the second").unwrap();
    let mut damaged = whole.clone();
    // The last byte of the length of the value.
    damaged[key - 1] ^= 0xff;
    std::fs::write(&journal, damaged).unwrap();
    // What was flushed and is gone is noticed; the length is not believed before that.
    assert!(opened("a journal").contains("child: Err(Corrupt)"));
    std::fs::write(&journal, &whole).unwrap();

    // Enough for sorted files.
    store(&path, open);
    let mut tables = 0;
    for table in
        crate::kit::files::files_below(&path).iter().filter(|file| file.parent().unwrap().ends_with("tables"))
    {
        let whole = std::fs::read(table).unwrap();
        let trailer = whole.len() - 38;
        let contents = u64::from_le_bytes(whole[trailer + 22..trailer + 30].try_into().unwrap()) as usize;
        assert_eq!(whole[contents..contents + 4], *b"TOC!");
        let mut damaged = whole.clone();
        damaged[contents + 7] ^= 0xff;
        std::fs::write(table, damaged).unwrap();
        assert!(opened("a sorted file").contains("child: Err(Corrupt)"));
        std::fs::write(table, &whole).unwrap();
        tables += 1;
    }
    assert!(tables > 0);
    assert!(opened("the whole").contains("child: Ok(true)"));
}

#[test]
fn one_handle_at_a_time() {
    let scratch = Scratch::new("fjall-locked");
    let path = scratch.path().join("fjall");
    let engine = open(&path).unwrap();
    assert_eq!(open(&path).err().unwrap().kind(), EngineErrorKind::Locked);
    drop(engine);
    assert!(open(&path).is_ok());
}

/// fjall would make a new store over what is left of an old one.
#[test]
fn a_directory_without_its_version_is_not_made_anew() {
    let scratch = Scratch::new("fjall-version");
    let path = scratch.path().join("fjall");
    store(&path, open);
    std::fs::remove_file(path.join("version")).unwrap();
    assert_eq!(open(&path).err().unwrap().kind(), EngineErrorKind::Corrupt);
    assert!(!path.join("version").exists());
}

#[test]
fn names_longer_than_fjall_takes_come_back() {
    let scratch = Scratch::new("fjall-names");
    let path = scratch.path().join("fjall");
    let names = [format!("quarantine/{}", "x".repeat(256)), "y".repeat(256), "~names".to_owned(), "z".into()];
    let engine = open(&path).unwrap();
    for name in &names {
        engine.tree(name).unwrap().put(b"k", name.as_bytes()).unwrap();
    }
    drop(engine);
    let engine = open(&path).unwrap();
    let mut found = engine.trees().unwrap();
    found.sort();
    let mut expected = names.to_vec();
    expected.sort();
    assert_eq!(found, expected);
    for name in &names {
        assert_eq!(get(&*engine.tree(name).unwrap(), b"k").unwrap(), name.as_bytes());
        engine.drop_tree(name).unwrap();
    }
    assert!(engine.trees().unwrap().is_empty());
}

#[test]
fn a_snapshot_is_of_its_moment_whatever_comes_after() {
    let scratch = Scratch::new("fjall-snapshot");
    let engine = open(&scratch.path().join("fjall")).unwrap();
    let (kept, dropped) = (engine.tree("kept").unwrap(), engine.tree("dropped").unwrap());
    for n in 0..100_u32 {
        kept.put(&n.to_be_bytes(), b"old").unwrap();
        dropped.put(&n.to_be_bytes(), b"old").unwrap();
    }
    let snapshot = engine.snapshot().unwrap().unwrap();
    engine.drop_tree("dropped").unwrap();
    // So much that the old values would have been merged away.
    for round in 0..40_u32 {
        for n in 0..100_u32 {
            kept.put(&n.to_be_bytes(), &[round as u8; 500]).unwrap();
        }
    }
    kept.delete(&7_u32.to_be_bytes()).unwrap();
    engine.tree("dropped").unwrap().put(&7_u32.to_be_bytes(), b"of a later tree").unwrap();
    engine.tree("later").unwrap().put(b"k", b"v").unwrap();
    for tree in ["kept", "dropped"] {
        assert_eq!(&*snapshot.get(tree, &7_u32.to_be_bytes()).unwrap().unwrap(), b"old");
        for reverse in [false, true] {
            let mut page = Page::new();
            assert!(snapshot.scan(tree, (Unbounded, Unbounded), reverse, 1000, &mut page).unwrap());
            assert_eq!(page.len(), 100);
            assert!(page.iter().all(|(_, value)| **value == *b"old"));
        }
    }
    assert!(snapshot.get("later", b"k").unwrap().is_none());
    assert!(snapshot.scan("later", (Unbounded, Unbounded), false, 10, &mut Page::new()).unwrap());
}

/// Every reader sees all of a commit or nothing of it, by single reads, scans and snapshots.
#[test]
fn no_reader_sees_half_a_commit() {
    let scratch = Scratch::new("fjall-commits");
    let engine = open(&scratch.path().join("fjall")).unwrap();
    let (a, b) = (engine.tree("a").unwrap(), engine.tree("b").unwrap());
    let number = |value: Option<Vec<u8>>| value.map_or(0, |v| u32::from_be_bytes(v.try_into().unwrap()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=3000_u32 {
                // Many keys, so that there is a while between the first and the last.
                let mut writes: Vec<_> =
                    (0..20).map(|k: u8| write("a", &[k], Some(&n.to_be_bytes()))).collect();
                writes.push(write("b", b"k", Some(&n.to_be_bytes())));
                assert_eq!(engine.commit(&[], &writes).unwrap(), Outcome::Applied);
            }
            stop.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                // What is written last is read last, so it may only be newer.
                let first = number(get(&*a, &[0]));
                assert!(number(get(&*b, b"k")) >= first, "the first key of a commit without its last");
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let found = pages(&*a, (Unbounded, Unbounded), true, 100);
                assert!(found.is_sorted_by(|x, y| x.1 <= y.1), "read backwards: earlier keys are not older");
                let snapshot = engine.snapshot().unwrap().unwrap();
                let of = |snapshot: &dyn Snapshot, tree: &str, key: &[u8]| {
                    number(snapshot.get(tree, key).unwrap().map(|value| value.to_vec()))
                };
                assert_eq!(
                    of(&*snapshot, "a", &[0]),
                    of(&*snapshot, "b", b"k"),
                    "a snapshot of half a commit"
                );
            }
        });
    });
}

/// A tree that is seldom written to does not keep every journal, all of which an open would have to read.
#[test]
fn full_journals_go() {
    let scratch = Scratch::new("fjall-journals");
    let path = scratch.path().join("fjall");
    let engine = open(&path).unwrap();
    engine.tree("seldom").unwrap().put(b"k", b"v").unwrap();
    let busy = engine.tree("busy").unwrap();
    let value = vec![7; 1 << 20];
    for n in 0..70_u32 {
        busy.put(&n.to_be_bytes(), &value).unwrap();
        engine.flush().unwrap();
    }
    let journals = || {
        let files = path.read_dir().unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|extension| extension == "jnl")).collect::<Vec<_>>()
    };
    let first = path.join("0.jnl");
    until("the first journal goes", || {
        busy.put(b"more", b"v").unwrap();
        engine.flush().unwrap();
        !journals().contains(&first)
    });
    drop((busy, engine));
    let engine = open(&path).unwrap();
    assert_eq!(get(&*engine.tree("seldom").unwrap(), b"k").unwrap(), b"v");
    assert_eq!(get(&*engine.tree("busy").unwrap(), &69_u32.to_be_bytes()).unwrap(), value);
}

/// One thread writes sorted files, and it must never wait for itself, however fast small records come: else memory and
/// the journal grow without bound.
#[test]
fn many_small_writes_leave_memory() {
    let scratch = Scratch::new("fjall-small");
    let path = scratch.path().join("fjall");
    let options = FjallOptions::new().cache_bytes(16 << 20).memtable_bytes(256 << 10);
    let engine: Arc<dyn Engine> = Arc::new(FjallEngine::open(&path, options).unwrap());
    let trees: Vec<_> = (0..3).map(|n| engine.tree(&format!("{n}")).unwrap()).collect();
    std::thread::scope(|scope| {
        for tree in &trees {
            scope.spawn(|| (0..50_000_u32).for_each(|n| tree.put(&n.to_be_bytes(), &[7; 20]).unwrap()));
        }
    });
    // 1.2 MB of keys and values for each tree, and at most four memtables of it (counted with what they take themselves)
    // in memory: some 200 KB.
    let written_out = || {
        let mut least = u64::MAX;
        for keyspace in path.join("keyspaces").read_dir().unwrap() {
            let keyspace = keyspace.unwrap();
            if keyspace.file_name() != "0" {
                let tables = keyspace.path().join("tables").read_dir().unwrap();
                let bytes =
                    tables.filter_map(|table| table.ok()?.metadata().ok()).map(|file| file.len()).sum();
                least = least.min(bytes);
            }
        }
        least > 700_000
    };
    until("most is in sorted files", written_out);
}

/// What a close leaves in the journal is put into memory by the next open, record by record.
#[test]
fn a_close_writes_large_memtables_out_and_leaves_small_ones() {
    for (records, written) in [(10u32, false), (90, true)] {
        let dir = Scratch::new("fjall-close");
        let engine = FjallEngine::open(dir.path(), FjallOptions::default()).unwrap();
        let tree = engine.tree("t").unwrap();
        (0..records).for_each(|n| tree.put(&n.to_be_bytes(), &[7; 64 * 1024]).unwrap());
        drop((tree, engine));
        let bytes = table_bytes(&dir.path().join("keyspaces"));
        assert_eq!(bytes >= 4 * 1024 * 1024, written, "{records} records: {bytes} bytes");
        let engine = FjallEngine::open(dir.path(), FjallOptions::default()).unwrap();
        let tree = engine.tree("t").unwrap();
        let found = (0..records).filter(|n| tree.get(&n.to_be_bytes()).unwrap().is_some()).count();
        assert_eq!(found, records as usize);
    }
}

fn table_bytes(keyspaces: &Path) -> u64 {
    let tables =
        std::fs::read_dir(keyspaces).unwrap().map(|keyspace| keyspace.unwrap().path().join("tables"));
    let files = tables.filter_map(|tables| std::fs::read_dir(tables).ok()).flatten();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}
