//! What the system says of the medium that a store is on.

use std::path::Path;

/// Free bytes on the medium of `path`; `None` where the system cannot tell.
#[cfg(unix)]
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Free bytes on the medium of `path`; `None` where the system cannot tell.
#[cfg(not(unix))]
pub(crate) fn free_bytes(_path: &Path) -> Option<u64> {
    None
}
