//! A record type without a lineage of its own yet.

use std::ops::{Deref, DerefMut};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::CastError;
use crate::record::version::{Origin, Version};

/// Any serde type as version 1 of a table: for a table that has no lineage yet, and types of other crates.
///
/// `Plain` leaves no trace in the store: bytes and shape are those of `T`. So once the type changes, the lineage is
/// written over the same table, in one of two ways:
///
/// * `impl Version for T` with version 1 and [`Origin`] below it, and `T` takes the place of `Plain<T>`;
/// * a next type whose [`Version::Previous`] is `Plain<T>`, as below.
///
/// A type whose shape serde does not show (see [`crate::shape::Describe`]) needs a [`Version`] of its own.
///
/// ```
/// use exuvia::{CastError, Plain, Store, Table, Version};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct User {
///     name: String,
/// }
///
/// # fn main() -> exuvia::Result<()> {
/// # let store = Store::options().open_in(std::sync::Arc::new(exuvia::engine::MemoryEngine::new()))?;
/// let users: Table<u64, Plain<User>> = store.table("users")?;
/// users.put(&1, &Plain(User { name: "Ada".into() }))?;
/// assert_eq!(users.get(&1)?.unwrap().name, "Ada");
///
/// // Later, version 2:
/// #[derive(Serialize, Deserialize)]
/// struct UserV2 {
///     name: String,
///     email: Option<String>,
/// }
///
/// impl Version for UserV2 {
///     const VERSION: u32 = 2;
///     type Previous = Plain<User>;
///
///     fn upcast(old: Plain<User>) -> Result<Self, CastError> {
///         Ok(UserV2 { name: old.into_inner().name, email: None })
///     }
///     fn downcast(&self, _last: Option<Plain<User>>) -> Result<Plain<User>, CastError> {
///         Ok(Plain(User { name: self.name.clone() }))
///     }
/// }
///
/// let users: Table<u64, UserV2> = store.table("users")?;
/// assert_eq!(users.get(&1)?.unwrap().name, "Ada");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plain<T>(pub T);

impl<T> Plain<T> {
    /// The record.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> From<T> for Plain<T> {
    fn from(record: T) -> Self {
        Plain(record)
    }
}

impl<T> Deref for Plain<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Plain<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Version for Plain<T> {
    const VERSION: u32 = 1;
    type Previous = Origin;

    fn upcast(origin: Origin) -> Result<Self, CastError> {
        origin.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        Origin::nothing_below()
    }
}
