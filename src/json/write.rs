//! From JSON to bytes.

use serde_json::{Map, Value};

use super::{
    DEPTH_MAX, damaged_shape, is_name, named_value, no_shape, nullable, number, rank, too_deep, within,
};
use crate::error::CastError;
use crate::record::codec::VALUE_BYTES_MAX;
use crate::record::shape::{Shape, ShapeBody, ShapeField, ShapeNode as Node};

pub(super) fn encode(shape: &Shape, value: &Value) -> Result<Vec<u8>, CastError> {
    let mut writer = Writer { shape, out: Vec::new() };
    writer.node(shape.root(), value, DEPTH_MAX)?;
    Ok(writer.out)
}

/// What was expected, and what is there, cut.
pub(super) fn expected(what: &str, found: &Value) -> CastError {
    let kind = match found {
        Value::Array(members) => format!("an array of {}", members.len()),
        Value::Object(members) => format!("an object of {}", members.len()),
        Value::String(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
        simple => simple.to_string(),
    };
    CastError::new(format!("expected {what}, found {kind}"))
}

struct Writer<'s> {
    shape: &'s Shape,
    out: Vec<u8>,
}

/// An integer of the node's type.
macro_rules! integer {
    ($writer:ident, $value:ident, $type:ty, $name:literal) => {{
        let number = number::narrow::<$type>($value).ok_or_else(|| expected($name, $value))?;
        $writer.put(&number)
    }};
}

impl<'s> Writer<'s> {
    fn put<T: bincode::Encode + ?Sized>(&mut self, value: &T) -> Result<(), CastError> {
        bincode::encode_into_std_write(value, &mut self.out, bincode::config::standard())
            .map_err(|e| CastError::new(e.to_string()))?;
        if self.out.len() > VALUE_BYTES_MAX {
            return Err(CastError::new(format!("it is over the limit of {VALUE_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn node(&mut self, node: &'s Node, value: &Value, depth: u32) -> Result<(), CastError> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        match node {
            Node::Unknown | Node::Explicit(_) => Err(no_shape()),
            Node::Unit => null(value),
            Node::Bool => self.put(&value.as_bool().ok_or_else(|| expected("true or false", value))?),
            Node::I8 => integer!(self, value, i8, "an i8"),
            Node::I16 => integer!(self, value, i16, "an i16"),
            Node::I32 => integer!(self, value, i32, "an i32"),
            Node::I64 => integer!(self, value, i64, "an i64"),
            Node::U8 => integer!(self, value, u8, "a u8"),
            Node::U16 => integer!(self, value, u16, "a u16"),
            Node::U32 => integer!(self, value, u32, "a u32"),
            Node::U64 => integer!(self, value, u64, "a u64"),
            Node::I128 => self.put(&number::wide::<i128>(value).ok_or_else(|| expected("an i128", value))?),
            Node::U128 => self.put(&number::wide::<u128>(value).ok_or_else(|| expected("a u128", value))?),
            Node::F32 => self.put(&number::to_f32(value)?),
            Node::F64 => self.put(&number::to_f64(value)?),
            Node::Char => self.put(&one_char(value).ok_or_else(|| expected("one character", value))?),
            Node::Str => self.put(value.as_str().ok_or_else(|| expected("a string", value))?),
            Node::Bytes => {
                let bytes = array(value, None)?.iter().map(number::narrow::<u8>).collect::<Option<Vec<u8>>>();
                self.put(&bytes.ok_or_else(|| expected("an array of bytes", value))?)
            }
            Node::Option(inner) => self.option(inner, value, depth),
            Node::Seq(inner) => {
                let members = array(value, None)?;
                self.put(&(members.len() as u64))?;
                self.list(inner, members, depth)
            }
            Node::Array(inner, len) => self.list(inner, array(value, Some(*len as usize))?, depth),
            Node::Tuple(nodes) => self.tuple(nodes, value, depth),
            Node::Map(key, content) => self.map(key, content, value, depth),
            Node::Named(index) => {
                let named = self.shape.named(*index).ok_or_else(damaged_shape)?;
                match &named.body {
                    ShapeBody::Enum(variants) => {
                        let (name, content) = variant(value)?;
                        let known = variants.iter().find(|known| known.name == name).ok_or_else(|| {
                            CastError::new(format!("`{}` has no variant {name:?}", named.name))
                        })?;
                        self.put(&known.index)?;
                        match (&known.body, content) {
                            (ShapeBody::Unit, None) => Ok(()),
                            (ShapeBody::Unit, Some(_)) => Err(expected("the variant's name alone", value)),
                            (_, None) => Err(expected(&format!("{{{name:?}: …}}"), value)),
                            (body, Some(content)) => self.body(body, content, depth).map_err(within(name)),
                        }
                    }
                    body => self.body(body, value, depth),
                }
            }
        }
    }

    fn body(&mut self, body: &'s ShapeBody, value: &Value, depth: u32) -> Result<(), CastError> {
        match body {
            ShapeBody::Unit => null(value),
            ShapeBody::NewType(inner) => self.node(inner, value, depth),
            ShapeBody::Tuple(nodes) => self.tuple(nodes, value, depth),
            ShapeBody::Struct(fields) => self.fields(fields, value, depth),
            ShapeBody::Enum(_) => Err(damaged_shape()),
        }
    }

    fn fields(&mut self, fields: &'s [ShapeField], value: &Value, depth: u32) -> Result<(), CastError> {
        let object = value.as_object().ok_or_else(|| expected("an object", value))?;
        if let Some(name) = object.keys().find(|name| !fields.iter().any(|field| field.name == **name)) {
            return Err(CastError::new(format!("there is no field {name:?}")));
        }
        for field in fields {
            let value = object
                .get(&field.name)
                .ok_or_else(|| CastError::new(format!("the field {:?} is missing", field.name)))?;
            self.node(&field.node, value, depth).map_err(within(&field.name))?;
        }
        Ok(())
    }

    fn option(&mut self, inner: &'s Node, value: &Value, depth: u32) -> Result<(), CastError> {
        if value.is_null() {
            return self.put(&false);
        }
        self.put(&true)?;
        let value = if nullable(self.shape, inner) {
            let some =
                value.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("Some"));
            some.ok_or_else(|| expected("null or {\"Some\": …}", value))?
        } else {
            value
        };
        self.node(inner, value, depth)
    }

    fn tuple(&mut self, nodes: &'s [Node], value: &Value, depth: u32) -> Result<(), CastError> {
        let members = array(value, Some(nodes.len()))?;
        for (at, (node, member)) in nodes.iter().zip(members).enumerate() {
            self.node(node, member, depth).map_err(within(at))?;
        }
        Ok(())
    }

    fn list(&mut self, inner: &'s Node, members: &[Value], depth: u32) -> Result<(), CastError> {
        for (at, member) in members.iter().enumerate() {
            self.node(inner, member, depth).map_err(within(at))?;
        }
        Ok(())
    }

    fn map(&mut self, key: &'s Node, content: &'s Node, value: &Value, depth: u32) -> Result<(), CastError> {
        if let Value::Object(object) = value
            && is_name(self.shape, key)
        {
            return self.object(key, content, object, depth);
        }
        let pairs = array(value, None)?;
        self.put(&(pairs.len() as u64))?;
        for (at, pair) in pairs.iter().enumerate() {
            let [name, member] = array(pair, Some(2)).map_err(within(at))? else {
                return Err(damaged_shape());
            };
            self.node(key, name, depth).map_err(within(at))?;
            self.node(content, member, depth).map_err(within(at))?;
        }
        Ok(())
    }

    /// The members in the order of what their names stand for.
    fn object(
        &mut self,
        key: &'s Node,
        content: &'s Node,
        object: &Map<String, Value>,
        depth: u32,
    ) -> Result<(), CastError> {
        self.put(&(object.len() as u64))?;
        let mut members: Vec<_> = object
            .iter()
            .map(|(name, member)| (named_value(self.shape, key, name), member))
            .map(|(name, member)| (rank(self.shape, key, &name), name, member))
            .collect();
        members.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        if let Some([_, (_, name, _)]) = members.array_windows().find(|[(a, ..), (b, ..)]| a == b) {
            return Err(CastError::new(format!("the key {name} is there twice")));
        }
        for (_, name, member) in members {
            self.node(key, &name, depth).map_err(within(&name))?;
            self.node(content, member, depth).map_err(within(&name))?;
        }
        Ok(())
    }
}

fn null(value: &Value) -> Result<(), CastError> {
    if value.is_null() { Ok(()) } else { Err(expected("null", value)) }
}

fn one_char(value: &Value) -> Option<char> {
    let mut chars = value.as_str()?.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// The members of an array, of so many if that is given.
fn array(value: &Value, len: Option<usize>) -> Result<&[Value], CastError> {
    let members = value.as_array().filter(|members| len.is_none_or(|len| members.len() == len));
    members.map(Vec::as_slice).ok_or_else(|| match len {
        Some(len) => expected(&format!("an array of {len}"), value),
        None => expected("an array", value),
    })
}

/// A variant's name, and its content if it has any.
fn variant(value: &Value) -> Result<(&str, Option<&Value>), CastError> {
    match value {
        Value::String(name) => Ok((name, None)),
        Value::Object(object) if object.len() == 1 => {
            let (name, content) = object.iter().next().ok_or_else(damaged_shape)?;
            Ok((name, Some(content)))
        }
        _ => Err(expected("the name of a variant, or an object of one", value)),
    }
}
