//! What every engine must do, in one suite that each engine runs.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use exuvia::engine::EngineErrorKind;
use exuvia::engine::{Engine, EngineKind, MemoryEngine, Outcome, Page};

use crate::engine::commits::{commits, concurrent_commits, counter};
use crate::kit::scratch::Scratch;
use crate::kit::trees::{check, get, on_disk, pages, write};

/// Gives an engine over the same records each time it is called; memory forgets nothing while it lives.
type Open<'a> = &'a dyn Fn() -> Arc<dyn Engine>;

#[test]
fn memory_conforms() {
    let engine = MemoryEngine::new();
    conformance(&|| Arc::new(engine.clone()));
}

#[test]
fn recording_memory_conforms() {
    let engine = MemoryEngine::recording();
    conformance(&|| Arc::new(engine.clone()));
}

#[test]
fn sled_conforms() {
    let scratch = Scratch::new("conformance-sled");
    conformance(&|| on_disk(EngineKind::Sled, &scratch));
}

#[cfg(feature = "fjall")]
#[test]
fn fjall_conforms() {
    let scratch = Scratch::new("conformance-fjall");
    conformance(&|| on_disk(EngineKind::Fjall, &scratch));
}

fn conformance(open: Open<'_>) {
    single_keys(&*open());
    trees(&*open());
    scans(&*open());
    counter(&open());
    commits(&*open());
    concurrent_commits(&open());
    limits(&*open());
    reopen(open);
}

fn single_keys(engine: &dyn Engine) {
    let tree = engine.tree("single").unwrap();
    let tree = &*tree;
    for key in [&b""[..], b"\0", b"a", &[0xff; 300]] {
        assert_eq!(get(tree, key), None);
        tree.delete(key).unwrap();
        tree.put(key, b"one").unwrap();
        assert_eq!(get(tree, key).unwrap(), b"one");
        tree.put(key, b"").unwrap();
        assert_eq!(get(tree, key).unwrap(), b"", "an empty value is a value");

        assert!(!tree.compare_and_swap(key, None, Some(b"x")).unwrap());
        assert!(!tree.compare_and_swap(key, Some(b"one"), Some(b"x")).unwrap());
        assert!(!tree.compare_and_swap(key, Some(b"one"), None).unwrap());
        assert!(!tree.insert_if_absent(key, b"x").unwrap());
        assert!(tree.compare_and_swap(key, Some(b""), Some(b"two")).unwrap());
        assert!(tree.compare_and_swap(key, Some(b"two"), Some(b"two")).unwrap(), "the same again");
        assert_eq!(get(tree, key).unwrap(), b"two");
        assert!(tree.compare_and_swap(key, Some(b"two"), None).unwrap());
        assert_eq!(get(tree, key), None);
        assert!(tree.compare_and_swap(key, None, None).unwrap(), "absent stays absent");
        assert!(!tree.compare_and_swap(key, Some(b""), None).unwrap(), "absent is not empty");
        assert!(tree.insert_if_absent(key, b"three").unwrap());
        assert_eq!(get(tree, key).unwrap(), b"three");
    }
    let before = tree.get(b"a").unwrap().unwrap();
    tree.put(b"a", b"later").unwrap();
    assert_eq!(&*before, b"three", "a value that was read does not change");
}

fn trees(engine: &dyn Engine) {
    let names = |engine: &dyn Engine| {
        let mut names = engine.trees().unwrap();
        names.retain(|name| name.starts_with("t/"));
        names.sort();
        names
    };
    assert!(names(engine).is_empty());
    let first = engine.tree("t/1").unwrap();
    engine.tree("t/2").unwrap();
    first.put(b"k", b"1").unwrap();
    assert_eq!(names(engine), ["t/1", "t/2"]);
    assert_eq!(get(&*engine.tree("t/1").unwrap(), b"k").unwrap(), b"1", "handles share the tree");
    assert_eq!(get(&*engine.tree("t/2").unwrap(), b"k"), None, "trees do not share keys");

    engine.drop_tree("t/1").unwrap();
    engine.drop_tree("t/1").unwrap();
    engine.drop_tree("t/never").unwrap();
    assert_eq!(names(engine), ["t/2"]);
    let again = engine.tree("t/1").unwrap();
    assert_eq!(get(&*again, b"k"), None);
    assert!(again.scan((Unbounded, Unbounded), false, 10, &mut Page::new()).unwrap());
    again.put(b"k", b"again").unwrap();
    assert!(!matches!(first.get(b"k"), Ok(Some(_))), "the old handle sees nothing of the new tree");
    assert!(first.put(b"k", b"old").is_err());
    assert_eq!(get(&*again, b"k").unwrap(), b"again");
    engine.drop_tree("t/1").unwrap();
    engine.drop_tree("t/2").unwrap();
    assert!(names(engine).is_empty());
    assert!(engine.capabilities().key_bytes_max >= 1024);
    assert!(!engine.name().is_empty());
}

fn scans(engine: &dyn Engine) {
    let tree = engine.tree("scan").unwrap();
    let mut model = BTreeMap::new();
    // Enough for several levels of pages; gaps, so that bounds fall between keys too; the empty key; long prefixes.
    for n in (0..3000_u32).step_by(3) {
        model.insert(n.to_be_bytes().to_vec(), n.to_string().into_bytes());
        model.insert([&[0xff; 100], &n.to_be_bytes()[..]].concat(), Vec::new());
    }
    model.insert(Vec::new(), b"empty".to_vec());
    for (key, value) in &model {
        tree.put(key, value).unwrap();
    }
    for removed in 900..1200_u32 {
        model.remove(removed.to_be_bytes().as_slice());
        tree.delete(&removed.to_be_bytes()).unwrap();
    }

    let keys: Vec<Vec<u8>> = [0, 1, 3, 899, 900, 1000, 1199, 1200, 2997, 2999]
        .iter()
        .map(|n: &u32| n.to_be_bytes().to_vec())
        .chain([Vec::new(), vec![0], vec![0xff; 100], vec![0xff; 2000]])
        .collect();
    let bounds: Vec<std::ops::Bound<&[u8]>> = keys
        .iter()
        .flat_map(|key| [Included(key.as_slice()), Excluded(key.as_slice())])
        .chain([Unbounded])
        .collect();
    for low in &bounds {
        for high in &bounds {
            let inside = |key: &Vec<u8>| std::ops::RangeBounds::contains(&(*low, *high), key.as_slice());
            let mut expected: Vec<_> =
                model.iter().filter(|(key, _)| inside(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            assert_eq!(pages(&*tree, (*low, *high), false, 100), expected, "{low:?} {high:?}");
            expected.reverse();
            assert_eq!(pages(&*tree, (*low, *high), true, 333), expected, "reverse {low:?} {high:?}");
        }
    }
    let all = pages(&*tree, (Unbounded, Unbounded), false, 1);
    assert_eq!(all.len(), model.len());
    // A page of exactly what is left, of more, and of nothing; what was in the page stays in front.
    let mut page =
        all.iter().take(1).map(|(k, v)| (k.as_slice().into(), v.as_slice().into())).collect::<Page>();
    assert!(tree.scan((Unbounded, Included(b"")), false, 2, &mut page).unwrap());
    assert_eq!(page.len(), 2);
    assert!(!tree.scan((Unbounded, Unbounded), false, 0, &mut page).unwrap());
    assert_eq!(page.len(), 2);
}

fn limits(engine: &dyn Engine) {
    let limits = engine.capabilities();
    if limits.value_bytes_max == usize::MAX {
        return;
    }
    let tree = engine.tree("limits").unwrap();
    let long = |byte: u8| {
        let mut key = vec![byte; limits.key_bytes_max];
        key[0] = byte;
        key
    };
    // More of the largest than one page holds, so that pages of them are split and rewritten.
    let value = vec![7; limits.value_bytes_max];
    for n in 0..20 {
        tree.put(&long(n), &value).unwrap();
    }
    let writes = [write("limits", &long(3), Some(&value)), write("limits", &long(4), Some(b"small"))];
    assert_eq!(engine.commit(&[], &writes).unwrap(), Outcome::Applied);
    for n in 0..20 {
        let expected: &[u8] = if n == 4 { b"small" } else { &value };
        assert!(get(&*tree, &long(n)).unwrap() == expected, "value {n}");
    }
    let (key, value) = (vec![1; limits.key_bytes_max + 1], vec![1; limits.value_bytes_max + 1]);
    let kind = |result: Result<(), exuvia::engine::EngineError>| result.unwrap_err().kind();
    assert_eq!(kind(tree.put(&key, b"")), EngineErrorKind::Limit);
    assert_eq!(kind(tree.put(b"k", &value)), EngineErrorKind::Limit);
    assert_eq!(kind(tree.compare_and_swap(b"k", None, Some(&value)).map(drop)), EngineErrorKind::Limit);
    assert_eq!(
        kind(engine.commit(&[], &[write("limits", &key, Some(b""))]).map(drop)),
        EngineErrorKind::Limit
    );
    let many = vec![write("limits", b"k", None); limits.commit_writes_max + 1];
    assert_eq!(kind(engine.commit(&[], &many).map(drop)), EngineErrorKind::Limit);
    // A commit at the limit.
    let many: Vec<_> = (0..limits.commit_writes_max as u32)
        .map(|n| write("many", &n.to_be_bytes(), Some(&[1; 100])))
        .collect();
    assert_eq!(engine.commit(&[check("many", b"x", None)], &many).unwrap(), Outcome::Applied);
    assert_eq!(pages(&*engine.tree("many").unwrap(), (Unbounded, Unbounded), false, 500).len(), many.len());
    engine.drop_tree("limits").unwrap();
}

fn reopen(open: Open<'_>) {
    let records =
        |engine: &dyn Engine| pages(&*engine.tree("scan").unwrap(), (Unbounded, Unbounded), false, 500);
    let engine = open();
    let before = records(&*engine);
    let names = |engine: &dyn Engine| {
        let mut names = engine.trees().unwrap();
        names.sort();
        names
    };
    let trees = names(&*engine);
    engine.flush().unwrap();
    engine.flush().unwrap();
    assert!(engine.bytes_on_disk().unwrap() > 10_000);
    drop(engine);
    // At once, and again and again: the lock must not outlive the engine.
    for round in 0_u32..10 {
        let engine = open();
        assert!(records(&*engine) == before, "round {round}");
        assert_eq!(names(&*engine), trees);
        let tree = engine.tree("again").unwrap();
        tree.put(&round.to_be_bytes(), b"unflushed").unwrap();
        drop(engine);
        assert_eq!(get(&*tree, &round.to_be_bytes()).unwrap(), b"unflushed", "a tree keeps its engine open");
        drop(tree);
        let engine = open();
        let tree = engine.tree("again").unwrap();
        assert_eq!(get(&*tree, &round.to_be_bytes()).unwrap(), b"unflushed", "closing is orderly");
        engine.drop_tree("again").unwrap();
    }
}
