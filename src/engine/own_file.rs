//! The files that are this crate's own in a store's directory (`EXUVIA`, `LOCK`, `BACKUP`): nobody else gets at them unless
//! the options say so, no symbolic link is followed to them, and no more of one is read than it can hold.
//!
//! The mode is given when a file is made, so there is no moment at which it is wider; the process's umask is not touched.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
#[cfg(any(feature = "sled", feature = "fjall"))]
use std::{fs::TryLockError, time::Duration};

#[cfg(any(feature = "sled", feature = "fjall"))]
use crate::sync::{Instant, thread};

/// The options of every open here: no symbolic link, and no wait for the other end of a pipe that lies in the place.
fn options(private: bool) -> OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
        options.mode(if private { 0o600 } else { 0o666 });
    }
    #[cfg(not(unix))]
    let _by_the_directory = private;
    options
}

fn opened(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let link = || fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_symlink());
    // Elsewhere the open itself follows links.
    let file = if !cfg!(unix) && link() { Err(ErrorKind::InvalidInput.into()) } else { options.open(path) };
    let file = file.map_err(|e| if link() { unusual("it is a symbolic link") } else { e })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(unusual("it is no file")) }
}

fn unusual(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("{what}, which a file of the store's own never is"))
}

/// The whole file, which has at most so many bytes.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    opened(options(false).read(true), path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let reason = format!("it has more than {bytes_max} bytes, which a file of the store's own never has");
        return Err(io::Error::new(ErrorKind::InvalidData, reason));
    }
    Ok(bytes)
}

/// As [`read`]; `None` only where there is none: a read that fails is never an absence.
pub(crate) fn read_if_there(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    match read(path, bytes_max) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// What is there, be it a link; `None` only where there is nothing: a look that fails is never an absence.
pub(crate) fn look(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some),
    }
}

/// A file to be read.
#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) fn open(path: &Path) -> io::Result<File> {
    opened(options(false).read(true), path)
}

/// Locks a file; where it is locked, again for so long. A process that was just started holds the locks of its parent until
/// it runs its own program, and an engine's threads may hold its lock a moment longer than its handles.
#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) fn lock_within(file: &File, longest: Duration) -> Result<(), TryLockError> {
    const REST: Duration = Duration::from_millis(1);
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < longest => thread::sleep(REST),
            locked_or_failed => return locked_or_failed,
        }
    }
}

/// A new file, or an empty one in place of the old.
pub(crate) fn create(path: &Path, private: bool) -> io::Result<File> {
    opened(options(private).write(true).create(true).truncate(true), path)
}

/// The file as it is, or a new one.
pub(crate) fn open_or_create(path: &Path, private: bool) -> io::Result<File> {
    opened(options(private).write(true).create(true).truncate(false), path)
}

/// A directory that was not there, and, if that is asked for, those above it, which get the process's own modes.
pub(crate) fn create_directory(path: &Path, private: bool) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, if private { 0o700 } else { 0o777 });
    #[cfg(not(unix))]
    let _by_the_parent = private;
    builder.create(path)
}

/// Whether a directory is closed to others: what replaces it is to be so, too.
#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) fn is_private(directory: &Path) -> bool {
    #[cfg(unix)]
    let open = |meta: fs::Metadata| std::os::unix::fs::MetadataExt::mode(&meta) & 0o077 != 0;
    #[cfg(not(unix))]
    let open = |_: fs::Metadata| false;
    !fs::metadata(directory).is_ok_and(open)
}

/// Closes to others what lies in a directory: what an engine made before its first answer.
#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) fn close_all_below(directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    for entry in directory.read_dir()? {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
            close_all_below(&path)?;
        } else if entry.file_type()?.is_file() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        }
    }
    #[cfg(not(unix))]
    let _by_the_parent = directory;
    Ok(())
}
