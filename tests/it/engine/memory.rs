//! The crash images of the recording memory engine.

use exuvia::engine::{Engine, MemoryEngine, Outcome};

use crate::kit::trees::{get, write};

#[test]
fn a_crash_image_is_the_flushed_state_and_the_chosen_writes() {
    let engine = MemoryEngine::recording();
    let tree = engine.tree("t").unwrap();
    tree.put(b"flushed", b"1").unwrap();
    tree.put(b"both", b"1").unwrap();
    engine.flush().unwrap();
    assert_eq!(engine.unflushed(), 0);
    tree.put(b"both", b"2").unwrap();
    assert!(!tree.compare_and_swap(b"both", Some(b"no"), None).unwrap());
    let writes = [write("t", b"x", Some(b"x")), write("u", b"y", Some(b"y")), write("t", b"flushed", None)];
    assert_eq!(engine.commit(&[], &writes).unwrap(), Outcome::Applied);
    tree.delete(b"both").unwrap();
    // The put, the new tree, the commit, the deletion.
    assert_eq!(engine.unflushed(), 4);

    let state = |engine: &MemoryEngine| {
        let tree = engine.tree("t").unwrap();
        let of = |key: &[u8]| get(&*tree, key).map(|value| String::from_utf8(value).unwrap());
        let other = get(&*engine.tree("u").unwrap(), b"y").is_some();
        (of(b"flushed"), of(b"both"), of(b"x"), other)
    };
    let text = |s: &str| Some(s.to_owned());
    assert_eq!(state(&engine.crash_image(|_| false)), (text("1"), text("1"), None, false));
    assert_eq!(state(&engine.crash_image(|n| n < 1)), (text("1"), text("2"), None, false));
    assert_eq!(state(&engine.crash_image(|n| n < 3)), (None, text("2"), text("x"), true));
    assert_eq!(state(&engine.crash_image(|n| n == 2)), (None, text("1"), text("x"), true));
    assert_eq!(state(&engine.crash_image(|n| n == 3)), (text("1"), None, None, false));
    assert_eq!(state(&engine.crash_image(|_| true)), state(&engine));
    assert_eq!(state(&MemoryEngine::new().crash_image(|_| true)), (None, None, None, false));
}
