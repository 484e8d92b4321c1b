//! Who may write which key, and who can see a commit: for engines whose own commits are not enough.
//!
//! fjall has no compare-and-swap, and its reads take the newest entry of a key, also that of a batch whose other keys
//! are not there yet; sled's transactions lock everybody out. So:
//!
//! 1. Every key belongs to one of 64 stripes. Whoever writes keys holds their stripes from before its checks until its
//!    writes can be read. Several are taken in ascending order, so that nobody waits for somebody who waits for him.
//! 2. A commit of several keys counts itself as begun before its first key can be seen, and as ended after the last.
//! 3. A read that may have overlapped one (not all that had begun had ended) is made again with the key's stripe held:
//!    then no commit with this key is half-way.
//! 4. Where there are snapshots, one is taken with all stripes held: no write is half-way, neither in the engine's order
//!    of writes nor here. A page of a scan that overlapped a commit is read again from one.

use crossbeam_utils::CachePadded;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering, fence};

const STRIPES: u32 = u64::BITS;

/// A set of stripes: one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::engine) struct Mask(u64);

impl Mask {
    #[cfg(any(feature = "fjall", test))]
    pub(in crate::engine) const ALL: Self = Self(u64::MAX);

    /// The stripe of a key: multiplicative hashing of its words (Knuth, "The Art of Computer Programming", 6.4), of which
    /// the upper bits are taken. Keys that follow one another do not share a stripe.
    #[inline]
    pub(in crate::engine) fn of(tree: u64, key: &[u8]) -> Self {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let with = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(ODD);
        let (words, rest) = key.as_chunks::<8>();
        let hash = words.iter().fold(with(0, tree), |hash, word| with(hash, u64::from_le_bytes(*word)));
        let hash = rest.iter().fold(hash, |hash, byte| with(hash, u64::from(*byte)));
        Self(1 << (hash >> (u64::BITS - STRIPES.ilog2())))
    }

    pub(in crate::engine) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The stripes, and the count of commits.
pub(in crate::engine) struct Stripes {
    locks: Vec<CachePadded<Mutex<()>>>,
    begun: CachePadded<AtomicU64>,
    ended: CachePadded<AtomicU64>,
}

/// Held by a commit of several keys while some of them may be visible.
pub(in crate::engine) struct Applying<'a>(&'a Stripes);

impl Stripes {
    pub(in crate::engine) fn new() -> Self {
        Self {
            locks: (0..STRIPES).map(|_| CachePadded::default()).collect(),
            begun: CachePadded::default(),
            ended: CachePadded::default(),
        }
    }

    /// Takes all stripes of the set.
    pub(in crate::engine) fn hold(&self, mask: Mask) -> impl Sized {
        let held = self.locks.iter().enumerate().filter(|(number, _)| mask.0 >> number & 1 == 1);
        held.map(|(_, lock)| lock.lock()).collect::<Vec<_>>()
    }

    /// Takes the stripe of one key.
    #[inline]
    pub(in crate::engine) fn hold_one(&self, tree: u64, key: &[u8]) -> impl Sized {
        self.locks.get(Mask::of(tree, key).0.trailing_zeros() as usize).map(|lock| lock.lock())
    }

    pub(in crate::engine) fn apply(&self) -> Applying<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Applying(self)
    }

    /// Before a read that has to know whether it overlapped a commit.
    #[inline]
    pub(in crate::engine) fn before_read(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether no commit was half-way since [`Self::before_read`].
    #[inline]
    pub(in crate::engine) fn was_quiet(&self, before: u64) -> bool {
        // What was read comes before this load (as in a sequence lock: Boehm, "Can seqlocks get along with
        // programming language memory models?", 2012).
        fence(Ordering::Acquire);
        self.begun.load(Ordering::Relaxed) == before
    }
}

impl Drop for Applying<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_overlaps_a_commit_is_told() {
        let stripes = Stripes::new();
        let before = stripes.before_read();
        assert!(stripes.was_quiet(before));
        let applying = stripes.apply();
        assert!(!stripes.was_quiet(before));
        let during = stripes.before_read();
        assert!(!stripes.was_quiet(during));
        // The earlier of two ends.
        let other = stripes.apply();
        drop(applying);
        assert!(!stripes.was_quiet(stripes.before_read()));
        drop(other);
        assert!(!stripes.was_quiet(during));
        assert!(stripes.was_quiet(stripes.before_read()));
    }

    #[test]
    fn a_set_is_held_whole_and_nothing_else() {
        let stripes = Stripes::new();
        let held = || -> Vec<usize> {
            let locks = stripes.locks.iter().enumerate();
            locks.filter(|(_, lock)| lock.try_lock().is_none()).map(|(number, _)| number).collect()
        };
        let stripe = |key: &[u8]| Mask::of(1, key).0.trailing_zeros() as usize;
        let mut expected: Vec<usize> = [b"a", b"b", b"c"].map(|key| stripe(key)).into();
        expected.sort_unstable();
        expected.dedup();
        assert!(expected.len() > 1);
        let set = [b"a", b"b", b"c"].iter().fold(Mask::default(), |set, key| set.and(Mask::of(1, *key)));
        let set = stripes.hold(set);
        assert_eq!(held(), expected);
        drop(set);
        let one = stripes.hold_one(1, b"c");
        assert_eq!(held(), [stripe(b"c")]);
        drop(one);
        assert!(held().is_empty());
    }

    #[test]
    fn neighbours_have_stripes_of_their_own() {
        let mut all = Mask::default();
        for n in 0..1000_u64 {
            all = all.and(Mask::of(1, &n.to_be_bytes()));
        }
        assert_eq!(all, Mask::ALL);
        assert_ne!(Mask::of(1, b"k"), Mask::of(2, b"k"));
    }
}
