//! What a value writes, as a list: a serializer that notes every call.
//!
//! The elements of lists and maps are put in order: a `HashMap` has another one each time that it is made.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

/// One call of the serializer. What only groups others ([`Event::Tuple`], [`Event::Struct`]) has no bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A value of a simple type, and its bits.
    Simple(Simple, u128),
    Str(String),
    Bytes(Vec<u8>),
    None,
    Some,
    Seq(usize),
    Map(usize),
    Tuple(usize),
    Struct(Fields),
    Variant {
        index: u32,
        name: &'static str,
    },
}

/// The names of a struct's fields, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fields {
    pub(super) written: Vec<&'static str>,
    /// Left out by `skip_serializing_if`.
    pub(super) skipped: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Simple {
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
}

/// The type refuses to be written.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Refused(reason.to_string())
    }
}

/// What `value` writes.
pub(crate) fn written<T: Serialize>(value: &T) -> Result<Vec<Event>, Refused> {
    let mut events = Vec::new();
    value.serialize(Writer(&mut events))?;
    Ok(events)
}

struct Writer<'e>(&'e mut Vec<Event>);

macro_rules! simple {
    ($($call:ident $type:ty, $is:ident, $bits:expr;)*) => {$(
        fn $call(self, value: $type) -> Result<(), Refused> {
            self.0.push(Event::Simple(Simple::$is, ($bits)(value)));
            Ok(())
        }
    )*};
}

impl<'e> Serializer for Writer<'e> {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Members<'e>;
    type SerializeTuple = Members<'e>;
    type SerializeTupleStruct = Members<'e>;
    type SerializeTupleVariant = Members<'e>;
    type SerializeMap = Members<'e>;
    type SerializeStruct = Members<'e>;
    type SerializeStructVariant = Members<'e>;

    simple! {
        serialize_bool bool, Bool, u128::from;
        serialize_i8 i8, I8, |value| i128::from(value).cast_unsigned();
        serialize_i16 i16, I16, |value| i128::from(value).cast_unsigned();
        serialize_i32 i32, I32, |value| i128::from(value).cast_unsigned();
        serialize_i64 i64, I64, |value| i128::from(value).cast_unsigned();
        serialize_i128 i128, I128, i128::cast_unsigned;
        serialize_u8 u8, U8, u128::from;
        serialize_u16 u16, U16, u128::from;
        serialize_u32 u32, U32, u128::from;
        serialize_u64 u64, U64, u128::from;
        serialize_u128 u128, U128, std::convert::identity;
        serialize_f32 f32, F32, |value: f32| u128::from(value.to_bits());
        serialize_f64 f64, F64, |value: f64| u128::from(value.to_bits());
        serialize_char char, Char, u128::from;
    }

    fn serialize_str(self, value: &str) -> Result<(), Refused> {
        self.0.push(Event::Str(value.to_owned()));
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Refused> {
        self.0.push(Event::Bytes(value.to_owned()));
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Refused> {
        self.0.push(Event::None);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.0.push(Event::Some);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, name: &'static str) -> Result<(), Refused> {
        self.0.push(Event::Variant { index, name });
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.0.push(Event::Variant { index, name });
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Members<'e>, Refused> {
        Ok(Members::new(self.0, Event::Seq(0)))
    }

    fn serialize_tuple(self, len: usize) -> Result<Members<'e>, Refused> {
        Ok(Members::new(self.0, Event::Tuple(len)))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Members<'e>, Refused> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        len: usize,
    ) -> Result<Members<'e>, Refused> {
        self.0.push(Event::Variant { index, name });
        self.serialize_tuple(len)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'e>, Refused> {
        Ok(Members::new(self.0, Event::Map(0)))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'e>, Refused> {
        Ok(Members::new(self.0, Event::Struct(Fields::default())))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Members<'e>, Refused> {
        self.0.push(Event::Variant { index, name: variant });
        self.serialize_struct(name, len)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The members of what was begun last; their number, or names, are added to its event as they come.
struct Members<'e> {
    events: &'e mut Vec<Event>,
    at: usize,
    /// Where the elements of a list or map begin.
    elements: Vec<usize>,
}

impl<'e> Members<'e> {
    fn new(events: &'e mut Vec<Event>, begin: Event) -> Self {
        let at = events.len();
        events.push(begin);
        Members { events, at, elements: Vec::new() }
    }

    fn member<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        if let Some(Event::Seq(len) | Event::Map(len)) = self.events.get_mut(self.at) {
            *len += 1;
            self.elements.push(self.events.len());
        }
        value.serialize(Writer(self.events))
    }

    fn put_in_order(mut self) {
        let mut elements = Vec::new();
        while let Some(start) = self.elements.pop() {
            elements.push(self.events.split_off(start));
        }
        elements.sort();
        self.events.extend(elements.into_iter().flatten());
    }

    fn names(&mut self) -> Option<&mut Fields> {
        match self.events.get_mut(self.at) {
            Some(Event::Struct(fields)) => Some(fields),
            _ => None,
        }
    }
}

macro_rules! elements {
    ($($compound:ident $call:ident),*) => {$(
        impl ser::$compound for Members<'_> {
            type Ok = ();
            type Error = Refused;
            fn $call<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                self.member(value)
            }
            fn end(self) -> Result<(), Refused> {
                self.put_in_order();
                Ok(())
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
        impl ser::$compound for Members<'_> {
            type Ok = ();
            type Error = Refused;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Refused> {
                if let Some(names) = self.names() {
                    names.written.push(name);
                }
                self.member(value)
            }
            fn skip_field(&mut self, name: &'static str) -> Result<(), Refused> {
                if let Some(names) = self.names() {
                    names.skipped.push(name);
                }
                Ok(())
            }
            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        }
    )*};
}
fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.member(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(Writer(self.events))
    }

    fn end(self) -> Result<(), Refused> {
        self.put_in_order();
        Ok(())
    }
}
