//! The quarantine: why a record could not be brought forward. One tree for each table, key → reason.
//!
//! An entry counts only while the overlay entry of its key carries FAILED; any other is stale: a writer has replaced the
//! record, and a writer does not look here. Stale entries are passed over by [`page`], and removed by [`forget_stale`]
//! when the worker has nothing else to do, and by contract.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::{self, quarantine_tree};
use crate::core::{Lease, Shared};
use crate::engine::{Page, Tree};
use crate::envelope::Entry;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::route::{Kind, Open, TableState};

const FORMAT: u8 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Poison {
    reason: String,
}

/// Longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 4096;

pub(crate) fn to_bytes(key: &[u8], reason: &str) -> Result<Vec<u8>> {
    let cut =
        reason.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= REASON_BYTES_MAX);
    let end = cut.last().unwrap_or(0);
    let reason = reason.get(..end).unwrap_or_default().to_owned();
    catalog::to_bytes(FORMAT, key, &Poison { reason })
}

pub(crate) fn from_bytes(key: &[u8], bytes: &[u8]) -> Result<String> {
    catalog::from_bytes::<Poison>("quarantine entry", FORMAT, key, bytes).map(|poison| poison.reason)
}

/// The reason that is kept for `key`.
pub(crate) fn reason(shared: &Shared, table: impl std::fmt::Display, key: &[u8]) -> Result<Option<String>> {
    let tree = shared.engine.tree(&quarantine_tree(table))?;
    tree.get(key)?.map(|bytes| from_bytes(key, &bytes)).transpose()
}

/// Entries that are looked at in one go.
const PAGE_ENTRIES: usize = 256;

/// Where a look at a quarantine goes on: after this key; `None` at its end.
type Next = Option<Bound<Vec<u8>>>;
/// Keys with their reasons.
type Reasons = VecDeque<(Vec<u8>, String)>;

fn scan(tree: &dyn Tree, lower: &Bound<Vec<u8>>) -> Result<(Page, Next)> {
    let mut page = Page::new();
    let range = (lower.as_ref().map(Vec::as_slice), Bound::Unbounded);
    let end = tree.scan(range, false, PAGE_ENTRIES, &mut page)?;
    let next = page.last().filter(|_| !end).map(|(key, _)| Bound::Excluded(key.to_vec()));
    Ok((page, next))
}

/// Whether the record of `key` is in quarantine now. A damaged entry may be: it is for its readers to say.
fn counts(open: &Open, key: &[u8]) -> Result<bool> {
    let Some(value) = open.overlay.tree.get(key)? else {
        return Ok(false);
    };
    Ok(Entry::parse(key, value).map_or(true, |entry| entry.is_failed()))
}

/// Removes stale entries among the next page of a table's quarantine. Only for who has the migration's seat: nobody
/// else makes an entry, so none is made between the look at the overlay and the removal.
pub(crate) fn forget_stale(
    shared: &Shared,
    state: &TableState,
    open: &Open,
    lower: &Bound<Vec<u8>>,
) -> Result<Next> {
    let tree = shared.engine.tree(&quarantine_tree(&state.name))?;
    let (page, next) = scan(&*tree, lower)?;
    for (key, _) in page {
        if !counts(open, &key)? {
            tree.delete(&key)?;
        }
    }
    Ok(next)
}

/// The records of a table that are in quarantine, with the reasons. See `Table::quarantined`.
pub(crate) struct Quarantined<K> {
    state: Arc<TableState>,
    _lease: Arc<Lease>,
    next: Next,
    page: Reasons,
    types: PhantomData<fn() -> K>,
}

impl<K: Key> Quarantined<K> {
    pub(crate) fn new(state: Arc<TableState>, lease: Arc<Lease>) -> Self {
        let next = Some(Bound::Unbounded);
        Self { state, _lease: lease, next, page: VecDeque::new(), types: PhantomData }
    }

    /// One page by one epoch; again if it moved, as any read.
    fn read_page(&mut self, lower: &Bound<Vec<u8>>) -> Result<()> {
        loop {
            self.state.shared.check_usable()?;
            let route = self.state.route_owned();
            let read = match &route.kind {
                Kind::Open(open) => page(&self.state, open, lower),
                Kind::Dropped => Err(self.state.dropped()),
                Kind::Settled { .. } | Kind::Folding(_) => Ok((VecDeque::new(), None)),
            };
            if self.state.holds(route.epoch) {
                (self.page, self.next) = read?;
                return Ok(());
            }
        }
    }
}

fn page(state: &TableState, open: &Open, lower: &Bound<Vec<u8>>) -> Result<(Reasons, Next)> {
    let tree = state.shared.engine.tree(&quarantine_tree(&state.name))?;
    let (page, next) = scan(&*tree, lower)?;
    let mut found = VecDeque::new();
    for (key, value) in page {
        if counts(open, &key)? {
            found.push_back((key.to_vec(), from_bytes(&key, &value)?));
        }
    }
    Ok((found, next))
}

impl<K: Key> Iterator for Quarantined<K> {
    type Item = Result<(K, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, reason)) = self.page.pop_front() {
                let damaged =
                    |e| Error::corrupt(&self.state.name, &key, format!("the key does not decode: {e}"));
                return Some(K::decode(&key).map(|typed| (typed, reason)).map_err(damaged));
            }
            let lower = self.next.take()?;
            // After an error there is nothing: it ends the look.
            if let Err(e) = self.read_page(&lower) {
                return Some(Err(e));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_kept_up_to_its_limit_and_cut_between_characters() {
        let kept = |reason: &str| from_bytes(b"k", &to_bytes(b"k", reason).unwrap()).unwrap();
        assert_eq!(kept(""), "");
        assert_eq!(kept("no last name"), "no last name");
        let longest = "x".repeat(REASON_BYTES_MAX);
        assert_eq!(kept(&longest), longest);
        assert_eq!(kept(&format!("{longest}y")), longest);
        // The limit is in the middle of the last but many.
        assert_eq!(kept(&format!("x{}", "\u{e9}".repeat(3000))), format!("x{}", "\u{e9}".repeat(2047)));
    }
}
