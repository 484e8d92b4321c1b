//! How two shapes differ, in words, and whether they are the same bytes.

use std::collections::BTreeSet;

use super::text::readable_node;
use super::{Shape, ShapeBody, ShapeField, ShapeNode as Node, ShapeType, ShapeVariant};

/// A type that changed everywhere is as well described by the first few differences.
const DIFFERENCES_MAX: usize = 5;

/// Longer arrays are compared as a whole, not member by member.
const ARRAY_UNROLLED_MAX: u32 = 64;

/// More than any real type needs; only a damaged catalog could ask for more.
const UNROLL_STEPS_MAX: u32 = 1_000_000;

impl Shape {
    /// What is different in `now`, in plain words; `None` if nothing that counts is. `self` is what was before.
    ///
    /// A field or variant that was renamed and keeps its old name as `#[serde(alias)]` is the same one. (The
    /// fingerprints differ all the same.)
    pub fn difference(&self, now: &Shape) -> Option<String> {
        let mut walk = Walk { before: self, now, visited: BTreeSet::new(), found: Vec::new() };
        walk.node("the record", &self.root, &now.root);
        let more = walk.found.len().saturating_sub(DIFFERENCES_MAX);
        walk.found.truncate(DIFFERENCES_MAX);
        if more > 0 {
            walk.found.push(format!("and {more} more"));
        }
        if walk.found.is_empty() { None } else { Some(walk.found.join("; ")) }
    }

    /// Whether both are the same bytes: the same simple types in the same order, and enums with the same
    /// number of variants, whatever the names are and however members are grouped.
    ///
    /// An [explicit](Node::Explicit) description is the same bytes as the same words only.
    pub fn layout_eq(&self, other: &Shape) -> bool {
        let mut layout = Layout { shapes: [self, other], assumed: BTreeSet::new() };
        layout.nodes(&[&self.root], &[&other.root])
    }
}

struct Walk<'s> {
    before: &'s Shape,
    now: &'s Shape,
    visited: BTreeSet<(u32, u32)>,
    found: Vec<String>,
}

impl<'s> Walk<'s> {
    fn node(&mut self, place: &str, before: &'s Node, now: &'s Node) {
        match (before, now) {
            (Node::Named(a), Node::Named(b)) => match (self.before.named(*a), self.now.named(*b)) {
                (Some(before), Some(now)) if self.visited.insert((*a, *b)) => self.named(place, before, now),
                (Some(_), Some(_)) => {}
                _ => self.found.push(format!("{place}: its description is incomplete")),
            },
            (Node::Option(before), Node::Option(now)) | (Node::Seq(before), Node::Seq(now)) => {
                self.node(place, before, now);
            }
            (Node::Map(key, value), Node::Map(key_now, value_now)) => {
                self.node(&format!("the key of {place}"), key, key_now);
                self.node(&format!("the value of {place}"), value, value_now);
            }
            (Node::Array(before, len), Node::Array(now, len_now)) if len == len_now => {
                self.node(place, before, now);
            }
            (Node::Tuple(before), Node::Tuple(now)) if before.len() == now.len() => {
                self.members(place, before, now);
            }
            (before, now) if before == now => {}
            (before, now) => {
                let before = readable_node(self.before, before);
                let now = readable_node(self.now, now);
                self.found.push(format!("{place}: {before} before, {now} now"));
            }
        }
    }

    fn named(&mut self, place: &str, before: &'s ShapeType, now: &'s ShapeType) {
        self.body(place, &now.name, &before.body, &now.body);
    }

    /// `of` is the name of the type or variant whose content is compared.
    fn body(&mut self, place: &str, of: &str, before: &'s ShapeBody, now: &'s ShapeBody) {
        match (before, now) {
            (ShapeBody::Unit, ShapeBody::Unit) => {}
            (ShapeBody::NewType(before), ShapeBody::NewType(now)) => {
                self.node(&format!("the content of {of}"), before, now);
            }
            (ShapeBody::Tuple(before), ShapeBody::Tuple(now)) if before.len() == now.len() => {
                self.members(of, before, now);
            }
            (ShapeBody::Struct(before), ShapeBody::Struct(now)) => self.items("field", of, before, now),
            (ShapeBody::Enum(before), ShapeBody::Enum(now)) => self.items("variant", of, before, now),
            (before, now) => {
                let (before, now) = (kind(before), kind(now));
                self.found.push(format!("{place} ({of}): {before} before, {now} now"));
            }
        }
    }

    fn members(&mut self, of: &str, before: &'s [Node], now: &'s [Node]) {
        for (position, (before, now)) in before.iter().zip(now).enumerate() {
            self.node(&format!("member {position} of {of}"), before, now);
        }
    }

    /// Fields or variants: pairs of the same name are compared, the rest was added, removed, renamed or moved.
    fn items<I: Item>(&mut self, word: &str, of: &str, before: &'s [I], now: &'s [I]) {
        let pair =
            |item: &I, others: &'s [I]| others.iter().find(|other| same_name(item.name(), other.name()));
        let gone: Vec<&I> = before.iter().filter(|item| pair(item, now).is_none()).collect();
        let new: Vec<&I> = now.iter().filter(|item| pair(item, before).is_none()).collect();
        let position = |items: &[I], item: &I| items.iter().position(|other| other.name() == item.name());
        if let ([gone], [new]) = (gone.as_slice(), new.as_slice())
            && before.len() == now.len()
            && position(before, gone) == position(now, new)
        {
            let (old_name, new_name) = (gone.name(), new.name());
            self.found.push(format!("{word} `{old_name}` of {of}: is now `{new_name}`"));
            gone.compare(new, &format!("{word} `{new_name}` of {of}"), self);
        } else {
            for item in gone {
                self.found.push(format!("{word} `{}` of {of}: removed", item.name()));
            }
            for item in new {
                let place =
                    match position(now, item).and_then(|at| at.checked_sub(1)).and_then(|at| now.get(at)) {
                        Some(previous) => format!("after `{}`", previous.name()),
                        None => "as the first".to_string(),
                    };
                self.found.push(format!("{word} `{}` of {of}: added {place}", item.name()));
            }
        }
        let kept: Vec<(&'s I, &'s I)> =
            before.iter().filter_map(|item| pair(item, now).map(|other| (item, other))).collect();
        let order = |(_, item): &(&I, &I)| position(now, item);
        if !kept.is_sorted_by_key(order) {
            let names: Vec<&str> = now.iter().map(Item::name).collect();
            self.found.push(format!("the {word}s of {of}: another order now ({})", names.join(", ")));
        }
        for (before, now) in kept {
            before.compare(now, &format!("{word} `{}` of {of}", now.name()), self);
        }
    }
}

fn kind(body: &ShapeBody) -> &'static str {
    match body {
        ShapeBody::Unit => "nothing",
        ShapeBody::NewType(_) => "one unnamed member",
        ShapeBody::Tuple(_) => "another number of unnamed members",
        ShapeBody::Struct(_) => "named fields",
        ShapeBody::Enum(_) => "an enum",
    }
}

/// Whether one of the names, or aliases, is the same.
fn same_name(a: &str, b: &str) -> bool {
    a.split('|').any(|a| b.split('|').any(|b| a == b))
}

trait Item {
    fn name(&self) -> &str;
    fn compare<'s>(&'s self, now: &'s Self, place: &str, walk: &mut Walk<'s>);
}

impl Item for ShapeField {
    fn name(&self) -> &str {
        &self.name
    }
    fn compare<'s>(&'s self, now: &'s Self, place: &str, walk: &mut Walk<'s>) {
        walk.node(place, &self.node, &now.node);
    }
}

impl Item for ShapeVariant {
    fn name(&self) -> &str {
        &self.name
    }
    fn compare<'s>(&'s self, now: &'s Self, place: &str, walk: &mut Walk<'s>) {
        if self.index != now.index {
            walk.found.push(format!("{place}: number {} before, {} now", self.index, now.index));
        }
        walk.body(place, &format!("`{}`", now.name), &self.body, &now.body);
    }
}

/// Compares bytes: what groups members is unrolled until only what shows in the bytes is left.
struct Layout<'s> {
    shapes: [&'s Shape; 2],
    /// Pairs of places that are being compared, by address: recursive types come back to them.
    assumed: BTreeSet<(usize, usize)>,
}

impl<'s> Layout<'s> {
    fn nodes(&mut self, a: &[&'s Node], b: &[&'s Node]) -> bool {
        let [shape_a, shape_b] = self.shapes;
        let (mut atoms_a, mut atoms_b) = (Vec::new(), Vec::new());
        let mut steps = UNROLL_STEPS_MAX;
        let whole = a.iter().all(|node| unroll(shape_a, node, &mut atoms_a, 0, &mut steps))
            && b.iter().all(|node| unroll(shape_b, node, &mut atoms_b, 0, &mut steps));
        whole
            && atoms_a.len() == atoms_b.len()
            && atoms_a.iter().zip(&atoms_b).all(|(a, b)| {
                let address = |node: &Node| std::ptr::from_ref(node).addr();
                !self.assumed.insert((address(a), address(b))) || self.atom(a, b)
            })
    }

    fn atom(&mut self, a: &'s Node, b: &'s Node) -> bool {
        match (a, b) {
            (Node::Option(a), Node::Option(b)) | (Node::Seq(a), Node::Seq(b)) => self.nodes(&[a], &[b]),
            (Node::Map(key_a, value_a), Node::Map(key_b, value_b)) => {
                self.nodes(&[key_a], &[key_b]) && self.nodes(&[value_a], &[value_b])
            }
            // Bytes are a list of `u8`, and a map is a list of pairs.
            (Node::Bytes, Node::Seq(b)) => self.nodes(&[&Node::U8], &[b]),
            (Node::Seq(a), Node::Bytes) => self.nodes(&[a], &[&Node::U8]),
            (Node::Map(key, value), Node::Seq(b)) => self.nodes(&[key, value], &[b]),
            (Node::Seq(a), Node::Map(key, value)) => self.nodes(&[a], &[key, value]),
            (Node::Array(a, len_a), Node::Array(b, len_b)) => len_a == len_b && self.nodes(&[a], &[b]),
            (Node::Named(a), Node::Named(b)) => {
                let [shape_a, shape_b] = self.shapes;
                match (shape_a.named(*a).map(|t| &t.body), shape_b.named(*b).map(|t| &t.body)) {
                    (Some(ShapeBody::Enum(a)), Some(ShapeBody::Enum(b))) => {
                        a.len() == b.len()
                            && a.iter().zip(b).all(|(a, b)| {
                                a.index == b.index && self.nodes(&content(&a.body), &content(&b.body))
                            })
                    }
                    _ => false,
                }
            }
            (a, b) => a == b && *a != Node::Unknown,
        }
    }
}

fn content(body: &ShapeBody) -> Vec<&Node> {
    match body {
        ShapeBody::Unit | ShapeBody::Enum(_) => Vec::new(),
        ShapeBody::NewType(node) => vec![node],
        ShapeBody::Tuple(nodes) => nodes.iter().collect(),
        ShapeBody::Struct(fields) => fields.iter().map(|field| &field.node).collect(),
    }
}

/// Answers `false` if the shape is not whole, or contains itself without an end, as only a damaged one can.
fn unroll<'s>(
    shape: &'s Shape,
    node: &'s Node,
    atoms: &mut Vec<&'s Node>,
    depth: u32,
    steps: &mut u32,
) -> bool {
    if depth > 100 || *steps == 0 {
        return false;
    }
    *steps -= 1;
    match node {
        Node::Unit => true,
        Node::Tuple(nodes) => nodes.iter().all(|node| unroll(shape, node, atoms, depth + 1, steps)),
        Node::Array(inside, len) if *len <= ARRAY_UNROLLED_MAX => {
            (0..*len).all(|_| unroll(shape, inside, atoms, depth + 1, steps))
        }
        Node::Named(index) => match shape.named(*index).map(|named| &named.body) {
            Some(ShapeBody::Enum(_)) => {
                atoms.push(node);
                true
            }
            Some(body) => content(body).into_iter().all(|node| unroll(shape, node, atoms, depth + 1, steps)),
            None => false,
        },
        node => {
            atoms.push(node);
            true
        }
    }
}
