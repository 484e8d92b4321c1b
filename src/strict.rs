//! JSON in which a name that comes twice is an error, at every depth: the usual reading keeps the last and says nothing.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The one JSON value that `bytes` are.
///
/// Read twice, as `serde_json` alone knows how its features have it read a number (`arbitrary_precision` hands it out as an
/// object, and any crate of a program may turn that on).
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(bytes)?;
    serde_json::from_slice(bytes)
}

struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Strict)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while members.next_element::<Strict>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value::<Strict>()?;
            if let Some(name) = names.replace(name) {
                return Err(A::Error::custom(format_args!("the field {name:?} is there twice")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_comes_once_is_read_as_ever() {
        let text = r#"{"a":[null,true,1,-2,0.1,"x",{"b":{}}],"":18446744073709551615,"é":1e-7}"#;
        let usual: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(parse(text.as_bytes()).unwrap(), usual);
    }

    #[test]
    fn what_comes_twice_or_after_the_end_is_an_error() {
        for (text, says) in [
            (r#"{"a":1,"a":1}"#, "the field \"a\" is there twice"),
            (r#"[{"x":[{"b":1,"c":2,"\u0062":3}]}]"#, "the field \"b\" is there twice"),
            (r#"{"a":1}{"a":1}"#, "trailing characters"),
            (r#"{"a":1e999}"#, "number out of range"),
            (r#"{"a":1,}"#, "trailing comma"),
            (r#"{"a":NaN}"#, "expected value"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let deep = "[".repeat(50_000);
        assert!(parse(deep.as_bytes()).unwrap_err().to_string().contains("recursion"));
    }
}
