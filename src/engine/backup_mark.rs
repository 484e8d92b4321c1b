//! How a directory says that it holds a backup, which nobody may open as a store or as an engine.

use std::path::Path;

use crate::engine::own_file;
use crate::error::{Error, Result};

/// The manifest of a backup.
pub(crate) const MANIFEST: &str = "BACKUP";
/// Its name until the backup is whole.
pub(crate) const UNFINISHED: &str = "BACKUP.new";

/// What an open, and everything else, says to an unfinished one.
pub(crate) const UNFINISHED_SAID: &str = "holds a backup or a restored store that is not finished, and is of no use: if \
    nothing is making it any more, remove it, and make it again";

/// What an open says to one.
const BACKUP_SAID: &str = "holds a backup, which an open would change: make a store of it in another directory by \
    `Store::restore` (`exuvia restore`) and open that; if an earlier release has made a store of this one, which is to stay \
    one, remove its file BACKUP";

const UNSEEN_SAID: &str = "it cannot be told whether it holds a backup; check the medium and its permissions";

/// Whether a directory holds a backup that was not finished. A link of that name counts.
pub(crate) fn is_unfinished(path: &Path) -> Result<bool> {
    is_there(path, UNFINISHED)
}

/// Why a directory is not opened as a store, if it holds a backup, whole or not.
pub(crate) fn refusal(path: &Path) -> Result<Option<&'static str>> {
    if is_there(path, UNFINISHED)? {
        return Ok(Some(UNFINISHED_SAID));
    }
    Ok(is_there(path, MANIFEST)?.then_some(BACKUP_SAID))
}

fn is_there(path: &Path, name: &str) -> Result<bool> {
    let found = own_file::look(&path.join(name));
    found.map(|found| found.is_some()).map_err(|e| Error::Path {
        path: path.to_owned(),
        reason: UNSEEN_SAID.to_owned(),
        source: Some(e),
    })
}
