//! The sled engine.
//!
//! sled 0.34 is fast and its stalls are short, but it is unfinished; this is where its edges are:
//!
//! 1. The first batch or transaction in a process puts every later operation of that process, in every store,
//!    behind the shared side of one lock. So neither is ever made: see [`commit`].
//! 2. It panics on much of what it finds damaged: every call goes through [`Fence::call`].
//! 3. Its flush is not durable: see [`files`].
//! 4. Its recovery takes a read that fails for the end of its log, and destroys what is behind that: see [`opening`].
//! 5. It writes when it is dropped, and may then fail, panic or wait for ever: see [`lifetime::close`].

mod commit;
mod fence;
mod files;
mod foreign;
mod frame;
mod lifetime;
mod opening;
mod options;
mod pace;
mod recovery;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use self::commit::Commits;
use self::fence::{Access, Fence};
use self::files::{Files, Synced};
pub(crate) use self::foreign::ForeignSled;
use self::opening::Opening;
pub use self::options::SledOptions;
use self::pace::Pace;
use self::recovery::Whose;
use super::owner::Owner;
use super::{
    Capabilities, Check, Engine, EngineResult, KeyRange, Outcome, Page, Tree, Value, Write, arguments, draft,
    synced,
};
use crate::error::{EngineError, EngineErrorKind};

/// The size of sled's segments, fixed when a store is made. Pages over a quarter of it would become files of their
/// own ("blobs"), which sled never syncs, so that a loss of power could damage what was flushed long ago: the limits
/// below keep every page under that. A leaf holds up to some 17 records, an index page up to 256 keys.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;
/// Longest key.
const KEY_BYTES_MAX: usize = 2 * 1024;
/// Longest value.
const VALUE_BYTES_MAX: usize = 48 * 1024;
/// Most writes in a commit: all other calls wait while it is made, and no sync can come between its writes.
const COMMIT_WRITES_MAX: usize = 1024;
/// Most bytes of keys and values in a commit, for the same reason: each may rewrite a page of seventeen such.
const COMMIT_BYTES_MAX: usize = SEGMENT_BYTES / 16;
/// sled's own tree, which cannot be dropped.
const DEFAULT_TREE: &str = "__sled__default";
/// A store in a directory, kept by sled.
///
/// Reads are lock-free; a write is an append to a log buffer in memory, and is durable after [`Engine::flush`].
/// Besides, the engine syncs its log by itself before a segment of it waits, because sled could otherwise not be
/// opened after a loss of power (see docs/lab/reliability.md).
///
/// Limits: keys of 2 KiB, values of 48 KiB, commits of 256 KiB. While a migration of its table is open, both forms of a
/// record have to fit into a value.
///
/// After a failed write (a full disk) writes answer `Poisoned`; reads go on where sled can still be trusted with
/// them. After a panic of sled's every call does. What was flushed is safe: drop every handle, mend the cause, open
/// again. Where sled cannot even be closed any more the directory stays locked until the process ends.
#[derive(Clone)]
pub struct SledEngine {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` only in `drop`.
    db: Option<sled::Db>,
    fence: Arc<Fence>,
    commits: Commits,
    /// `None` only in `drop`.
    pace: Option<Arc<Pace>>,
    syncing: Option<JoinHandle<()>>,
    directory: PathBuf,
    /// Dropped trees. The last handle of a tree flushes the store when it goes, so that is not left to chance.
    dropped: Mutex<Vec<sled::Tree>>,
}

struct SledTree {
    // Before `shared`, so that the store's own handle of this tree outlives this one.
    tree: sled::Tree,
    name: String,
    /// For its keys' stripes.
    number: u64,
    shared: Arc<Shared>,
}

impl SledEngine {
    /// Opens the store in `directory`, and creates it (and the directories above it) if it is not there.
    ///
    /// Cost: reads the log since the last open; a sync of each of sled's files and directories.
    ///
    /// # Errors
    /// `Locked` if another process, or a handle of this one, has it open. `Io` if the path cannot be used.
    /// `Corrupt` if what was flushed cannot be read, or was written by another version of sled. Nothing that could be
    /// recovered was changed then. The torn end of the log, which was never flushed, is overwritten.
    pub fn open(directory: impl AsRef<Path>, options: SledOptions) -> EngineResult<Self> {
        crate::clock::check()?;
        let directory = directory.as_ref();
        let place = directory.display().to_string();
        let io = |e: io::Error| EngineError::io(&*place, e);
        let config = |directory: &Path| {
            sled::Config::new()
                .path(directory)
                .cache_capacity(options.cache_bytes)
                .segment_size(SEGMENT_BYTES)
                .mode(sled::Mode::HighThroughput)
                .flush_every_ms(None)
        };
        if draft::is_new(directory).map_err(io)? {
            // sled writes its `conf` without a sync, and half a `conf` can never be opened.
            let made = draft::begin(directory, options.private).map_err(io)?;
            let db = lifetime::open(&config(&made), &place)?;
            // What it cannot make durable is synced again, with an error to look at, when the draft is finished.
            lifetime::close(db, &lifetime::Ending::Plain, &made);
            draft::finish(&made, directory, options.private).map_err(io)?;
        }
        let directory = directory.canonicalize().map_err(io)?;
        let config = config(&directory);
        let mark = synced::read::<Synced>(&directory).map_err(io)?.map(|(_, synced)| synced.up_to);
        let mut opening = Opening::prepare(&directory, &place, SEGMENT_BYTES, Whose::Ours(mark))?;
        let db = opening.open(&config)?;
        let fence = Arc::new(Fence::new(config));
        if let Err(e) = Commits::recover(&fence, &db) {
            return Err(opening.fail(db, &fence, e));
        }
        let start = || -> EngineResult<_> {
            opening.done().map_err(io)?;
            let files = Files::open(&directory).map_err(io)?;
            let owner = Owner::of(&directory, "db").map_err(io)?;
            let pace = Arc::new(Pace::new(db.clone(), Arc::clone(&fence), files, owner));
            // Recovery has written: none of it may wait for a later sync.
            pace.sync()?;
            let syncing = pace.start().map_err(io)?;
            Ok((pace, syncing))
        };
        let (pace, syncing) = match start() {
            Ok(started) => started,
            Err(e) => {
                // sled panics where it cannot sync when it is dropped.
                lifetime::close(db, &fence.ending(), &directory);
                return Err(e);
            }
        };
        let shared = Shared {
            db: Some(db),
            fence,
            commits: Commits::new(),
            pace: Some(pace),
            syncing: Some(syncing),
            directory,
            dropped: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// Limits and abilities.
const CAPABILITIES: Capabilities = Capabilities {
    key_bytes_max: KEY_BYTES_MAX,
    value_bytes_max: VALUE_BYTES_MAX,
    // Values of twice the length would need pages that sled puts into files which it never syncs.
    record_bytes_max: VALUE_BYTES_MAX,
    commit_writes_max: COMMIT_WRITES_MAX,
    commit_bytes_max: COMMIT_BYTES_MAX,
    trees_max: usize::MAX,
    snapshots: false,
    durable: true,
    drops_at_once: false,
};

/// What a write counts for, if it is within the limits.
#[inline]
fn size_of_write(key: &[u8], value: Option<&[u8]>) -> EngineResult<usize> {
    arguments::check_write(&CAPABILITIES, key, value)?;
    Ok(key.len() + value.map_or(0, <[u8]>::len) + pace::RECORD_OVERHEAD)
}

impl SledTree {
    #[inline]
    fn call<T>(&self, access: Access, call: impl FnOnce(&sled::Tree) -> sled::Result<T>) -> EngineResult<T> {
        self.shared.fence.call(access, &self.name, || call(&self.tree))
    }
}

impl Tree for SledTree {
    #[inline]
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        if !arguments::may_hold(KEY_BYTES_MAX, key) {
            return Ok(None);
        }
        let stripes = &self.shared.commits.stripes;
        let before = stripes.before_read();
        let mut found = self.call(Access::Read, |tree| tree.get(key))?;
        if !stripes.was_quiet(before) {
            let _no_commit_of_this_key = stripes.hold_one(self.number, key);
            found = self.call(Access::Read, |tree| tree.get(key))?;
        }
        Ok(found.map(Value::from_sled))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()> {
        self.shared.admit(size_of_write(key, Some(value))?)?;
        let _held = self.shared.commits.stripes.hold_one(self.number, key);
        self.call(Access::Write, |tree| tree.insert(key, value).map(drop))
    }

    fn delete(&self, key: &[u8]) -> EngineResult<()> {
        self.shared.admit(size_of_write(key, None)?)?;
        let _held = self.shared.commits.stripes.hold_one(self.number, key);
        self.call(Access::Write, |tree| tree.remove(key).map(drop))
    }

    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool> {
        self.shared.admit(size_of_write(key, new)?)?;
        let _held = self.shared.commits.stripes.hold_one(self.number, key);
        self.call(Access::Write, |tree| Ok(tree.compare_and_swap(key, old, new)?.is_ok()))
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        let Some(range) = arguments::range(KEY_BYTES_MAX, range) else {
            return Ok(true);
        };
        let start = page.len();
        let scanned = self.call(Access::Read, |tree| {
            let mut found = tree.range::<&[u8], _>(range);
            for _ in 0..limit {
                let Some(record) = (if reverse { found.next_back() } else { found.next() }) else {
                    return Ok(true);
                };
                let (key, value) = record?;
                page.push((Value::from_sled(key), Value::from_sled(value)));
            }
            Ok(false)
        });
        if scanned.is_err() {
            page.truncate(start);
        }
        scanned
    }
}

impl Shared {
    /// To be called before sled is asked to write.
    #[inline]
    fn admit(&self, bytes: usize) -> EngineResult<()> {
        self.pace()?.admit(bytes)
    }

    #[inline]
    fn pace(&self) -> EngineResult<&Pace> {
        let closed = || EngineError::new(EngineErrorKind::Poisoned, "the engine is closed");
        self.pace.as_deref().ok_or_else(closed)
    }

    fn db(&self) -> sled::Result<&sled::Db> {
        self.db.as_ref().ok_or_else(|| sled::Error::Unsupported("the engine is closed".to_owned()))
    }

    fn tree(&self, name: &str) -> EngineResult<sled::Tree> {
        arguments::check_name(name)?;
        if name == DEFAULT_TREE {
            let message = format!("the tree name \"{name}\" is the engine's own; choose another");
            return Err(EngineError::new(EngineErrorKind::Limit, message));
        }
        if self.fence.check(Access::Write).is_ok() {
            return self.fence.call(Access::Write, name, || self.db()?.open_tree(name));
        }
        // A new tree would be a write, but one that is there can be had after writes have stopped.
        self.fence.call(Access::Read, name, || {
            let db = self.db()?;
            if !db.tree_names().iter().any(|known| &**known == name.as_bytes()) {
                return Err(sled::Error::Unsupported(
                    "the tree is not there, and writes have stopped".to_owned(),
                ));
            }
            db.open_tree(name)
        })
    }
}

/// The trees of a commit, by name: mostly the same one again.
struct LastTree<'c> {
    shared: &'c Shared,
    last: Option<(&'c str, sled::Tree)>,
}

impl<'c> LastTree<'c> {
    fn get(&mut self, name: &'c str) -> EngineResult<sled::Tree> {
        match &self.last {
            Some((last, tree)) if *last == name => Ok(tree.clone()),
            _ => {
                let tree = self.shared.tree(name)?;
                self.last = Some((name, tree.clone()));
                Ok(tree)
            }
        }
    }
}

impl Engine for SledEngine {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        let tree = self.shared.tree(name)?;
        let number = commit::number(name);
        Ok(Arc::new(SledTree { tree, name: name.to_owned(), number, shared: self.shared.clone() }))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        let names = self.shared.fence.call(Access::Read, "", || Ok(self.shared.db()?.tree_names()))?;
        let names = names.iter().map(|name| String::from_utf8_lossy(name).into_owned());
        Ok(names.filter(|name| name != DEFAULT_TREE).collect())
    }

    /// Cost: a visit to every page, during which other operations stall (half a second for a million records), and
    /// no disk space comes back at once. Empty a large tree in paced steps first.
    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        let shared = &self.shared;
        shared.fence.call(Access::Write, name, || {
            let db = shared.db()?;
            if !db.tree_names().iter().any(|known| &**known == name.as_bytes()) {
                return Ok(());
            }
            shared.dropped.lock().push(db.open_tree(name)?);
            db.drop_tree(name).map(drop)
        })
    }

    /// One write without a check, or with a check of the same key, costs what the single-key call does. Anything
    /// else costs its lookups, its writes, and two writes more; nobody waits for it but who writes one of its keys.
    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        let bytes = arguments::check_writes(&CAPABILITIES, writes)?;
        let Some(checks) = arguments::checks(KEY_BYTES_MAX, checks)? else {
            return Ok(Outcome::Conflict);
        };
        let one = |name: &str| Engine::tree(self, name);
        let swapped = match (&*checks, writes) {
            ([], []) => true,
            ([], [write]) => {
                let tree = one(&write.tree)?;
                match &write.value {
                    Some(value) => tree.put(&write.key, value)?,
                    None => tree.delete(&write.key)?,
                }
                true
            }
            ([check], []) => one(&check.tree)?.get(&check.key)?.as_deref() == check.expected.as_deref(),
            ([check], [write]) if check.tree == write.tree && check.key == write.key => one(&write.tree)?
                .compare_and_swap(&write.key, check.expected.as_deref(), write.value.as_deref())?,
            _ => {
                arguments::limit("bytes of a commit", bytes, COMMIT_BYTES_MAX)?;
                // Once for the record of the commit.
                self.shared.admit(2 * (bytes + writes.len() * pace::RECORD_OVERHEAD))?;
                let shared = &self.shared;
                let mut trees = LastTree { shared, last: None };
                let checks = checks.iter().map(|check| Ok((trees.get(&check.tree)?, check)));
                let checks = checks.collect::<EngineResult<Vec<_>>>()?;
                let writes = writes.iter().map(|write| Ok((trees.get(&write.tree)?, write)));
                let writes = writes.collect::<EngineResult<Vec<_>>>()?;
                let db = shared.fence.call(Access::Read, "", || shared.db())?;
                return shared.commits.commit(&shared.fence, db, &checks, &writes);
            }
        };
        Ok(if swapped { Outcome::Applied } else { Outcome::Conflict })
    }

    /// Durable means: `fdatasync` has returned, for the log and for every blob. Cost: sled's own write of its buffer,
    /// and those.
    fn flush(&self) -> EngineResult<()> {
        self.shared.pace()?.sync()
    }

    fn is_pressed(&self) -> bool {
        self.shared.pace.as_ref().is_some_and(|pace| pace.is_pressed())
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        let files = self.shared.pace()?.files();
        files.bytes().map_err(|e| EngineError::io("size of the files", e))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let ending = self.fence.ending();
        if let Some(pace) = &self.pace {
            pace.stop();
        }
        let syncing = self.syncing.take();
        if matches!(ending, lifetime::Ending::Plain)
            && let Some(syncing) = syncing
        {
            drop(syncing.join());
        }
        if matches!(ending, lifetime::Ending::Plain)
            && let Some(pace) = &self.pace
        {
            // Nobody is there to be told of a failure; sled itself writes what is left.
            let _marked = pace.close();
        }
        let held = (self.pace.take(), self.db.take(), std::mem::take(&mut *self.dropped.lock()));
        lifetime::close(held, &ending, &self.directory);
    }
}
