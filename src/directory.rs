//! The directory of a store: whose it is, and that one handle at a time has it.
//!
//! 1. An empty directory is claimed: `EXUVIA.new` says format and engine, durably. A whole claim is not written again.
//! 2. The engine makes its files, the store its first catalog, and flushes.
//! 3. `EXUVIA.new` becomes `EXUVIA`.
//!
//! A death before 3 leaves what the next open may make again; after 3 records that are not there are a loss, and
//! never an empty store.
//!
//! The path is resolved once, links and all, when it is opened: later changes of the process's directory do not matter. Below
//! it no link is followed, neither to a file of our own nor to the engine's directory. A directory that is made is closed
//! to everybody else, and so are the files, unless the options say otherwise.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backup;
use crate::engine::{EngineKind, sync_directory};
use crate::error::{Error, Result};
use crate::own_file;
use crate::sync::thread;

/// The file that marks a directory as a store and names its engine. It is there once the first catalog is durable.
const MARK: &str = "EXUVIA";
/// Its name while the store is being made: what lies beside it then may be made again.
const CLAIM: &str = "EXUVIA.new";
const MARK_FORMAT: &str = "exuvia store, format 1";
pub(crate) const LOCK: &str = "LOCK";
/// More than either of them has.
const MARK_BYTES_MAX: u64 = 4096;

/// A directory that is locked, and whose engine is known.
pub(crate) struct Prepared {
    /// Without links, and from the root on.
    pub(crate) path: PathBuf,
    pub(crate) lock: File,
    /// [`finish`] has to follow.
    pub(crate) new: bool,
    pub(crate) kind: EngineKind,
}

/// Checks that `path` is a store, or can become one; locks it. Changes nothing in a foreign directory.
pub(crate) fn prepare(
    path: &Path,
    asked: Option<EngineKind>,
    create: bool,
    private: bool,
) -> Result<Prepared> {
    let fail = |reason: &str, source: Option<std::io::Error>| {
        Err(Error::Path { path: path.to_owned(), reason: reason.to_owned(), source })
    };
    match fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => return fail("is not a directory; name the directory of a store", None),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if !create {
                return fail("there is no store here, and creating one was not asked for", None);
            }
            if let Err(e) = create_directory(path, private) {
                return fail("the directory cannot be created", Some(e));
            }
        }
        Err(e) => return fail("cannot be looked at; check the path and its permissions", Some(e)),
    }
    if backup::is_unfinished(path) {
        return fail(backup::UNFINISHED_SAID, None);
    }
    let (new, kind) = match own_file::read(&path.join(MARK), MARK_BYTES_MAX) {
        Ok(text) => (false, check_mark(path, &String::from_utf8_lossy(&text), asked)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            // One that began to be made goes on with its engine.
            (true, asked.or_else(|| claimed(path)).unwrap_or_else(EngineKind::usual))
        }
        Err(e) => return fail("its EXUVIA file cannot be read; check the permissions", Some(e)),
    };
    kind.check_built_in()?;
    let engine = kind.name();
    if new {
        match is_foreign(path, engine) {
            Ok(true) => {
                return fail("holds files that are not of a store; name an empty or a new directory", None);
            }
            Ok(false) if !create => {
                return fail("there is no store here, and creating one was not asked for", None);
            }
            Ok(false) => {}
            Err(e) => return fail("cannot be listed; check the permissions", Some(e)),
        }
    } else if !is_own_directory(&path.join(engine)) {
        let reason = format!(
            "its records are missing: the directory {engine} is not there (a symbolic link is not followed to it); \
             restore it from a copy"
        );
        return fail(&reason, None);
    }
    let lock = match own_file::open_or_create(&path.join(LOCK), private) {
        Ok(lock) => lock,
        Err(e) => return fail("its LOCK file cannot be opened; check the permissions", Some(e)),
    };
    match try_lock(&lock) {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            return Err(Error::Locked { path: path.to_owned() });
        }
        Err(fs::TryLockError::Error(e)) => return fail("cannot be locked", Some(e)),
    }
    if new && let Err(e) = claim(path, engine, private) {
        return fail("cannot be written to", Some(e));
    }
    match path.canonicalize() {
        Ok(path) => Ok(Prepared { path, lock, new, kind }),
        Err(e) => fail("its place in the file system cannot be told", Some(e)),
    }
}

/// The engine of a damaged store, and its lock, if it has one: it is not changed, not even by that. Its mark may be what is
/// damaged.
pub(crate) fn look(path: &Path) -> Result<(EngineKind, Option<File>)> {
    let fail = |reason: &str, source: Option<std::io::Error>| {
        Err(Error::Path { path: path.to_owned(), reason: reason.to_owned(), source })
    };
    if backup::is_unfinished(path) {
        return fail(backup::UNFINISHED_SAID, None);
    }
    let mark = own_file::read(&path.join(MARK), MARK_BYTES_MAX).unwrap_or_default();
    let marked = check_mark(path, &String::from_utf8_lossy(&mark), None).ok();
    let there = |kind: &EngineKind| is_own_directory(&path.join(kind.name()));
    let Some(kind) = marked.into_iter().chain(EngineKind::ALL).find(there) else {
        return fail("is no store: it has no directory of an engine", None);
    };
    kind.check_built_in()?;
    let lock = match own_file::open(&path.join(LOCK)) {
        Ok(lock) => lock,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((kind, None)),
        Err(e) => return fail("its LOCK file cannot be opened; check the permissions", Some(e)),
    };
    match try_lock(&lock) {
        Ok(()) => Ok((kind, Some(lock))),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
        Err(fs::TryLockError::Error(e)) => fail("cannot be locked", Some(e)),
    }
}

fn is_own_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// The engine of a store whose making died before it was done.
fn claimed(path: &Path) -> Option<EngineKind> {
    let claim = String::from_utf8(own_file::read(&path.join(CLAIM), MARK_BYTES_MAX).ok()?).ok()?;
    EngineKind::from_name(claim.lines().nth(1)?.strip_prefix("engine ")?)
}

/// Locks the file; where it is locked, again for a moment: a process that this one has just started holds the lock of a
/// store that was closed meanwhile, from its fork to its exec.
fn try_lock(lock: &File) -> std::result::Result<(), fs::TryLockError> {
    const TRIES: usize = 25;
    const REST: Duration = Duration::from_millis(10);
    for _ in 1..TRIES {
        match lock.try_lock() {
            Err(fs::TryLockError::WouldBlock) => thread::sleep(REST),
            locked_or_failed => return locked_or_failed,
        }
    }
    lock.try_lock()
}

/// Whether a directory without a mark holds anything but what the making of a store leaves behind when it dies.
fn is_foreign(path: &Path, engine: &str) -> std::io::Result<bool> {
    // Before the claim is whole there is nothing else.
    let claim = own_file::read(&path.join(CLAIM), MARK_BYTES_MAX);
    let claimed = claim.is_ok_and(|text| text == mark(engine).as_bytes());
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        // The mark itself comes when another process is just finishing.
        let ours = name == LOCK || name == CLAIM || name == MARK;
        let made = claimed && (name == engine || *name == *format!("{engine}.draft"));
        if !ours && !made {
            return Ok(true);
        }
    }
    Ok(false)
}

fn mark(engine: &str) -> String {
    format!("{MARK_FORMAT}\nengine {engine}\n")
}

/// Those above it get the modes that the process gives.
fn create_directory(path: &Path, private: bool) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), fs::create_dir_all)?;
    own_file::create_directory(path, private)?;
    parent.map_or(Ok(()), sync_directory)
}

fn claim(path: &Path, engine: &str, private: bool) -> std::io::Result<()> {
    let name = path.join(CLAIM);
    // A whole claim stays as it is: to write it again would, in a crash, leave half a claim beside what it claims.
    if own_file::read(&name, MARK_BYTES_MAX).is_ok_and(|text| text == mark(engine).as_bytes()) {
        own_file::open(&name)?.sync_all()?;
    } else {
        let mut file = own_file::create(&name, private)?;
        file.write_all(mark(engine).as_bytes())?;
        file.sync_all()?;
    }
    sync_directory(path)
}

/// Marks a directory, whose engine's files are whole, as a store. The caller syncs.
pub(crate) fn write_mark(path: &Path, kind: EngineKind, private: bool) -> std::io::Result<()> {
    own_file::create(&path.join(MARK), private)?.write_all(mark(kind.name()).as_bytes())
}

/// The store is made: from here on a directory without its records is a loss.
pub(crate) fn finish(path: &Path) -> std::io::Result<()> {
    fs::rename(path.join(CLAIM), path.join(MARK))?;
    sync_directory(path)
}

fn check_mark(path: &Path, text: &str, asked: Option<EngineKind>) -> Result<EngineKind> {
    let fail = |reason: String| Err(Error::Format { reason: format!("{}: {reason}", path.display()) });
    let mut lines = text.lines();
    if lines.next() != Some(MARK_FORMAT) {
        return fail(format!(
            "its EXUVIA file does not say {MARK_FORMAT:?}: the store is damaged, or of a newer release; use that"
        ));
    }
    let Some(name) = lines.next().and_then(|line| line.strip_prefix("engine ")) else {
        return fail("its EXUVIA file names no engine: it is damaged".to_owned());
    };
    let Some(found) = EngineKind::from_name(name) else {
        return fail(format!(
            "the store was written by the engine {name:?}, which this release does not know; use a newer one, or \
             mend its EXUVIA file"
        ));
    };
    match asked {
        Some(asked) if asked != found => fail(format!(
            "the store was written by the engine {name:?} and is being opened with {:?}; open it with {name:?}, or \
             without asking for an engine",
            asked.name()
        )),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the power-loss campaign: half a second claim beside the first one's engine looked like a foreign directory.
    #[test]
    fn a_whole_claim_is_not_written_again_and_half_a_claim_is() {
        let path = std::env::temp_dir().join(format!("exuvia-claim-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let name = path.join(CLAIM);
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let modified = |text: &str| {
            fs::write(&name, text).unwrap();
            File::options().write(true).open(&name).unwrap().set_modified(long_ago).unwrap();
            claim(&path, "sled", true).unwrap();
            assert_eq!(fs::read_to_string(&name).unwrap(), mark("sled"));
            fs::metadata(&name).unwrap().modified().unwrap()
        };
        assert_eq!(modified(&mark("sled")), long_ago);
        assert_ne!(modified("exuvia sto"), long_ago);
        assert_ne!(modified(&mark("fjall")), long_ago);
        fs::remove_dir_all(&path).unwrap();
    }
}
