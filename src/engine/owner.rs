//! Whether the files that an engine has open are still those at their paths.
//!
//! An engine holds some of its files and opens others by their names. Where its directory was moved, and a copy put in its
//! place, the lock that it holds is that of the moved files: another process takes the copy, and the first would write new
//! files into it. So whoever writes by a name asks here first, and stops.
//!
//! Files are told apart by device and number, which are not used again while they are held open here. Unix only: elsewhere
//! a directory with open files is not moved.

#[cfg(unix)]
pub(super) use self::unix::Owner;

#[cfg(unix)]
mod unix {
    use std::fs::{self, File, Metadata};
    use std::io::{self, ErrorKind};
    use std::os::unix::fs::MetadataExt as _;
    use std::path::{Path, PathBuf};

    use crate::engine::EngineResult;
    use crate::error::{EngineError, EngineErrorKind};

    /// A directory and the file of its lock, held open.
    pub(in crate::engine) struct Owner {
        held: [(PathBuf, File, (u64, u64)); 2],
    }

    fn identity(of: &Metadata) -> (u64, u64) {
        (of.dev(), of.ino())
    }

    impl Owner {
        /// To be called when the engine has opened `directory`, and so has the lock, which is on the file `lock` in it.
        pub(in crate::engine) fn of(directory: &Path, lock: &str) -> io::Result<Self> {
            let hold = |path: PathBuf| {
                let file = File::open(&path)?;
                let identity = identity(&file.metadata()?);
                Ok::<_, io::Error>((path, file, identity))
            };
            Ok(Self { held: [hold(directory.to_owned())?, hold(directory.join(lock))?] })
        }

        /// Cost: the system is asked twice about a name.
        pub(in crate::engine) fn check(&self) -> EngineResult<()> {
            for (path, _, held) in &self.held {
                let there = match fs::metadata(path) {
                    Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                        return Err(EngineError::io(path.display().to_string(), e));
                    }
                    other => other.ok().map(|found| identity(&found)),
                };
                if there != Some(*held) {
                    return Err(moved(path));
                }
            }
            Ok(())
        }
    }

    #[cold]
    fn moved(path: &Path) -> EngineError {
        let message = format!(
            "{}: it was moved, replaced or removed while the store was open, so the store stopped before it wrote to its \
             place; what was flushed is where it was moved to",
            path.display()
        );
        EngineError::new(EngineErrorKind::Moved, message)
    }
}

#[cfg(not(unix))]
pub(super) struct Owner;

#[cfg(not(unix))]
impl Owner {
    pub(super) fn of(_directory: &std::path::Path, _lock: &str) -> std::io::Result<Self> {
        Ok(Self)
    }

    pub(super) fn check(&self) -> super::EngineResult<()> {
        Ok(())
    }
}
