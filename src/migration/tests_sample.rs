//! A lineage of two versions, for the tests of this folder.

use serde::{Deserialize, Serialize};

use crate::{CastError, Origin, Version};

#[derive(Serialize, Deserialize)]
pub(crate) struct One(pub(crate) u8);

#[derive(Serialize, Deserialize)]
pub(crate) struct Two(pub(crate) u8, pub(crate) u8);

impl Version for One {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(previous: Origin) -> Result<Self, CastError> {
        previous.never()
    }

    fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Version for Two {
    const VERSION: u32 = 2;
    type Previous = One;

    fn upcast(previous: One) -> Result<Self, CastError> {
        Ok(Two(previous.0, 0))
    }

    fn downcast(&self, _: Option<One>) -> Result<One, CastError> {
        Ok(One(self.0))
    }
}
