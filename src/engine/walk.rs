//! A walk through a tree that is looked at whole.

use std::ops::Bound;

use super::{Engine, KeyRange, Page, Tree, Value};
use crate::error::Result;

/// Read in one call of the engine.
const PAGE_RECORDS: usize = 256;

/// Goes through a tree, a page at a time.
pub(crate) fn each(
    engine: &dyn Engine,
    tree: &str,
    call: impl FnMut(&[u8], Value) -> Result<()>,
) -> Result<()> {
    each_in(&*engine.tree(tree)?, (Bound::Unbounded, Bound::Unbounded), call)
}

/// [`each`], within a range.
pub(crate) fn each_in(
    tree: &dyn Tree,
    (lower, upper): KeyRange<'_>,
    mut call: impl FnMut(&[u8], Value) -> Result<()>,
) -> Result<()> {
    let mut lower = lower.map(<[u8]>::to_vec);
    loop {
        let mut page = Page::new();
        let range = (lower.as_ref().map(Vec::as_slice), upper);
        let end = tree.scan(range, false, PAGE_RECORDS, &mut page)?;
        let last = page.last().map(|(key, _)| key.to_vec());
        for (key, value) in page {
            call(&key, value)?;
        }
        match last {
            Some(last) if !end => lower = Bound::Excluded(last),
            _ => return Ok(()),
        }
    }
}
