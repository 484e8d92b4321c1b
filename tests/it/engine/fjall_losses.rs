//! fjall opens without what is missing, and without a word. What was flushed must not be lost like that; what was not may.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use exuvia::engine::EngineErrorKind;
use exuvia::engine::{Engine, FjallEngine, FjallOptions};

use crate::kit::scene::until;
use crate::kit::scratch::Scratch;
use crate::kit::trees::get;

fn open(path: &Path) -> Result<Arc<dyn Engine>, exuvia::engine::EngineError> {
    let options = FjallOptions::new().cache_bytes(16 << 20).memtable_bytes(256 << 10);
    Ok(Arc::new(FjallEngine::open(path, options)?))
}

/// A copy as a crash of the process would leave it, if nothing goes on in the background.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).map(drop).unwrap();
        }
    }
}

fn used(file: &Path) -> u64 {
    fs::read(file).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn assert_lost(path: &Path, why: &str) {
    // Again and again: a refusal must not be what makes the next open succeed.
    for _ in 0..2 {
        let error = open(path).err().unwrap_or_else(|| panic!("{why}: it opens"));
        assert_eq!(error.kind(), EngineErrorKind::Corrupt, "{why}: {error}");
        let said = error.to_string();
        assert!(said.contains("restore the store from a copy"), "{why}: {said}");
    }
}

/// Every byte of a small journal is damaged, and it is cut everywhere: what was flushed is there, or an error says so.
#[test]
fn a_torn_tail_opens_and_a_damaged_flush_does_not() {
    let scratch = Scratch::new("fjall-tail");
    let live = scratch.path().join("live");
    let engine = open(&live).unwrap();
    let tree = engine.tree("t").unwrap();
    let put = |keys: std::ops::Range<u8>| keys.for_each(|n| tree.put(&[n], &[n; 9]).unwrap());
    put(0..6);
    engine.flush().unwrap();
    let whole = scratch.path().join("whole");
    // Written by the system, but not flushed.
    put(6..12);
    let pair = [b"x", b"y"].map(|key| crate::kit::trees::write("t", key, Some(b"of one commit")));
    assert_eq!(engine.commit(&[], &pair).unwrap(), exuvia::engine::Outcome::Applied);
    // fjall hands its buffer on when it is asked for its state.
    drop((tree, engine));
    copy(&live, &whole);

    // The mark of the close says that all is flushed; this is the store with the mark of the first flush.
    let torn = scratch.path().join("torn");
    let engine = open(&torn).unwrap();
    let tree = engine.tree("t").unwrap();
    (0..6).for_each(|n: u8| tree.put(&[n], &[n; 9]).unwrap());
    engine.flush().unwrap();
    let marks = ["synced.0", "synced.1"].map(|name| fs::read(torn.join(name)).unwrap());
    let flushed = used(&torn.join("0.jnl"));
    drop((tree, engine));
    let journal = fs::read(whole.join("0.jnl")).unwrap();
    let end = used(&whole.join("0.jnl"));
    assert!(flushed > 0 && flushed < end);

    let case = scratch.path().join("case");
    let make = |flushed_all: bool, journal: &[u8]| {
        let _there_may_be_none = fs::remove_dir_all(&case);
        copy(&whole, &case);
        fs::write(case.join("0.jnl"), journal).unwrap();
        if !flushed_all {
            for (name, mark) in ["synced.0", "synced.1"].iter().zip(&marks) {
                fs::write(case.join(name), mark).unwrap();
            }
        }
    };
    let (mut opened, mut refused) = (0, 0);
    for at in (0..end).step_by(5) {
        let (cut, mut flipped) = (&journal[..at as usize], journal.clone());
        flipped[at as usize] ^= 0x41;
        for damaged in [cut, &flipped] {
            make(true, damaged);
            assert_eq!(
                open(&case).err().map(|e| e.kind()),
                Some(EngineErrorKind::Corrupt),
                "byte {at}, flushed"
            );
            make(false, damaged);
            match open(&case) {
                Ok(engine) => {
                    opened += 1;
                    assert!(at >= flushed, "byte {at} of {flushed} that were flushed");
                    let tree = engine.tree("t").unwrap();
                    assert!((0..6).all(|n: u8| get(&*tree, &[n]).is_some_and(|value| value == [n; 9])));
                    assert_eq!(get(&*tree, b"x"), get(&*tree, b"y"), "half a commit, at byte {at}");
                }
                Err(e) => {
                    assert_eq!(e.kind(), EngineErrorKind::Corrupt);
                    refused += 1;
                }
            }
        }
    }
    // What was not flushed may be lost; fjall refuses some flips of it, where nothing but the checksum is wrong.
    assert!(opened >= (end - flushed) / 5, "{opened} opened and {refused} refused, of {end} bytes");
    // A refusal changed nothing: with the journal whole again it opens.
    make(true, &journal[..20]);
    assert_lost(&case, "a cut journal");
    fs::write(case.join("0.jnl"), &journal).unwrap();
    open(&case).unwrap();
    // And the way out that the error names.
    make(true, &journal[..flushed as usize]);
    assert_lost(&case, "a cut journal");
    fs::remove_file(case.join("synced.0")).unwrap();
    fs::remove_file(case.join("synced.1")).unwrap();
    let engine = open(&case).unwrap();
    assert!(get(&*engine.tree("t").unwrap(), &[5]).is_some());
}

#[test]
fn a_missing_tree_is_missed() {
    let scratch = Scratch::new("fjall-missing-tree");
    let path = scratch.path().join("fjall");
    let engine = open(&path).unwrap();
    for name in ["kept", "dropped"] {
        engine.tree(name).unwrap().put(b"k", b"v").unwrap();
    }
    engine.drop_tree("dropped").unwrap();
    drop(engine);
    drop(open(&path).unwrap());
    let trees: Vec<_> =
        path.join("keyspaces").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(trees.len(), 2, "fjall's own and the one that was kept: {trees:?}");
    let away = scratch.path().join("away");
    for tree in trees {
        for missing in [tree.join("current"), tree.clone()] {
            fs::rename(&missing, &away).unwrap();
            assert_lost(&path, &format!("{} is missing", missing.display()));
            fs::rename(&away, &missing).unwrap();
        }
    }
    let engine = open(&path).unwrap();
    assert_eq!(get(&*engine.tree("kept").unwrap(), b"v"), None);
    assert_eq!(get(&*engine.tree("kept").unwrap(), b"k").unwrap(), b"v");
}

/// An older journal is missed if a tree of it is in no sorted file, and is not if fjall removed it itself.
#[test]
fn a_missing_older_journal_is_missed() {
    let scratch = Scratch::new("fjall-missing-journal");
    let path = scratch.path().join("fjall");
    let engine = open(&path).unwrap();
    engine.tree("seldom").unwrap().put(b"k", b"v").unwrap();
    engine.flush().unwrap();
    let busy = engine.tree("busy").unwrap();
    let second = path.join("1.jnl");
    until("a second journal", || {
        busy.put(b"k", &vec![7; 1 << 20]).unwrap();
        second.exists()
    });
    // Closed without a flush, so that the tree that is seldom written to keeps the first journal.
    drop((busy, engine));
    let first = path.join("0.jnl");
    let away = scratch.path().join("away");
    let marks = ["synced.0", "synced.1"].map(|name| (path.join(name), fs::read(path.join(name)).unwrap()));
    for missing in [&first, &second] {
        fs::rename(missing, &away).unwrap();
        assert_lost(&path, &format!("{} is missing", missing.display()));
        fs::rename(&away, missing).unwrap();
    }
    // Now fjall removes it, and the process dies before that is marked.
    let engine = open(&path).unwrap();
    let seldom = engine.tree("seldom").unwrap();
    until("the first journal goes", || {
        engine.tree("busy").unwrap().put(b"k", &vec![7; 1 << 20]).unwrap();
        engine.flush().unwrap();
        !first.exists()
    });
    drop((seldom, engine));
    for (name, mark) in marks {
        fs::write(name, mark).unwrap();
    }
    let engine = open(&path).unwrap();
    assert_eq!(get(&*engine.tree("seldom").unwrap(), b"k").unwrap(), b"v");
}

/// A damaged mark asks for nothing, and stops nothing.
#[test]
fn a_damaged_mark_opens() {
    let scratch = Scratch::new("fjall-mark");
    let path = scratch.path().join("fjall");
    let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for round in 0..40_u8 {
        let engine = open(&path).unwrap();
        let tree = engine.tree("t").unwrap();
        for (key, value) in &expected {
            assert_eq!(get(&*tree, key).as_ref(), Some(value));
        }
        tree.put(&[round], &[round; 40]).unwrap();
        expected.insert(vec![round], vec![round; 40]);
        drop((tree, engine));
        let name = path.join(format!("synced.{}", round % 2));
        match round % 5 {
            0 => File::create(&name).map(drop).unwrap(),
            1 => match fs::remove_file(&name) {
                Err(e) if e.kind() != ErrorKind::NotFound => panic!("{e}"),
                _ => {}
            },
            n => {
                let mut bytes = fs::read(&name).unwrap();
                if let Some(byte) = bytes.get_mut(usize::from(n) * 11) {
                    *byte ^= 0x10;
                }
                fs::write(&name, bytes).unwrap();
            }
        }
    }
}

/// The number of a tree's directory that no other has.
fn numbers(path: &Path) -> Vec<u64> {
    let trees = path.join("keyspaces").read_dir().unwrap();
    let mut numbers: Vec<u64> =
        trees.map(|tree| tree.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// fjall counted trees from the highest that it found at open, and sequence numbers from the last record: the removal of
/// a dropped tree was then newer than the making of the next one of its number, and the open after that removed the tree
/// with all that was flushed to it, without a word.
#[test]
fn a_tree_made_after_others_were_dropped_and_a_reopen_is_kept() {
    let scratch = Scratch::new("fjall-number");
    for dropped in 1..4 {
        for marked in [true, false] {
            let path = scratch.path().join(format!("{dropped}-{marked}"));
            let engine = open(&path).unwrap();
            engine.tree("kept").unwrap().put(b"k", b"v").unwrap();
            for n in 0..dropped {
                engine.tree(&format!("dropped {n}")).unwrap();
            }
            let highest = *numbers(&path).last().unwrap();
            (0..dropped).for_each(|n| engine.drop_tree(&format!("dropped {n}")).unwrap());
            drop(engine);
            assert!(!numbers(&path).contains(&highest));
            if !marked {
                // As the error for a loss says, or a crash may leave it.
                ["synced.0", "synced.1"].iter().for_each(|mark| fs::remove_file(path.join(mark)).unwrap());
            }
            // An open or a few in which nothing is made or dropped.
            (1..dropped).for_each(|_| drop(open(&path).unwrap()));
            let engine = open(&path).unwrap();
            engine.tree("made").unwrap().put(b"k", b"v").unwrap();
            engine.flush().unwrap();
            assert!(*numbers(&path).last().unwrap() > highest, "{:?}", numbers(&path));
            drop(engine);
            for _ in 0..3 {
                let engine = open(&path).unwrap();
                assert_eq!(engine.trees().unwrap().len(), 2);
                assert_eq!(get(&*engine.tree("made").unwrap(), b"k").as_deref(), Some(&b"v"[..]));
            }
        }
    }
}

/// A process may be killed while fjall makes a tree, before that is in its list, and again after the next open has removed
/// what there was of it and before anything is marked.
#[test]
fn a_half_made_tree_is_removed_and_missed_by_no_later_open() {
    let scratch = Scratch::new("fjall-half-made");
    let path = scratch.path().join("fjall");
    let engine = open(&path).unwrap();
    engine.tree("whole").unwrap().put(b"k", b"v").unwrap();
    drop(engine);
    let keyspaces = path.join("keyspaces");
    let whole = *numbers(&path).last().unwrap();
    let marks = ["synced.0", "synced.1"].map(|name| (path.join(name), fs::read(path.join(name)).unwrap()));
    for kill in 0..3 {
        let highest = *numbers(&path).last().unwrap();
        // With all its files, and with none.
        copy(&keyspaces.join(whole.to_string()), &keyspaces.join((highest + 1).to_string()));
        fs::create_dir(keyspaces.join((highest + 2).to_string())).unwrap();
        drop(open(&path).unwrap());
        for (name, mark) in &marks {
            fs::write(name, mark).unwrap();
        }
        let engine = open(&path).unwrap();
        assert!(numbers(&path).iter().all(|number| *number <= highest), "{:?}", numbers(&path));
        engine.tree(&format!("made {kill}")).unwrap().put(b"k", b"v").unwrap();
        drop(engine);
        let engine = open(&path).unwrap();
        assert_eq!(engine.trees().unwrap().len(), 2 + kill);
        for name in engine.trees().unwrap() {
            assert_eq!(get(&*engine.tree(&name).unwrap(), b"k").as_deref(), Some(&b"v"[..]), "{name}");
        }
    }
}

/// A tree is marked only when it is durable, and is out of the mark before it is removed: one that is marked and of
/// which fjall knows nothing is lost, and every open says so.
#[test]
fn a_marked_tree_that_fjall_does_not_know_is_missed() {
    let scratch = Scratch::new("fjall-unknown-tree");
    let (path, before) = (scratch.path().join("fjall"), scratch.path().join("before"));
    let engine = open(&path).unwrap();
    engine.tree("known").unwrap().put(b"k", b"v").unwrap();
    drop(engine);
    copy(&path, &before);
    let engine = open(&path).unwrap();
    engine.tree("unknown").unwrap().put(b"k", b"v").unwrap();
    drop(engine);
    // fjall's list of trees as it was before that.
    fs::remove_dir_all(path.join("keyspaces/0")).unwrap();
    copy(&before.join("keyspaces/0"), &path.join("keyspaces/0"));
    assert_lost(&path, "a tree that fjall does not know");
}
