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
use crate::engine::synced::{MarkFiles, Marked, Numbers};

/// The [mark](crate::engine::synced) of sled's log. Format: magic bytes, turn, position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Synced {
    /// All of the log before this position is durable.
    pub(super) up_to: i64,
}

impl Marked for Synced {
    const MAGIC: [u8; 8] = *b"EXUVIASL";

    fn numbers(&self, put: &mut dyn FnMut(u64)) {
        put(self.up_to.cast_unsigned());
    }

    fn from_numbers(numbers: &mut Numbers<'_>) -> Option<Self> {
        Some(Self { up_to: numbers.next()?.cast_signed() })
    }
}

/// Handles of our own on sled's files.
pub(super) struct Files {
    directory: PathBuf,
    log: File,
    /// The blobs that a flush has already made durable. A blob is never rewritten, and its name is not used
    /// again while the store is open.
    synced: Mutex<HashSet<OsString>>,
    mark: Mutex<MarkFiles<Synced>>,
}

impl Files {
    /// To be called when sled has opened `directory`: sled creates its files, and replaces its snapshot file, at
    /// open, and syncs no directory. Every open does this, as the one that created them may not have come to it.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let log = File::options().read(true).write(true).open(directory.join("db"))?;
        log.sync_all()?;
        File::open(directory.join("conf"))?.sync_all()?;
        let mark = Mutex::new(MarkFiles::open(directory)?);
        sync_directory(&directory.join("blobs"))?;
        sync_directory(directory)?;
        if let Some(parent) = directory.canonicalize()?.parent() {
            sync_directory(parent)?;
        }
        Ok(Self { directory: directory.to_owned(), log, synced: Mutex::new(HashSet::new()), mark })
    }

    /// Makes durable what sled has written, the log up to `reached` at least, and marks that. Blobs first: the log points to
    /// them.
    ///
    /// Cost: one `fdatasync` of the log, one listing of the blob directory, and one `fdatasync` for each blob
    /// that is new. The lock is held for that, so that a concurrent flush does not answer for blobs of this one.
    pub(super) fn sync(&self, reached: i64) -> io::Result<()> {
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
        self.log.sync_data()?;
        if let Err(e) = self.mark.lock().write_if_changed(&Synced { up_to: reached }) {
            // What was flushed is durable; only a later loss of it might not be noticed.
            tracing::warn!(target: "exuvia", error = %e, "the mark of what was synced cannot be written");
        }
        Ok(())
    }

    /// Makes the mark durable, at the end.
    pub(super) fn sync_mark(&self) -> io::Result<()> {
        self.mark.lock().sync(&self.directory)
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
