//! The sorted files as a whole: what is in them is checked block by block when it is read, but no scan reads the filters, nor
//! all of the indexes. fjall keeps a checksum of each file (XXH3-128) in the tree's list, and never compares it.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::fence::Access;
use super::{Shared, hidden, manifest};
use crate::engine::EngineResult;

const READ_BYTES: usize = 256 * 1024;

/// Describes each damage of the lists and of the files that they name.
pub(super) fn check(shared: &Shared) -> EngineResult<Vec<String>> {
    let mut damages = Vec::new();
    if let Err(e) = manifest::check(shared.fence.directory(), "fjall") {
        damages.push(e.to_string());
    }
    let trees = std::sync::Arc::clone(&shared.trees.read());
    for records in trees.values() {
        // Held while its files are read: so none of them is removed meanwhile.
        let (_held, files) =
            shared.fence.call(Access::Read, &records.name, || Ok(hidden::sorted_files(&records.keyspace)))?;
        for (path, noted) in files {
            let damage = match checksum(&path) {
                Ok(found) if found == noted => continue,
                Ok(_) => "is damaged (its checksum is wrong)".to_owned(),
                Err(_) if records.check().is_err() => break,
                Err(e) if e.kind() == ErrorKind::NotFound => "is missing".to_owned(),
                Err(e) => format!("cannot be read: {e}"),
            };
            damages.push(format!("fjall, tree \"{}\": the file {} {damage}", records.name, path.display()));
        }
    }
    Ok(damages)
}

fn checksum(path: &Path) -> io::Result<u128> {
    let (mut file, mut hasher) = (File::open(path)?, Xxh3::new());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.digest128()),
            Ok(read) => hasher.update(buffer.get(..read).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
