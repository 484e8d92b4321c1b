//! Scans: an ordered merge of overlay and base, page by page.
//!
//! 1. A page takes one epoch and, if the epoch moved meanwhile, is read again from its last key (O1, O11). Where the
//!    engine has snapshots the first page takes one, and epoch and frontier with it, for all pages.
//! 2. The overlay wins, tombstones hide. Before the frontier the overlay alone answers at `to`. Elsewhere the base's
//!    part is read first, since it is frozen while the migration is open, and the overlay's part only as far as that
//!    reaches: an overlay that has few entries yet would otherwise be read far beyond the page. While folding the base
//!    is written, and the overlay's part is read first: an entry that is folded meanwhile is then seen in one of them
//!    (O3).
//! 3. If one side's part ends early, the page ends there, so that no key of the other side is judged by a part
//!    that was not read.
//! 4. An error ends the scan with that error; only both sides' real end ends it without.

mod page;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use self::page::ReadPage;
use crate::engine::{Page, Value};
use crate::error::{Error, Result};
use crate::measure::observe::Operation;
use crate::migration::core::Lease;
use crate::record::key::{self, Key, KeyPrefix};
use crate::record::version::Version;
use crate::state::route::{Found, Frontier, Kind, Route, TableState};
use crate::table::materialize::{decode_plain, materialize};
use crate::table::pinned::{Pinned, pin_table};
use crate::table::typed::Table;

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

/// What one end has read ahead: the rest of one page.
enum Ahead {
    /// Of a settled table: what a record is depends on nothing but its bytes, so each is looked at when its turn comes,
    /// and nothing is kept of it but the engine's own buffers.
    Plain(VecDeque<(Value, Value)>),
    /// Of an open migration: resolved under the epoch of the page.
    Resolved(VecDeque<(Value, Found)>),
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
    front: Ahead,
    back: Ahead,
    /// Everything between `front` and `back` has been read.
    exhausted: bool,
    failed: Option<Error>,
    ended: bool,
}

impl<K: Key, V: Version> Table<K, V> {
    /// The records of a range in key order; double-ended.
    ///
    /// For a page of results at a time, go on after the last key that was seen:
    ///
    /// ```
    /// use std::ops::Bound::{Excluded, Unbounded};
    /// use exuvia::{Result, Table, Version};
    ///
    /// fn page<V: Version>(users: &Table<u64, V>, after: u64, limit: usize) -> Result<Vec<(u64, V)>> {
    ///     users.scan((Excluded(after), Unbounded)).take(limit).collect()
    /// }
    /// ```
    ///
    /// Reads pages as it goes. On an engine with snapshots (fjall) all of it is of the moment of its first record, and stays
    /// so until it is dropped; on any other (sled, memory) each record is of one moment and the scan as a whole is not: a
    /// record that is written while it goes on is seen or not, and one that is moved from key to key may be
    /// seen twice or not at all. An error ends the scan, as its last item.
    pub fn scan(&self, range: impl RangeBounds<K>) -> Scan<K, V> {
        self.scan_bytes(key::encode_bounds(&range), Moment::First)
    }

    /// The records whose key begins with `prefix`, in key order. Otherwise as [`Table::scan`].
    ///
    /// A prefix is the beginning of a string (`"no"`) or of bytes (`&b"no"[..]`), or the first members of a tuple, as
    /// a shorter tuple (`&("north".to_owned(),)`): see [`KeyPrefix`].
    pub fn scan_prefix<P: KeyPrefix<K> + ?Sized>(&self, prefix: &P) -> Scan<K, V> {
        self.scan_bytes(key::key_prefix_range(prefix), Moment::First)
    }

    /// The number of records. Scans the whole table.
    ///
    /// # Errors
    ///
    /// As [`Table::scan`].
    pub fn len(&self) -> Result<u64> {
        self.scan(..).count_records()
    }

    /// Whether there is no record. Costs at most one page of a scan.
    ///
    /// # Errors
    ///
    /// As [`Table::scan`].
    pub fn is_empty(&self) -> Result<bool> {
        self.peek().next().transpose().map(|first| first.is_none())
    }

    /// For a look at an end of the table, which needs no moment of its own.
    pub(crate) fn peek(&self) -> Scan<K, V> {
        self.scan_bytes((Bound::Unbounded, Bound::Unbounded), Moment::Own)
    }

    fn scan_bytes(&self, bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>), moment: Moment) -> Scan<K, V> {
        Scan::new(Arc::clone(self.state()), Arc::clone(self.lease()), bounds, moment)
    }
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

    /// The next record.
    #[inline]
    fn advance(&mut self, reverse: bool) -> Option<Result<(K, V)>> {
        // Most are of a settled table: decoded where they are, from the engine's own buffers.
        while let Some((state, page)) = self.pages.plain_ahead(reverse) {
            let Some((key, value)) = page.front() else { break };
            let read = match decode_plain(state, key, value) {
                Ok(Some(record)) => decode_key(state, key).map(|key| Some((key, record))),
                Ok(None) => Ok(None),
                Err(e) => Err(e),
            };
            drop(page.pop_front());
            match read {
                Ok(Some(pair)) => return Some(Ok(pair)),
                Ok(None) => {}
                Err(e) => return Some(Err(self.pages.end_with(e))),
            }
        }
        let next = self.pages.next(reverse);
        self.typed(next)
    }

    fn typed(&mut self, next: Option<Result<(Value, Found)>>) -> Option<Result<(K, V)>> {
        let (key, found) = match next? {
            Ok(next) => next,
            Err(e) => return Some(Err(e)),
        };
        let state = &self.pages.state;
        let typed = decode_key(state, &key)
            .and_then(|typed| Ok(materialize(state, &key, found)?.map(|record| (typed, record))));
        match typed {
            Ok(Some(pair)) => Some(Ok(pair)),
            Ok(None) => {
                let error = state.damaged(&key, "a record without a form");
                Some(Err(self.pages.end_with(error)))
            }
            Err(e) => Some(Err(self.pages.end_with(e))),
        }
    }
}

#[inline]
fn decode_key<K: Key>(state: &TableState, key: &[u8]) -> Result<K> {
    match K::decode(key) {
        Ok(typed) => Ok(typed),
        Err(e) => Err(state.damaged(key, &format!("the key does not decode: {e}"))),
    }
}

impl<K: Key, V: Version> Iterator for Scan<K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance(false)
    }
}

impl<K: Key, V: Version> DoubleEndedIterator for Scan<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.advance(true)
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
            front: Ahead::new(),
            back: Ahead::new(),
            exhausted: false,
            failed: None,
            ended: false,
        }
    }

    /// What one end has read ahead of a settled table.
    #[inline]
    fn plain_ahead(&mut self, reverse: bool) -> Option<(&TableState, &mut VecDeque<(Value, Value)>)> {
        if self.ended {
            return None;
        }
        match if reverse { &mut self.back } else { &mut self.front } {
            Ahead::Plain(page) => Some((&self.state, page)),
            Ahead::Resolved(_) => None,
        }
    }

    /// Whoever could not read a record ends the scan with it.
    #[cfg(feature = "json")]
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    #[inline]
    pub(crate) fn next(&mut self, reverse: bool) -> Option<Result<(Value, Found)>> {
        loop {
            if self.ended {
                return None;
            }
            let (near, far) =
                if reverse { (&mut self.back, &mut self.front) } else { (&mut self.front, &mut self.back) };
            let next = match near.take(&self.state, false) {
                // What the other end has read ahead, from its far side.
                None if self.exhausted && self.failed.is_none() => Some(far.take(&self.state, true)?),
                next => next,
            };
            match next {
                Some(Ok((_, Found::Absent))) => {}
                Some(Err(e)) => return Some(Err(self.end_with(e))),
                Some(next) => return Some(next),
                None => {
                    if let Some(e) = self.failed.take() {
                        return Some(Err(self.end_with(e)));
                    }
                    if let Err(e) = self.read_page(reverse) {
                        self.failed = Some(e);
                    }
                }
            }
        }
    }

    #[cold]
    fn end_with(&mut self, error: Error) -> Error {
        self.ended = true;
        error
    }

    fn read_page(&mut self, reverse: bool) -> Result<()> {
        let state = Arc::clone(&self.state);
        let timer = state.shared.recorder.start();
        if matches!(self.moment, Moment::First) {
            self.moment = pin_table(&state)?.map_or(Moment::Own, Moment::Taken);
        }
        // A page is read when its side is empty: what held the last one holds the next.
        let side = if reverse { &mut self.back } else { &mut self.front };
        let mut buffer = std::mem::replace(side, Ahead::new()).into_buffer();
        let page = loop {
            state.shared.check_usable()?;
            if let Moment::Taken(pinned) = &self.moment {
                let Pinned { route, frontier } = &**pinned;
                break self.page_of(&state, route, frontier, reverse, buffer);
            }
            let route = state.route_owned();
            let frontier = state.frontier();
            let page = self.page_of(&state, &route, &frontier, reverse, buffer);
            if state.holds(route.epoch) {
                break page;
            }
            buffer = Page::new();
        };
        state.shared.recorder.finish(timer, Operation::Scan, state.activity(), Duration::ZERO, &state.name);
        let page = page?;
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
        *side = page.ahead;
        self.failed = page.error;
        Ok(())
    }

    /// One page by this route; `buffer` is empty, and is used where that serves.
    fn page_of(
        &self,
        state: &TableState,
        route: &Route,
        frontier: &Frontier,
        reverse: bool,
        buffer: Page,
    ) -> Result<ReadPage> {
        let range = (self.lower.as_ref().map(Vec::as_slice), self.upper.as_ref().map(Vec::as_slice));
        state.check_floor(route, self.view)?;
        let resolved = match &route.kind {
            Kind::Settled { tree, .. } => {
                return page::plain_page(&*tree.tree, range, reverse, self.limit, buffer);
            }
            Kind::Open(open) => {
                let side = open.side(self.view);
                match page::covered(range, reverse, side, frontier) {
                    Some(part) => page::overlay_page(state, open, part, range.1, reverse, self.limit),
                    None => page::open_page(state, open, side, range, reverse, self.limit),
                }
            }
            Kind::Folding(open) => page::folding_page(state, open, range, reverse, self.limit),
            Kind::Dropped => Err(state.dropped()),
        };
        resolved.map(ReadPage::from)
    }
}

impl Ahead {
    fn new() -> Self {
        Ahead::Plain(VecDeque::new())
    }

    /// Takes the next record, or the one on the far side.
    #[inline]
    fn take(&mut self, state: &TableState, far: bool) -> Option<Result<(Value, Found)>> {
        let (key, value) = match self {
            Ahead::Plain(page) if far => page.pop_back()?,
            Ahead::Plain(page) => page.pop_front()?,
            Ahead::Resolved(page) if far => return page.pop_back().map(Ok),
            Ahead::Resolved(page) => return page.pop_front().map(Ok),
        };
        Some(state.plain(&key, value, 0, false).map(|found| (key, found)))
    }

    /// An empty page, with the room of this one.
    fn into_buffer(self) -> Page {
        match self {
            Ahead::Plain(page) => {
                debug_assert!(page.is_empty());
                page.into()
            }
            Ahead::Resolved(_) => Page::new(),
        }
    }
}
