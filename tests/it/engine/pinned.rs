//! The libraries under the engines, in the versions whose private files and hidden functions the engines were written for.

use std::fs;
use std::path::Path;

/// A change here needs a look at src/engine/fjall/ (its head says what is used and read), or at src/engine/sled/.
const PINNED: [(&str, &str); 3] = [("fjall", "3.1.13"), ("lsm-tree", "3.1.10"), ("sled", "0.34.7")];

#[test]
fn the_engines_libraries_are_the_pinned_ones() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    for (name, pinned) in PINNED {
        let named = format!("name = \"{name}\"");
        let mut lines = lock.lines();
        let mut resolved = Vec::new();
        while lines.any(|line| line == named) {
            resolved.push(lines.next().unwrap().trim_start_matches("version = ").trim_matches('"'));
        }
        assert_eq!(resolved, [pinned], "{name} is parsed and used beyond what it promises");
    }
}
