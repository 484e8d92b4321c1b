//! What the store is asked to do: a seeded mix of changes from several threads, flushed now and then.

use std::collections::BTreeMap;

use super::oracle::{Observed, Oracle, Slot};
use super::rig::{Change, Rig, TREES};
use super::rng::Rng;

/// Most bytes of a batch.
const BATCH_BYTES_MAX: usize = 250 << 10;

/// How long the values are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Values {
    /// 20 to 300 bytes.
    Small,
    /// Small, and 4 in 100 of 1 to 100 KiB: more than the limit of the engine, for sled by itself.
    Blobs,
    /// Small, 3 in 10 of up to 8 KiB, and 1 in 10 of up to the rig's limit.
    Mixed,
    /// The rig's limit to the byte, but for 1 in 10 that are small.
    Limit,
}

/// The switches of a variant.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub values: Values,
    /// The rig's limit.
    pub longest: u64,
    pub key_length: usize,
    /// Keys of a thread in a tree.
    pub keys: u64,
    pub batches: bool,
    pub threads: u64,
    pub ops: u64,
    /// A thread flushes after at most so many operations.
    pub flush_every: u64,
}

struct Worker<'a> {
    rig: &'a dyn Rig,
    oracle: &'a Oracle,
    rng: Rng,
    mix: Mix,
    id: u64,
    run: u64,
    counter: u64,
    /// What this thread's keys hold.
    held: BTreeMap<Slot, Vec<u8>>,
}

/// Runs the mix to its end or to the store's first error.
///
/// `found` is what the store held when it was opened. A thread owns its keys, so it knows what
/// they hold without asking.
pub fn run(
    rig: &dyn Rig,
    oracle: &Oracle,
    found: &Observed,
    mix: Mix,
    run: u64,
    rng: &Rng,
) -> Result<(), String> {
    std::thread::scope(|scope| {
        let spawn = |id: u64| {
            let held = found.keys().filter(|(_, key)| key.starts_with(prefix(id).as_bytes()));
            let held: Vec<Slot> = held.cloned().collect();
            let rng = rng.fork(id + 1);
            scope.spawn(move || {
                let mut worker = Worker { rig, oracle, rng, mix, id, run, counter: 0, held: BTreeMap::new() };
                for slot in held {
                    if let Some(value) = rig.get(slot.0, &slot.1)? {
                        worker.held.insert(slot, value);
                    }
                }
                worker.work()
            })
        };
        let handles: Vec<_> = (0..mix.threads).map(spawn).collect();
        let mut joined =
            handles.into_iter().map(|h| h.join().unwrap_or_else(|_| Err("worker panicked".into())));
        joined.try_fold((), |(), one| one)
    })
}

fn prefix(thread: u64) -> String {
    format!("t{thread}/")
}

impl Worker<'_> {
    fn work(&mut self) -> Result<(), String> {
        let mut until_flush = self.rng.within(1, self.mix.flush_every);
        for _ in 0..self.mix.ops {
            self.step()?;
            until_flush -= 1;
            if self.id == 0 && self.rng.chance(1) {
                self.rig.meanwhile()?;
            }
            if until_flush == 0 {
                let covered = self.oracle.covered();
                self.rig.flush()?;
                self.oracle.owe(covered);
                until_flush = self.rng.within(1, self.mix.flush_every);
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let slot = self.slot();
        match self.rng.within(0, 99) {
            0..=11 => {
                let changes = [(slot.1.clone(), None)];
                let rig = self.rig;
                self.change(slot.0, &changes, || rig.delete(slot.0, &slot.1))
            }
            12..=23 if self.held.contains_key(&slot) => {
                let old = self.held[&slot].clone();
                let new = self.value();
                let changes = [(slot.1.clone(), Some(new.clone()))];
                let rig = self.rig;
                self.change(slot.0, &changes, || rig.swap(slot.0, &slot.1, &old, &new))
            }
            24..=28 if self.mix.batches => {
                let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
                for _ in 0..self.rng.within(2, 10) {
                    let (_, key) = self.slot();
                    let value = self.value();
                    changes.insert(key, Some(value));
                }
                let mut changes: Vec<Change> = changes.into_iter().collect();
                let rig = self.rig;
                // The engine's own limit on a batch is 256 KiB.
                let mut left = BATCH_BYTES_MAX;
                changes.retain(|(key, value)| {
                    let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
                    let fits = bytes <= left;
                    left -= if fits { bytes } else { 0 };
                    fits
                });
                self.change(slot.0, &changes, || rig.batch(slot.0, &changes))
            }
            _ => {
                let value = self.value();
                let changes = [(slot.1.clone(), Some(value.clone()))];
                let rig = self.rig;
                self.change(slot.0, &changes, || rig.put(slot.0, &slot.1, &value))
            }
        }
    }

    fn change(
        &mut self,
        tree: usize,
        changes: &[Change],
        act: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        self.oracle.enter(tree, changes);
        act()?;
        self.oracle.returned(tree, changes);
        for (key, value) in changes {
            let slot = (tree, key.clone());
            match value {
                Some(value) => self.held.insert(slot, value.clone()),
                None => self.held.remove(&slot),
            };
        }
        Ok(())
    }

    fn slot(&mut self) -> Slot {
        let tree = self.rng.within(0, TREES as u64 - 1) as usize;
        // Half of the traffic goes to a few keys, so that pages are rewritten and segments freed.
        let key =
            if self.rng.chance(50) { self.rng.within(0, 15) } else { self.rng.within(0, self.mix.keys) };
        let mut key = format!("{}{key:04}", prefix(self.id)).into_bytes();
        // Noise, so that sled finds no common beginning to leave out but a short one.
        let seed = key.iter().fold(0, |sum, byte| sum * 31 + u64::from(*byte));
        let mut noise = Rng::new(seed);
        while key.len() < self.mix.key_length {
            key.push(b'a' + noise.within(0, 25) as u8);
        }
        (tree, key)
    }

    fn length(&mut self) -> u64 {
        let (small, longest) = ((20, 300), self.mix.longest);
        let (low, high) = match (self.mix.values, self.rng.within(0, 99)) {
            (Values::Blobs, 0..=3) => (1 << 10, 100 << 10),
            (Values::Mixed, 0..=9) => (8 << 10, longest),
            (Values::Mixed, 10..=39) => (300, 8 << 10),
            (Values::Limit, 10..) => (longest, longest),
            _ => small,
        };
        self.rng.within(low, high)
    }

    /// Every value is written once only: it names run, thread and count, and goes on with noise.
    fn value(&mut self) -> Vec<u8> {
        self.counter += 1;
        let length = self.length() as usize;
        let mut value = format!("{}.{}.{}.", self.run, self.id, self.counter).into_bytes();
        while value.len() < length {
            value.extend_from_slice(&self.rng.next().to_le_bytes());
        }
        // The name above is unique by itself and never longer than the shortest value.
        value.truncate(length);
        value
    }
}
