//! The limiting serializer: passes every call on, and counts.

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{
    Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::Budget;

/// Wraps a serializer, or one of the compound serializers, of serde.
pub(super) struct Limited<'b, I> {
    pub(super) inner: I,
    pub(super) budget: Budget<'b>,
}

impl<'b, I> Limited<'b, I> {
    #[inline]
    fn value<'v, T: Serialize + ?Sized>(&self, value: &'v T) -> super::Limited<'v, 'b, T> {
        super::Limited { value, budget: self.budget }
    }
}

/// Says in words what bincode, or the limits, found.
pub(super) fn explain(error: &bincode::error::EncodeError) -> String {
    use bincode::error::EncodeError as E;
    match error {
        E::Other(text) => (*text).into(),
        E::OtherString(text) => text.clone(),
        E::Serde(bincode::serde::EncodeError::SequenceMustHaveLength) => {
            "a list or map does not say its length (`#[serde(flatten)]` makes such); \
             use a struct of its own, or override `Version::encode`"
                .into()
        }
        other => other.to_string(),
    }
}

macro_rules! pass_on {
    ($($call:ident $ty:ty),* $(,)?) => {$(
        #[inline]
        fn $call(self, value: $ty) -> Result<S::Ok, S::Error> {
            self.inner.$call(value)
        }
    )*};
}

impl<'b, S: Serializer> Serializer for Limited<'b, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Limited<'b, S::SerializeSeq>;
    type SerializeTuple = Limited<'b, S::SerializeTuple>;
    type SerializeTupleStruct = Limited<'b, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Limited<'b, S::SerializeTupleVariant>;
    type SerializeMap = Limited<'b, S::SerializeMap>;
    type SerializeStruct = Limited<'b, S::SerializeStruct>;
    type SerializeStructVariant = Limited<'b, S::SerializeStructVariant>;

    pass_on! {
        serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_i128 i128, serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64,
        serialize_u128 u128, serialize_f32 f32, serialize_f64 f64, serialize_char char, serialize_str &str,
        serialize_bytes &[u8], serialize_unit_struct &'static str,
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let budget = self.budget.deeper(S::Error::custom)?;
        self.inner.serialize_some(&super::Limited { value, budget })
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.budget.deeper(S::Error::custom)?;
        self.inner.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let budget = self.budget.deeper(S::Error::custom)?;
        self.inner.serialize_newtype_struct(name, &super::Limited { value, budget })
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let budget = self.budget.deeper(S::Error::custom)?;
        self.inner.serialize_newtype_variant(name, index, variant, &super::Limited { value, budget })
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let budget = self.budget.list(len.unwrap_or(0), S::Error::custom)?;
        Ok(Limited { inner: self.inner.serialize_seq(len)?, budget })
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        let budget = self.budget.deeper(S::Error::custom)?;
        Ok(Limited { inner: self.inner.serialize_tuple(len)?, budget })
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        let budget = self.budget.deeper(S::Error::custom)?;
        Ok(Limited { inner: self.inner.serialize_tuple_struct(name, len)?, budget })
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let budget = self.budget.deeper(S::Error::custom)?;
        Ok(Limited { inner: self.inner.serialize_tuple_variant(name, index, variant, len)?, budget })
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let budget = self.budget.list(len.unwrap_or(0), S::Error::custom)?;
        Ok(Limited { inner: self.inner.serialize_map(len)?, budget })
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        let budget = self.budget.deeper(S::Error::custom)?;
        Ok(Limited { inner: self.inner.serialize_struct(name, len)?, budget })
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let budget = self.budget.deeper(S::Error::custom)?;
        Ok(Limited { inner: self.inner.serialize_struct_variant(name, index, variant, len)?, budget })
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! elements {
    ($($compound:ident $call:ident),*) => {$(
        impl<S: $compound> $compound for Limited<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn $call<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                let value = self.value(value);
                self.inner.$call(&value)
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}
elements!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

macro_rules! fields {
    ($($compound:ident),*) => {$(
        impl<S: $compound> $compound for Limited<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                let value = self.value(value);
                self.inner.serialize_field(name, &value)
            }

            #[cold]
            fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
                Err(S::Error::custom(format!(
                    "`skip_serializing_if` left out the field `{name}`, and the bytes have no names by which a \
                     reader could tell; make it an `Option`, or remove the attribute"
                )))
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}
fields!(SerializeStruct, SerializeStructVariant);

impl<S: SerializeMap> SerializeMap for Limited<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        let key = self.value(key);
        self.inner.serialize_key(&key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        let value = self.value(value);
        self.inner.serialize_value(&value)
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}
