//! Shapes as text: readable, and canonical for the fingerprint.

use super::{Shape, ShapeBody, ShapeNode as Node};

/// For people: with the names of types.
pub(super) fn readable(shape: &Shape) -> String {
    Text { shape, names: true }.all()
}

/// For the fingerprint: types by number, every other name after its length, so that no name can pretend to be
/// something else. It is part of the stored format: a change of it makes every stored fingerprint differ.
pub(super) fn canonical(shape: &Shape) -> String {
    Text { shape, names: false }.all()
}

/// One place, for people.
pub(super) fn readable_node(shape: &Shape, node: &Node) -> String {
    Text { shape, names: true }.node(node)
}

struct Text<'s> {
    shape: &'s Shape,
    names: bool,
}

impl Text<'_> {
    fn all(&self) -> String {
        let mut parts = Vec::new();
        if self.shape.root != Node::Named(0) {
            parts.push(self.node(&self.shape.root));
        }
        for named in &self.shape.types {
            let word = if matches!(named.body, ShapeBody::Enum(_)) { "enum" } else { "struct" };
            let name = if self.names { format!(" {}", named.name) } else { String::new() };
            parts.push(format!("{word}{name}{}", self.body(&named.body)));
        }
        parts.join("; ")
    }

    fn body(&self, body: &ShapeBody) -> String {
        let list = |parts: Vec<String>| parts.join(", ");
        match body {
            ShapeBody::Unit => String::new(),
            ShapeBody::NewType(node) => format!("({})", self.node(node)),
            ShapeBody::Tuple(nodes) => {
                format!("({},)", list(nodes.iter().map(|node| self.node(node)).collect()))
            }
            ShapeBody::Struct(fields) => {
                let field = |f: &super::ShapeField| format!("{}: {}", self.name(&f.name), self.node(&f.node));
                format!(" {{ {} }}", list(fields.iter().map(field).collect()))
            }
            ShapeBody::Enum(variants) => {
                let number = |index: u32| {
                    if self.names { String::new() } else { format!("{index} ") }
                };
                let variant = |v: &super::ShapeVariant| {
                    format!("{}{}{}", number(v.index), self.name(&v.name), self.body(&v.body))
                };
                format!(" {{ {} }}", list(variants.iter().map(variant).collect()))
            }
        }
    }

    fn name(&self, name: &str) -> String {
        if self.names { name.to_string() } else { format!("{}:{name}", name.len()) }
    }

    fn node(&self, node: &Node) -> String {
        match node {
            Node::Unknown => "?".into(),
            Node::Unit => "()".into(),
            Node::Bool => "bool".into(),
            Node::I8 => "i8".into(),
            Node::I16 => "i16".into(),
            Node::I32 => "i32".into(),
            Node::I64 => "i64".into(),
            Node::I128 => "i128".into(),
            Node::U8 => "u8".into(),
            Node::U16 => "u16".into(),
            Node::U32 => "u32".into(),
            Node::U64 => "u64".into(),
            Node::U128 => "u128".into(),
            Node::F32 => "f32".into(),
            Node::F64 => "f64".into(),
            Node::Char => "char".into(),
            Node::Str => "String".into(),
            Node::Bytes => "bytes".into(),
            Node::Option(inside) => format!("Option<{}>", self.node(inside)),
            Node::Seq(inside) => format!("Vec<{}>", self.node(inside)),
            Node::Map(key, value) => format!("Map<{}, {}>", self.node(key), self.node(value)),
            Node::Tuple(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(|node| self.node(node)).collect();
                format!("({},)", nodes.join(", "))
            }
            Node::Array(inside, len) => format!("[{}; {len}]", self.node(inside)),
            Node::Named(index) => match self.shape.named(*index) {
                Some(named) if self.names => named.name.clone(),
                _ => format!("#{index}"),
            },
            Node::Explicit(text) => format!("explicit {}", self.name(text)),
        }
    }
}
