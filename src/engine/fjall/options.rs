//! What can be chosen about fjall.

use super::TREES_MAX;

/// How fjall is opened.
#[derive(Debug, Clone)]
pub struct FjallOptions {
    pub(super) cache_bytes: u64,
    pub(super) private: bool,
    pub(super) memtable_bytes: u64,
    /// Less than [`TREES_MAX`] in tests only.
    pub(super) trees_max: usize,
}

impl Default for FjallOptions {
    fn default() -> Self {
        let (memtable_bytes, trees_max) = (Self::MEMTABLE_BYTES, TREES_MAX);
        Self { cache_bytes: 256 << 20, private: true, memtable_bytes, trees_max }
    }
}

impl FjallOptions {
    /// The default of [`Self::memtable_bytes`].
    pub const MEMTABLE_BYTES: u64 = 64 << 20;

    /// Sorted runs of a tree that are merged at once; a tree that is there keeps the number that it was made with. fjall's own
    /// is 4.
    pub const RUNS_MERGED: u8 = 8;

    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of blocks that fjall keeps in memory, for all trees together. Default 256 MiB (fjall's own is 32 MiB).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Bytes that a tree collects in memory before they are written as a sorted file. Up to four times as much waits
    /// for that at most, for each tree that is being written to. Default 64 MiB, as fjall's own; at least 64 KiB, to which
    /// less is raised. Less takes less memory, and less time at open, in which all that is not in sorted files is read
    /// again (a tenth of it with 8 MiB, in the case of docs/performance.md); it makes readers and writers wait more often.
    #[must_use]
    pub fn memtable_bytes(mut self, bytes: u64) -> Self {
        self.memtable_bytes = bytes.max(64 << 10);
        self
    }

    /// Whether a directory that is made is closed to others (0700, and 0600 for the first files in it). Default: yes.
    /// Without it the process's umask decides. Modes of a directory that is there already are left as they are.
    #[must_use]
    pub fn private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }
}
