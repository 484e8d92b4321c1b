//! Where a read, or the decision how to write, looks a key up: straight in the engine, or through what a transaction
//! remembers. The rules of a table are the same for both (`route.rs`, `write.rs`), compiled once for each.

use crate::engine::NamedTree;
use crate::engine::{EngineResult, Value};

/// What others may do to a key after it was looked up, and so whether what was seen has to be checked in a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Anything.
    Changing,
    /// Nothing: the base of an open migration.
    Frozen,
    /// Only take it away: the overlay while it is folded. An absence there is final.
    Draining,
}

pub(crate) trait Lookup {
    /// Whether the backfill's frontier may answer in place of a base. It must have been read before the overlay, so not
    /// if the overlay's answer may be one that was remembered.
    const FRONTIER: bool;

    fn get(&mut self, tree: &NamedTree, key: &[u8], held: Held) -> EngineResult<Option<Value>>;
}

/// Straight to the engine: for operations on one key.
pub(crate) struct Direct;

impl Lookup for Direct {
    const FRONTIER: bool = true;

    #[inline]
    fn get(&mut self, tree: &NamedTree, key: &[u8], _held: Held) -> EngineResult<Option<Value>> {
        tree.tree.get(key)
    }
}
