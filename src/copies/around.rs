//! Reading a tree that the engine cannot read everywhere: around its damage, as far as the engine lets anybody.
//!
//! 1. Forward from the first key, by pages that get smaller before an error, so that the last record before it is found.
//! 2. Backward from the last key, likewise. Between the two is a hole.
//! 3. In the middle of a hole, by the value of its keys, both ways again; and so on in what is left, [`PROBES_MAX`] times.
//!
//! So one damaged page costs its records only. What is left is answered as holes, by their bounds.

use std::ops::Bound;

use crate::engine::{EngineResult, KeyRange, Page, Value};
use crate::error::{EngineError, EngineErrorKind, Result, ShowKey};

const PAGE_RECORDS: usize = 512;
/// Looks into holes of one tree.
const PROBES_MAX: u32 = 1000;
/// How often a hole between two records is halved without another one found.
const DEPTH_MAX: u32 = 8;
/// The same for one that has no record at an end: its keys may lie anywhere, all of them in a corner.
const DEPTH_OPEN_MAX: u32 = 128;

/// Keys that cannot be read, if there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) lower: Bound<Vec<u8>>,
    pub(crate) upper: Bound<Vec<u8>>,
    pub(crate) reason: String,
}

impl std::fmt::Display for Hole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |bound: &Bound<Vec<u8>>, open: &str| match bound {
            Bound::Included(key) | Bound::Excluded(key) => format!("key {}", ShowKey(key)),
            Bound::Unbounded => open.to_owned(),
        };
        let (lower, upper) = (show(&self.lower, "the first key"), show(&self.upper, "the last key"));
        write!(f, "what lies between {lower} and {upper} cannot be read: {}", self.reason)
    }
}

/// One scan of the tree, as [`crate::engine::Tree::scan`].
pub(crate) type Scan<'s> = dyn FnMut(KeyRange<'_>, bool, usize, &mut Page) -> EngineResult<bool> + 's;

type Call<'c> = dyn FnMut(&[u8], Value) -> Result<()> + 'c;

/// Calls `call` for every record that can be read, each once, and answers what cannot. In the order of keys up to the first
/// hole. An error that is not of the files (the engine has stopped) ends it.
pub(crate) fn each(scan: &mut Scan<'_>, call: &mut Call<'_>) -> Result<Vec<Hole>> {
    let mut around = Around { scan, call, holes: Vec::new(), probes: PROBES_MAX };
    if let Some(stopped) = around.read(Bound::Unbounded, Bound::Unbounded, false)? {
        let after = stopped.last.map_or(Bound::Unbounded, Bound::Excluded);
        if let Some(stopped) = around.read(after.clone(), Bound::Unbounded, true)? {
            let before = stopped.last.map_or(Bound::Unbounded, Bound::Excluded);
            let open = matches!(after, Bound::Unbounded) || matches!(before, Bound::Unbounded);
            let depth = if open { DEPTH_OPEN_MAX } else { DEPTH_MAX };
            around.hole(after, before, stopped.error, depth)?;
        }
    }
    let mut holes = around.holes;
    holes.sort_by(|a, b| edge(&a.lower).cmp(edge(&b.lower)));
    holes.dedup_by(|next, hole| {
        let meet = matches!((&hole.upper, &next.lower), (Bound::Excluded(a), Bound::Included(b)) if a == b);
        if meet {
            hole.upper = std::mem::replace(&mut next.upper, Bound::Unbounded);
        }
        meet
    });
    Ok(holes)
}

fn edge(bound: &Bound<Vec<u8>>) -> &[u8] {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => key,
        Bound::Unbounded => &[],
    }
}

struct Around<'a, 's, 'c> {
    scan: &'a mut Scan<'s>,
    call: &'a mut Call<'c>,
    holes: Vec<Hole>,
    probes: u32,
}

/// Where a scan could not go on.
struct Stopped {
    /// The last key that was read.
    last: Option<Vec<u8>>,
    error: EngineError,
}

impl Around<'_, '_, '_> {
    /// Reads on until the range ends (`None`) or cannot be read further.
    fn read(
        &mut self,
        mut lower: Bound<Vec<u8>>,
        mut upper: Bound<Vec<u8>>,
        reverse: bool,
    ) -> Result<Option<Stopped>> {
        let (mut limit, mut last) = (PAGE_RECORDS, None);
        loop {
            let mut page = Page::new();
            let range = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
            match (self.scan)(range, reverse, limit, &mut page) {
                Ok(end) => {
                    for (key, value) in page {
                        last = Some(key.to_vec());
                        (self.call)(&key, value)?;
                    }
                    if end {
                        return Ok(None);
                    }
                    if let Some(last) = &last {
                        *(if reverse { &mut upper } else { &mut lower }) = Bound::Excluded(last.clone());
                    }
                }
                Err(e) if !matches!(e.kind(), EngineErrorKind::Corrupt | EngineErrorKind::Io) => {
                    return Err(e.into());
                }
                Err(_) if limit > 1 => limit = if limit > 16 { 16 } else { 1 },
                Err(error) => return Ok(Some(Stopped { last, error })),
            }
        }
    }

    /// Both ends of the hole cannot be read.
    fn hole(
        &mut self,
        lower: Bound<Vec<u8>>,
        upper: Bound<Vec<u8>>,
        error: EngineError,
        depth: u32,
    ) -> Result<()> {
        let middle = middle(&lower, &upper).filter(|_| depth > 0 && self.probes > 0);
        let Some(middle) = middle else {
            self.holes.push(Hole { lower, upper, reason: error.to_string() });
            return Ok(());
        };
        self.probes -= 1;
        let below = Bound::Excluded(middle.clone());
        let left = self.read(lower.clone(), below.clone(), true)?;
        let right = self.read(Bound::Included(middle.clone()), upper.clone(), false)?;
        // A record was found: from here on there is one near.
        let depth_of = |last: &Option<Vec<u8>>| if last.is_some() { DEPTH_MAX } else { depth - 1 };
        if let Some(Stopped { last, error }) = left {
            let depth = depth_of(&last);
            self.hole(lower, last.map_or(below, Bound::Excluded), error, depth)?;
        }
        if let Some(Stopped { last, error }) = right {
            let depth = depth_of(&last);
            let lower = last.map_or(Bound::Included(middle), Bound::Excluded);
            self.hole(lower, upper, error, depth)?;
        }
        Ok(())
    }
}

/// A key between two others, by their value as binary fractions; `None` if there is none of one byte more.
fn middle(lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>) -> Option<Vec<u8>> {
    let low = edge(lower);
    let top = vec![0xff; low.len() + 8];
    let high = if matches!(upper, Bound::Unbounded) { &top[..] } else { edge(upper) };
    let len = low.len().max(high.len()) + 1;
    let digit = |key: &[u8], at: usize| u16::from(key.get(at).copied().unwrap_or(0));
    // The sum, then its half, digit by digit.
    let mut sum = vec![0_u16; len + 1];
    let mut carry = 0;
    for at in (0..len).rev() {
        let digits = digit(low, at) + digit(high, at) + carry;
        if let Some(place) = sum.get_mut(at + 1) {
            *place = digits & 0xff;
        }
        carry = digits >> 8;
    }
    if let Some(first) = sum.first_mut() {
        *first = carry;
    }
    let half = sum.windows(2).map(|pair| match pair {
        [above, own] => ((above & 1) << 7 | own >> 1) as u8,
        _ => 0,
    });
    let half: Vec<u8> = half.collect();
    (half.as_slice() > low && half.as_slice() < high).then_some(half)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ops::RangeBounds as _;

    use super::*;

    /// A tree of pages of eight keys, of which some cannot be read.
    fn holes_of(keys: impl Iterator<Item = u64>, bad: &[u64]) -> (BTreeSet<u64>, Vec<Hole>, u32) {
        let tree: BTreeMap<Vec<u8>, u64> = keys.map(|key| (key.to_be_bytes().to_vec(), key)).collect();
        let places: BTreeMap<u64, usize> = tree.values().enumerate().map(|(at, key)| (*key, at)).collect();
        let bad: BTreeSet<usize> = bad.iter().map(|key| places[key] / 8).collect();
        let (mut found, mut scans) = (BTreeSet::new(), 0);
        let mut scan = |range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page| {
            scans += 1;
            let owned = (range.0.map(<[u8]>::to_vec), range.1.map(<[u8]>::to_vec));
            let mut keys: Vec<u64> = tree.range(owned).map(|(_, key)| *key).collect();
            if reverse {
                keys.reverse();
            }
            for key in keys.iter().take(limit) {
                if bad.contains(&(places[key] / 8)) {
                    return Err(EngineError::new(EngineErrorKind::Corrupt, "bad"));
                }
                page.push((Value::from(&key.to_be_bytes()[..]), Value::from(&[][..])));
            }
            Ok(keys.len() <= limit)
        };
        let mut call = |key: &[u8], _: Value| {
            let key = u64::from_be_bytes(key.try_into().expect("a key"));
            assert!(found.insert(key), "{key} twice");
            Ok(())
        };
        let holes = each(&mut scan, &mut call).expect("read");
        (found, holes, scans)
    }

    #[test]
    fn a_whole_tree_has_no_hole() {
        let (found, holes, _) = holes_of(0..2000, &[]);
        assert!(found.len() == 2000 && holes.is_empty());
        assert!(holes_of(0..0, &[]).1.is_empty());
    }

    #[test]
    fn damage_costs_its_page_only() {
        for keys in [(0..2000).collect::<Vec<u64>>(), (0..2000).map(|n| n * n * 1_000_003).collect()] {
            for bad in [&[0][..], &[1999], &[1000], &[0, 1999], &[100, 1000], &[16, 17, 900, 901, 1500]] {
                let bad: Vec<u64> = bad.iter().map(|at| keys[*at]).collect();
                let pages: BTreeSet<usize> =
                    bad.iter().map(|key| keys.binary_search(key).expect("there") / 8).collect();
                let (found, holes, scans) = holes_of(keys.iter().copied(), &bad);
                let lost = 2000 - found.len();
                assert!(lost >= 8 * pages.len() && lost <= 100, "{bad:?}: {lost} lost, {holes:?}");
                let key_of = |key: &u64| key.to_be_bytes().to_vec();
                for key in keys.iter().filter(|key| !found.contains(key)) {
                    let holds = |hole: &Hole| (hole.lower.clone(), hole.upper.clone()).contains(&key_of(key));
                    assert!(holes.iter().any(holds), "{key} is lost and in no hole");
                }
                assert!(scans < 20_000, "{scans}");
            }
        }
    }

    #[test]
    fn a_tree_of_holes_ends() {
        let all: Vec<u64> = (0..800).collect();
        let (found, holes, scans) = holes_of(0..800, &all);
        assert!(found.is_empty());
        assert!(!holes.is_empty());
        assert!(scans < 20_000, "{scans}");
    }

    #[test]
    fn the_middle_is_between() {
        let own = |key: &[u8]| Bound::Excluded(key.to_vec());
        for (low, high) in
            [(&[0_u8][..], &[1_u8][..]), (b"a", b"b"), (b"a", b"aa"), (b"", b"\x01"), (&[0xff], &[0xff, 1])]
        {
            let between = middle(&own(low), &own(high)).expect("one");
            assert!(low < between.as_slice() && between.as_slice() < high, "{low:?} {between:?} {high:?}");
        }
        assert!(middle(&own(b"a"), &own(b"a")).is_none());
        assert!(middle(&own(&[5]), &Bound::Unbounded).is_some());
        assert!(middle(&Bound::Unbounded, &own(&[0])).is_none());
    }
}
