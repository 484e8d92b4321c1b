//! The directory of the demo's store: the caller's, which is kept, or a temporary one, which is not.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A store's directory, removed at the end if it is a temporary one.
pub(crate) struct Directory {
    path: PathBuf,
    temporary: bool,
}

impl Directory {
    /// Makes a temporary directory, or checks that `path` can become a store: it is new or empty.
    pub(crate) fn prepare(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            let path = std::env::temp_dir().join(format!("exuvia-demo-{}", std::process::id()));
            let made = std::fs::create_dir(&path);
            made.map_err(|e| Failure::input(&path, format!("cannot be made for the temporary store: {e}")))?;
            return Ok(Self { path, temporary: true });
        };
        match std::fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Failure::input(path, "is not empty; name a new directory for the demo"));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                return Err(Failure::input(path, format!("cannot be used as a directory: {e}")));
            }
        }
        Ok(Self { path: path.to_path_buf(), temporary: false })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed lies in the system's temporary directory, under a name that says what it is.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_holds_something_is_refused() {
        let directory = Directory::prepare(None).expect("temporary");
        assert!(Directory::prepare(Some(directory.path())).is_ok_and(|d| !d.temporary));
        let file = directory.path().join("file");
        std::fs::write(&file, "x").expect("written");
        assert!(Directory::prepare(Some(directory.path())).is_err_and(|e| e.exit_code() == 3));
        assert!(Directory::prepare(Some(&file)).is_err());
        let path = directory.path().to_path_buf();
        drop(directory);
        assert!(!path.exists());
    }
}
