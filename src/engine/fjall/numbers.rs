//! The numbers of trees, of which fjall must give none a second time.
//!
//! When it opens, fjall counts trees on from the highest number among its directories, and sequence numbers from the last
//! record, not from the last change of its list of trees. So of two trees of one number, the first of them dropped and an
//! open between them, the dropping of the first could be newer than the making of the second: then the next open took the
//! second away, with all that was flushed to it, and without a word. Nobody else looks at a number twice: the journals
//! keep fjall from one only for as long as they are there.
//!
//! fjall counts the directories that it does not know before it removes them. So there is one for it at every open, with
//! the highest number that a tree has had. The [`mark`](super::mark) has that, durably, before fjall drops a tree. Where no
//! mark is left, the time of day in milliseconds is beyond all that was counted.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The directory that keeps fjall from a number, and all below it; removed by fjall when it opens, or else by this.
pub(super) struct Reserved(Option<PathBuf>);

impl Reserved {
    pub(super) fn up_to(highest: u64, directory: &Path) -> io::Result<Self> {
        let tree = directory.join("keyspaces").join(highest.to_string());
        match fs::create_dir(&tree) {
            Ok(()) => Ok(Self(Some(tree))),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(Self(None)),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(tree) = &self.0 {
            // Only if it is empty.
            let _fjall_has_it_done = fs::remove_dir(tree);
        }
    }
}
