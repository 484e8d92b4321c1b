//! The socket itself: made so that nobody else gets in, and removed only if it is still ours.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::protocol::Refusal;
use crate::error::{Error, Result};

/// A socket that has its name.
pub(super) struct Bound {
    path: PathBuf,
    /// Device and inode: another process may have taken the name since.
    identity: Option<(u64, u64)>,
}

impl Bound {
    pub(super) fn remove(&self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _gone_is_as_good = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

pub(super) fn failed(path: &Path, source: io::Error) -> Error {
    let reason = "the control socket cannot be made here".to_owned();
    Error::Path { path: path.to_owned(), reason, source: Some(source) }
}

/// Makes the socket in a directory of its own, which only the owner can enter, and gives it its name when its mode is
/// right. A socket that nobody listens on any more is replaced.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, Bound)> {
    let refuse =
        |reason: &str| Err(Error::Path { path: path.to_owned(), reason: reason.to_owned(), source: None });
    // The draft's name is shorter, and a client could not connect to one that is too long.
    SocketAddr::from_pathname(path).map_err(|e| failed(path, e))?;
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return refuse("is there and is no socket; name another path for the control socket");
        }
        Ok(_) if answers(path)? => {
            return refuse(
                "another program answers on this socket; name another path for the control socket",
            );
        }
        _ => {}
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let closed = parent.join(format!(".ctl{}-{number}", std::process::id()));
    let made = (|| {
        fs::DirBuilder::new().mode(0o700).create(&closed)?;
        let draft = closed.join("s");
        let listener = UnixListener::bind(&draft)?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
        fs::rename(&draft, path)?;
        Ok(listener)
    })();
    let _empty_or_of_no_use = fs::remove_dir_all(&closed);
    let listener = made.map_err(|e| failed(path, e))?;
    Ok((listener, Bound { path: path.to_owned(), identity: identity(path) }))
}

/// Whether somebody listens. Does not wait: who listens and has not come to accept is there all the same, and answers
/// "try again" once its queue is full.
fn answers(path: &Path) -> Result<bool> {
    use rustix::io::{Errno, ioctl_fionbio};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
    let asked = || {
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        ioctl_fionbio(&socket, true)?;
        connect(&socket, &SocketAddrUnix::new(path)?)
    };
    match asked() {
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(e) => Err(failed(path, e.into())),
    }
}

/// Bounds how long an accept waits.
pub(super) fn accept_wait(listener: &UnixListener, wait: Duration) -> io::Result<()> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    Ok(set_socket_timeout(listener, Timeout::Recv, Some(wait))?)
}

/// Wakes an accept, where the system does that; elsewhere it wakes by itself soon.
pub(super) fn wake(listener: &UnixListener) {
    let _it_wakes_by_itself = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
}

/// Who the peer is, if the system can tell; refused unless it is the owner or root.
#[cfg(target_os = "linux")]
pub(super) fn peer(stream: &UnixStream) -> Result<Option<u32>, Refusal> {
    let refuse = |reason: String| Err(Refusal::new("denied", reason));
    match rustix::net::sockopt::socket_peercred(stream) {
        Ok(peer) if peer.uid == rustix::process::geteuid() || peer.uid.is_root() => {
            Ok(Some(peer.uid.as_raw()))
        }
        Ok(peer) => refuse(format!("user {} is not the owner of this store", peer.uid.as_raw())),
        Err(e) => refuse(format!("the system does not say who asks ({e})")),
    }
}

/// Elsewhere the socket's mode alone keeps others out.
#[cfg(not(target_os = "linux"))]
pub(super) fn peer(_stream: &UnixStream) -> Result<Option<u32>, Refusal> {
    Ok(None)
}
