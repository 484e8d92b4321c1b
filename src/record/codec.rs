//! Values: serde through bincode 2, with limits.
//!
//! bincode does the encoding (`bincode::config::standard()`: little endian, variable-length integers). Around it
//! stands what a store needs and bincode alone does not give:
//!
//! - **The whole input is used, or it is an error.** Bytes of a longer type would otherwise decode as a shorter one.
//! - **What is refused on the way in is refused on the way out**, so that nothing is written that cannot be read:
//!   [`VALUE_BYTES_MAX`], [`DEPTH_MAX`], and a field that `skip_serializing_if` leaves out, which bincode would
//!   drop without a word and then misread everything after it.
//! - **Hostile bytes cost little.** A length in the input allocates nothing that the input does not contain; a list
//!   of 2⁶⁰ zero-sized elements ends at the limit; nesting ends at [`DEPTH_MAX`]. Without that bound, one byte for
//!   each level of a `Box`ed list overflows the stack, which ends the process: a stack of 2 MiB by 2 KB of input
//!   (32 KB with optimisation).
//!
//! Two encodings of equal values must be equal bytes. Maps and sets with a random order (`HashMap`,
//! `HashSet`) break that; use `BTreeMap` and `BTreeSet` in records. [`crate::record::laws::check`] finds it.

mod read;
mod write;

use std::cell::Cell;

use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Serialize, Serializer};

use crate::error::CastError;

/// The largest encoded value, in bytes: 16 MiB.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// The name of this encoding in the catalog.
pub const BINCODE: &str = "bincode";

/// The deepest nesting of a value: each struct, tuple, enum, option, list and map around a field counts as one.
/// A linked list nests twice for each element (the struct and the option), so it belongs into a `Vec`.
pub const DEPTH_MAX: u32 = 128;

/// How deep a value is still allowed to nest, and how many elements its lists may still have together.
#[derive(Clone, Copy)]
struct Budget<'b> {
    depth: u32,
    elements: &'b Cell<usize>,
}

impl<'b> Budget<'b> {
    fn new(elements: &'b Cell<usize>) -> Self {
        Self { depth: DEPTH_MAX, elements }
    }

    /// One level further in.
    #[inline]
    fn deeper<E>(self, error: impl FnOnce(String) -> E) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(error(format!("the value nests deeper than {DEPTH_MAX} levels"))),
        }
    }

    /// A list of `len` elements. Every element that takes a byte is covered by the limit on bytes; this one is for
    /// those that take none, and is taken for both so that writing and reading agree.
    #[inline]
    fn list<E>(self, len: usize, error: impl FnOnce(String) -> E) -> Result<Self, E> {
        match self.elements.get().checked_sub(len) {
            Some(left) => self.elements.set(left),
            None => {
                return Err(error(format!("the lists have more than {VALUE_BYTES_MAX} elements together")));
            }
        }
        self.deeper(error)
    }
}

/// Encodes `value`, appending to `out` without a buffer in between. After an error `out` is as it was.
///
/// ```
/// let mut bytes = Vec::new();
/// exuvia::codec::encode(&("Basel", 316u32), &mut bytes)?;
/// let (name, feet): (String, u32) = exuvia::codec::decode(&bytes)?;
/// assert_eq!((name.as_str(), feet), ("Basel", 316));
/// # Ok::<(), exuvia::CastError>(())
/// ```
pub fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CastError> {
    let start = out.len();
    let elements = Cell::new(VALUE_BYTES_MAX);
    let limited = Limited { value, budget: Budget::new(&elements) };
    let sink = Sink { out, end: start.saturating_add(VALUE_BYTES_MAX) };
    bincode::serde::encode_into_writer(limited, sink, bincode::config::standard()).map_err(|e| {
        out.truncate(start);
        CastError::new(format!("the value cannot be encoded: {}", write::explain(&e)))
    })
}

/// Decodes a value. Every byte must be used.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CastError> {
    decode_by(bytes, bincode::config::standard())
}

/// Decodes what `bincode::serialize` of bincode 1 wrote (integers of fixed length, little endian), under the same
/// limits: for an import of older records. Every byte must be used.
///
/// ```
/// let stored = [2, 0, 0, 0, 0, 0, 0, 0, b'h', b'i', 7, 0, 0, 0];
/// let (name, age): (String, u32) = exuvia::codec::decode_bincode1(&stored)?;
/// assert_eq!((name.as_str(), age), ("hi", 7));
/// # Ok::<(), exuvia::CastError>(())
/// ```
pub fn decode_bincode1<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CastError> {
    decode_by(bytes, bincode::config::legacy())
}

fn decode_by<T: DeserializeOwned>(
    bytes: &[u8],
    config: impl bincode::config::Config,
) -> Result<T, CastError> {
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(CastError::new(format!("{} bytes are over the limit of {VALUE_BYTES_MAX}", bytes.len())));
    }
    let elements = Cell::new(VALUE_BYTES_MAX);
    let seed = read::Limited {
        inner: std::marker::PhantomData::<T>,
        budget: Budget::new(&elements),
        input_bytes: bytes.len(),
    };
    let (value, used) = bincode::serde::seed_decode_from_slice(seed, bytes, config).map_err(|e| {
        CastError::new(format!("the bytes do not decode as this type: {}", read::explain(&e)))
    })?;
    if used == bytes.len() {
        Ok(value)
    } else {
        Err(CastError::new(format!(
            "the bytes do not decode as this type: it takes {used} of {} bytes",
            bytes.len()
        )))
    }
}

/// A value on its way through the limiting serializer.
struct Limited<'v, 'b, T: ?Sized> {
    value: &'v T,
    budget: Budget<'b>,
}

impl<T: Serialize + ?Sized> Serialize for Limited<'_, '_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(write::Limited { inner: serializer, budget: self.budget })
    }
}

/// Appends to a vector up to a limit.
struct Sink<'o> {
    out: &'o mut Vec<u8>,
    end: usize,
}

impl bincode::enc::write::Writer for Sink<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        if bytes.len() > self.end.saturating_sub(self.out.len()) {
            return Err(bincode::error::EncodeError::Other("it is over the limit of 16 MiB"));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for read::Limited<'_, T> {
    type Value = T::Value;

    #[inline]
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.inner.deserialize(read::Limited {
            inner: deserializer,
            budget: self.budget,
            input_bytes: self.input_bytes,
        })
    }
}

#[cfg(test)]
#[path = "codec/tests.rs"]
mod tests;
