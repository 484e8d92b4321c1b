//! What sled leaves undone about its files.
//!
//! sled's flush hands the log's pages to the disk by `sync_file_range`: that writes neither the file's length nor
//! the disk's own cache. Values of pages that are too large for the log ("blobs") are written without any sync at
//! all, and neither directory is ever synced. All of that is done here.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::engine::draft::sync_directory;

/// Handles of our own on sled's files.
pub(super) struct Files {
    directory: PathBuf,
    log: File,
    /// The blobs that a flush has already made durable. A blob is never rewritten, and its name is not used
    /// again while the store is open.
    synced: Mutex<HashSet<OsString>>,
}

impl Files {
    /// To be called when sled has opened `directory`: sled creates its files, and replaces its snapshot file, at
    /// open, and syncs no directory. Every open does this, as the one that created them may not have come to it.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let log = File::options().read(true).write(true).open(directory.join("db"))?;
        log.sync_all()?;
        File::open(directory.join("conf"))?.sync_all()?;
        sync_directory(&directory.join("blobs"))?;
        sync_directory(directory)?;
        if let Some(parent) = directory.canonicalize()?.parent() {
            sync_directory(parent)?;
        }
        Ok(Self { directory: directory.to_owned(), log, synced: Mutex::new(HashSet::new()) })
    }

    /// Makes durable what sled has written. Blobs first: the log points to them.
    ///
    /// Cost: one `fdatasync` of the log, one listing of the blob directory, and one `fdatasync` for each blob
    /// that is new. The lock is held for that, so that a concurrent flush does not answer for blobs of this one.
    pub(super) fn sync(&self) -> io::Result<()> {
        let blobs = self.directory.join("blobs");
        let mut synced = self.synced.lock();
        let mut present = HashSet::new();
        let mut fresh = false;
        for blob in blobs.read_dir()? {
            let name = blob?.file_name();
            if !synced.contains(&name) {
                match File::open(blobs.join(&name)) {
                    Ok(file) => file.sync_data()?,
                    // sled removed it meanwhile: what it held has been written elsewhere since.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                }
                fresh = true;
            }
            present.insert(name);
        }
        if fresh {
            sync_directory(&blobs)?;
        }
        *synced = present;
        self.log.sync_data()
    }

    /// The bytes of all files.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for directory in [self.directory.clone(), self.directory.join("blobs")] {
            for entry in directory.read_dir()? {
                match entry?.metadata() {
                    Ok(metadata) if metadata.is_file() => bytes += metadata.len(),
                    Ok(_) => {}
                    // sled removes snapshots and blobs as it goes.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(bytes)
    }
}

/// sled's threads may hold on to the file for a moment after the last handle is gone.
pub(in crate::engine) fn wait_for_close(directory: &Path) -> io::Result<()> {
    let log = File::open(directory.join("db"))?;
    log.lock()?;
    log.unlock()
}

/// sled would take a snapshot that a crash left half-written for the newest one, and refuse it as damage.
pub(super) fn remove_half_snapshots(directory: &Path) -> io::Result<()> {
    for entry in directory.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}
