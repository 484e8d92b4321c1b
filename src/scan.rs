//! Scans: an ordered merge of overlay and base, page by page.
//!
//! 1. A page takes one epoch and, if the epoch moved meanwhile, is read again from its last key (rules 1, 11). Where the
//!    engine has snapshots the first page takes one, and epoch and frontier with it, for all pages.
//! 2. The overlay wins, tombstones hide. Before the frontier the overlay alone answers at `to`. Elsewhere the base's
//!    part is read first, since it is frozen while the migration is open, and the overlay's part only as far as that
//!    reaches: an overlay that has few entries yet would otherwise be read far beyond the page. While folding the base
//!    is written, and the overlay's part is read first: an entry that is folded meanwhile is then seen in one of them
//!    (rule 3).
//! 3. If one side's part ends early, the page ends there, so that no key of the other side is judged by a part
//!    that was not read.
//! 4. An error ends the scan with that error; only both sides' real end ends it without.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::core::Lease;
use crate::engine::{KeyRange, Page, Value};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::resolve::Side;
use crate::route::{Found, Frontier, Kind, Open, Route, TableState};
use crate::snapshot::{self, Pinned};
use crate::stats::Operation;
use crate::table::materialize;
use crate::version::Version;

/// Records of a page of one side.
const PAGE_RECORDS: usize = 256;
/// The first two pages are small, and each next one twice as large: many scans want a few records only, and some of
/// what the first page reads may be tombstones.
const FIRST_PAGE_RECORDS: usize = 16;

/// Records of a range, in key order. See `Table::scan`.
#[must_use = "a scan reads nothing until it is iterated"]
pub struct Scan<K, V> {
    pages: Pages,
    _lease: Arc<Lease>,
    types: PhantomData<fn(K) -> V>,
}

/// Of which moment the pages of a scan are.
pub(crate) enum Moment {
    /// Each of its own.
    Own,
    /// All of that of the first page, if the engine has snapshots.
    First,
    /// All of this one.
    Taken(Arc<Pinned>),
}

/// The scan below its types.
pub(crate) struct Pages {
    state: Arc<TableState>,
    view: u32,
    moment: Moment,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    limit: usize,
    /// Pages read so far.
    pages: usize,
    front: VecDeque<(Value, Found)>,
    back: VecDeque<(Value, Found)>,
    /// Everything between `front` and `back` has been read.
    exhausted: bool,
    failed: Option<Error>,
    ended: bool,
}

impl<K: Key, V: Version> Scan<K, V> {
    pub(crate) fn new(
        state: Arc<TableState>,
        lease: Arc<Lease>,
        range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
        moment: Moment,
    ) -> Self {
        let pages = Pages { moment, ..Pages::new(state, V::VERSION, range) };
        Self { pages, _lease: lease, types: PhantomData }
    }

    /// Counts without decoding.
    pub(crate) fn count_records(mut self) -> Result<u64> {
        let mut count = 0;
        while let Some(next) = self.pages.next(false) {
            next?;
            count += 1;
        }
        Ok(count)
    }

    fn typed(&mut self, next: Option<Result<(Value, Found)>>) -> Option<Result<(K, V)>> {
        let (key, found) = match next? {
            Ok(next) => next,
            Err(e) => return Some(Err(e)),
        };
        let state = &self.pages.state;
        let result = K::decode(&key)
            .map_err(|e| Error::corrupt(&state.name, &key, format!("the key does not decode: {e}")))
            .and_then(|typed| Ok(materialize(state, &key, found)?.map(|record| (typed, record))));
        match result {
            Ok(Some(pair)) => Some(Ok(pair)),
            Ok(None) => Some(Err(Error::corrupt(&self.pages.state.name, &key, "a record without a form"))),
            Err(e) => {
                self.pages.ended = true;
                Some(Err(e))
            }
        }
    }
}

impl<K: Key, V: Version> Iterator for Scan<K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.pages.next(false);
        self.typed(next)
    }
}

impl<K: Key, V: Version> DoubleEndedIterator for Scan<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let next = self.pages.next(true);
        self.typed(next)
    }
}

impl Pages {
    pub(crate) fn new(
        state: Arc<TableState>,
        view: u32,
        (lower, upper): (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> Self {
        Pages {
            state,
            view,
            moment: Moment::First,
            lower,
            upper,
            limit: FIRST_PAGE_RECORDS,
            pages: 0,
            front: VecDeque::new(),
            back: VecDeque::new(),
            exhausted: false,
            failed: None,
            ended: false,
        }
    }

    /// Whoever could not read a record ends the scan with it.
    #[cfg(feature = "json")]
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn next(&mut self, reverse: bool) -> Option<Result<(Value, Found)>> {
        if self.ended {
            return None;
        }
        loop {
            let (near, far) =
                if reverse { (&mut self.back, &mut self.front) } else { (&mut self.front, &mut self.back) };
            if let Some(next) = near.pop_front() {
                return Some(Ok(next));
            }
            if self.exhausted && self.failed.is_none() {
                // What the other end has read ahead, from its far side.
                return far.pop_back().map(Ok);
            }
            if let Some(e) = self.failed.take() {
                self.ended = true;
                return Some(Err(e));
            }
            if let Err(e) = self.read_page(reverse) {
                self.failed = Some(e);
            }
        }
    }

    fn read_page(&mut self, reverse: bool) -> Result<()> {
        let state = Arc::clone(&self.state);
        let timer = state.shared.recorder.start();
        if matches!(self.moment, Moment::First) {
            self.moment = snapshot::pin_table(&state)?.map_or(Moment::Own, Moment::Taken);
        }
        let result = loop {
            state.shared.check_usable()?;
            if let Moment::Taken(pinned) = &self.moment {
                let Pinned { route, frontier } = &**pinned;
                break read_page(&state, route, frontier, self.view, self.range(), reverse, self.limit);
            }
            let route = state.route_owned();
            let frontier = state.frontier();
            let page = read_page(&state, &route, &frontier, self.view, self.range(), reverse, self.limit);
            if state.holds(route.epoch) {
                break page;
            }
        };
        state.shared.recorder.finish(timer, Operation::Scan, state.activity(), Duration::ZERO, &state.name);
        let page = result?;
        if self.pages > 0 {
            self.limit = (self.limit * 2).min(PAGE_RECORDS);
        }
        self.pages += 1;
        match page.last() {
            _ if page.end => self.exhausted = true,
            None => {}
            Some(last) if reverse => self.upper = Bound::Excluded(last.to_vec()),
            Some(last) => self.lower = Bound::Excluded(last.to_vec()),
        }
        let side = if reverse { &mut self.back } else { &mut self.front };
        // A page is read when its side is empty, so this moves nothing.
        if side.is_empty() {
            *side = page.found.into();
        } else {
            side.extend(page.found);
        }
        self.failed = page.error;
        Ok(())
    }

    fn range(&self) -> KeyRange<'_> {
        (self.lower.as_ref().map(Vec::as_slice), self.upper.as_ref().map(Vec::as_slice))
    }
}

/// A resolved page.
struct Resolved {
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

    /// The last key that was judged; `None` if there was none.
    fn last(&self) -> Option<&Value> {
        self.last.as_ref().or_else(|| self.found.last().map(|(key, _)| key))
    }
}

fn read_page(
    state: &TableState,
    route: &Route,
    frontier: &Frontier,
    view: u32,
    range: KeyRange<'_>,
    reverse: bool,
    limit: usize,
) -> Result<Resolved> {
    state.check_floor(route, view)?;
    match &route.kind {
        Kind::Settled { tree, .. } => {
            let mut page = Page::with_capacity(limit);
            let end = tree.tree.scan(range, reverse, limit, &mut page)?;
            let mut resolved = Resolved::new(page.len(), end);
            for (key, value) in page {
                let found = state.plain(&key, value, 0, false);
                if !resolved.push(key, found) {
                    break;
                }
            }
            Ok(resolved)
        }
        Kind::Open(open) => {
            let side = open.side(view);
            match covered(range, reverse, side, frontier) {
                Some(part) => overlay_page(state, open, part, range.1, reverse, limit),
                None => open_page(state, open, side, range, reverse, limit),
            }
        }
        Kind::Folding(open) => folding_page(state, open, range, reverse, limit),
        Kind::Dropped => Err(state.dropped()),
    }
}

/// The part of a range at `to` that the overlay alone answers: every base key before the frontier has an overlay entry.
fn covered<'a>(
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
fn overlay_page(
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
fn open_page(
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
fn folding_page(
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
