//! Opening a directory of sled's so that a read that fails destroys nothing, and so that an open which is refused has changed
//! nothing.
//!
//! 1. What a process left that died here is put back ([`aside`](crate::engine::aside)).
//! 2. [`recovery`](super::recovery) finds, without a write, what is in the log. A failed read, and damage, end the open here.
//! 3. The log is synced, and sled's own snapshot file is written for the log's end, durably. So sled, which never reads what is
//!    before its snapshot, has nothing left to recover, and nothing to zero but the rest of the active segment, what
//!    is behind it, and segments in which that snapshot has no page.
//! 4. The active segment is kept aside. sled opens.
//! 5. sled has to go on where the log ends, and the active segment has to be there. Else sled is closed, the segment is put
//!    back.
//! 6. When the engine has done what it does first, what is kept is removed, and older snapshot files.
//!
//! Crash points: before the snapshot file has its name everything is as it was; after it sled recovers the same pages from it,
//! whatever it did to the older files. What is kept aside is used only if no later segment was begun, and the active one has not
//! what it had.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fence::Fence;
use super::lifetime::{self, Ending};
use super::recovery::{self, Damage, Found, Whose};
use crate::engine::aside::{self, Aside};
use crate::engine::draft::sync_directory;
use crate::engine::own_file;
use crate::engine::{EngineResult, synced};
use crate::error::{EngineError, EngineErrorKind};

const LOG: &str = "db";
/// How often a look that finds damage is made: a read that brings too little looks like damage.
const LOOKS_MAX: usize = 3;
/// How long to wait for sled to let go of its file before that is mended.
const LET_GO_WAIT: Duration = Duration::from_secs(5);

/// A directory that is about to be opened.
pub(super) struct Opening {
    directory: PathBuf,
    place: String,
    segment_bytes: usize,
    found: Found,
    aside: Option<Aside>,
    /// Made for this open.
    made: Option<PathBuf>,
}

impl Opening {
    /// Steps 1 to 3. Cost: reads the log since the last snapshot, and syncs it.
    pub(super) fn prepare(
        directory: &Path,
        place: &str,
        segment_bytes: usize,
        whose: Whose,
    ) -> EngineResult<Self> {
        let io = |e: io::Error| EngineError::io(place, e);
        let lock = lifetime::lock(&directory.join(LOG), place)?;
        put_back_left(directory, segment_bytes).map_err(io)?;
        let mut looks = 0;
        let found = loop {
            looks += 1;
            match recovery::look(directory, segment_bytes, whose).map_err(io)? {
                Ok(found) => break found,
                Err(_) if looks < LOOKS_MAX => {}
                Err(Damage::Flushed(what)) => return Err(synced::lost(directory, place, &what)),
                Err(Damage::Other(what)) => {
                    let message = format!("{place}: {what}; restore the store from a copy, or salvage it");
                    return Err(EngineError::new(EngineErrorKind::Corrupt, message));
                }
            }
        };
        let mut opening = Self {
            directory: directory.to_owned(),
            place: place.to_owned(),
            segment_bytes,
            found,
            aside: None,
            made: None,
        };
        opening.write_snapshot().map_err(io)?;
        drop(lock);
        Ok(opening)
    }

    /// Step 3.
    fn write_snapshot(&mut self) -> io::Result<()> {
        remove_half_snapshots(&self.directory)?;
        let Some(bytes) = self.found.snapshot.to_bytes().filter(|_| self.found.advanced) else {
            return Ok(());
        };
        // The snapshot says that all this is there.
        File::options().write(true).open(self.directory.join(LOG))?.sync_all()?;
        let name = format!("snap.{:016X}", self.found.snapshot.stable.unwrap_or(0));
        let (path, half) = (self.directory.join(&name), self.directory.join(format!("{name}.generating")));
        let written = File::create(&half).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        if let Err(e) = written {
            let _as_it_was = fs::remove_file(&half);
            return Err(e);
        }
        fs::rename(&half, &path)?;
        self.made = Some(path);
        sync_directory(&self.directory)
    }

    /// Steps 4 and 5. sled says of some reads that fail that the data is damaged: so it is asked twice.
    pub(super) fn open(&mut self, config: &sled::Config) -> EngineResult<sled::Db> {
        match self.try_open(config) {
            Err(e) if e.kind() == EngineErrorKind::Corrupt && self.aside.is_none() => {
                tracing::warn!(target: "exuvia", error = %e, "sled failed to open, and is asked again");
                self.try_open(config)
            }
            opened_or_failed => opened_or_failed,
        }
    }

    fn try_open(&mut self, config: &sled::Config) -> EngineResult<sled::Db> {
        self.keep_aside().map_err(|e| {
            let _half_of_it = aside::forget_half(&self.directory);
            let bytes = self.found.segment.as_ref().map_or(0, |(_, bytes)| bytes.len());
            EngineError::io(format!("{}: {bytes} bytes cannot be kept aside for the open", self.place), e)
        })?;
        let db = match lifetime::open(config, &self.place) {
            Ok(db) => db,
            Err(e) if e.kind() == EngineErrorKind::Locked => {
                // Whoever has it may go on: nothing of it is changed.
                let _others_do_not_look_at_it = aside::forget(&self.directory);
                return Err(e);
            }
            Err(e) => return Err(self.put_back(e)),
        };
        match self.check(&db) {
            Ok(true) => Ok(db),
            Ok(false) => {
                let what =
                    "a read failed while the store was being opened; nothing was changed; open it again";
                let error = EngineError::new(EngineErrorKind::Io, format!("{}: {what}", self.place));
                Err(self.close(db, &Ending::Plain, error))
            }
            Err(e) => {
                let error = EngineError::io(&*self.place, e);
                Err(self.close(db, &Ending::Plain, error))
            }
        }
    }

    fn keep_aside(&mut self) -> io::Result<()> {
        if let Some((offset, bytes)) = &self.found.segment {
            let stamp = self.found.next(self.segment_bytes).cast_unsigned();
            let mut aside = Aside::begin(&self.directory, stamp)?;
            aside.keep(Path::new(LOG), *offset, bytes, self.found.file_len)?;
            aside.commit()?;
            self.aside = Some(aside);
        }
        Ok(())
    }

    /// Step 5.
    fn check(&self, db: &sled::Db) -> io::Result<bool> {
        // Not in sled's documentation, but public; the version is pinned.
        let goes_on = db.context.pagecache.log.stable_offset() + 1;
        if goes_on < self.found.next(self.segment_bytes) {
            return Ok(false);
        }
        let Some((offset, before)) = &self.found.segment else {
            return Ok(true);
        };
        let now = recovery::segment_at(&self.directory, self.segment_bytes, *offset)?;
        let written = self.written();
        Ok(before.get(..written).is_some() && before.get(..written) == now.get(..written))
    }

    /// How much of the active segment is before the log's end.
    fn written(&self) -> usize {
        let stable = self.found.snapshot.stable.unwrap_or(0);
        usize::try_from(stable % self.segment_bytes as i64).unwrap_or(0)
    }

    /// Closes sled after a failure of the engine's own first steps, and puts everything back.
    pub(super) fn fail(&mut self, db: sled::Db, fence: &Fence, error: EngineError) -> EngineError {
        self.close(db, &fence.ending(), error)
    }

    fn close(&mut self, db: sled::Db, ending: &Ending, error: EngineError) -> EngineError {
        // sled panics where it cannot sync when it is dropped.
        lifetime::close(db, ending, &self.directory);
        self.put_back(error)
    }

    /// What is kept stays where that fails.
    fn put_back(&mut self, error: EngineError) -> EngineError {
        let Some(aside) = &self.aside else {
            return error;
        };
        let done = let_go(&self.directory).and_then(|_locked| {
            aside.put_back(|_| false)?;
            aside::forget(&self.directory)?;
            sync_directory(&self.directory)
        });
        match done {
            Ok(()) => {
                self.aside = None;
                error
            }
            Err(e) => {
                let message = format!("{error}; and {}", aside.said_of_failure("sled", &e));
                EngineError::new(error.kind(), message)
            }
        }
    }

    /// Step 6. The caller syncs the directory before anything is flushed.
    pub(super) fn done(self) -> io::Result<()> {
        aside::forget(&self.directory)?;
        if self.made.is_some() {
            for older in &self.found.files {
                match fs::remove_file(older) {
                    // sled removes them, too.
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Step 1.
fn put_back_left(directory: &Path, segment_bytes: usize) -> io::Result<()> {
    if let Some(left) = Aside::left(directory)?
        && let Some((offset, kept)) = left.copied(Path::new(LOG))?
    {
        let size = segment_bytes as i64;
        let end = left.stamp().cast_signed();
        let written = usize::try_from(end % size).unwrap_or(0);
        let no_newer = recovery::newest_segment(directory, segment_bytes)? <= end / size * size;
        let now = recovery::segment_at(directory, segment_bytes, offset)?;
        if no_newer && kept.get(..written) != now.get(..written) {
            tracing::warn!(target: "exuvia", directory = %directory.display(), "what an open destroyed that died is put back");
            left.put_back(|_| false)?;
        }
    }
    aside::forget(directory)
}

/// Returns when sled, which failed to open or was closed, has let go of its file.
fn let_go(directory: &Path) -> io::Result<File> {
    let log = File::open(directory.join(LOG))?;
    own_file::lock_within(&log, LET_GO_WAIT)?;
    Ok(log)
}

/// sled would take a snapshot that a crash left half-written for the newest one, and refuse it as damage.
fn remove_half_snapshots(directory: &Path) -> io::Result<()> {
    for entry in directory.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{SEGMENT_BYTES, SledEngine, SledOptions};
    use super::*;
    use crate::engine::Engine as _;

    const RECORDS: u32 = 500;

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("exuvia-opening-{name}-{}", std::process::id()));
        let _of_an_earlier_process = fs::remove_dir_all(&directory);
        directory.join("sled")
    }

    fn open(directory: &Path) -> SledEngine {
        SledEngine::open(directory, SledOptions::new().cache_bytes(16 << 20)).unwrap()
    }

    fn write(directory: &Path, value: &[u8]) {
        let engine = open(directory);
        let tree = engine.tree("t").unwrap();
        for n in 0..RECORDS {
            tree.put(&n.to_be_bytes(), value).unwrap();
        }
        engine.flush().unwrap();
    }

    fn is_there(directory: &Path, value: &[u8]) -> bool {
        let engine = open(directory);
        let tree = engine.tree("t").unwrap();
        (0..RECORDS).all(|n| tree.get(&n.to_be_bytes()).unwrap().as_deref() == Some(value))
    }

    /// A process that dies when sled has destroyed the active segment, and before it is put back.
    fn die_in_an_open(directory: &Path) {
        let mut opening = Opening::prepare(directory, "a test", SEGMENT_BYTES, Whose::Ours(None)).unwrap();
        opening.keep_aside().unwrap();
        let (offset, bytes) = opening.found.segment.clone().unwrap();
        let mut log = fs::read(directory.join(LOG)).unwrap();
        let offset = usize::try_from(offset).unwrap();
        log[offset..offset + bytes.len()].fill(0);
        fs::write(directory.join(LOG), log).unwrap();
    }

    #[test]
    fn what_a_process_destroyed_that_died_in_an_open_is_put_back() {
        let directory = scratch("died");
        write(&directory, b"one");
        die_in_an_open(&directory);
        assert!(is_there(&directory, b"one"));
        assert!(!directory.join("aside").exists());
        // Nothing was destroyed.
        let mut opening = Opening::prepare(&directory, "a test", SEGMENT_BYTES, Whose::Ours(None)).unwrap();
        opening.keep_aside().unwrap();
        assert!(is_there(&directory, b"one"));
        fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_was_kept_aside_is_not_put_back_over_what_was_written_since() {
        let directory = scratch("since");
        let left = directory.with_extension("left");
        write(&directory, b"one");
        let mut opening = Opening::prepare(&directory, "a test", SEGMENT_BYTES, Whose::Ours(None)).unwrap();
        opening.keep_aside().unwrap();
        fs::rename(directory.join("aside"), &left).unwrap();
        // By a release that does not look at it.
        write(&directory, b"two");
        fs::rename(&left, directory.join("aside")).unwrap();
        assert!(is_there(&directory, b"two"));
        fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    }
}
