//! From what was seen to a finished shape.

use std::any::type_name;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::seen::{Body, Kind, Seen, has_unknown};
use super::{Shape, ShapeBody, ShapeField, ShapeNode as Node, ShapeType, ShapeVariant, trace};
use crate::error::CastError;
use crate::record::codec;

/// What [`Version::describe`](crate::Version::describe) tells about its type.
///
/// The calls add up, and their order does not matter: samples are looked at first.
#[derive(Debug, Default)]
pub struct Describe {
    traces: Vec<(&'static str, TraceOf)>,
    samples: Vec<Sample>,
    explicit: Option<String>,
}

#[derive(Debug)]
struct Sample {
    rust: &'static str,
    bytes: Result<Vec<u8>, CastError>,
    look: SampleOf,
}

/// A finished shape, and how values of the type are made.
pub(crate) struct Described {
    pub(crate) shape: Shape,
    pub(super) seen: Seen,
    /// Those of the whole type, encoded.
    pub(super) samples: Vec<Rc<[u8]>>,
}

type TraceOf = fn(&mut Seen, &mut Node) -> Result<(), String>;
type SampleOf = fn(&mut Seen, Rc<[u8]>, &mut Node) -> Result<(), String>;

impl Describe {
    /// Looks at `T` by invented values. Is what [`Version::describe`](crate::Version::describe) does for the record's type; a call for
    /// another type helps if that one is out of reach behind a field that no invented value satisfies.
    pub fn trace<T: DeserializeOwned>(&mut self) -> &mut Self {
        self.traces.push((type_name::<T>(), trace::trace::<T>));
        self
    }

    /// Adds a valid value, of the record's type or of one inside it whose invented value is refused.
    ///
    /// ```
    /// use exuvia::shape::{Describe, Shape};
    /// use exuvia::{CastError, Origin, Version};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// #[serde(try_from = "String")]
    /// struct Mail(String);
    ///
    /// impl TryFrom<String> for Mail {
    ///     type Error = String;
    ///     fn try_from(text: String) -> Result<Self, String> {
    ///         if text.contains('@') { Ok(Mail(text)) } else { Err(format!("{text:?} has no @")) }
    ///     }
    /// }
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct User {
    ///     mail: Mail,
    ///     age: u8,
    /// }
    ///
    /// impl Version for User {
    ///     const VERSION: u32 = 1;
    ///     type Previous = Origin;
    ///     fn upcast(previous: Origin) -> Result<Self, CastError> {
    ///         previous.never()
    ///     }
    ///     fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
    ///         Origin::nothing_below()
    ///     }
    ///     fn describe(describe: &mut Describe) {
    ///         describe.trace::<Self>().sample(&Mail("a@b".into()));
    ///     }
    /// }
    ///
    /// assert_eq!(Shape::of::<User>()?.to_string(), "struct User { mail: String, age: u8 }");
    /// # Ok::<(), CastError>(())
    /// ```
    pub fn sample<T: Serialize + DeserializeOwned>(&mut self, value: &T) -> &mut Self {
        let mut bytes = Vec::new();
        let bytes = codec::encode(value, &mut bytes).map(|()| bytes);
        self.samples.push(Sample { rust: type_name::<T>(), bytes, look: trace::sample::<T> });
        self
    }

    /// Describes the whole type in words, for a type with its own [`Version::encode`](crate::Version::encode): nothing else is looked at.
    /// Whoever changes the encoding has to change the words.
    pub fn explicit(&mut self, text: impl Into<String>) -> &mut Self {
        self.explicit = Some(text.into());
        self
    }

    /// `root`: the type's name in Rust.
    pub(crate) fn finish(self, root: &'static str) -> Result<Described, CastError> {
        let mut seen = Seen::default();
        let mut own = Vec::new();
        if let Some(text) = self.explicit {
            let shape = Shape { root: Node::Explicit(text), types: Vec::new() };
            return Ok(Described { shape, seen, samples: own });
        }
        let mut nodes: BTreeMap<&'static str, Node> = BTreeMap::new();
        for Sample { rust, bytes, look } in self.samples {
            let fail = |e: &str| CastError::new(format!("the sample of {rust} cannot be used: {e}"));
            let bytes: Rc<[u8]> = bytes.map_err(|e| fail(e.message()))?.into();
            look(&mut seen, Rc::clone(&bytes), nodes.entry(rust).or_insert(Node::Unknown))
                .map_err(|e| fail(&e))?;
            let whole = 0..bytes.len();
            if rust == root {
                own.push(Rc::clone(&bytes));
            }
            seen.add_sample(rust, bytes, whole);
        }
        let mut refusals = Vec::new();
        for (rust, look) in self.traces {
            if let Err(refusal) = look(&mut seen, nodes.entry(rust).or_insert(Node::Unknown)) {
                refusals.push(format!("{rust} {refusal}"));
            }
        }
        let node = nodes.remove(root).unwrap_or(Node::Unknown);
        let finish = Finish { seen: &seen, order: BTreeMap::new(), types: Vec::new() };
        let shape = finish.shape(node).map_err(|gap| {
            let why = if refusals.is_empty() { "no trace or sample shows it".into() } else { refusals.join("; ") };
            CastError::new(format!(
                "the shape of {root} is not known: {gap} was not seen ({why}). In its `Version::describe`, call \
                 `sample` with a valid value of that type, of each variant if it is an enum, or `trace` the enum; \
                 or, for a type with its own encoding, call `explicit` with a description"
            ))
        })?;
        Ok(Described { shape, seen, samples: own })
    }
}

/// Numbers the types in the order in which they are met from the root, so that the order of the calls and passes
/// leaves no trace, and looks for gaps. An error names the gap.
struct Finish<'s> {
    seen: &'s Seen,
    order: BTreeMap<u32, u32>,
    types: Vec<ShapeType>,
}

impl Finish<'_> {
    fn shape(mut self, root: Node) -> Result<Shape, String> {
        let root = self.node(&root, "the type")?;
        Ok(Shape { root, types: self.types })
    }

    fn node(&mut self, node: &Node, place: &str) -> Result<Node, String> {
        Ok(match node {
            Node::Unknown => return Err(place.to_string()),
            Node::Option(inside) => Node::Option(Box::new(self.node(inside, place)?)),
            Node::Seq(inside) => Node::Seq(Box::new(self.node(inside, place)?)),
            Node::Array(inside, len) => Node::Array(Box::new(self.node(inside, place)?), *len),
            Node::Map(key, value) => {
                Node::Map(Box::new(self.node(key, place)?), Box::new(self.node(value, place)?))
            }
            Node::Tuple(nodes) => self.tuple(nodes, place)?,
            Node::Named(position) => Node::Named(self.named(*position, place)?),
            simple => simple.clone(),
        })
    }

    /// `(u8, u8)` and `[u8; 2]` are one thing to serde, so they are one thing here.
    fn tuple(&mut self, nodes: &[Node], place: &str) -> Result<Node, String> {
        let nodes = self.nodes(nodes, place)?;
        match (nodes.split_first(), u32::try_from(nodes.len())) {
            (Some((first, rest)), Ok(len)) if len > 1 && rest.iter().all(|node| node == first) => {
                Ok(Node::Array(Box::new(first.clone()), len))
            }
            _ => Ok(Node::Tuple(nodes)),
        }
    }

    fn nodes(&mut self, nodes: &[Node], place: &str) -> Result<Vec<Node>, String> {
        nodes.iter().map(|node| self.node(node, place)).collect()
    }

    fn named(&mut self, position: u32, place: &str) -> Result<u32, String> {
        if let Some(number) = self.order.get(&position) {
            return Ok(*number);
        }
        let seen = self.seen;
        let index = usize::try_from(position).map_err(|e| e.to_string())?;
        let named = seen.types.get(index).ok_or_else(|| place.to_string())?;
        let number = u32::try_from(self.types.len()).map_err(|e| e.to_string())?;
        self.order.insert(position, number);
        // The place is taken before the content is looked at: the type may contain itself.
        self.types.push(ShapeType { name: named.name.to_string(), body: ShapeBody::Unit });
        let body = if named.body.kind == Kind::Enum {
            let count = named.body.labels.count.ok_or_else(|| format!("the enum `{}`", named.name))?;
            let mut variants = Vec::new();
            for position in 0..count {
                let index = u32::try_from(position).map_err(|e| e.to_string())?;
                let name = named.body.labels.name(position);
                let place = format!("the variant `{}::{name}`", named.name);
                let body = named.variants.get(&index).ok_or_else(|| place.clone())?;
                variants.push(ShapeVariant { index, body: self.body(body, &place)?, name });
            }
            ShapeBody::Enum(variants)
        } else {
            self.body(&named.body, &format!("`{}`", named.name))?
        };
        if let Some(placed) = self.types.get_mut(usize::try_from(number).map_err(|e| e.to_string())?) {
            placed.body = body;
        }
        Ok(number)
    }

    fn body(&mut self, body: &Body, place: &str) -> Result<ShapeBody, String> {
        // A gap in one of the nodes is named below, by the node.
        if !body.whole() && !body.nodes.iter().any(has_unknown) {
            return Err(match body.labels.given.get(body.nodes.len()) {
                Some(name) if body.kind == Kind::Struct => format!("the field `{name}` of {place}"),
                _ => format!("a part of {place}"),
            });
        }
        Ok(match body.kind {
            Kind::Unit | Kind::Enum => ShapeBody::Unit,
            Kind::NewType => match body.nodes.first() {
                Some(node) => ShapeBody::NewType(self.node(node, place)?),
                None => return Err(place.to_string()),
            },
            Kind::Tuple => ShapeBody::Tuple(self.nodes(&body.nodes, place)?),
            Kind::Struct => {
                let mut fields = Vec::new();
                for (position, node) in body.nodes.iter().enumerate() {
                    let name = body.labels.name(position);
                    let node = self.node(node, &format!("the field `{name}` of {place}"))?;
                    fields.push(ShapeField { name, node });
                }
                ShapeBody::Struct(fields)
            }
        })
    }
}
