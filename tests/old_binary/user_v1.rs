//! The first version of a user.

use exuvia::{CastError, Origin, Version};
use serde::{Deserialize, Serialize};

use crate::shell::Fields;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserV1 {
    pub name: String,
    pub age: u32,
}

impl Version for UserV1 {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}

impl Fields for UserV1 {
    fn of(fields: &[&str]) -> Self {
        UserV1 { name: fields[0].to_owned(), age: fields[1].parse().unwrap() }
    }

    fn show(&self) -> String {
        format!("{}\t{}", self.name, self.age)
    }
}
