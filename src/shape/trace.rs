//! One pass over a type: a deserializer that answers with invented or sampled values and notes the questions.
//!
//! 1. A pass explores one new variant of each enum that it meets, and stays with a variant until all enums inside it
//!    are complete. The passes are repeated until one leaves nothing open.
//! 2. Inside a type that is already around (recursion) the pass is *lean*: options are none, lists are empty, and
//!    an enum takes a variant that is not already around. So every pass ends.
//! 3. An invented value that is refused ends the pass. If there is a sample of the innermost type around, the next
//!    pass takes it in that place; else the refusal is the answer.

use std::any::type_name;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use serde::de::{DeserializeOwned, DeserializeSeed};

use super::ShapeNode as Node;
use super::seen::{Pass, Seen, merge};
use super::source::Source;

mod access;
mod reader;

/// More passes than any type that a person wrote needs: one for each variant along each path, and a few more.
const PASSES_MAX: u32 = 100_000;

/// Nesting that no type reaches except by recursion that nothing ends.
const DEPTH_MAX: u32 = 100;

/// Why a pass ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// It learned what it was after; the next pass goes on.
    Again,
    /// The type does not take the values that it was given.
    Refused(String),
}

impl Stop {
    pub(super) fn refused(reason: impl fmt::Display) -> Self {
        Stop::Refused(reason.to_string())
    }

    pub(super) fn changed() -> Self {
        Stop::refused("its `Deserialize` reads different things from one time to the next")
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Again => f.write_str("the pass is over"),
            Stop::Refused(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Stop {}

impl serde::de::Error for Stop {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Stop::refused(reason)
    }
}

/// The deserializer for one place.
struct Reader<'a> {
    seen: &'a mut Seen,
    source: &'a mut Source,
    /// What this place turns out to be.
    out: &'a mut Node,
    lean: bool,
    depth: u32,
}

/// Sees as much of `T` as invented values and the samples show, and answers what it is.
pub(super) fn trace<T: DeserializeOwned>(seen: &mut Seen, node: &mut Node) -> Result<(), String> {
    for _ in 0..PASSES_MAX {
        match pass::<T>(seen, &mut Source::Invented, node) {
            Ok(()) if !seen.pass.pending => return Ok(()),
            Ok(()) | Err(Stop::Again) => {}
            Err(Stop::Refused(_)) if seen.can_do_better() => {}
            Err(Stop::Refused(reason)) => return Err(at(seen, &reason)),
        }
    }
    Err(at(seen, "it has too many variants inside variants"))
}

/// Sees what the bytes of one sample of `T` show.
pub(super) fn sample<T: DeserializeOwned>(
    seen: &mut Seen,
    bytes: Rc<[u8]>,
    node: &mut Node,
) -> Result<(), String> {
    for _ in 0..PASSES_MAX {
        let mut source = Source::sample(Rc::clone(&bytes), 0..bytes.len());
        match pass::<T>(seen, &mut source, node) {
            Ok(()) if !seen.pass.pending => return Ok(()),
            Ok(()) | Err(Stop::Again) => {}
            Err(Stop::Refused(reason)) => return Err(at(seen, &reason)),
        }
    }
    Err(at(seen, "it has too many variants inside variants"))
}

fn pass<T: DeserializeOwned>(seen: &mut Seen, source: &mut Source, node: &mut Node) -> Result<(), Stop> {
    seen.pass = Pass::default();
    let mut out = Node::Unknown;
    let reader = Reader { seen: &mut *seen, source, out: &mut out, lean: false, depth: 0 };
    let result = reader.seeded(std::marker::PhantomData::<T>);
    merge(node, out)?;
    result.map(drop)
}

fn at(seen: &Seen, reason: &str) -> String {
    match seen.pass.path.as_slice() {
        [] => reason.to_string(),
        path => format!("at `{}`: {reason}", path.join(".")),
    }
}

/// The Rust type whose encoding is also this one's.
fn inner(mut rust: &'static str) -> &'static str {
    while let Some(boxed) = rust.strip_prefix("alloc::boxed::Box<").and_then(|r| r.strip_suffix('>')) {
        rust = boxed;
    }
    rust
}

impl Reader<'_> {
    /// A reader for a place inside this one.
    fn inside<'r>(
        seen: &'r mut Seen,
        source: &'r mut Source,
        out: &'r mut Node,
        (lean, depth): (bool, u32),
    ) -> Result<Reader<'r>, Stop> {
        if depth >= DEPTH_MAX {
            return Err(Stop::refused("the type contains itself in a way that no value can end"));
        }
        Ok(Reader { seen, source, out, lean, depth: depth + 1 })
    }

    /// Reads a value whose Rust type is known: the place where a sample can step in, or be found.
    fn seeded<'de, T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        self.of_type(inner(type_name::<T::Value>()), |reader| seed.deserialize(reader))
    }

    fn of_type<R>(
        self,
        rust: &'static str,
        read: impl FnOnce(Reader<'_>) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        let Reader { seen, source, out, lean, depth } = self;
        // Recursion through named types is seen there; this is for one that passes lists and options only. It is
        // known by the third time: `Option<Node>` is rightly met twice, around a `Node` and in it.
        let lean = lean || seen.pass.rust.iter().filter(|around| **around == rust).count() > 1;
        let mut own: Option<Source> = match source {
            Source::Invented => seen.sample(rust).map(|(bytes, range)| Source::sample(bytes, range)),
            Source::Sample { .. } => None,
        };
        let source = own.as_mut().unwrap_or(source);
        let found: Option<(Rc<[u8]>, Range<usize>)> = source.rest();
        seen.pass.rust.push(rust);
        let value = read(Reader { seen: &mut *seen, source: &mut *source, out, lean, depth })?;
        seen.pass.rust.pop();
        if let (Some((bytes, before)), Some((_, after))) = (found, source.rest()) {
            seen.add_sample(rust, bytes, before.start..after.start);
        }
        Ok(value)
    }
}
