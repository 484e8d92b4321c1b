//! A lineage is a chain of Rust types v1 → v2 → …, one [`Version`] each, written without macros.
//!
//! The previous type is an associated type, so a gap in the chain does not compile. Casts form a lens; its
//! laws are in the documentation of the trait, and [`crate::record::laws`] checks them on your own records.

use serde::{Serialize, de::DeserializeOwned};

use crate::caught::caught;
use crate::error::CastError;
use crate::record::codec;
use crate::record::shape::{Describe, Described, Shape};

/// The type before the first version of a lineage. It has no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Origin {}

impl Origin {
    /// The body of the first version's [`Version::upcast`]: there is nothing to cast.
    pub fn never<T>(self) -> Result<T, CastError> {
        match self {}
    }

    /// The body of the first version's [`Version::downcast`]: there is nothing below it.
    pub fn nothing_below() -> Result<Self, CastError> {
        Err(CastError::new("this is the oldest version that the code knows"))
    }
}

/// One version of a table's records.
///
/// # The laws
///
/// With `f` a record of the previous version and `t` one of this (equality is that of the encoded bytes):
///
/// 1. `downcast(upcast(f), f) = f`
/// 2. `merge(downcast(t), t) = t`
/// 3. `downcast(merge(f, t), f) = f`
/// 4. `merge(f, merge(g, t)) = merge(f, t)`
///
/// They make the moment at which the backfill passes a record unobservable.
///
/// User code never runs under a lock or gate of the store, may run more than once for a record, on any
/// thread, and must depend on its arguments only.
pub trait Version: Serialize + DeserializeOwned + Send + Sync + Sized + 'static {
    /// The number of this version: at least 1, and one more than that of [`Version::Previous`] unless that is
    /// [`Origin`]. Anything else does not compile.
    const VERSION: u32;

    /// The version before this one, or [`Origin`] for the oldest that the code knows. A type can leave the code when every
    /// table has contracted a migration to a later version. From then on it binds nobody: tables that came to this
    /// version by other versions below it are opened by the same lineage.
    type Previous: Version;

    /// Whether a record of this version leaves out something that the previous one held. If so,
    /// [`Version::downcast`] is handed the last previous form, at the price of one more lookup for each write,
    /// so that the field survives for old readers.
    const DROPS_FIELDS: bool = false;

    /// States that the casts from and to the previous version are the identity on the encoded bytes (a field
    /// was renamed, a type was renamed). The migration is then a change of metadata: no record is rewritten. Records
    /// keep the number of the version that they were written in; once the migration is contracted they are read as
    /// this version, so the previous type can leave the code as after any other migration.
    /// It is checked that both shapes have the same layout; that the *meaning* is the same only you can know
    /// (feet and metres have the same layout), hence a constant and not a guess.
    const SAME_BYTES: bool = false;

    /// The name of the encoding, for the catalog. A type with its own [`Version::encode`] gives it a name: without
    /// the Rust type (in the command, in an export) only [`codec::BINCODE`](crate::record::codec::BINCODE) can be read.
    /// A table is refused if the name changed without a new version, and is not made for a type whose own encoding has
    /// no name.
    const CODEC: &'static str = codec::BINCODE;

    /// Brings a record forward by one version.
    fn upcast(previous: Self::Previous) -> Result<Self, CastError>;

    /// Takes a record back by one version. `last` is the last previous form, if [`Version::DROPS_FIELDS`] is
    /// set and there is one.
    fn downcast(&self, last: Option<Self::Previous>) -> Result<Self::Previous, CastError>;

    /// Puts together what an old writer wrote (`previous`) and the last record of this version that it could
    /// not see (`last`).
    ///
    /// `Ok(None)`, the default, keeps `last` if its downcast equals `previous` and otherwise upcasts
    /// `previous`. The latter drops what only `last` held: it is counted in the statistics and in the
    /// migration's status.
    fn merge(previous: Self::Previous, last: Self) -> Result<Option<Self>, CastError> {
        let _ = (previous, last);
        Ok(None)
    }

    /// The rules that bind every writer while this version is the active one.
    fn validate(&self) -> Result<(), CastError> {
        Ok(())
    }

    /// Describes the shape of this type. The default sees what serde shows; a type it cannot see through
    /// (enums that need samples, hand-written `Deserialize`) adds samples or an explicit description.
    fn describe(describe: &mut Describe) {
        describe.trace::<Self>();
    }

    /// Encodes the record, appending to `out`. The default is serde through bincode 2; one of your own needs a name
    /// ([`Version::CODEC`]).
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CastError> {
        codec::encode(self, out)
    }

    /// Decodes a record; every byte must be used. The default is serde through bincode 2.
    fn decode(bytes: &[u8]) -> Result<Self, CastError> {
        codec::decode(bytes)
    }
}

impl Version for Origin {
    const VERSION: u32 = 0;
    type Previous = Origin;

    fn upcast(previous: Origin) -> Result<Self, CastError> {
        previous.never()
    }

    fn downcast(&self, _last: Option<Origin>) -> Result<Origin, CastError> {
        match *self {}
    }
}

impl Shape {
    /// The shape of `V`, as [`Version::describe`] describes it. The same in every run and process.
    ///
    /// Costs microseconds for a small type; it is done once, when a table is opened.
    ///
    /// ```
    /// use exuvia::shape::Shape;
    /// use exuvia::{CastError, Origin, Version};
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct User {
    ///     name: String,
    ///     age: Option<u8>,
    /// }
    ///
    /// impl Version for User {
    ///     const VERSION: u32 = 1;
    ///     type Previous = Origin;
    ///     fn upcast(previous: Origin) -> Result<Self, CastError> {
    ///         previous.never()
    ///     }
    ///     fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> {
    ///         Origin::nothing_below()
    ///     }
    /// }
    ///
    /// let shape = Shape::of::<User>()?;
    /// assert_eq!(shape.to_string(), "struct User { name: String, age: Option<u8> }");
    /// # Ok::<(), CastError>(())
    /// ```
    pub fn of<V: Version>() -> Result<Shape, CastError> {
        Described::of::<V>().map(|described| described.shape)
    }
}

impl Described {
    /// What a type says of itself. A panic of it is a refusal.
    pub(crate) fn of<V: Version>() -> Result<Described, CastError> {
        let described = caught(|| {
            let mut describe = Describe::default();
            V::describe(&mut describe);
            describe.finish(std::any::type_name::<V>())
        });
        described.unwrap_or_else(|text| Err(CastError::new(format!("describing it panicked: {text}"))))
    }
}
