//! The quarantine: why a record could not be brought forward. One tree for each table, key → reason.
//!
//! An entry counts only while the overlay entry of its key carries FAILED; any other is stale.

use serde::{Deserialize, Serialize};

use crate::catalog::{self, quarantine_tree};
use crate::core::Shared;
use crate::error::Result;

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
