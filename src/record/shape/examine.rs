//! Whether what is written of a type is read back, looked at once, when a table is opened.
//!
//! The values that the tracer makes (every variant of every enum, every field with the usual and with an unusual value)
//! are written, compared in names, numbers and order with what reading asked for, encoded, decoded and written again.
//! A type that refuses such a value, when reading or when writing, refuses it in a `put` too: nothing is lost, and
//! nothing is said of that value here.

use std::any::type_name;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::describe::Described;
use super::written::{Event, written};
use super::{Shape, ShapeNode, fits, trace};
use crate::record::codec;
use crate::record::version::Version;

/// A type that was looked at.
pub(crate) struct Examined {
    pub(crate) shape: Shape,
    /// Whether its bytes are those of the codec that it names, as far as this program knows that one.
    pub(crate) codec_is_named: bool,
    /// Whether values of it could be made. Else each record has to be looked at when it is written.
    pub(crate) by_values: bool,
}

impl Examined {
    /// The shape, for a version that is new to a table.
    pub(crate) fn shape_with_codec(self, codec: &str) -> Result<Shape, String> {
        if self.codec_is_named {
            return Ok(self.shape);
        }
        Err(format!(
            "its `Version::encode` does not write what the codec {codec:?} writes; give its codec a name of its own, by \
             `Version::CODEC`"
        ))
    }
}

/// The shape of `V`, if every value of it is read back as it was written, as far as the tracer's values show.
///
/// # Errors
///
/// What is wrong, with the place in the type, and what to write instead.
pub(crate) fn examine<V: Version>() -> Result<Examined, String> {
    let described = Described::of::<V>().map_err(|e| format!("its shape cannot be described: {e}"))?;
    let Described { shape, seen, samples } = described;
    let mut examined = Examined { shape, codec_is_named: true, by_values: true };
    if matches!(examined.shape.root(), ShapeNode::Explicit(_)) {
        return Ok(examined);
    }
    let mut each = |value: V| match look(&value, &examined.shape) {
        Ok(by_default) => {
            examined.codec_is_named &= by_default || V::CODEC != codec::BINCODE;
            Ok(())
        }
        Err(reason) => Err(format!("what is written of {} is not read back: {reason}", type_name::<V>())),
    };
    for sample in samples {
        if let Ok(value) = codec::decode(&sample) {
            each(value)?;
        }
    }
    examined.by_values = trace::explore::<V>(seen, &mut each)?;
    Ok(examined)
}

/// Compares what is written of one value with what is read of it. Answers whether its bytes are the default codec's.
fn look<V: Version>(value: &V, shape: &Shape) -> Result<bool, String> {
    let Some(events) = attempt(|| written(value).ok()) else {
        return Ok(true);
    };
    let Some(bytes) = attempt(|| encoded(|out| value.encode(out))) else {
        // A field that is left out is refused by the codec at each put; that is no record that anybody could mend.
        if V::CODEC == codec::BINCODE {
            fits::misfit(shape, &events)?;
        }
        return Ok(true);
    };
    let by_default = attempt(|| encoded(|out| codec::encode(value, out))).is_some_and(|own| own == bytes);
    if by_default {
        fits::misfit(shape, &events)?;
    }
    let read = catch_unwind(|| V::decode(&bytes))
        .map_err(|_| "decoding what was encoded panicked".to_owned())?
        .map_err(|e| format!("{e}; `Version::decode` must read whatever `Version::encode` writes"))?;
    let again = attempt(|| written(&read).ok()).ok_or("what was read back cannot be written again")?;
    match difference(&events, &again) {
        None => Ok(by_default),
        Some((wrote, read)) => Err(format!(
            "{wrote} was written and {read} read back; the two sides of `with`, of `serialize_with` and \
             `deserialize_with`, and of `into` and `from` must undo each other"
        )),
    }
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), crate::error::CastError>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(&mut bytes).ok().map(|()| bytes)
}

/// What user code answers; a panic of it is no answer.
fn attempt<T>(call: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok().flatten()
}

/// The first values that differ.
fn difference(wrote: &[Event], read: &[Event]) -> Option<(String, String)> {
    let at = (0..wrote.len().max(read.len())).find(|at| wrote.get(*at) != read.get(*at))?;
    let show = |event: Option<&Event>| event.map_or_else(|| "nothing".to_owned(), Event::to_string);
    Some((show(wrote.get(at)), show(read.get(at))))
}
