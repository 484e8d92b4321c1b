//! A flush that keeps no writer waiting.
//!
//! fjall's own `persist` syncs with the journal's lock held: every writer of the process waits for the disk. Here fjall
//! only hands its buffer to the system, and the newest journal is synced through a handle of our own.
//!
//! 1. fjall's buffer is written: all that was written before the call is in the journal of that moment, or older ones.
//! 2. The newest journal is looked up, and synced. If it is a newer one than that of step 1: fjall syncs a journal
//!    before it makes the next.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::engine::draft::sync_directory;

pub(super) struct Journals {
    directory: PathBuf,
    /// The newest, kept open: a handle is told of a failed write-back since it was opened.
    newest: Mutex<Option<(u64, File)>>,
}

impl Journals {
    /// To be called when fjall has opened `directory`. It syncs the names of its files, too: whoever made them may not
    /// have come to it.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        sync_directory(&directory.join("keyspaces"))?;
        sync_directory(directory)?;
        if let Some(parent) = directory.parent() {
            sync_directory(parent)?;
        }
        Ok(Self { directory: directory.to_owned(), newest: Mutex::new(None) })
    }

    fn files(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in self.directory.read_dir()? {
            let path = entry?.path();
            let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
            found.extend(number.map(|number| (number, path)));
        }
        Ok(found)
    }

    /// Step 2. Answers whether fjall has begun a journal since the last sync. Cost: a listing of a small directory, an
    /// `fdatasync`.
    pub(super) fn sync(&self) -> io::Result<bool> {
        let mut newest = self.newest.lock();
        let (number, path) = self.files()?.into_iter().max().ok_or(io::ErrorKind::NotFound)?;
        let begun = newest.as_ref().is_some_and(|(known, _)| *known != number);
        if begun || newest.is_none() {
            *newest = Some((number, File::open(path)?));
        }
        newest.as_ref().map_or(Ok(()), |(_, file)| file.sync_data())?;
        Ok(begun)
    }

    /// Whether somebody waits for the disk.
    pub(super) fn is_syncing(&self) -> bool {
        self.newest.is_locked()
    }

    /// fjall makes the directory of a keyspace without a sync of the one above it.
    pub(super) fn sync_keyspaces(&self) -> io::Result<()> {
        sync_directory(&self.directory.join("keyspaces"))
    }

    /// Bytes that the journals take on the disk: fjall makes them 64 MiB long, of which most is not written.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for (_, path) in self.files()? {
            match path.metadata() {
                Ok(metadata) => bytes += taken(&metadata),
                // fjall removed it meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(bytes)
    }
}

#[cfg(unix)]
fn taken(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn taken(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}
