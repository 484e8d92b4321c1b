//! Numbers that JSON does not have: 128 bits, NaN, infinities.

use serde_json::{Number, Value};

use crate::error::CastError;

/// An integer as JSON: a number up to 64 bits, else a string of digits.
pub(super) fn integer<T>(number: T) -> Value
where
    T: Copy + ToString,
    u64: TryFrom<T>,
    i64: TryFrom<T>,
{
    match (u64::try_from(number), i64::try_from(number)) {
        (Ok(number), _) => number.into(),
        (_, Ok(number)) => number.into(),
        _ => Value::String(number.to_string()),
    }
}

/// An integer of up to 128 bits, from a number or from digits.
pub(super) fn wide<T>(value: &Value) -> Option<T>
where
    T: TryFrom<u64> + TryFrom<i64> + std::str::FromStr + ToString,
{
    match value {
        Value::Number(number) => {
            let unsigned = number.as_u64().and_then(|number| T::try_from(number).ok());
            unsigned.or_else(|| number.as_i64().and_then(|number| T::try_from(number).ok()))
        }
        // In one way only, so that two names are never one key.
        Value::String(text) => text.parse().ok().filter(|number: &T| number.to_string() == *text),
        _ => None,
    }
}

/// A number of decimal digits.
pub(super) fn of_digits(text: &str) -> Option<Value> {
    let text = Value::from(text);
    let unsigned = wide::<u128>(&text).map(integer);
    unsigned.or_else(|| wide::<i128>(&text).map(integer))
}

pub(super) fn float64(number: f64) -> Value {
    match Number::from_f64(number) {
        Some(number) => Value::Number(number),
        None if number.is_nan() && number.to_bits() != f64::NAN.to_bits() => {
            format!("NaN:{:016x}", number.to_bits()).into()
        }
        None => special(number.is_nan(), number > 0.0).into(),
    }
}

pub(super) fn float32(number: f32) -> Value {
    match Number::from_f64(number.into()) {
        Some(number) => Value::Number(number),
        None if number.is_nan() && number.to_bits() != f32::NAN.to_bits() => {
            format!("NaN:{:08x}", number.to_bits()).into()
        }
        None => special(number.is_nan(), number > 0.0).into(),
    }
}

fn special(nan: bool, positive: bool) -> &'static str {
    match (nan, positive) {
        (true, _) => "NaN",
        (_, true) => "Infinity",
        _ => "-Infinity",
    }
}

pub(super) fn to_f64(value: &Value) -> Result<f64, CastError> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            other => bits(other).map(f64::from_bits).filter(|number| number.is_nan()),
        },
        _ => None,
    }
    .ok_or_else(|| super::write::expected("a number, \"NaN\", \"Infinity\" or \"-Infinity\"", value))
}

pub(super) fn to_f32(value: &Value) -> Result<f32, CastError> {
    if let Some(bits) = value.as_str().and_then(bits) {
        let number = u32::try_from(bits).ok().map(f32::from_bits).filter(|number| number.is_nan());
        return number.ok_or_else(|| super::write::expected("the bits of a NaN", value));
    }
    let wide = to_f64(value)?;
    #[expect(clippy::cast_possible_truncation, reason = "what does not fit becomes infinite, and is refused")]
    let number = wide as f32;
    if wide.is_finite() && number.is_infinite() {
        return Err(super::write::expected("a number that a `f32` can hold", value));
    }
    Ok(number)
}

fn bits(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("NaN:")?, 16).ok()
}

/// An integer of up to 64 bits, from a number only.
pub(super) fn narrow<T: TryFrom<u64> + TryFrom<i64>>(value: &Value) -> Option<T> {
    let unsigned = value.as_u64().and_then(|number| T::try_from(number).ok());
    unsigned.or_else(|| value.as_i64().and_then(|number| T::try_from(number).ok()))
}
