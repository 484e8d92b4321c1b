//! The type of a table's keys, as text that outlives the Rust type.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::CastError;

/// The deepest nesting of options and tuples.
const DEPTH_MAX: u32 = 32;

/// The type of a table's keys: what [`Key::key_type`](crate::Key::key_type) answers and the catalog keeps.
///
/// Written as in Rust, and stored as that text: `u64`, `String`, `Vec<u8>`, `[u8; 16]`, `Option<u32>`,
/// `(String, u32)`.
///
/// ```
/// use exuvia::Key;
/// use exuvia::shape::KeyType;
///
/// let sensors = <(String, Option<u32>)>::key_type();
/// assert_eq!(sensors.to_string(), "(String, Option<u32>)");
/// assert_eq!("(String, Option<u32>)".parse::<KeyType>()?, sensors);
/// # Ok::<(), exuvia::CastError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the variants are the types of Rust of the same name")]
pub enum KeyType {
    U8,
    U16,
    U32,
    U64,
    U128,
    I8,
    I16,
    I32,
    I64,
    I128,
    F32,
    F64,
    Bool,
    Char,
    /// `String`.
    Str,
    /// `Vec<u8>`.
    Bytes,
    /// `[u8; N]`.
    ByteArray(u32),
    Option(Box<KeyType>),
    Tuple(Vec<KeyType>),
    /// A type with an encoding of its own that does not say what it is. It cannot be told from any other, and is
    /// shown as bytes. Written `custom`.
    Custom,
}

/// The types without a part.
const SIMPLE: [(&str, KeyType); 17] = [
    ("u8", KeyType::U8),
    ("u16", KeyType::U16),
    ("u32", KeyType::U32),
    ("u64", KeyType::U64),
    ("u128", KeyType::U128),
    ("i8", KeyType::I8),
    ("i16", KeyType::I16),
    ("i32", KeyType::I32),
    ("i64", KeyType::I64),
    ("i128", KeyType::I128),
    ("f32", KeyType::F32),
    ("f64", KeyType::F64),
    ("bool", KeyType::Bool),
    ("char", KeyType::Char),
    ("String", KeyType::Str),
    ("Vec<u8>", KeyType::Bytes),
    ("custom", KeyType::Custom),
];

impl KeyType {
    /// Whether any part is [`KeyType::Custom`].
    pub fn is_custom(&self) -> bool {
        match self {
            KeyType::Custom => true,
            KeyType::Option(inner) => inner.is_custom(),
            KeyType::Tuple(members) => members.iter().any(KeyType::is_custom),
            _ => false,
        }
    }

    /// Whether keys of both types may be the same bytes: they are equal, or one cannot be known.
    pub(crate) fn fits(&self, other: &KeyType) -> bool {
        self == other || self.is_custom() || other.is_custom()
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyType::ByteArray(len) => write!(f, "[u8; {len}]"),
            KeyType::Option(inner) => write!(f, "Option<{inner}>"),
            KeyType::Tuple(members) => {
                f.write_str("(")?;
                for (position, member) in members.iter().enumerate() {
                    write!(f, "{}{member}", if position == 0 { "" } else { ", " })?;
                }
                // As Rust writes a tuple of one.
                f.write_str(if members.len() == 1 { ",)" } else { ")" })
            }
            simple => {
                let name = SIMPLE.iter().find(|(_, of)| of == simple).map_or("", |(name, _)| *name);
                f.write_str(name)
            }
        }
    }
}

impl From<KeyType> for String {
    fn from(key: KeyType) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for KeyType {
    type Error = CastError;

    fn try_from(text: String) -> Result<Self, CastError> {
        text.parse()
    }
}

impl FromStr for KeyType {
    type Err = CastError;

    fn from_str(text: &str) -> Result<Self, CastError> {
        let mut rest = text;
        match parse(&mut rest, DEPTH_MAX) {
            Some(key) if rest.is_empty() => Ok(key),
            _ => Err(CastError::new(format!(
                "{:?} is not a type of keys that this release knows",
                text.chars().take(200).collect::<String>()
            ))),
        }
    }
}

/// Takes one type from the front.
fn parse(rest: &mut &str, depth: u32) -> Option<KeyType> {
    if let Some((name, simple)) = SIMPLE.iter().find(|(name, _)| starts_with_word(rest, name)) {
        take(rest, name)?;
        return Some(simple.clone());
    }
    let deeper = depth.checked_sub(1)?;
    if take(rest, "Option<").is_some() {
        let inner = parse(rest, deeper)?;
        take(rest, ">")?;
        return Some(KeyType::Option(Box::new(inner)));
    }
    if take(rest, "[u8; ").is_some() {
        let (len, after) = rest.split_once(']')?;
        let number: u32 = len.parse().ok()?;
        *rest = after;
        // One way to write each: texts are compared.
        return (number.to_string() == len).then_some(KeyType::ByteArray(number));
    }
    take(rest, "(")?;
    let mut members = Vec::new();
    while take(rest, ")").is_none() {
        if !members.is_empty() && take(rest, ", ").is_none() {
            return (members.len() == 1 && take(rest, ",)").is_some()).then_some(KeyType::Tuple(members));
        }
        members.push(parse(rest, deeper)?);
    }
    (members.len() > 1).then_some(KeyType::Tuple(members))
}

fn take(rest: &mut &str, token: &str) -> Option<()> {
    *rest = rest.strip_prefix(token)?;
    Some(())
}

/// `u8` is the beginning of no other name, `u1` would be.
fn starts_with_word(rest: &str, name: &str) -> bool {
    rest.strip_prefix(name).is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::key::Key;

    fn text<K: Key>() -> String {
        K::key_type().to_string()
    }

    #[test]
    fn a_type_is_written_as_in_rust_and_read_back() {
        let texts = [
            text::<u8>(),
            text::<i128>(),
            text::<f64>(),
            text::<char>(),
            text::<String>(),
            text::<Vec<u8>>(),
            text::<[u8; 16]>(),
            text::<Option<bool>>(),
            text::<(String,)>(),
            text::<(u8, (i8, Option<[u8; 0]>), Vec<u8>)>(),
        ];
        assert_eq!(texts[8], "(String,)");
        assert_eq!(texts[9], "(u8, (i8, Option<[u8; 0]>), Vec<u8>)");
        for text in texts {
            assert_eq!(text.parse::<KeyType>().unwrap().to_string(), text);
        }
        for (name, key) in SIMPLE {
            assert_eq!(name.parse::<KeyType>().unwrap(), key);
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        let deep = format!("{}u8{}", "Option<".repeat(40), ">".repeat(40));
        let bomb = "(".repeat(1_000_000);
        for text in
            ["", "u9", "u81", "usize", "(u8)", "()", "(u8,u8)", "(u8, )", "[u8; 01]", "[u8; x]", "u8 "]
                .into_iter()
                .chain([deep.as_str(), &bomb])
        {
            assert!(text.parse::<KeyType>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_known_fits_everything() {
        let parse = |text: &str| text.parse::<KeyType>().unwrap();
        assert!(!parse("u64").fits(&parse("i64")));
        assert!(parse("(custom, u8)").fits(&parse("String")));
    }
}
