//! The lineage that most tests use: a user whose name is split, then whose age becomes a year of birth.

use exuvia::{CastError, Origin, Version};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserV1 {
    pub name: String,
    pub age: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserV2 {
    pub first: String,
    pub last: String,
    pub age: u32,
    /// Only v2 has it.
    pub email: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserV3 {
    pub first: String,
    pub last: String,
    pub born: i32,
    pub email: Option<String>,
    /// Only v3 has it.
    pub tags: Vec<String>,
}

pub fn v1(name: &str, age: u32) -> UserV1 {
    UserV1 { name: name.to_owned(), age }
}

pub fn v2(first: &str, last: &str, age: u32, email: Option<&str>) -> UserV2 {
    UserV2 { first: first.to_owned(), last: last.to_owned(), age, email: email.map(str::to_owned) }
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

    fn validate(&self) -> Result<(), CastError> {
        if self.age > 200 { Err(CastError::new("nobody is older than 200")) } else { Ok(()) }
    }
}

impl Version for UserV2 {
    const VERSION: u32 = 2;
    type Previous = UserV1;

    fn upcast(old: UserV1) -> Result<Self, CastError> {
        let Some((first, last)) = old.name.split_once(' ') else {
            return Err(CastError::new(format!("the name {:?} has no last name", old.name)));
        };
        Ok(v2(first, last, old.age, None))
    }

    fn downcast(&self, _last: Option<UserV1>) -> Result<UserV1, CastError> {
        if self.first.contains(' ') {
            return Err(CastError::new("a first name with a blank cannot be told from the last name"));
        }
        Ok(v1(&format!("{} {}", self.first, self.last), self.age))
    }

    fn merge(old: UserV1, last: UserV2) -> Result<Option<Self>, CastError> {
        let email = last.email;
        Ok(Some(UserV2 { email, ..UserV2::upcast(old)? }))
    }

    fn validate(&self) -> Result<(), CastError> {
        if self.last.is_empty() { Err(CastError::new("a last name is required")) } else { Ok(()) }
    }
}

/// The year in which the tests' ages are counted.
const YEAR: i32 = 2026;

impl Version for UserV3 {
    const VERSION: u32 = 3;
    type Previous = UserV2;

    fn upcast(old: UserV2) -> Result<Self, CastError> {
        let born = i32::try_from(old.age).map_err(|_| CastError::new("no such age"))?;
        Ok(UserV3 { first: old.first, last: old.last, born: YEAR - born, email: old.email, tags: Vec::new() })
    }

    fn downcast(&self, _last: Option<UserV2>) -> Result<UserV2, CastError> {
        let age = u32::try_from(YEAR - self.born).map_err(|_| CastError::new("not born yet"))?;
        Ok(v2(&self.first, &self.last, age, self.email.as_deref()))
    }
}
