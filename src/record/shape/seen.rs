//! What the traces have seen so far: named types, still with gaps, and how they are filled.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use super::ShapeNode as Node;
use super::stop::Stop;

/// Everything that is known about the types behind one root.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) types: Vec<Type>,
    index: BTreeMap<TypeKey, usize>,
    /// Encoded samples by the name of the Rust type, those found inside larger samples included.
    samples: BTreeMap<&'static str, (Rc<[u8]>, Range<usize>)>,
    /// The types whose invented value was refused, so that their sample is taken.
    refused: BTreeSet<&'static str>,
    /// Which of the invented strings or byte strings a Rust type is offered next.
    offers: BTreeMap<&'static str, usize>,
    pub(super) pass: Pass,
}

/// What is known of the pass that is under way. After a failure it shows where.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// The named types around the current place, and the variant of each that is an enum.
    pub(super) open: Vec<(usize, Option<u32>)>,
    /// The Rust types around the current place.
    pub(super) rust: Vec<&'static str>,
    pub(super) path: Vec<String>,
    /// Whether an enum was left with variants to see, or names with a question.
    pub(super) pending: bool,
    /// The places of the invented values that could have been others.
    pub(super) asked: Vec<Place>,
}

/// A member: of which type or variant, by which name, and of which Rust type (a tuple has no name).
pub(super) type Place = (Option<(usize, Option<u32>)>, Option<String>, Option<&'static str>);

impl Pass {
    pub(super) fn place(&self) -> Place {
        let around = self.rust.iter().rev().nth(1).copied();
        // The members of a long tuple count as one from here on: it is an array.
        let far = |name: &String| name.parse::<u32>().is_ok_and(|position| position >= 16);
        let name = self.path.last().map(|name| if far(name) { "[]".to_owned() } else { name.clone() });
        (self.open.last().copied(), name, around)
    }
}

/// serde's name alone would confuse types of the same name. `fields` tells apart two `#[serde(with)]` for one type.
pub(super) type TypeKey = (&'static str, &'static str, Kind, &'static [&'static str]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Unit,
    NewType,
    Tuple,
    Struct,
    Enum,
}

#[derive(Debug)]
pub(super) struct Type {
    pub(super) name: &'static str,
    pub(super) body: Body,
    /// Of an enum only.
    pub(super) variants: BTreeMap<u32, Body>,
    /// The next variant to see.
    pub(super) next: u32,
}

/// The content of a type or variant. For an enum, only the labels are used.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) kind: Kind,
    pub(super) nodes: Vec<Node>,
    pub(super) labels: Labels,
}

/// The names of fields or variants.
///
/// serde gives aliases among the names, without saying so. If there are fewer members than names, asking serde's
/// generated code for each index and each name, and comparing what it answers, shows which belong together.
#[derive(Debug, Default)]
pub(super) struct Labels {
    pub(super) given: &'static [&'static str],
    pub(super) count: Option<usize>,
    pub(super) aliased: bool,
    /// What is answered for an index behind all others: `#[serde(other)]` takes any. `None` until that was asked.
    pub(super) beyond: Option<Option<u64>>,
    pub(super) by_index: Vec<u64>,
    pub(super) by_name: Vec<u64>,
}

/// A question to serde's generated code.
#[derive(Debug, Clone, Copy)]
pub(super) enum Probe {
    Index(u32),
    Name(&'static str),
}

impl Labels {
    /// The question that is still open, if any.
    pub(super) fn probe(&self) -> Option<Probe> {
        let next = u32::try_from(self.by_index.len()).ok()?;
        match self.count {
            Some(count) if count == self.given.len() || self.given.is_empty() => None,
            Some(count) if self.by_index.len() < count => Some(Probe::Index(next)),
            Some(_) => self.given.get(self.by_name.len()).copied().map(Probe::Name),
            None if self.aliased => Some(Probe::Index(next)),
            None => None,
        }
    }

    pub(super) fn answer(&mut self, probe: Probe, answer: Option<u64>) {
        match (probe, answer) {
            (Probe::Index(_), Some(hash)) => {
                self.by_index.push(hash);
                if self.beyond == Some(Some(hash)) {
                    self.count = Some(self.by_index.len());
                }
            }
            // There is no such variant: this is how many there are.
            (Probe::Index(index), None) => self.count = usize::try_from(index).ok(),
            (Probe::Name(_), hash) => self.by_name.push(hash.unwrap_or(0)),
        }
    }

    /// The name at `index`; a field or variant with aliases has all its names, in order, with `|` between.
    pub(super) fn name(&self, index: usize) -> String {
        let given = self.given.get(index).copied().unwrap_or_default();
        match self.by_index.get(index) {
            Some(hash) if self.count != Some(self.given.len()) => {
                let same = self.given.iter().zip(&self.by_name).filter(|(_, h)| *h == hash);
                let mut names: Vec<&str> = same.map(|(name, _)| *name).collect();
                names.sort_unstable();
                names.join("|")
            }
            _ => given.to_string(),
        }
    }
}

impl Body {
    pub(super) fn new(kind: Kind, given: &'static [&'static str]) -> Self {
        Self { kind, nodes: Vec::new(), labels: Labels { given, ..Labels::default() } }
    }

    /// Adds what one visit has seen.
    pub(super) fn merge(&mut self, nodes: Vec<Node>, whole: bool) -> Result<(), Stop> {
        if whole {
            if self.labels.count.is_some_and(|count| count != nodes.len()) {
                return Err(Stop::changed());
            }
            self.labels.count = Some(nodes.len());
        }
        merge_all(&mut self.nodes, nodes)
    }

    /// Whether nothing is missing, apart from the variants of enums inside.
    pub(super) fn whole(&self) -> bool {
        self.labels.probe().is_none()
            && self.labels.count == Some(self.nodes.len())
            && !self.nodes.iter().any(has_unknown)
    }
}

impl Type {
    /// Whether every variant was seen.
    pub(super) fn all_seen(&self) -> bool {
        self.body.labels.count.is_some_and(|count| usize::try_from(self.next).is_ok_and(|next| next >= count))
    }
}

impl Seen {
    /// The type's position, known or new.
    pub(super) fn named(&mut self, key: TypeKey) -> Result<usize, Stop> {
        let next = self.types.len();
        if next > 10_000 {
            return Err(Stop::refused("the type has more than 10 000 types in it"));
        }
        let position = *self.index.entry(key).or_insert(next);
        if position == next {
            let (_, name, kind, fields) = key;
            self.types.push(Type { name, body: Body::new(kind, fields), variants: BTreeMap::new(), next: 0 });
        }
        Ok(position)
    }

    /// Where the exploration of each enum is.
    pub(super) fn stand(&self) -> Vec<u32> {
        self.types.iter().map(|named| named.next).collect()
    }

    /// Goes back to a [`Seen::stand`]; what is not in it begins anew.
    pub(super) fn go_back(&mut self, stand: &[u32]) {
        for (position, named) in self.types.iter_mut().enumerate() {
            named.next = stand.get(position).copied().unwrap_or(0);
        }
    }

    pub(super) fn get(&mut self, position: usize) -> Result<&mut Type, Stop> {
        self.types.get_mut(position).ok_or_else(Stop::changed)
    }

    pub(super) fn add_sample(&mut self, rust: &'static str, bytes: Rc<[u8]>, range: Range<usize>) {
        // Such wrappers of serde's have one name for different types.
        if rust.contains("__DeserializeWith") {
            return;
        }
        // The longest says most: an option that is there, a list that is not empty.
        match self.samples.get(rust) {
            Some((_, known)) if known.len() >= range.len() => {}
            _ => {
                self.samples.insert(rust, (bytes, range));
            }
        }
    }

    /// The sample to take for a Rust type, if what was invented for it was refused.
    pub(super) fn sample(&self, rust: &'static str) -> Option<(Rc<[u8]>, Range<usize>)> {
        self.refused.contains(rust).then(|| self.samples.get(rust).cloned()).flatten()
    }

    /// After a refusal: whether another pass can do better, with a sample of an innermost type, or with the
    /// refused variant left out because a sample has shown it.
    pub(super) fn can_do_better(&mut self) -> bool {
        for rust in self.pass.rust.iter().rev() {
            if self.samples.contains_key(rust) && self.refused.insert(rust) {
                return true;
            }
        }
        for (position, variant) in self.pass.open.iter().rev() {
            if let (Some(variant), Some(named)) = (variant, self.types.get_mut(*position)) {
                let shown = named.variants.get(variant).is_some_and(Body::whole);
                if shown && named.next == *variant {
                    named.next += 1;
                    return true;
                }
            }
        }
        false
    }

    /// The number of the invented string that a Rust type is offered.
    pub(super) fn offer(&self, rust: &'static str) -> usize {
        self.offers.get(rust).copied().unwrap_or(0)
    }

    pub(super) fn offer_next(&mut self, rust: &'static str) {
        *self.offers.entry(rust).or_insert(0) += 1;
    }
}

/// Whether a place was not seen.
pub(super) fn has_unknown(node: &Node) -> bool {
    match node {
        Node::Unknown => true,
        Node::Option(inner) | Node::Seq(inner) | Node::Array(inner, _) => has_unknown(inner),
        Node::Map(key, value) => has_unknown(key) || has_unknown(value),
        Node::Tuple(nodes) => nodes.iter().any(has_unknown),
        _ => false,
    }
}

/// Puts together two sights of the same place.
pub(super) fn merge(known: &mut Node, new: Node) -> Result<(), Stop> {
    match (known, new) {
        (_, Node::Unknown) => Ok(()),
        (known @ Node::Unknown, new) => {
            *known = new;
            Ok(())
        }
        (Node::Option(known), Node::Option(new)) | (Node::Seq(known), Node::Seq(new)) => merge(known, *new),
        (Node::Map(key, value), Node::Map(new_key, new_value)) => {
            merge(key, *new_key)?;
            merge(value, *new_value)
        }
        (Node::Tuple(known), Node::Tuple(new)) => merge_all(known, new),
        (known, new) if *known == new => Ok(()),
        _ => Err(Stop::changed()),
    }
}

fn merge_all(known: &mut Vec<Node>, new: Vec<Node>) -> Result<(), Stop> {
    for (position, node) in new.into_iter().enumerate() {
        match known.get_mut(position) {
            Some(known) => merge(known, node)?,
            None => known.push(node),
        }
    }
    Ok(())
}
