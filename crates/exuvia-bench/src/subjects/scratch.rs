//! Directories for subjects, which go when the subject does.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::subject::Failure;

/// A new directory that is removed when it is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory in `within`.
    ///
    /// # Errors
    ///
    /// The system makes none there.
    pub fn new(within: &Path, name: &str) -> Result<Self, Failure> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = within.join(format!("exuvia-bench-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|e| Failure::File { path: path.clone(), reason: e.to_string() })?;
        Ok(Scratch(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Bytes of all files in it.
    pub fn bytes(&self) -> u64 {
        fn bytes(path: &Path) -> u64 {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let of = |entry: std::fs::DirEntry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
                Ok(metadata) => metadata.len(),
                // It went meanwhile.
                Err(_) => 0,
            };
            entries.map(of).sum()
        }
        bytes(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays in a directory for temporary files.
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}
