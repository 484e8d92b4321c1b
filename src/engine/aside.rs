//! What an engine's own open may destroy is kept aside until that open has succeeded and has been checked.
//!
//! Both engines write while they recover: they cut, zero, replace and remove what they cannot read, and take a read that fails
//! for the end of their data. So:
//!
//! 1. Before the engine opens an existing directory, what it may change is copied (what it changes in place), or linked (what
//!    it only removes or replaces), into `aside` in that directory. A read that fails here is an error of the open.
//! 2. The file `list`, written last, says what there is. Without it `aside` is of no use and is removed.
//! 3. The engine opens. What it found is compared with what was found without it.
//! 4. If that fails, the engine is closed and everything is put back, byte for byte. If it holds, `aside` is removed: durably,
//!    before anything is flushed.
//!
//! A process that dies between 2 and 4 leaves `aside`. The next open puts it back, but only if it is whole (what was copied is
//! not synced, so after a loss of power it may not be), and if nothing was flushed since: another release may have had the
//! store meanwhile. Each engine says how it can tell, by a *stamp*. To put back what is there already changes nothing, and to
//! do so twice is the same as once.
//!
//! On a full disk what is to be copied is held in memory, if it is little.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek, SeekFrom, Write as _};
use std::path::{Component, Path, PathBuf};

use super::draft::sync_directory;

const NAME: &str = "aside";
const LIST: &str = "list";
const MAGIC: &[u8; 8] = b"EXUVIAAS";
/// The most that is held in memory, of all files together.
#[cfg(feature = "fjall")]
const MEMORY_BYTES_MAX: u64 = 64 << 20;
const COPY_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Directory,
    /// A whole file, which is only removed, replaced, or cut: to no less than this.
    Linked {
        len: u64,
    },
    /// A file that cannot be linked: it is not kept, but known to have been there.
    There,
    /// A part of a file.
    Copied {
        from: u64,
        len: u64,
        file_len: u64,
        sum: u32,
    },
}

pub(super) struct Aside {
    /// The engine's.
    directory: PathBuf,
    stamp: u64,
    /// What is kept, by its path in the directory. Number *n* is the file *n* of `aside`.
    pieces: Vec<(PathBuf, Piece, Option<Vec<u8>>)>,
    #[cfg(feature = "fjall")]
    in_memory: u64,
    /// Whether the next open finds it.
    outlasts: bool,
}

/// Whether a path is that of what is kept aside.
pub(super) fn is_aside(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == NAME)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::WriteZero)
}

impl Aside {
    /// Begins anew; `stamp` is compared with the one at the next open, if this process should die. Refused where something is
    /// kept that was not put back.
    pub(super) fn begin(directory: &Path, stamp: u64) -> io::Result<Self> {
        if directory.join(NAME).join(LIST).try_exists()? {
            let what =
                "what an earlier open changed is not put back yet, and is kept in aside: open it again";
            return Err(io::Error::new(ErrorKind::AlreadyExists, what));
        }
        forget(directory)?;
        fs::create_dir(directory.join(NAME))?;
        Ok(Self {
            directory: directory.to_owned(),
            stamp,
            pieces: Vec::new(),
            #[cfg(feature = "fjall")]
            in_memory: 0,
            outlasts: false,
        })
    }

    fn file(&self, number: usize) -> PathBuf {
        self.directory.join(NAME).join(number.to_string())
    }

    #[cfg(feature = "fjall")]
    pub(super) fn directory(&mut self, name: &Path) {
        self.pieces.push((name.to_owned(), Piece::Directory, None));
    }

    /// Keeps a file that is not written in place, of at least `len` bytes. Where the file system has no links it is not kept.
    #[cfg(feature = "fjall")]
    pub(super) fn link(&mut self, name: &Path, len: u64) -> io::Result<()> {
        let linked = fs::hard_link(self.directory.join(name), self.file(self.pieces.len()));
        self.linked(name, len, linked)
    }

    #[cfg(feature = "fjall")]
    fn linked(&mut self, name: &Path, len: u64, linked: io::Result<()>) -> io::Result<()> {
        let piece = match linked {
            Ok(()) => Piece::Linked { len },
            Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                Piece::There
            }
            Err(e) => return Err(e),
        };
        self.pieces.push((name.to_owned(), piece, None));
        Ok(())
    }

    /// Keeps the first `len` bytes of a file.
    #[cfg(feature = "fjall")]
    pub(super) fn copy(&mut self, name: &Path, len: u64) -> io::Result<()> {
        let mut from = File::open(self.directory.join(name))?;
        let file_len = from.metadata()?.len();
        let mut rest = (&mut from).take(len);
        let (mut to, mut held) = match File::create(self.file(self.pieces.len())) {
            Err(e) if is_full(&e) && self.in_memory + len <= MEMORY_BYTES_MAX => {
                (Sink::Memory(Vec::new()), len)
            }
            other => (Sink::Disk(other?), 0),
        };
        let (mut sum, mut copied, mut buffer) = (0, 0, vec![0; COPY_BYTES]);
        loop {
            let read = rest.read(&mut buffer)?;
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            sum = crc32c::crc32c_append(sum, bytes);
            copied += read as u64;
            if let Sink::Disk(file) = &mut to {
                match file.write_all(bytes) {
                    Err(e) if is_full(&e) && self.in_memory + len <= MEMORY_BYTES_MAX => {
                        held = len;
                        let mut from = File::open(self.directory.join(name))?;
                        let mut all = Vec::new();
                        (&mut from).take(copied).read_to_end(&mut all)?;
                        file.set_len(0)?;
                        to = Sink::Memory(all);
                    }
                    other => other?,
                }
            } else if let Sink::Memory(all) = &mut to {
                all.extend(bytes);
            }
        }
        if copied != len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.in_memory += held;
        let held = if let Sink::Memory(all) = to { Some(all) } else { None };
        self.pieces.push((name.to_owned(), Piece::Copied { from: 0, len, file_len, sum }, held));
        Ok(())
    }

    /// Keeps these bytes, which are in a file at this place.
    #[cfg(feature = "sled")]
    pub(super) fn keep(&mut self, name: &Path, from: u64, bytes: &[u8], file_len: u64) -> io::Result<()> {
        let written = File::create(self.file(self.pieces.len())).and_then(|mut file| file.write_all(bytes));
        let held = match written {
            Err(e) if is_full(&e) => Some(bytes.to_vec()),
            other => other.map(|()| None)?,
        };
        let (len, sum) = (bytes.len() as u64, crc32c::crc32c(bytes));
        self.pieces.push((name.to_owned(), Piece::Copied { from, len, file_len, sum }, held));
        Ok(())
    }

    /// All is kept. What is in memory only does not outlast the process.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        if self.pieces.iter().any(|(_, _, held)| held.is_some()) {
            return Ok(());
        }
        let draft = self.directory.join(NAME).join("list.new");
        match fs::write(&draft, self.to_bytes()) {
            Err(e) if is_full(&e) => return Ok(()),
            other => other?,
        }
        fs::rename(&draft, self.directory.join(NAME).join(LIST))?;
        self.outlasts = true;
        Ok(())
    }

    /// To be said beside an error, where putting back has failed.
    pub(super) fn said_of_failure(&self, engine: &str, failure: &io::Error) -> String {
        let place = self.directory.join(NAME);
        if self.outlasts {
            let place = place.display();
            return format!(
                "what {engine} changed cannot be put back now ({failure}): it will be at the next open, from {place}"
            );
        }
        format!(
            "what {engine} changed cannot be put back ({failure}), and was kept in memory only, as the medium is full: make \
             room, and restore the store from a copy, or salvage it"
        )
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut put = |number: u64| bytes.extend(number.to_le_bytes());
        put(self.stamp);
        put(self.pieces.len() as u64);
        for (name, piece, _) in &self.pieces {
            let name = name.to_string_lossy();
            let mut put = |number: u64| bytes.extend(number.to_le_bytes());
            match piece {
                Piece::Directory => put(0),
                Piece::There => put(3),
                Piece::Linked { len } => [1, *len].into_iter().for_each(put),
                Piece::Copied { from, len, file_len, sum } => {
                    [2, *from, *len, *file_len, u64::from(*sum)].into_iter().for_each(put);
                }
            }
            bytes.extend((name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
        }
        let sum = crc32c::crc32c(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    fn from_bytes(directory: &Path, bytes: &[u8]) -> Option<Self> {
        let (summed, sum) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(summed) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut rest = summed.strip_prefix(MAGIC)?;
        let number = |rest: &mut &[u8]| {
            let (number, more) = rest.split_first_chunk()?;
            *rest = more;
            Some(u64::from_le_bytes(*number))
        };
        let stamp = number(&mut rest)?;
        let mut pieces = Vec::new();
        for _ in 0..number(&mut rest)? {
            let piece = match number(&mut rest)? {
                0 => Piece::Directory,
                1 => Piece::Linked { len: number(&mut rest)? },
                2 => Piece::Copied {
                    from: number(&mut rest)?,
                    len: number(&mut rest)?,
                    file_len: number(&mut rest)?,
                    sum: u32::try_from(number(&mut rest)?).ok()?,
                },
                3 => Piece::There,
                _ => return None,
            };
            let len = usize::try_from(number(&mut rest)?).ok()?;
            let (name, more) = rest.split_at_checked(len)?;
            rest = more;
            let name = PathBuf::from(std::str::from_utf8(name).ok()?);
            if !name.components().all(|part| matches!(part, Component::Normal(_))) {
                return None;
            }
            pieces.push((name, piece, None));
        }
        Some(Self {
            directory: directory.to_owned(),
            stamp,
            pieces,
            #[cfg(feature = "fjall")]
            in_memory: 0,
            outlasts: true,
        })
    }

    /// What a process left here that died while it opened `directory`, if it is whole.
    pub(super) fn left(directory: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(directory.join(NAME).join(LIST)) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            other => other?,
        };
        let Some(aside) = Self::from_bytes(directory, &bytes) else {
            return Ok(None);
        };
        for (number, (_, piece, _)) in aside.pieces.iter().enumerate() {
            let whole = match piece {
                Piece::Directory | Piece::There => true,
                Piece::Linked { .. } => aside.content(number)?.is_some(),
                Piece::Copied { len, sum, .. } => match aside.content(number)? {
                    Some((mut file, found)) if found == *len => sum_of(&mut file)? == *sum,
                    _ => false,
                },
            };
            if !whole {
                return Ok(None);
            }
        }
        Ok(Some(aside))
    }

    fn content(&self, number: usize) -> io::Result<Option<(File, u64)>> {
        match File::open(self.file(number)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            other => {
                let file = other?;
                let len = file.metadata()?.len();
                Ok(Some((file, len)))
            }
        }
    }

    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The first part of a file that was copied.
    #[cfg(feature = "sled")]
    pub(super) fn copied(&self, name: &Path) -> io::Result<Option<(u64, Vec<u8>)>> {
        let mut pieces = self.pieces.iter().enumerate();
        let found = pieces.find_map(|(number, (known, piece, held))| match piece {
            Piece::Copied { from, .. } if known == name => Some((number, *from, held)),
            _ => None,
        });
        found.map_or(Ok(None), |(number, from, held)| {
            let bytes = held.as_ref().map_or_else(|| fs::read(self.file(number)), |held| Ok(held.clone()));
            bytes.map(|bytes| Some((from, bytes)))
        })
    }

    /// A file that was linked and, removed meanwhile or not, has been cut too short.
    #[cfg(feature = "fjall")]
    pub(super) fn shrunk(&self) -> io::Result<Option<&Path>> {
        for (number, (name, piece, _)) in self.pieces.iter().enumerate() {
            if let Piece::Linked { len } = piece
                && self.file(number).metadata()?.len() < *len
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Puts everything back, durably, and removes what `is_new` says of a file that is not kept. The engine is closed.
    pub(super) fn put_back(&self, is_new: impl Fn(&Path) -> bool) -> io::Result<()> {
        for found in files_below(&self.directory)? {
            let kept =
                self.pieces.iter().any(|(name, piece, _)| *name == found && *piece != Piece::Directory);
            if !kept && is_new(&found) {
                fs::remove_file(self.directory.join(&found))?;
            }
        }
        let mut directories = std::collections::BTreeSet::from([self.directory.clone()]);
        for (number, (name, piece, held)) in self.pieces.iter().enumerate() {
            let path = self.directory.join(name);
            directories.extend(path.parent().map(Path::to_owned));
            match piece {
                Piece::Directory => fs::create_dir_all(&path)?,
                Piece::There => {}
                Piece::Linked { .. } => {
                    // In one step, so that the file is never missing.
                    let link = self.directory.join(NAME).join("link");
                    // Of a process that died in here.
                    remove_if_there(&link)?;
                    fs::hard_link(self.file(number), &link)?;
                    fs::rename(&link, &path)?;
                    // A rename of one link over another of the same file does nothing.
                    remove_if_there(&link)?;
                }
                Piece::Copied { from, file_len, .. } => {
                    let mut to = File::options().write(true).create(true).truncate(false).open(&path)?;
                    to.set_len(*file_len)?;
                    to.seek(SeekFrom::Start(*from))?;
                    match held {
                        Some(bytes) => to.write_all(bytes)?,
                        None => drop(io::copy(&mut File::open(self.file(number))?, &mut to)?),
                    }
                    to.sync_all()?;
                }
            }
        }
        directories.iter().filter(|directory| directory.is_dir()).try_for_each(|path| sync_directory(path))
    }
}

#[cfg(feature = "fjall")]
enum Sink {
    Disk(File),
    Memory(Vec<u8>),
}

fn sum_of(file: &mut File) -> io::Result<u32> {
    let (mut sum, mut buffer) = (0, vec![0; COPY_BYTES]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(sum);
        }
        sum = crc32c::crc32c_append(sum, buffer.get(..read).unwrap_or_default());
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The files in a directory, and in those in it, but for what is kept aside: by their paths in it.
pub(super) fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(below(directory)?.0)
}

/// The directories in a directory, and in those in it: those above first.
#[cfg(feature = "fjall")]
pub(super) fn directories_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(below(directory)?.1)
}

fn below(directory: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut directories, mut below) = (Vec::new(), Vec::new(), vec![PathBuf::new()]);
    while let Some(name) = below.pop() {
        for entry in directory.join(&name).read_dir()? {
            let entry = entry?;
            let path = name.join(entry.file_name());
            match entry.file_type()? {
                kind if kind.is_dir() && !is_aside(&path) => {
                    directories.push(path.clone());
                    below.push(path);
                }
                kind if kind.is_file() => files.push(path),
                _ => {}
            }
        }
    }
    Ok((files, directories))
}

/// Removes what is kept aside. The caller syncs `directory`.
pub(super) fn forget(directory: &Path) -> io::Result<()> {
    // The list goes first: without it the rest is nothing.
    remove_if_there(&directory.join(NAME).join(LIST))?;
    match fs::remove_dir_all(directory.join(NAME)) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Removes what was not kept as a whole, and nothing else.
pub(super) fn forget_half(directory: &Path) -> io::Result<()> {
    if directory.join(NAME).join(LIST).try_exists()? { Ok(()) } else { forget(directory) }
}

#[cfg(all(test, feature = "fjall"))]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("exuvia-aside-{name}-{}", std::process::id()));
        let _of_an_earlier_process = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("tables")).unwrap();
        fs::write(directory.join("log"), b"the log, and its end").unwrap();
        fs::write(directory.join("tables/1"), b"a table").unwrap();
        fs::write(directory.join("tables/current"), b"v1").unwrap();
        directory
    }

    fn kept(directory: &Path) -> Aside {
        let mut aside = Aside::begin(directory, 7).unwrap();
        aside.directory(Path::new("tables"));
        aside.copy(Path::new("log"), 7).unwrap();
        aside.link(Path::new("tables/1"), 7).unwrap();
        aside.link(Path::new("tables/current"), 2).unwrap();
        aside.commit().unwrap();
        aside
    }

    fn destroy(directory: &Path) {
        fs::write(directory.join("log"), b"th").unwrap();
        fs::remove_file(directory.join("tables/1")).unwrap();
        fs::write(directory.join("tables/new"), b"v2").unwrap();
        fs::rename(directory.join("tables/new"), directory.join("tables/current")).unwrap();
        fs::write(directory.join("tables/2"), b"another").unwrap();
    }

    fn is_back(directory: &Path) {
        let log = fs::read(directory.join("log")).unwrap();
        assert_eq!((log.len(), &log[..7]), (20, &b"the log"[..]));
        assert_eq!(fs::read(directory.join("tables/1")).unwrap(), b"a table");
        assert_eq!(fs::read(directory.join("tables/current")).unwrap(), b"v1");
        assert!(!directory.join("tables/2").exists());
        assert_eq!(files_below(directory).unwrap().len(), 3);
    }

    #[test]
    fn what_was_kept_aside_is_put_back_by_this_process_and_by_another_as_often_as_one_likes() {
        let directory = scratch("back");
        let aside = kept(&directory);
        destroy(&directory);
        aside.put_back(|name| name.starts_with("tables")).unwrap();
        is_back(&directory);
        destroy(&directory);
        let left = Aside::left(&directory).unwrap().unwrap();
        assert_eq!(left.stamp(), 7);
        for _ in 0..2 {
            // Of a process that died while it put it back.
            fs::hard_link(directory.join("aside/2"), directory.join("aside/link")).unwrap();
            left.put_back(|name| name.starts_with("tables")).unwrap();
            is_back(&directory);
        }
        forget(&directory).unwrap();
        assert!(Aside::left(&directory).unwrap().is_none());
        is_back(&directory);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_linked_is_not_taken_for_a_new_one() {
        for kind in [ErrorKind::Unsupported, ErrorKind::PermissionDenied] {
            let directory = scratch(&format!("links-{kind:?}"));
            let mut aside = Aside::begin(&directory, 7).unwrap();
            aside.linked(Path::new("tables/1"), 7, Err(kind.into())).unwrap();
            aside.linked(Path::new("tables/current"), 2, Err(kind.into())).unwrap();
            aside.commit().unwrap();
            fs::write(directory.join("tables/2"), b"another").unwrap();
            for aside in [aside, Aside::left(&directory).unwrap().unwrap()] {
                aside.put_back(|name| name.starts_with("tables")).unwrap();
                is_back(&directory);
            }
            fs::remove_dir_all(&directory).unwrap();
        }
    }

    #[test]
    fn what_was_not_put_back_is_not_thrown_away_by_the_next_try() {
        let directory = scratch("again");
        let aside = kept(&directory);
        destroy(&directory);
        assert_eq!(Aside::begin(&directory, 8).err().unwrap().kind(), ErrorKind::AlreadyExists);
        forget_half(&directory).unwrap();
        aside.put_back(|name| name.starts_with("tables")).unwrap();
        is_back(&directory);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_not_whole_is_not_put_back() {
        for damaged in ["aside/1", "aside/list", "aside/2"] {
            let directory = scratch("torn");
            drop(kept(&directory));
            let len = fs::metadata(directory.join(damaged)).unwrap().len();
            // Not in place: that would damage what is linked, too.
            fs::remove_file(directory.join(damaged)).unwrap();
            assert!(Aside::left(&directory).unwrap().is_none(), "without {damaged}");
            if damaged != "aside/2" {
                // As long as it was.
                fs::write(directory.join(damaged), vec![0; len as usize]).unwrap();
                assert!(Aside::left(&directory).unwrap().is_none(), "{damaged} zeroed");
            }
            fs::remove_dir_all(&directory).unwrap();
        }
    }
}
