//! What the examples share: a directory that goes away, and a user in two versions.

#![allow(dead_code, reason = "no example uses all of it")]

use std::path::{Path, PathBuf};

use exuvia::{CastError, Origin, Version};
use serde::{Deserialize, Serialize};

/// A directory for one run of an example.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exuvia-example-{name}-{}", std::process::id()));
        let _left_by_an_earlier_run = std::fs::remove_dir_all(&path);
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserV1 {
    pub name: String,
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserV2 {
    pub first: String,
    pub last: String,
    /// Only version 2 has it.
    pub email: Option<String>,
}

impl Version for UserV2 {
    const VERSION: u32 = 2;
    type Previous = UserV1;

    fn upcast(old: UserV1) -> Result<Self, CastError> {
        let (first, last) = old.name.split_once(' ').ok_or_else(|| CastError::new("no last name"))?;
        Ok(UserV2 { first: first.into(), last: last.into(), email: None })
    }

    fn downcast(&self, _last: Option<UserV1>) -> Result<UserV1, CastError> {
        Ok(UserV1 { name: format!("{} {}", self.first, self.last) })
    }

    fn merge(old: UserV1, last: UserV2) -> Result<Option<Self>, CastError> {
        Ok(Some(UserV2 { email: last.email, ..UserV2::upcast(old)? }))
    }
}
