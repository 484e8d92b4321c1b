//! The list of each tree's sorted files: fjall writes a checksum of it and does not look at it when it opens. A damaged
//! count in it ends the process, in an allocation that nobody can catch. So it is checked here before that.
//!
//! `keyspaces/<n>/current` names the list: number (8 bytes, little endian), XXH3-128 of the file (16), kind of checksum (1,
//! always 0). The list is `v<number>` beside it.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::error::{EngineError, EngineErrorKind};

/// How often a list that does not fit is looked at again: whoever has the directory open replaces lists.
const LOOKS_MAX: usize = 3;

/// Checks the lists of all trees. To be called before fjall opens `directory`.
pub(super) fn check(directory: &Path, place: &str) -> Result<(), EngineError> {
    let io = |e: io::Error| EngineError::io(place, e);
    let trees = match directory.join("keyspaces").read_dir() {
        Ok(trees) => trees,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(e)),
    };
    for tree in trees {
        let tree = tree.map_err(io)?.path();
        let mut looks = 0;
        while !is_whole(&tree).map_err(io)? {
            looks += 1;
            if looks == LOOKS_MAX {
                let message = format!(
                    "{place}: the list of files in {} is damaged; restore the store from a copy",
                    tree.display()
                );
                return Err(EngineError::new(EngineErrorKind::Corrupt, message));
            }
        }
    }
    Ok(())
}

/// Whether a tree's list is what `current` says. A tree without that file is not made yet.
fn is_whole(tree: &Path) -> io::Result<bool> {
    let read = |name: &str| match std::fs::read(tree.join(name)) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some),
    };
    let Some(current) = read("current")? else {
        return Ok(true);
    };
    let named = current.split_first_chunk::<8>().and_then(|(number, rest)| {
        let (checksum, kind) = rest.split_first_chunk::<16>()?;
        (kind == [0]).then_some((u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
    });
    let Some((number, checksum)) = named else {
        return Ok(false);
    };
    Ok(read(&format!("v{number}"))?.is_some_and(|list| xxhash_rust::xxh3::xxh3_128(&list) == checksum))
}
