//! The quarantine: why a record could not be brought forward. One tree for each table, key → reason.
//!
//! An entry counts only while the overlay entry of its key carries FAILED; any other is stale: a writer has replaced the
//! record, and a writer does not look here. Stale entries are passed over by whoever looks (`in_quarantine`), and removed
//! when the worker has nothing else to do, and by contract.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::Tree;
use crate::error::Result;
use crate::state::catalog::{self, quarantine_tree};
use crate::state::shared::Shared;

const FORMAT: u8 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Poison {
    reason: String,
}

/// Longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 4096;

pub(crate) fn to_bytes(key: &[u8], reason: &str) -> Result<Vec<u8>> {
    let cut =
        reason.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= REASON_BYTES_MAX);
    let end = cut.last().unwrap_or(0);
    let reason = reason.get(..end).unwrap_or_default().to_owned();
    catalog::to_bytes(FORMAT, key, &Poison { reason })
}

pub(crate) fn from_bytes(key: &[u8], bytes: &[u8]) -> Result<String> {
    catalog::from_bytes::<Poison>("quarantine entry", FORMAT, key, bytes).map(|poison| poison.reason)
}

/// The reason that is kept for `key`.
pub(crate) fn reason(shared: &Shared, table: impl std::fmt::Display, key: &[u8]) -> Result<Option<String>> {
    let tree = shared.engine.tree(&quarantine_tree(table))?;
    tree.get(key)?.map(|bytes| from_bytes(key, &bytes)).transpose()
}

/// A table's quarantine, if there is one. A look makes none: a tree is not for nothing on every engine.
pub(crate) fn existing(shared: &Shared, table: impl std::fmt::Display) -> Result<Option<Arc<dyn Tree>>> {
    let tree = quarantine_tree(table);
    if !shared.engine.trees()?.contains(&tree) {
        return Ok(None);
    }
    Ok(Some(shared.engine.tree(&tree)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_kept_up_to_its_limit_and_cut_between_characters() {
        let kept = |reason: &str| from_bytes(b"k", &to_bytes(b"k", reason).unwrap()).unwrap();
        assert_eq!(kept(""), "");
        assert_eq!(kept("no last name"), "no last name");
        let longest = "x".repeat(REASON_BYTES_MAX);
        assert_eq!(kept(&longest), longest);
        assert_eq!(kept(&format!("{longest}y")), longest);
        // The limit is in the middle of the last but many.
        assert_eq!(kept(&format!("x{}", "\u{e9}".repeat(3000))), format!("x{}", "\u{e9}".repeat(2047)));
    }
}
