//! Commits of several keys, without sled's transactions.
//!
//! A transaction of sled's locks out every other call of the process, takes some eighty microseconds, and the first one
//! puts every later operation, in every store, behind the shared side of that lock for good. So a commit is made of
//! single-key writes, by a redo record (as in ARIES: Mohan et al., 1992, but for redo only):
//!
//! 1. The stripes of all its keys are held ([`Stripes`]), and its checks hold.
//! 2. What it writes is written down, as a record of the tree that sled itself makes: in parts if it is long, the first
//!    part last.
//! 3. The writes are made, in the order given.
//! 4. The record is removed, the first part first. Then the stripes are let go.
//!
//! sled's log is recovered as a prefix of what was written. A crash before the first part is in it leaves nothing of the
//! commit, and parts that nobody reads. After it, [`Commits::recover`] makes the writes again before anybody reads; that
//! cannot undo a later write to one of its keys, because such a write waited for the stripes and so comes after the
//! record's removal in the log. An error between 2 and 4 stops the engine: memory has half a commit, the next open the
//! whole of it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::stripes::{Mask, Stripes};
use crate::engine::{Check, EngineResult, Outcome, Write};
use crate::error::{EngineError, EngineErrorKind};

use super::fence::{Access, Fence};

/// Most bytes of one part: it is a value like any other.
const PART_BYTES: usize = 8 * 1024;

/// Most checks that are gone through for each write: reading its page once more costs no more than that.
const CHECKS_SEARCHED: usize = 16;

pub(super) struct Commits {
    pub(super) stripes: Stripes,
    next: AtomicU64,
}

/// The number by which a tree's keys are spread over stripes.
pub(super) fn number(tree: &str) -> u64 {
    u64::from(crc32c::crc32c(tree.as_bytes()))
}

/// A part's key: the commit's number, the part's.
fn part_key(commit: u64, part: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let (left, right) = key.split_at_mut(8);
    left.copy_from_slice(&commit.to_be_bytes());
    right.copy_from_slice(&part.to_be_bytes());
    key
}

impl Commits {
    pub(super) fn new() -> Self {
        Self { stripes: Stripes::new(), next: AtomicU64::new(1) }
    }

    /// Makes a commit of several keys.
    pub(super) fn commit(
        &self,
        fence: &Fence,
        records: &sled::Tree,
        checks: &[(sled::Tree, &Check)],
        writes: &[(sled::Tree, &Write)],
    ) -> EngineResult<Outcome> {
        let checked = checks.iter().map(|(_, check)| Mask::of(number(&check.tree), &check.key));
        let written = writes.iter().map(|(_, write)| Mask::of(number(&write.tree), &write.key));
        let _held = self.stripes.hold(checked.chain(written).fold(Mask::default(), Mask::and));
        for (tree, check) in checks {
            let found = fence.call(Access::Read, &check.tree, || tree.get(&check.key))?;
            if found.as_deref() != check.expected.as_deref() {
                return Ok(Outcome::Conflict);
            }
        }
        if writes.is_empty() {
            return Ok(Outcome::Applied);
        }
        // A page that cannot be read fails the commit here, where nothing is written yet.
        let checked = |write: &Write| {
            checks.iter().any(|(_, check)| check.key == write.key && check.tree == write.tree)
        };
        let unread = writes.iter().filter(|(_, write)| checks.len() > CHECKS_SEARCHED || !checked(write));
        for (tree, write) in unread {
            fence.call(Access::Read, &write.tree, || tree.get(&write.key))?;
        }
        let commit = self.next.fetch_add(1, Ordering::Relaxed);
        let record = encode(writes.iter().map(|(_, write)| *write));
        let starts = (0..record.len()).step_by(PART_BYTES);
        let ranges = starts.map(|from| from..record.len().min(from + PART_BYTES));
        let parts: Vec<(u32, Range<usize>)> = (0..).zip(ranges).collect();
        let begun = std::cell::Cell::new(false);
        let done = fence.call(Access::Write, "a commit", || {
            for (part, range) in parts.iter().rev() {
                begun.set(*part == 0);
                records.insert(part_key(commit, *part), record.get(range.clone()).unwrap_or_default())?;
            }
            let _some_may_be_visible = self.stripes.apply();
            for (tree, write) in writes {
                make(tree, write)?;
            }
            for (part, _) in &parts {
                records.remove(part_key(commit, *part))?;
            }
            Ok(Outcome::Applied)
        });
        if let Err(error) = &done
            && begun.get()
        {
            fence.stop(&format!("a commit failed half-way, and the next open completes it: {error}"));
        }
        done
    }

    /// Completes the commits that a crash left behind. To be called before anything else reads or writes.
    pub(super) fn recover(fence: &Fence, db: &sled::Db) -> EngineResult<()> {
        let mut left = std::collections::BTreeMap::<u64, Vec<(u32, sled::IVec)>>::new();
        let found = fence.call(Access::Read, "", || db.iter().collect::<sled::Result<Vec<_>>>())?;
        for (key, part) in found {
            let numbers = key.split_at_checked(8).and_then(|(commit, part)| {
                Some((u64::from_be_bytes(commit.try_into().ok()?), u32::from_be_bytes(part.try_into().ok()?)))
            });
            let (commit, number) = numbers.ok_or_else(|| damaged("a key that is none of a commit's"))?;
            left.entry(commit).or_default().push((number, part));
        }
        for (commit, parts) in left {
            if parts.first().is_some_and(|(number, _)| *number == 0) {
                let record: Vec<u8> = parts.iter().flat_map(|(_, part)| part.iter().copied()).collect();
                let writes = decode(&record).ok_or_else(|| damaged("a record that does not decode"))?;
                for write in &writes {
                    fence.call(Access::Write, &write.tree, || make(&db.open_tree(&write.tree)?, write))?;
                }
            }
            for (number, _) in parts {
                fence.call(Access::Write, "", || db.remove(part_key(commit, number)))?;
            }
        }
        Ok(())
    }
}

fn make(tree: &sled::Tree, write: &Write) -> sled::Result<()> {
    match &write.value {
        Some(value) => tree.insert(write.key.as_slice(), value.as_slice()).map(drop),
        None => tree.remove(write.key.as_slice()).map(drop),
    }
}

fn damaged(what: &str) -> EngineError {
    let message = format!("sled, commits under way: {what}; restore the store from a copy");
    EngineError::new(EngineErrorKind::Corrupt, message)
}

/// Every write: tree, key, whether there is a value, the value; each with its length before it. CRC-32C at the end.
fn encode<'w>(writes: impl Iterator<Item = &'w Write>) -> Vec<u8> {
    let mut record = Vec::with_capacity(512);
    let mut put = |bytes: &[u8]| {
        // The engine's limits keep all of them far below 4 GiB.
        record.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        record.extend_from_slice(bytes);
    };
    for write in writes {
        put(write.tree.as_bytes());
        put(&write.key);
        put(if write.value.is_some() { &[1] } else { &[0] });
        put(write.value.as_deref().unwrap_or_default());
    }
    let crc = crc32c::crc32c(&record);
    record.extend_from_slice(&crc.to_le_bytes());
    record
}

fn decode(record: &[u8]) -> Option<Vec<Write>> {
    let (mut rest, crc) = record.split_last_chunk::<4>()?;
    if crc32c::crc32c(rest).to_le_bytes() != *crc {
        return None;
    }
    let mut writes = Vec::new();
    while !rest.is_empty() {
        let mut take = || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (bytes, after) =
                after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            rest = after;
            Some(bytes)
        };
        let (tree, key, is_value, value) = (take()?, take()?, take()?, take()?);
        let value = match is_value {
            [1] => Some(value.to_vec()),
            [0] => None,
            _ => return None,
        };
        writes.push(Write { tree: String::from_utf8(tree.to_vec()).ok()?, key: key.to_vec(), value });
    }
    Some(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(tree: &str, key: &[u8], value: Option<&[u8]>) -> Write {
        Write { tree: tree.to_owned(), key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
    }

    #[test]
    fn a_record_comes_back_and_damage_is_found() {
        let writes = [write("3/7", b"k", Some(b"v")), write("", b"", None), write("q", &[0; 99], Some(b""))];
        let record = encode(writes.iter());
        let back = decode(&record).unwrap();
        let flat = |w: &Write| (w.tree.clone(), w.key.clone(), w.value.clone());
        assert!(back.iter().map(flat).eq(writes.iter().map(flat)));
        for at in 0..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_none(), "byte {at}");
            assert!(decode(&record[..at]).is_none(), "cut at {at}");
        }
    }

    /// Every state that a crash can leave: the record's parts come from the last to the first, and go from the first on.
    #[test]
    fn recovery_completes_what_has_its_first_part_and_forgets_the_rest() {
        let long = vec![7; 3 * PART_BYTES];
        let writes =
            [write("a", b"k", Some(b"new")), write("b", b"gone", None), write("a", b"long", Some(&long))];
        let record = encode(writes.iter());
        let parts: Vec<&[u8]> = record.chunks(PART_BYTES).collect();
        assert_eq!(parts.len(), 4);
        for made in 0..=writes.len() {
            for present in 0..=parts.len() {
                let db = sled::Config::new().temporary(true).open().unwrap();
                let fence = Fence::new(sled::Config::new());
                let (a, b) = (db.open_tree("a").unwrap(), db.open_tree("b").unwrap());
                a.insert("k", "old").unwrap();
                b.insert("gone", "old").unwrap();
                let whole = present == parts.len();
                if !whole && made > 0 {
                    continue;
                }
                for (number, part) in parts.iter().enumerate().rev().take(present) {
                    db.insert(part_key(9, number as u32), *part).unwrap();
                }
                for write in &writes[..made] {
                    make(&db.open_tree(&write.tree).unwrap(), write).unwrap();
                }
                Commits::recover(&fence, &db).unwrap();
                assert!(db.is_empty(), "nothing is left to recover");
                assert_eq!(a.get("k").unwrap().unwrap(), if whole { "new" } else { "old" });
                assert_eq!(a.get("long").unwrap().is_some(), whole);
                assert_eq!(b.get("gone").unwrap().is_none(), whole);
            }
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_that_names_it() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let fence = Fence::new(sled::Config::new());
        db.insert(part_key(1, 0), "no record").unwrap();
        let error = Commits::recover(&fence, &db).unwrap_err();
        assert_eq!(error.kind(), EngineErrorKind::Corrupt);
        assert!(error.to_string().contains("commits under way"), "{error}");
    }
}
