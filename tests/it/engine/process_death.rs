//! A real death of the process under each engine.

use std::io::{BufRead, BufReader};
use std::ops::Bound::Unbounded;

use exuvia::engine::{EngineKind, Outcome};

use crate::kit::scratch::{Scratch, child, child_argument};
use crate::kit::trees::{get, on_disk, pages, write};

/// A child writes, flushes, says so, and is killed; what it said it had flushed must be there.
#[test]
fn what_was_flushed_to_sled_survives_the_death_of_the_process() {
    killed(
        EngineKind::Sled,
        "engine::process_death::what_was_flushed_to_sled_survives_the_death_of_the_process",
    );
}

#[cfg(feature = "fjall")]
#[test]
fn what_was_flushed_to_fjall_survives_the_death_of_the_process() {
    killed(
        EngineKind::Fjall,
        "engine::process_death::what_was_flushed_to_fjall_survives_the_death_of_the_process",
    );
}

fn killed(kind: EngineKind, test: &str) {
    if let Some(path) = child_argument() {
        let engine = kind.open(path, 16 << 20).unwrap();
        let tree = engine.tree("t").unwrap();
        for n in 0_u32.. {
            tree.put(&n.to_be_bytes(), &[n as u8; 300]).unwrap();
            let pair = [write("a", &n.to_be_bytes(), Some(b"a")), write("b", &n.to_be_bytes(), Some(b"b"))];
            assert_eq!(engine.commit(&[], &pair).unwrap(), Outcome::Applied);
            if n % 50 == 49 {
                engine.flush().unwrap();
                println!("flushed {n}");
            }
        }
    }
    let scratch = Scratch::new("kill");
    let directory = scratch.path().join(kind.name());
    let mut flushed = 0;
    for round in 1..=3_u32 {
        let mut running = child(test, directory.to_str().unwrap()).spawn().unwrap();
        let lines = BufReader::new(running.stdout.take().unwrap()).lines().map(Result::unwrap);
        let said = lines.filter_map(|line| line.strip_prefix("flushed ").map(|n| n.parse::<u32>().unwrap()));
        let mut said = said.take(7 * round as usize);
        flushed = flushed.max(said.by_ref().last().unwrap());
        running.kill().unwrap();
        running.wait().unwrap();

        let engine = on_disk(kind, &scratch);
        let tree = engine.tree("t").unwrap();
        for n in 0..=flushed {
            assert_eq!(get(&*tree, &n.to_be_bytes()), Some(vec![n as u8; 300]), "round {round}");
        }
        let keys = |tree: &str| {
            pages(&*engine.tree(tree).unwrap(), (Unbounded, Unbounded), false, 500)
                .into_iter()
                .map(|(key, _)| key)
                .collect::<Vec<_>>()
        };
        assert!(keys("a") == keys("b"), "a commit across trees was torn in two");
        assert!(keys("a").len() > flushed as usize);
    }
}
