//! A flush that keeps no writer waiting.
//!
//! fjall's own `persist` syncs with the journal's lock held: every writer of the process waits for the disk. Here fjall
//! only hands its buffer to the system, and the newest journal is synced through a handle of our own.
//!
//! 1. fjall's buffer is written: all that was written before the call is in the journal of that moment, or older ones.
//! 2. The newest journal is looked up, and synced. If it is a newer one than that of step 1: fjall syncs a journal
//!    before it makes the next.
//! 3. How far each journal was synced goes into the [`mark`](super::mark): what was read in it before the sync.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::batches::Depth;
use super::mark::Mark;
use crate::engine::draft::sync_directory;
use crate::engine::synced::MarkFiles;

pub(super) struct Journals {
    directory: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// Kept open: a handle is told of a failed write-back since it was opened.
    newest: Option<(u64, File)>,
    mark: Mark,
    files: MarkFiles<Mark>,
    /// Given up for a listing where the process may open no more files: a flush must not fail for that.
    spare: Option<File>,
}

/// [`list`], also where the process may open no more files.
fn list_with(spare: &mut Option<File>, directory: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let found = list(directory);
    let exhausted = |e: &io::Error| cfg!(unix) && matches!(e.raw_os_error(), Some(EMFILE | ENFILE));
    if !found.as_ref().is_err_and(exhausted) || spare.take().is_none() {
        return found;
    }
    let found = list(directory);
    *spare = File::open(directory).ok();
    found
}

/// The process, or the system, may open no more files.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// The journals of a directory, oldest first.
pub(super) fn list(directory: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in directory.read_dir()? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    Ok(found)
}

impl Journals {
    /// To be called when fjall has opened `directory`, with what was marked before and found of each journal. It syncs
    /// the names of fjall's files, too: whoever made them may not have come to it.
    pub(super) fn open(directory: &Path, mut mark: Mark) -> io::Result<Self> {
        for (number, path) in list(directory)? {
            let length = path.metadata()?.len();
            // A journal that fjall has cut further than we would have.
            if mark.journals.get(&number).is_some_and(|extent| extent.bytes > length) {
                mark.journals.remove(&number);
            }
        }
        sync_directory(&directory.join("keyspaces"))?;
        let files = MarkFiles::open(directory)?;
        sync_directory(directory)?;
        if let Some(parent) = directory.parent() {
            sync_directory(parent)?;
        }
        let state = State { newest: None, mark, files, spare: File::open(directory).ok() };
        Ok(Self { directory: directory.to_owned(), state: Mutex::new(state) })
    }

    /// Steps 2 and 3. Answers whether fjall has begun a journal since the last sync. Cost: a listing of a small directory,
    /// reading what was written since, an `fdatasync`, and, if anything was written since, a write that is not synced.
    pub(super) fn sync(&self) -> io::Result<bool> {
        let mut state = self.state.lock();
        let State { newest, mark, files, spare } = &mut *state;
        let found = list_with(spare, &self.directory)?;
        let (number, path) = found.last_key_value().ok_or(io::ErrorKind::NotFound)?;
        let begun = newest.as_ref().is_some_and(|(known, _)| known != number);
        for (older, path) in found.range(..number) {
            // To its end, once: nothing is added to it any more.
            if begun || !mark.journals.contains_key(older) {
                match File::open(path) {
                    Ok(file) => {
                        mark.journals.entry(*older).or_default().read_on(&file, Depth::Lengths, u64::MAX)?
                    }
                    // fjall removed it meanwhile.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
        }
        if begun || newest.is_none() {
            *newest = Some((*number, File::open(path)?));
        }
        if let Some((number, file)) = newest {
            mark.journals.entry(*number).or_default().read_on(file, Depth::Lengths, u64::MAX)?;
            file.sync_data()?;
        }
        mark.journals.retain(|number, _| found.contains_key(number));
        if let Err(e) = files.write_if_changed(mark) {
            // What was flushed is durable; only a later loss of it might not be noticed.
            tracing::warn!(target: "exuvia", error = %e, "the mark of what was synced cannot be written");
        }
        Ok(begun)
    }

    /// A tree is durable.
    pub(super) fn made(&self, tree: u64) {
        let mark = &mut self.state.lock().mark;
        mark.trees.insert(tree);
        mark.highest = mark.highest.max(tree);
    }

    /// A tree is about to be removed: nobody will miss it.
    pub(super) fn unmake(&self, tree: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let State { mark, files, .. } = &mut *state;
        if mark.trees.remove(&tree) {
            files.write_durably(mark, &self.directory)?;
        }
        Ok(())
    }

    /// To be called when nothing is written any more.
    pub(super) fn close(&self) -> io::Result<()> {
        self.state.lock().files.sync(&self.directory)
    }

    /// Whether somebody waits for the disk.
    pub(super) fn is_syncing(&self) -> bool {
        self.state.is_locked()
    }

    /// fjall makes the directory of a keyspace without a sync of the one above it.
    pub(super) fn sync_keyspaces(&self) -> io::Result<()> {
        sync_directory(&self.directory.join("keyspaces"))
    }

    /// Bytes that the journals take on the disk: fjall makes them 64 MiB long, of which most is not written.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for path in list(&self.directory)?.values() {
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
