//! What is in a journal of fjall's, up to the first batch that is not whole: there fjall cuts it when it opens.
//!
//! A batch, numbers little endian: `1`, count (4 bytes), sequence number (8); its items; `3`, XXH3-64 of the items (8),
//! `FJL`, 3. An item: `2`, kind (1), compression (1), tree (8), length of the key (2), length of the value (4), of the value
//! as it is stored (4), key, stored value; or `4`, tree (8).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};

use xxhash_rust::xxh3::Xxh3;

const MAGIC: [u8; 4] = [b'F', b'J', b'L', 3];
const READ_BYTES: usize = 16 << 10;

/// The whole batches at the start of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Where they end.
    pub(super) bytes: u64,
    /// A checksum of their heads, which are not in fjall's: a sequence number decides which of two values is the newer.
    pub(super) heads: u32,
    /// The last sequence number of each tree in them.
    pub(super) last: BTreeMap<u64, u64>,
}

/// Whether the items of a batch are compared with its checksum. Who has just written them need not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    Lengths,
    Checksums,
}

impl Extent {
    /// Goes on to the end of the last whole batch, or of the one that reaches `limit` bytes. An error is the medium's: what
    /// cannot be parsed is an end.
    pub(super) fn read_on(&mut self, mut journal: &File, depth: Depth, limit: u64) -> io::Result<()> {
        journal.seek(SeekFrom::Start(self.bytes))?;
        let mut reader = BufReader::with_capacity(READ_BYTES, journal);
        let mut trees = Vec::new();
        while self.bytes < limit {
            trees.clear();
            match batch(&mut reader, depth, &mut trees) {
                Ok(Some(batch)) => {
                    self.bytes += batch.bytes;
                    self.heads = crc32c::crc32c_append(self.heads, &batch.number.to_le_bytes());
                    for tree in &trees {
                        self.last.insert(*tree, batch.number);
                    }
                }
                Ok(None) => break,
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

struct Batch {
    bytes: u64,
    /// The sequence number of all its items.
    number: u64,
}

/// One batch, and its trees. `None` if it is not whole.
fn batch(reader: &mut BufReader<&File>, depth: Depth, trees: &mut Vec<u64>) -> io::Result<Option<Batch>> {
    let mut bytes = 13;
    if take(reader)? != [1] {
        return Ok(None);
    }
    let count = u32::from_le_bytes(take(reader)?);
    let number = u64::from_le_bytes(take(reader)?);
    let mut sum = Xxh3::new();
    for _ in 0..count {
        let tag = take(reader)?;
        sum.update(&tag);
        let (tree, head, body) = match tag {
            [2] => {
                let head = take::<20>(reader)?;
                sum.update(&head);
                let (tree, body) = item(&head);
                (tree, 21, body)
            }
            [4] => {
                let head = take(reader)?;
                sum.update(&head);
                (u64::from_le_bytes(head), 9, 0)
            }
            _ => return Ok(None),
        };
        if trees.last() != Some(&tree) {
            trees.push(tree);
        }
        bytes += head + body;
        match depth {
            Depth::Checksums => add(reader, body, &mut sum)?,
            // Past the end of the file is no error here, and one at the next read.
            Depth::Lengths => reader.seek_relative(i64::try_from(body).unwrap_or(i64::MAX))?,
        }
    }
    if take(reader)? != [3] {
        return Ok(None);
    }
    let expected = u64::from_le_bytes(take(reader)?);
    let whole = take(reader)? == MAGIC && (depth == Depth::Lengths || sum.digest() == expected);
    Ok(whole.then_some(Batch { bytes: bytes + 13, number }))
}

/// The tree of an item, and how long key and stored value are together, by its head without the tag.
fn item(head: &[u8; 20]) -> (u64, u64) {
    let [_, _, t0, t1, t2, t3, t4, t5, t6, t7, k0, k1, _, _, _, _, v0, v1, v2, v3] = *head;
    let body = u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
    (u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]), body)
}

fn take<const N: usize>(reader: &mut BufReader<&File>) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Adds so many bytes to the checksum.
fn add(reader: &mut BufReader<&File>, mut bytes: u64, sum: &mut Xxh3) -> io::Result<()> {
    while bytes > 0 {
        let found = reader.fill_buf()?;
        let part = found.get(..usize::try_from(bytes).unwrap_or(usize::MAX)).unwrap_or(found);
        if part.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        sum.update(part);
        let read = part.len();
        reader.consume(read);
        bytes -= read as u64;
    }
    Ok(())
}
