//! The engine's own buffer, passed up without a copy.

use std::ops::Deref;
use std::sync::Arc;

/// Bytes owned by the engine that answered: derefs to a slice, clones cheaply, copies nothing.
#[derive(Debug, Clone)]
pub struct Value(Repr);

#[derive(Debug, Clone)]
enum Repr {
    Shared(Arc<[u8]>),
    #[cfg(feature = "sled")]
    Sled(sled::IVec),
    #[cfg(feature = "fjall")]
    Fjall(fjall::Slice),
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Shared(bytes) => bytes,
            #[cfg(feature = "sled")]
            Repr::Sled(bytes) => bytes,
            #[cfg(feature = "fjall")]
            Repr::Fjall(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Arc<[u8]>> for Value {
    fn from(bytes: Arc<[u8]>) -> Self {
        Value(Repr::Shared(bytes))
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Value(Repr::Shared(bytes.into()))
    }
}

#[cfg(feature = "sled")]
impl Value {
    /// Wraps sled's buffer. Not a `From`, so that no engine type is in the public API.
    #[inline]
    pub(super) fn from_sled(bytes: sled::IVec) -> Self {
        Value(Repr::Sled(bytes))
    }
}

#[cfg(feature = "fjall")]
impl Value {
    /// Wraps fjall's buffer. Not a `From`, for the same reason.
    #[inline]
    pub(super) fn from_fjall(bytes: fjall::Slice) -> Self {
        Value(Repr::Fjall(bytes))
    }
}
