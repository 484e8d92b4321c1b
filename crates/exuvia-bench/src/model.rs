//! What every record has to be: one number for each key.
//!
//! Each key has one thread that may write it, so that what it holds is known exactly. The thread marks its number as
//! pending before the write and puts the new one after it; whoever reads the key compares only if the number was the same and
//! not pending before and after the read. So a read that raced a write is not compared, and every other one is.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const ABSENT: u32 = 1 << 31;
const PENDING: u32 = 1 << 30;
const REVISION: u32 = PENDING - 1;

/// What lies under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// This revision.
    Present(u32),
    /// Nothing.
    Absent,
    /// It is being written.
    Unknown,
}

/// What all keys hold.
#[derive(Debug)]
pub(crate) struct Model {
    keys: Vec<AtomicU32>,
    /// Keys below this were loaded or inserted, but for some of the last few.
    end: AtomicU64,
}

impl Model {
    /// `loaded` records at revision 0, and room for keys up to `room`.
    pub(crate) fn new(loaded: u64, room: u64) -> Self {
        let keys = (0..room.max(loaded)).map(|key| AtomicU32::new(if key < loaded { 0 } else { ABSENT }));
        Self { keys: keys.collect(), end: AtomicU64::new(loaded) }
    }

    /// Every key that was ever used is below this.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Keys below this can be used.
    pub(crate) fn room(&self) -> u64 {
        self.keys.len() as u64
    }

    fn slot(&self, key: u64) -> Option<&AtomicU32> {
        self.keys.get(usize::try_from(key).ok()?)
    }

    pub(crate) fn expected(&self, key: u64) -> Expected {
        match self.slot(key).map(|slot| slot.load(Ordering::Acquire)) {
            None => Expected::Absent,
            Some(state) if state & PENDING != 0 => Expected::Unknown,
            Some(state) if state & ABSENT != 0 => Expected::Absent,
            Some(state) => Expected::Present(state & REVISION),
        }
    }

    /// The revision that the next write of this key makes; by its own thread only.
    pub(crate) fn next_revision(&self, key: u64) -> u32 {
        let state = self.slot(key).map_or(0, |slot| slot.load(Ordering::Relaxed));
        ((state & REVISION) + 1) & REVISION
    }

    /// Marks a key as being written; by its own thread only. Answers what it was.
    pub(crate) fn begin(&self, key: u64) -> u32 {
        self.slot(key).map_or(ABSENT, |slot| slot.fetch_or(PENDING, Ordering::AcqRel))
    }

    /// It was written.
    pub(crate) fn written(&self, key: u64, revision: u32) {
        if let Some(slot) = self.slot(key) {
            slot.store(revision & REVISION, Ordering::Release);
        }
        self.end.fetch_max(key + 1, Ordering::Relaxed);
    }

    /// It was not written after all.
    pub(crate) fn restore(&self, key: u64, before: u32) {
        if let Some(slot) = self.slot(key) {
            slot.store(before, Ordering::Release);
        }
    }

    /// It was removed.
    pub(crate) fn removed(&self, key: u64) {
        if let Some(slot) = self.slot(key) {
            let revision = slot.load(Ordering::Relaxed) & REVISION;
            slot.store(ABSENT | revision, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_loaded_written_removed_and_written_again() {
        let model = Model::new(2, 4);
        assert_eq!((model.expected(1), model.expected(2)), (Expected::Present(0), Expected::Absent));
        let revision = model.next_revision(1);
        model.begin(1);
        assert_eq!(model.expected(1), Expected::Unknown);
        model.written(1, revision);
        assert_eq!(model.expected(1), Expected::Present(1));
        model.removed(1);
        assert_eq!(model.expected(1), Expected::Absent);
        model.written(1, model.next_revision(1));
        assert_eq!(model.expected(1), Expected::Present(2), "a revision is never used twice");
        model.written(3, model.next_revision(3));
        assert_eq!((model.end(), model.room()), (4, 4));
    }
}
