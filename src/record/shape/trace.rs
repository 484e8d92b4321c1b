//! One pass over a type: a deserializer that answers with invented or sampled values and notes the questions.
//!
//! 1. A pass explores one new variant of each enum that it meets, and stays with a variant until all enums inside it
//!    are complete. The passes are repeated until one leaves nothing open.
//! 2. Inside a type that is already around (recursion) the pass is *lean*: options are none, lists are empty, and
//!    an enum takes a variant that is not already around. So every pass ends.
//! 3. An invented value that is refused ends the pass. If there is a sample of the innermost type around, the next
//!    pass takes it in that place; else the refusal is the answer.

use std::any::type_name;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use serde::de::{DeserializeOwned, DeserializeSeed};

use super::ShapeNode as Node;
use super::seen::{Pass, Place, Seen, merge};
use super::source::Source;
use super::stop::Stop;

mod access;
mod reader;

/// More passes than any type that a person wrote needs: one for each variant along each path, and a few more.
const PASSES_MAX: u32 = 100_000;

/// Nesting that no type reaches except by recursion that nothing ends.
const DEPTH_MAX: u32 = 100;

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
        match pass::<T>(seen, &mut Source::invented(), node) {
            Ok(_) if !seen.pass.pending => return Ok(()),
            Ok(_) | Err(Stop::Again) => {}
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
            Ok(_) if !seen.pass.pending => return Ok(()),
            Ok(_) | Err(Stop::Again) => {}
            Err(Stop::Refused(reason)) => return Err(at(seen, &reason)),
        }
    }
    Err(at(seen, "it has too many variants inside variants"))
}

/// Hands out values of `T`, after [`trace`] and [`sample`] have seen it: every variant of every enum, and values in which
/// each field has its unusual value once, as far as `T` takes them. `each` may end it. Answers whether `T` took the usual
/// ones, so that every variant was handed out.
pub(super) fn explore<T: DeserializeOwned>(
    mut seen: Seen,
    each: &mut dyn FnMut(T) -> Result<(), String>,
) -> Result<bool, String> {
    seen.go_back(&[]);
    let mut varied = BTreeSet::new();
    for _ in 0..PASSES_MAX {
        let before = seen.stand();
        match pass::<T>(&mut seen, &mut Source::invented(), &mut Node::Unknown) {
            Ok(value) => {
                each(value)?;
                let (pending, after) = (seen.pass.pending, seen.stand());
                let asked = std::mem::take(&mut seen.pass.asked);
                vary(&mut seen, &before, &asked, &mut varied, each)?;
                seen.go_back(&after);
                if !pending {
                    return Ok(true);
                }
            }
            Err(Stop::Again) => {}
            Err(Stop::Refused(_)) if seen.can_do_better() => {}
            Err(Stop::Refused(_)) => return Ok(false),
        }
    }
    Ok(false)
}

/// Makes the pass after `before` again, with all places unusual that are not `varied` yet. What is refused is tried by halves,
/// so that one field that takes one value only does not hide the others; what was left out together with its `None` or its
/// empty list comes next. Then with the places of which one bit of their number is set: of any two fields, one is unusual
/// and the other is not at least once, which shows those that are exchanged. So the passes are few: for each depth the
/// logarithm of the places, and two for each that refuses, and its logarithm.
fn vary<T: DeserializeOwned>(
    seen: &mut Seen,
    before: &[u32],
    asked: &[Place],
    varied: &mut BTreeSet<Place>,
    each: &mut dyn FnMut(T) -> Result<(), String>,
) -> Result<(), String> {
    // What refuses its value by a panic has refused it.
    let mut make = |unusual: BTreeSet<Place>| {
        seen.go_back(before);
        let mut source = Source::Invented { unusual };
        let made = catch_unwind(AssertUnwindSafe(|| pass::<T>(seen, &mut source, &mut Node::Unknown)));
        let asked: BTreeSet<Place> = std::mem::take(&mut seen.pass.asked).into_iter().collect();
        made.ok().and_then(Result::ok).map(|value| (value, asked))
    };
    loop {
        // In the order of the questions: the first of a group is always asked for.
        let mut known = varied.clone();
        let open: Vec<Place> = asked.iter().filter(|place| known.insert((*place).clone())).cloned().collect();
        let mut groups = vec![open.as_slice()];
        let (mut taken, count) = (Vec::new(), varied.len());
        while let Some(group) = groups.pop().filter(|group| !group.is_empty()) {
            match (make(group.iter().cloned().collect()), group.split_at(group.len() / 2)) {
                (Some((value, asked)), _) => {
                    each(value)?;
                    taken.extend(group.iter().filter(|place| asked.contains(place)));
                }
                (None, ([], only)) => varied.extend(only.iter().cloned()),
                (None, (first, second)) => groups.extend([second, first]),
            }
        }
        let bits = usize::BITS - taken.len().leading_zeros();
        for bit in 0..bits {
            let of_bit = taken.iter().enumerate().filter(|(number, _)| (number >> bit) & 1 == 1);
            if let Some((value, _)) = make(of_bit.map(|(_, place)| (*place).clone()).collect()) {
                each(value)?;
            }
        }
        varied.extend(taken.into_iter().cloned());
        if varied.len() == count {
            return Ok(());
        }
    }
}

fn pass<T: DeserializeOwned>(seen: &mut Seen, source: &mut Source, node: &mut Node) -> Result<T, Stop> {
    seen.pass = Pass::default();
    let mut out = Node::Unknown;
    let reader = Reader { seen: &mut *seen, source, out: &mut out, lean: false, depth: 0 };
    let result = reader.seeded(std::marker::PhantomData::<T>);
    merge(node, out)?;
    result
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

    /// A value that has another one, which a pass may ask for instead: see [`explore`].
    fn vary<T: bincode::Decode<()>>(&mut self, usual: T, unusual: T) -> Result<T, Stop> {
        let invented = if self.is_unusual() { unusual } else { usual };
        self.source.take(invented)
    }

    /// Notes that a value with another one is asked for, and answers whether it is that one's turn.
    fn is_unusual(&mut self) -> bool {
        let Source::Invented { unusual } = self.source else {
            return false;
        };
        let place = self.seen.pass.place();
        let is_unusual = unusual.contains(&place);
        self.seen.pass.asked.push(place);
        is_unusual
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
            Source::Invented { .. } => seen.sample(rust).map(|(bytes, range)| Source::sample(bytes, range)),
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
