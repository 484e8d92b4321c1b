//! Backups: the store as it was at one moment, in a new directory, with a checksum of every file.
//!
//! 1. The directory is made, which must not be there, and in it `BACKUP.new`: from here on an open refuses it.
//! 2. The store is copied, verified (see `copy`), into the directory of an engine of the same kind.
//! 3. The engine is closed; its files, and the mark of a store, become durable.
//! 4. The manifest (every file's length and BLAKE3 hash) is written into `BACKUP.new`, durably, which becomes `BACKUP`.
//!
//! A crash before the end of 4 leaves a directory that says that it is of no use, or, in the middle of 1, an empty one; a
//! failure removes it. The source is never changed. A backup would open as a store, and its engine would change its files
//! then: so an open refuses it. It is restored to another directory, and that one is opened.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Component, Path, PathBuf};

use crate::clock::now_ms;
use crate::engine::backup_mark::{MANIFEST, UNFINISHED, UNFINISHED_SAID, is_unfinished};
use crate::engine::own_file;
use crate::engine::{EngineKind, sync_all_below, sync_directory};
use crate::error::{Error, Result};
use crate::store::directory;
use crate::store::handle::Store;

const FORMAT: &str = "exuvia backup, format 1";
/// The longest manifest that is read: some hundred thousand files.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Most differences that are told one by one.
const DAMAGE_MAX: usize = 1000;
/// Cache of the engine while it is written.
const CACHE_BYTES: u64 = 64 << 20;

/// What a backup says of itself, and whether that is so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// The engine that keeps it.
    pub engine: EngineKind,
    /// Milliseconds since 1970, by the system's clock: whatever was answered before is in it.
    pub at_ms: u64,
    /// Its live records, as they were counted when it was made.
    pub records: u64,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first 1 000 files that are not what the manifest says, in words.
    pub damage: Vec<String>,
}

impl Backup {
    /// Whether every file is as it was when the backup was made.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }

    fn damaged(&mut self, what: String) {
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(what);
        }
    }
}

/// One file of the manifest.
struct Listed {
    name: PathBuf,
    bytes: u64,
    hash: blake3::Hash,
}

impl Store {
    /// Makes a backup in `path`, which must not be there: the whole store as it is at one moment, verified, while it is in
    /// use. It has the store's engine; a store in memory is written to the engine of new stores.
    ///
    /// Paced and limited as [`Store::copy_to`]; the ledger of the backup gets an entry `backup`, that of the store does
    /// not. [`Store::check_backup`] looks whether it is still what it was, [`Store::restore`] makes a store of it. Every open
    /// refuses it, as its engine would change it.
    ///
    /// # Errors
    ///
    /// As [`Store::copy_to`]; [`Error::Path`] if `path` is there already or cannot be made (the directory above it has to
    /// be there). Nothing is left of a backup that failed; one that was killed is refused by every open, unless its
    /// directory is still empty: that can become a new store, as every empty directory can.
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<Backup> {
        let path = path.as_ref();
        let shared = &self.core().shared;
        shared.check_usable()?;
        let kind = self.engine_kind().unwrap_or_else(EngineKind::usual);
        kind.check_built_in()?;
        let private = shared.settings.private;
        if let Err(e) = own_file::create_directory(path, private) {
            let reason = match e.kind() {
                ErrorKind::AlreadyExists => "is there already; name a new directory for the backup",
                _ => "the directory of the backup cannot be made",
            };
            return Err(failed(path, reason, e));
        }
        let made = self.backup_in(path, kind, private);
        if made.is_err() {
            // It was not there before, and says that it is unfinished until it is gone.
            let _best_effort = fs::remove_dir_all(path);
        }
        made
    }

    fn backup_in(&self, path: &Path, kind: EngineKind, private: bool) -> Result<Backup> {
        let io = |e| failed(path, "the backup cannot be written", e);
        let path = &path.canonicalize().map_err(io)?;
        let unfinished = path.join(UNFINISHED);
        claim(path, "exuvia backup, not finished: of no use\n", private).map_err(io)?;
        let at_ms = now_ms();
        let files = path.join(kind.name());
        let engine = kind.open_with(&files, CACHE_BYTES, private)?;
        let report = self.copy_as("backup", &*engine)?;
        drop(engine);
        directory::write_mark(path, kind, private).map_err(io)?;
        sync_all_below(path).map_err(io)?;
        let mut listed = Vec::new();
        for name in names_below(path).map_err(io)? {
            if name != Path::new(UNFINISHED) {
                let (bytes, hash) = digest(&path.join(&name), None).map_err(io)?;
                listed.push(Listed { name, bytes, hash });
            }
        }
        let text = manifest(kind, at_ms, report.records, &listed).map_err(io)?;
        write(&unfinished, text.as_bytes(), private).map_err(io)?;
        fs::rename(&unfinished, path.join(MANIFEST)).map_err(io)?;
        sync_directory(path).map_err(io)?;
        path.parent().map_or(Ok(()), sync_directory).map_err(io)?;
        let (files, bytes) = (listed.len() as u64, listed.iter().map(|file| file.bytes).sum());
        Ok(Backup { engine: kind, at_ms, records: report.records, files, bytes, damage: Vec::new() })
    }

    /// Compares every file of a backup with its manifest. Opens no engine, and changes nothing.
    ///
    /// A difference is damage; [`Store::salvage`] makes a store of what can be read all the same.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if there is no backup, it was not finished, or it cannot be read; [`Error::Format`] if its manifest is
    /// damaged or newer. A file that differs is not an error here but what is answered.
    pub fn check_backup(path: impl AsRef<Path>) -> Result<Backup> {
        let path = path.as_ref();
        let (mut backup, listed) = read_manifest(path)?;
        for file in &listed {
            compare(path, file, None, &mut backup);
        }
        let io = |e| failed(path, "the backup cannot be listed", e);
        let known: std::collections::BTreeSet<&Path> = listed.iter().map(|file| &*file.name).collect();
        for name in names_below(path).map_err(io)? {
            if !known.contains(&*name) && name != Path::new(MANIFEST) && name != Path::new(directory::LOCK) {
                backup.damaged(format!("{}: is not of the backup", name.display()));
            }
        }
        Ok(backup)
    }

    /// Makes a store of a backup, in `path`, which must not be there: every file is compared while it is copied. The
    /// backup stays what it is.
    ///
    /// # Errors
    ///
    /// As [`Store::check_backup`]; [`Error::Path`] if `path` is there already, or a file of the backup is damaged, with its
    /// name: [`Store::salvage`] makes a store of what can be read. Nothing is left at `path` then.
    pub fn restore(backup: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<Backup> {
        let (from, path) = (backup.as_ref(), path.as_ref());
        let (mut backup, listed) = read_manifest(from)?;
        if let Err(e) = own_file::create_directory(path, true) {
            return Err(failed(path, "cannot be made: name a new directory for the store", e));
        }
        let restored = restore_in(from, path, &listed, &mut backup);
        if restored.is_err() {
            let _best_effort = fs::remove_dir_all(path);
        }
        restored.map(|()| backup)
    }
}

fn restore_in(from: &Path, path: &Path, listed: &[Listed], backup: &mut Backup) -> Result<()> {
    let io = |e| failed(path, "cannot be written", e);
    // Until it is whole it is refused as a store.
    claim(path, "exuvia restore, not finished: of no use\n", true).map_err(io)?;
    for file in listed {
        let to = path.join(&file.name);
        let mut above = path.to_owned();
        for part in file.name.parent().into_iter().flat_map(Path::components) {
            above.push(part);
            match own_file::create_directory(&above, true) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(io(e)),
                _ => {}
            }
        }
        let mut to = own_file::create(&to, true).map_err(io)?;
        compare(from, file, Some(&mut to), backup);
        if let Some(damage) = backup.damage.first() {
            return Err(Error::Path {
                path: from.to_owned(),
                reason: format!(
                    "the backup is damaged, and nothing was restored: {damage}; `Store::salvage` (`exuvia salvage`) makes a \
                     store of what can be read of it"
                ),
                source: None,
            });
        }
    }
    // An engine may expect directories that are empty.
    for name in ["sled/blobs", "fjall/keyspaces"].map(|name| path.join(name)) {
        if name.parent().is_some_and(Path::is_dir) && !name.is_dir() {
            own_file::create_directory(&name, true).map_err(io)?;
        }
    }
    sync_all_below(path).map_err(io)?;
    unclaim(path).map_err(io)?;
    let parent = path.canonicalize().map_err(io)?;
    parent.parent().map_or(Ok(()), sync_directory).map_err(io)
}

/// Says of a new directory that what is in it is of no use yet: an open refuses it.
pub(crate) fn claim(path: &Path, text: &str, private: bool) -> io::Result<()> {
    write(&path.join(UNFINISHED), text.as_bytes(), private)?;
    sync_directory(path)
}

/// Everything in it is durable: from here on it is a store.
pub(crate) fn unclaim(path: &Path) -> io::Result<()> {
    fs::remove_file(path.join(UNFINISHED))?;
    sync_directory(path)
}

fn failed(path: &Path, reason: &str, source: io::Error) -> Error {
    Error::Path { path: path.to_owned(), reason: reason.to_owned(), source: Some(source) }
}

fn write(path: &Path, bytes: &[u8], private: bool) -> io::Result<()> {
    let mut file = own_file::create(path, private)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The files below a directory, by their names from there on, in order. Directories alone are not listed.
fn names_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut names, mut left) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = left.pop() {
        for entry in directory.join(&below).read_dir()? {
            let entry = entry?;
            let name = below.join(entry.file_name());
            if entry.file_type()?.is_dir() { left.push(name) } else { names.push(name) }
        }
    }
    names.sort();
    Ok(names)
}

/// Length and hash of a file, which is copied as it is read. Zeroes are left out of the copy: a journal is mostly made of
/// them.
fn digest(path: &Path, mut copy: Option<&mut File>) -> io::Result<(u64, blake3::Hash)> {
    let mut file = own_file::open(path)?;
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match file.read(&mut buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        let chunk = buffer.get(..read).unwrap_or_default();
        if chunk.is_empty() {
            break;
        }
        hasher.update(chunk);
        bytes += chunk.len() as u64;
        match &mut copy {
            Some(copy) if chunk.iter().all(|byte| *byte == 0) => drop(copy.seek(SeekFrom::Start(bytes))?),
            Some(copy) => copy.write_all(chunk)?,
            None => {}
        }
    }
    if let Some(copy) = copy {
        copy.set_len(bytes)?;
    }
    Ok((bytes, hasher.finalize()))
}

fn compare(directory: &Path, file: &Listed, copy: Option<&mut File>, backup: &mut Backup) {
    let name = file.name.display();
    match digest(&directory.join(&file.name), copy) {
        Err(e) => backup.damaged(format!("{name}: cannot be read or copied: {e}")),
        Ok((bytes, _)) if bytes != file.bytes => {
            backup.damaged(format!("{name}: has {bytes} bytes and not {}", file.bytes));
        }
        Ok((_, hash)) if hash != file.hash => backup.damaged(format!("{name}: its checksum differs")),
        Ok(_) => {}
    }
}

fn manifest(kind: EngineKind, at_ms: u64, records: u64, listed: &[Listed]) -> io::Result<String> {
    use std::fmt::Write as _;
    let mut text = format!("{FORMAT}\nengine {}\nat_ms {at_ms}\nrecords {records}\n", kind.name());
    for Listed { name, bytes, hash } in listed {
        let odd = || io::Error::new(ErrorKind::InvalidData, format!("a file has the name {name:?}"));
        let name = name.to_str().filter(|name| !name.contains('\n')).ok_or_else(odd)?;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "file {bytes} {} {name}", hash.to_hex());
    }
    let end = blake3::hash(text.as_bytes());
    let _ = writeln!(text, "end {}", end.to_hex());
    Ok(text)
}

fn read_manifest(path: &Path) -> Result<(Backup, Vec<Listed>)> {
    if is_unfinished(path)? {
        return Err(Error::Path { path: path.to_owned(), reason: UNFINISHED_SAID.to_owned(), source: None });
    }
    let text = own_file::read(&path.join(MANIFEST), MANIFEST_BYTES_MAX).map_err(|e| {
        failed(path, "is no backup: its file BACKUP cannot be read; name the directory of a backup", e)
    })?;
    let damaged = |reason: String| Error::Format { reason: format!("{}: {reason}", path.display()) };
    let text =
        String::from_utf8(text).map_err(|_| damaged("its file BACKUP is damaged: no text".to_owned()))?;
    if text.lines().next() != Some(FORMAT) {
        return Err(damaged(format!(
            "its file BACKUP does not say {FORMAT:?}: it is damaged, or of a newer release; use that"
        )));
    }
    parse(&text).ok_or_else(|| {
        damaged("its file BACKUP is damaged; `exuvia salvage` makes a store of what can be read".to_owned())
    })
}

fn parse(text: &str) -> Option<(Backup, Vec<Listed>)> {
    let (whole, end) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let whole = format!("{whole}\n");
    if end.strip_prefix("end ")? != blake3::hash(whole.as_bytes()).to_hex().as_str() {
        return None;
    }
    let mut lines = whole.lines().skip(1);
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let engine = EngineKind::from_name(field("engine")?)?;
    let (at_ms, records) = (field("at_ms")?.parse().ok()?, field("records")?.parse().ok()?);
    let mut listed = Vec::new();
    for line in lines {
        let mut parts = line.strip_prefix("file ")?.splitn(3, ' ');
        let bytes = parts.next()?.parse().ok()?;
        let hash = blake3::Hash::from_hex(parts.next()?).ok()?;
        let name = PathBuf::from(parts.next()?);
        // Nothing outside of the backup, whoever wrote its manifest.
        if name.as_os_str().is_empty() || !name.components().all(|part| matches!(part, Component::Normal(_)))
        {
            return None;
        }
        listed.push(Listed { name, bytes, hash });
    }
    let names: BTreeSet<&Path> = listed.iter().map(|file| file.name.as_path()).collect();
    if names.len() != listed.len() {
        return None;
    }
    let files = listed.len() as u64;
    let bytes = listed.iter().try_fold(0u64, |sum, file| sum.checked_add(file.bytes))?;
    Some((Backup { engine, at_ms, records, files, bytes, damage: Vec::new() }, listed))
}
