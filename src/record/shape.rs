//! The shape of a version: what its bytes consist of, as data that outlives the Rust type.
//!
//! A shape is stored in the catalog for every version that a table has seen. It serves three purposes: a type
//! that changed without a new version is refused, naming the [difference](Shape::difference); a version that
//! changed nothing on disk is [recognised](Shape::layout_eq); and records can be shown without their Rust type.
//!
//! # How a type is seen
//!
//! serde types are asked to deserialize themselves from a source that answers every question with an invented value
//! and writes down what was asked, again and again until every variant of every enum was seen. That
//! shows what *decoding* reads: structs, enums (also inside options, lists and maps), generics, recursion,
//! `#[serde(rename, alias, skip, from, into, transparent, with)]`, and of the standard library all that serde covers,
//! addresses, durations, times and non-zero numbers included.
//!
//! What it cannot see by itself is a type that checks the *value* it is given (a mail address that must have an `@`):
//! the invented value is refused. A [sample](Describe::sample) of that type, or of the whole record,
//! mends it. What no sample can mend is a type that asks its input what it is (`untagged`, `tag`, `flatten`,
//! `serde_json::Value`): bincode cannot decode it either. Such a type needs its own `Version::encode` and
//! `Version::decode`, and then an [explicit](Describe::explicit) description. Neither case passes silently: the
//! error says where in the type it got stuck, and what to add.
//!
//! A `Deserialize` that panics on a value that it does not like panics here too.
//!
//! # What is written must be what is read
//!
//! bincode writes no names: a field or variant that one side of a type skips shifts everything behind it. So when a
//! table is opened, values of its types are made (each variant of each enum, each field with a usual and an unusual
//! value: zero, `None`, an empty list), written, compared in names, numbers and order with what is read, encoded,
//! decoded and compared again. A type whose two sides part is refused, by the name of the field or variant:
//! `skip_serializing` or `skip_deserializing` alone, `skip_serializing_if`, a skipped variant before others, `tag` on a
//! struct, different names for the two sides, conversions that do not undo each other.
//!
//! Not seen are values that the type refuses when they are made, a last variant with `skip_deserializing`, and
//! conditions that hold for rare values only. [`Options::check_writes`](crate::Options::check_writes) looks at each
//! record (it is on for a table whose types take none of the values), and `Store::verify` decodes every stored one by its
//! shape.
//!
//! `serde-reflection` 0.6 was tried for this. Of an enum inside a record it sees one variant,
//! unless every such enum is named by hand; it confuses types of the same name (two instances of one
//! generic are a conflict); a sample does not help where a string is validated by `try_from`; and an enum whose first
//! variant is recursive overflows its stack, which would end the process when a table is opened.
//!
//! # What counts
//!
//! Names of fields and variants count: a renamed field is most often a changed meaning. Names of types
//! do not: `UserV1` may become `User`. [`Shape::layout_eq`] ignores all names, and also how
//! members are grouped, because the bytes do.

mod describe;
mod difference;
mod examine;
mod fits;
mod key;
mod seen;
mod source;
mod stop;
mod stored;
mod text;
mod trace;
mod written;

use serde::{Deserialize, Serialize};

pub use describe::Describe;
pub(crate) use describe::Described;
pub(crate) use examine::{Examined, examine};
pub use key::KeyType;
pub(crate) use stored::check as check_stored;
pub(crate) use written::written;

/// The shape of one version's type. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    root: ShapeNode,
    /// Named types, in the order in which the root's fields lead to them.
    types: Vec<ShapeType>,
}

/// One place in a shape.
///
/// Stored in the catalog by the position of the variant: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the variants are the types of Rust and serde of the same name")]
pub enum ShapeNode {
    /// Not seen. No finished shape has it.
    Unknown,
    Unit,
    Bool,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Str,
    Bytes,
    Option(Box<ShapeNode>),
    /// A list with its length before it.
    Seq(Box<ShapeNode>),
    /// Pairs of key and value with their number before them.
    Map(Box<ShapeNode>, Box<ShapeNode>),
    Tuple(Vec<ShapeNode>),
    /// A tuple of equal members: the number is not in the bytes.
    Array(Box<ShapeNode>, u32),
    /// A named type, by its position in [`Shape::types`].
    Named(u32),
    /// A description in words, of a type with its own codec.
    Explicit(String),
}

/// A named type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeType {
    /// The name that serde knows. It does not count.
    pub name: String,
    /// What it consists of.
    pub body: ShapeBody,
}

/// What a named type, or a variant of an enum, consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ShapeBody {
    /// Nothing; no bytes.
    Unit,
    /// One unnamed member.
    NewType(ShapeNode),
    /// Unnamed members.
    Tuple(Vec<ShapeNode>),
    /// Named fields.
    Struct(Vec<ShapeField>),
    /// One of several variants, its index before it. Not in a variant.
    Enum(Vec<ShapeVariant>),
}

/// A field of a struct.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeField {
    /// The name.
    pub name: String,
    /// The type.
    pub node: ShapeNode,
}

/// A variant of an enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeVariant {
    /// The number in the bytes.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The content.
    pub body: ShapeBody,
}

impl Shape {
    /// The root.
    pub fn root(&self) -> &ShapeNode {
        &self.root
    }

    /// The named types to which [`ShapeNode::Named`] refers.
    pub fn types(&self) -> &[ShapeType] {
        &self.types
    }

    /// The named type at a position, if the shape is whole (one from a damaged catalog may not be).
    pub fn named(&self, index: u32) -> Option<&ShapeType> {
        self.types.get(usize::try_from(index).ok()?)
    }

    /// A hash of all that counts: equal fingerprints, equal shapes but for the names of types.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("exuvia shape 1");
        hasher.update(text::canonical(self).as_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// For people, on one line: the root, then the types that it names.
impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&text::readable(self))
    }
}

#[cfg(test)]
mod tests;
