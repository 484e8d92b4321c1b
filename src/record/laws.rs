//! Checks the laws of a version's casts on records of your own.
//!
//! The laws are those of [`Version`]; they make the moment at which the backfill passes a record
//! unobservable. A test in your crate that calls [`check`] with a handful of records, or with generated ones,
//! finds a lossy `downcast` before a rollback does.
//!
//! ```
//! use exuvia::{CastError, Origin, Version, laws};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct UserV1 {
//!     name: String,
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct UserV2 {
//!     name: String,
//!     age: Option<u8>,
//! }
//! # impl Version for UserV1 {
//! #     const VERSION: u32 = 1;
//! #     type Previous = Origin;
//! #     fn upcast(previous: Origin) -> Result<Self, CastError> { previous.never() }
//! #     fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> { Origin::nothing_below() }
//! # }
//!
//! impl Version for UserV2 {
//!     const VERSION: u32 = 2;
//!     type Previous = UserV1;
//!     fn upcast(previous: UserV1) -> Result<Self, CastError> {
//!         Ok(UserV2 { name: previous.name, age: None })
//!     }
//!     fn downcast(&self, _: Option<UserV1>) -> Result<UserV1, CastError> {
//!         Ok(UserV1 { name: self.name.clone() })
//!     }
//!     fn merge(previous: UserV1, last: Self) -> Result<Option<Self>, CastError> {
//!         Ok(Some(UserV2 { name: previous.name, age: last.age }))
//!     }
//! }
//!
//! let previous = [UserV1 { name: "Ada".into() }, UserV1 { name: String::new() }];
//! let current = [UserV2 { name: "Grace".into(), age: Some(85) }];
//! laws::check(&previous, &current)?;
//! # Ok::<(), laws::LawBroken>(())
//! ```

use std::fmt;

pub use crate::error::Cast;
use crate::error::CastError;
use crate::record::codec;
use crate::record::version::{Origin, Version};

/// The laws of [`Version`], and the one of its codec on which the others stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Law {
    /// `encode(decode(encode(x))) = encode(x)`. A `HashMap` in the record breaks it.
    Codec,
    /// A type with an encoding of its own names it: [`Version::CODEC`]. It stands in the catalog, and by it records
    /// are read without their types.
    CodecName,
    /// Law 1: `downcast(upcast(f), f) = f`.
    UpcastKeeps,
    /// Law 2: `merge(downcast(t), t) = t`.
    MergeOfNothing,
    /// Law 3: `downcast(merge(f, t), f) = f`.
    MergeTakesPrevious,
    /// Law 4: `merge(f, merge(g, t)) = merge(f, t)`.
    MergeOfMerges,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Law::Codec => "encode(decode(encode(x))) = encode(x)",
            Law::CodecName => "an encode of its own has a CODEC of its own",
            Law::UpcastKeeps => "downcast(upcast(f), f) = f",
            Law::MergeOfNothing => "merge(downcast(t), t) = t",
            Law::MergeTakesPrevious => "downcast(merge(f, t), f) = f",
            Law::MergeOfMerges => "merge(f, merge(g, t)) = merge(f, t)",
        })
    }
}

/// A law that does not hold, and the records that show it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LawBroken {
    /// Which.
    pub law: Law,
    /// The version whose casts or codec broke it.
    pub version: u32,
    /// The position of `f` among the previous records, if the law is about one.
    pub previous: Option<usize>,
    /// The position of `g` among the previous records, in the fourth law.
    pub second_previous: Option<usize>,
    /// The position of `t` among the current records, if the law is about one.
    pub current: Option<usize>,
    /// What is wrong.
    pub reason: LawReason,
}

/// In which way a law does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LawReason {
    /// The two sides are different bytes.
    Differs {
        /// The encoding of the right side.
        expected: Vec<u8>,
        /// The encoding of the left side.
        found: Vec<u8>,
    },
    /// A cast refused the record.
    Cast(Cast, CastError),
    /// The record cannot be encoded or decoded.
    Codec(CastError),
}

impl fmt::Display for LawBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {}: {} does not hold", self.version, self.law)?;
        let samples = [
            ("f = previous", self.previous),
            ("g = previous", self.second_previous),
            ("t = current", self.current),
        ];
        for (name, position) in samples {
            if let Some(position) = position {
                write!(f, ", {name}[{position}]")?;
            }
        }
        match &self.reason {
            LawReason::Differs { expected, found } => {
                let bytes = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
                write!(f, ": expected the bytes {}, found {}", bytes(expected), bytes(found))?;
                if self.law == Law::Codec {
                    f.write_str(" (a map or set with a random order? use `BTreeMap` or `BTreeSet`)")?;
                }
                Ok(())
            }
            LawReason::Cast(cast, error) => write!(f, ": {cast} refused: {error}"),
            LawReason::Codec(error) => write!(f, ": {error}"),
        }
    }
}

impl std::error::Error for LawBroken {}

/// Checks the four laws, and that of the codec, on every combination of the records. The first failure is the
/// answer. Costs (previous)² × current merges: a handful of records is enough.
///
/// Where [`Version::merge`] answers `None`, the default rule of the store is taken, and the fourth law is not asked
/// for: the default drops what only `t` held as soon as an older writer changes the record, so it cannot hold
/// (with `f = downcast(t)`, a `g` in between makes the difference). Write a `merge` if that matters. A `downcast` or `merge` that refuses one of the records is a failure too: give records that the
/// casts accept, and test the refusals by themselves.
pub fn check<V: Version>(previous: &[V::Previous], current: &[V]) -> Result<(), LawBroken> {
    let previous =
        encode_all::<V::Previous>(previous, |position| Place { f: Some(position), ..Place::NONE })?;
    let current = encode_all::<V>(current, |position| Place { t: Some(position), ..Place::NONE })?;
    if V::Previous::VERSION == Origin::VERSION {
        // The oldest version has no casts.
        return Ok(());
    }
    for (i, f) in previous.iter().enumerate() {
        let place = Place { f: Some(i), ..Place::NONE };
        let law = Law::UpcastKeeps;
        place.same::<V>(law, f, upcast::<V>(f).and_then(|up| downcast::<V>(&up, f)))?;
    }
    for (k, t) in current.iter().enumerate() {
        let place = Place { t: Some(k), ..Place::NONE };
        // Without a last form: a record that was written at this version and never had one.
        let down = V::decode(t).map_err(LawReason::Codec).and_then(|t| downcast_from(&t, None));
        let merged = down.and_then(|down| merge::<V>(&down, t));
        place.same::<V>(Law::MergeOfNothing, t, merged.map(|merged| merged.bytes))?;
        for (i, f) in previous.iter().enumerate() {
            let place = Place { f: Some(i), ..place };
            let merged = place.whole::<V, _>(Law::MergeTakesPrevious, merge::<V>(f, t))?;
            place.same::<V>(Law::MergeTakesPrevious, f, downcast::<V>(&merged.bytes, f))?;
            for (j, g) in previous.iter().enumerate() {
                let place = Place { g: Some(j), ..place };
                let law = Law::MergeOfMerges;
                let inner = place.whole::<V, _>(law, merge::<V>(g, t))?;
                let outer = place.whole::<V, _>(law, merge::<V>(f, &inner.bytes))?;
                if !(merged.by_default || inner.by_default || outer.by_default) {
                    place.same::<V>(law, &merged.bytes, Ok(outer.bytes))?;
                }
            }
        }
    }
    Ok(())
}

/// The positions of the records that a law is tried on.
#[derive(Clone, Copy)]
struct Place {
    f: Option<usize>,
    g: Option<usize>,
    t: Option<usize>,
}

impl Place {
    const NONE: Place = Place { f: None, g: None, t: None };

    fn broken<V: Version>(self, law: Law, reason: LawReason) -> LawBroken {
        LawBroken {
            law,
            version: V::VERSION,
            previous: self.f,
            second_previous: self.g,
            current: self.t,
            reason,
        }
    }

    fn whole<V: Version, T>(self, law: Law, result: Result<T, LawReason>) -> Result<T, LawBroken> {
        result.map_err(|reason| self.broken::<V>(law, reason))
    }

    fn same<V: Version>(
        self,
        law: Law,
        expected: &[u8],
        found: Result<Vec<u8>, LawReason>,
    ) -> Result<(), LawBroken> {
        let found = self.whole::<V, _>(law, found)?;
        if found == expected {
            return Ok(());
        }
        Err(self.broken::<V>(law, LawReason::Differs { expected: expected.to_vec(), found }))
    }
}

fn encode<T: Version>(record: &T) -> Result<Vec<u8>, LawReason> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes).map_err(LawReason::Codec)?;
    Ok(bytes)
}

fn encode_all<T: Version>(records: &[T], place: impl Fn(usize) -> Place) -> Result<Vec<Vec<u8>>, LawBroken> {
    let encode_one = |(position, record)| {
        let place = place(position);
        let bytes = place.whole::<T, _>(Law::Codec, encode::<T>(record))?;
        let again = T::decode(&bytes).map_err(LawReason::Codec).and_then(|copy| encode(&copy));
        place.same::<T>(Law::Codec, &bytes, again)?;
        if T::CODEC == codec::BINCODE {
            let mut by_bincode = Vec::new();
            let encoded = codec::encode(record, &mut by_bincode).map_err(LawReason::Codec);
            place.same::<T>(Law::CodecName, &by_bincode, encoded.map(|()| bytes.clone()))?;
        }
        Ok(bytes)
    };
    records.iter().enumerate().map(encode_one).collect()
}

// A record is handed over as bytes and decoded where it is needed: types need not be `Clone`.

fn upcast<V: Version>(f: &[u8]) -> Result<Vec<u8>, LawReason> {
    let f = V::Previous::decode(f).map_err(LawReason::Codec)?;
    encode(&V::upcast(f).map_err(|e| LawReason::Cast(Cast::Upcast, e))?)
}

fn downcast<V: Version>(t: &[u8], last: &[u8]) -> Result<Vec<u8>, LawReason> {
    let last =
        if V::DROPS_FIELDS { Some(V::Previous::decode(last).map_err(LawReason::Codec)?) } else { None };
    downcast_from(&V::decode(t).map_err(LawReason::Codec)?, last)
}

fn downcast_from<V: Version>(t: &V, last: Option<V::Previous>) -> Result<Vec<u8>, LawReason> {
    encode(&t.downcast(last).map_err(|e| LawReason::Cast(Cast::Downcast, e))?)
}

struct Merged {
    bytes: Vec<u8>,
    by_default: bool,
}

/// The default rule, where the type has none: keep `t` if its downcast is `f`, else upcast `f`.
fn merge<V: Version>(f: &[u8], t: &[u8]) -> Result<Merged, LawReason> {
    let previous = V::Previous::decode(f).map_err(LawReason::Codec)?;
    let last = V::decode(t).map_err(LawReason::Codec)?;
    if let Some(merged) = V::merge(previous, last).map_err(|e| LawReason::Cast(Cast::Merge, e))? {
        return Ok(Merged { bytes: encode(&merged)?, by_default: false });
    }
    let bytes = if downcast::<V>(t, f)? == f { t.to_vec() } else { upcast::<V>(f)? };
    Ok(Merged { bytes, by_default: true })
}

#[cfg(test)]
#[path = "laws_tests.rs"]
mod tests;
