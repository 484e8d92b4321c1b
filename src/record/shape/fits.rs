//! Whether what a value writes is what its type reads.
//!
//! The codec's bytes have no names and say nothing of types, so both sides must go through the same simple values in
//! the same order. What only groups them (a tuple in a tuple, a newtype) may differ; where both sides name a
//! struct's fields, or a variant, the names must be the same.

use super::text::readable_node;
use super::written::{Event, Fields, Simple};
use super::{Shape, ShapeBody, ShapeField, ShapeNode as Node};

/// Says in words, with the place, where `events` and the shape part.
pub(super) fn misfit(shape: &Shape, events: &[Event]) -> Result<(), String> {
    let mut walk = Walk { shape, rest: events, path: Vec::new(), members: None };
    walk.node(&shape.root)?;
    match walk.peek() {
        None => Ok(()),
        Some(event) => Err(walk.at(&format!("{} is written after the last value that is read", word(event)))),
    }
}

struct Walk<'a> {
    shape: &'a Shape,
    rest: &'a [Event],
    path: Vec<String>,
    /// The last tuple of which another number of members is written than read: the likely cause of what follows.
    members: Option<String>,
}

type Fit = Result<(), String>;

impl<'a> Walk<'a> {
    fn at(&self, what: &str) -> String {
        let place =
            if self.path.is_empty() { String::new() } else { format!("at `{}`: ", self.path.join(".")) };
        match &self.members {
            Some(members) => format!("{members} ({place}{what})"),
            None => format!("{place}{what}"),
        }
    }

    /// The next event that has bytes.
    fn peek(&mut self) -> Option<&'a Event> {
        while let Some((Event::Tuple(_) | Event::Struct(_), rest)) = self.rest.split_first() {
            self.rest = rest;
        }
        self.rest.first()
    }

    fn next(&mut self) -> Option<&'a Event> {
        let event = self.peek()?;
        self.rest = self.rest.get(1..).unwrap_or_default();
        Some(event)
    }

    fn other(&self, node: &Node, event: Option<&Event>) -> String {
        let read = readable_node(self.shape, node);
        let written = event.map_or_else(|| "nothing more".to_owned(), word);
        self.at(&format!("{written} is written where `{read}` is read"))
    }

    fn inside(&mut self, name: impl Into<String>, node: &'a Node) -> Fit {
        self.path.push(name.into());
        self.node(node)?;
        self.path.pop();
        Ok(())
    }

    fn node(&mut self, node: &'a Node) -> Fit {
        match node {
            Node::Unit | Node::Unknown | Node::Explicit(_) => return Ok(()),
            Node::Tuple(nodes) => return self.members(nodes.len(), nodes.iter()),
            Node::Array(inner, len) => {
                let len = *len as usize;
                return self.members(len, std::iter::repeat_n(&**inner, len));
            }
            Node::Named(index) => {
                let named = self.shape.named(*index).ok_or_else(|| self.at("its shape is damaged"))?;
                return match &named.body {
                    ShapeBody::Enum(_) => self.variant(node, &named.name, &named.body),
                    body => self.body(&named.name, body),
                };
            }
            _ => {}
        }
        let event = self.next();
        match (node, event) {
            (Node::Option(_), Some(Event::None)) => Ok(()),
            (Node::Option(inner), Some(Event::Some)) => self.node(inner),
            (Node::Seq(inner), Some(Event::Seq(len) | Event::Map(len))) => {
                (0..*len).try_for_each(|_| self.inside("[]", inner))
            }
            (Node::Map(key, value), Some(Event::Map(len) | Event::Seq(len))) => {
                (0..*len).try_for_each(|_| {
                    self.inside("[]", key)?;
                    self.inside("value", value)
                })
            }
            (Node::Seq(inner), Some(Event::Bytes(_))) if **inner == Node::U8 => Ok(()),
            (Node::Bytes, Some(Event::Seq(len))) => (0..*len).try_for_each(|_| self.node(&Node::U8)),
            (Node::Bytes | Node::Str, Some(Event::Bytes(_) | Event::Str(_))) => Ok(()),
            (node, Some(Event::Simple(simple, _))) if reads(node, *simple) => Ok(()),
            (node, event) => Err(self.other(node, event)),
        }
    }

    fn members(&mut self, len: usize, nodes: impl Iterator<Item = &'a Node>) -> Fit {
        if let Some((Event::Tuple(written), rest)) = self.rest.split_first() {
            self.rest = rest;
            if *written == len {
                return self.each_member(nodes);
            }
            let what = format!(
                "{written} unnamed members are written and {len} are read; remove `skip_serializing`, \
                 `skip_serializing_if` and `skip_deserializing` from them, or write `skip` for both sides"
            );
            self.members = Some(self.at(&what));
        }
        self.each_member(nodes)
    }

    fn each_member(&mut self, nodes: impl Iterator<Item = &'a Node>) -> Fit {
        nodes.enumerate().try_for_each(|(position, node)| self.inside(position.to_string(), node))
    }

    fn body(&mut self, name: &str, body: &'a ShapeBody) -> Fit {
        match body {
            ShapeBody::Unit | ShapeBody::Enum(_) => Ok(()),
            ShapeBody::NewType(node) => self.node(node),
            ShapeBody::Tuple(nodes) => self.members(nodes.len(), nodes.iter()),
            ShapeBody::Struct(fields) => {
                if let Some((Event::Struct(written), rest)) = self.rest.split_first() {
                    same_fields(name, written, fields).map_err(|what| self.at(&what))?;
                    self.rest = rest;
                }
                fields.iter().try_for_each(|field| self.inside(&*field.name, &field.node))
            }
        }
    }

    fn variant(&mut self, node: &Node, of: &str, body: &'a ShapeBody) -> Fit {
        let event = self.next();
        let (ShapeBody::Enum(variants), Some(Event::Variant { index, name })) = (body, event) else {
            return Err(self.other(node, event));
        };
        let read = variants.iter().find(|read| read.index == *index);
        match read {
            Some(read) if has_name(&read.name, name) => {
                self.path.push((*name).to_owned());
                self.body(name, &read.body)?;
                self.path.pop();
                Ok(())
            }
            Some(read) if variants.iter().any(|other| has_name(&other.name, name)) || variants.is_empty() => {
                Err(self.at(&format!(
                    "the variant `{name}` of `{of}` is written as number {index}, which is read as `{}`: a skipped \
                     variant counts on one side only; move variants with `skip` or `skip_deserializing` behind all \
                     others",
                    read.name
                )))
            }
            Some(read) => Err(self.at(&format!(
                "the variant of `{of}` that is read as `{}` is written as `{name}`; give both sides one name \
                 (`rename = \"…\"`), or the other one as an `alias`",
                read.name
            ))),
            None => Err(self.at(&format!(
                "the variant `{name}` of `{of}` is written as number {index}, which is not read; write `skip` in place \
                 of `skip_deserializing`, or move it behind all others"
            ))),
        }
    }
}

/// Whether a name is among those that are read, which are all aliases with a bar between.
fn has_name(read: &str, name: &str) -> bool {
    read.split('|').any(|read| read == name)
}

fn same_fields(of: &str, fields: &Fields, read: &[ShapeField]) -> Result<(), String> {
    let Fields { written, skipped } = fields;
    if let Some(name) = skipped.first() {
        return Err(format!(
            "`skip_serializing_if` leaves out the field `{name}` of `{of}`, and the bytes have no names by which a \
             reader could tell; make it an `Option`, or remove the attribute"
        ));
    }
    let is_read = |name: &&&str| read.iter().any(|field| has_name(&field.name, name));
    let is_written = |field: &&ShapeField| written.iter().any(|name| has_name(&field.name, name));
    let unread = written.iter().find(|name| !is_read(name));
    let unwritten = read.iter().find(|field| !is_written(field));
    match (unwritten, unread) {
        (Some(field), Some(name)) if written.len() == read.len() => Err(format!(
            "the field `{name}` of `{of}` is written and not read, and `{}` is read and not written; give both \
             sides one name (`rename = \"…\"`, or the other one as an `alias`), and write `skip` in place of \
             `skip_serializing` or `skip_deserializing`",
            field.name
        )),
        (Some(field), _) => Err(format!(
            "the field `{}` of `{of}` is read and not written; write `skip` in place of `skip_serializing`, or let it \
             be written",
            field.name
        )),
        (None, Some(name)) => Err(format!(
            "the field `{name}` of `{of}` is written and not read; write `skip` in place of `skip_deserializing`, \
             and no `tag` on a struct"
        )),
        (None, None) => {
            let ordered = written.len() == read.len()
                && written.iter().zip(read).all(|(name, field)| has_name(&field.name, name));
            if ordered {
                return Ok(());
            }
            Err(format!("the fields of `{of}` are written in another order than they are read"))
        }
    }
}

/// Whether a value that is written as `simple` is read back as `node` whatever it is: integers from 16 bits on have one
/// encoding, so a narrow one is read as a wide one.
fn reads(node: &Node, simple: Simple) -> bool {
    use Simple as S;
    match node {
        Node::Bool => simple == S::Bool,
        Node::U8 => matches!(simple, S::U8 | S::Bool),
        Node::U16 => simple == S::U16,
        Node::U32 => matches!(simple, S::U16 | S::U32),
        Node::U64 => matches!(simple, S::U16 | S::U32 | S::U64),
        Node::U128 => matches!(simple, S::U16 | S::U32 | S::U64 | S::U128),
        Node::I8 => simple == S::I8,
        Node::I16 => simple == S::I16,
        Node::I32 => matches!(simple, S::I16 | S::I32),
        Node::I64 => matches!(simple, S::I16 | S::I32 | S::I64),
        Node::I128 => matches!(simple, S::I16 | S::I32 | S::I64 | S::I128),
        Node::F32 => simple == S::F32,
        Node::F64 => simple == S::F64,
        Node::Char => simple == S::Char,
        _ => false,
    }
}

/// The type of an event, in a message.
fn word(event: &Event) -> String {
    match event {
        Event::Simple(simple, _) => format!("`{}`", format!("{simple:?}").to_lowercase()),
        Event::Str(_) => "`String`".to_owned(),
        Event::Bytes(_) => "`bytes`".to_owned(),
        Event::None | Event::Some => "`Option`".to_owned(),
        Event::Seq(_) => "`Vec`".to_owned(),
        Event::Map(_) => "`Map`".to_owned(),
        Event::Tuple(_) => "a tuple".to_owned(),
        Event::Struct(_) => "a struct".to_owned(),
        Event::Variant { name, .. } => format!("the variant `{name}`"),
    }
}

/// What was written, for people.
impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::Simple(Simple::Bool, bits) => write!(f, "{}", *bits != 0),
            Event::Simple(Simple::F32, bits) => write!(f, "{}", f32::from_bits(*bits as u32)),
            Event::Simple(Simple::F64, bits) => write!(f, "{}", f64::from_bits(*bits as u64)),
            Event::Simple(Simple::Char, bits) => {
                write!(f, "{:?}", char::from_u32(*bits as u32).unwrap_or_default())
            }
            Event::Simple(_, bits) => write!(f, "{}", bits.cast_signed()),
            Event::Str(text) => write!(f, "{text:?}"),
            Event::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Event::None => f.write_str("`None`"),
            Event::Some => f.write_str("`Some`"),
            Event::Seq(len) | Event::Map(len) => write!(f, "a list of {len}"),
            other => f.write_str(&word(other)),
        }
    }
}
