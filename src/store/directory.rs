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
use std::sync::Arc;
use std::time::Duration;

use crate::engine::backup_mark as backup;
use crate::engine::own_file;
use crate::engine::{Engine, EngineKind, sync_directory};
use crate::error::{Error, Result};

/// The file that marks a directory as a store and names its engine. It is there once the first catalog is durable.
const MARK: &str = "EXUVIA";
/// Its name while the store is being made: what lies beside it then may be made again.
const CLAIM: &str = "EXUVIA.new";
const MARK_FORMAT: &str = "exuvia store, format 1";
pub(crate) const LOCK: &str = "LOCK";
/// How long an open waits for it.
const LOCK_WAIT: Duration = Duration::from_millis(250);
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

impl Prepared {
    /// Opens the engine of the store, in its own directory of that name or another.
    pub(crate) fn open_engine(
        &self,
        directory: &Path,
        cache_bytes: u64,
        private: bool,
    ) -> Result<Arc<dyn Engine>> {
        match self.kind.open_with(directory, cache_bytes, private) {
            // Somebody who does not ask for the store's lock.
            Err(Error::Locked { .. }) => Err(Error::Locked { path: self.path.clone() }),
            opened => opened,
        }
    }
}

/// Where the new files are made, and the old ones are afterwards.
pub(crate) fn made_by_compaction(path: &Path, kind: EngineKind) -> PathBuf {
    path.join(format!("{}.compact", kind.name()))
}

/// Removes what a compaction left. To be called under the store's lock, and only if the store is not a new one.
pub(crate) fn clear_compaction(path: &Path, kind: EngineKind) -> std::io::Result<()> {
    let made = made_by_compaction(path, kind);
    // An engine makes its draft beside its directory (`engine::draft`).
    let mut left = Vec::new();
    for path in [made.with_extension("draft"), made] {
        if own_file::look(&path)?.is_some() {
            left.push(path);
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    sync_directory(path)?;
    for left in left {
        fs::remove_dir_all(left)?;
    }
    sync_directory(path)
}

/// Checks that `path` is a store, or can become one; locks it. Changes nothing in a foreign directory, nor in a backup.
pub(crate) fn prepare(
    path: &Path,
    asked: Option<EngineKind>,
    create: bool,
    private: bool,
) -> Result<Prepared> {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => {
            return Err(fail(path, "is not a directory; name the directory of a store", None));
        }
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if !create {
                return Err(fail(path, NO_STORE, None));
            }
            match create_directory(path, private) {
                // By another that opens it, too.
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(fail(path, "the directory cannot be created", Some(e)));
                }
                _ => {}
            }
        }
        Err(e) => {
            return Err(fail(path, "cannot be looked at; check the path and its permissions", Some(e)));
        }
    }
    // Without the lock only what somebody who has it never makes it: he may be at work.
    if find(path, asked)?.is_none() {
        asked.map_or(Ok(()), EngineKind::check_built_in)?;
        if is_foreign(path, |_| true)? {
            return Err(fail(path, FOREIGN, None));
        }
        if !create && !is_there(path, CLAIM)? && !is_there(path, MARK)? {
            return Err(fail(path, NO_STORE, None));
        }
    }
    let lock = own_file::open_or_create(&path.join(LOCK), private);
    let lock = locked(path, lock.map_err(|e| fail(path, NO_LOCK, Some(e)))?)?;
    let found = find(path, asked)?;
    let new = found.is_none();
    // One that began to be made goes on with its engine.
    let known = found.or(asked).map_or_else(|| claimed(path), |kind| Ok(Some(kind)))?;
    let kind = known.unwrap_or_else(EngineKind::usual);
    kind.check_built_in()?;
    let engine = kind.name();
    if new {
        if is_foreign(path, |claimed| claimed == kind)? {
            return Err(fail(path, FOREIGN, None));
        }
        if !create {
            return Err(fail(path, NO_STORE, None));
        }
        claim(path, engine, private).map_err(|e| fail(path, "cannot be written to", Some(e)))?;
    } else if !is_own_directory(path, kind)? {
        let reason = format!(
            "its records are missing: the directory {engine} is not there (a symbolic link is not followed to it); \
             restore it from a copy"
        );
        return Err(fail(path, &reason, None));
    }
    match path.canonicalize() {
        Ok(path) => Ok(Prepared { path, lock, new, kind }),
        Err(e) => Err(fail(path, "its place in the file system cannot be told", Some(e))),
    }
}

const NO_STORE: &str =
    "there is no store here, and creating one was not asked for; name the directory of a store";
const FOREIGN: &str = "holds files that are not of a store; name an empty or a new directory";
const UNSEEN: &str = "cannot be looked into; check the medium and its permissions";
const NO_LOCK: &str = "its LOCK file cannot be opened; check the permissions";

fn fail(path: &Path, reason: &str, source: Option<std::io::Error>) -> Error {
    Error::Path { path: path.to_owned(), reason: reason.to_owned(), source }
}

/// The engine of the store that is here; `None` if there is none yet.
fn find(path: &Path, asked: Option<EngineKind>) -> Result<Option<EngineKind>> {
    if let Some(said) = backup::refusal(path)? {
        return Err(fail(path, said, None));
    }
    let Some(text) = own_file::read_if_there(&path.join(MARK), MARK_BYTES_MAX)
        .map_err(|e| fail(path, "its EXUVIA file cannot be read; check the permissions", Some(e)))?
    else {
        return Ok(None);
    };
    let kind = check_mark(path, &String::from_utf8_lossy(&text), asked)?;
    kind.check_built_in()?;
    Ok(Some(kind))
}

/// The engine of a damaged store, and its lock, if it has one: it is not changed, not even by that. Its mark may be what is
/// damaged.
pub(crate) fn look(path: &Path) -> Result<(EngineKind, Option<File>)> {
    if backup::is_unfinished(path)? {
        return Err(fail(path, backup::UNFINISHED_SAID, None));
    }
    // One that cannot be read may be what is damaged, too.
    let mark = own_file::read(&path.join(MARK), MARK_BYTES_MAX);
    let mark = mark.as_ref().map(|text| String::from_utf8_lossy(text)).unwrap_or_default();
    let mut kinds: Vec<EngineKind> = Vec::new();
    for kind in EngineKind::ALL {
        if is_own_directory(path, kind)? {
            kinds.push(kind);
        }
    }
    let kind = match (check_mark(path, &mark, None), kinds.as_slice()) {
        (Ok(marked), kinds) if kinds.contains(&marked) => marked,
        (_, [kind, ..]) => *kind,
        (_, []) => return Err(fail(path, "is no store: it has no directory of an engine", None)),
    };
    kind.check_built_in()?;
    match own_file::open(&path.join(LOCK)) {
        Ok(lock) => Ok((kind, Some(locked(path, lock)?))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok((kind, None)),
        Err(e) => Err(fail(path, NO_LOCK, Some(e))),
    }
}

fn locked(path: &Path, lock: File) -> Result<File> {
    match own_file::lock_within(&lock, LOCK_WAIT) {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
        Err(fs::TryLockError::Error(e)) => Err(fail(path, "cannot be locked", Some(e))),
    }
}

fn is_own_directory(path: &Path, kind: EngineKind) -> Result<bool> {
    let found = own_file::look(&path.join(kind.name())).map_err(|e| fail(path, UNSEEN, Some(e)))?;
    Ok(found.is_some_and(|meta| meta.is_dir()))
}

fn is_there(path: &Path, name: &str) -> Result<bool> {
    let found = own_file::look(&path.join(name)).map_err(|e| fail(path, UNSEEN, Some(e)))?;
    Ok(found.is_some())
}

/// The engine of a store whose making died before it was done: before its claim is whole nothing else is made.
fn claimed(path: &Path) -> Result<Option<EngineKind>> {
    let claim = own_file::read_if_there(&path.join(CLAIM), MARK_BYTES_MAX)
        .map_err(|e| fail(path, "its EXUVIA.new file cannot be read; check the permissions", Some(e)))?;
    let is_of = |kind: &EngineKind| claim.as_deref() == Some(mark(kind.name()).as_bytes());
    Ok(EngineKind::ALL.into_iter().find(is_of))
}

/// Whether a directory without a mark holds anything but what the making of a store, with an engine that is `ours`, leaves
/// behind when it dies.
fn is_foreign(path: &Path, ours: impl Fn(EngineKind) -> bool) -> Result<bool> {
    let listed =
        || fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    let names = listed().map_err(|e| fail(path, "cannot be listed; check the permissions", Some(e)))?;
    // After the list: what is in it was made after the claim, which may be the mark by now.
    let done = is_there(path, MARK)?;
    let claimed = claimed(path)?;
    Ok(names.iter().any(|name| {
        let made = |kind: EngineKind| {
            let engine = kind.name();
            name == engine || *name == *format!("{engine}.draft")
        };
        let made = EngineKind::ALL
            .into_iter()
            .any(|kind| made(kind) && ours(kind) && (done || claimed == Some(kind)));
        !made && name != LOCK && name != CLAIM && name != MARK
    }))
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
    let there = own_file::read_if_there(&name, MARK_BYTES_MAX)?;
    if there.is_some_and(|text| text == mark(engine).as_bytes()) {
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
    if lines.next().is_some() {
        return fail(
            "its EXUVIA file has more than two lines: it is damaged, or of a newer release".to_owned(),
        );
    }
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
