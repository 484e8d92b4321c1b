//! Keys: bytes whose order is the order of the values.
//!
//! # Encoding
//!
//! | type | bytes |
//! |---|---|
//! | unsigned integers | big endian |
//! | signed integers | big endian with the sign bit flipped |
//! | `f32`, `f64` | the bits, all flipped if negative, else the sign bit flipped: the order of `total_cmp` |
//! | `bool` | 0 or 1 |
//! | `char` | its number, as `u32` |
//! | `[u8; N]` | as it is |
//! | `String`, `Vec<u8>` | as it is, with `00` written as `00 FF`, and `00 00` at the end |
//! | `Option` | 0, or 1 and the value |
//! | tuples, up to six members | the members one after the other |
//!
//! Every encoding ends by itself, so that no encoding is the beginning of another one of the same type. That
//! makes a tuple sort by its first member, then by its second, whatever their lengths; and the encoding of the
//! first members is the common beginning of all tuples that start with them ([`KeyPrefix`]).
//!
//! There is no encoding for `usize` and `isize`, which differ between machines.
//!
//! # Why not a crate
//!
//! `storekey` 0.11 was tried. It cannot read back some of what it writes: in a tuple, a number after a `Vec` whose
//! first byte is 1 is taken for an escape (`(vec![5u8], 1u8)`), and an empty element ends the list that it is
//! in (`vec![String::new()]`). A key that is written and then not found is the worst that a store can do. It also
//! writes strings byte by byte, about 1 µs for 1 KiB; this module copies whole runs.

use std::ffi::CStr;
use std::ops::{Bound, RangeBounds};

use crate::error::CastError;
use crate::record::shape::KeyType;

/// The end of a string of bytes. A zero inside is followed by [`ESCAPE`], which is greater than any end, so that
/// a longer string sorts after its own beginning.
const END: [u8; 2] = [0, 0];
const ESCAPE: u8 = 0xff;

/// A type that can be the key of a table.
///
/// Implement it for a type of your own by leaning on the members' implementations; the order of the bytes is
/// the order in which a scan answers.
///
/// ```
/// use exuvia::{CastError, Key};
/// use exuvia::shape::KeyType;
///
/// #[derive(Debug, PartialEq)]
/// struct Sensor {
///     site: String,
///     number: u32,
/// }
///
/// impl Key for Sensor {
///     fn encode(&self, out: &mut Vec<u8>) {
///         self.site.encode(out);
///         self.number.encode(out);
///     }
///
///     fn take(input: &mut &[u8]) -> Result<Self, CastError> {
///         Ok(Sensor { site: Key::take(input)?, number: Key::take(input)? })
///     }
///
///     fn key_type() -> KeyType {
///         <(String, u32)>::key_type()
///     }
/// }
///
/// let sensor = Sensor { site: "north".into(), number: 7 };
/// let mut bytes = Vec::new();
/// sensor.encode(&mut bytes);
/// assert_eq!(Sensor::decode(&bytes)?, sensor);
/// # Ok::<(), CastError>(())
/// ```
pub trait Key: Sized + Send + Sync + 'static {
    /// Appends the encoding to `out`. The encoding must end by itself: none may be the beginning of another.
    fn encode(&self, out: &mut Vec<u8>);

    /// Takes one value from the front of `input`. Any bytes may come in; what is not an encoding is an error.
    fn take(input: &mut &[u8]) -> Result<Self, CastError>;

    /// What the keys consist of, for the catalog: a table is refused under another key type, and the command shows
    /// keys by it. A type of your own answers with the type that has the same encoding; with the default nothing is
    /// checked, and keys are shown as bytes.
    fn key_type() -> KeyType {
        KeyType::Custom
    }

    /// Decodes a whole key: bytes that are left over are an error.
    fn decode(bytes: &[u8]) -> Result<Self, CastError> {
        let mut input = bytes;
        let key = Self::take(&mut input)?;
        if input.is_empty() {
            Ok(key)
        } else {
            Err(CastError::new(format!(
                "the key has {} bytes more than its type takes; it was written by a table of another key type",
                input.len()
            )))
        }
    }
}

/// The first members of a tuple, or the beginning of a string or of bytes: what a scan by prefix starts with.
///
/// ```
/// use exuvia::{Table, Version};
///
/// fn of_north<V: Version>(sensors: &Table<(String, u32), V>) -> exuvia::Result<usize> {
///     sensors.scan_prefix(&("north".to_string(),)).try_fold(0, |count, next| next.map(|_| count + 1))
/// }
///
/// fn beginning_with_no<V: Version>(cities: &Table<String, V>) -> exuvia::Result<usize> {
///     cities.scan_prefix("no").try_fold(0, |count, next| next.map(|_| count + 1))
/// }
/// ```
pub trait KeyPrefix<K: Key> {
    /// Appends the bytes with which every key that has this prefix begins, and no other key does.
    fn encode_prefix(&self, out: &mut Vec<u8>);
}

/// The range of encoded keys that begin with `prefix`.
pub(crate) fn key_prefix_range<K: Key, P: KeyPrefix<K> + ?Sized>(
    prefix: &P,
) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let mut from = Vec::new();
    prefix.encode_prefix(&mut from);
    let to = match after_prefix(&from) {
        Some(end) => Bound::Excluded(end),
        None => Bound::Unbounded,
    };
    (Bound::Included(from), to)
}

/// The encoded bounds of a range of keys.
pub(crate) fn encode_bounds<K: Key>(range: &impl RangeBounds<K>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let encode = |bound: Bound<&K>| {
        bound.map(|key| {
            let mut out = Vec::new();
            key.encode(&mut out);
            out
        })
    };
    (encode(range.start_bound()), encode(range.end_bound()))
}

/// The least byte string that is greater than every one that begins with `prefix`, if there is one.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

fn short() -> CastError {
    CastError::new("the key ends before its type does; it was written by a table of another key type")
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], CastError> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or_else(short)?;
    *input = rest;
    Ok(*head)
}

/// The standard library's search for a zero looks at many bytes at once.
fn find_zero(bytes: &[u8]) -> Option<usize> {
    CStr::from_bytes_until_nul(bytes).ok().map(CStr::count_bytes)
}

fn encode_escaped(mut bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + END.len());
    while let Some(zero) = find_zero(bytes) {
        let (run, rest) = bytes.split_at(zero + 1);
        out.extend_from_slice(run);
        out.push(ESCAPE);
        bytes = rest;
        // Numbers in binary have their zeros side by side; a search for each would cost ten times as much.
        while let Some((0, rest)) = bytes.split_first() {
            out.extend_from_slice(&[0, ESCAPE]);
            bytes = rest;
        }
    }
    out.extend_from_slice(bytes);
}

fn take_escaped(input: &mut &[u8]) -> Result<Vec<u8>, CastError> {
    let mut value = Vec::new();
    loop {
        let zero = if input.first() == Some(&0) { 0 } else { find_zero(input).ok_or_else(short)? };
        let (run, rest) = input.split_at(zero);
        value.extend_from_slice(run);
        match rest.split_first_chunk::<2>() {
            Some((&END, rest)) => {
                *input = rest;
                return Ok(value);
            }
            Some((&[0, ESCAPE], rest)) => {
                value.push(0);
                *input = rest;
            }
            Some(_) => {
                return Err(CastError::new(
                    "a zero byte in the key is followed by neither an end nor an escape",
                ));
            }
            None => return Err(short()),
        }
    }
}

macro_rules! integer_keys {
    ($($signed:ident $unsigned:ident $signed_type:ident $unsigned_type:ident),*) => {$(
        impl Key for $unsigned {
            fn key_type() -> KeyType {
                KeyType::$unsigned_type
            }
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            #[inline]
            fn take(input: &mut &[u8]) -> Result<Self, CastError> {
                Ok($unsigned::from_be_bytes(take_array(input)?))
            }
        }
        impl Key for $signed {
            fn key_type() -> KeyType {
                KeyType::$signed_type
            }
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                (*self ^ $signed::MIN).cast_unsigned().encode(out);
            }
            #[inline]
            fn take(input: &mut &[u8]) -> Result<Self, CastError> {
                Ok($unsigned::take(input)?.cast_signed() ^ $signed::MIN)
            }
        }
    )*};
}
integer_keys!(i8 u8 I8 U8, i16 u16 I16 U16, i32 u32 I32 U32, i64 u64 I64 U64, i128 u128 I128 U128);

macro_rules! float_keys {
    ($($float:ident $bits:ident $float_type:ident),*) => {$(
        /// In the order of `total_cmp`: `-0.0` and `0.0` are two keys, and a NaN is a key like any other.
        impl Key for $float {
            fn key_type() -> KeyType {
                KeyType::$float_type
            }
            fn encode(&self, out: &mut Vec<u8>) {
                let bits = self.to_bits();
                let top = 1 << ($bits::BITS - 1);
                (if bits & top == 0 { bits | top } else { !bits }).encode(out);
            }
            fn take(input: &mut &[u8]) -> Result<Self, CastError> {
                let bits = $bits::take(input)?;
                let top = 1 << ($bits::BITS - 1);
                Ok($float::from_bits(if bits & top == 0 { !bits } else { bits ^ top }))
            }
        }
    )*};
}
float_keys!(f32 u32 F32, f64 u64 F64);

impl Key for bool {
    fn key_type() -> KeyType {
        KeyType::Bool
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut &[u8]) -> Result<Self, CastError> {
        match take_array(input)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(CastError::new(format!("{other} is not a truth value"))),
        }
    }
}

impl Key for char {
    fn key_type() -> KeyType {
        KeyType::Char
    }
    fn encode(&self, out: &mut Vec<u8>) {
        u32::from(*self).encode(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, CastError> {
        let number = u32::take(input)?;
        char::from_u32(number).ok_or_else(|| CastError::new(format!("{number:#x} is not a character")))
    }
}

impl Key for String {
    fn key_type() -> KeyType {
        KeyType::Str
    }
    fn encode(&self, out: &mut Vec<u8>) {
        encode_escaped(self.as_bytes(), out);
        out.extend_from_slice(&END);
    }
    fn take(input: &mut &[u8]) -> Result<Self, CastError> {
        String::from_utf8(take_escaped(input)?)
            .map_err(|e| CastError::new(format!("the key is not text: {e}")))
    }
}

impl Key for Vec<u8> {
    fn key_type() -> KeyType {
        KeyType::Bytes
    }
    fn encode(&self, out: &mut Vec<u8>) {
        encode_escaped(self, out);
        out.extend_from_slice(&END);
    }
    fn take(input: &mut &[u8]) -> Result<Self, CastError> {
        take_escaped(input)
    }
}

impl KeyPrefix<String> for str {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        encode_escaped(self.as_bytes(), out);
    }
}

impl KeyPrefix<Vec<u8>> for [u8] {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        encode_escaped(self, out);
    }
}

impl<const N: usize> Key for [u8; N] {
    fn key_type() -> KeyType {
        // No engine takes a key of 4 GiB.
        KeyType::ByteArray(u32::try_from(N).unwrap_or(u32::MAX))
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn take(input: &mut &[u8]) -> Result<Self, CastError> {
        take_array(input)
    }
}

impl<K: Key> Key for Option<K> {
    fn key_type() -> KeyType {
        KeyType::Option(Box::new(K::key_type()))
    }
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(key) => {
                out.push(1);
                key.encode(out);
            }
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, CastError> {
        if bool::take(input)? { K::take(input).map(Some) } else { Ok(None) }
    }
}

macro_rules! tuple_keys {
    ($($($name:ident)+,)*) => {$(
        impl<$($name: Key),+> Key for ($($name,)+) {
            fn key_type() -> KeyType {
                KeyType::Tuple(vec![$($name::key_type()),+])
            }
            fn encode(&self, out: &mut Vec<u8>) {
                #[allow(non_snake_case, reason = "the type's name serves as the member's")]
                let ($($name,)+) = self;
                $($name.encode(out);)+
            }
            fn take(input: &mut &[u8]) -> Result<Self, CastError> {
                Ok(($($name::take(input)?,)+))
            }
        }
    )*};
}
tuple_keys!(A, A B, A B C, A B C D, A B C D E, A B C D E F,);

macro_rules! tuple_prefixes {
    ($($($first:ident)+ | $($rest:ident)+,)*) => {$(
        impl<$($first: Key,)+ $($rest: Key),+> KeyPrefix<($($first,)+ $($rest,)+)> for ($($first,)+) {
            fn encode_prefix(&self, out: &mut Vec<u8>) {
                self.encode(out);
            }
        }
    )*};
}
tuple_prefixes!(
    A | B, A | B C, A | B C D, A | B C D E, A | B C D E F, A B | C, A B | C D, A B | C D E, A B | C D E F,
    A B C | D, A B C | D E, A B C | D E F, A B C D | E, A B C D | E F, A B C D E | F,
);

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
