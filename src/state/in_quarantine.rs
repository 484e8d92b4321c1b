//! Which records of a table are in quarantine now: the entries that count, and the removal of those that do not.

use std::collections::VecDeque;
use std::ops::Bound;

use crate::engine::{Page, Tree};
use crate::error::Result;
use crate::form::envelope::Entry;
use crate::state::quarantine::{existing, from_bytes};
use crate::state::route::{Open, TableState};
use crate::state::shared::Shared;

/// Entries that are looked at in one go.
const PAGE_ENTRIES: usize = 256;

/// Where a look at a quarantine goes on: after this key; `None` at its end.
pub(crate) type Next = Option<Bound<Vec<u8>>>;
/// Keys with their reasons.
pub(crate) type Reasons = VecDeque<(Vec<u8>, String)>;

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
    let Some(tree) = existing(shared, &state.name)? else {
        return Ok(None);
    };
    let (page, next) = scan(&*tree, lower)?;
    let mut stale = Vec::new();
    for (key, _) in page {
        if !counts(open, &key)? {
            stale.push(key);
        }
    }
    if !stale.is_empty() {
        // What took the markers' place has to be durable: a crash could bring a marker back, and not its reason.
        shared.flush()?;
    }
    stale.iter().try_for_each(|key| tree.delete(key))?;
    Ok(next)
}

/// What counts among the next entries of a table.
pub(crate) fn page(state: &TableState, open: &Open, lower: &Bound<Vec<u8>>) -> Result<(Reasons, Next)> {
    let Some(tree) = existing(&state.shared, &state.name)? else {
        return Ok((Reasons::new(), None));
    };
    let (page, next) = scan(&*tree, lower)?;
    let mut found = VecDeque::new();
    for (key, value) in page {
        if counts(open, &key)? {
            found.push_back((key.to_vec(), from_bytes(&key, &value)?));
        }
    }
    Ok((found, next))
}

/// The first record of a table that is in quarantine, with the reason; `None` if there is none, or it was told to stop.
pub(crate) fn first(
    state: &TableState,
    open: &Open,
    stop: impl Fn() -> bool,
) -> Result<Option<(Vec<u8>, String)>> {
    let mut next = Some(Bound::Unbounded);
    while let Some(lower) = next.filter(|_| !stop()) {
        let mut found;
        (found, next) = page(state, open, &lower)?;
        if let Some(first) = found.pop_front() {
            return Ok(Some(first));
        }
    }
    Ok(None)
}
