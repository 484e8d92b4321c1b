//! What the arguments of a call may be. Every engine asks here before it calls into what it is made of, which may panic,
//! or worse, on what it did not expect.
//!
//! Writes over a limit are refused. Reads are not: a key over the limit cannot be there, so it is absent, and a range
//! whose bounds are longer than any key holds the same keys as one with shorter bounds ([`range`]).

use std::borrow::Cow;
use std::ops::Bound;

use super::{Capabilities, Check, EngineResult, KeyRange, Write};
use crate::error::{EngineError, EngineErrorKind};

/// Longest name of a tree, on every engine.
pub(super) const TREE_NAME_BYTES_MAX: usize = 1024;

#[inline]
pub(super) fn limit(what: &str, size: usize, limit: usize) -> EngineResult<()> {
    if size <= limit { Ok(()) } else { Err(over_limit(what, size, limit)) }
}

#[cold]
fn over_limit(what: &str, size: usize, limit: usize) -> EngineError {
    let message = format!("{what} of {size} is over the limit of {limit}; nothing was written");
    EngineError::new(EngineErrorKind::Limit, message)
}

/// Refuses a name that no tree can have.
#[inline]
pub(super) fn check_name(tree: &str) -> EngineResult<()> {
    limit("bytes of a tree's name", tree.len(), TREE_NAME_BYTES_MAX)
}

/// Refuses a write that is over a limit.
#[inline]
pub(super) fn check_write(limits: &Capabilities, key: &[u8], value: Option<&[u8]>) -> EngineResult<()> {
    limit("bytes of a key", key.len(), limits.key_bytes_max)?;
    limit("bytes of a value", value.map_or(0, <[u8]>::len), limits.value_bytes_max)
}

/// Refuses writes that are over the limits of a commit. Returns the bytes of their keys and values.
pub(super) fn check_writes(limits: &Capabilities, writes: &[Write]) -> EngineResult<usize> {
    limit("writes in a commit", writes.len(), limits.commit_writes_max)?;
    let mut bytes = 0;
    for write in writes {
        check_name(&write.tree)?;
        check_write(limits, &write.key, write.value.as_deref())?;
        bytes += write.key.len() + write.value.as_deref().map_or(0, <[u8]>::len);
    }
    Ok(bytes)
}

/// The checks that have to be made; `None` if one of them cannot hold, because it wants a value under a key that is over
/// the limit.
pub(super) fn checks(key_bytes_max: usize, checks: &[Check]) -> EngineResult<Option<Cow<'_, [Check]>>> {
    for check in checks {
        check_name(&check.tree)?;
    }
    let possible = |check: &Check| may_hold(key_bytes_max, &check.key);
    if checks.iter().all(possible) {
        return Ok(Some(Cow::Borrowed(checks)));
    }
    if checks.iter().any(|check| check.expected.is_some() && !possible(check)) {
        return Ok(None);
    }
    Ok(Some(checks.iter().filter(|check| possible(check)).cloned().collect()))
}

/// Whether a key can be there at all.
#[inline]
pub(super) fn may_hold(key_bytes_max: usize, key: &[u8]) -> bool {
    key.len() <= key_bytes_max
}

/// A range with the same keys whose bounds are no longer than a key may be; `None` if no key can be in it.
///
/// A key that is as long as a key may be, and the beginning of a longer bound, comes before that bound; and no key lies
/// between the two. `BTreeMap` panics on crossed bounds, and no engine should have to walk a tree to find out.
#[inline]
pub(super) fn range(key_bytes_max: usize, (low, high): KeyRange<'_>) -> Option<KeyRange<'_>> {
    let low = match low {
        Bound::Included(key) | Bound::Excluded(key) => {
            beginning(key_bytes_max, key).map_or(low, Bound::Excluded)
        }
        Bound::Unbounded => low,
    };
    let high = match high {
        Bound::Included(key) | Bound::Excluded(key) => {
            beginning(key_bytes_max, key).map_or(high, Bound::Included)
        }
        Bound::Unbounded => high,
    };
    if is_empty((low, high)) { None } else { Some((low, high)) }
}

/// The beginning of a key that is too long.
#[inline]
fn beginning(key_bytes_max: usize, key: &[u8]) -> Option<&[u8]> {
    if may_hold(key_bytes_max, key) { None } else { key.get(..key_bytes_max) }
}

fn is_empty(range: KeyRange<'_>) -> bool {
    match range {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => {
            low >= high
        }
        // The empty key is the least one.
        (_, Bound::Excluded(high)) => high.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Bound::{Excluded, Included, Unbounded};
    use std::ops::RangeBounds;

    #[test]
    fn only_ranges_without_a_possible_key_are_empty() {
        let (a, b): (&[u8], &[u8]) = (b"a", b"b");
        assert!(!is_empty((Included(a), Included(a))));
        assert!(is_empty((Included(a), Excluded(a))));
        assert!(is_empty((Excluded(a), Included(a))));
        assert!(is_empty((Excluded(a), Excluded(a))));
        assert!(is_empty((Included(b), Included(a))));
        assert!(is_empty((Unbounded, Excluded(b""))));
        assert!(!is_empty((Unbounded, Included(b""))));
        assert!(!is_empty((Excluded(a), Excluded(b))));
        assert!(!is_empty((Unbounded, Unbounded)));
    }

    /// Every range over keys of up to two bytes, with bounds of up to four.
    #[test]
    fn a_range_with_long_bounds_holds_the_same_keys() {
        let all = |longest: u32| {
            let words = (0..=longest).flat_map(|length| {
                (0..3_u32.pow(length))
                    .map(move |n| (0..length).map(|at| (n / 3_u32.pow(at) % 3) as u8).collect::<Vec<u8>>())
            });
            words.collect::<Vec<_>>()
        };
        let (keys, bounds) = (all(2), all(4));
        let bounds: Vec<Bound<&[u8]>> = bounds
            .iter()
            .flat_map(|key| [Included(key.as_slice()), Excluded(key.as_slice())])
            .chain([Unbounded])
            .collect();
        let inside = |range: KeyRange<'_>, key: &[u8]| (range.0, range.1).contains(key);
        for low in &bounds {
            for high in &bounds {
                let short = range(2, (*low, *high));
                for key in &keys {
                    let found = short.is_some_and(|short| inside(short, key));
                    assert_eq!(found, inside((*low, *high), key), "{low:?} {high:?} {key:?} {short:?}");
                }
                if let Some((Included(key) | Excluded(key), _) | (_, Included(key) | Excluded(key))) = short {
                    assert!(key.len() <= 2);
                }
            }
        }
    }
}
