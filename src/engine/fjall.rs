//! The fjall engine.
//!
//! fjall 3 is a log-structured merge tree: a write goes to a journal and to a table in memory, full tables become
//! sorted files, and threads of its own merge those. It is maintained, has snapshots, drops trees cheaply and checks
//! what it reads; its writers may have to wait for its threads. This is where its edges are:
//!
//! 1. It has no compare-and-swap, and single reads can see half of a batch: see [`stripes`](super::stripes).
//! 2. It syncs its journal with all writers locked out: [`journal`] does it beside them.
//! 3. It lets writers wait by tenths of a second when it is behind, and for ever when its threads have failed:
//!    [`Shared::admit`] keeps them from coming to that.
//! 4. A dropped keyspace goes on answering; its new directories are not synced into theirs; keys may not be empty
//!    ([`keys`]), names not be long ([`names`]).
//! 5. It panics on some of what it finds damaged: every call goes through [`Fence::call`]. Where it would not even panic:
//!    [`manifest`] and [`lengths`].
//! 6. Every write to a full memtable asks its threads for a new one. When their queue is full of that, the thread that
//!    is to make it waits for room in the queue, for ever, and the memtable and the journal grow without bound. So
//!    fjall is told that no memtable and no number of journals is ever full; [`Shared::admit`] seals memtables, one message
//!    each, and [`Shared::write_out`] lets journals go. An open of more trees than its queue has places could wait
//!    for ever, so there are no more ([`TREES_MAX`]).
//! 7. At open it takes the first entry of a journal that it cannot parse for the torn end of it, misses no journal, and
//!    removes a tree whose `current` is missing: [`opening`] looks before that, by the [`mark`] of what was synced, and after it.
//! 8. It gives the number of a dropped tree to another one, and may remove that at the next open: [`numbers`].
//!
//! All that this uses of fjall's hidden interface is in [`hidden`]. It also reads files that are private to fjall: journals
//! ([`journal`], [`check`], [`lengths`]), the lists of sorted files ([`manifest`]), the ends of sorted files ([`lengths`]);
//! and it makes directories that fjall counts ([`numbers`]). So fjall is pinned.
//!
//! Settings, for short waits on few cores. fjall puts every new sorted file into a tree's list of files, and syncs that
//! four times, with all readers and writers of the tree locked out: tens of milliseconds each. So there are few of them: memtables
//! of 64 MiB, and a merge when eight runs have come together ([`FjallOptions::RUNS_MERGED`]; docs/performance.md has the waits with less). One
//! thread (it leaves the other core to the caller), no compression (a record is small, and a core is worth more), no separate
//! files for values, as few journals as can be, because all of them are read at open.
//!
//! Locks, outermost first: `naming` → stripes → `trees`.

mod batches;
mod check;
mod close;
mod database;
mod fence;
mod files;
mod hidden;
mod journal;
mod keys;
mod lengths;
#[cfg(test)]
mod limit_tests;
mod manifest;
mod mark;
mod names;
mod numbers;
mod opening;
mod options;
mod tree;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fjall::compaction::Leveled;
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use parking_lot::{Mutex, RwLock};

use self::fence::{Access, Fence};
use self::journal::Journals;
use self::mark::Mark;
use self::opening::Opening;
pub use self::options::FjallOptions;
use self::tree::{FjallSnapshot, FjallTree, Records, Trees};
use super::owner::Owner;
use super::stripes::{Mask, Stripes};
use super::synced::MarkFiles;
use super::{Capabilities, Check, Engine, EngineResult, Outcome, Snapshot, Tree, Write, arguments, draft};
use crate::clock;
use crate::error::{EngineError, EngineErrorKind};

/// Longest key. fjall's own limit is 64 KiB less one; a key is copied into indexes, and held in memory with them.
const KEY_BYTES_MAX: usize = 16 * 1024;
/// Longest value: two forms of a record. fjall's own limit is 4 GiB; one value should be a small part of a memtable.
const VALUE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most writes in a commit: all other writers wait while it is made.
const COMMIT_WRITES_MAX: usize = 16 * 1024;
/// Most bytes of keys and values in a commit, for the same reason.
const COMMIT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Journals from which on a full memtable has all others written out with it, so that journals can go: all of them are
/// read at open. A flush does that from the second on.
const JOURNALS_MAX: usize = 3;
/// Most trees. When it opens, fjall sends its threads a message for each tree that has something to be merged, before it
/// starts them, into a queue with a thousand places.
const TREES_MAX: usize = 900;
const QUEUE_PLACES: usize = 1000;
/// Bytes that a record takes in a memtable besides its key and value, about.
const MEMTABLE_OVERHEAD: usize = 100;
/// Files that fjall has open at once while it makes or drops a tree, and some.
const FILES_OF_A_TREE: usize = 16;
/// How long a writer waits before it looks again whether fjall has caught up.
const CATCH_UP_WAIT: Duration = Duration::from_millis(1);

/// A store in a directory, kept by fjall.
///
/// Reads look in memory, then in sorted files; a write goes to a journal and to memory, survives the death of the
/// process at once, and is durable after [`Engine::flush`]. There are snapshots; a page of a scan that meets a commit is
/// of one moment, any other may see each record at a moment of its own.
///
/// Limits: keys of 16 KiB, records of 1 MiB (values of 2 MiB, for both forms of one), commits of 16384 writes and 16 MiB, 900 trees.
///
/// After a failed write (a full disk) writes answer `Poisoned`, and reads go on. After a panic of fjall's every call
/// does. What was flushed is safe: drop every handle, mend the cause, open again.
#[derive(Clone)]
pub struct FjallEngine {
    shared: Arc<Shared>,
}

struct Shared {
    /// Replaced as a whole, so that a snapshot keeps the trees of its moment.
    trees: RwLock<Arc<Trees>>,
    /// One tree is made or dropped at a time.
    naming: Mutex<()>,
    stripes: Stripes,
    fence: Fence,
    journals: Journals,
    owner: Owner,
    options: FjallOptions,
    /// `None` only in `drop`.
    db: Option<Database>,
}

impl FjallEngine {
    /// Opens the store in `directory`, and creates it (and the directories above it) if it is not there.
    ///
    /// Cost: reads the journals (about what a few memtables hold), a few blocks of every sorted file, and syncs.
    ///
    /// # Errors
    /// `Locked` if another process, or a handle of this one, has it open. `Io` if the path cannot be used.
    /// `Corrupt` if fjall cannot read what it finds, or was written by another version of it, or if something that was
    /// flushed is gone: a file is missing, or a journal is damaged. Nothing was changed then: what fjall changed is put back.
    /// The torn end of a journal, which was never flushed, is cut off.
    pub fn open(directory: impl AsRef<Path>, options: FjallOptions) -> EngineResult<Self> {
        clock::check()?;
        let directory = directory.as_ref();
        let place = directory.display().to_string();
        let io = |e: io::Error| EngineError::io(&*place, e);
        if draft::is_new(directory).map_err(io)? {
            let made = draft::begin(directory, options.private).map_err(io)?;
            drop(database::open(&made, &options, &place)?);
            MarkFiles::open(&made).and_then(|mut files| files.write(&Mark::default())).map_err(io)?;
            draft::finish(&made, directory, options.private).map_err(io)?;
        } else if !directory.join("version").try_exists().map_err(io)? {
            // fjall would make a new store here.
            let message = format!("{place}: no store of fjall's: its version file is missing");
            return Err(EngineError::new(EngineErrorKind::Corrupt, message));
        }
        let directory = directory.canonicalize().map_err(io)?;
        let (db, found) = Opening::prepare(&directory, &place, &options)?.open()?;
        let shared = Shared {
            trees: RwLock::default(),
            naming: Mutex::default(),
            stripes: Stripes::new(),
            fence: Fence::new(&directory),
            journals: Journals::open(&directory, found.mark).map_err(io)?,
            owner: Owner::of(&directory, "lock").map_err(io)?,
            options,
            db: Some(db),
        };
        let trees = shared.found_trees()?;
        trees.values().for_each(|records| shared.journals.made(records.number()));
        *shared.trees.write() = Arc::new(trees);
        // Recovery may have cut a journal: that must not wait for a later sync.
        shared.sync()?;
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// Limits and abilities.
const CAPABILITIES: Capabilities = Capabilities {
    key_bytes_max: KEY_BYTES_MAX,
    value_bytes_max: VALUE_BYTES_MAX,
    record_bytes_max: VALUE_BYTES_MAX / 2,
    commit_writes_max: COMMIT_WRITES_MAX,
    commit_bytes_max: COMMIT_BYTES_MAX,
    trees_max: TREES_MAX,
    snapshots: true,
    durable: true,
    drops_at_once: true,
};

impl Shared {
    fn db(&self) -> EngineResult<&Database> {
        let closed = || EngineError::new(EngineErrorKind::Poisoned, "the engine is closed");
        self.db.as_ref().ok_or_else(closed)
    }

    fn keyspace(&self, stored: &str) -> EngineResult<fjall::Keyspace> {
        let db = self.db()?;
        let merges = || Arc::new(Leveled::default().with_l0_threshold(FjallOptions::RUNS_MERGED));
        let options =
            || KeyspaceCreateOptions::default().max_memtable_size(u64::MAX).compaction_strategy(merges());
        self.fence.call(Access::Write, stored, || db.keyspace(stored, options))
    }

    /// The trees that are there at open.
    fn found_trees(&self) -> EngineResult<Trees> {
        let db = self.db()?;
        let stored = self.fence.call(Access::Read, "", || Ok(db.list_keyspace_names()))?;
        let mut trees = HashMap::new();
        for stored in stored.iter().filter(|stored| ***stored != *names::LONG_NAMES) {
            let keyspace = self.keyspace(stored)?;
            let name = if names::is_hash(stored) { self.long_name(stored)? } else { (**stored).to_owned() };
            trees.insert(name.clone(), Arc::new(Records::new(name, keyspace)));
        }
        Ok(trees)
    }

    fn long_name(&self, stored: &str) -> EngineResult<String> {
        let names = self.keyspace(names::LONG_NAMES)?;
        let found = self.fence.call(Access::Read, names::LONG_NAMES, || names.get(stored))?;
        let name = found.and_then(|name| String::from_utf8(name.to_vec()).ok());
        let lost = || format!("the name of the tree \"{stored}\" is lost; restore the store from a copy");
        name.ok_or_else(|| EngineError::new(EngineErrorKind::Corrupt, lost()))
    }

    /// The tree of this name, made if need be: durably, before anything can be written to it.
    fn records(&self, name: &str) -> EngineResult<Arc<Records>> {
        if let Some(records) = self.trees.read().get(name) {
            return Ok(Arc::clone(records));
        }
        arguments::check_name(name)?;
        let _one_at_a_time = self.naming.lock();
        if let Some(records) = self.trees.read().get(name) {
            return Ok(Arc::clone(records));
        }
        self.owned()?;
        let trees = self.trees.read().len();
        if trees >= self.options.trees_max {
            let message = format!(
                "{trees} trees are the most on fjall (a table has one, a second while it migrates, and one for a \
                 quarantine): drop tables, or copy the store to another engine; nothing was changed"
            );
            return Err(EngineError::new(EngineErrorKind::Limit, message));
        }
        self.spare_files()?;
        let stored = names::stored(name);
        if names::is_hash(&stored) {
            let names = self.keyspace(names::LONG_NAMES)?;
            self.fence.call(Access::Write, names::LONG_NAMES, || names.insert(&*stored, name))?;
            self.synced_keyspaces()?;
            self.sync()?;
        }
        let keyspace = self.keyspace(&stored)?;
        self.synced_keyspaces()?;
        self.journals.made(hidden::number(&keyspace));
        let records = Arc::new(Records::new(name.to_owned(), keyspace));
        let mut trees = self.trees.write();
        let mut more = Trees::clone(&trees);
        more.insert(name.to_owned(), Arc::clone(&records));
        *trees = Arc::new(more);
        Ok(records)
    }

    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        let one_at_a_time = self.naming.lock();
        self.owned()?;
        self.spare_files()?;
        let records = {
            let _no_write_is_half_way = self.stripes.hold(Mask::ALL);
            let mut trees = self.trees.write();
            let mut fewer = Trees::clone(&trees);
            let Some(records) = fewer.remove(name) else {
                return Ok(());
            };
            records.set_dropped();
            *trees = Arc::new(fewer);
            records
        };
        self.journals.unmake(records.number()).map_err(|e| self.unsynced(e))?;
        let db = self.db()?;
        self.fence.call(Access::Write, name, || db.delete_keyspace(records.keyspace.clone()))?;
        drop(one_at_a_time);
        // fjall removes the files with the last handle, but keeps those open that it had open, and with them their disk
        // space, until 900 others were; unless each table has been dropped by itself.
        self.fence.call(Access::Read, name, || {
            if let Err(e) = hidden::let_go_of_files(&records.keyspace) {
                tracing::warn!(target: "exuvia", tree = name, error = %e, "files of a dropped tree stay open");
            }
            Ok(())
        })
    }

    /// Before fjall makes or drops a tree, for which it opens files: where it cannot it stops all writers, and does not say
    /// what it has done so far.
    fn spare_files(&self) -> EngineResult<()> {
        let opened: io::Result<Vec<File>> =
            (0..FILES_OF_A_TREE).map(|_| File::open(self.fence.directory())).collect();
        opened.map(drop).map_err(|e| {
            let message = "no tree is made or dropped without a few spare files, and nothing was changed (where too many are \
                           open, raise the limit or close some, and try again)";
            EngineError::io(message, e)
        })
    }

    fn synced_keyspaces(&self) -> EngineResult<()> {
        self.journals.sync_keyspaces().map_err(|e| self.unsynced(e))
    }

    fn sync(&self) -> EngineResult<()> {
        if self.sync_journal()? {
            self.write_out(2)?;
        }
        Ok(())
    }

    /// Answers whether fjall has begun a journal since the last sync.
    fn sync_journal(&self) -> EngineResult<bool> {
        self.owned()?;
        let db = self.db()?;
        self.fence.call(Access::Write, "", || db.persist(PersistMode::Buffer))?;
        self.journals.sync().map_err(|e| self.unsynced(e))
    }

    /// Before fjall is asked for what makes, replaces or removes files: they are to be ours. fjall's threads do that without
    /// being asked, too, soon after a memtable was sealed; for that moment nobody answers.
    fn owned(&self) -> EngineResult<()> {
        self.fence.check(Access::Write)?;
        self.owner.check().inspect_err(|e| self.fence.stop(Access::Write, &e.to_string()))
    }

    /// Lets every tree write its memtable out, so that full journals can go: a tree that is seldom written to would keep
    /// them, and an open reads them all. A tree with nothing in memory does nothing. Waits where fjall's queue is full; its
    /// thread does not, as it sends itself nothing that it would wait for.
    fn write_out(&self, journals: usize) -> EngineResult<()> {
        let db = self.db()?;
        let trees = Arc::clone(&self.trees.read());
        if self.fence.call(Access::Read, "", || Ok(db.journal_count()))? < journals {
            return Ok(());
        }
        for records in trees.values() {
            self.fence.call(Access::Write, &records.name, || hidden::seal(&records.keyspace))?;
        }
        Ok(())
    }

    /// The kernel reports a failed write-back once and forgets the pages: a second try would answer "durable" for data
    /// that is gone. So there is none.
    fn unsynced(&self, error: io::Error) -> EngineError {
        let error = EngineError::io("flush", error);
        self.fence.stop(Access::Read, &error.to_string());
        error
    }

    /// To be called before fjall is asked to write so many bytes, with no lock held: waits while it is behind, and
    /// has a full memtable written out.
    #[inline]
    fn admit(&self, records: &Records, key: &[u8], value: Option<&[u8]>) -> EngineResult<()> {
        if self.fence.call(Access::Write, &records.name, || Ok(records.is_behind()))? {
            self.catch_up(records)?;
        }
        let bytes = key.len() + value.map_or(0, <[u8]>::len) + MEMTABLE_OVERHEAD;
        if records.fill(bytes as u64, self.options.memtable_bytes) {
            return self.seal(records);
        }
        Ok(())
    }

    /// Begins a new memtable; fjall's threads write the full one out.
    #[cold]
    fn seal(&self, records: &Records) -> EngineResult<()> {
        records.check()?;
        self.owned()?;
        self.fence.call(Access::Write, &records.name, || hidden::seal(&records.keyspace))?;
        self.write_out(JOURNALS_MAX)
    }

    #[cold]
    fn catch_up(&self, records: &Records) -> EngineResult<()> {
        let db = self.db()?;
        while self.fence.call(Access::Write, &records.name, || Ok(records.is_behind()))? {
            std::thread::sleep(CATCH_UP_WAIT);
            // Says so if the threads that are waited for have failed.
            self.fence.call(Access::Write, "", || db.persist(PersistMode::Buffer))?;
            records.check()?;
        }
        Ok(())
    }

    /// A moment at which no write is half-way, and the trees that there are.
    fn moment(&self) -> EngineResult<(fjall::Snapshot, Arc<Trees>)> {
        let db = self.db()?;
        let _no_write_is_half_way = self.stripes.hold(Mask::ALL);
        let snapshot = self.fence.call(Access::Read, "", || Ok(db.snapshot()))?;
        Ok((snapshot, Arc::clone(&self.trees.read())))
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        let of = |tree: &str, key: &[u8]| Ok((self.records(tree)?, keys::stored(key).into_owned()));
        let checks = checks.iter().map(|check| Ok((of(&check.tree, &check.key)?, check.expected.as_deref())));
        let checks = checks.collect::<EngineResult<Vec<_>>>()?;
        let writes = writes.iter().map(|write| Ok((of(&write.tree, &write.key)?, write.value.as_deref())));
        let writes = writes.collect::<EngineResult<Vec<_>>>()?;
        for ((records, key), value) in &writes {
            self.admit(records, key, *value)?;
        }

        let mut mask = Mask::default();
        for ((records, key), _) in checks.iter().chain(&writes) {
            mask = mask.and(Mask::of(records.number(), key));
        }
        let _held = self.stripes.hold(mask);
        for ((records, key), expected) in &checks {
            records.check()?;
            if records.find(&self.fence, key)?.as_deref() != *expected {
                return Ok(Outcome::Conflict);
            }
        }
        match writes.as_slice() {
            [] => {}
            [((records, key), value)] => records.write(&self.fence, key, *value)?,
            writes => {
                let mut batch = self.db()?.batch();
                for ((records, key), value) in writes {
                    records.check()?;
                    match value {
                        Some(value) => batch.insert(&records.keyspace, key.as_slice(), *value),
                        None => batch.remove(&records.keyspace, key.as_slice()),
                    }
                }
                let _some_may_be_visible = self.stripes.apply();
                self.fence.call(Access::Write, "", || batch.commit())?;
            }
        }
        Ok(Outcome::Applied)
    }
}

impl Engine for FjallEngine {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        let records = self.shared.records(name)?;
        Ok(Arc::new(FjallTree { records, shared: Arc::clone(&self.shared) }))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        Ok(self.shared.trees.read().keys().cloned().collect())
    }

    /// Cost: some syncs; the files go when the last handle and the last snapshot of the tree do.
    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        self.shared.drop_tree(name)
    }

    /// Cost: that of a batch. Other writers wait while it is made, readers of its keys too.
    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        let bytes = arguments::check_writes(&CAPABILITIES, writes)?;
        arguments::limit("bytes of a commit", bytes, COMMIT_BYTES_MAX)?;
        match arguments::checks(KEY_BYTES_MAX, checks)? {
            Some(checks) => self.shared.commit(&checks, writes),
            None => Ok(Outcome::Conflict),
        }
    }

    /// Durable means: `fdatasync` has returned for the journal. Writers do not wait for it.
    fn flush(&self) -> EngineResult<()> {
        self.shared.sync()
    }

    fn is_pressed(&self) -> bool {
        self.shared.journals.is_syncing()
            || self.shared.db.as_ref().is_some_and(|db| db.outstanding_flushes() > 0)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { trees_max: self.shared.options.trees_max, ..CAPABILITIES }
    }

    fn snapshot(&self) -> EngineResult<Option<Arc<dyn Snapshot>>> {
        Ok(Some(Arc::new(FjallSnapshot::new(&self.shared)?)))
    }

    /// Reads every sorted file: their blocks have checksums, but a lookup reads blocks that no scan does.
    fn check_files(&self) -> EngineResult<Vec<String>> {
        files::check(&self.shared)
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        let trees = Arc::clone(&self.shared.trees.read());
        let files = self.shared.fence.call(Access::Read, "", || {
            Ok(trees.values().map(|records| records.keyspace.disk_space()).sum::<u64>())
        })?;
        let journals = self.shared.journals.bytes();
        Ok(files + journals.map_err(|e| EngineError::io("size of the journals", e))?)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(e) = self.write_out_at_close() {
            tracing::debug!(target: "exuvia", error = %e, "memtables stay in the journal");
        }
        // Nobody is there to be told of a failure. fjall waits for its threads, and syncs the journal.
        let _marked = self.sync_journal();
        let held = (self.db.take(), std::mem::take(&mut *self.trees.write()));
        drop(catch_unwind(AssertUnwindSafe(|| drop(held))));
        if let Err(e) = self.journals.close() {
            tracing::warn!(target: "exuvia", error = %e, "the mark of what was synced cannot be synced");
        }
    }
}
