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
//! It is kept in [two files that take turns](crate::engine::synced), and is synced when a tree is dropped and when the engine is
//! closed; else the system writes it when it writes.
//!
//! Format, after the magic bytes `EXUVIASZ` and the turn: highest number, trees, each tree; journals, and for each its number,
//! bytes, checksum of heads, trees, and for each of these its number and last sequence number.

use std::collections::{BTreeMap, BTreeSet};

use super::batches::Extent;
use crate::engine::synced::{Marked, Numbers};

/// What has to be there when the directory is opened again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The highest number that a tree has had, also of one that was dropped.
    pub(super) highest: u64,
    pub(super) trees: BTreeSet<u64>,
    pub(super) journals: BTreeMap<u64, Extent>,
}

impl Marked for Mark {
    const MAGIC: [u8; 8] = *b"EXUVIASZ";

    fn numbers(&self, put: &mut dyn FnMut(u64)) {
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
    }

    fn from_numbers(numbers: &mut Numbers<'_>) -> Option<Self> {
        let mut mark = Self { highest: numbers.next()?, ..Self::default() };
        for _ in 0..numbers.next()? {
            mark.trees.insert(numbers.next()?);
        }
        for _ in 0..numbers.next()? {
            let number = numbers.next()?;
            let (bytes, heads) = (numbers.next()?, u32::try_from(numbers.next()?).ok()?);
            let mut extent = Extent { bytes, heads, last: BTreeMap::new() };
            for _ in 0..numbers.next()? {
                extent.last.insert(numbers.next()?, numbers.next()?);
            }
            mark.journals.insert(number, extent);
        }
        Some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::synced::{from_bytes, to_bytes};

    #[test]
    fn a_mark_comes_back_and_no_damaged_byte_of_it_does() {
        let last = BTreeMap::from([(3, 40), (5, 41)]);
        let journals =
            BTreeMap::from([(7, Extent { bytes: 1 << 26, heads: 77, last }), (8, Extent::default())]);
        let mark = Mark { highest: 6, trees: [1, 3, 5].into(), journals };
        let bytes = to_bytes(&mark, 9);
        assert_eq!(from_bytes(&bytes), Some((9, mark.clone())));
        let longer = [bytes.as_slice(), b"the rest of a longer one"].concat();
        assert_eq!(from_bytes(&longer), Some((9, mark)));
        for at in 0..bytes.len() {
            assert_eq!(from_bytes::<Mark>(&bytes[..at]), None, "cut to {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(from_bytes::<Mark>(&damaged), None, "bit {bit} of byte {at}");
            }
        }
    }
}
