//! A tree with its name: what commits and messages need beside it.

use std::sync::Arc;

use super::Tree;

#[derive(Clone)]
pub(crate) struct NamedTree {
    pub(crate) name: Arc<str>,
    pub(crate) tree: Arc<dyn Tree>,
}
