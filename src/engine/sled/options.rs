//! What can be chosen about sled.

/// How sled is opened.
#[derive(Debug, Clone)]
pub struct SledOptions {
    pub(super) cache_bytes: u64,
    pub(super) private: bool,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, private: true }
    }
}

impl SledOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of pages that sled keeps in memory. Default 256 MiB (sled's own is 1 GiB, much for something
    /// embedded); not under 16 MiB, to which less is raised: see [`SledEngine`](super::SledEngine).
    ///
    /// sled counts what a page takes in its log, which is a little less than it takes in memory, and does not
    /// count values that are stored as blobs.
    ///
    /// While a migration is open both versions of its tables are there, and what of them does not fit is read from the
    /// log, in several pieces a page (docs/performance.md has what that costs).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes.max(16 << 20);
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
