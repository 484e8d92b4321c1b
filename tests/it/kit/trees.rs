//! Short words for what engine tests do all the time.

use std::ops::Bound::{self, Excluded};
use std::sync::Arc;

use exuvia::engine::{Check, Engine, EngineKind, KeyRange, Page, Tree, Write};

use crate::kit::scratch::Scratch;

/// The engine over the records in a directory of a test.
pub(crate) fn on_disk(kind: EngineKind, scratch: &Scratch) -> Arc<dyn Engine> {
    kind.open(scratch.path().join(kind.name()), 16 << 20).unwrap()
}

pub(crate) fn get(tree: &dyn Tree, key: &[u8]) -> Option<Vec<u8>> {
    tree.get(key).unwrap().map(|value| value.to_vec())
}

/// All records of a range, by pages of `limit`.
pub(crate) fn pages(
    tree: &dyn Tree,
    range: KeyRange<'_>,
    reverse: bool,
    limit: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let (mut low, mut high) = (range.0.map(<[u8]>::to_vec), range.1.map(<[u8]>::to_vec));
    loop {
        let mut page = Page::new();
        let done = tree.scan((as_slice(&low), as_slice(&high)), reverse, limit, &mut page).unwrap();
        assert!(page.len() <= limit);
        assert!(done || page.len() == limit, "a short page means the end");
        found.extend(page.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        if done {
            return found;
        }
        let last = Excluded(found.last().unwrap().0.clone());
        *(if reverse { &mut high } else { &mut low }) = last;
    }
}

pub(crate) fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

pub(crate) fn check(tree: &str, key: &[u8], expected: Option<&[u8]>) -> Check {
    Check { tree: tree.to_owned(), key: key.to_vec(), expected: expected.map(<[u8]>::to_vec) }
}

pub(crate) fn write(tree: &str, key: &[u8], value: Option<&[u8]>) -> Write {
    Write { tree: tree.to_owned(), key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
}
