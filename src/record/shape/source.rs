//! Where a pass takes its values from.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use super::seen::Place;
use super::stop::Stop;

/// Strings to offer to a type that checks what it is given, one after the other.
pub(super) const STRINGS: [&str; 7] =
    ["", "a", "1", "1970-01-01T00:00:00Z", "1970-01-01", "00:00:00", "1970-01-01T00:00:00"];

/// Lengths of byte strings to offer: addresses, hashes, unique ids.
pub(super) const BYTES: [usize; 7] = [0, 16, 4, 8, 20, 32, 64];

/// Invented values, or those of an encoded sample.
#[derive(Debug)]
pub(super) enum Source {
    Invented {
        /// Where they are unusual: `None` in place of `Some`, an empty list, zero.
        unusual: BTreeSet<Place>,
    },
    Sample {
        bytes: Rc<[u8]>,
        range: Range<usize>,
    },
}

impl Source {
    /// Invented values, all of the usual kind.
    pub(super) fn invented() -> Self {
        Source::Invented { unusual: BTreeSet::new() }
    }

    pub(super) fn sample(bytes: Rc<[u8]>, range: Range<usize>) -> Self {
        Source::Sample { bytes, range }
    }

    /// What is left of the sample.
    pub(super) fn rest(&self) -> Option<(Rc<[u8]>, Range<usize>)> {
        match self {
            Source::Invented { .. } => None,
            Source::Sample { bytes, range } => Some((Rc::clone(bytes), range.clone())),
        }
    }

    /// A value of a simple type. Invented numbers are 1, which is also a good `NonZero`.
    pub(super) fn take<T: bincode::Decode<()>>(&mut self, invented: T) -> Result<T, Stop> {
        let Source::Sample { bytes, range } = self else {
            return Ok(invented);
        };
        let rest = bytes.get(range.clone()).unwrap_or_default();
        let (value, used) =
            bincode::decode_from_slice(rest, bincode::config::standard()).map_err(Stop::refused)?;
        range.start += used;
        Ok(value)
    }

    /// The bytes of a string, if this is a sample.
    pub(super) fn take_bytes(&mut self) -> Result<Option<Vec<u8>>, Stop> {
        let Source::Sample { bytes, range } = self else {
            return Ok(None);
        };
        let rest = bytes.get(range.clone()).unwrap_or_default();
        let (value, used) = bincode::borrow_decode_from_slice::<&[u8], _>(rest, bincode::config::standard())
            .map_err(Stop::refused)?;
        let value = value.to_vec();
        range.start += used;
        Ok(Some(value))
    }

    pub(super) fn is_invented(&self) -> bool {
        matches!(self, Source::Invented { .. })
    }
}
