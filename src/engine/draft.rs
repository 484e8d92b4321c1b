//! How an engine's directory comes to be: under another name, and under its own when all of it is durable. What a
//! crash leaves half-made can then never be taken for a store. A draft that a crash left behind is removed.
//!
//! A private one is closed to others from the start; so whatever its engine makes in it later is, with whatever mode.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::own_file;

/// Whether `directory` is not there, or is empty.
pub(super) fn is_new(directory: &Path) -> io::Result<bool> {
    match directory.read_dir() {
        Ok(mut entries) => Ok(entries.next().transpose()?.is_none()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

/// An empty directory beside `directory`, for the engine to be made in.
pub(super) fn begin(directory: &Path, private: bool) -> io::Result<PathBuf> {
    let draft = directory.with_extension("draft");
    match fs::remove_dir_all(&draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    draft.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), fs::create_dir_all)?;
    own_file::create_directory(&draft, private)?;
    Ok(draft)
}

/// Makes a draft durable and gives it its name. The engine has been opened in it, and closed.
pub(super) fn finish(draft: &Path, directory: &Path, private: bool) -> io::Result<()> {
    if private {
        own_file::close_all_below(draft)?;
    }
    sync_all_below(draft)?;
    fs::rename(draft, directory)?;
    match directory.canonicalize()?.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Makes everything in a directory durable, with its names.
pub(crate) fn sync_all_below(directory: &Path) -> io::Result<()> {
    for entry in directory.read_dir()? {
        let path = entry?.path();
        if path.is_dir() { sync_all_below(&path)? } else { File::open(path)?.sync_all()? }
    }
    sync_directory(directory)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened as a file, and its names are durable by other means.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}
