//! fjall's own database: how it is opened.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fjall::{Database, KeyspaceCreateOptions};

use super::EngineResult;
use super::FjallOptions;
use super::fence::{self, Access, Fence};
use super::hidden;
use crate::engine::synced;

/// Threads that write and merge sorted files.
const WORKER_THREADS: usize = 1;

/// Opens what is there, or makes it.
pub(super) fn open(directory: &Path, options: &FjallOptions, place: &str) -> EngineResult<Database> {
    open_with_threads(WORKER_THREADS, directory, options, place)
}

/// Without threads nothing is written out.
fn open_with_threads(
    threads: usize,
    directory: &Path,
    options: &FjallOptions,
    place: &str,
) -> EngineResult<Database> {
    // One syncs.
    crate::engine::threads::check(place, threads + 1)?;
    let open = || {
        hidden::builder(directory, threads)
            .cache_size(options.cache_bytes)
            // Above that its thread would ask itself for memtables to be sealed: point 6.
            .max_journaling_size(u64::MAX)
            .open()
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(e)) => Err(fence::translate(place, e)),
        Err(panic) => Err(fence::from_panic(place, &*panic)),
    }
}

/// Closes it, and waits for its threads. It may panic then.
pub(super) fn close(db: Database) {
    drop(catch_unwind(AssertUnwindSafe(|| drop(db))));
}

/// Checks that fjall removed journals itself, when all they held was in sorted files: `last` says up to where, by tree.
/// With fjall's threads at rest, or they would write to sorted files meanwhile.
pub(super) fn check_sorted_files(
    directory: &Path,
    options: &FjallOptions,
    place: &str,
    last: &BTreeMap<u64, u64>,
) -> EngineResult<()> {
    let db = open_with_threads(0, directory, options, place)?;
    let fence = Fence::new(directory);
    for name in fence.call(Access::Read, "", || Ok(db.list_keyspace_names()))? {
        let keyspace =
            fence.call(Access::Read, &name, || db.keyspace(&name, KeyspaceCreateOptions::default))?;
        let last = last.get(&hidden::number(&keyspace)).copied();
        if last > hidden::last_write_in_files(&keyspace) {
            return Err(synced::lost(directory, place, "a journal is missing"));
        }
    }
    Ok(())
}
