//! Compacting: an engine's files made anew from its live records, in place, while nobody has the store open.
//!
//! 1. What an earlier compaction left is removed (`<engine>.compact`, and the draft of it).
//! 2. The store is copied (see `copy`), verified, into `<engine>.compact`.
//! 3. Both are closed; the copy is opened again, as its program will open it, verified, and made durable with its names.
//! 4. The two directories exchange their names, in one call of the system.
//! 5. The store's directory is made durable; then what is `<engine>.compact` now, the old files, is removed.
//!
//! All of it under the store's lock. Crash points: before 4 the store is as it was; 4 happens whole or not at all; whichever
//! of the two is `<engine>` after a crash is whole, holds every record, and is durable. What is left under the other name
//! is removed at the next open that may write, and again only after the directory is durable: so the names that it goes by
//! are the last ones.

use std::path::Path;
use std::{fs, io};

use crate::copies::inspect::Space;
use crate::engine::own_file;
use crate::engine::sync_all_below;
use crate::error::{Error, Result};
use crate::pace::Budget;
use crate::state::settings::Settings;
use crate::store::directory::{self, Prepared, clear_compaction, made_by_compaction};
use crate::store::handle::Store;
use crate::store::options::Options;

/// Cache of either engine.
const CACHE_BYTES: u64 = 64 << 20;

impl Store {
    /// Makes the files of a store that nobody has open anew, from its live records alone; answers the room that it took
    /// before and takes now.
    ///
    /// For stores of which much was removed or overwritten, above all on sled, which gives space back little by little
    /// only. Every record is read, written and verified. Until it is done the medium holds both, so it needs as much free
    /// room as the live records take. A crash leaves the old files or the new ones, whole. The ledger gets an entry.
    ///
    /// # Errors
    ///
    /// As [`Options::open`], and [`Error::Path`] where the file system cannot exchange two directories (copy the store
    /// then, by [`Store::copy_to`]); a damaged record, named; a full medium. The store is as it was then.
    pub fn compact(path: impl AsRef<Path>) -> Result<(Space, Space)> {
        let prepared = directory::prepare(path.as_ref(), None, false, true)?;
        let Prepared { path, kind, .. } = &prepared;
        let kind = *kind;
        let leftovers = |e| failed(path, "what an earlier compaction left cannot be removed", e);
        clear_compaction(path, kind).map_err(leftovers)?;
        let made = made_by_compaction(path, kind);
        let done = remake(&prepared, &made);
        // The other directory: of no use if this failed, and the old one if it did not.
        match (clear_compaction(path, kind), &done) {
            (Err(e), Ok(_)) => {
                return Err(failed(path, "it is compact, but its old files are still there", e));
            }
            (Err(e), Err(_)) => tracing::warn!(target: "exuvia", error = %e, "remains of a compaction stay"),
            (Ok(()), _) => {}
        }
        drop(prepared);
        done
    }
}

fn failed(path: &Path, reason: &str, source: io::Error) -> Error {
    Error::Path { path: path.to_owned(), reason: reason.to_owned(), source: Some(source) }
}

/// Steps 2 to 4.
fn remake(prepared: &Prepared, made: &Path) -> Result<(Space, Space)> {
    let Prepared { path, kind, .. } = prepared;
    let kind = *kind;
    can_exchange(made).map_err(|e| {
        failed(
            path,
            "its file system cannot exchange two directories, so it is not compacted in place; copy the store to \
             another directory",
            e,
        )
    })?;
    let own = path.join(kind.name());
    let open = |directory: &Path, read_only| {
        let settings = Settings {
            budget: Budget::unlimited(),
            background: false,
            read_only,
            ..Options::default().settings
        };
        let engine = prepared.open_engine(directory, CACHE_BYTES, true)?;
        Store::open_engine(engine, settings, Some(path.clone()), None, false)
    };
    let store = open(&own, false)?;
    let before = store.space()?;
    let private = own_file::is_private(&own);
    let report = store.copy_as("compact", &*prepared.open_engine(made, CACHE_BYTES, private)?)?;
    store.close()?;

    let copy = open(made, true)?;
    let again = copy.verify()?;
    if !again.is_clean() || again.records != report.records {
        let damage = again.damage.first().map_or("records are missing", String::as_str);
        return Err(Error::state("compact", format!("the copy is of no use: {damage}; nothing was changed")));
    }
    let after = copy.space()?;
    copy.close()?;
    sync_all_below(made).map_err(|e| failed(path, "the copy cannot be made durable", e))?;
    exchange(made, &own).map_err(|e| failed(path, "the compact files cannot take their place", e))?;
    Ok((before, after))
}

/// Asks the file system before there is work to lose.
fn can_exchange(made: &Path) -> io::Result<()> {
    let (a, b) = (made.join("a"), made.join("b"));
    fs::create_dir_all(&a)?;
    fs::create_dir_all(&b)?;
    let exchanged = exchange(&a, &b);
    fs::remove_dir_all(made)?;
    exchanged
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn exchange(_a: &Path, _b: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
