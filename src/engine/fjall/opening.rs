//! Opening a directory of fjall's so that a read that fails destroys nothing, and so that an open which is refused has changed
//! nothing.
//!
//! fjall cuts a journal at the first entry that it cannot parse or read, and removes sorted files, lists and trees that what it
//! has read does not name. So:
//!
//! 1. What a process left that died here is put back ([`aside`](crate::engine::aside)), unless something was flushed since.
//! 2. [`check`] and [`lengths`] find, without a write, what is there. A failed read, and damage, end the open here.
//! 3. All of that is kept aside: what is in the journals is copied, all other files are linked.
//! 4. fjall opens. No journal may be shorter than what was found in it, though it be removed meanwhile, and every tree has to be
//!    there, up to its last record in the journals.
//! 5. Else fjall is closed, and everything is put back. If it holds, what was kept is removed.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fjall::{Database, KeyspaceCreateOptions};

use super::check::{self, Found};
use super::fence::{Access, Fence};
use super::lengths::{self, Overlong};
use super::numbers::Reserved;
use super::{EngineResult, FjallOptions, database, hidden, journal};
use crate::engine::aside::{self, Aside};
use crate::engine::draft::sync_directory;
use crate::engine::own_file;
use crate::engine::synced;
use crate::error::{EngineError, EngineErrorKind};

const LOCK: &str = "lock";
/// How long to wait for whoever has the lock: a process that was just started has the files of its parent for a moment; and a
/// fjall that was closed may have it a moment longer.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// A directory that is about to be opened.
pub(super) struct Opening<'o> {
    directory: &'o Path,
    place: &'o str,
    options: &'o FjallOptions,
    found: Found,
    overlong: Vec<Overlong>,
    aside: Option<Aside>,
}

impl<'o> Opening<'o> {
    /// Steps 1 and 2. Cost: reads the journals and the lists of files.
    pub(super) fn prepare(
        directory: &'o Path,
        place: &'o str,
        options: &'o FjallOptions,
    ) -> EngineResult<Self> {
        let io = |e: io::Error| EngineError::io(place, e);
        let lock = lock(directory, place)?;
        put_back_left(directory).map_err(io)?;
        let found = check::check(directory, place)?;
        let overlong = lengths::check(directory, place)?;
        if lock.is_none() {
            // Somebody has removed it. fjall would say no more than that a file is missing.
            File::create(directory.join(LOCK)).map_err(io)?;
        }
        Ok(Self { directory, place, options, found, overlong, aside: None })
    }

    /// Steps 3 to 5. fjall says of some reads that fail that the data is damaged: so it is asked twice.
    pub(super) fn open(mut self) -> EngineResult<(Database, Found)> {
        let opened = match self.try_open() {
            Err(e) if e.kind() == EngineErrorKind::Corrupt && self.aside.is_none() => {
                tracing::warn!(target: "exuvia", error = %e, "fjall failed to open, and is asked again");
                self.try_open()
            }
            opened_or_failed => opened_or_failed,
        };
        let db = opened?;
        aside::forget(self.directory).map_err(|e| EngineError::io(self.place, e))?;
        Ok((db, self.found))
    }

    fn try_open(&mut self) -> EngineResult<Database> {
        let aside = self.keep_aside().map_err(|e| {
            // What there is of it may be what fills the medium.
            let _half_of_it = aside::forget_half(self.directory);
            let bytes: u64 = self.found.mark.journals.values().map(|extent| extent.bytes).sum();
            EngineError::io(format!("{}: {bytes} bytes cannot be kept aside for the open", self.place), e)
        })?;
        self.aside = Some(aside);
        let db = match self.opened() {
            Ok(db) => db,
            Err(e) if e.kind() == EngineErrorKind::Locked => {
                // Whoever has it may go on: nothing of it is changed.
                let _others_do_not_look_at_it = aside::forget(self.directory);
                return Err(e);
            }
            Err(e) => return Err(self.put_back(e)),
        };
        match self.checked(&db) {
            Ok(()) => Ok(db),
            Err(e) => {
                database::close(db);
                Err(self.put_back(e))
            }
        }
    }

    /// Step 3.
    fn keep_aside(&self) -> io::Result<Aside> {
        let mut aside = Aside::begin(self.directory, turn(self.directory)?)?;
        for name in aside::directories_below(self.directory)? {
            aside.directory(&name);
        }
        let journals = journal::list(self.directory)?;
        for name in aside::files_below(self.directory)? {
            let path = self.directory.join(&name);
            let journal = journals.iter().find(|(_, journal)| **journal == path).map(|(number, _)| number);
            if let Some(number) = journal {
                let written = self.found.mark.journals.get(number).map_or(0, |extent| extent.bytes);
                aside.link(&name, written)?;
                aside.copy(&name, written)?;
            } else if name.starts_with("keyspaces") {
                aside.link(&name, path.metadata()?.len())?;
            }
        }
        aside.commit()?;
        Ok(aside)
    }

    fn opened(&self) -> EngineResult<Database> {
        let io = |e: io::Error| EngineError::io(self.place, e);
        self.overlong.iter().try_for_each(Overlong::cut).map_err(io)?;
        if !self.found.gone.is_empty() {
            database::check_sorted_files(self.directory, self.options, self.place, &self.found.gone)?;
        }
        let reserved = Reserved::up_to(self.found.mark.highest, self.directory).map_err(io)?;
        let db = database::open(self.directory, self.options, self.place);
        drop(reserved);
        db
    }

    /// Step 4.
    fn checked(&self, db: &Database) -> EngineResult<()> {
        let io = |e: io::Error| EngineError::io(self.place, e);
        let fence = Fence::new(self.directory);
        let mut last = std::collections::BTreeMap::new();
        for name in fence.call(Access::Read, "", || Ok(db.list_keyspace_names()))? {
            let tree =
                fence.call(Access::Read, &name, || db.keyspace(&name, KeyspaceCreateOptions::default))?;
            last.insert(hidden::number(&tree), hidden::last_write(&tree));
        }
        if let Some(tree) = self.found.mark.trees.iter().find(|tree| !last.contains_key(tree)) {
            let what = format!("keyspaces/{tree} is a tree that fjall does not know");
            return Err(synced::lost(self.directory, self.place, &what));
        }
        let cut = self.aside.as_ref().map_or(Ok(None), Aside::shrunk).map_err(io)?.map(PathBuf::from);
        let journals = journal::list(self.directory).map_err(io)?;
        for (number, path) in &journals {
            let Some(found) = self.found.mark.journals.get(number) else { continue };
            let is_behind =
                |(tree, number): (&u64, &u64)| last.get(tree).is_some_and(|last| *last < Some(*number));
            let short = match path.metadata() {
                // fjall removed it meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(io)?.len() < found.bytes,
            };
            if short || cut.is_some() || found.last.iter().any(is_behind) {
                let what =
                    "a read failed while the store was being opened; nothing was changed; open it again";
                return Err(EngineError::new(EngineErrorKind::Io, format!("{}: {what}", self.place)));
            }
        }
        Ok(())
    }

    /// Step 5. What is kept stays where that fails.
    fn put_back(&mut self, error: EngineError) -> EngineError {
        let Some(aside) = &self.aside else {
            return error;
        };
        let done = lock(self.directory, self.place).map_err(io::Error::other).and_then(|_locked| {
            put_back(aside)?;
            aside::forget(self.directory)?;
            sync_directory(self.directory)
        });
        match done {
            Ok(()) => {
                self.aside = None;
                error
            }
            Err(e) => {
                let message = format!("{error}; and {}", aside.said_of_failure("fjall", &e));
                EngineError::new(error.kind(), message)
            }
        }
    }
}

/// The turn of the mark: it moves with what is flushed.
fn turn(directory: &Path) -> io::Result<u64> {
    Ok(synced::read::<super::mark::Mark>(directory)?.map_or(0, |(turn, _)| turn))
}

fn put_back(aside: &Aside) -> io::Result<()> {
    aside.put_back(|name| {
        name.starts_with("keyspaces") || name.extension().is_some_and(|extension| extension == "jnl")
    })
}

/// Step 1.
fn put_back_left(directory: &Path) -> io::Result<()> {
    if let Some(left) = Aside::left(directory)?
        && left.stamp() == turn(directory)?
    {
        tracing::warn!(target: "exuvia", directory = %directory.display(), "what an open changed that died is put back");
        put_back(&left)?;
    }
    aside::forget(directory)
}

/// fjall's own lock; let go before fjall opens. `None` where there is none.
fn lock(directory: &Path, place: &str) -> EngineResult<Option<File>> {
    let io = |e: io::Error| EngineError::io(place, e);
    let file = match File::options().read(true).write(true).open(directory.join(LOCK)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io)?,
    };
    match own_file::lock_within(&file, LOCK_WAIT) {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let message = "the directory is open in another process or handle";
            Err(EngineError::new(EngineErrorKind::Locked, message))
        }
        Err(TryLockError::Error(e)) => Err(io(e)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::FjallEngine;
    use super::*;
    use crate::engine::Engine as _;

    const RECORDS: u32 = 500;

    fn scratch(name: &str) -> PathBuf {
        let directory =
            std::env::temp_dir().join(format!("exuvia-fjall-opening-{name}-{}", std::process::id()));
        let _of_an_earlier_process = fs::remove_dir_all(&directory);
        directory.join("fjall")
    }

    fn options() -> FjallOptions {
        FjallOptions::new().cache_bytes(16 << 20)
    }

    fn write(directory: &Path, value: &[u8]) {
        let engine = FjallEngine::open(directory, options()).unwrap();
        let tree = engine.tree("t").unwrap();
        for n in 0..RECORDS {
            tree.put(&n.to_be_bytes(), value).unwrap();
        }
        engine.flush().unwrap();
    }

    fn is_there(directory: &Path, value: &[u8]) -> bool {
        let engine = FjallEngine::open(directory, options()).unwrap();
        let tree = engine.tree("t").unwrap();
        (0..RECORDS).all(|n| tree.get(&n.to_be_bytes()).unwrap().as_deref() == Some(value))
    }

    fn keep(directory: &Path) {
        let options = options();
        drop(Opening::prepare(directory, "a test", &options).unwrap().keep_aside().unwrap());
    }

    fn only_journal(directory: &Path) -> PathBuf {
        journal::list(directory).unwrap().pop_last().unwrap().1
    }

    #[test]
    fn what_a_process_destroyed_that_died_in_an_open_is_put_back() {
        let directory = scratch("died");
        write(&directory, b"one");
        keep(&directory);
        // As fjall does it, after a read that failed.
        File::options().write(true).open(only_journal(&directory)).unwrap().set_len(100).unwrap();
        let mut lists = aside::files_below(&directory).unwrap();
        lists.retain(|name| name.ends_with("current"));
        assert!(lists.len() > 1);
        lists.iter().for_each(|list| fs::remove_file(directory.join(list)).unwrap());
        assert!(is_there(&directory, b"one"));
        assert!(!directory.join("aside").exists());
        fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_was_kept_aside_is_not_put_back_over_what_was_flushed_since() {
        let directory = scratch("since");
        let left = directory.with_extension("left");
        write(&directory, b"one");
        keep(&directory);
        fs::rename(directory.join("aside"), &left).unwrap();
        // By a release that does not look at it.
        write(&directory, b"two");
        fs::rename(&left, directory.join("aside")).unwrap();
        assert!(is_there(&directory, b"two"));
        fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_directory_whose_lock_file_was_removed_opens() {
        let directory = scratch("lock");
        write(&directory, b"one");
        fs::remove_file(directory.join(LOCK)).unwrap();
        assert!(is_there(&directory, b"one"));
        fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    }
}
