//! What is looked at before fjall opens a directory, because fjall would open it without a word: without what a missing or
//! damaged file held, which it then cuts off or removes. Nothing is changed here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;

use super::batches::{Depth, Extent};
use super::mark::Mark;
use super::{journal, manifest};
use crate::clock::now_ms;
use crate::engine::{EngineResult, synced};
use crate::error::{EngineError, EngineErrorKind};

/// How often a look that finds a loss begins again: whoever has the directory open changes it meanwhile.
const LOOKS_MAX: usize = 3;

/// What was found, and is there when fjall has opened the directory.
pub(super) struct Found {
    /// What was marked, with what each journal holds.
    pub(super) mark: Mark,
    /// The last sequence numbers of trees in journals that are gone: they have to be in sorted files.
    pub(super) gone: BTreeMap<u64, u64>,
}

/// Checks the directory of a store that was made before. Cost: reads the journals and the lists of files.
pub(super) fn check(directory: &Path, place: &str) -> EngineResult<Found> {
    check_count(directory, place)?;
    manifest::check(directory, place)?;
    let mut looks = 0;
    loop {
        let looked = look(directory).map_err(|e| EngineError::io(place, e))?;
        looks += 1;
        match looked {
            Ok(found) => return Ok(found),
            Err((loss, true)) if looks == LOOKS_MAX => return Err(synced::lost(directory, place, &loss)),
            Err((loss, false)) if looks == LOOKS_MAX => {
                let message = format!("{place}: {loss}; restore the store from a copy, or salvage it");
                return Err(EngineError::new(EngineErrorKind::Corrupt, message));
            }
            Err(_) => {}
        }
    }
}

/// An open of so many trees could wait for ever.
fn check_count(directory: &Path, place: &str) -> EngineResult<()> {
    let trees = match directory.join("keyspaces").read_dir() {
        Ok(trees) => trees.count(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(e) => return Err(EngineError::io(place, e)),
    };
    if trees <= super::QUEUE_PLACES {
        return Ok(());
    }
    let message = format!(
        "{place}: {trees} trees are more than fjall can be sure to open: open the store with the release that made them, and \
         drop tables or copy it to another engine"
    );
    Err(EngineError::new(EngineErrorKind::Limit, message))
}

/// A loss comes with whether it is one by the mark only.
fn look(directory: &Path) -> io::Result<Result<Found, (String, bool)>> {
    let unmarked = || Mark { highest: now_ms(), ..Mark::default() };
    let marked = synced::read(directory)?.map_or_else(unmarked, |(_, mark)| mark);
    for tree in [0].iter().chain(&marked.trees) {
        let current = Path::new("keyspaces").join(tree.to_string()).join("current");
        if !directory.join(&current).try_exists()? {
            return Ok(Err((format!("{} is missing", current.display()), *tree != 0)));
        }
    }
    let journals = journal::list(directory)?;
    let mut found = BTreeMap::new();
    for (number, path) in &journals {
        let mut extent = Extent::default();
        let file = File::open(path)?;
        if let Some(synced) = marked.journals.get(number) {
            extent.read_on(&file, Depth::Checksums, synced.bytes)?;
            if (extent.bytes, extent.heads) != (synced.bytes, synced.heads) {
                let (whole, synced) = (extent.bytes, synced.bytes);
                let what = format!("{number}.jnl is damaged: {whole} bytes can be read, of {synced} flushed");
                return Ok(Err((what, true)));
            }
        }
        extent.read_on(&file, Depth::Checksums, u64::MAX)?;
        found.insert(*number, extent);
    }
    let newest = journals.last_key_value().map(|(number, _)| *number);
    let missing = marked.journals.keys().filter(|number| !journals.contains_key(number));
    let missing: BTreeSet<u64> = missing.copied().collect();
    if newest.is_none() || missing.last().copied() > newest {
        // fjall never removes the newest.
        let number = missing.last().map_or("the journal".to_owned(), |number| format!("{number}.jnl"));
        return Ok(Err((format!("{number} is missing"), newest.is_some())));
    }
    let mut gone = BTreeMap::new();
    for (tree, last) in missing.iter().filter_map(|number| marked.journals.get(number)).flat_map(|e| &e.last)
    {
        let known = gone.entry(*tree).or_insert(0);
        *known = (*known).max(*last);
    }
    Ok(Ok(Found { mark: Mark { journals: found, ..marked }, gone }))
}
