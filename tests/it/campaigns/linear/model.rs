//! What a store does, one operation after the other: two keys, at every view, through every verb of a migration.

use super::Model;

/// Keys of the model. Which tables they are in is the world's affair.
pub const KEYS: usize = 2;

/// All that is known of a record; a view sees a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rec {
    /// Every write has its own.
    pub id: u32,
    pub note: u32,
    pub extra: u32,
    pub more: u32,
}

impl Rec {
    /// What a view shows of it.
    pub fn at(self, view: u32) -> Rec {
        match view {
            1 => Rec { id: self.id, note: self.note, ..Rec::default() },
            2 => Rec { id: self.id, extra: self.extra, ..Rec::default() },
            _ => Rec { note: 0, ..self },
        }
    }

    /// What a write at `view` leaves of what it cannot see, the record before.
    fn over(self, view: u32, before: Option<Rec>) -> Rec {
        let before = before.unwrap_or_default();
        match view {
            1 => Rec { extra: before.extra, more: before.more, ..self },
            2 => Rec { note: before.note, more: before.more, ..self },
            _ => Rec { note: before.note, ..self },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Settled(u32),
    Open { from: u32, to: u32, back: bool, fenced: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub place: Place,
    pub keys: [Option<Rec>; KEYS],
    at_begin: [Option<Rec>; KEYS],
}

/// One look or write of an operation that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read {
        key: usize,
        view: u32,
        seen: Option<Rec>,
    },
    /// It was there, but not this.
    Differs {
        key: usize,
        view: u32,
        from: Option<Rec>,
    },
    Write {
        key: usize,
        view: u32,
        rec: Rec,
    },
    Remove {
        key: usize,
        view: u32,
    },
}

impl Access {
    pub fn writes(&self) -> bool {
        matches!(self, Access::Write { .. } | Access::Remove { .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Begin { to: u32 },
    Rollback { fenced: bool },
    Resume,
    Restart,
    Contract,
    AbandonKeep,
    AbandonDiscard,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// All of it at one moment.
    All(Vec<Access>),
    Verb(Verb),
}

impl State {
    /// Settled at version 1.
    pub fn new(keys: [Option<Rec>; KEYS]) -> Self {
        State { place: Place::Settled(1), keys, at_begin: keys }
    }

    /// What a view shows; `None` if it may not look.
    fn read(&self, key: usize, view: u32) -> Option<Option<Rec>> {
        let (Place::Settled(oldest) | Place::Open { from: oldest, .. }) = self.place;
        (view >= oldest).then(|| self.keys[key].map(|rec| rec.at(view)))
    }

    /// The version that a writer of this view has to fit into: its own side.
    fn side(&self, view: u32) -> Option<u32> {
        match self.place {
            Place::Settled(stored) => (view >= stored).then_some(stored),
            Place::Open { to, fenced, .. } if view >= to => (!fenced).then_some(to),
            Place::Open { from, .. } => (view == from).then_some(from),
        }
    }

    fn access(&mut self, access: &Access) -> Option<()> {
        match *access {
            Access::Read { key, view, seen } => (self.read(key, view)? == seen).then_some(()),
            Access::Differs { key, view, from } => (self.read(key, view)? != from).then_some(()),
            Access::Write { key, view, rec } => {
                let side = self.side(view)?;
                // What this side cannot hold is refused, not dropped.
                if side != view && rec.at(side).at(view) != rec {
                    return None;
                }
                let mut new = rec.over(view, self.keys[key]);
                if let Place::Settled(stored) = self.place {
                    // There is nobody else to keep a field for.
                    new = new.at(stored);
                }
                self.keys[key] = Some(new);
                Some(())
            }
            Access::Remove { key, view } => {
                self.side(view)?;
                self.keys[key] = None;
                Some(())
            }
        }
    }

    fn settle(&mut self, version: u32) {
        self.place = Place::Settled(version);
        for rec in self.keys.iter_mut().flatten() {
            *rec = rec.at(version);
        }
    }

    fn verb(&mut self, verb: Verb) -> Option<()> {
        match (verb, self.place) {
            (Verb::Begin { to }, Place::Settled(from)) if to > from => {
                self.place = Place::Open { from, to, back: false, fenced: false };
                self.at_begin = self.keys;
            }
            (Verb::Rollback { fenced }, Place::Open { from, to, back: false, .. }) => {
                self.place = Place::Open { from, to, back: true, fenced };
            }
            (Verb::Resume, Place::Open { from, to, back: true, .. }) => {
                self.place = Place::Open { from, to, back: false, fenced: false };
            }
            (Verb::Restart, Place::Open { back: false, .. }) => {}
            (Verb::Contract, Place::Open { to, back: false, .. }) => self.settle(to),
            (Verb::AbandonKeep, Place::Open { from, back: true, .. }) => self.settle(from),
            (Verb::AbandonDiscard, Place::Open { from, back: true, .. }) => {
                self.keys = self.at_begin;
                self.settle(from);
            }
            _ => return None,
        }
        Some(())
    }
}

impl Model for State {
    type Op = Op;

    fn apply(&self, op: &Op) -> Option<Self> {
        let mut after = self.clone();
        match op {
            Op::All(accesses) => accesses.iter().try_for_each(|access| after.access(access))?,
            Op::Verb(verb) => after.verb(*verb)?,
        }
        Some(after)
    }

    fn only_looks(op: &Op) -> bool {
        matches!(op, Op::All(accesses) if !accesses.iter().any(Access::writes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: usize, view: u32, rec: Rec) -> Op {
        Op::All(vec![Access::Write { key, view, rec }])
    }

    /// What a writer cannot see survives him, until the migration closes on the side that has it not.
    #[test]
    fn each_side_keeps_what_the_other_one_wrote() {
        let start = State::new([Some(Rec { id: 1, note: 5, ..Rec::default() }), None]);
        let ops = [
            Op::Verb(Verb::Begin { to: 2 }),
            put(0, 2, Rec { id: 2, extra: 7, ..Rec::default() }),
            put(0, 1, Rec { id: 3, note: 6, ..Rec::default() }),
        ];
        let end = ops.iter().fold(start, |state, op| state.apply(op).expect("applies"));
        assert_eq!(end.keys[0], Some(Rec { id: 3, note: 6, extra: 7, more: 0 }));
        let contracted = end.apply(&Op::Verb(Verb::Contract)).expect("applies");
        assert_eq!(contracted.keys[0], Some(Rec { id: 3, extra: 7, ..Rec::default() }));
        assert!(contracted.apply(&put(0, 1, Rec::default())).is_none(), "below the floor");
        let back = end.apply(&Op::Verb(Verb::Rollback { fenced: true })).expect("applies");
        assert!(back.apply(&put(0, 2, Rec::default())).is_none(), "fenced");
        let kept = back.apply(&Op::Verb(Verb::AbandonKeep)).expect("applies");
        assert_eq!(kept.keys[0], Some(Rec { id: 3, note: 6, ..Rec::default() }));
        assert!(
            kept.apply(&put(0, 2, Rec { id: 4, extra: 1, ..Rec::default() })).is_none(),
            "it cannot be held"
        );
        assert!(kept.apply(&put(0, 2, Rec { id: 4, ..Rec::default() })).is_some());
        let as_it_was = back.apply(&Op::Verb(Verb::AbandonDiscard)).expect("applies");
        assert_eq!(as_it_was.keys[0], Some(Rec { id: 1, note: 5, ..Rec::default() }));
    }
}
