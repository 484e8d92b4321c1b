//! The directory of a store: whose it is, and that one handle at a time has it.
//!
//! 1. An empty directory is claimed: `EXUVIA.new` says format and engine, durably. A whole claim is not written again.
//! 2. The engine makes its files, the store its first catalog, and flushes.
//! 3. `EXUVIA.new` becomes `EXUVIA`.
//!
//! A death before 3 leaves what the next open may make again; after 3 records that are not there are a loss, and
//! never an empty store.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::engine::EngineKind;
use crate::error::{Error, Result};
use crate::sync::thread;

/// The file that marks a directory as a store and names its engine. It is there once the first catalog is durable.
const MARK: &str = "EXUVIA";
/// Its name while the store is being made: what lies beside it then may be made again.
const CLAIM: &str = "EXUVIA.new";
const MARK_FORMAT: &str = "exuvia store, format 1";
const LOCK: &str = "LOCK";

/// A directory that is locked, and whose engine is known.
pub(crate) struct Prepared {
    pub(crate) lock: File,
    /// [`finish`] has to follow.
    pub(crate) new: bool,
    pub(crate) kind: EngineKind,
}

/// Checks that `path` is a store, or can become one; locks it. Changes nothing in a foreign directory.
pub(crate) fn prepare(path: &Path, asked: Option<EngineKind>, create: bool) -> Result<Prepared> {
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
            if let Err(e) = create_directory(path) {
                return fail("the directory cannot be created", Some(e));
            }
        }
        Err(e) => return fail("cannot be looked at; check the path and its permissions", Some(e)),
    }
    let (new, kind) = match fs::read(path.join(MARK)) {
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
    } else if !path.join(engine).is_dir() {
        let reason =
            format!("its records are missing: the directory {engine} is not there; restore it from a copy");
        return fail(&reason, None);
    }
    let lock = match File::options().create(true).truncate(false).write(true).open(path.join(LOCK)) {
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
    if new && let Err(e) = claim(path, engine) {
        return fail("cannot be written to", Some(e));
    }
    Ok(Prepared { lock, new, kind })
}

/// The engine of a store whose making died before it was done.
fn claimed(path: &Path) -> Option<EngineKind> {
    let claim = fs::read_to_string(path.join(CLAIM)).ok()?;
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
    let claimed = fs::read(path.join(CLAIM)).is_ok_and(|text| text == mark(engine).as_bytes());
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

fn create_directory(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn claim(path: &Path, engine: &str) -> std::io::Result<()> {
    let name = path.join(CLAIM);
    // A whole claim stays as it is: to write it again would, in a crash, leave half a claim beside what it claims.
    if fs::read(&name).is_ok_and(|text| text == mark(engine).as_bytes()) {
        File::open(&name)?.sync_all()?;
    } else {
        let mut file = File::create(&name)?;
        file.write_all(mark(engine).as_bytes())?;
        file.sync_all()?;
    }
    File::open(path)?.sync_all()
}

/// The store is made: from here on a directory without its records is a loss.
pub(crate) fn finish(path: &Path) -> std::io::Result<()> {
    fs::rename(path.join(CLAIM), path.join(MARK))?;
    File::open(path)?.sync_all()
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
            claim(&path, "sled").unwrap();
            assert_eq!(fs::read_to_string(&name).unwrap(), mark("sled"));
            fs::metadata(&name).unwrap().modified().unwrap()
        };
        assert_eq!(modified(&mark("sled")), long_ago);
        assert_ne!(modified("exuvia sto"), long_ago);
        assert_ne!(modified(&mark("fjall")), long_ago);
        fs::remove_dir_all(&path).unwrap();
    }
}
