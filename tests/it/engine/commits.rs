//! Conformance, second part: compare-and-swap under contention, and commits.

use std::sync::{Arc, Barrier};

use exuvia::engine::{Check, Engine, Outcome, Tree, Write};

use crate::kit::trees::{check, get, write};

pub(crate) fn counter(engine: &Arc<dyn Engine>) {
    const EACH: u64 = 2000;
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let tree = engine.tree("counter").unwrap();
                barrier.wait();
                for _ in 0..EACH {
                    loop {
                        let old = tree.get(b"n").unwrap();
                        let n = old
                            .as_ref()
                            .map_or(0, |old| u64::from_be_bytes(old.as_ref().try_into().unwrap()));
                        let new = (n + 1).to_be_bytes();
                        if tree.compare_and_swap(b"n", old.as_deref(), Some(&new)).unwrap() {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(get(&*engine.tree("counter").unwrap(), b"n").unwrap(), (4 * EACH).to_be_bytes());
}

pub(crate) fn commits(engine: &dyn Engine) {
    use Outcome::{Applied, Conflict};
    let commit = |checks: &[Check], writes: &[Write]| engine.commit(checks, writes).unwrap();
    let (a, b) = (engine.tree("c/a").unwrap(), engine.tree("c/b").unwrap());

    // The shapes that an engine may treat as single-key calls.
    assert_eq!(commit(&[], &[]), Applied);
    assert_eq!(commit(&[], &[write("c/a", b"1", Some(b"x"))]), Applied);
    assert_eq!(commit(&[check("c/a", b"1", Some(b"x"))], &[]), Applied);
    assert_eq!(commit(&[check("c/a", b"1", None)], &[]), Conflict);
    assert_eq!(commit(&[check("c/a", b"1", None)], &[write("c/a", b"1", Some(b"y"))]), Conflict);
    assert_eq!(commit(&[check("c/a", b"1", Some(b"x"))], &[write("c/a", b"1", Some(b"y"))]), Applied);
    assert_eq!(get(&*a, b"1").unwrap(), b"y");
    assert_eq!(commit(&[check("c/a", b"1", Some(b"y"))], &[write("c/a", b"1", None)]), Applied);
    assert_eq!(commit(&[], &[write("c/a", b"1", None)]), Applied);
    assert_eq!(get(&*a, b"1"), None);

    // Across keys and trees, one of which is not there yet; empty keys and values.
    let all = [
        write("c/a", b"", Some(b"")),
        write("c/a", b"2", Some(b"2")),
        write("c/b", b"2", Some(b"3")),
        write("c/new", b"2", Some(b"4")),
    ];
    assert_eq!(commit(&[check("c/b", b"2", None), check("c/new", b"2", None)], &all), Applied);
    assert_eq!(get(&*a, b"").unwrap(), b"");
    assert_eq!(get(&*b, b"2").unwrap(), b"3");
    assert_eq!(get(&*engine.tree("c/new").unwrap(), b"2").unwrap(), b"4");

    // One check of several fails: nothing is written.
    let checks = [check("c/a", b"2", Some(b"2")), check("c/b", b"2", Some(b"other"))];
    let writes = [write("c/a", b"2", None), write("c/a", b"3", Some(b"3")), write("c/b", b"2", None)];
    assert_eq!(commit(&checks, &writes), Conflict);
    assert_eq!(get(&*a, b"2").unwrap(), b"2");
    assert_eq!(get(&*a, b"3"), None);
    assert_eq!(get(&*b, b"2").unwrap(), b"3");

    // A check of one key and a write of another, in one tree and across trees.
    assert_eq!(commit(&[check("c/a", b"2", None)], &[write("c/a", b"3", Some(b"3"))]), Conflict);
    assert_eq!(commit(&[check("c/a", b"2", Some(b"2"))], &[write("c/b", b"3", Some(b"3"))]), Applied);
    assert_eq!(commit(&[check("c/a", b"2", Some(b"2"))], &[write("c/b", b"2", None)]), Applied);
    assert_eq!((get(&*a, b"3"), get(&*b, b"2")), (None, None));
    assert_eq!(get(&*b, b"3").unwrap(), b"3");
}

/// Sums that move between two trees; every commit keeps the total, and so must every moment.
pub(crate) fn concurrent_commits(engine: &Arc<dyn Engine>) {
    const EACH: u32 = 300;
    let seed =
        [write("m/a", b"n", Some(&1000_u32.to_be_bytes())), write("m/b", b"n", Some(&0_u32.to_be_bytes()))];
    assert_eq!(engine.commit(&[], &seed).unwrap(), Outcome::Applied);
    let number = |tree: &dyn Tree| u32::from_be_bytes(get(tree, b"n").unwrap().try_into().unwrap());
    let moved = std::thread::scope(|scope| {
        let move_some = || {
            let (a, b) = (engine.tree("m/a").unwrap(), engine.tree("m/b").unwrap());
            let mut moved = 0;
            while moved < EACH {
                let (from, to) = (number(&*a), number(&*b));
                let checks = [
                    check("m/a", b"n", Some(&from.to_be_bytes())),
                    check("m/b", b"n", Some(&to.to_be_bytes())),
                ];
                let writes = [
                    write("m/a", b"n", Some(&(from - 1).to_be_bytes())),
                    write("m/b", b"n", Some(&(to + 1).to_be_bytes())),
                ];
                if engine.commit(&checks, &writes).unwrap() == Outcome::Applied {
                    assert_eq!(from + to, 1000, "two checks that held at one moment");
                    moved += 1;
                }
            }
            moved
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(move_some)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>()
    });
    assert_eq!(number(&*engine.tree("m/a").unwrap()), 1000 - moved);
    assert_eq!(number(&*engine.tree("m/b").unwrap()), moved);
}
