//! Records and keys as JSON, by the stored shapes: no Rust type is needed (feature `json`).
//!
//! The form is that of `serde_json` for the same type, as far as bytes can tell: structs are objects, enums are tagged
//! from outside (`"Unit"`, `{"Newtype": …}`, `{"Tuple": […]}`, `{"Struct": {…}}`), `None` and units are `null`, tuples,
//! lists and bytes are arrays, a `char` is a string. **JSON to bytes gives exactly the bytes that it came from.** For
//! that, what `serde_json` would lose is written differently:
//!
//! | value | JSON |
//! |---|---|
//! | NaN, infinities | `"NaN"`, `"Infinity"`, `"-Infinity"`; a NaN with other bits `"NaN:"` and its bits in hexadecimal |
//! | `u128`, `i128` beyond 64 bits | a string of decimal digits |
//! | `Some(x)` where `x` itself may be `null` | `{"Some": x}` |
//! | maps whose keys are no strings, integers, `bool`, `char` or enums of units only, and maps that are not in the order of a `BTreeMap` | an array of pairs |
//! | fields that have aliases | all names, with a vertical bar between: which one is written is not in the shape |
//!
//! A type that has a form of its own for human readers (an address, a UUID) is shown in its binary form.
//! Records of a [codec](crate::Version::CODEC) of their own, or with an [explicit](crate::shape::Describe::explicit)
//! description, are `{"hex": "…"}`; so are keys of a type that does not say what it is.
//!
//! Limits: [`VALUE_BYTES_MAX`], 256 levels, and a million elements more than there are bytes. A value takes up to 40
//! times its bytes of memory. JSON text of more than 127 levels cannot be read back.

mod file;
mod hex;
mod key;
mod number;
mod read;
mod rows;
mod write;

use serde_json::Value;

pub use file::{Export, Import};
pub use key::{decode_key, encode_key, key_of_text};
pub use rows::{Row, Rows, Scan};

use crate::error::CastError;
#[cfg(doc)]
use crate::record::codec::VALUE_BYTES_MAX;
use crate::record::shape::{Shape, ShapeBody, ShapeNode};

/// Nesting, newtypes included. The codec allows less.
const DEPTH_MAX: u32 = 256;

/// The record whose [`codec::BINCODE`](crate::record::codec::BINCODE) bytes these are. Every byte must be used.
///
/// ```
/// use exuvia::{codec, json};
/// use exuvia::shape::Shape;
/// # use exuvia::{CastError, Origin, Version};
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct User { name: String, age: Option<u8> }
/// # impl Version for User {
/// #     const VERSION: u32 = 1;
/// #     type Previous = Origin;
/// #     fn upcast(o: Origin) -> Result<Self, CastError> { o.never() }
/// #     fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> { Origin::nothing_below() }
/// # }
///
/// let shape = Shape::of::<User>()?;
/// let mut bytes = Vec::new();
/// codec::encode(&User { name: "Ada".into(), age: Some(36) }, &mut bytes)?;
/// let value = json::decode(&shape, &bytes)?;
/// assert_eq!(value.to_string(), r#"{"age":36,"name":"Ada"}"#);
/// assert_eq!(json::encode(&shape, &value)?, bytes);
/// # Ok::<(), CastError>(())
/// ```
///
/// # Errors
///
/// Bytes of another shape or codec, a shape of words only, a limit.
pub fn decode(shape: &Shape, bytes: &[u8]) -> Result<Value, CastError> {
    read::decode(shape, bytes)
}

/// The bytes of a record, by [`codec::BINCODE`](crate::record::codec::BINCODE).
///
/// # Errors
///
/// JSON that does not have the shape; the message says where.
pub fn encode(shape: &Shape, value: &Value) -> Result<Vec<u8>, CastError> {
    write::encode(shape, value)
}

/// Reads JSON, as all input to this module is read: a name that is there twice in an object is an error, at every depth.
///
/// # Errors
///
/// Text that is not one JSON value, or a name that is there twice; the message says which.
pub fn parse(text: &[u8]) -> Result<Value, CastError> {
    crate::strict::parse(text).map_err(|e| CastError::new(e.to_string()))
}

/// Whether the JSON of a node can be `null`.
fn nullable(shape: &Shape, node: &ShapeNode) -> bool {
    let mut node = node;
    for _ in 0..DEPTH_MAX {
        match node {
            ShapeNode::Unit | ShapeNode::Option(_) => return true,
            ShapeNode::Named(index) => match shape.named(*index).map(|named| &named.body) {
                Some(ShapeBody::Unit) => return true,
                Some(ShapeBody::NewType(inner)) => node = inner,
                _ => return false,
            },
            _ => return false,
        }
    }
    false
}

/// Whether a node can be the name of a member of an object.
fn is_name(shape: &Shape, node: &ShapeNode) -> bool {
    use ShapeNode as N;
    let mut node = node;
    for _ in 0..DEPTH_MAX {
        match node {
            N::U8 | N::U16 | N::U32 | N::U64 | N::U128 | N::I8 | N::I16 | N::I32 | N::I64 | N::I128 => {
                return true;
            }
            N::Bool | N::Char | N::Str => return true,
            N::Named(index) => match shape.named(*index).map(|named| &named.body) {
                Some(ShapeBody::Enum(variants)) => {
                    return variants.iter().all(|variant| variant.body == ShapeBody::Unit);
                }
                Some(ShapeBody::NewType(inner)) => node = inner,
                _ => return false,
            },
            _ => return false,
        }
    }
    false
}

/// Names in the order in which a `BTreeMap` keeps what they stand for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Bool(bool),
    Negative(i128),
    Number(u128),
    Text(String),
    Variant(u32),
}

/// The rank of a name: of a JSON value of a node that [`is_name`].
fn rank(shape: &Shape, node: &ShapeNode, value: &Value) -> Option<Rank> {
    let mut node = node;
    for _ in 0..DEPTH_MAX {
        match (node, value) {
            (ShapeNode::Named(index), _) => match &shape.named(*index)?.body {
                ShapeBody::NewType(inner) => node = inner,
                ShapeBody::Enum(variants) => {
                    let name = value.as_str()?;
                    return variants
                        .iter()
                        .find(|variant| variant.name == name)
                        .map(|v| Rank::Variant(v.index));
                }
                _ => return None,
            },
            (ShapeNode::Char | ShapeNode::Str, Value::String(text)) => return Some(Rank::Text(text.clone())),
            (_, Value::Bool(truth)) => return Some(Rank::Bool(*truth)),
            _ => {
                let negative = number::wide::<i128>(value).filter(|number| *number < 0);
                let number = || number::wide::<u128>(value).map(Rank::Number);
                return negative.map(Rank::Negative).or_else(number);
            }
        }
    }
    None
}

/// The JSON value that a name stands for: `"5"` is 5 if the node is a number.
fn named_value(shape: &Shape, node: &ShapeNode, name: &str) -> Value {
    let mut node = node;
    for _ in 0..DEPTH_MAX {
        match node {
            ShapeNode::Named(index) => match shape.named(*index).map(|named| &named.body) {
                Some(ShapeBody::NewType(inner)) => node = inner,
                _ => break,
            },
            ShapeNode::Char | ShapeNode::Str => break,
            ShapeNode::Bool => return name.parse().map_or_else(|_| name.into(), Value::Bool),
            _ => return number::of_digits(name).unwrap_or_else(|| name.into()),
        }
    }
    name.into()
}

/// The name of a value of a node that [`is_name`].
fn name_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn no_shape() -> CastError {
    CastError::new("it has a codec of its own, and no shape by which it could be read")
}

fn damaged_shape() -> CastError {
    CastError::new("its shape is damaged")
}

fn too_deep() -> CastError {
    CastError::new(format!("it nests deeper than {DEPTH_MAX} levels"))
}

/// An error of a part, with the place before it.
fn within(place: impl std::fmt::Display) -> impl FnOnce(CastError) -> CastError {
    // Of a deep place the inner parts are enough.
    move |e| if e.message().len() > 300 { e } else { CastError::new(format!("{place}: {}", e.message())) }
}

#[cfg(test)]
mod tests;
