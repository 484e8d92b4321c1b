//! A mark of what was synced, beside an engine's files: two files that take turns, `synced.0` and `synced.1`, each with a
//! checksum, so that a torn one leaves the other.
//!
//! A mark is written after the sync that it speaks of, and is itself synced only when that is asked for. A crash may leave an
//! older one, or none, which asks for less than is there, and never for more.
//!
//! Format, numbers of 8 bytes, little endian: magic bytes (8), turn, the mark's own numbers; CRC-32C of all that (4 bytes).

use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::draft::sync_directory;
use crate::error::{EngineError, EngineErrorKind};

/// What an engine marks.
pub(super) trait Marked: Clone + PartialEq {
    const MAGIC: [u8; 8];

    /// Gives out what it says.
    fn numbers(&self, put: &mut dyn FnMut(u64));

    /// `None` if that makes no sense.
    fn from_numbers(numbers: &mut Numbers<'_>) -> Option<Self>;
}

/// Numbers of a mark, in the order in which they were given out.
pub(super) struct Numbers<'b>(&'b [u8]);

impl Numbers<'_> {
    pub(super) fn next(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }
}

pub(super) fn to_bytes<M: Marked>(mark: &M, turn: u64) -> Vec<u8> {
    let mut bytes = M::MAGIC.to_vec();
    let mut put = |number: u64| bytes.extend(number.to_le_bytes());
    put(turn);
    mark.numbers(&mut put);
    let sum = crc32c::crc32c(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// The mark and its turn. What follows it is the rest of a longer one.
pub(super) fn from_bytes<M: Marked>(bytes: &[u8]) -> Option<(u64, M)> {
    let mut numbers = Numbers(bytes.strip_prefix(&M::MAGIC)?);
    let turn = numbers.next()?;
    let mark = M::from_numbers(&mut numbers)?;
    let sum = u32::from_le_bytes(*numbers.0.first_chunk()?);
    let summed = bytes.get(..bytes.len() - numbers.0.len())?;
    (crc32c::crc32c(summed) == sum).then_some((turn, mark))
}

/// The newer of the two that are whole; `None` if neither is there: a store of an earlier release, or a crash.
pub(super) fn read<M: Marked>(directory: &Path) -> io::Result<Option<(u64, M)>> {
    let mut newest: Option<(u64, M)> = None;
    for path in paths(directory) {
        let bytes = match std::fs::read(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        if let Some(found) = from_bytes(&bytes)
            && newest.as_ref().is_none_or(|(turn, _)| found.0 > *turn)
        {
            newest = Some(found);
        }
    }
    Ok(newest)
}

pub(super) fn paths(directory: &Path) -> [PathBuf; 2] {
    ["synced.0", "synced.1"].map(|name| directory.join(name))
}

/// The error for something that was flushed and is not there.
pub(super) fn lost(directory: &Path, place: &str, what: &str) -> EngineError {
    let message = format!(
        "{place}: {what}, and with it records that were flushed: restore the store from a copy; or, to go on with what is \
         left, copy {} for safety, remove its files synced.0 and synced.1, and open it again",
        directory.display()
    );
    EngineError::new(EngineErrorKind::Corrupt, message)
}

/// The two files.
pub(super) struct MarkFiles<M> {
    files: [File; 2],
    turn: u64,
    /// What the newer one says.
    written: Option<M>,
}

impl<M: Marked> MarkFiles<M> {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let (turn, written) = read(directory)?.map_or((0, None), |(turn, mark)| (turn, Some(mark)));
        let open = |path| File::options().create(true).truncate(false).write(true).open(path);
        let [first, second] = paths(directory);
        Ok(Self { files: [open(first)?, open(second)?], turn, written })
    }

    /// [`MarkFiles::write`], where there is something new to say.
    pub(super) fn write_if_changed(&mut self, mark: &M) -> io::Result<()> {
        if self.written.as_ref() == Some(mark) { Ok(()) } else { self.write(mark) }
    }

    /// Cost: a write into the system's memory.
    pub(super) fn write(&mut self, mark: &M) -> io::Result<()> {
        self.turn += 1;
        self.written = None;
        let bytes = to_bytes(mark, self.turn);
        let [even, odd] = &mut self.files;
        let file = if self.turn.is_multiple_of(2) { even } else { odd };
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        self.written = Some(mark.clone());
        Ok(())
    }

    /// [`MarkFiles::write`] into both, durably. Cost: two syncs, of little.
    #[cfg(feature = "fjall")]
    pub(super) fn write_durably(&mut self, mark: &M, directory: &Path) -> io::Result<()> {
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

    #[derive(Debug, Clone, PartialEq)]
    struct One(u64);

    impl Marked for One {
        const MAGIC: [u8; 8] = *b"a number";

        fn numbers(&self, put: &mut dyn FnMut(u64)) {
            put(self.0);
        }

        fn from_numbers(numbers: &mut Numbers<'_>) -> Option<Self> {
            numbers.next().map(Self)
        }
    }

    #[test]
    fn a_torn_mark_leaves_the_one_before_it() {
        let directory = std::env::temp_dir().join(format!("exuvia-mark-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut files = MarkFiles::open(&directory).unwrap();
        files.write(&One(7)).unwrap();
        files.write(&One(8)).unwrap();
        assert_eq!(read(&directory).unwrap(), Some((2, One(8))));
        std::fs::write(directory.join("synced.0"), b"a nu").unwrap();
        assert_eq!(read(&directory).unwrap(), Some((1, One(7))));
        std::fs::write(directory.join("synced.1"), b"").unwrap();
        assert_eq!(read::<One>(&directory).unwrap(), None);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
