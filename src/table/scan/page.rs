//! One page of a scan: which trees it reads, in what order, and how their parts are merged.

use std::iter::Peekable;
use std::ops::Bound;

use super::Ahead;
use crate::engine::{KeyRange, Page, Tree, Value};
use crate::error::{Error, Result};
use crate::form::resolve::Side;
use crate::state::route::{Found, Frontier, Open, TableState};

/// A page as a scan goes through it.
pub(super) struct ReadPage {
    pub(super) ahead: Ahead,
    /// The last key that was judged, if it is not the last of `ahead`.
    last: Option<Value>,
    pub(super) end: bool,
    /// The record after `ahead` could not be read.
    pub(super) error: Option<Error>,
}

impl ReadPage {
    /// The last key that was judged; `None` if there was none.
    pub(super) fn last(&self) -> Option<&Value> {
        self.last.as_ref().or_else(|| match &self.ahead {
            Ahead::Plain(page) => page.back().map(|(key, _)| key),
            Ahead::Resolved(page) => page.back().map(|(key, _)| key),
        })
    }
}

impl From<Resolved> for ReadPage {
    fn from(Resolved { found, last, end, error }: Resolved) -> Self {
        ReadPage { ahead: Ahead::Resolved(found.into()), last, end, error }
    }
}

/// A page of a settled table.
pub(super) fn plain_page(
    tree: &dyn Tree,
    range: KeyRange<'_>,
    reverse: bool,
    limit: usize,
    mut page: Page,
) -> Result<ReadPage> {
    page.reserve(limit);
    let end = tree.scan(range, reverse, limit, &mut page)?;
    Ok(ReadPage { ahead: Ahead::Plain(page.into()), last: None, end, error: None })
}

/// A resolved page.
pub(super) struct Resolved {
    found: Vec<(Value, Found)>,
    /// The last key that was judged, if it is not the last of `found`.
    last: Option<Value>,
    end: bool,
    /// The record after `found` could not be read.
    error: Option<Error>,
}

impl Resolved {
    #[inline]
    fn new(records: usize, end: bool) -> Self {
        Resolved { found: Vec::with_capacity(records), last: None, end, error: None }
    }

    #[inline]
    fn push(&mut self, key: Value, found: Result<Found>) -> bool {
        match found {
            Ok(Found::Absent) => self.last = Some(key),
            Ok(found) => {
                self.found.push((key, found));
                self.last = None;
            }
            Err(e) => {
                self.error = Some(e);
                return false;
            }
        }
        true
    }
}

/// The part of a range at `to` that the overlay alone answers: every base key before the frontier has an overlay entry.
pub(super) fn covered<'a>(
    range: KeyRange<'a>,
    reverse: bool,
    side: Side,
    frontier: &'a Frontier,
) -> Option<KeyRange<'a>> {
    let last = match (side, frontier) {
        (Side::To, Frontier::End) => return Some(range),
        (Side::To, Frontier::After(last)) => last.as_slice(),
        _ => return None,
    };
    let begins = |bound: Bound<&[u8]>| match bound {
        Bound::Unbounded => true,
        Bound::Included(key) => key <= last,
        Bound::Excluded(key) => key < last,
    };
    let ends = |bound: Bound<&[u8]>| match bound {
        Bound::Unbounded => false,
        Bound::Included(key) | Bound::Excluded(key) => key <= last,
    };
    match range {
        range if ends(range.1) => Some(range),
        // A scan forward comes to the rest with its next page.
        (lower, _) if !reverse && begins(lower) => Some((lower, Bound::Included(last))),
        _ => None,
    }
}

/// A page of a range that the overlay alone answers.
pub(super) fn overlay_page(
    state: &TableState,
    open: &Open,
    part: KeyRange<'_>,
    upper: Bound<&[u8]>,
    reverse: bool,
    limit: usize,
) -> Result<Resolved> {
    let mut page = Page::with_capacity(limit);
    let end = open.overlay.tree.scan(part, reverse, limit, &mut page)?;
    let (read, whole) = (page.len(), part.1 == upper);
    let mut resolved = Resolved::new(read, end && whole);
    for (key, value) in page {
        let found = state.resolve(open, Side::To, &key, Some(value), || Ok(None));
        if !resolved.push(key, found) {
            return Ok(resolved);
        }
    }
    if let (true, false, Bound::Included(last)) = (end, whole, part.1) {
        resolved.last = Some(Value::from(last));
    }
    Ok(resolved)
}

/// A page while the migration is open.
pub(super) fn open_page(
    state: &TableState,
    open: &Open,
    side: Side,
    range: KeyRange<'_>,
    reverse: bool,
    limit: usize,
) -> Result<Resolved> {
    let (mut base, mut overlay) = (Page::with_capacity(limit), Page::with_capacity(limit));
    let base_end = open.base.tree.scan(range, reverse, limit, &mut base)?;
    let (range, base_last) = shorten(range, reverse, if base_end { None } else { base.last() });
    let overlay_end = open.overlay.tree.scan(range, reverse, limit, &mut overlay)?;
    let overlay_last = if overlay_end { None } else { overlay.last().map(|(key, _)| key.clone()) };
    let end = overlay_end && base_end;
    Ok(merged_page(state, open, side, reverse, (overlay, overlay_last), (base, base_last), end))
}

/// A page while the overlay is folded into the base.
pub(super) fn folding_page(
    state: &TableState,
    open: &Open,
    range: KeyRange<'_>,
    reverse: bool,
    limit: usize,
) -> Result<Resolved> {
    let (mut overlay, mut base) = (Page::new(), Page::new());
    let overlay_end = open.overlay.tree.scan(range, reverse, limit, &mut overlay)?;
    let (range, overlay_last) = shorten(range, reverse, if overlay_end { None } else { overlay.last() });
    let base_end = open.base.tree.scan(range, reverse, limit, &mut base)?;
    let base_last = if base_end { None } else { base.last().map(|(key, _)| key.clone()) };
    let end = overlay_end && base_end;
    Ok(merged_page(state, open, Side::From, reverse, (overlay, overlay_last), (base, base_last), end))
}

/// What was read of one side, and the last key of it if there may be more.
type Part = (Page, Option<Value>);

fn merged_page(
    state: &TableState,
    open: &Open,
    side: Side,
    reverse: bool,
    (overlay, overlay_last): Part,
    (base, base_last): Part,
    end: bool,
) -> Resolved {
    let in_reach = |key: &Value, last: &Option<Value>| match last {
        None => true,
        Some(last) if reverse => **key >= **last,
        Some(last) => **key <= **last,
    };
    let mut resolved = Resolved::new(overlay.len().max(base.len()), end);
    let (mut overlay, mut base) = (overlay.into_iter().peekable(), base.into_iter().peekable());
    while let Some((key, overlay, base)) = take_next(&mut overlay, &mut base, reverse) {
        if !in_reach(&key, &base_last) || !in_reach(&key, &overlay_last) {
            break;
        }
        let found = state.resolve(open, side, &key, overlay, || Ok(base));
        if !resolved.push(key, found) {
            break;
        }
    }
    resolved
}

/// Cuts a range after `last`, the last key that the overlay's part reached.
fn shorten<'a>(
    range: KeyRange<'a>,
    reverse: bool,
    last: Option<&'a (Value, Value)>,
) -> (KeyRange<'a>, Option<Value>) {
    match last {
        None => (range, None),
        Some((key, _)) if reverse => ((Bound::Included(&**key), range.1), Some(key.clone())),
        Some((key, _)) => ((range.0, Bound::Included(&**key)), Some(key.clone())),
    }
}

type Side2 = Peekable<std::vec::IntoIter<(Value, Value)>>;

/// The next key of both sides, with what each has under it.
fn take_next(
    overlay: &mut Side2,
    base: &mut Side2,
    reverse: bool,
) -> Option<(Value, Option<Value>, Option<Value>)> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (overlay.peek(), base.peek()) {
        (None, None) => return None,
        (Some(_), None) => Less,
        (None, Some(_)) => Greater,
        (Some((o, _)), Some((b, _))) if reverse => (**b).cmp(&**o),
        (Some((o, _)), Some((b, _))) => (**o).cmp(&**b),
    };
    let over = if order == Greater { None } else { overlay.next() };
    let under = if order == Less { None } else { base.next() };
    debug_assert!(order != Equal || (over.is_some() && under.is_some()));
    let key = over.as_ref().or(under.as_ref()).map(|(key, _)| key.clone())?;
    Some((key, over.map(|(_, value)| value), under.map(|(_, value)| value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &[u8] = b"a";
    const M: &[u8] = b"m";
    const Z: &[u8] = b"z";

    #[test]
    fn the_overlay_alone_answers_at_to_as_far_as_the_frontier_and_nowhere_else() {
        let at_m = Frontier::After(M.to_vec());
        let all: KeyRange<'_> = (Bound::Unbounded, Bound::Unbounded);
        let within: KeyRange<'_> = (Bound::Included(A), Bound::Included(M));
        let across: KeyRange<'_> = (Bound::Excluded(A), Bound::Excluded(Z));
        let beyond: KeyRange<'_> = (Bound::Excluded(M), Bound::Unbounded);
        for reverse in [false, true] {
            assert_eq!(covered(all, reverse, Side::To, &Frontier::End), Some(all));
            assert_eq!(covered(within, reverse, Side::To, &at_m), Some(within));
            assert_eq!(covered(beyond, reverse, Side::To, &at_m), None);
            assert_eq!(covered(all, reverse, Side::To, &Frontier::Start), None);
            for frontier in [&Frontier::Start, &at_m, &Frontier::End] {
                assert_eq!(covered(within, reverse, Side::From, frontier), None, "old code reads the base");
            }
        }
        let part = (across.0, Bound::Included(M));
        assert_eq!(covered(across, false, Side::To, &at_m), Some(part), "the rest is another page's");
        assert_eq!(covered(across, true, Side::To, &at_m), None, "a scan backward begins beyond it");
        let from_m = (Bound::Included(M), Bound::Unbounded);
        assert_eq!(covered(from_m, false, Side::To, &at_m), Some((Bound::Included(M), Bound::Included(M))));
    }
}
