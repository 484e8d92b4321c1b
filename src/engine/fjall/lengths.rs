//! Lengths that fjall believes before it looks whether they can be: it asks for so much memory, and where there is not so
//! much the process ends. Found by the corruption campaign. To be looked at before fjall opens a directory.
//!
//! - In a journal, the length of a value (4 bytes). What goes beyond the end of the file is what fjall would take for the torn
//!   end of the journal once it had the memory, and would cut off: so it is cut off before that. Not an error: a loss of power can
//!   leave a journal in which a value is taken for an entry.
//! - In a sorted file, the number of sections in its table of contents (4 bytes). It cannot be wrong by a loss of power, which
//!   leaves zeroes: so it is damage.
//!
//! A journal's entries, by their first byte: 1 begin (u32, u64), 2 item (type u8, compression u8, tree u64, key length u16, value
//! length u32, stored length u32, key, value), 3 end (u64, `FJL` and 3), 4 clear (u64). A sorted file ends with `SFA!`, two
//! bytes, a checksum (16), where the table of contents begins and its length (u64 each); that begins with `TOC!` and the number of
//! sections (u32), each of 18 bytes at least.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{EngineError, EngineErrorKind};

const TRAILER_BYTES: i64 = 38;
const SECTION_BYTES_MIN: u64 = 18;

/// A journal that has to be cut before fjall opens it.
pub(super) struct Overlong {
    journal: PathBuf,
    at: u64,
}

impl Overlong {
    pub(super) fn cut(&self) -> io::Result<()> {
        let file = File::options().write(true).open(&self.journal)?;
        file.set_len(self.at)?;
        file.sync_all()
    }
}

/// Changes nothing.
pub(super) fn check(directory: &Path, place: &str) -> Result<Vec<Overlong>, EngineError> {
    let io = |e: io::Error| EngineError::io(place, e);
    let mut found = Vec::new();
    for entry in directory.read_dir().map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "jnl")
            && let Some(at) = overlong(&path).map_err(io)?
        {
            found.push(Overlong { journal: path, at });
        }
    }
    let Some(trees) = listed(&directory.join("keyspaces")).map_err(io)? else {
        return Ok(found);
    };
    for tree in trees {
        for table in listed(&tree.map_err(io)?.path().join("tables")).map_err(io)?.into_iter().flatten() {
            let path = table.map_err(io)?.path();
            if is_overfull(&path).map_err(io)? {
                let message = format!(
                    "{place}: the table of contents of {} is damaged; restore the store from a copy",
                    path.display()
                );
                return Err(EngineError::new(EngineErrorKind::Corrupt, message));
            }
        }
    }
    Ok(found)
}

fn listed(directory: &Path) -> io::Result<Option<std::fs::ReadDir>> {
    match directory.read_dir() {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some),
    }
}

/// `None` where what is there ends before that.
fn take<const N: usize>(from: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match from.read_exact(&mut bytes) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(None),
        other => other.map(|()| Some(bytes)),
    }
}

/// Where the first entry of a journal begins that goes beyond the end of it. `None` also where fjall stops by itself.
fn overlong(path: &Path) -> io::Result<Option<u64>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut journal = BufReader::new(file);
    let mut at = 0;
    while let Some([kind]) = take(&mut journal)? {
        at += 1 + match kind {
            1 if take::<12>(&mut journal)?.is_some() => 12,
            2 => {
                let Some([_, 0, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v0, v1, v2, v3]) =
                    take::<20>(&mut journal)?
                else {
                    return Ok(None);
                };
                let content =
                    u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
                if at + 21 + content > len {
                    return Ok(Some(at));
                }
                journal.seek_relative(content.cast_signed())?;
                20 + content
            }
            3 if take::<12>(&mut journal)?.is_some_and(|end| end.ends_with(b"FJL\x03")) => 12,
            4 if take::<8>(&mut journal)?.is_some() => 8,
            _ => return Ok(None),
        };
    }
    Ok(None)
}

/// Whether a sorted file's table of contents has more sections than room.
fn is_overfull(path: &Path) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let meta = file.metadata()?;
    let len = meta.len();
    if !meta.is_file() || len < TRAILER_BYTES.cast_unsigned() {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-TRAILER_BYTES))?;
    let Some(trailer) = take::<38>(&mut file)? else {
        return Ok(false);
    };
    let begins = trailer.get(22..30).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    let Some(begins) = begins.filter(|_| trailer.starts_with(b"SFA!")) else {
        return Ok(false);
    };
    if begins > len {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(begins))?;
    let Some([b'T', b'O', b'C', b'!', n0, n1, n2, n3]) = take::<8>(&mut file)? else {
        return Ok(false);
    };
    Ok(u64::from(u32::from_le_bytes([n0, n1, n2, n3])) > (len - begins) / SECTION_BYTES_MIN)
}
