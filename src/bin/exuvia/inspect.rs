//! Looking into a store without its Rust types: status, verify, ledger.

use std::path::Path;

use crate::failure::Failure;

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Tables, versions, migrations, quarantine, sizes.
    Status,
    /// Every checksum, and the ledger's chain.
    Verify,
    /// Every state change.
    Ledger,
}

/// Looks into the store at `path`; the answer is text, or one JSON value if `json` is set.
pub(crate) fn inspect(path: &Path, subject: Subject, json: bool) -> Result<String, Failure> {
    let _ = json;
    Err(Failure::Store(format!("{}: {subject:?} is not wired to the store yet", path.display())))
}
