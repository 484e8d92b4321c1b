//! What engines must agree on about ranges.

use std::ops::Bound;

use super::KeyRange;

/// Whether no key can be in `range`. Asked before an engine sees the range: `BTreeMap` panics on crossed bounds,
/// and no engine should have to walk a tree to find out.
pub(super) fn is_empty(range: KeyRange<'_>) -> bool {
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
}
