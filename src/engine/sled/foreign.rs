//! A sled database that is not ours, to be read from.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::fence::{Access, Fence};
use super::lifetime::{self, Ending};
use super::opening::Opening;
use super::recovery::Whose;
use crate::engine::own_file;
use crate::engine::{EngineResult, Page, Value};
use crate::error::{EngineError, EngineErrorKind};

/// One tree of a foreign database. Nothing is written but what sled itself does at an open and a close.
pub(crate) struct ForeignSled {
    /// `None` only in `drop`.
    held: Option<(sled::Tree, sled::Db)>,
    fence: Fence,
    directory: PathBuf,
}

/// What sled keeps in every directory of its own.
const CONF: &str = "conf";
const LOG: &str = "db";
/// Small: a tree is read once, from its first key to its last.
const CACHE_BYTES: u64 = 32 << 20;

impl ForeignSled {
    /// Opens the tree `name` (`None`: the default one) of the database in `directory`. Refused, and nothing is made, if
    /// there is none.
    pub(crate) fn open(directory: &Path, name: Option<&str>) -> EngineResult<Self> {
        let place = directory.display().to_string();
        let refuse = |kind, reason: &str| Err(EngineError::new(kind, format!("{place}: {reason}")));
        let is_file = |name: &str| {
            let found = own_file::look(&directory.join(name)).map_err(|e| EngineError::io(&*place, e))?;
            Ok::<_, EngineError>(found.is_some())
        };
        if !is_file(CONF)? || !is_file(LOG)? {
            let reason = "is not the directory of a sled database (it has no files \"conf\" and \"db\")";
            return refuse(EngineErrorKind::Io, reason);
        }
        let directory = directory.canonicalize().map_err(|e| EngineError::io(&*place, e))?;
        let conf = std::fs::read(directory.join(CONF)).map_err(|e| EngineError::io(&*place, e))?;
        let conf = String::from_utf8_lossy(&conf);
        if let Some(version) = conf.lines().find_map(|line| line.strip_prefix("version: "))
            && !version.starts_with("0.34")
        {
            let version: String = version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let reason =
                format!("it was written by sled {version}; bring it to 0.34 by sled's own export and import");
            return refuse(EngineErrorKind::Corrupt, &reason);
        }
        let Some(segment) = segment_bytes(&conf) else {
            let reason = "its \"conf\" file names no segment size: it is damaged, or of another release of sled than 0.34";
            return refuse(EngineErrorKind::Corrupt, reason);
        };
        let config = sled::Config::new()
            .path(&directory)
            .cache_capacity(CACHE_BYTES)
            .segment_size(segment)
            .flush_every_ms(None);
        let mut opening = Opening::prepare(&directory, &place, segment, Whose::Foreign)?;
        let db = opening.open(&config)?;
        opening.done().map_err(|e| EngineError::io(&*place, e))?;
        let mut source = Self { held: None, fence: Fence::new(config), directory };
        let found = source.fence.call(Access::Read, name.unwrap_or_default(), || match name {
            None => db.open_tree(super::DEFAULT_TREE).map(|tree| Ok((tree, db.clone()))),
            Some(name) => {
                let names = db.tree_names();
                if !names.iter().any(|known| &**known == name.as_bytes()) {
                    return Ok(Err(names));
                }
                db.open_tree(name).map(|tree| Ok((tree, db.clone())))
            }
        })?;
        match found {
            Ok(held) => {
                source.held = Some(held);
                Ok(source)
            }
            Err(names) => {
                lifetime::close(db, &Ending::Plain, &source.directory);
                let known: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
                let name = name.unwrap_or_default();
                refuse(EngineErrorKind::Io, &format!("it has no tree {name:?}; its trees are {known:?}"))
            }
        }
    }

    /// Up to `limit` records after `after`, appended to `page`. Answers whether that was all.
    pub(crate) fn page(&self, after: Option<&[u8]>, limit: usize, page: &mut Page) -> EngineResult<bool> {
        let Some((tree, _)) = &self.held else {
            return Ok(true);
        };
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.fence.call(Access::Read, "", || {
            let mut records = tree.range::<&[u8], _>((lower, Bound::Unbounded));
            for _ in 0..limit {
                match records.next() {
                    Some(record) => {
                        let (key, value) = record?;
                        page.push((Value::from_sled(key), Value::from_sled(value)));
                    }
                    None => return Ok(true),
                }
            }
            Ok(false)
        })
    }
}

impl Drop for ForeignSled {
    fn drop(&mut self) {
        lifetime::close(self.held.take(), &self.fence.ending(), &self.directory);
    }
}

/// The segment size, which sled wants to be told as it was. Its bounds are those that sled asserts.
fn segment_bytes(conf: &str) -> Option<usize> {
    let line = conf.lines().find_map(|line| line.strip_prefix("segment_size: "))?;
    let bytes: usize = line.trim().parse().ok()?;
    (bytes.is_power_of_two() && (256..=1 << 24).contains(&bytes)).then_some(bytes)
}
