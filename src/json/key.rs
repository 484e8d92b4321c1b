//! Keys as JSON, by their type.

use serde_json::{Map, Value};

use super::write::expected;
use super::{hex, number, within};
use crate::error::CastError;
use crate::record::key::{Key, KeyPrefix};
use crate::record::shape::KeyType;

/// The key whose bytes these are: integers and floats as numbers (those of 128 bits as strings if need be), text and
/// characters as strings, bytes as strings of hexadecimal digits, options as `null` or their value, tuples as arrays.
/// A key with a custom part is `{"hex": "…"}`.
///
/// # Errors
///
/// Bytes of another type.
pub fn decode_key(key: &KeyType, bytes: &[u8]) -> Result<Value, CastError> {
    if key.is_custom() {
        return Ok(hex::marked(bytes));
    }
    let mut rest = bytes;
    let value = take(key, &mut rest)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(CastError::new(format!("the key has {} bytes more than the type {key} takes", rest.len())))
    }
}

/// The bytes of a key.
///
/// # Errors
///
/// JSON of another type; the message says where.
pub fn encode_key(key: &KeyType, value: &Value) -> Result<Vec<u8>, CastError> {
    if key.is_custom() {
        return hex::of_marked(value);
    }
    let mut out = Vec::new();
    put(key, value, &mut out)?;
    Ok(out)
}

/// A key as it is typed on a command line: text, characters and bytes as they are, without quotation marks; all else
/// as JSON.
///
/// # Errors
///
/// Text that is no JSON.
pub fn key_of_text(key: &KeyType, text: &str) -> Result<Value, CastError> {
    let json = || {
        crate::strict::parse(text.as_bytes())
            .map_err(|e| CastError::new(format!("{text:?} is no key of type {key} as JSON: {e}")))
    };
    match key {
        custom if custom.is_custom() => Ok(Map::from_iter([("hex".to_owned(), text.into())]).into()),
        KeyType::Str | KeyType::Char | KeyType::Bytes | KeyType::ByteArray(_) => Ok(text.into()),
        // Not every one of them is a number in JSON.
        KeyType::U128 | KeyType::I128 => Ok(number::of_digits(text).unwrap_or_else(|| text.into())),
        KeyType::F32 | KeyType::F64 => json().or_else(|_| Ok(text.into())),
        _ => json(),
    }
}

/// The bytes with which all keys begin that begin with `text`: with this text, with these bytes, or with the first
/// members of the tuple, given as a JSON array.
///
/// # Errors
///
/// A type without beginnings, or a beginning of another type.
pub(super) fn encode_prefix(key: &KeyType, text: &str) -> Result<Vec<u8>, CastError> {
    let mut out = Vec::new();
    match key {
        custom if custom.is_custom() => return hex::bytes(text),
        KeyType::Str => text.encode_prefix(&mut out),
        KeyType::Bytes => hex::bytes(text)?.as_slice().encode_prefix(&mut out),
        KeyType::ByteArray(_) => return hex::bytes(text),
        KeyType::Tuple(members) => {
            let value = key_of_text(key, text)?;
            let first = value.as_array().filter(|first| first.len() <= members.len());
            let first = first.ok_or_else(|| expected("an array of the first members", &value))?;
            for (at, (member, value)) in members.iter().zip(first).enumerate() {
                put(member, value, &mut out).map_err(within(at))?;
            }
        }
        other => {
            return Err(CastError::new(format!("keys of type {other} have no beginnings; give a range")));
        }
    }
    Ok(out)
}

fn take(key: &KeyType, rest: &mut &[u8]) -> Result<Value, CastError> {
    Ok(match key {
        KeyType::U8 => u8::take(rest)?.into(),
        KeyType::U16 => u16::take(rest)?.into(),
        KeyType::U32 => u32::take(rest)?.into(),
        KeyType::U64 => u64::take(rest)?.into(),
        KeyType::U128 => number::integer(u128::take(rest)?),
        KeyType::I8 => i8::take(rest)?.into(),
        KeyType::I16 => i16::take(rest)?.into(),
        KeyType::I32 => i32::take(rest)?.into(),
        KeyType::I64 => i64::take(rest)?.into(),
        KeyType::I128 => number::integer(i128::take(rest)?),
        KeyType::F32 => number::float32(f32::take(rest)?),
        KeyType::F64 => number::float64(f64::take(rest)?),
        KeyType::Bool => bool::take(rest)?.into(),
        KeyType::Char => char::take(rest)?.to_string().into(),
        KeyType::Str => String::take(rest)?.into(),
        KeyType::Bytes => hex::text(&Vec::<u8>::take(rest)?).into(),
        KeyType::ByteArray(len) => {
            let split = rest.split_at_checked(*len as usize);
            let (bytes, after) = split.ok_or_else(|| CastError::new("the key ends before its type does"))?;
            *rest = after;
            hex::text(bytes).into()
        }
        KeyType::Option(inner) => match (bool::take(rest)?, &**inner) {
            (false, _) => Value::Null,
            (true, KeyType::Option(_)) => Map::from_iter([("Some".to_owned(), take(inner, rest)?)]).into(),
            (true, _) => take(inner, rest)?,
        },
        KeyType::Tuple(members) => {
            members.iter().map(|member| take(member, rest)).collect::<Result<Vec<_>, _>>()?.into()
        }
        KeyType::Custom => return Err(CastError::new("a part of the key has an encoding of its own")),
    })
}

fn put(key: &KeyType, value: &Value, out: &mut Vec<u8>) -> Result<(), CastError> {
    let wrong = || expected(&format!("a key of type {key}"), value);
    match key {
        KeyType::U8 => number::narrow::<u8>(value).ok_or_else(wrong)?.encode(out),
        KeyType::U16 => number::narrow::<u16>(value).ok_or_else(wrong)?.encode(out),
        KeyType::U32 => number::narrow::<u32>(value).ok_or_else(wrong)?.encode(out),
        KeyType::U64 => number::narrow::<u64>(value).ok_or_else(wrong)?.encode(out),
        KeyType::U128 => number::wide::<u128>(value).ok_or_else(wrong)?.encode(out),
        KeyType::I8 => number::narrow::<i8>(value).ok_or_else(wrong)?.encode(out),
        KeyType::I16 => number::narrow::<i16>(value).ok_or_else(wrong)?.encode(out),
        KeyType::I32 => number::narrow::<i32>(value).ok_or_else(wrong)?.encode(out),
        KeyType::I64 => number::narrow::<i64>(value).ok_or_else(wrong)?.encode(out),
        KeyType::I128 => number::wide::<i128>(value).ok_or_else(wrong)?.encode(out),
        KeyType::F32 => number::to_f32(value)?.encode(out),
        KeyType::F64 => number::to_f64(value)?.encode(out),
        KeyType::Bool => value.as_bool().ok_or_else(wrong)?.encode(out),
        KeyType::Char => {
            let mut chars = value.as_str().ok_or_else(wrong)?.chars();
            chars.next().filter(|_| chars.next().is_none()).ok_or_else(wrong)?.encode(out);
        }
        KeyType::Str => value.as_str().ok_or_else(wrong)?.to_owned().encode(out),
        KeyType::Bytes => hex::bytes(value.as_str().ok_or_else(wrong)?)?.encode(out),
        KeyType::ByteArray(len) => {
            let bytes = hex::bytes(value.as_str().ok_or_else(wrong)?)?;
            if bytes.len() != *len as usize {
                return Err(wrong());
            }
            out.extend_from_slice(&bytes);
        }
        KeyType::Option(inner) => {
            out.push(u8::from(!value.is_null()));
            match (value, &**inner) {
                (Value::Null, _) => {}
                (_, KeyType::Option(_)) => {
                    let some = value.as_object().filter(|object| object.len() == 1);
                    put(inner, some.and_then(|object| object.get("Some")).ok_or_else(wrong)?, out)?;
                }
                _ => put(inner, value, out)?,
            }
        }
        KeyType::Tuple(members) => {
            let values = value.as_array().filter(|values| values.len() == members.len()).ok_or_else(wrong)?;
            for (at, (member, value)) in members.iter().zip(values).enumerate() {
                put(member, value, out).map_err(within(at))?;
            }
        }
        KeyType::Custom => return Err(CastError::new("a part of the key has an encoding of its own")),
    }
    Ok(())
}
