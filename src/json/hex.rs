//! Bytes in hexadecimal: `{"hex": "00ff"}`, or the text alone.

use serde_json::{Value, json};

use crate::error::CastError;

pub(super) fn text(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

pub(super) fn bytes(text: &str) -> Result<Vec<u8>, CastError> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    text.as_bytes()
        .chunks(2)
        .map(pair)
        .collect::<Option<_>>()
        .ok_or_else(|| CastError::new("expected pairs of hexadecimal digits"))
}

/// What stands for bytes that cannot be shown otherwise.
pub(super) fn marked(bytes: &[u8]) -> Value {
    json!({ "hex": text(bytes) })
}

pub(super) fn of_marked(value: &Value) -> Result<Vec<u8>, CastError> {
    match value.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("hex")?.as_str())
    {
        Some(text) => bytes(text),
        None => Err(CastError::new("expected {\"hex\": \"…\"}: it has an encoding of its own")),
    }
}
