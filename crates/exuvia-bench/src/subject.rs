//! What a store must offer to be measured.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::steps::Steps;

/// Why an operation did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Not now: the store is closed for this version for a while. Nothing was changed. It is tried again, at the version
    /// that is then current, and the time until it succeeds is its latency.
    Closed(String),
    /// It failed, and nothing is known of what became of it. It counts as wrong.
    Failed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Closed(reason) | Refusal::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Why a measurement ended without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The subject failed at this verb.
    Subject {
        /// The verb: `load`, `begin`, `wait` and so on.
        verb: &'static str,
        /// What it said.
        reason: String,
    },
    /// A setting that cannot be used, and what to do.
    Setting(String),
    /// A file that cannot be read or written.
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// The system gave no thread.
    Thread(String),
}

impl Failure {
    /// The subject's failure at a verb.
    pub fn subject(verb: &'static str, reason: impl fmt::Display) -> Self {
        Failure::Subject { verb, reason: reason.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Subject { verb, reason } => write!(f, "the subject failed at {verb}: {reason}"),
            Failure::Setting(reason) => f.write_str(reason),
            Failure::File { path, reason } => write!(f, "{}: {reason}", path.display()),
            Failure::Thread(reason) => write!(f, "a thread cannot be started: {reason}"),
        }
    }
}

impl std::error::Error for Failure {}

/// What a subject answers to a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// It was done.
    Done,
    /// This kind of store has no such thing, and why. The phase is left out, and the report says so.
    Cannot(&'static str),
}

/// A store of records under the keys 0, 1, 2 and so on, in several versions, that can be migrated while it is used.
///
/// The harness knows nothing of the records: it asks the subject to [make](Subject::record) the one that has to lie under a
/// key after so many writes, has it written, and compares what is read with what it would be made as. Operations come
/// from several threads at once, verbs from one other thread.
///
/// Versions count from 1. All operations are made at the version that is current: 1 at first, `to` from the return of
/// [`Subject::begin`] on, and 1 from the return of [`Subject::roll_back`] to that of
/// [`Subject::resume`]. A subject whose records are of an older version at that time casts them as it reads, or answers
/// [`Refusal::Closed`] for as long as it cannot.
pub trait Subject: Send + Sync {
    /// A record, at any of its versions.
    type Record: PartialEq + fmt::Debug + Send;

    /// The record that lies under `key` after it was written `revision` times (0: as loaded), as it is read at
    /// `version`. A pure function: it is what reads are compared with.
    fn record(&self, key: u64, revision: u32, version: u32) -> Self::Record;

    /// Writes the records 0 to `count` at version 1 and revision 0, and makes them durable.
    ///
    /// # Errors
    ///
    /// It ends the measurement, as with the other verbs.
    fn load(&self, count: u64) -> Result<(), Failure>;

    /// Reads a record at the current version.
    ///
    /// # Errors
    ///
    /// A refusal.
    fn get(&self, key: u64, version: u32) -> Result<Option<Self::Record>, Refusal>;

    /// Writes a record, whatever was there.
    ///
    /// # Errors
    ///
    /// A refusal.
    fn put(&self, key: u64, record: &Self::Record, version: u32) -> Result<(), Refusal>;

    /// Removes a record, if there is one.
    ///
    /// # Errors
    ///
    /// A refusal.
    fn remove(&self, key: u64, version: u32) -> Result<(), Refusal>;

    /// Reads the first `limit` records from key `from` on, in key order.
    ///
    /// # Errors
    ///
    /// A refusal.
    fn scan(&self, from: u64, limit: usize, version: u32) -> Result<Vec<(u64, Self::Record)>, Refusal>;

    /// Starts a migration to version `to`. When it returns, operations at `to` are possible. What takes its time goes on in the
    /// background, or is left to [`Subject::wait`].
    ///
    /// # Errors
    ///
    /// It ends the measurement.
    fn begin(&self, to: u32) -> Result<(), Failure>;

    /// Waits until every record is rewritten, for `limit` at most. A store that has to be driven does the work here. Answers
    /// whether it is complete.
    ///
    /// # Errors
    ///
    /// It ends the measurement.
    fn wait(&self, limit: Duration) -> Result<bool, Failure>;

    /// Takes the migration back: operations at the version before are possible when it returns, and everything that was
    /// written since [`Subject::begin`] can be read by them. Half a promise is none: a restored backup that loses those writes is
    /// [`Ability::Cannot`].
    ///
    /// The default, as those of [`Subject::resume`], [`Subject::contract`] and [`Subject::sweep`], is for a store that writes
    /// the new form over the old one.
    ///
    /// # Errors
    ///
    /// It ends the measurement.
    fn roll_back(&self) -> Result<Ability, Failure> {
        Ok(Ability::Cannot("the old form of each record is overwritten"))
    }

    /// Takes it forward again; [`Subject::wait`] waits for what is left to do. Called only after a rollback that was done.
    ///
    /// # Errors
    ///
    /// It ends the measurement.
    fn resume(&self) -> Result<Ability, Failure> {
        Ok(Ability::Cannot("there is no rollback"))
    }

    /// Gives the old version up.
    ///
    /// # Errors
    ///
    /// It ends the measurement.
    fn contract(&self) -> Result<Ability, Failure> {
        Ok(Ability::Cannot("nothing of the old version is kept"))
    }

    /// Waits until the remains of the old version are gone from the store, for `limit` at most. Answers whether they are.
    ///
    /// # Errors
    ///
    /// It ends the measurement.
    fn sweep(&self, limit: Duration) -> Result<bool, Failure> {
        let _ = limit;
        Ok(true)
    }

    /// How many records are still stored in an older form than `version`, as the subject finds by looking at all of them;
    /// `None` if it cannot tell. Called once, at the end, with no load.
    ///
    /// # Errors
    ///
    /// It ends the measurement.
    fn left_behind(&self, version: u32) -> Result<Option<u64>, Failure>;

    /// Bytes on disk.
    ///
    /// # Errors
    ///
    /// It ends the measurement.
    fn bytes_on_disk(&self) -> Result<u64, Failure>;

    /// Gives the subject the list in which it notes what its migration does, so that stalls can be told apart by what was under
    /// way. Called once, before anything else. The default notes nothing.
    fn watch(&self, steps: &Arc<Steps>) {
        let _ = steps;
    }
}
