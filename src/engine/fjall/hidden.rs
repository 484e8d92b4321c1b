//! All that the engine uses of fjall's hidden interface (`#[doc(hidden)]`), and what for. Nothing of it is promised to
//! stay, so fjall is pinned, and a test fails if another version is resolved (tests/it/engine/pinned.rs).

use std::path::{Path, PathBuf};

use fjall::{AbstractTree, Database, DatabaseBuilder, Keyspace};

/// What is wrong with a sorted file: a failed system call is not damage, and a wrong checksum is.
pub(super) use fjall::LsmError;

/// The builder of a database with so many threads, also with none: then nothing is written out while an open is
/// checked. fjall's own setting has at least one.
pub(super) fn builder(directory: &Path, threads: usize) -> DatabaseBuilder<Database> {
    Database::builder(directory).worker_threads_unchecked(threads)
}

/// The number by which journals and directories name a tree.
pub(super) fn number(keyspace: &Keyspace) -> u64 {
    keyspace.id()
}

/// Begins a new memtable and has the full one written out; without this fjall seals only when it is full by its own
/// count (point 6 of [the engine](super)). Returns whether there was anything in it.
pub(super) fn seal(keyspace: &Keyspace) -> fjall::Result<bool> {
    keyspace.rotate_memtable()
}

/// Memtables that wait to be written out: more of them, and fjall makes writers wait.
pub(super) fn sealed_memtables(keyspace: &Keyspace) -> usize {
    keyspace.sealed_memtable_count()
}

/// Runs that wait to be merged: the same.
pub(super) fn unmerged_runs(keyspace: &Keyspace) -> usize {
    keyspace.tree.l0_run_count()
}

/// Bytes in the memtable that is being filled: after an open it is not empty, and a close writes out a large one.
pub(super) fn memtable_bytes(keyspace: &Keyspace) -> u64 {
    keyspace.tree.active_memtable().size()
}

/// The sequence number of the last write that an open found: less than was synced means a loss.
pub(super) fn last_write(keyspace: &Keyspace) -> Option<u64> {
    keyspace.tree.get_highest_seqno()
}

/// The same of the sorted files alone: a journal may be gone only if all its writes are in them.
pub(super) fn last_write_in_files(keyspace: &Keyspace) -> Option<u64> {
    keyspace.tree.get_highest_persisted_seqno()
}

/// The sorted files and the checksums that fjall noted of them, which it never compares. None is removed while what
/// comes with them is held.
pub(super) fn sorted_files(keyspace: &Keyspace) -> (impl Sized + use<>, Vec<(PathBuf, u128)>) {
    let version = keyspace.tree.current_version();
    let files =
        version.iter_tables().map(|table| (table.path.to_path_buf(), table.checksum().into_u128())).collect();
    (version, files)
}

/// Closes the files of a dropped tree, which fjall removes but would keep open.
pub(super) fn let_go_of_files(keyspace: &Keyspace) -> Result<(), LsmError> {
    keyspace.tree.drop_range::<&[u8], _>(..)
}
