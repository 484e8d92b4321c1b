//! Changes of directory entries, as they wait for a sync.

use std::collections::{BTreeMap, HashMap};

#[derive(Clone)]
pub enum EntryOp {
    Link { dir: u64, name: String, ino: u64 },
    Unlink { dir: u64, name: String },
    Rename { from: (u64, String), to: (u64, String), ino: u64 },
}

impl EntryOp {
    pub fn touches(&self, wanted: u64) -> bool {
        match self {
            EntryOp::Link { dir, .. } | EntryOp::Unlink { dir, .. } => *dir == wanted,
            EntryOp::Rename { from, to, .. } => from.0 == wanted || to.0 == wanted,
        }
    }

    /// Whether an fsync (`data_only`: an fdatasync) of `wanted` must commit this under [`Order::Journal`](super::disk::Order).
    pub fn names(&self, wanted: u64, data_only: bool) -> bool {
        match self {
            EntryOp::Link { ino, .. } => *ino == wanted,
            EntryOp::Rename { ino, .. } => *ino == wanted && !data_only,
            EntryOp::Unlink { .. } => false,
        }
    }

    pub fn apply(&self, dirs: &mut HashMap<u64, BTreeMap<String, u64>>) {
        match self {
            EntryOp::Link { dir, name, ino } => {
                dirs.entry(*dir).or_default().insert(name.clone(), *ino);
            }
            EntryOp::Unlink { dir, name } => {
                dirs.entry(*dir).or_default().remove(name);
            }
            EntryOp::Rename { from, to, ino } => {
                dirs.entry(from.0).or_default().remove(&from.1);
                dirs.entry(to.0).or_default().insert(to.1.clone(), *ino);
            }
        }
    }
}
