//! What the store owes: for every key the states it went through, and which of them are still allowed.
//!
//! 1. A key is changed by one thread only, so its states are a sequence. A state is entered in the
//!    sequence *before* the store is asked for it, and counted as returned after the store has answered.
//! 2. A flush covers, for every key, the last state that had returned when the flush was called. When
//!    the flush has returned, that state is owed: no earlier one may ever be seen again.
//! 3. A crash takes both marks (owed, entered) at its moment. What is read back must lie between them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::rig::Change;

/// Tree and key.
pub type Slot = (usize, Vec<u8>);

/// A value by its length and hash; `None` is absence.
pub type State = Option<(usize, u64)>;

/// What was read back from an image.
pub type Observed = BTreeMap<Slot, (usize, u64)>;

pub fn state_of(value: Option<&[u8]>) -> State {
    value.map(|bytes| (bytes.len(), fnv(bytes)))
}

pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[derive(Clone)]
struct History {
    states: Vec<State>,
    returned: usize,
    owed: usize,
}

impl History {
    fn new() -> Self {
        History { states: vec![None], returned: 0, owed: 0 }
    }
}

#[derive(Default)]
struct Ledger {
    keys: BTreeMap<Slot, History>,
    /// Batches: each a list of slots with the position of the batch's state in the slot's sequence.
    batches: Vec<Vec<(Slot, usize)>>,
}

#[derive(Default)]
pub struct Oracle(Mutex<Ledger>);

/// The marks of one moment: for every key the owed position and the sequence so far.
#[derive(Clone)]
pub struct Marks {
    keys: BTreeMap<Slot, (usize, Vec<State>)>,
    batches: Vec<Vec<(Slot, usize)>>,
}

/// What is wrong with an image.
#[derive(Default, Debug)]
pub struct Verdict {
    pub lost: usize,
    pub invented: usize,
    pub torn_batches: usize,
    pub example: String,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.lost + self.invented + self.torn_batches == 0
    }
}

impl Oracle {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters the changes of one operation; several are a batch.
    pub fn enter(&self, tree: usize, changes: &[Change]) {
        let mut ledger = self.lock();
        let mut batch = Vec::new();
        for (key, value) in changes {
            let slot = (tree, key.clone());
            let history = ledger.keys.entry(slot.clone()).or_insert_with(History::new);
            history.states.push(state_of(value.as_deref()));
            batch.push((slot, history.states.len() - 1));
        }
        if batch.len() > 1 {
            ledger.batches.push(batch);
        }
    }

    pub fn returned(&self, tree: usize, changes: &[Change]) {
        let mut ledger = self.lock();
        for (key, _) in changes {
            if let Some(history) = ledger.keys.get_mut(&(tree, key.clone())) {
                history.returned = history.states.len() - 1;
            }
        }
    }

    /// Before a flush: what it will cover.
    pub fn covered(&self) -> Vec<(Slot, usize)> {
        self.lock().keys.iter().map(|(slot, h)| (slot.clone(), h.returned)).collect()
    }

    /// After a flush has returned.
    pub fn owe(&self, covered: Vec<(Slot, usize)>) {
        let mut ledger = self.lock();
        for (slot, position) in covered {
            if let Some(history) = ledger.keys.get_mut(&slot) {
                history.owed = history.owed.max(position);
            }
        }
    }

    pub fn marks(&self) -> Marks {
        let ledger = self.lock();
        let keys = ledger.keys.iter().map(|(slot, h)| (slot.clone(), (h.owed, h.states.clone())));
        Marks { keys: keys.collect(), batches: ledger.batches.clone() }
    }

    /// The oracle of a store that was opened again after a crash and showed `observed`. Until a flush
    /// covers it, another crash may still bring back any state that the first one allowed.
    pub fn reopened(marks: &Marks, observed: &Observed) -> Self {
        let mut ledger = Ledger::default();
        for (slot, (owed, states)) in &marks.keys {
            let mut states: Vec<State> = states[*owed..].to_vec();
            states.push(observed.get(slot).copied());
            let returned = states.len() - 1;
            ledger.keys.insert(slot.clone(), History { states, returned, owed: 0 });
        }
        Oracle(Mutex::new(ledger))
    }
}

impl Marks {
    /// Compares what was read back with what is owed and allowed.
    pub fn judge(&self, observed: &Observed) -> Verdict {
        let mut verdict = Verdict::default();
        for (slot, (owed, states)) in &self.keys {
            let seen = observed.get(slot).copied();
            if states[*owed..].contains(&seen) {
                continue;
            }
            // Absence is always a loss, also where the sequence begins after the key was first written.
            let older = seen.is_none() || states[..*owed].contains(&seen);
            if older {
                verdict.lost += 1;
            } else {
                verdict.invented += 1;
            }
            if verdict.example.is_empty() {
                let key = String::from_utf8_lossy(&slot.1).into_owned();
                verdict.example = format!(
                    "tree {} key {key}: saw {}, owed state {owed} of {}",
                    slot.0,
                    if older { "an older state" } else { "a value never written" },
                    states.len() - 1
                );
            }
        }
        for slot in observed.keys().filter(|slot| !self.keys.contains_key(*slot)) {
            verdict.invented += 1;
            verdict.example = format!("tree {} key {:?} was never written", slot.0, slot.1);
        }
        verdict.torn_batches = self.batches.iter().filter(|batch| self.is_torn(batch, observed)).count();
        verdict
    }

    /// A batch is torn if one key shows its state or a later one and another key an earlier one.
    /// A state that occurs more than once in a sequence (absence, mostly) proves nothing.
    fn is_torn(&self, batch: &[(Slot, usize)], observed: &Observed) -> bool {
        let (mut after, mut before) = (false, false);
        for (slot, position) in batch {
            let Some((_, states)) = self.keys.get(slot) else {
                continue;
            };
            let seen = observed.get(slot).copied();
            let mut found = states.iter().enumerate().filter(|(_, s)| **s == seen).map(|(i, _)| i);
            let (Some(at), None) = (found.next(), found.next()) else {
                continue;
            };
            if at >= *position {
                after = true;
            } else {
                before = true;
            }
        }
        after && before
    }
}
