//! One error for the store, one for the user's own cast code.
//!
//! Every message says what happened, to which record, and what to do next. No engine type appears here:
//! an engine reports through [`EngineError`], which is ours.

use std::fmt;
use std::path::PathBuf;

/// The tree of the catalog, whose damage is told differently than that of a record.
pub(crate) const CATALOG_TREE: &str = "catalog";
/// The key of the catalog in it.
pub(crate) const CATALOG_KEY: &[u8] = b"catalog";

/// The result of a call into the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the user's own code (upcast, downcast, merge, validate) answers when it cannot do its work.
///
/// Only its message is kept: it is stored in the quarantine beside the record that could not be cast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CastError {
    message: String,
}

impl CastError {
    /// An error with a message for the person who has to mend the record or the code.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for CastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CastError {}

/// What went wrong below the table, in the engine or in the medium under it.
#[derive(Debug)]
pub struct EngineError {
    kind: EngineErrorKind,
    message: String,
    source: Option<std::io::Error>,
}

/// The kinds of [`EngineError`] that a caller may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineErrorKind {
    /// Reading or writing the medium failed.
    Io,
    /// The medium is full.
    NoSpace,
    /// The engine found its own files damaged.
    Corrupt,
    /// Another process, or another handle of this one, has the directory open.
    Locked,
    /// A key, value or batch is over the engine's limit.
    Limit,
    /// An earlier failure left the engine unusable; the store has to be opened again.
    Poisoned,
    /// The system refused to start the threads that the engine needs.
    Threads,
    /// The engine was opened to be read only.
    ReadOnly,
    /// The store that the engine keeps was closed.
    Closed,
    /// The engine's directory was moved, replaced or removed while it was open; the engine has stopped.
    Moved,
}

impl EngineError {
    /// A new error of `kind`.
    pub fn new(kind: EngineErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// An error of the medium; a full disk is recognised as such.
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        let full = matches!(
            source.kind(),
            std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::WriteZero
        );
        let kind = if full { EngineErrorKind::NoSpace } else { EngineErrorKind::Io };
        Self { kind, message: message.into(), source: Some(source) }
    }

    /// The kind.
    pub fn kind(&self) -> EngineErrorKind {
        self.kind
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

/// Which of the user's functions failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cast {
    /// `Version::upcast`
    Upcast,
    /// `Version::downcast`
    Downcast,
    /// `Version::merge`
    Merge,
    /// `Version::validate`
    Validate,
    /// What reads the records of an import, or a rule of the store that such a record breaks.
    Import,
}

impl fmt::Display for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cast::Upcast => "upcast",
            Cast::Downcast => "downcast",
            Cast::Merge => "merge",
            Cast::Validate => "validate",
            Cast::Import => "import",
        })
    }
}

/// Everything that a call into the store can fail with.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The path cannot be used as a store.
    Path {
        /// The path as it was given.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
        /// The system's error, if it was one.
        source: Option<std::io::Error>,
    },
    /// Another process, or another handle in this one, has the store open.
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The store was written by an engine or format that this call did not ask for or does not know.
    Format {
        /// What was found, what was expected, and what to do.
        reason: String,
    },
    /// The engine or the medium failed.
    Engine(EngineError),
    /// A stored value is damaged. Only this record (or catalog entry) is affected.
    Corrupt {
        /// The table or tree.
        table: String,
        /// The key's bytes.
        key: Vec<u8>,
        /// What is wrong with it.
        reason: String,
    },
    /// A record was written in a version that this handle's code may not touch.
    Version {
        /// The table.
        table: String,
        /// The version that was found or asked for.
        version: u32,
        /// Why it is refused, and what to do.
        reason: String,
    },
    /// A type changed its shape without a new version, or a lineage does not fit the stored table.
    Shape {
        /// The table.
        table: String,
        /// The version whose shape differs.
        version: u32,
        /// The difference, named, and what to do.
        difference: String,
    },
    /// The user's own cast refused a record.
    Cast {
        /// The table.
        table: String,
        /// The key's bytes.
        key: Vec<u8>,
        /// Which function.
        cast: Cast,
        /// From this version.
        from: u32,
        /// To this version.
        to: u32,
        /// What the user's code said.
        source: CastError,
    },
    /// The backfill could not upcast this record; it waits in the quarantine.
    Quarantined {
        /// The table.
        table: String,
        /// The key's bytes.
        key: Vec<u8>,
        /// What the user's code said when the backfill came by.
        reason: String,
    },
    /// A value could not be encoded, or stored bytes do not decode as the type that they claim to be.
    Codec {
        /// The table.
        table: String,
        /// The key's bytes.
        key: Vec<u8>,
        /// The version of the type.
        version: u32,
        /// What the codec said.
        reason: String,
    },
    /// A key, a value or a transaction is over a limit.
    Limit {
        /// What is counted, and of what.
        what: &'static str,
        /// How many there are.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A value that was given is out of its range. Nothing was done.
    Argument {
        /// The option or parameter.
        what: &'static str,
        /// What was given, and what is allowed.
        reason: String,
    },
    /// The call does not fit the state that the table or migration is in.
    State {
        /// The table or the migration.
        subject: String,
        /// What the state is, and what to do.
        reason: String,
    },
    /// Two callers changed the same state, or a transaction was overtaken by other writers each time that it was tried.
    /// Nothing was written: look again and decide again.
    Conflict {
        /// The table, the migration or the transaction.
        subject: String,
    },
    /// A wait for a migration's backfill would not end: its base is copied, and old writers write faster than what they
    /// write is brought forward. Nothing is wrong with it, and it goes on.
    Behind {
        /// The migration.
        migration: String,
        /// Records that wait to be brought forward; at least so many.
        records: u64,
    },
    /// An earlier failure left this handle unusable: close it, mend the cause, open the store again.
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The table was dropped while this handle was open.
    Dropped {
        /// The table, by its last name.
        table: String,
    },
    /// The store was opened to be read only.
    ReadOnly,
    /// The store was closed.
    Closed,
}

impl Error {
    pub(crate) fn state(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::State { subject: subject.into(), reason: reason.into() }
    }

    pub(crate) fn corrupt(table: impl fmt::Display, key: &[u8], reason: impl Into<String>) -> Self {
        Error::Corrupt { table: table.to_string(), key: key.to_vec(), reason: reason.into() }
    }

    /// What is said of it where it is the reason of a [`Error::Poisoned`]: that of another one is its own reason.
    pub(crate) fn as_reason(&self) -> String {
        match self {
            Error::Poisoned { reason } => reason.clone(),
            other => other.to_string(),
        }
    }

    /// Whether a stored value, or the engine's own files, were found damaged.
    pub fn is_corruption(&self) -> bool {
        match self {
            Error::Corrupt { .. } => true,
            Error::Engine(e) => e.kind() == EngineErrorKind::Corrupt,
            _ => false,
        }
    }

    /// Whether the medium is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::Engine(e) if e.kind() == EngineErrorKind::NoSpace)
    }
}

/// Shows a key in messages: as text where it is printable, else in hexadecimal; long ones are cut.
pub(crate) struct ShowKey<'a>(pub &'a [u8]);

impl fmt::Display for ShowKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut: &[u8] = self.0.get(..64).unwrap_or(self.0);
        if !cut.is_empty() && cut.iter().all(|b| (0x20..0x7f).contains(b)) {
            write!(f, "\"{}\"", String::from_utf8_lossy(cut))?;
        } else {
            f.write_str("0x")?;
            for b in cut {
                write!(f, "{b:02x}")?;
            }
        }
        if cut.len() < self.0.len() { write!(f, "… ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Path { path, reason, source } => {
                write!(f, "{}: {reason}", path.display())?;
                if let Some(source) = source {
                    write!(f, " ({source})")?;
                }
                Ok(())
            }
            Error::Locked { path } => write!(
                f,
                "{}: the store is open in another process or by another handle of this one; \
                 close that one first (one process at a time may have a store open)",
                path.display()
            ),
            Error::Format { reason } => f.write_str(reason),
            Error::Engine(e) => write!(f, "engine: {e}{}", advice(e.kind())),
            Error::Corrupt { table, key, reason } if table == CATALOG_TREE && key == CATALOG_KEY => write!(
                f,
                "the store's catalog is damaged ({reason}); without it no table can be found, and nothing was \
                 changed: restore the store from a copy"
            ),
            Error::Corrupt { table, key, reason } => write!(
                f,
                "table {table}, key {}: the stored value is damaged ({reason}); other records are not \
                 affected: run `exuvia verify` to list the damage, and restore or overwrite this record",
                ShowKey(key)
            ),
            Error::Version { table, version, reason } => {
                write!(f, "table {table}, version {version}: {reason}")
            }
            Error::Shape { table, version, difference } => {
                write!(f, "table {table}, version {version}: {difference}")
            }
            Error::Cast { table, key, cast: Cast::Import, source, .. } => write!(
                f,
                "table {table}, key {} of the source: the record cannot be imported: {source}; nothing was: mend it \
                 there or in the code that reads it, or skip bad records",
                ShowKey(key)
            ),
            Error::Cast { table, key, cast, from, to, source } => write!(
                f,
                "table {table}, key {}: {cast} from version {from} to {to} refused the record: {source}",
                ShowKey(key)
            ),
            Error::Quarantined { table, key, reason } => write!(
                f,
                "table {table}, key {}: the record is in quarantine because its upcast failed: {reason}; \
                 overwrite or remove it, or restart the backfill with corrected code",
                ShowKey(key)
            ),
            Error::Codec { table, key, version, reason } => write!(
                f,
                "table {table}, key {}: the bytes of version {version} and its type do not fit: {reason}",
                ShowKey(key)
            ),
            Error::Limit { what, size, limit } => {
                write!(f, "{size} {what} are over the limit of {limit}; nothing was written")
            }
            Error::Argument { what, reason } => write!(f, "`{what}`: {reason}; nothing was done"),
            Error::State { subject, reason } => write!(f, "{subject}: {reason}"),
            Error::Conflict { subject } => write!(
                f,
                "{subject}: what it had read was changed by another caller meanwhile, and nothing was written; look at \
                 the state and decide again"
            ),
            Error::Behind { migration, records } => write!(
                f,
                "migration {migration}: its base is copied, but old writers write faster than it brings forward, and {records} \
                 of their records or more are left: let them write less or give it a larger budget, and wait again; or \
                 contract, which refuses them and brings forward what they left"
            ),
            Error::Poisoned { reason } => write!(
                f,
                "the store stopped after a failure: {reason}; nothing that was flushed is lost: close this \
                 handle, mend the cause and open the store again"
            ),
            Error::Dropped { table } => write!(
                f,
                "table {table} was dropped, and this handle with it; a table that was made anew is opened by \
                 `Store::table`"
            ),
            Error::ReadOnly => f.write_str(
                "the store was opened read-only; nothing was changed: open it without `read_only` to write",
            ),
            Error::Closed => f.write_str("the store is closed; open it again"),
        }
    }
}

/// What to do about a failure of the engine; its own message says what happened.
fn advice(kind: EngineErrorKind) -> &'static str {
    match kind {
        EngineErrorKind::Io => "; check the medium and its permissions",
        EngineErrorKind::NoSpace => {
            "; the disk is out of space: make room, close the store and open it again (what was flushed is safe)"
        }
        EngineErrorKind::Corrupt => {
            "; close the store, keep a copy of its directory, and restore it from an earlier copy"
        }
        EngineErrorKind::Locked => "; close that one first",
        EngineErrorKind::Threads => "; nothing was changed: free some threads, and open it again",
        EngineErrorKind::Limit
        | EngineErrorKind::Poisoned
        | EngineErrorKind::ReadOnly
        | EngineErrorKind::Closed => "",
        EngineErrorKind::Moved => {
            "; close this handle, see to it that one program at a time has one directory, and open the right one"
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Path { source: Some(source), .. } => Some(source),
            Error::Engine(e) => Some(e),
            Error::Cast { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<EngineError> for Error {
    fn from(e: EngineError) -> Self {
        match e.kind {
            EngineErrorKind::Poisoned => Error::Poisoned { reason: e.to_string() },
            EngineErrorKind::ReadOnly => Error::ReadOnly,
            EngineErrorKind::Closed => Error::Closed,
            _ => Error::Engine(e),
        }
    }
}
