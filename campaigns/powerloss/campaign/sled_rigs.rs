//! sled 0.34 by itself, flushed in six ways. What the engine must do was found out with these.
//!
//! - `sled-plain`: `Db::flush`, which ends in `sync_file_range`.
//! - `sled-data`: and then `fdatasync` of sled's file, nothing else.
//! - `sled-synced`: all that an embedder can do from outside: directories, `conf` and the data file
//!   synced after opening; new blob files, their directory and the data file at each flush; a
//!   half-written snapshot removed before opening.
//! - `sled-paced`: as `sled-synced`, and a flush of its own before the log has grown by a segment.
//! - `sled-flagged`: as `sled-synced`, in a directory flagged synchronous (`chattr +S`), which its files inherit.
//! - `sled-flag-only`: such a directory, made safely, and nothing but sled's own flush.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{IFlags, ioctl_setflags};
use rustix::io::Errno;

use super::rig::{Change, Kind, Opened, Pairs, Rig, Sizes, TREES};

pub const KINDS: [Kind; 6] = [
    kind("sled-plain", "sled's own flush", |p, s| open(p, s, Level::Plain)),
    kind("sled-data", "and fdatasync of its file", |p, s| open(p, s, Level::Data)),
    kind("sled-synced", "and blobs, conf, directories", |p, s| open(p, s, Level::All)),
    kind("sled-paced", "and fdatasync before a segment is full", |p, s| open(p, s, Level::Paced)),
    kind("sled-flagged", "and the synchronous flag", |p, s| open(p, s, Level::Flagged)),
    kind("sled-flag-only", "sled's flush, in a flagged directory", |p, s| open(p, s, Level::FlagOnly)),
];

const fn kind(name: &'static str, what: &'static str, open: fn(&Path, Sizes) -> Opened) -> Kind {
    Kind { name, what, longest_value: 48 << 10, longest_key: 2 << 10, batches: true, open }
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Level {
    Plain,
    Data,
    All,
    Paced,
    Flagged,
    /// As flagged, but the flush is sled's own.
    FlagOnly,
}

impl Level {
    fn is_flagged(self) -> bool {
        matches!(self, Level::Flagged | Level::FlagOnly)
    }
}

struct Sled {
    db: sled::Db,
    trees: Vec<sled::Tree>,
    file: File,
    level: Level,
    root: PathBuf,
    /// Blob files that an earlier flush has made durable.
    blobs: Mutex<BTreeSet<PathBuf>>,
    /// Upper estimate of the log written since the last flush, and how much of it calls for one.
    unsynced: AtomicUsize,
    budget: usize,
}

fn said<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> String + '_ {
    move |error| format!("{what}: {error}")
}

fn open(path: &Path, sizes: Sizes, level: Level) -> Opened {
    if level >= Level::All {
        prepare(path, sizes, level)?;
    }
    let db = config(path, sizes).open().map_err(said("open sled"))?;
    let trees = (0..TREES).map(|n| db.open_tree(format!("tree{n}")).map_err(said("open tree")));
    let trees = trees.collect::<Result<Vec<_>, _>>()?;
    let file = File::options().read(true).write(true).open(path.join("db")).map_err(said("open db file"))?;
    let rig = Sled {
        db,
        trees,
        file,
        level,
        root: path.to_owned(),
        blobs: Mutex::default(),
        unsynced: AtomicUsize::new(0),
        budget: sizes.segment / 4,
    };
    if level >= Level::All {
        rig.sync_all()?;
    }
    Ok(Box::new(rig))
}

fn config(path: &Path, sizes: Sizes) -> sled::Config {
    sled::Config::new()
        .path(path)
        .flush_every_ms(None)
        .mode(sled::Mode::HighThroughput)
        .segment_size(sizes.segment)
        .cache_capacity(sizes.cache)
}

/// Before sled sees the directory, which must not hold half a snapshot: sled would take it for the
/// newest one and refuse it as corruption.
fn prepare(path: &Path, sizes: Sizes, level: Level) -> Result<(), String> {
    if !path.exists() {
        create(path, sizes, level)?;
    }
    for entry in fs::read_dir(path).map_err(said("list directory"))? {
        let found = entry.map_err(said("list directory"))?.path();
        let name = found.to_string_lossy().into_owned();
        if name.ends_with(".generating") {
            fs::remove_file(&found).map_err(said("remove half a snapshot"))?;
        } else if level.is_flagged() {
            set_synchronous(&found)?;
        }
    }
    Ok(())
}

/// sled writes `conf` once and never syncs it, and half a `conf` cannot be opened. So a store is made
/// under another name and gets its own only when all of it is durable.
fn create(path: &Path, sizes: Sizes, level: Level) -> Result<(), String> {
    let draft = path.with_extension("draft");
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(said("remove a draft"))?;
    }
    fs::create_dir_all(&draft).map_err(said("create directory"))?;
    if level.is_flagged() {
        set_synchronous(&draft)?;
    }
    drop(config(&draft, sizes).open().map_err(said("create sled"))?);
    // sled's threads may hold on to the file for a moment after the last handle is gone.
    let db = File::open(draft.join("db")).map_err(said("open the draft"))?;
    db.lock().map_err(said("wait for sled to let go"))?;
    for entry in fs::read_dir(&draft).map_err(said("list draft"))? {
        sync(&entry.map_err(said("list draft"))?.path())?;
    }
    sync(&draft)?;
    db.unlock().map_err(said("unlock the draft"))?;
    fs::rename(&draft, path).map_err(said("name the store"))?;
    path.parent().map_or(Ok(()), sync)
}

fn set_synchronous(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(said("open to flag"))?;
    match ioctl_setflags(&file, IFlags::SYNC) {
        // The images are read back on tmpfs, which does not know the flag and need not.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOTTY) => Ok(()),
        Err(error) => Err(format!("flag {} synchronous: {error}", path.display())),
    }
}

fn sync(path: &Path) -> Result<(), String> {
    File::open(path).and_then(|f| f.sync_all()).map_err(|e| format!("fsync {}: {e}", path.display()))
}

impl Sled {
    /// Once after opening: recovery has written a snapshot, and may have removed files.
    fn sync_all(&self) -> Result<(), String> {
        self.db.flush().map_err(said("flush"))?;
        self.sync_blobs()?;
        sync(&self.root.join("db"))?;
        sync(&self.root)
    }

    fn sync_blobs(&self) -> Result<(), String> {
        let mut synced = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.root.join("blobs");
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&dir).map_err(said("list blobs"))? {
            found.insert(entry.map_err(said("list blobs"))?.path());
        }
        for path in found.difference(&synced) {
            match File::open(path).and_then(|f| f.sync_all()) {
                // Replaced since the directory was listed: what replaced it is in the log.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                result => result.map_err(said("fsync blob"))?,
            }
        }
        *synced = found;
        sync(&dir)
    }

    /// sled trusts all of its log but the last segments, so no whole segment may be without a sync. A record
    /// is in the log once by itself and again whenever its page is rewritten (every ten changes of the page,
    /// with up to sixteen neighbours) or moved: four times its size is counted.
    fn pace(&self, bytes: usize) -> Result<(), String> {
        if self.level != Level::Paced {
            return Ok(());
        }
        let bytes = 4 * (bytes + 64);
        if self.unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes > self.budget {
            self.flush()?;
        }
        Ok(())
    }

    fn tree(&self, tree: usize) -> &sled::Tree {
        &self.trees[tree]
    }
}

impl Rig for Sled {
    fn put(&self, tree: usize, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.pace(key.len() + value.len())?;
        self.tree(tree).insert(key, value).map(drop).map_err(said("put"))
    }

    fn delete(&self, tree: usize, key: &[u8]) -> Result<(), String> {
        self.pace(key.len())?;
        self.tree(tree).remove(key).map(drop).map_err(said("delete"))
    }

    fn get(&self, tree: usize, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(self.tree(tree).get(key).map_err(said("get"))?.map(|v| v.to_vec()))
    }

    fn scan(&self, tree: usize) -> Result<Pairs, String> {
        let pairs = self.tree(tree).iter();
        pairs.map(|p| p.map(|(k, v)| (k.to_vec(), v.to_vec())).map_err(said("scan"))).collect()
    }

    fn flush(&self) -> Result<(), String> {
        self.unsynced.store(0, Ordering::Relaxed);
        self.db.flush().map_err(said("flush"))?;
        if self.level == Level::FlagOnly {
            return Ok(());
        }
        if self.level >= Level::All {
            self.sync_blobs()?;
        }
        if self.level >= Level::Data {
            self.file.sync_data().map_err(said("fdatasync"))?;
        }
        Ok(())
    }

    fn swap(&self, tree: usize, key: &[u8], old: &[u8], new: &[u8]) -> Result<(), String> {
        self.pace(key.len() + old.len() + new.len())?;
        let swapped = self.tree(tree).compare_and_swap(key, Some(old), Some(new)).map_err(said("swap"))?;
        swapped.map_err(|_| "swap: the old value was not there".to_owned())
    }

    fn batch(&self, tree: usize, changes: &[Change]) -> Result<(), String> {
        self.pace(changes.iter().map(|(k, v)| 64 + k.len() + v.as_ref().map_or(0, Vec::len)).sum())?;
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        self.tree(tree).apply_batch(batch).map_err(said("batch"))
    }
}
