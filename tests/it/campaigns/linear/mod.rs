//! Whether what concurrent threads saw could have happened one operation after the other.
//!
//! A history is a list of operations, each with the moments of its call and its return. It is linearizable if there is an
//! order in which every operation lies between its two moments and a plain, sequential model gives the same answers
//! (Herlihy and Wing, "Linearizability", 1990). [`check`] looks for one by trying (Wing and Gong, "Testing and verifying
//! concurrent objects", 1993), and remembers which sets of operations led to which state, so that it tries none twice
//! (Lowe, "Testing for linearizability", 2017).
//!
//! Used by `linearizable` with the system's threads, and by `schedules/` with chosen interleavings.

pub mod model;
pub mod program;
pub mod run;
pub mod types;
pub mod world;

use std::collections::HashSet;
use std::fmt::{Debug, Write};
use std::hash::Hash;

/// A sequential object.
pub trait Model: Clone + Eq + Hash + Debug {
    type Op: Debug + Clone;

    /// The state after `op`; `None` if it cannot give this answer in this state.
    fn apply(&self, op: &Self::Op) -> Option<Self>;

    /// Whether `op` changes nothing in any state.
    fn only_looks(op: &Self::Op) -> bool;
}

/// An operation of a history.
#[derive(Debug, Clone)]
pub struct Event<O> {
    /// Who made it, for the report only.
    pub who: String,
    pub op: O,
    pub call: u64,
    /// `None` if it was never known to have happened: it may have, at any time after its call, or not.
    pub ret: Option<u64>,
}

/// Operations of a history that [`check`] takes at once.
pub const EVENTS_MAX: usize = 128;

/// All states in which the history may have ended, begun in `start`, none if it is not linearizable; and besides the
/// operations of the longest order that was found, and the state after it.
fn search<M: Model>(start: &M, events: &[Event<M::Op>]) -> (HashSet<M>, Option<(u128, M)>) {
    assert!(events.len() <= EVENTS_MAX, "{} operations are too many for one check", events.len());
    let must: u128 = (0..events.len()).filter(|n| events[*n].ret.is_some()).map(|n| 1 << n).sum();
    let (mut ends, mut longest) = (HashSet::new(), None::<(u128, M)>);
    let mut seen: HashSet<(u128, M)> = HashSet::new();
    let mut open: Vec<(u128, M)> = vec![(0, start.clone())];
    while let Some((mut done, state)) = open.pop() {
        // An operation comes next if no other that is still to come had returned when it was called.
        let mut next = Vec::new();
        loop {
            let left = || (0..events.len()).filter(|n| done >> n & 1 == 0);
            let first_return = left().filter_map(|n| events[n].ret).min().unwrap_or(u64::MAX);
            next.clear();
            next.extend(left().filter(|n| events[*n].call < first_return));
            // A look that fits now may as well come now.
            let fits = |n: &&usize| {
                let Event { op, ret, .. } = &events[**n];
                M::only_looks(op) && ret.is_some() && state.apply(op).is_some()
            };
            match next.iter().find(fits) {
                Some(n) => done |= 1 << n,
                None => break,
            }
        }
        if !seen.insert((done, state.clone())) {
            continue;
        }
        if longest.as_ref().is_none_or(|(most, _)| most.count_ones() < done.count_ones()) {
            longest = Some((done, state.clone()));
        }
        for n in &next {
            if let Some(after) = state.apply(&events[*n].op) {
                open.push((done | 1 << n, after));
            }
        }
        if done & must == must {
            ends.insert(state);
        }
    }
    (ends, longest)
}

/// Whether the history is linearizable from `start`; the error is the history, to be read by a person.
pub fn check<M: Model>(start: M, events: &[Event<M::Op>]) -> Result<HashSet<M>, String> {
    let (ends, longest) = search(&start, events);
    if !ends.is_empty() {
        return Ok(ends);
    }
    let mut what = format!("not linearizable, from {start:?}:\n{}", show(events));
    if let Some((done, state)) = longest {
        let left: Vec<Event<M::Op>> =
            (0..events.len()).filter(|n| done >> n & 1 == 0).map(|n| events[n].clone()).collect();
        what += &format!("the longest order that was found leads to {state:?}, and leaves\n{}", show(&left));
    }
    Err(what)
}

pub fn show<O: Debug>(events: &[Event<O>]) -> String {
    let mut text = String::new();
    let mut sorted: Vec<&Event<O>> = events.iter().collect();
    sorted.sort_by_key(|event| event.call);
    for Event { who, op, call, ret } in sorted {
        let ret = ret.map_or_else(|| "?".to_owned(), |ret| ret.to_string());
        writeln!(text, "  {call:>4} to {ret:>4}  {who}: {op:?}").expect("a string takes it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct Register(u32);

    #[derive(Debug, Clone)]
    enum Op {
        Read(u32),
        Write(u32),
        /// From, to.
        Swap(u32, u32),
    }

    impl Model for Register {
        type Op = Op;

        fn apply(&self, op: &Op) -> Option<Self> {
            match *op {
                Op::Read(value) => (value == self.0).then(|| self.clone()),
                Op::Write(value) => Some(Register(value)),
                Op::Swap(from, to) => (from == self.0).then_some(Register(to)),
            }
        }

        fn only_looks(op: &Op) -> bool {
            matches!(op, Op::Read(_))
        }
    }

    fn history(events: &[(Op, u64, u64)]) -> Vec<Event<Op>> {
        let event = |(op, call, ret): &(Op, u64, u64)| {
            let ret = (*ret != 0).then_some(*ret);
            Event { who: String::new(), op: op.clone(), call: *call, ret }
        };
        events.iter().map(event).collect()
    }

    fn holds(events: &[(Op, u64, u64)]) -> bool {
        check(Register(0), &history(events)).is_ok()
    }

    #[test]
    fn what_one_thread_does_is_in_order() {
        assert!(holds(&[(Op::Write(1), 1, 2), (Op::Read(1), 3, 4)]));
        assert!(!holds(&[(Op::Write(1), 1, 2), (Op::Read(0), 3, 4)]), "a lost write");
        assert!(!holds(&[(Op::Write(1), 1, 2), (Op::Read(2), 3, 4)]), "a value that nobody wrote");
        assert!(
            !holds(&[(Op::Write(1), 1, 2), (Op::Write(2), 3, 4), (Op::Read(1), 5, 6)]),
            "a value that was overwritten"
        );
    }

    #[test]
    fn what_overlaps_is_in_any_order() {
        assert!(holds(&[(Op::Write(1), 1, 4), (Op::Read(0), 2, 3)]));
        assert!(holds(&[(Op::Write(1), 1, 4), (Op::Read(1), 2, 3)]));
        // Two writes at once may end either way, but all readers afterwards see the same.
        assert!(holds(&[
            (Op::Write(1), 1, 9),
            (Op::Write(2), 2, 8),
            (Op::Read(1), 10, 11),
            (Op::Read(1), 12, 13)
        ]));
        assert!(!holds(&[
            (Op::Write(1), 1, 9),
            (Op::Write(2), 2, 8),
            (Op::Read(1), 10, 11),
            (Op::Read(2), 12, 13)
        ]));
        // Readers may not see the newer value and then the older one.
        assert!(!holds(&[(Op::Write(1), 1, 9), (Op::Read(1), 2, 3), (Op::Read(0), 4, 5)]), "back in time");
    }

    #[test]
    fn one_of_two_swaps_wins() {
        assert!(!holds(&[(Op::Swap(0, 1), 1, 4), (Op::Swap(0, 2), 2, 3)]));
        assert!(holds(&[(Op::Swap(0, 1), 1, 4), (Op::Swap(1, 0), 2, 3), (Op::Swap(0, 5), 2, 6)]));
    }

    #[test]
    fn what_never_returned_happened_or_not() {
        assert!(holds(&[(Op::Write(1), 1, 0), (Op::Read(0), 2, 3), (Op::Read(1), 4, 5)]));
        assert!(holds(&[(Op::Write(1), 1, 0), (Op::Read(0), 2, 3)]));
        assert!(!holds(&[(Op::Write(1), 4, 0), (Op::Read(1), 2, 3)]), "seen before it was called");
        assert!(!holds(&[(Op::Write(1), 1, 0), (Op::Read(1), 2, 3), (Op::Read(0), 4, 5)]));
        let ends = check(Register(0), &history(&[(Op::Write(1), 1, 0)])).expect("linearizable");
        assert_eq!(ends, HashSet::from([Register(0), Register(1)]));
    }

    /// A write that would change nothing now may still have come later.
    #[test]
    fn a_write_of_what_is_there_is_no_look() {
        assert!(holds(&[(Op::Write(0), 1, 8), (Op::Write(1), 2, 3), (Op::Read(0), 4, 5)]));
    }

    /// Herlihy and Wing's shape of a hard case, many writers at once, is decided, and quickly.
    #[test]
    fn many_at_once() {
        let mut events: Vec<(Op, u64, u64)> = (1..=14).map(|n| (Op::Write(n), 1, 100)).collect();
        events.push((Op::Read(7), 101, 102));
        assert!(holds(&events));
        events.push((Op::Read(8), 103, 104));
        assert!(!holds(&events));
    }
}
