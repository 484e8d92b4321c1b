//! What is seen of which types, and how differences read.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use super::*;
use crate::error::CastError;
use crate::record::version::{Origin, Version};

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

/// As many elements as a record of that size can have, counted with those of the lists around them.
#[test]
fn arrays_in_a_long_list_are_values_of_their_shape() {
    type Image = Vec<[u8; 3]>;
    let mut bytes = Vec::new();
    crate::record::codec::encode(&vec![[1u8, 2, 3]; 4_600_000] as &Image, &mut bytes).unwrap();
    check_stored(&shape::<Image>(), &bytes).unwrap();

    let mut endless = Vec::new();
    crate::record::codec::encode(&u64::MAX, &mut endless).unwrap();
    let error = check_stored(&shape::<Vec<()>>(), &endless).unwrap_err();
    assert!(error.to_string().contains("too many elements without bytes"), "{error}");
}

mod differences;
mod seen;
mod unseen;
