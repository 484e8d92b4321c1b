//! Members, list elements, map entries and variants, handed out one after the other.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{Reader, Stop};
use crate::record::shape::ShapeNode as Node;
use crate::record::shape::seen::{Body, Kind, Labels, Probe, Seen};
use crate::record::shape::source::Source;

/// The members of a struct or tuple.
pub(super) struct Members<'a> {
    seen: &'a mut Seen,
    source: &'a mut Source,
    nodes: &'a mut Vec<Node>,
    len: usize,
    names: &'static [&'static str],
    inside: (bool, u32),
}

impl<'a> Members<'a> {
    pub(super) fn new(
        seen: &'a mut Seen,
        source: &'a mut Source,
        nodes: &'a mut Vec<Node>,
        len: usize,
        names: &'static [&'static str],
        inside: (bool, u32),
    ) -> Self {
        Self { seen, source, nodes, len, names, inside }
    }
}

impl<'de> SeqAccess<'de> for Members<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        let position = self.nodes.len();
        if position >= self.len {
            return Ok(None);
        }
        let name = self.names.get(position).map_or_else(|| position.to_string(), |name| (*name).to_string());
        self.seen.pass.path.push(name);
        let mut node = Node::Unknown;
        let value = Reader::inside(self.seen, self.source, &mut node, self.inside)
            .and_then(|reader| reader.seeded(seed));
        self.nodes.push(node);
        let value = value?;
        self.seen.pass.path.pop();
        Ok(Some(value))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len.saturating_sub(self.nodes.len()))
    }
}

/// The elements of a list, or the entries of a map.
pub(super) struct Entries<'a> {
    pub(super) seen: &'a mut Seen,
    pub(super) source: &'a mut Source,
    /// Of the element; of the key and the value.
    pub(super) nodes: [&'a mut Node; 2],
    pub(super) left: u64,
    pub(super) inside: (bool, u32),
}

impl Entries<'_> {
    fn read<'de, T: DeserializeSeed<'de>, const PART: usize>(&mut self, seed: T) -> Result<T::Value, Stop> {
        self.seen.pass.path.push(if PART == 0 { "[]".into() } else { "value".into() });
        let [first, second] = &mut self.nodes;
        let node = if PART == 0 { first } else { second };
        let value = Reader::inside(self.seen, self.source, node, self.inside)?.seeded(seed)?;
        self.seen.pass.path.pop();
        Ok(value)
    }

    fn next(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }
}

impl<'de> SeqAccess<'de> for Entries<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        if self.next() { self.read::<T, 0>(seed).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        if self.next() { self.read::<K, 0>(seed).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        self.read::<V, 1>(seed)
    }
}

/// A variant that the pass goes into.
pub(super) struct Chosen<'a> {
    pub(super) seen: &'a mut Seen,
    pub(super) source: &'a mut Source,
    pub(super) place: (usize, u32),
    pub(super) inside: (bool, u32),
}

impl<'de> EnumAccess<'de> for Chosen<'_> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Stop> {
        let value = seed.deserialize(IntoDeserializer::<Stop>::into_deserializer(self.place.1))?;
        let labels = &self.seen.get(self.place.0)?.body.labels;
        let name = labels.name(usize::try_from(self.place.1).map_err(Stop::refused)?);
        self.seen.pass.path.push(name);
        Ok((value, self))
    }
}

impl Chosen<'_> {
    /// Notes the content and leaves the path, if it was read to its end.
    fn body(&mut self, kind: Kind, fields: &'static [&'static str]) -> Result<&mut Body, Stop> {
        let (position, variant) = self.place;
        let body =
            self.seen.get(position)?.variants.entry(variant).or_insert_with(|| Body::new(kind, fields));
        if body.kind == kind { Ok(body) } else { Err(Stop::changed()) }
    }

    fn several<'de, V: Visitor<'de>>(
        mut self,
        kind: Kind,
        len: usize,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let labels = &mut self.body(kind, fields)?.labels;
        if let (Kind::Struct, Some(probe)) = (kind, labels.probe()) {
            return probe_fields(labels, probe, visitor);
        }
        let mut nodes = Vec::new();
        let members = Members::new(self.seen, self.source, &mut nodes, len, fields, self.inside);
        let result = visitor.visit_seq(members);
        let body = self.body(kind, fields)?;
        body.merge(nodes, result.is_ok())?;
        let asks = body.labels.probe().is_some();
        let value = result?;
        self.seen.pass.path.pop();
        self.seen.pass.pending |= asks;
        Ok(value)
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_> {
    type Error = Stop;

    fn unit_variant(mut self) -> Result<(), Stop> {
        self.body(Kind::Unit, &[])?.merge(Vec::new(), true)?;
        self.seen.pass.path.pop();
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value, Stop> {
        self.body(Kind::NewType, &[])?;
        let mut node = Node::Unknown;
        let result = Reader::inside(self.seen, self.source, &mut node, self.inside)
            .and_then(|reader| reader.seeded(seed));
        self.body(Kind::NewType, &[])?.merge(vec![node], result.is_ok())?;
        let value = result?;
        self.seen.pass.path.pop();
        Ok(value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.several(Kind::Tuple, len, &[], visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.several(Kind::Struct, fields.len(), fields, visitor)
    }
}

/// A question to the code that tells variants apart. It never goes into a variant.
pub(super) struct ProbeEnum<'a> {
    pub(super) labels: &'a mut Labels,
    pub(super) probe: Probe,
    pub(super) of: Asked,
}

/// Which variant a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// None: its number is that of the names.
    Beyond,
    /// The last of as many as there are names.
    Last,
    /// The next that [`Labels::probe`] wants to know.
    Next,
}

impl<'de> EnumAccess<'de> for ProbeEnum<'_> {
    type Error = Stop;
    type Variant = Never;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Never), Stop> {
        let answer = ask::<V, u32>(seed, self.probe);
        match self.of {
            Asked::Next => self.labels.answer(self.probe, answer),
            Asked::Beyond => {
                self.labels.aliased = answer.is_some();
                self.labels.beyond = Some(answer);
            }
            Asked::Last if answer.is_some() => self.labels.count = Some(self.labels.given.len()),
            Asked::Last => self.labels.aliased = true,
        }
        Err(Stop::Again)
    }
}

/// A variant that is never gone into.
pub(super) enum Never {}

impl<'de> VariantAccess<'de> for Never {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        match self {}
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Stop> {
        match self {}
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Stop> {
        match self {}
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Stop> {
        match self {}
    }
}

/// A question to the code that tells the fields of a struct apart.
pub(super) fn probe_fields<'de, V: Visitor<'de>>(
    labels: &mut Labels,
    probe: Probe,
    visitor: V,
) -> Result<V::Value, Stop> {
    visitor.visit_map(ProbeFields { labels, probe })
}

struct ProbeFields<'a> {
    labels: &'a mut Labels,
    probe: Probe,
}

impl<'de> MapAccess<'de> for ProbeFields<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        self.labels.answer(self.probe, Some(ask::<K, u64>(seed, self.probe).unwrap_or(0)));
        Err(Stop::Again)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, _: V) -> Result<V::Value, Stop> {
        Err(Stop::changed())
    }
}

/// Which member serde's generated code takes for the answer: the variant of an enum that it keeps to itself, and
/// that can only be compared.
fn ask<'de, T: DeserializeSeed<'de>, N: From<u32> + IntoDeserializer<'de, Stop>>(
    seed: T,
    probe: Probe,
) -> Option<u64> {
    let answer = match probe {
        Probe::Index(index) => seed.deserialize(N::from(index).into_deserializer()),
        Probe::Name(name) => seed.deserialize(StrDeserializer::<Stop>::new(name)),
    };
    let mut hasher = DefaultHasher::new();
    discriminant(&answer.ok()?).hash(&mut hasher);
    Some(hasher.finish())
}
