//! Why the command ended without doing its work, and the exit code that says so.

use std::fmt;
use std::path::{Path, PathBuf};

/// What the command ends with when it fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A record or the ledger is not what it has to be: exit code 1.
    Verification(String),
    /// A file or directory that the caller named cannot be used: exit code 3.
    Input {
        /// The file or directory as it was given.
        path: PathBuf,
        /// The line of the file, from 1, if the reason is in one.
        line: Option<u64>,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The store in this directory is open in another process: exit code 3.
    Locked(PathBuf),
    /// The store, or the system below it, failed: exit code 4.
    Store(String),
    /// What was typed does not fit the store: exit code 2.
    Usage(String),
    /// There is no such record: exit code 6.
    Absent(String),
    /// What was asked for does not fit the state that the store is in; nothing was changed: exit code 5.
    Refused(String),
}

impl Failure {
    /// A file or directory that cannot be used.
    pub(crate) fn input(path: &Path, reason: impl Into<String>) -> Self {
        Failure::Input { path: path.to_path_buf(), line: None, reason: reason.into() }
    }

    /// A file with something wrong in `line`.
    pub(crate) fn line(path: &Path, line: u64, reason: impl Into<String>) -> Self {
        Failure::Input { path: path.to_path_buf(), line: Some(line), reason: reason.into() }
    }

    /// Why the store in `path` could not be opened.
    pub(crate) fn opening(path: &Path, error: exuvia::Error) -> Self {
        let reason = match error {
            exuvia::Error::Path { reason, source, .. } => match source {
                Some(source) => format!("{reason} ({source})"),
                None => reason,
            },
            exuvia::Error::Locked { .. } => return Failure::Locked(path.to_path_buf()),
            exuvia::Error::Format { .. } => {
                // These messages name the path themselves.
                let message = error.to_string();
                let own = format!("{}: ", path.display());
                message.strip_prefix(&own).unwrap_or(&message).to_owned()
            }
            other => return other.into(),
        };
        Failure::input(path, reason)
    }

    /// The exit code, as `exuvia --help` documents it. Code 2, wrong usage, is mostly the argument
    /// parser's.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Verification(_) => 1,
            Failure::Input { .. } | Failure::Locked(_) => 3,
            Failure::Store(_) => 4,
            Failure::Refused(_) => 5,
            Failure::Usage(_) => 2,
            Failure::Absent(_) => 6,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Verification(reason) => write!(f, "verification failed: {reason}"),
            Failure::Input { path, line: Some(line), reason } => {
                write!(f, "{}, line {line}: {reason}", path.display())
            }
            Failure::Input { path, line: None, reason } => write!(f, "{}: {reason}", path.display()),
            Failure::Store(reason)
            | Failure::Refused(reason)
            | Failure::Usage(reason)
            | Failure::Absent(reason) => f.write_str(reason),
            Failure::Locked(path) => write!(
                f,
                "{}: the store is open in another process; close that one first, or let its program open a control \
                 socket (`Store::control_socket`), through which status, ledger, backup, rollback, resume, pause, \
                 unpause and budget reach it",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Failure {}

impl From<exuvia::Error> for Failure {
    fn from(error: exuvia::Error) -> Self {
        match &error {
            damage if damage.is_corruption() => Failure::Verification(error.to_string()),
            exuvia::Error::State { .. } | exuvia::Error::Conflict { .. } | exuvia::Error::Version { .. } => {
                Failure::Refused(error.to_string())
            }
            _ => Failure::Store(error.to_string()),
        }
    }
}

impl From<exuvia::CastError> for Failure {
    fn from(error: exuvia::CastError) -> Self {
        Failure::Store(format!("the demo's own casts refused one of its records: {error}"))
    }
}
