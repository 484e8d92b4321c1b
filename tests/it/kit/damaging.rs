//! Damage below the store, by the engine itself.

use std::path::Path;

use exuvia::engine::{EngineKind, Page};

/// Changes the first value that `wanted` accepts, in a tree whose name it accepts too, below the store.
pub(crate) fn damage(kind: EngineKind, path: &Path, wanted: impl Fn(&str, &[u8]) -> bool) {
    let engine = kind.open(path.join(kind.name()), 16 << 20).unwrap();
    for name in engine.trees().unwrap() {
        let tree = engine.tree(&name).unwrap();
        let mut page = Page::new();
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        tree.scan(all, false, 10_000, &mut page).unwrap();
        if let Some((key, value)) = page.iter().find(|(key, _)| wanted(&name, key)) {
            let mut value = value.to_vec();
            let middle = value.len() / 2;
            value[middle] ^= 0x10;
            tree.put(key, &value).unwrap();
            engine.flush().unwrap();
            return;
        }
    }
    panic!("nothing to damage");
}

pub(crate) fn is_records(tree: &str) -> bool {
    tree.bytes().all(|b| b.is_ascii_digit() || b == b'/')
}
