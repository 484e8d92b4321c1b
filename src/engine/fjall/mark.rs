//! What was synced, kept beside fjall's files, so that an open can tell a torn tail, which nobody was promised, from a loss.
//!
//! The mark says how far each journal was synced, which trees were in it up to which sequence number, which trees
//! there are, and the highest number that a tree has had ([`numbers`](super::numbers) says what for). It is written after the sync that it speaks of, and is not synced itself: a crash may leave an older mark, or
//! none, which asks for less. It never asks for what need not be there:
//!
//! 1. Bytes of a journal, and a tree's name, are in it only when they are durable.
//! 2. A tree is out of the durable mark, of both files, before fjall removes it.
//! 3. A journal goes without a word to us, once all of it is in sorted files. So one that is missing is a loss only if a
//!    tree of it is not in sorted files up to what the mark says, or if no newer journal is there.
//!
//! Two files take turns, `synced.0` and `synced.1`, each with a checksum: a torn one leaves the other. The mark is synced
//! when a tree is dropped and when the engine is closed; else the system writes it when it writes.
//!
//! Format, numbers of 8 bytes, little endian: `EXUVIASZ`, turn, highest number, trees, each tree; journals, and for each its number, bytes,
//! checksum of heads, trees, and for each of these its number and last sequence number; CRC-32C of all that (4 bytes).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::batches::Extent;
use crate::engine::draft::sync_directory;

const MAGIC: [u8; 8] = *b"EXUVIASZ";

/// What has to be there when the directory is opened again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The highest number that a tree has had, also of one that was dropped.
    pub(super) highest: u64,
    pub(super) trees: BTreeSet<u64>,
    pub(super) journals: BTreeMap<u64, Extent>,
}

impl Mark {
    fn to_bytes(&self, turn: u64) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut put = |number: u64| bytes.extend(number.to_le_bytes());
        put(turn);
        put(self.highest);
        put(self.trees.len() as u64);
        self.trees.iter().for_each(|tree| put(*tree));
        put(self.journals.len() as u64);
        for (number, extent) in &self.journals {
            put(*number);
            put(extent.bytes);
            put(extent.heads.into());
            put(extent.last.len() as u64);
            for (tree, last) in &extent.last {
                put(*tree);
                put(*last);
            }
        }
        let sum = crc32c::crc32c(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// The mark and its turn. What follows it is the rest of a longer one.
    fn from_bytes(bytes: &[u8]) -> Option<(u64, Self)> {
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let mut take = || {
            let (number, more) = rest.split_first_chunk()?;
            rest = more;
            Some(u64::from_le_bytes(*number))
        };
        let turn = take()?;
        let mut mark = Self { highest: take()?, ..Self::default() };
        for _ in 0..take()? {
            mark.trees.insert(take()?);
        }
        for _ in 0..take()? {
            let number = take()?;
            let (bytes, heads) = (take()?, u32::try_from(take()?).ok()?);
            let mut extent = Extent { bytes, heads, last: BTreeMap::new() };
            for _ in 0..take()? {
                extent.last.insert(take()?, take()?);
            }
            mark.journals.insert(number, extent);
        }
        let sum = u32::from_le_bytes(*rest.first_chunk()?);
        let summed = bytes.get(..bytes.len() - rest.len())?;
        (crc32c::crc32c(summed) == sum).then_some((turn, mark))
    }

    /// The newer of the two that are whole; `None` if neither is there: a store of an earlier release, or a crash.
    pub(super) fn read(directory: &Path) -> io::Result<Option<(u64, Self)>> {
        let mut newest: Option<(u64, Self)> = None;
        for path in paths(directory) {
            let bytes = match std::fs::read(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                other => other?,
            };
            if let Some(found) = Self::from_bytes(&bytes)
                && newest.as_ref().is_none_or(|(turn, _)| found.0 > *turn)
            {
                newest = Some(found);
            }
        }
        Ok(newest)
    }
}

fn paths(directory: &Path) -> [PathBuf; 2] {
    ["synced.0", "synced.1"].map(|name| directory.join(name))
}

/// The two files.
pub(super) struct MarkFiles {
    files: [File; 2],
    turn: u64,
    /// What the newer one says.
    written: Option<Mark>,
}

impl MarkFiles {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let (turn, written) = Mark::read(directory)?.map_or((0, None), |(turn, mark)| (turn, Some(mark)));
        let open = |path| File::options().create(true).truncate(false).write(true).open(path);
        let [first, second] = paths(directory);
        Ok(Self { files: [open(first)?, open(second)?], turn, written })
    }

    /// [`MarkFiles::write`], where there is something new to say.
    pub(super) fn write_if_changed(&mut self, mark: &Mark) -> io::Result<()> {
        if self.written.as_ref() == Some(mark) { Ok(()) } else { self.write(mark) }
    }

    /// Cost: a write into the system's memory.
    pub(super) fn write(&mut self, mark: &Mark) -> io::Result<()> {
        self.turn += 1;
        self.written = None;
        let bytes = mark.to_bytes(self.turn);
        let [even, odd] = &mut self.files;
        let file = if self.turn.is_multiple_of(2) { even } else { odd };
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        self.written = Some(mark.clone());
        Ok(())
    }

    /// [`MarkFiles::write`] into both, durably. Cost: two syncs, of little.
    pub(super) fn write_durably(&mut self, mark: &Mark, directory: &Path) -> io::Result<()> {
        self.write(mark)?;
        self.write(mark)?;
        self.sync(directory)
    }

    pub(super) fn sync(&self, directory: &Path) -> io::Result<()> {
        self.files.iter().try_for_each(File::sync_data)?;
        sync_directory(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Mark {
        let last = BTreeMap::from([(3, 40), (5, 41)]);
        Mark {
            highest: 6,
            trees: [1, 3, 5].into(),
            journals: BTreeMap::from([
                (7, Extent { bytes: 1 << 26, heads: 77, last }),
                (8, Extent::default()),
            ]),
        }
    }

    #[test]
    fn a_mark_comes_back_and_no_damaged_byte_of_it_does() {
        let bytes = sample().to_bytes(9);
        assert_eq!(Mark::from_bytes(&bytes), Some((9, sample())));
        let longer = [bytes.as_slice(), b"the rest of a longer one"].concat();
        assert_eq!(Mark::from_bytes(&longer), Some((9, sample())));
        for at in 0..bytes.len() {
            assert_eq!(Mark::from_bytes(&bytes[..at]), None, "cut to {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(Mark::from_bytes(&damaged), None, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_torn_mark_leaves_the_one_before_it() {
        let directory = std::env::temp_dir().join(format!("exuvia-mark-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut files = MarkFiles::open(&directory).unwrap();
        files.write(&sample()).unwrap();
        files.write(&Mark::default()).unwrap();
        assert_eq!(Mark::read(&directory).unwrap(), Some((2, Mark::default())));
        std::fs::write(directory.join("synced.0"), b"EXUV").unwrap();
        assert_eq!(Mark::read(&directory).unwrap(), Some((1, sample())));
        std::fs::write(directory.join("synced.1"), b"").unwrap();
        assert_eq!(Mark::read(&directory).unwrap(), None);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
