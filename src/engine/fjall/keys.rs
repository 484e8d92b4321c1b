//! Keys as fjall takes them: it has no empty key. So a key of nothing but zeroes is stored with one zero more, and
//! every other key as it is. That keeps them apart and in order: a run of zeroes still comes before all that begins
//! with as many, and no key of another kind is a run of zeroes.

use std::borrow::Cow;
use std::ops::Bound;

use crate::engine::{KeyRange, Value};

/// The key as it is stored. Copies only runs of zeroes.
#[inline]
pub(super) fn stored(key: &[u8]) -> Cow<'_, [u8]> {
    if is_zeroes(key) { Cow::Owned(vec![0; key.len() + 1]) } else { Cow::Borrowed(key) }
}

/// The key that is stored as `found`.
#[inline]
pub(super) fn given(found: fjall::Slice) -> Value {
    match found.split_last() {
        Some((0, zeroes)) if is_zeroes(zeroes) => Value::from(zeroes),
        _ => Value::from_fjall(found),
    }
}

/// A range of stored keys.
pub(super) type StoredRange<'a> = (Bound<Cow<'a, [u8]>>, Bound<Cow<'a, [u8]>>);

pub(super) fn stored_range(range: KeyRange<'_>) -> StoredRange<'_> {
    (range.0.map(stored), range.1.map(stored))
}

#[inline]
fn is_zeroes(key: &[u8]) -> bool {
    key.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_keys_are_never_empty_keep_their_order_and_come_back() {
        let mut keys = vec![vec![]];
        for length in 1..=4 {
            for n in 0..3_u32.pow(length) {
                keys.push((0..length).map(|at| (n / 3_u32.pow(at) % 3) as u8).collect());
            }
        }
        keys.sort();
        let all: Vec<Vec<u8>> = keys.iter().map(|key| stored(key).into_owned()).collect();
        assert!(all.iter().all(|key| !key.is_empty()));
        assert!(all.is_sorted_by(|a, b| a < b));
        for (key, stored) in keys.iter().zip(&all) {
            assert_eq!(*given(stored.as_slice().into()), **key);
        }
    }
}
