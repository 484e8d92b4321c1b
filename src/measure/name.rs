//! The name of a table, as handles and measures know it.

use std::sync::Arc;

use crate::sync::ArcSwap;

/// A table's name, which a rename changes under its handles.
pub(crate) struct Name(ArcSwap<Box<str>>);

impl Name {
    pub(crate) fn new(name: &str) -> Self {
        Self(ArcSwap::from_pointee(name.into()))
    }

    /// Called under the catalog's mutex only, so that whoever holds that sees names that fit the catalog.
    pub(crate) fn set(&self, name: &str) {
        self.0.store(Arc::new(name.into()));
    }

    /// Calls `with` with the name as it is now.
    pub(crate) fn with<R>(&self, with: impl FnOnce(&str) -> R) -> R {
        with(&self.0.load())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with(|name| f.write_str(name))
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with(|name| std::fmt::Debug::fmt(name, f))
    }
}
