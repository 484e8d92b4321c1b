//! Whether stored bytes are a value of a shape: a look at a record without its Rust type.

use super::{Shape, ShapeBody, ShapeNode as Node};
use crate::error::CastError;
use crate::record::codec::VALUE_BYTES_MAX;

/// Nesting, newtypes included. The codec allows less.
const DEPTH_MAX: u32 = 256;

/// Decodes `bytes` by [`codec::BINCODE`](crate::record::codec::BINCODE), and keeps nothing. Every byte must be used. A shape in
/// words fits all bytes.
pub(crate) fn check(shape: &Shape, bytes: &[u8]) -> Result<(), CastError> {
    if matches!(shape.root, Node::Explicit(_)) {
        return Ok(());
    }
    let mut reader = Reader { shape, rest: bytes, empty: VALUE_BYTES_MAX as u64 };
    match reader.node(&shape.root, DEPTH_MAX) {
        Ok(()) if reader.rest.is_empty() => Ok(()),
        Ok(()) => {
            let used = bytes.len() - reader.rest.len();
            Err(CastError::new(format!("it takes {used} of {} bytes", bytes.len())))
        }
        Err(reason) => Err(CastError::new(reason)),
    }
}

struct Reader<'a> {
    shape: &'a Shape,
    rest: &'a [u8],
    /// How many elements without bytes there may still be: they would go on for ever.
    empty: u64,
}

type Read = Result<(), String>;

impl<'a> Reader<'a> {
    fn take<T: bincode::BorrowDecode<'a, ()>>(&mut self) -> Result<T, String> {
        let (value, used) = bincode::borrow_decode_from_slice(self.rest, bincode::config::standard())
            .map_err(|e| match e {
                bincode::error::DecodeError::UnexpectedEnd { .. } => "it ends too early".to_owned(),
                other => other.to_string(),
            })?;
        self.rest = self.rest.get(used..).unwrap_or_default();
        Ok(value)
    }

    fn skip<T: bincode::BorrowDecode<'a, ()>>(&mut self) -> Read {
        self.take::<T>().map(drop)
    }

    fn node(&mut self, node: &Node, depth: u32) -> Read {
        let depth = depth.checked_sub(1).ok_or("it nests too deep")?;
        match node {
            Node::Unknown | Node::Explicit(_) => Err("its shape is damaged".to_owned()),
            Node::Unit => Ok(()),
            Node::Bool => self.skip::<bool>(),
            Node::I8 => self.skip::<i8>(),
            Node::I16 => self.skip::<i16>(),
            Node::I32 => self.skip::<i32>(),
            Node::I64 => self.skip::<i64>(),
            Node::I128 => self.skip::<i128>(),
            Node::U8 => self.skip::<u8>(),
            Node::U16 => self.skip::<u16>(),
            Node::U32 => self.skip::<u32>(),
            Node::U64 => self.skip::<u64>(),
            Node::U128 => self.skip::<u128>(),
            Node::F32 => self.skip::<f32>(),
            Node::F64 => self.skip::<f64>(),
            Node::Char => self.skip::<char>(),
            Node::Str => self.skip::<&str>(),
            Node::Bytes => self.skip::<&[u8]>(),
            Node::Option(inner) => {
                if self.take::<bool>()? {
                    self.node(inner, depth)?;
                }
                Ok(())
            }
            Node::Seq(inner) => {
                let len = self.take::<u64>()?;
                self.list(len, |reader| reader.node(inner, depth))
            }
            Node::Array(inner, len) => self.list(u64::from(*len), |reader| reader.node(inner, depth)),
            Node::Map(key, value) => {
                let len = self.take::<u64>()?;
                self.list(len, |reader| {
                    reader.node(key, depth)?;
                    reader.node(value, depth)
                })
            }
            Node::Tuple(nodes) => nodes.iter().try_for_each(|node| self.node(node, depth)),
            Node::Named(index) => self.named(*index, depth),
        }
    }

    fn list(&mut self, len: u64, mut element: impl FnMut(&mut Self) -> Read) -> Read {
        for _ in 0..len {
            let before = self.rest.len();
            element(self)?;
            if self.rest.len() == before {
                self.empty =
                    self.empty.checked_sub(1).ok_or("its lists have too many elements without bytes")?;
            }
        }
        Ok(())
    }

    fn named(&mut self, index: u32, depth: u32) -> Read {
        let shape = self.shape;
        let named = shape.named(index).ok_or("its shape is damaged")?;
        let ShapeBody::Enum(variants) = &named.body else {
            return self.body(&named.body, depth);
        };
        let index = self.take::<u32>()?;
        let variant = variants.iter().find(|variant| variant.index == index);
        let variant = variant.ok_or_else(|| format!("`{}` has no variant {index}", named.name))?;
        self.body(&variant.body, depth)
    }

    fn body(&mut self, body: &ShapeBody, depth: u32) -> Read {
        match body {
            ShapeBody::Unit => Ok(()),
            ShapeBody::NewType(node) => self.node(node, depth),
            ShapeBody::Tuple(nodes) => nodes.iter().try_for_each(|node| self.node(node, depth)),
            ShapeBody::Struct(fields) => fields.iter().try_for_each(|field| self.node(&field.node, depth)),
            ShapeBody::Enum(_) => Err("its shape is damaged".to_owned()),
        }
    }
}
