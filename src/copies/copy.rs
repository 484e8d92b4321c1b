//! Copying a store to another place or engine while it is in use, verified.
//!
//! The copy is what a crash at one moment would have left, had everything before it been durable (so it opens as after
//! a crash: open migrations go on with both their generations):
//!
//! 1. Under the catalog's mutex the moment is taken: a snapshot of the engine, or, where it has none, a freeze
//!    ([`crate::engine::Freezing`]) with the gate held exclusively, so that no write is in flight.
//! 2. Every tree that the catalog of that moment names is copied record by record. Each envelope's checksum is looked at.
//!    The sweep drops nothing meanwhile.
//! 3. Flush. Then the catalog is written, with the new engine's name and a ledger entry of the copy, and flushed.
//! 4. The destination is verified as a store, and every tree's number of records and digest are compared.
//! 5. A directory gets its mark.
//!
//! A crash before 5 leaves a directory that says that it was being made (`EXUVIA.new`); the next copy to it starts anew. The
//! source is never changed.

use std::collections::BTreeSet;
#[cfg(any(feature = "sled", feature = "fjall"))]
use std::path::Path;
use std::sync::Arc;

use crate::clock::now_ms;
use crate::copies::inspect::{self, Report};
#[cfg(any(feature = "sled", feature = "fjall"))]
use crate::engine::EngineKind;
use crate::engine::{Engine, Page, Snapshot, Tree};
use crate::error::{Error, Result};
use crate::form::envelope;
use crate::migration::Called;
use crate::migration::core::{Core, Hold};
use crate::pace::Paced;
use crate::state::catalog::{self, Catalog, quarantine_tree, room};
use crate::state::ledger::{self, Event};
#[cfg(any(feature = "sled", feature = "fjall"))]
use crate::store::directory;
use crate::store::handle::Store;
use crate::sync::Instant;
use crate::sync::atomic::Ordering;

const PAGE_RECORDS: usize = 64;
#[cfg(any(feature = "sled", feature = "fjall"))]
/// Cache of the destination while it is written.
const CACHE_BYTES: u64 = 64 << 20;

impl Store {
    /// Copies the whole store, as it is at one moment, to a new directory and perhaps another engine, while it is in
    /// use; verifies the copy, and answers what was verified.
    ///
    /// Paced by the store's budget, as a backfill. On an engine without snapshots the old values of what is overwritten
    /// before the copy comes to it are held in memory, 256 MiB at most: more end the copy, and never a writer. Migrations
    /// that are open are copied as they are.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if the directory is not new or empty; a damaged record, named; another copy that runs; an engine's
    /// `Limit` if too much was overwritten meanwhile (copy when less is written, or with a larger budget); a failing
    /// engine. The directory is no store then, and may be copied to again.
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub fn copy_to(&self, path: impl AsRef<Path>, engine: EngineKind) -> Result<Report> {
        let path = path.as_ref();
        let fail = |reason: &str, source| {
            Err(Error::Path { path: path.to_owned(), reason: reason.to_owned(), source })
        };
        let private = self.core().shared.settings.private;
        let prepared = directory::prepare(path, Some(engine), true, private)?;
        let path = &*prepared.path;
        if !prepared.new {
            return fail("is a store already; name a new directory for the copy", None);
        }
        // What a copy that died has left.
        let files = path.join(engine.name());
        match std::fs::remove_dir_all(&files) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return fail("holds the remains of another copy, which cannot be removed", Some(e));
            }
            _ => {}
        }
        let report = self.copy_in(&*prepared.open_engine(&files, CACHE_BYTES, private)?)?;
        if let Err(e) = directory::finish(path) {
            return fail("the copy was made, and cannot be marked as a store", Some(e));
        }
        drop(prepared);
        Ok(report)
    }

    /// As `copy_to`, into an engine that was made elsewhere and is empty.
    ///
    /// # Errors
    ///
    /// As `copy_to`.
    pub fn copy_in(&self, destination: &dyn Engine) -> Result<Report> {
        self.copy_as("copy", destination)
    }

    /// `what`: the ledger's word for it.
    pub(crate) fn copy_as(&self, what: &'static str, destination: &dyn Engine) -> Result<Report> {
        let (core, started) = (self.core(), Instant::now());
        core.shared.check_usable()?;
        if !destination.trees()?.is_empty() {
            return Err(Error::state("copy", "the engine to copy to is not empty"));
        }
        let copying = Copying::begin(core)?;
        room::check_copy(&destination.capabilities(), &copying.catalog)?;
        let mut copied = Vec::new();
        let mut paced = Called::paced(&core.shared, core.shared.settings.budget);
        for tree in copying.trees() {
            copied.push(copying.copy(&tree, destination, &mut paced)?);
        }
        let mut catalog = copying.catalog.clone();
        drop(copying);
        destination.flush()?;
        catalog.engine = destination.name().to_owned();
        catalog.revision += 1;
        let records =
            copied.iter().filter(|copied| is_records(&copied.tree)).map(|copied| copied.records).sum();
        let event = Event::new(what, core.shared.engine.name()).count("records", records);
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        ledger::append(&mut catalog, event, now_ms(), duration_us)?;
        for found in &copied {
            let (records, digest) = digest_of(destination, &found.tree)?;
            if (records, digest) != (found.records, found.digest) {
                let reason = format!(
                    "tree {}: {} records were copied, and {records} that differ are there; the copy is of no use",
                    found.tree, found.records
                );
                return Err(Error::state("copy", reason));
            }
        }
        destination.tree(catalog::TREE)?.put(catalog::KEY, &catalog.to_bytes()?)?;
        ledger::copy_out(destination, &catalog)?;
        destination.flush()?;
        let report = inspect::verify(destination, &|| catalog.clone())?;
        match report.damage.first() {
            None => Ok(report),
            Some(damage) => Err(Error::state("copy", format!("the copy is damaged: {damage}"))),
        }
    }
}

/// The moment that is copied; let go when dropped.
struct Copying<'a> {
    core: &'a Arc<Core>,
    catalog: Catalog,
    /// `None`: the engine is frozen.
    snapshot: Option<Arc<dyn Snapshot>>,
    /// What was there before the moment, or after it: a tree is made when it is asked for.
    there: BTreeSet<String>,
    /// Let go last: what died meanwhile is swept then.
    _hold: Hold,
}

/// One tree, as it was read.
struct Copied {
    tree: String,
    records: u64,
    digest: u128,
}

/// What is copied of a catalog: everything that it names.
fn named(catalog: &Catalog) -> Vec<String> {
    let mut trees = vec![ledger::TREE.to_owned(), catalog::TREE.to_owned()];
    for (name, table) in &catalog.tables {
        trees.push(quarantine_tree(name));
        trees.extend(table.generations.iter().map(|generation| table.tree(generation)));
    }
    trees
}

fn is_records(tree: &str) -> bool {
    tree != ledger::TREE && tree != catalog::TREE && !tree.starts_with("quarantine/")
}

/// A sum, so that it does not depend on the order.
fn digest(sum: u128, key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    let mut half = [0; 16];
    hasher.finalize_xof().fill(&mut half);
    sum.wrapping_add(u128::from_le_bytes(half))
}

fn digest_of(engine: &dyn Engine, tree: &str) -> Result<(u64, u128)> {
    let (mut records, mut sum) = (0, 0);
    crate::engine::each(engine, tree, |key, value| {
        records += 1;
        sum = digest(sum, key, &value);
        Ok(())
    })?;
    Ok((records, sum))
}

impl<'a> Copying<'a> {
    fn begin(core: &'a Arc<Core>) -> Result<Self> {
        if core.copying.swap(true, Ordering::SeqCst) {
            return Err(Error::state("copy", "another copy of this store runs; wait for it"));
        }
        // From here on dropping it ends the copy.
        let (catalog, there) = (Catalog::new(""), BTreeSet::new());
        let mut copying = Self { core, catalog, snapshot: None, there, _hold: core.hold() };
        // A sweep that is at work drops what it has begun with.
        core.stop_sweeper();
        copying.there.extend(core.shared.engine.trees()?);
        copying.catalog = core.with_catalog(|catalog| -> Result<Catalog> {
            match &core.shared.freezing {
                Some(freezing) => {
                    let trees = named(catalog);
                    core.shared.gate.exclusive(|| freezing.freeze(trees));
                }
                None => copying.snapshot = core.shared.engine.snapshot()?,
            }
            Ok(catalog.clone())
        })?;
        copying.there.extend(core.shared.engine.trees()?);
        core.start_sweeper();
        Ok(copying)
    }

    /// What is copied: all that the catalog names, but for a quarantine that was never needed.
    fn trees(&self) -> impl Iterator<Item = String> {
        named(&self.catalog).into_iter().filter(|tree| is_records(tree) || self.there.contains(tree))
    }

    fn page(&self, tree: &str, after: Option<&[u8]>, page: &mut Page) -> crate::engine::EngineResult<bool> {
        use std::ops::Bound;
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        match (&self.snapshot, &self.core.shared.freezing) {
            (Some(snapshot), _) => snapshot.scan(tree, (lower, Bound::Unbounded), false, PAGE_RECORDS, page),
            (None, Some(freezing)) => freezing.page(tree, PAGE_RECORDS, page),
            (None, None) => Err(crate::error::EngineError::new(
                crate::error::EngineErrorKind::Io,
                "the engine says that it has snapshots, and gave none",
            )),
        }
    }

    fn copy(&self, name: &str, destination: &dyn Engine, paced: &mut Paced<Called>) -> Result<Copied> {
        let limits = destination.capabilities();
        let tree: Arc<dyn Tree> = destination.tree(name)?;
        let mut copied = Copied { tree: name.to_owned(), records: 0, digest: 0 };
        let mut after: Option<Vec<u8>> = None;
        loop {
            self.core.shared.check_usable()?;
            let mut page = Page::new();
            let end = paced.call(|| self.page(name, after.as_deref(), &mut page))?;
            for (key, value) in &page {
                if name == catalog::TREE && **key == *catalog::KEY {
                    continue;
                }
                if is_records(name) {
                    envelope::parse(key, value).map_err(|damage| Error::corrupt(name, key, damage.0))?;
                }
                for (what, size, limit) in [
                    ("a key", key.len(), limits.key_bytes_max),
                    ("a record (all its forms together)", value.len(), limits.value_bytes_max),
                ] {
                    if size > limit {
                        return Err(Error::Limit { what, size, limit });
                    }
                }
                paced.call(|| tree.put(key, value))?;
                copied.records += 1;
                copied.digest = digest(copied.digest, key, value);
            }
            if let Some((key, _)) = page.last() {
                after = Some(key.to_vec());
            }
            if end {
                return Ok(copied);
            }
        }
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        if let Some(freezing) = &self.core.shared.freezing {
            freezing.thaw();
        }
        self.core.copying.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
