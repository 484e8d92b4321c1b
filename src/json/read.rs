//! From bytes to JSON.

use serde_json::{Map, Value};

use super::{DEPTH_MAX, damaged_shape, is_name, name_of, no_shape, nullable, number, rank, too_deep, within};
use crate::error::CastError;
use crate::record::codec::VALUE_BYTES_MAX;
use crate::record::shape::{Shape, ShapeBody, ShapeNode as Node};

/// How many elements there may be beyond the number of bytes: those that take none.
const EMPTY_ELEMENTS_MAX: usize = 1_000_000;

pub(super) fn decode(shape: &Shape, bytes: &[u8]) -> Result<Value, CastError> {
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(CastError::new(format!("{} bytes are over the limit of {VALUE_BYTES_MAX}", bytes.len())));
    }
    let elements_left = bytes.len().saturating_add(EMPTY_ELEMENTS_MAX);
    let mut reader = Reader { shape, rest: bytes, elements_left };
    let value = reader.node(shape.root(), DEPTH_MAX)?;
    if !reader.rest.is_empty() {
        return Err(CastError::new(format!("{} bytes are left over", reader.rest.len())));
    }
    Ok(value)
}

struct Reader<'s, 'b> {
    shape: &'s Shape,
    rest: &'b [u8],
    elements_left: usize,
}

impl<'s, 'b> Reader<'s, 'b> {
    /// A value that bincode knows. A length before text or bytes is checked against the input before it is believed.
    fn take<T: bincode::BorrowDecode<'b, ()>>(&mut self) -> Result<T, CastError> {
        let (value, used) = bincode::borrow_decode_from_slice(self.rest, bincode::config::standard())
            .map_err(|e| CastError::new(format!("the bytes do not fit the shape: {e}")))?;
        self.rest = self.rest.get(used..).unwrap_or_default();
        Ok(value)
    }

    fn node(&mut self, node: &'s Node, depth: u32) -> Result<Value, CastError> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        self.elements_left = self
            .elements_left
            .checked_sub(1)
            .ok_or_else(|| CastError::new("it has too many empty elements"))?;
        Ok(match node {
            Node::Unknown | Node::Explicit(_) => return Err(no_shape()),
            Node::Unit => Value::Null,
            Node::Bool => self.take::<bool>()?.into(),
            Node::I8 => self.take::<i8>()?.into(),
            Node::I16 => self.take::<i16>()?.into(),
            Node::I32 => self.take::<i32>()?.into(),
            Node::I64 => self.take::<i64>()?.into(),
            Node::I128 => number::integer(self.take::<i128>()?),
            Node::U8 => self.take::<u8>()?.into(),
            Node::U16 => self.take::<u16>()?.into(),
            Node::U32 => self.take::<u32>()?.into(),
            Node::U64 => self.take::<u64>()?.into(),
            Node::U128 => number::integer(self.take::<u128>()?),
            Node::F32 => number::float32(self.take()?),
            Node::F64 => number::float64(self.take()?),
            Node::Char => self.take::<char>()?.to_string().into(),
            Node::Str => self.take::<&str>()?.into(),
            Node::Bytes => self.take::<&[u8]>()?.into(),
            Node::Option(inner) => self.option(inner, depth)?,
            Node::Seq(inner) => {
                let len = self.take::<u64>()?;
                self.list(inner, len, depth)?
            }
            Node::Array(inner, len) => self.list(inner, u64::from(*len), depth)?,
            Node::Tuple(nodes) => self.tuple(nodes, depth)?,
            Node::Map(key, value) => self.map(key, value, depth)?,
            Node::Named(index) => {
                let named = self.shape.named(*index).ok_or_else(damaged_shape)?;
                match &named.body {
                    ShapeBody::Enum(variants) => {
                        let index = self.take::<u32>()?;
                        let variant =
                            variants.iter().find(|variant| variant.index == index).ok_or_else(|| {
                                CastError::new(format!("`{}` has no variant {index}", named.name))
                            })?;
                        match &variant.body {
                            ShapeBody::Unit => variant.name.as_str().into(),
                            body => {
                                let inner = self.body(body, depth).map_err(within(&variant.name))?;
                                Map::from_iter([(variant.name.clone(), inner)]).into()
                            }
                        }
                    }
                    body => self.body(body, depth)?,
                }
            }
        })
    }

    fn body(&mut self, body: &'s ShapeBody, depth: u32) -> Result<Value, CastError> {
        Ok(match body {
            ShapeBody::Unit => Value::Null,
            ShapeBody::NewType(inner) => self.node(inner, depth)?,
            ShapeBody::Tuple(nodes) => self.tuple(nodes, depth)?,
            ShapeBody::Struct(fields) => {
                let mut object = Map::new();
                for field in fields {
                    let value = self.node(&field.node, depth).map_err(within(&field.name))?;
                    if object.insert(field.name.clone(), value).is_some() {
                        return Err(damaged_shape());
                    }
                }
                object.into()
            }
            // In a variant.
            ShapeBody::Enum(_) => return Err(damaged_shape()),
        })
    }

    fn option(&mut self, inner: &'s Node, depth: u32) -> Result<Value, CastError> {
        if !self.take::<bool>()? {
            return Ok(Value::Null);
        }
        let value = self.node(inner, depth)?;
        Ok(if nullable(self.shape, inner) {
            Map::from_iter([("Some".to_owned(), value)]).into()
        } else {
            value
        })
    }

    fn tuple(&mut self, nodes: &'s [Node], depth: u32) -> Result<Value, CastError> {
        let members = nodes.iter().enumerate().map(|(at, node)| self.node(node, depth).map_err(within(at)));
        members.collect::<Result<Vec<_>, _>>().map(Value::Array)
    }

    fn list(&mut self, inner: &'s Node, len: u64, depth: u32) -> Result<Value, CastError> {
        let members = (0..len).map(|at| self.node(inner, depth).map_err(within(at)));
        members.collect::<Result<Vec<_>, _>>().map(Value::Array)
    }

    /// An object, if that can be turned into the same bytes again.
    fn map(&mut self, key: &'s Node, value: &'s Node, depth: u32) -> Result<Value, CastError> {
        let len = self.take::<u64>()?;
        let mut pairs = Vec::new();
        let mut ordered = is_name(self.shape, key);
        let mut last = None;
        for at in 0..len {
            let name = self.node(key, depth).map_err(within(at))?;
            if ordered {
                let next = rank(self.shape, key, &name);
                ordered = next.is_some() && last < next;
                last = next;
            }
            let content = self.node(value, depth).map_err(within(&name))?;
            pairs.push((name, content));
        }
        if ordered {
            return Ok(pairs
                .into_iter()
                .map(|(name, content)| (name_of(name), content))
                .collect::<Map<_, _>>()
                .into());
        }
        Ok(pairs.into_iter().map(|(name, content)| Value::Array(vec![name, content])).collect())
    }
}
