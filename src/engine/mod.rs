//! The narrow waist: everything above is versions and migrations, everything below is storage.
//!
//! An engine keeps named, ordered trees of byte strings. The trait is `dyn`-safe, has no closures and no
//! borrowed transactions, and is small enough that a page cache like sled, an LSM, a B-tree with one writer,
//! memory and a remote transactional store all fit. Single-key calls are the hot path; [`Engine::commit`] is
//! for the few changes that span keys or trees.

mod arguments;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod aside;
#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) mod backup_mark;
mod closable;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod draft;
#[cfg(feature = "fjall")]
mod fjall;
mod frozen;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod kind;
mod memory;
mod named;
#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) mod own_file;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod owner;
mod read_only;
#[cfg(feature = "sled")]
mod sled;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod stops;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod stripes;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod synced;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod threads;
mod value;
mod walk;

use std::ops::Bound;
use std::sync::Arc;

#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) use self::draft::{sync_all_below, sync_directory};
#[cfg(feature = "fjall")]
pub use self::fjall::{FjallEngine, FjallOptions};
#[cfg(any(feature = "sled", feature = "fjall"))]
pub use self::kind::EngineKind;
#[cfg(feature = "sled")]
pub(crate) use self::sled::ForeignSled;
#[cfg(feature = "sled")]
pub use self::sled::{SledEngine, SledOptions};
pub use crate::error::{EngineError, EngineErrorKind};
pub(crate) use closable::{Closable, Stage};
pub(crate) use frozen::{Freezing, SAVED_BYTES_MAX};
pub use memory::MemoryEngine;
pub(crate) use named::NamedTree;
pub(crate) use read_only::ReadOnly;
pub use value::Value;
pub(crate) use walk::{each, each_in};

/// The result of a call into an engine.
pub type EngineResult<T> = Result<T, EngineError>;

/// One ordered tree of byte strings. Handles are cheap and stay valid while the engine is open; a call on a
/// tree that was dropped answers as an empty tree or with an error, never with another tree's records.
///
/// Arguments may be of any length. A write over a limit ([`Capabilities`]) is refused with [`EngineErrorKind::Limit`] and
/// changes nothing. A read never is: a key over the limit is absent, and a bound over it keeps its place in the order.
///
/// [`EngineErrorKind::Limit`]: crate::engine::EngineErrorKind::Limit
pub trait Tree: Send + Sync {
    /// The value under `key`, in the engine's own buffer.
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>>;

    /// Writes one value, whatever was there.
    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()>;

    /// Removes one key; whether it was there does not matter.
    fn delete(&self, key: &[u8]) -> EngineResult<()>;

    /// Replaces exactly `old` (`None`: absent) by `new` (`None`: remove). Answers whether it did; linearizable
    /// with every other call on this key.
    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool>;

    /// Writes `value` only if `key` is absent. Answers whether it did.
    fn insert_if_absent(&self, key: &[u8], value: &[u8]) -> EngineResult<bool> {
        self.compare_and_swap(key, None, Some(value))
    }

    /// Up to `limit` records of the range in key order (descending if `reverse`), appended to `page`.
    /// Answers `true` if the range is exhausted, `false` if there may be more after the last one. An error
    /// is never mistaken for an end. A record read is of one moment; the page is not.
    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool>;
}

/// A range of keys; empty if the bounds are crossed.
pub type KeyRange<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Records of a scan, as the engine's own buffers.
pub type Page = Vec<(Value, Value)>;

/// A condition of [`Engine::commit`].
#[derive(Debug, Clone)]
pub struct Check {
    /// The tree's name.
    pub tree: String,
    /// The key.
    pub key: Vec<u8>,
    /// What must be there: exactly these bytes, or nothing.
    pub expected: Option<Vec<u8>>,
}

/// A write of [`Engine::commit`].
#[derive(Debug, Clone)]
pub struct Write {
    /// The tree's name.
    pub tree: String,
    /// The key.
    pub key: Vec<u8>,
    /// The new value; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Every check held and every write was made.
    Applied,
    /// A check did not hold; nothing was written.
    Conflict,
}

/// What an engine can do and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Longest key, in bytes.
    pub key_bytes_max: usize,
    /// Longest value, in bytes.
    pub value_bytes_max: usize,
    /// Longest record, in bytes, of a table without a migration: a value with one form. Where it is no more than half of
    /// `value_bytes_max`, an open migration can always keep a record's old form beside its new one.
    pub record_bytes_max: usize,
    /// Most writes in one commit.
    pub commit_writes_max: usize,
    /// Most bytes of keys and values in one commit.
    pub commit_bytes_max: usize,
    /// Most trees.
    pub trees_max: usize,
    /// Whether a scan can be of one moment.
    pub snapshots: bool,
    /// Whether `flush` makes anything survive the process.
    pub durable: bool,
    /// Whether dropping a full tree costs no more than dropping an empty one. Otherwise a tree is emptied first, record by
    /// record within the budget.
    pub drops_at_once: bool,
}

/// All trees at one moment. Trees are named as in [`Engine::tree`]; one that was not there is empty.
pub trait Snapshot: Send + Sync {
    /// As [`Tree::get`], at the snapshot's moment.
    fn get(&self, tree: &str, key: &[u8]) -> EngineResult<Option<Value>>;

    /// As [`Tree::scan`], at the snapshot's moment: pages of one snapshot agree with each other.
    fn scan(
        &self,
        tree: &str,
        range: KeyRange<'_>,
        reverse: bool,
        limit: usize,
        page: &mut Page,
    ) -> EngineResult<bool>;
}

/// A storage engine. All calls may be made from any thread.
pub trait Engine: Send + Sync {
    /// The name that is recorded in the store (`"sled"`, `"fjall"`, `"memory"`).
    fn name(&self) -> &'static str;

    /// Opens a tree, and creates it if it is not there. Its name has at most 1024 bytes.
    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>>;

    /// The names of all trees (the engine's own are left out), in no order.
    fn trees(&self) -> EngineResult<Vec<String>>;

    /// Drops a tree with all it holds. Not an error if it is not there.
    fn drop_tree(&self, name: &str) -> EngineResult<()>;

    /// Checks and writes across trees, atomically: all or nothing, also after a crash. Each key at most once
    /// in `checks` and at most once in `writes`. A `get` sees all or nothing, too; a scan of a live tree may see the
    /// first writes before the last, which are made in the order given.
    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome>;

    /// Returns when everything written before the call is durable.
    fn flush(&self) -> EngineResult<()>;

    /// Limits and abilities.
    fn capabilities(&self) -> Capabilities;

    /// Everything as it is at this moment, for reads that must agree with each other; `None` from an engine that cannot
    /// ([`Capabilities::snapshots`] says so). Held as long as it is needed and no longer: it keeps old records alive.
    fn snapshot(&self) -> EngineResult<Option<Arc<dyn Snapshot>>> {
        Ok(None)
    }

    /// Whether so much waits for the medium that writers may soon have to wait too: work that has time should rest.
    fn is_pressed(&self) -> bool {
        false
    }

    /// Reads the engine's own files, and describes each damage that reading all records does not show: in an index or a filter,
    /// on which only lookups depend. An engine in which there is no such place has nothing to do.
    fn check_files(&self) -> EngineResult<Vec<String>> {
        Ok(Vec::new())
    }

    /// Bytes on disk (for memory: bytes of keys and values).
    fn bytes_on_disk(&self) -> EngineResult<u64>;
}
