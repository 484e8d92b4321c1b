//! What is seen of which types, and how differences read.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use super::*;
use crate::version::Origin;

/// A version whose type is `T` and whose description is `D`'s.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Of<T, D>(T, #[serde(skip)] std::marker::PhantomData<D>);

/// How a test describes its type.
trait Tell<T>: Send + Sync + 'static {
    fn tell(describe: &mut Describe);
}

/// Says nothing but what the default says.
struct Plain;
impl<T> Tell<T> for Plain {
    fn tell(_: &mut Describe) {}
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static, D: Tell<T>> Version for Of<T, D> {
    const VERSION: u32 = 1;
    type Previous = Origin;
    fn upcast(previous: Origin) -> Result<Self, CastError> {
        previous.never()
    }
    fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
    fn describe(describe: &mut Describe) {
        D::tell(describe.trace::<Self>());
    }
}

fn try_shape<T: Serialize + DeserializeOwned + Send + Sync + 'static>() -> Result<Shape, CastError> {
    Shape::of::<Of<T, Plain>>()
}

fn shape<T: Serialize + DeserializeOwned + Send + Sync + 'static>() -> Shape {
    try_shape::<T>().unwrap()
}

fn text<T: Serialize + DeserializeOwned + Send + Sync + 'static>() -> String {
    shape::<T>().to_string()
}

mod differences;
mod seen;
mod unseen;
