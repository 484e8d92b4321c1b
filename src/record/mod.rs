//! The user's types: versions and their casts, keys, codecs and shapes, and the laws that a lineage keeps.
//!
//! Knows no tree and no table. Whoever stores records uses this folder; it uses errors and measures. The way in: [`version`] is
//! what a user writes, [`lineage`] erases it into function pointers, which is all that the layers below the tables see.

pub mod codec;
pub(crate) mod key;
pub mod laws;
pub(crate) mod lineage;
pub(crate) mod plain;
pub mod shape;
pub(crate) mod version;
