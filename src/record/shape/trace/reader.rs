//! serde's questions, answered and noted.

use std::any::type_name;

use serde::de::{Deserializer, Visitor};

use super::access::{Asked, Chosen, Entries, Members, ProbeEnum, probe_fields};
use super::{Reader, Stop, inner};
use crate::record::shape::ShapeNode as Node;
use crate::record::shape::seen::{Kind, Probe, Seen, merge};
use crate::record::shape::source::{BYTES, STRINGS};

const SELF_DESCRIBING: &str = "the type asks its input what it is (`untagged`, `tag`, `flatten`, or a type like \
     `serde_json::Value`), which bincode cannot answer; override `Version::encode` and `Version::decode`";

macro_rules! simple {
    ($($call:ident $visit:ident $node:ident $invented:expr, $other:expr;)*) => {$(
        fn $call<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
            merge(self.out, Node::$node)?;
            let value = self.vary($invented, $other)?;
            visitor.$visit(value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Stop;

    simple! {
        deserialize_bool visit_bool Bool false, true;
        deserialize_i8 visit_i8 I8 1i8, 0i8;
        deserialize_i16 visit_i16 I16 1i16, 0i16;
        deserialize_i32 visit_i32 I32 1i32, 0i32;
        deserialize_i64 visit_i64 I64 1i64, 0i64;
        deserialize_i128 visit_i128 I128 1i128, 0i128;
        deserialize_u8 visit_u8 U8 1u8, 0u8;
        deserialize_u16 visit_u16 U16 1u16, 0u16;
        deserialize_u32 visit_u32 U32 1u32, 0u32;
        deserialize_u64 visit_u64 U64 1u64, 0u64;
        deserialize_u128 visit_u128 U128 1u128, 0u128;
        deserialize_f32 visit_f32 F32 1f32, 0f32;
        deserialize_f64 visit_f64 F64 1f64, 0f64;
        deserialize_char visit_char Char 'a', '\0';
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        merge(self.out, Node::Str)?;
        match self.source.take_bytes()? {
            Some(bytes) => visitor.visit_string(String::from_utf8(bytes).map_err(Stop::refused)?),
            None => self.offer(&STRINGS, |text| visitor.visit_str(text)),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_byte_buf(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        merge(self.out, Node::Bytes)?;
        match self.source.take_bytes()? {
            Some(bytes) => visitor.visit_byte_buf(bytes),
            None => self.offer(&BYTES, |length| visitor.visit_byte_buf(vec![0; *length])),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let mut node = Node::Unknown;
        let usual = u8::from(!self.lean);
        let some = self.vary(usual, 0)? != 0;
        let result = if some {
            let inside = Reader::inside(self.seen, self.source, &mut node, (self.lean, self.depth))?;
            let rust = type_name::<V::Value>();
            match rust.strip_prefix("core::option::Option<").and_then(|r| r.strip_suffix('>')) {
                Some(rust) => inside.of_type(inner(rust), |inside| visitor.visit_some(inside)),
                None => visitor.visit_some(inside),
            }
        } else {
            visitor.visit_none()
        };
        merge(self.out, Node::Option(Box::new(node)))?;
        result
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        merge(self.out, Node::Unit)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let position = self.named::<V::Value>(name, Kind::Unit, &[])?;
        self.seen.get(position)?.body.merge(Vec::new(), true)?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let position = self.named::<V::Value>(name, Kind::NewType, &[])?;
        let mut node = Node::Unknown;
        let lean = self.enter(position, None);
        let inside = Reader::inside(self.seen, self.source, &mut node, (lean, self.depth))?;
        let result = visitor.visit_newtype_struct(inside);
        Self::leave(self.seen, position, vec![node], result)
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let usual = u64::from(!self.lean);
        let length = self.vary(usual, 0)?;
        let mut node = Node::Unknown;
        let result = visitor.visit_seq(Entries {
            seen: self.seen,
            source: self.source,
            nodes: [&mut node, &mut Node::Unknown],
            left: length,
            inside: (self.lean, self.depth),
        });
        merge(self.out, Node::Seq(Box::new(node)))?;
        result
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let usual = u64::from(!self.lean);
        let length = self.vary(usual, 0)?;
        let (mut key, mut value) = (Node::Unknown, Node::Unknown);
        let result = visitor.visit_map(Entries {
            seen: self.seen,
            source: self.source,
            nodes: [&mut key, &mut value],
            left: length,
            inside: (self.lean, self.depth),
        });
        merge(self.out, Node::Map(Box::new(key), Box::new(value)))?;
        result
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        let mut nodes = Vec::new();
        let inside = (self.lean, self.depth);
        let result = visitor.visit_seq(Members::new(self.seen, self.source, &mut nodes, len, &[], inside));
        nodes.resize(len, Node::Unknown);
        merge(self.out, Node::Tuple(nodes))?;
        result
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let position = self.named::<V::Value>(name, Kind::Tuple, &[])?;
        self.members(position, len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let position = self.named::<V::Value>(name, Kind::Struct, fields)?;
        self.members(position, fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let position = self.named::<V::Value>(name, Kind::Enum, variants)?;
        let Some(last) = u32::try_from(variants.len()).ok().and_then(|len| len.checked_sub(1)) else {
            self.seen.get(position)?.body.labels.count = Some(0);
            return Err(Stop::refused("an enum without variants has no values"));
        };
        let labels = &mut self.seen.get(position)?.body.labels;
        if let Some(probe) = labels.probe() {
            return visitor.visit_enum(ProbeEnum { labels, probe, of: Asked::Next });
        }
        if labels.count.is_none() {
            // The usual case, settled with two questions: as many variants as names, and none behind them.
            let (index, of) = match labels.beyond {
                None => (last + 1, Asked::Beyond),
                Some(_) => (last, Asked::Last),
            };
            return visitor.visit_enum(ProbeEnum { labels, probe: Probe::Index(index), of });
        }
        self.variant(position, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop::refused(SELF_DESCRIBING))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop::refused(SELF_DESCRIBING))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop::refused(SELF_DESCRIBING))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl Reader<'_> {
    fn named<T>(
        &mut self,
        name: &'static str,
        kind: Kind,
        fields: &'static [&'static str],
    ) -> Result<usize, Stop> {
        let position = self.seen.named((type_name::<T>(), name, kind, fields))?;
        merge(self.out, Node::Named(u32::try_from(position).map_err(Stop::refused)?))?;
        Ok(position)
    }

    /// Goes into a named type; answers whether what is inside is to be lean.
    fn enter(&mut self, position: usize, variant: Option<u32>) -> bool {
        let around = self.seen.pass.open.iter().any(|(open, _)| *open == position);
        self.seen.pass.open.push((position, variant));
        self.lean || around
    }

    /// Notes what was seen, also if it ended early.
    fn leave<T>(
        seen: &mut Seen,
        position: usize,
        nodes: Vec<Node>,
        result: Result<T, Stop>,
    ) -> Result<T, Stop> {
        let body = &mut seen.get(position)?.body;
        body.merge(nodes, result.is_ok())?;
        let asks = body.labels.probe().is_some();
        let value = result?;
        seen.pass.open.pop();
        seen.pass.pending |= asks;
        Ok(value)
    }

    /// The members of a struct.
    fn members<'de, V: Visitor<'de>>(
        mut self,
        position: usize,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let body = &mut self.seen.get(position)?.body;
        if let (Kind::Struct, Some(probe)) = (body.kind, body.labels.probe()) {
            return probe_fields(&mut body.labels, probe, visitor);
        }
        let names = body.labels.given;
        let inside = (self.enter(position, None), self.depth);
        let mut nodes = Vec::new();
        let result = visitor.visit_seq(Members::new(self.seen, self.source, &mut nodes, len, names, inside));
        Self::leave(self.seen, position, nodes, result)
    }

    fn variant<'de, V: Visitor<'de>>(self, position: usize, visitor: V) -> Result<V::Value, Stop> {
        let around: Vec<Option<u32>> =
            self.seen.pass.open.iter().filter(|(open, _)| *open == position).map(|(_, v)| *v).collect();
        let named = self.seen.get(position)?;
        let explores = self.source.is_invented() && around.is_empty() && !self.lean && !named.all_seen();
        let variant = if explores {
            named.next
        } else {
            // Recursion ends soonest in a variant without content.
            let count = u32::try_from(named.body.labels.count.unwrap_or(0)).map_err(Stop::refused)?;
            let free = || (0..count).filter(|index| !around.contains(&Some(*index)));
            let unit = |index: &u32| named.variants.get(index).is_some_and(|body| body.kind == Kind::Unit);
            let invented = free().find(unit).or_else(|| free().next());
            match (invented, self.source.is_invented()) {
                (Some(invented), _) => self.source.take(invented)?,
                (None, false) => self.source.take(0)?,
                (None, true) => {
                    return Err(Stop::refused("every variant of the enum contains the enum itself"));
                }
            }
        };
        let was_pending = std::mem::take(&mut self.seen.pass.pending);
        self.seen.pass.open.push((position, Some(variant)));
        let value = visitor.visit_enum(Chosen {
            seen: &mut *self.seen,
            source: &mut *self.source,
            place: (position, variant),
            inside: (self.lean || !around.is_empty(), self.depth),
        })?;
        self.seen.pass.open.pop();
        if explores {
            let inside_done = !self.seen.pass.pending;
            let named = self.seen.get(position)?;
            if inside_done {
                named.next += 1;
            }
            let all_seen = named.all_seen();
            self.seen.pass.pending |= !all_seen;
        }
        self.seen.pass.pending |= was_pending;
        Ok(value)
    }

    /// Offers an invented value; if it is refused, the next pass offers the next one.
    fn offer<T, R>(mut self, offers: &[T], visit: impl FnOnce(&T) -> Result<R, Stop>) -> Result<R, Stop> {
        let rust = type_name::<R>();
        let number = self.seen.offer(rust);
        if self.is_unusual() {
            let unusual = offers.get(usize::from(number == 0)).ok_or_else(Stop::changed)?;
            return visit(unusual);
        }
        let offer = offers.get(number).or_else(|| offers.first()).ok_or_else(Stop::changed)?;
        match visit(offer) {
            Err(Stop::Refused(_)) if number + 1 < offers.len() => {
                self.seen.offer_next(rust);
                Err(Stop::Again)
            }
            Err(refused) => Err(refused),
            Ok(value) => Ok(value),
        }
    }
}
