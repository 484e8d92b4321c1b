//! Where a long walk over one tree goes on after the store was closed in order: the pass that brings old writers' records
//! forward, and the sweep of a generation.
//!
//! A place claims that everything up to it is done, so it is written after a flush of that. It is worth time and nothing
//! else: without one, or with a damaged one, the walk begins at the start.

use super::{FORMAT_OF_OTHERS, TREE, from_bytes, to_bytes};
use crate::engine::Engine;
use crate::error::Result;

const PREFIX: &[u8] = b"place/";

/// How far a walk has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It goes on here; everything before is done.
    From(Vec<u8>),
    /// Nothing is left to do.
    End,
}

impl Place {
    /// As far as a page read that ends with this key.
    pub(crate) fn after(key: &[u8]) -> Self {
        // The next key that there can be.
        Place::From([key, &[0]].concat())
    }
}

fn key(tree: &str) -> Vec<u8> {
    [PREFIX, tree.as_bytes()].concat()
}

/// Writes a place. The caller has flushed what it claims.
pub(crate) fn save(engine: &dyn Engine, tree: &str, place: &Place) -> Result<()> {
    let key = key(tree);
    let from = match place {
        Place::From(from) => Some(from),
        Place::End => None,
    };
    Ok(engine.tree(TREE)?.put(&key, &to_bytes(FORMAT_OF_OTHERS, &key, &from)?)?)
}

pub(crate) fn load(engine: &dyn Engine, tree: &str) -> Result<Option<Place>> {
    let key = key(tree);
    let Some(bytes) = engine.tree(TREE)?.get(&key)? else {
        return Ok(None);
    };
    Ok(place_of(&key, &bytes).map(Some).unwrap_or_else(|e| {
        tracing::warn!(target: "exuvia", error = %e, "the walk over {tree} begins at its start");
        None
    }))
}

/// What lies under a key of the catalog's tree, if it is a place.
pub(crate) fn parse(key: &[u8], bytes: &[u8]) -> Option<Result<Place>> {
    key.starts_with(PREFIX).then(|| place_of(key, bytes))
}

fn place_of(key: &[u8], bytes: &[u8]) -> Result<Place> {
    let from: Option<Vec<u8>> = from_bytes("the place of a walk", FORMAT_OF_OTHERS, key, bytes)?;
    Ok(from.map_or(Place::End, Place::From))
}

pub(crate) fn forget(engine: &dyn Engine, tree: &str) -> Result<()> {
    Ok(engine.tree(TREE)?.delete(&key(tree))?)
}
